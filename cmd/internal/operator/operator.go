// Package operator is what operators do on machines of their own: load their key, see what
// they are asked for, and approve it.
//
// A key file has a memory beside it, KEY.signed: for each series of numbered requests the
// highest number that the key has approved, and for which target. A number that went to one
// target, or a lower one, is never approved for another: two Regions with the same claim to
// a key would be two primary Regions. The memory is as trustworthy as the disk it is on;
// whoever moves a key to another machine moves both files.
//
// A [Key] is used by one goroutine; processes that use the same key file take turns.
package operator

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// MemorySuffix follows the name of a key file in the name of its memory.
const MemorySuffix = ".signed"

// Key is an operator's private key with its memory.
type Key struct {
	crypto.Signer
	path string
}

// Load reads an operator's private key: PKCS #8 in PEM, ECDSA P-256 or P-384 or Ed25519, in
// a file that is closed to others.
func Load(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > 1<<16 {
		return Key{}, fmt.Errorf("operator key %s: want a regular file that only its owner can read", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return Key{}, err
	}
	defer clear(b)
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return Key{}, fmt.Errorf("operator key %s: want a PEM block PRIVATE KEY", path)
	}
	defer clear(block.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("operator key %s: not a PKCS #8 key", path) // the cause may quote the key
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return Key{}, fmt.Errorf("operator key %s: %w", path, statement.ErrKey)
	}
	if err := statement.CheckKey(s.Public()); err != nil {
		return Key{}, fmt.Errorf("operator key %s: %w", path, err)
	}
	return Key{Signer: s, path: path}, nil
}

// Generate makes a P-256 key for development at path, its public half at path.pub, and
// returns the fingerprint. In production operators bring their own, on devices of their own.
func Generate(path string) (fingerprint string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", err
	}
	defer clear(der)
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return "", err
	}
	if err := statement.WriteNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return "", err
	}
	err = statement.WriteNew(path+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0o644)
	return statement.Fingerprint(spki), err
}

// Approve signs the request, unless this key has given its number to another target. The
// memory is durable before the signature exists.
func (k Key) Approve(ctx context.Context, q approval.Request) (_ statement.File, err error) {
	lock, err := os.Open(k.path)
	if err != nil {
		return statement.File{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return statement.File{}, fmt.Errorf("locking %s: %w", k.path, err)
	}
	if err := remember(k.path+MemorySuffix, q); err != nil {
		return statement.File{}, err
	}
	return approval.Sign(ctx, k, q)
}
