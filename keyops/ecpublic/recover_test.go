package ecpublic_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1 "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/keyferry/keyferry/keyops/ecpublic"
)

var curves = []struct {
	ours *ecpublic.Curve
	std  elliptic.Curve
	ecdh ecdh.Curve
}{
	{ecpublic.P256, elliptic.P256(), ecdh.P256()},
	{ecpublic.P384, elliptic.P384(), ecdh.P384()},
	{ecpublic.P521, elliptic.P521(), ecdh.P521()},
}

// sign returns a signature of a fresh digest: a longer one than the curve takes, too.
func sign(t *testing.T, k *ecdsa.PrivateKey, message string) ecpublic.Signature {
	t.Helper()
	digest := sha512.Sum512([]byte(message))
	der, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return ecpublic.Signature{Digest: digest[:], DER: der}
}

func TestFromSignatures(t *testing.T) {
	for _, c := range curves {
		t.Run(c.ours.Name, func(t *testing.T) {
			for range 8 {
				k, err := ecdsa.GenerateKey(c.std, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				want, err := k.PublicKey.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				got, err := ecpublic.FromSignatures(c.ours, sign(t, k, "one"), sign(t, k, "two"))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("recovered %x, %v; want %x", got, err, want)
				}
			}
		})
	}
}

// TestSignaturesOfTwoKeys recovers nothing from what two keys have signed.
func TestSignaturesOfTwoKeys(t *testing.T) {
	one, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	two, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	first, second := sign(t, one, "one"), sign(t, two, "two")
	if q, err := ecpublic.FromSignatures(ecpublic.P256, first, second); !errors.Is(err, ecpublic.ErrNoKey) {
		t.Errorf("recovered %x, %v", q, err)
	}
	if _, err := ecpublic.FromSignatures(ecpublic.P256, first, first); err == nil {
		t.Error("two signatures of one digest were taken")
	}
}

func TestMalformedSignatures(t *testing.T) {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	good := sign(t, k, "good")
	encode := func(r, s *big.Int) []byte {
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	one, n := big.NewInt(1), elliptic.P256().Params().N
	for name, der := range map[string][]byte{
		"empty": nil, "no DER": []byte("signature"), "bytes after it": append(bytes.Clone(good.DER), 0),
		"r = 0": encode(new(big.Int), one), "s = 0": encode(one, new(big.Int)), "r = n": encode(n, one), "s = n": encode(one, n), "r < 0": encode(big.NewInt(-1), one),
	} {
		digest := sha256.Sum256([]byte(name))
		bad := ecpublic.Signature{Digest: digest[:], DER: der}
		if q, err := ecpublic.FromSignatures(ecpublic.P256, bad, good); !errors.Is(err, ecpublic.ErrNoKey) {
			t.Errorf("%s: recovered %x, %v", name, q, err)
		}
	}
}

func TestFromAgreement(t *testing.T) {
	for _, c := range curves {
		t.Run(c.ours.Name, func(t *testing.T) {
			k, err := c.ecdh.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			g, err := c.ecdh.NewPublicKey(c.ours.Generator())
			if err != nil {
				t.Fatal(err)
			}
			secret, err := k.ECDH(g)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ecpublic.FromAgreement(c.ours, secret)
			if err != nil {
				t.Fatal(err)
			}
			want, n := k.PublicKey().Bytes(), c.ours.Bytes()
			if !bytes.Equal(got[:1+n], want[:1+n]) || got[2*n]&1 != 0 {
				t.Errorf("recovered %x, want the x of %x and an even y", got, want)
			}
			// The two have to agree with everybody on the same secrets.
			peer, err := c.ecdh.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := k.ECDH(peer.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			recovered, err := c.ecdh.NewPublicKey(got)
			if err != nil {
				t.Fatal(err)
			}
			if ours, err := peer.ECDH(recovered); err != nil || !bytes.Equal(ours, theirs) {
				t.Errorf("agreed on %x, %v; want %x", ours, err, theirs)
			}
		})
	}
}

func TestAgreementOfNoKey(t *testing.T) {
	notX := make([]byte, 32) // every second x is no coordinate; find one
	for i := byte(1); ; i++ {
		notX[31] = i
		if _, err := ecpublic.FromAgreement(ecpublic.P256, notX); errors.Is(err, ecpublic.ErrNoKey) {
			break
		} else if i == 255 {
			t.Fatal("every x was taken")
		}
	}
	for name, secret := range map[string][]byte{"short": make([]byte, 31), "long": make([]byte, 33), "the field's prime": elliptic.P256().Params().P.Bytes()} {
		if q, err := ecpublic.FromAgreement(ecpublic.P256, secret); !errors.Is(err, ecpublic.ErrNoKey) {
			t.Errorf("%s: recovered %x, %v", name, q, err)
		}
	}
}

// TestSecp256k1 recovers keys of the curve that the standard library lacks.
func TestSecp256k1(t *testing.T) {
	for range 8 {
		k, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		sign := func(message string) ecpublic.Signature {
			digest := sha256.Sum256([]byte(message))
			return ecpublic.Signature{Digest: digest[:], DER: k1.Sign(k, digest[:]).Serialize()}
		}
		want := k.PubKey().SerializeUncompressed()
		got, err := ecpublic.FromSignatures(ecpublic.Secp256k1, sign("one"), sign("two"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("recovered %x, %v; want %x", got, err, want)
		}
		got, err = ecpublic.FromAgreement(ecpublic.Secp256k1, want[1:33])
		if err != nil || !bytes.Equal(got[:33], want[:33]) || got[64]&1 != 0 {
			t.Errorf("recovered %x, %v, from the agreement; want the x of %x and an even y", got, err, want)
		}
	}
}
