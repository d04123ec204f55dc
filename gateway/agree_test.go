package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/keyops/keyopstest"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// TestBadPoints shows DeriveSharedSecret public keys that would give a careless token's key
// away, by gRPC and by REST. Every one is refused by the same words, before the token.
func TestBadPoints(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Identities: aliceMayAll})
	s := serveRegion(t, r, nil)
	ctx := context.Background()
	keys, crypto := kmsv1.NewKeyServiceClient(s.grpc), kmsv1.NewCryptoServiceClient(s.grpc)
	made, err := keys.CreateKey(ctx, &kmsv1.CreateKeyRequest{KeySpec: "ECC_NIST_P256", KeyUsage: "KEY_AGREEMENT"})
	must(t, err)
	key := made.GetKeyMetadata().GetArn()

	curve := elliptic.P256()
	good := publicKeyOf(t, ecdh.P256())
	prefix, point := good[:len(good)-65], good[len(good)-65:]
	// spki encodes any bytes as a point of P-256, with the right lengths around them.
	spki := func(point []byte) []byte {
		algorithm := prefix[2 : len(prefix)-3]
		bits, err := asn1.Marshal(asn1.BitString{Bytes: point, BitLength: 8 * len(point)})
		must(t, err)
		der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(bytes.Clone(algorithm), bits...)})
		must(t, err)
		return der
	}
	if !bytes.Equal(spki(point), good) {
		t.Fatal("the encoding of a good point is another one than the standard library's")
	}
	x, y := new(big.Int).SetBytes(point[1:33]), new(big.Int).SetBytes(point[33:])
	prime := curve.Params().P
	coordinates := func(x, y *big.Int) []byte {
		b := make([]byte, 65)
		b[0] = 4
		x.FillBytes(b[1:33])
		y.FillBytes(b[33:])
		return spki(b)
	}
	off := bytes.Clone(point)
	off[64] ^= 1
	hybrid := bytes.Clone(point)
	hybrid[0] = 6 | point[64]&1
	compressed := append([]byte{2 | point[64]&1}, point[1:33]...)
	zero, one := new(big.Int), big.NewInt(1)
	explicit := bytes.Replace(good, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, []byte{0x2b, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, 1)

	for name, der := range map[string][]byte{
		"no point":                   spki(nil),
		"infinity":                   spki([]byte{0}),
		"infinity, padded":           spki(make([]byte, 65)),
		"the origin":                 coordinates(zero, zero),
		"off the curve":              spki(off),
		"x of one, y of one":         coordinates(one, one),
		"the next y":                 coordinates(x, new(big.Int).Mod(new(big.Int).Add(y, one), prime)),
		"x of the prime":             coordinates(prime, y),
		"x above the prime":          coordinates(new(big.Int).Sub(new(big.Int).Lsh(one, 256), one), y),
		"compressed":                 spki(compressed),
		"hybrid":                     spki(hybrid),
		"cut short":                  spki(point[:64]),
		"longer":                     spki(append(bytes.Clone(point), 0)),
		"another curve":              publicKeyOf(t, ecdh.P384()),
		"another family":             publicKeyOf(t, ecdh.X25519()),
		"an unknown curve":           explicit,
		"a bare point":               point,
		"bytes after":                append(bytes.Clone(good), 0),
		"a sequence of nothing":      {0x30, 0},
		"not DER":                    []byte("point"),
		"length longer than it is":   append([]byte{0x30, 0x82, 0xff, 0xff}, good[2:]...),
		"length in more than it may": append([]byte{0x30, 0x81, 0x59}, good[2:]...),
	} {
		t.Run(name, func(t *testing.T) {
			before := r.Fake.Calls()["C_DeriveKey"]
			_, err := crypto.DeriveSharedSecret(ctx, &kmsv1.DeriveSharedSecretRequest{KeyId: key, PublicKey: der, KeyAgreementAlgorithm: "ECDH"})
			const words = "The public key must be a DER-encoded SubjectPublicKeyInfo with an uncompressed point on the curve of key spec ECC_NIST_P256."
			if st := status.Convert(err); st.Code() != codes.InvalidArgument || st.Message() != words {
				t.Errorf("gRPC: %v", err)
			}
			got := s.post("/v1/derive-shared-secret", fmt.Sprintf(`{"keyId":%q,"keyAgreementAlgorithm":"ECDH","publicKey":%q}`, key, base64.StdEncoding.EncodeToString(der)))
			if got.code != 400 || !strings.Contains(got.body, words) || !strings.Contains(got.body, "ValidationException") {
				t.Errorf("REST: %d %s", got.code, got.body)
			}
			if after := r.Fake.Calls()["C_DeriveKey"]; after != before {
				t.Errorf("the token was asked %d times", after-before)
			}
		})
	}
	_, err = crypto.DeriveSharedSecret(ctx, &kmsv1.DeriveSharedSecretRequest{KeyId: key, KeyAgreementAlgorithm: "ECDH"})
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || !strings.Contains(st.Message(), "'publicKey'") {
		t.Errorf("no public key: %v", err)
	}
	if _, err := crypto.DeriveSharedSecret(ctx, &kmsv1.DeriveSharedSecretRequest{KeyId: key, PublicKey: good, KeyAgreementAlgorithm: "ECDH"}); err != nil {
		t.Errorf("a good point: %v", err)
	}
}

func publicKeyOf(t *testing.T, c ecdh.Curve) []byte {
	t.Helper()
	k, err := c.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(k.PublicKey())
	must(t, err)
	return der
}
