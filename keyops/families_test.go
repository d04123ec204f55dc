package keyops_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/spki"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// place is a key in one Region.
type place struct {
	*keyopstest.Region
	key string
}

// family is a kind of key, and what is tried with two places where it is: what the one makes
// the other has to take.
type family struct {
	spec  keyops.KeySpec
	usage keyops.KeyUsage
	try   func(t *testing.T, a, b place)
}

func (f family) String() string { return string(f.spec) + " " + string(f.usage) }

var families = []family{
	{keyops.SymmetricDefault, keyops.EncryptDecrypt, trySymmetric},
	{keyops.HMAC224, keyops.GenerateVerifyMac, tryMAC("HMAC_SHA_224", 28)},
	{keyops.HMAC256, keyops.GenerateVerifyMac, tryMAC("HMAC_SHA_256", 32)},
	{keyops.HMAC384, keyops.GenerateVerifyMac, tryMAC("HMAC_SHA_384", 48)},
	{keyops.HMAC512, keyops.GenerateVerifyMac, tryMAC("HMAC_SHA_512", 64)},
	{keyops.RSA2048, keyops.EncryptDecrypt, tryOAEP(214, 190)},
	{keyops.RSA3072, keyops.EncryptDecrypt, tryOAEP(342, 318)},
	{keyops.RSA4096, keyops.EncryptDecrypt, tryOAEP(470, 446)},
	{keyops.RSA2048, keyops.SignVerify, trySigning(rsaSigning...)},
	{keyops.RSA3072, keyops.SignVerify, trySigning(rsaSigning...)},
	{keyops.RSA4096, keyops.SignVerify, trySigning(rsaSigning...)},
	{keyops.ECCNISTP256, keyops.SignVerify, trySigning(signing{"ECDSA_SHA_256", crypto.SHA256})},
	{keyops.ECCNISTP384, keyops.SignVerify, trySigning(signing{"ECDSA_SHA_384", crypto.SHA384})},
	{keyops.ECCNISTP521, keyops.SignVerify, trySigning(signing{"ECDSA_SHA_512", crypto.SHA512})},
	{keyops.ECCSECGP256K1, keyops.SignVerify, trySigning(signing{"ECDSA_SHA_256", crypto.SHA256})},
	{keyops.ECCNISTP256, keyops.KeyAgreement, tryAgreement(ecdh.P256())},
	{keyops.ECCNISTP384, keyops.KeyAgreement, tryAgreement(ecdh.P384())},
	{keyops.ECCNISTP521, keyops.KeyAgreement, tryAgreement(ecdh.P521())},
}

// TestFamilies tries every kind of key as a single-Region key, and as a primary key and its
// replica, each way.
func TestFamilies(t *testing.T) {
	w := newTwo(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) { w.family(t, f) })
	}
}

func (w two) family(t *testing.T, f family) {
	in := keyops.CreateKeyInput{KeySpec: f.spec, KeyUsage: f.usage}
	single := create(t, w.paris, in)
	shared := w.replicate(t, in)
	w.sync(t, shared.KeyID)
	primary := place{w.paris, shared.ARN}
	replica := place{w.tokyo, strings.Replace(shared.ARN, "eu-paris-1", "ap-tokyo-1", 1)}
	for _, md := range []keyops.KeyMetadata{single, shared} {
		if md.KeySpec != f.spec || md.KeyUsage != f.usage || !md.Enabled {
			t.Errorf("created %+v", md)
		}
	}
	for name, pair := range map[string][2]place{
		"single-Region":      {{w.paris, single.ARN}, {w.paris, single.ARN}},
		"primary to replica": {primary, replica},
		"replica to primary": {replica, primary},
	} {
		t.Run(name, func(t *testing.T) { f.try(t, pair[0], pair[1]) })
	}
	out, err := w.tokyo.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: replica.key})
	if err != nil {
		t.Fatal(explain(err))
	}
	all := slices.Concat(out.KeyMetadata.EncryptionAlgorithms, out.KeyMetadata.SigningAlgorithms, out.KeyMetadata.MacAlgorithms, out.KeyMetadata.KeyAgreementAlgorithms)
	if len(all) == 0 || out.KeyMetadata.Exportability != keyops.ExportTransportOnly {
		t.Errorf("replica %+v", out.KeyMetadata)
	}
	w.wrongOperations(t, f, primary)
}

