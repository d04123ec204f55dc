package ceremony

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/keyferry/keyferry/keyops/statement"
)

// LoadOperatorKey reads an operator's private key: PKCS #8 in PEM, ECDSA P-256 or P-384 or
// Ed25519, in a file that is closed to others.
func LoadOperatorKey(path string) (crypto.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > 1<<16 {
		return nil, fmt.Errorf("operator key %s: want a regular file that only its owner can read", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("operator key %s: want a PEM block PRIVATE KEY", path)
	}
	defer clear(block.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("operator key %s: not a PKCS #8 key", path) // the cause may quote the key
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("operator key %s: %w", path, statement.ErrKey)
	}
	if err := statement.CheckKey(s.Public()); err != nil {
		return nil, fmt.Errorf("operator key %s: %w", path, err)
	}
	return s, nil
}

// NewOperatorKey makes a P-256 key for development. In production operators bring their
// own, on devices of their own.
func (t Tool) NewOperatorKey(path string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	defer clear(der)
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return err
	}
	if err := statement.WriteNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	if err := statement.WriteNew(path+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0o644); err != nil {
		return err
	}
	t.say("operator key %s, public half %s.pub, fingerprint %s", path, path, statement.Fingerprint(spki))
	return nil
}
