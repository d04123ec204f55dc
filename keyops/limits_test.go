package keyops_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestLimits tries each limit one below, at and one above. A nil reason means that the call
// succeeds.
func TestLimits(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	aes := create(t, r, keyops.CreateKeyInput{}).ARN
	mac := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}).ARN
	ec := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify}).ARN
	ctx := t.Context()
	b := func(n int) []byte { return bytes.Repeat([]byte{'x'}, n) }
	s := func(n int) string { return strings.Repeat("x", n) }
	tags := func(n int) []keyops.Tag {
		var list []keyops.Tag
		for i := range n {
			list = append(list, keyops.Tag{Key: fmt.Sprint("k", i)})
		}
		return list
	}
	// pad returns a key policy of n bytes.
	pad := func(n int) string {
		const doc = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}`
		return doc + strings.Repeat(" ", n-len(doc))
	}
	encrypt := func(n int, context map[string]string) error {
		_, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: aes, Plaintext: b(n), EncryptionContext: context})
		return err
	}
	decrypt := func(n int) error {
		_, err := r.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: b(n)})
		return err
	}
	dataKey := func(n int, spec keyops.DataKeySpec) error {
		_, err := r.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: aes, NumberOfBytes: n, KeySpec: spec})
		return err
	}
	random := func(n int) error {
		_, err := r.GenerateRandom(ctx, admin(), keyops.GenerateRandomInput{NumberOfBytes: n})
		return err
	}
	generateMac := func(n int, a keyops.Algorithm) error {
		_, err := r.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: mac, Message: b(n), MacAlgorithm: a})
		return err
	}
	verifyMac := func(n int) error {
		_, err := r.VerifyMac(ctx, admin(), keyops.VerifyMacInput{KeyID: mac, Message: b(1), Mac: b(n), MacAlgorithm: keyops.AlgorithmHMACSHA256})
		return err
	}
	sign := func(n int, m keyops.MessageType, a keyops.Algorithm) error {
		_, err := r.Sign(ctx, admin(), keyops.SignInput{KeyID: ec, Message: b(n), MessageType: m, SigningAlgorithm: a})
		return err
	}
	verify := func(n int) error {
		_, err := r.Verify(ctx, admin(), keyops.VerifyInput{KeyID: ec, Message: b(1), Signature: b(n), SigningAlgorithm: keyops.AlgorithmECDSASHA256})
		return err
	}
	createKey := func(in keyops.CreateKeyInput) error {
		_, err := r.CreateKey(ctx, admin(), in)
		return err
	}
	listKeys := func(n int) error {
		_, err := r.ListKeys(ctx, admin(), keyops.ListKeysInput{Limit: n})
		return err
	}
	listAliases := func(n int) error {
		_, err := r.ListAliases(ctx, admin(), keyops.ListAliasesInput{Limit: n})
		return err
	}
	describe := func(ref string) error {
		_, err := r.DescribeKey(ctx, admin(), keyops.DescribeKeyInput{KeyID: ref})
		return err
	}
	alias := func(name string) error {
		_, err := r.CreateAlias(ctx, admin(), keyops.CreateAliasInput{AliasName: name, TargetKeyID: aes})
		return err
	}
	// A context's canonical form is a count (12 bytes) and, for each pair, both strings
	// with four bytes each.
	context := func(n int) map[string]string { return map[string]string{"k": s(n - 12 - 4 - 1 - 4)} }
	const enumMAC, enumSign = "HMAC_SHA_256", "ECDSA_SHA_256"

	for _, tc := range []struct {
		name   string
		err    error
		reason keyops.Reason
		part   string
	}{
		{"plaintext 0", encrypt(0, nil), keyops.ErrValidation, "'plaintext'"},
		{"plaintext 1", encrypt(1, nil), "", ""},
		{"plaintext 4095", encrypt(4095, nil), "", ""},
		{"plaintext 4096", encrypt(4096, nil), "", ""},
		{"plaintext 4097", encrypt(4097, nil), keyops.ErrValidation, "less than or equal to 4096"},
		{"context 8191", encrypt(1, context(8191)), "", ""},
		{"context 8192", encrypt(1, context(8192)), "", ""},
		{"context 8193", encrypt(1, context(8193)), keyops.ErrValidation, "larger than 8192"},
		{"context with an empty key", encrypt(1, map[string]string{"": "v"}), keyops.ErrValidation, "empty key"},
		{"context that is not UTF-8", encrypt(1, map[string]string{"k": "\xff"}), keyops.ErrValidation, "UTF-8"},
		{"ciphertext 0", decrypt(0), keyops.ErrValidation, "'ciphertextBlob'"},
		{"ciphertext 1", decrypt(1), keyops.ErrInvalidCiphertext, ""},
		{"ciphertext 6144", decrypt(6144), keyops.ErrInvalidCiphertext, ""},
		{"ciphertext 6145", decrypt(6145), keyops.ErrValidation, "less than or equal to 6144"},
		{"data key of neither", dataKey(0, ""), keyops.ErrValidation, "either number of bytes or key spec"},
		{"data key of both", dataKey(16, keyops.DataKeyAES128), keyops.ErrValidation, "either number of bytes or key spec"},
		{"data key of an unknown spec", dataKey(0, "AES_512"), keyops.ErrValidation, "'keySpec'"},
		{"data key -1", dataKey(-1, ""), keyops.ErrValidation, "'numberOfBytes'"},
		{"data key 1023", dataKey(1023, ""), "", ""},
		{"data key 1024", dataKey(1024, ""), "", ""},
		{"data key 1025", dataKey(1025, ""), keyops.ErrValidation, "between 1 and 1024"},
		{"random 0", random(0), keyops.ErrValidation, "NumberOfBytes is required."},
		{"random 1", random(1), "", ""},
		{"random 1024", random(1024), "", ""},
		{"random 1025", random(1025), keyops.ErrValidation, "between 1 and 1024"},
		{"MAC message 0", generateMac(0, enumMAC), keyops.ErrValidation, "'message'"},
		{"MAC message 1", generateMac(1, enumMAC), "", ""},
		{"MAC message 4096", generateMac(4096, enumMAC), "", ""},
		{"MAC message 4097", generateMac(4097, enumMAC), keyops.ErrValidation, "less than or equal to 4096"},
		{"MAC without algorithm", generateMac(1, ""), keyops.ErrValidation, "'macAlgorithm'"},
		{"MAC with an unknown algorithm", generateMac(1, "MD5"), keyops.ErrValidation, "enum value set: [HMAC_SHA_256]"},
		{"MAC with another spec's algorithm", generateMac(1, enumSign), keyops.ErrInvalidKeyUsage, "Algorithm ECDSA_SHA_256 is incompatible with key spec HMAC_256."},
		{"MAC to verify 0", verifyMac(0), keyops.ErrValidation, "'mac'"},
		{"MAC to verify 6144", verifyMac(6144), keyops.ErrInvalidMac, ""},
		{"MAC to verify 6145", verifyMac(6145), keyops.ErrValidation, "'mac'"},
		{"message 0", sign(0, "", enumSign), keyops.ErrValidation, "'message'"},
		{"message 1", sign(1, "", enumSign), "", ""},
		{"message 4096", sign(4096, "", enumSign), "", ""},
		{"message 4097", sign(4097, "", enumSign), keyops.ErrValidation, "less than or equal to 4096"},
		{"digest 31", sign(31, keyops.Digest, enumSign), keyops.ErrValidation, "Digest is invalid length for algorithm ECDSA_SHA_256."},
		{"digest 32", sign(32, keyops.Digest, enumSign), "", ""},
		{"digest 33", sign(33, keyops.Digest, enumSign), keyops.ErrValidation, "Digest is invalid length for algorithm ECDSA_SHA_256."},
		{"unknown message type", sign(1, "EXTERNAL_MU", enumSign), keyops.ErrValidation, "[RAW, DIGEST]"},
		{"signature 0", verify(0), keyops.ErrValidation, "'signature'"},
		{"signature 6144", verify(6144), keyops.ErrInvalidSignature, ""},
		{"signature 6145", verify(6145), keyops.ErrValidation, "'signature'"},
		{"unknown spec without usage", createKey(keyops.CreateKeyInput{KeySpec: "FOO"}), keyops.ErrValidation, "Key spec 'FOO' is not known here"},
		{"known spec without usage", createKey(keyops.CreateKeyInput{KeySpec: keyops.HMAC256}), keyops.ErrValidation, "You must specify a KeyUsage"},
		{"description 8191", createKey(keyops.CreateKeyInput{Description: s(8191)}), "", ""},
		{"description 8192", createKey(keyops.CreateKeyInput{Description: strings.Repeat("é", 8192)}), "", ""},
		{"description 8193", createKey(keyops.CreateKeyInput{Description: s(8193)}), keyops.ErrValidation, "'description'"},
		{"description that is not UTF-8", createKey(keyops.CreateKeyInput{Description: "\xff"}), keyops.ErrValidation, "'description'"},
		{"policy 32767", createKey(keyops.CreateKeyInput{Policy: pad(32767)}), "", ""},
		{"policy 32768", createKey(keyops.CreateKeyInput{Policy: pad(32768)}), "", ""},
		{"policy 32769", createKey(keyops.CreateKeyInput{Policy: pad(32769)}), keyops.ErrLimitExceeded, "32768"},
		{"tags 49", createKey(keyops.CreateKeyInput{Tags: tags(49)}), "", ""},
		{"tags 50", createKey(keyops.CreateKeyInput{Tags: tags(50)}), "", ""},
		{"tags 51", createKey(keyops.CreateKeyInput{Tags: tags(51)}), keyops.ErrTag, "Too many tags"},
		{"tag key 0", createKey(keyops.CreateKeyInput{Tags: []keyops.Tag{{}}}), keyops.ErrValidation, "'tags.tagKey'"},
		{"tag key 128", createKey(keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: s(128)}}}), "", ""},
		{"tag key 129", createKey(keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: s(129)}}}), keyops.ErrValidation, "'tags.tagKey'"},
		{"tag value 256", createKey(keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: "k", Value: s(256)}}}), "", ""},
		{"tag value 257", createKey(keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: "k", Value: s(257)}}}), keyops.ErrValidation, "'tags.tagValue'"},
		{"tags twice", createKey(keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: "k"}, {Key: "k"}}}), keyops.ErrTag, "Duplicate tag keys"},
		{"reserved tag", createKey(keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: "aws:x"}}}), keyops.ErrTag, "reserved"},
		{"unknown spec", createKey(keyops.CreateKeyInput{KeySpec: "AES_1024", KeyUsage: keyops.EncryptDecrypt}), keyops.ErrValidation, "AES_1024"},
		{"usage of another spec", createKey(keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.SignVerify}), keyops.ErrValidation, "KeyUsage SIGN_VERIFY is not compatible with KeySpec HMAC_256"},
		{"no usage", createKey(keyops.CreateKeyInput{KeySpec: keyops.HMAC256}), keyops.ErrValidation, "You must specify a KeyUsage"},
		{"unknown origin", createKey(keyops.CreateKeyInput{Origin: "AWS_CLOUDHSM"}), keyops.ErrValidation, "EXTERNAL"},
		{"malformed policy", createKey(keyops.CreateKeyInput{Policy: "{"}), keyops.ErrMalformedPolicyDocument, ""},
		{"keys per page -1", listKeys(-1), keyops.ErrValidation, "'limit'"},
		{"keys per page 1000", listKeys(1000), "", ""},
		{"keys per page 1001", listKeys(1001), keyops.ErrValidation, "between 1 and 1000"},
		{"aliases per page 100", listAliases(100), "", ""},
		{"aliases per page 101", listAliases(101), keyops.ErrValidation, "between 1 and 100"},
		{"reference 0", describe(""), keyops.ErrValidation, "'keyId'"},
		{"reference 2048", describe(s(2048)), keyops.ErrNotFound, "Invalid keyId"},
		{"reference 2049", describe(s(2049)), keyops.ErrValidation, "less than or equal to 2048"},
		{"alias name 255", alias("alias/" + s(249)), "", ""},
		{"alias name 256", alias("alias/" + s(250)), "", ""},
		{"alias name 257", alias("alias/" + s(251)), keyops.ErrInvalidAliasName, ""},
		{"alias name 6", alias("alias/"), keyops.ErrInvalidAliasName, ""},
		{"alias without prefix", alias("payroll"), keyops.ErrValidation, "prefix"},
		{"alias with a space", alias("alias/pay roll"), keyops.ErrInvalidAliasName, ""},
		{"reserved alias", alias("alias/aws/s3"), keyops.ErrInvalidAliasName, "reserved"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.reason == "" {
				if tc.err != nil {
					t.Error(explain(tc.err))
				}
				return
			}
			want(t, tc.err, tc.reason, tc.part)
		})
	}
}

func TestAliasesPerKey(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a, b := create(t, r, keyops.CreateKeyInput{}).ARN, create(t, r, keyops.CreateKeyInput{}).ARN
	alias := func(i int, key string) error {
		_, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: fmt.Sprint("alias/a", i), TargetKeyID: key})
		return err
	}
	for i := range 50 {
		if err := alias(i, a); err != nil {
			t.Fatal(explain(err))
		}
	}
	want(t, alias(50, a), keyops.ErrLimitExceeded, "50 aliases")
	if err := alias(50, b); err != nil {
		t.Fatal(explain(err))
	}
	_, err := r.UpdateAlias(t.Context(), admin(), keyops.UpdateAliasInput{AliasName: "alias/a50", TargetKeyID: a})
	want(t, err, keyops.ErrLimitExceeded, "50 aliases")
}

func TestKeyQuota(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{KeyQuota: 2})
	create(t, r, keyops.CreateKeyInput{})
	create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	objects := len(r.Fake.Objects())
	_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
	want(t, err, keyops.ErrLimitExceeded, "which is its quota")
	if n := len(r.Fake.Objects()); n != objects {
		t.Errorf("the refused call left %d objects in the token", n-objects)
	}
}

func TestDryRunDoesNothing(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	aes := create(t, r, keyops.CreateKeyInput{}).ARN
	mac := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}).ARN
	ec := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify}).ARN
	ctx, x := t.Context(), []byte("x")
	rsaKey := oaep(t, r).ARN
	agree := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.KeyAgreement}).ARN
	peer, err := r.GetPublicKey(ctx, admin(), keyops.GetPublicKeyInput{KeyID: agree})
	if err != nil {
		t.Fatal(err)
	}
	const sha1 = keyops.AlgorithmOAEPSHA1
	enc, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: aes, Plaintext: x})
	if err != nil {
		t.Fatal(err)
	}
	encRSA, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: rsaKey, Plaintext: x, EncryptionAlgorithm: sha1})
	if err != nil {
		t.Fatal(err)
	}
	before := r.TokenCalls(t)
	for name, err := range map[string]error{
		"Encrypt":                             second(r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: aes, Plaintext: x, DryRun: true})),
		"Decrypt":                             second(r.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob, DryRun: true})),
		"GenerateDataKey":                     second(r.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: aes, NumberOfBytes: 8, DryRun: true})),
		"Encrypt RSA":                         second(r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: rsaKey, Plaintext: x, EncryptionAlgorithm: sha1, DryRun: true})),
		"Decrypt RSA":                         second(r.Decrypt(ctx, admin(), keyops.DecryptInput{KeyID: rsaKey, CiphertextBlob: encRSA.CiphertextBlob, EncryptionAlgorithm: sha1, DryRun: true})),
		"ReEncrypt":                           second(r.ReEncrypt(ctx, admin(), keyops.ReEncryptInput{CiphertextBlob: enc.CiphertextBlob, DestinationKeyID: aes, DryRun: true})),
		"GenerateDataKeyWithoutPlaintext":     second(r.GenerateDataKeyWithoutPlaintext(ctx, admin(), keyops.GenerateDataKeyWithoutPlaintextInput{KeyID: aes, NumberOfBytes: 8, DryRun: true})),
		"GenerateDataKeyPair":                 second(r.GenerateDataKeyPair(ctx, admin(), keyops.GenerateDataKeyPairInput{KeyID: aes, KeyPairSpec: "RSA_4096", DryRun: true})),
		"GenerateDataKeyPairWithoutPlaintext": second(r.GenerateDataKeyPairWithoutPlaintext(ctx, admin(), keyops.GenerateDataKeyPairWithoutPlaintextInput{KeyID: aes, KeyPairSpec: "ECC_SECG_P256K1", DryRun: true})),
		"DeriveSharedSecret":                  second(r.DeriveSharedSecret(ctx, admin(), keyops.DeriveSharedSecretInput{KeyID: agree, PublicKey: peer.PublicKey, KeyAgreementAlgorithm: keyops.AlgorithmECDH, DryRun: true})),
		"GenerateMac":                         second(r.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: mac, Message: x, MacAlgorithm: keyops.AlgorithmHMACSHA256, DryRun: true})),
		"VerifyMac":                           second(r.VerifyMac(ctx, admin(), keyops.VerifyMacInput{KeyID: mac, Message: x, Mac: x, MacAlgorithm: keyops.AlgorithmHMACSHA256, DryRun: true})),
		"Sign":                                second(r.Sign(ctx, admin(), keyops.SignInput{KeyID: ec, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256, DryRun: true})),
		"Verify":                              second(r.Verify(ctx, admin(), keyops.VerifyInput{KeyID: ec, Message: x, Signature: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256, DryRun: true})),
	} {
		t.Run(name, func(t *testing.T) {
			want(t, err, keyops.ErrDryRun, "The request would have succeeded, but the DryRun option is set.")
		})
	}
	for f, n := range r.Fake.Calls() {
		if n != before[f] {
			t.Errorf("%s was called %d times by dry runs", f, n-before[f])
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestQuotaOfAPrincipal: what one principal makes takes no room from the others, and what is
// deleted of it is its own to make again.
func TestQuotaOfAPrincipal(t *testing.T) {
	c := newClock()
	r := keyopstest.New(t, keyopstest.Options{
		MakerQuota: 2, Clock: c.now, Elapsed: c.passed,
		Identities: strings.ReplaceAll(keyopstest.AdminIdentities, `"arn:aws:iam::111122223333:user/admin"`,
			`["arn:aws:iam::111122223333:user/admin", "arn:aws:iam::111122223333:user/other"]`),
	})
	k := create(t, r, keyops.CreateKeyInput{})
	create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	full := func() {
		t.Helper()
		_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
		want(t, err, keyops.ErrLimitExceeded, "user/admin has made 2 keys")
	}
	full()
	r.Restart(t)
	full()
	if _, err := r.CreateKey(t.Context(), keyopstest.User("other"), keyops.CreateKeyInput{}); err != nil {
		t.Errorf("another principal has no room: %v", explain(err))
	}
	schedule(t, r, k, 7)
	pass(t, r, c, 8*aDay, aDay/2)
	create(t, r, keyops.CreateKeyInput{})
}