// wrongOperations calls what the key's usage does not have.
func (w two) wrongOperations(t *testing.T, f family, p place) {
	ctx := t.Context()
	for usage, calls := range map[keyops.KeyUsage]map[string]error{
		keyops.EncryptDecrypt: {
			"Encrypt":             second(p.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: p.key, Plaintext: x})),
			"Decrypt":             second(p.Decrypt(ctx, admin(), keyops.DecryptInput{KeyID: p.key, CiphertextBlob: x})),
			"GenerateDataKey":     second(p.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: p.key, NumberOfBytes: 1})),
			"GenerateDataKeyPair": second(p.GenerateDataKeyPair(ctx, admin(), keyops.GenerateDataKeyPairInput{KeyID: p.key, KeyPairSpec: "ECC_NIST_P256"})),
			"ReEncrypt":           second(p.ReEncrypt(ctx, admin(), keyops.ReEncryptInput{SourceKeyID: p.key, DestinationKeyID: p.key, CiphertextBlob: x})),
		},
		keyops.SignVerify: {
			"Sign":   second(p.Sign(ctx, admin(), keyops.SignInput{KeyID: p.key, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})),
			"Verify": second(p.Verify(ctx, admin(), keyops.VerifyInput{KeyID: p.key, Message: x, Signature: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})),
		},
		keyops.GenerateVerifyMac: {
			"GenerateMac": second(p.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: p.key, Message: x, MacAlgorithm: "HMAC_SHA_256"})),
			"VerifyMac":   second(p.VerifyMac(ctx, admin(), keyops.VerifyMacInput{KeyID: p.key, Message: x, Mac: x, MacAlgorithm: "HMAC_SHA_256"})),
		},
		keyops.KeyAgreement: {
			"DeriveSharedSecret": second(p.DeriveSharedSecret(ctx, admin(), keyops.DeriveSharedSecretInput{KeyID: p.key, PublicKey: x, KeyAgreementAlgorithm: "ECDH"})),
		},
	} {
		for name, err := range calls {
			if usage != f.usage {
				want(t, err, keyops.ErrInvalidKeyUsage, fmt.Sprintf("%s key usage is %s which is not valid for %s.", p.key, f.usage, name))
			}
		}
	}
	if strings.HasPrefix(string(f.spec), "RSA") && f.usage == keyops.EncryptDecrypt {
		_, err := p.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: p.key, NumberOfBytes: 1})
		want(t, err, keyops.ErrInvalidKeyUsage, "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec "+string(f.spec)+".")
	}
}

func trySymmetric(t *testing.T, a, b place) {
	ctx, ec := t.Context(), map[string]string{"env": "prod"}
	enc, err := a.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: a.key, Plaintext: []byte("text"), EncryptionContext: ec})
	if err != nil {
		t.Fatal(explain(err))
	}
	dec, err := b.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob, EncryptionContext: ec})
	if err != nil || string(dec.Plaintext) != "text" || dec.KeyID != b.key || dec.KeyMaterialID != enc.KeyMaterialID || len(dec.KeyMaterialID) != 64 {
		t.Errorf("decrypted %+v, %v", dec, explain(err))
	}
	whole, err := a.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: a.key, KeySpec: keyops.DataKeyAES256, EncryptionContext: ec})
	if err != nil {
		t.Fatal(explain(err))
	}
	if got := open(t, b, whole.CiphertextBlob, ec); len(whole.Plaintext) != 32 || !bytes.Equal(got, whole.Plaintext) {
		t.Errorf("data key %x, opened as %x", whole.Plaintext, got)
	}
	closed, err := a.GenerateDataKeyWithoutPlaintext(ctx, admin(), keyops.GenerateDataKeyWithoutPlaintextInput{KeyID: a.key, NumberOfBytes: 1024, EncryptionContext: ec})
	if err != nil || closed.KeyID != a.key || closed.KeyMaterialID != enc.KeyMaterialID {
		t.Fatal(closed, explain(err))
	}
	if got := open(t, b, closed.CiphertextBlob, ec); len(got) != 1024 || bytes.Equal(got, make([]byte, 1024)) {
		t.Errorf("data key of %d bytes, or of zeros", len(got))
	}
	_, err = b.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: closed.CiphertextBlob})
	want(t, err, keyops.ErrInvalidCiphertext, "")
	again, err := a.ReEncrypt(ctx, admin(), keyops.ReEncryptInput{CiphertextBlob: enc.CiphertextBlob, SourceEncryptionContext: ec, DestinationKeyID: a.key})
	if err != nil || again.KeyID != a.key || again.SourceKeyID != a.key || again.SourceKeyMaterialID != enc.KeyMaterialID || again.DestinationKeyMaterialID != enc.KeyMaterialID {
		t.Fatalf("%+v, %v", again, explain(err))
	}
	if got := open(t, b, again.CiphertextBlob, nil); string(got) != "text" {
		t.Errorf("re-encrypted text opens as %q", got)
	}
}

