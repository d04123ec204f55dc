package keyops

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"

	"github.com/keyferry/keyferry/keyops/policy"
)

// pairSpecs is every kind of data key pair that is made here. Data key pairs are the
// caller's, for use outside the service, so this process makes them, and no token sees them.
var pairSpecs = []struct {
	spec DataKeyPairSpec
	slow bool // takes so long that few are made at once
	make func() (pkcs8, spki []byte, err error)
}{
	{"RSA_2048", true, rsaPair(2048)},
	{"RSA_3072", true, rsaPair(3072)},
	{"RSA_4096", true, rsaPair(4096)},
	{"ECC_NIST_P256", false, ecPair(elliptic.P256())},
	{"ECC_NIST_P384", false, ecPair(elliptic.P384())},
	{"ECC_NIST_P521", false, ecPair(elliptic.P521())},
	{"ECC_SECG_P256K1", false, secp256k1Pair},
	{"ECC_NIST_EDWARDS25519", false, ed25519Pair},
}

// GenerateDataKeyPair makes a key pair, and returns its private key in plain and encrypted.
func (s *Service) GenerateDataKeyPair(ctx context.Context, caller Caller, in GenerateDataKeyPairInput) (GenerateDataKeyPairOutput, error) {
	return s.dataKeyPair(ctx, caller, "GenerateDataKeyPair", in)
}

// GenerateDataKeyPairWithoutPlaintext makes a key pair, and returns its private key
// encrypted only.
func (s *Service) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, caller Caller, in GenerateDataKeyPairWithoutPlaintextInput) (GenerateDataKeyPairWithoutPlaintextOutput, error) {
	out, err := s.dataKeyPair(ctx, caller, "GenerateDataKeyPairWithoutPlaintext", GenerateDataKeyPairInput(in))
	clear(out.PrivateKeyPlaintext)
	return GenerateDataKeyPairWithoutPlaintextOutput{
		PrivateKeyCiphertextBlob: out.PrivateKeyCiphertextBlob, PublicKey: out.PublicKey,
		KeyID: out.KeyID, KeyPairSpec: out.KeyPairSpec, KeyMaterialID: out.KeyMaterialID,
	}, err
}

func (s *Service) dataKeyPair(ctx context.Context, caller Caller, name string, in GenerateDataKeyPairInput) (GenerateDataKeyPairOutput, error) {
	says := append(saysEncrypting(""), say{policy.DataKeyPairSpec, string(in.KeyPairSpec)})
	t := target{ref: in.KeyID, tokens: in.GrantTokens, context: in.EncryptionContext, says: says}
	return do(ctx, s, caller, name, t, func(ctx context.Context, c *call) (GenerateDataKeyPairOutput, error) {
		if err := c.check(EncryptDecrypt, "", "", AlgorithmSymmetricDefault); err != nil {
			return GenerateDataKeyPairOutput{}, err
		}
		if err := checkPairSpec(in.KeyPairSpec); err != nil {
			return GenerateDataKeyPairOutput{}, err
		}
		var private, public []byte
		if !in.DryRun {
			// Whether the key can encrypt is cheaper to find out than a pair is to make.
			if _, err := c.key.current(); err != nil {
				return GenerateDataKeyPairOutput{}, err
			}
			var err error
			if private, public, err = s.makePair(ctx, in.KeyPairSpec); err != nil {
				return GenerateDataKeyPairOutput{}, err
			}
		}
		blob, id, err := s.seal(ctx, c.key, private, in.EncryptionContext, in.DryRun)
		if err != nil {
			clear(private)
			return GenerateDataKeyPairOutput{}, err
		}
		return GenerateDataKeyPairOutput{
			PrivateKeyCiphertextBlob: blob, PrivateKeyPlaintext: private, PublicKey: public,
			KeyID: c.key.arn, KeyPairSpec: in.KeyPairSpec, KeyMaterialID: id.String(),
		}, nil
	})
}

func checkPairSpec(spec DataKeyPairSpec) error {
	var names []DataKeyPairSpec
	for _, row := range pairSpecs {
		if row.spec == spec {
			return nil
		}
		names = append(names, row.spec)
	}
	if spec == "SM2" {
		return refuse(ErrUnsupportedOperation, "Data key pairs of spec SM2 are made in AWS's Regions in China only, and not here; the others are %v.", names)
	}
	return invalid("keyPairSpec", "satisfy enum value set: %v", names)
}

// makePair makes a key pair. An RSA pair may take seconds of one processor, and cannot be
// broken off: callers wait for their turn, or until their context ends, so that a few callers
// cannot take all processors from everybody.
func (s *Service) makePair(ctx context.Context, spec DataKeyPairSpec) (private, public []byte, err error) {
	for _, row := range pairSpecs {
		switch {
		case row.spec != spec:
			continue
		case !row.slow:
			private, public, err = row.make()
		default:
			private, public, err = s.makeSlowly(ctx, row.make)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("making a %s key pair: %w", spec, err)
		}
		return private, public, nil
	}
	return nil, nil, internal(fmt.Errorf("no row for key pair spec %q", spec))
}

func (s *Service) makeSlowly(ctx context.Context, generate func() ([]byte, []byte, error)) ([]byte, []byte, error) {
	select {
	case s.pairs <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	type pair struct {
		private, public []byte
		err             error
	}
	made := make(chan pair, 1)
	go func() {
		defer func() { <-s.pairs }()
		private, public, err := generate()
		made <- pair{private, public, err}
	}()
	select {
	case p := <-made:
		return p.private, p.public, p.err
	case <-ctx.Done():
		go func() { clear((<-made).private) }()
		return nil, nil, ctx.Err()
	}
}

func rsaPair(bits int) func() ([]byte, []byte, error) {
	return func() ([]byte, []byte, error) {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, nil, err
		}
		defer wipe(append(k.Primes, k.D, k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv)...)
		return encodePair(k, &k.PublicKey)
	}
}

func ecPair(curve elliptic.Curve) func() ([]byte, []byte, error) {
	return func() ([]byte, []byte, error) {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		return encodePair(k, &k.PublicKey)
	}
}

func ed25519Pair() ([]byte, []byte, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	defer clear(private)
	return encodePair(private, public)
}

func encodePair(private, public any) (pkcs8, spki []byte, err error) {
	if spki, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return nil, nil, err
	}
	pkcs8, err = x509.MarshalPKCS8PrivateKey(private)
	return pkcs8, spki, err
}

// wipe overwrites numbers. Go keeps copies that nobody can reach, so this shortens the time
// that a private key is in memory rather than ending it.
func wipe(numbers ...*big.Int) {
	for _, n := range numbers {
		if n != nil {
			clear(n.Bits())
		}
	}
}