func open(t *testing.T, p place, blob []byte, ec map[string]string) []byte {
	t.Helper()
	out, err := p.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: blob, EncryptionContext: ec})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out.Plaintext
}

func tryMAC(algorithm keyops.Algorithm, length int) func(*testing.T, place, place) {
	return func(t *testing.T, a, b place) {
		ctx, message := t.Context(), bytes.Repeat([]byte("m"), 4096)
		made, err := a.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: a.key, Message: message, MacAlgorithm: algorithm})
		if err != nil || len(made.Mac) != length || made.KeyID != a.key || made.MacAlgorithm != algorithm {
			t.Fatal(made, explain(err))
		}
		verify := func(mac []byte) error {
			return second(b.VerifyMac(ctx, admin(), keyops.VerifyMacInput{KeyID: b.key, Message: message, Mac: mac, MacAlgorithm: algorithm}))
		}
		if err := verify(made.Mac); err != nil {
			t.Error(explain(err))
		}
		for name, mac := range map[string][]byte{
			"cut short": made.Mac[:length-1], "longer": append(bytes.Clone(made.Mac), 0), "another": flip(made.Mac),
		} {
			if err := verify(mac); !errors.Is(err, keyops.ErrInvalidMac) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, other := range []keyops.Algorithm{"HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"} {
			if other != algorithm {
				_, err := a.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: a.key, Message: message, MacAlgorithm: other})
				want(t, err, keyops.ErrInvalidKeyUsage, "Algorithm "+string(other)+" is incompatible with key spec HMAC_")
			}
		}
	}
}

// flip returns a copy with one bit changed.
func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

// publicKey returns a key's public key, which has to be the same in both places.
func publicKey(t *testing.T, a, b place) crypto.PublicKey {
	t.Helper()
	var spkis [2]keyops.GetPublicKeyOutput
	for i, p := range []place{a, b} {
		out, err := p.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: p.key})
		if err != nil || out.KeyID != p.key {
			t.Fatal(out, explain(err))
		}
		spkis[i] = out
	}
	if !bytes.Equal(spkis[0].PublicKey, spkis[1].PublicKey) {
		t.Error("two public keys of one key")
	}
	out := spkis[0]
	if len(out.EncryptionAlgorithms)+len(out.SigningAlgorithms)+len(out.KeyAgreementAlgorithms) == 0 {
		t.Errorf("no algorithms: %+v", out)
	}
	pub, err := spki.Parse(out.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// tryOAEP takes the largest plaintexts with SHA-1 and with SHA-256.
func tryOAEP(sha1, sha256 int) func(*testing.T, place, place) {
	return func(t *testing.T, a, b place) {
		ctx := t.Context()
		pub := publicKey(t, a, b).(*rsa.PublicKey)
		for algorithm, limit := range map[keyops.Algorithm]int{"RSAES_OAEP_SHA_1": sha1, "RSAES_OAEP_SHA_256": sha256} {
			encrypt := func(n int) (keyops.EncryptOutput, error) {
				return a.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: a.key, Plaintext: bytes.Repeat([]byte("p"), n), EncryptionAlgorithm: algorithm})
			}
			decrypt := func(blob []byte) ([]byte, error) {
				out, err := b.Decrypt(ctx, admin(), keyops.DecryptInput{KeyID: b.key, CiphertextBlob: blob, EncryptionAlgorithm: algorithm})
				if err == nil && (out.KeyID != b.key || out.EncryptionAlgorithm != algorithm || out.KeyMaterialID != "") {
					t.Errorf("decrypted %+v", out)
				}
				return out.Plaintext, err
			}
			for _, n := range []int{1, limit - 1, limit} {
				out, err := encrypt(n)
				if err != nil || out.KeyID != a.key || out.EncryptionAlgorithm != algorithm || out.KeyMaterialID != "" || len(out.CiphertextBlob) != pub.Size() {
					t.Fatal(out, explain(err))
				}
				if got, err := decrypt(out.CiphertextBlob); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("p"), n)) {
					t.Errorf("%d bytes came back as %q, %v", n, got, explain(err))
				}
			}
			_, err := encrypt(limit + 1)
			want(t, err, keyops.ErrValidation, fmt.Sprintf("Algorithm %s and key spec RSA_%d cannot encrypt data larger than %d bytes.", algorithm, pub.N.BitLen(), limit))
			// What others encrypt under the public key opens, an empty text too.
			hash := crypto.SHA256
			if algorithm == "RSAES_OAEP_SHA_1" {
				hash = crypto.SHA1
			}
			for _, text := range []string{"", "from outside"} {
				blob, err := rsa.EncryptOAEP(hash.New(), rand.Reader, pub, []byte(text), nil)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := decrypt(blob); err != nil || string(got) != text {
					t.Errorf("%q came back as %q, %v", text, got, explain(err))
				}
				// Everything that is wrong with a ciphertext is one answer.
				labelled, err := rsa.EncryptOAEP(hash.New(), rand.Reader, pub, []byte(text), []byte("label"))
				if err != nil {
					t.Fatal(err)
				}
				for name, bad := range map[string][]byte{
					"changed": flip(blob), "cut short": blob[1:], "longer": append([]byte{0}, blob...), "with a label": labelled,
					"zeros": make([]byte, pub.Size()), "above the modulus": bytes.Repeat([]byte{255}, pub.Size()), "short": {1},
				} {
					_, err := decrypt(bad)
					if err == nil || err.Error() != string(keyops.ErrInvalidCiphertext) {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
		}
		ec := map[string]string{"a": "b"}
		_, err := a.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: a.key, Plaintext: x, EncryptionAlgorithm: "RSAES_OAEP_SHA_1", EncryptionContext: ec})
		want(t, err, keyops.ErrValidation, "encryption context is not supported")
		_, err = a.Decrypt(ctx, admin(), keyops.DecryptInput{KeyID: a.key, CiphertextBlob: x, EncryptionAlgorithm: "RSAES_OAEP_SHA_1", EncryptionContext: ec})
		want(t, err, keyops.ErrValidation, "encryption context is not supported")
		_, err = a.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: a.key, Plaintext: x})
		want(t, err, keyops.ErrInvalidKeyUsage, "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_")
		_, err = a.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: x, EncryptionAlgorithm: "RSAES_OAEP_SHA_1"})
		want(t, err, keyops.ErrValidation, "does not name its key")
	}
}

type signing struct {
	algorithm keyops.Algorithm
	hash      crypto.Hash
}

var rsaSigning = []signing{
	{"RSASSA_PKCS1_V1_5_SHA_256", crypto.SHA256}, {"RSASSA_PKCS1_V1_5_SHA_384", crypto.SHA384}, {"RSASSA_PKCS1_V1_5_SHA_512", crypto.SHA512},
	{"RSASSA_PSS_SHA_256", crypto.SHA256}, {"RSASSA_PSS_SHA_384", crypto.SHA384}, {"RSASSA_PSS_SHA_512", crypto.SHA512},
}

// verifies is what somebody outside finds.
func (s signing) verifies(pub crypto.PublicKey, digest, signature []byte) bool {
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		return spki.VerifyECDSA(key, digest, signature)
	case *rsa.PublicKey:
		if strings.Contains(string(s.algorithm), "PSS") {
			return rsa.VerifyPSS(key, s.hash, digest, signature, &rsa.PSSOptions{SaltLength: s.hash.Size(), Hash: s.hash}) == nil
		}
		return rsa.VerifyPKCS1v15(key, s.hash, digest, signature) == nil
	}
	return false
}

func trySigning(algorithms ...signing) func(*testing.T, place, place) {
	return func(t *testing.T, a, b place) {
		pub := publicKey(t, a, b)
		for _, s := range algorithms {
			s.try(t, a, b, pub)
		}
		for _, other := range []keyops.Algorithm{"ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512", "RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_512"} {
			if !slices.ContainsFunc(algorithms, func(s signing) bool { return s.algorithm == other }) {
				_, err := a.Sign(t.Context(), admin(), keyops.SignInput{KeyID: a.key, Message: x, SigningAlgorithm: other})
				want(t, err, keyops.ErrInvalidKeyUsage, "Algorithm "+string(other)+" is incompatible with key spec ")
			}
		}
	}
}

func (s signing) try(t *testing.T, a, b place, pub crypto.PublicKey) {
	message := bytes.Repeat([]byte("m"), 4096)
	h := s.hash.New()
	h.Write(message)
	digest := h.Sum(nil)
	sign := func(p place, m []byte, mt keyops.MessageType) ([]byte, error) {
		out, err := p.Sign(t.Context(), admin(), keyops.SignInput{KeyID: p.key, Message: m, MessageType: mt, SigningAlgorithm: s.algorithm})
		return out.Signature, err
	}
	verify := func(p place, m []byte, mt keyops.MessageType, signature []byte) error {
		return second(p.Verify(t.Context(), admin(), keyops.VerifyInput{KeyID: p.key, Message: m, MessageType: mt, Signature: signature, SigningAlgorithm: s.algorithm}))
	}
	for mt, m := range map[keyops.MessageType][]byte{"": message, keyops.Raw: message, keyops.Digest: digest} {
		signature, err := sign(a, m, mt)
		if err != nil {
			t.Fatal(s.algorithm, explain(err))
		}
		if !s.verifies(pub, digest, signature) {
			t.Errorf("%s: nobody else accepts the signature", s.algorithm)
		}
		if err := errors.Join(verify(b, message, keyops.Raw, signature), verify(b, digest, keyops.Digest, signature)); err != nil {
			t.Errorf("%s: %v", s.algorithm, err)
		}
		for name, err := range map[string]error{
			"another message":        verify(b, message[1:], keyops.Raw, signature),
			"another signature":      verify(b, m, mt, flip(signature)),
			"a signature cut short":  verify(b, m, mt, signature[:len(signature)-1]),
			"a signature of garbage": verify(b, m, mt, x),
		} {
			if err == nil || err.Error() != string(keyops.ErrInvalidSignature) {
				t.Errorf("%s, %s: %v", s.algorithm, name, err)
			}
		}
		there, err := sign(b, m, mt)
		if err != nil {
			t.Fatal(s.algorithm, explain(err))
		}
		// What has no randomness in it is one signature, whoever makes it.
		if strings.Contains(string(s.algorithm), "PKCS1") && !bytes.Equal(signature, there) {
			t.Errorf("%s: two signatures of one message", s.algorithm)
		}
		if strings.Contains(string(s.algorithm), "PSS") && bytes.Equal(signature, there) {
			t.Errorf("%s: one salt twice", s.algorithm)
		}
	}
	for _, n := range []int{s.hash.Size() - 1, s.hash.Size() + 1} {
		_, err := sign(a, make([]byte, n), keyops.Digest)
		want(t, err, keyops.ErrValidation, "Digest is invalid length for algorithm "+string(s.algorithm)+".")
		want(t, verify(a, make([]byte, n), keyops.Digest, x), keyops.ErrValidation, "Digest is invalid length for algorithm "+string(s.algorithm)+".")
	}
	_, err := sign(a, append(message, 0), keyops.Raw)
	want(t, err, keyops.ErrValidation, "less than or equal to 4096")
}

func tryAgreement(curve ecdh.Curve) func(*testing.T, place, place) {
	return func(t *testing.T, a, b place) {
		ours, err := publicKey(t, a, b).(*ecdsa.PublicKey).ECDH()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(theirs.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		shared, err := theirs.ECDH(ours)
		if err != nil {
			t.Fatal(err)
		}
		derive := func(p place, public []byte) ([]byte, error) {
			out, err := p.DeriveSharedSecret(t.Context(), admin(), keyops.DeriveSharedSecretInput{KeyID: p.key, PublicKey: public, KeyAgreementAlgorithm: "ECDH"})
			if err == nil && (out.KeyID != p.key || out.KeyAgreementAlgorithm != "ECDH" || out.KeyOrigin != keyops.OriginToken) {
				t.Errorf("derived %+v", out)
			}
			return out.SharedSecret, err
		}
		for _, p := range []place{a, b} {
			if got, err := derive(p, der); err != nil || !bytes.Equal(got, shared) {
				t.Errorf("another secret, or %v", explain(err))
			}
		}
		for name, bad := range map[string][]byte{
			"garbage": x, "longer": append(bytes.Clone(der), 0), "off the curve": flip(der), "of the greatest length": make([]byte, 8192),
			"at infinity": append(bytes.Clone(der[:len(der)-len(ours.Bytes())-1]), 0, 0),
		} {
			if _, err := derive(a, bad); err == nil {
				t.Errorf("%s: accepted", name)
			} else {
				want(t, err, keyops.ErrValidation, "public key must be a DER-encoded SubjectPublicKeyInfo")
			}
		}
		for _, other := range []ecdh.Curve{ecdh.P256(), ecdh.P384(), ecdh.P521(), ecdh.X25519()} {
			if other == curve {
				continue
			}
			k, err := other.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKIXPublicKey(k.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			_, err = derive(a, der)
			want(t, err, keyops.ErrValidation, "on the curve of key spec")
		}
		_, err = derive(a, nil)
		want(t, err, keyops.ErrValidation, "'publicKey'")
		_, err = derive(a, make([]byte, 8193))
		want(t, err, keyops.ErrValidation, "less than or equal to 8192")
		_, err = a.DeriveSharedSecret(context.Background(), admin(), keyops.DeriveSharedSecretInput{KeyID: a.key, PublicKey: der})
		want(t, err, keyops.ErrValidation, "'keyAgreementAlgorithm'")
	}
}
