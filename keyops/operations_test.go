package keyops_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// kinds runs f for a single-Region key and for a multi-Region primary key.
func kinds(t *testing.T, f func(t *testing.T, multiRegion bool)) {
	t.Run("single-Region", func(t *testing.T) { f(t, false) })
	t.Run("multi-Region", func(t *testing.T) { f(t, true) })
}

func TestCreateKeyDescribes(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		for _, tc := range []struct {
			name string
			in   keyops.CreateKeyInput
			want keyops.KeyMetadata
		}{
			{"symmetric by default", keyops.CreateKeyInput{Description: "payroll"}, keyops.KeyMetadata{
				Description: "payroll", KeySpec: keyops.SymmetricDefault, KeyUsage: keyops.EncryptDecrypt,
				EncryptionAlgorithms: []keyops.Algorithm{keyops.AlgorithmSymmetricDefault}, Exportability: keyops.ExportNever,
			}},
			{"hmac", keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}, keyops.KeyMetadata{
				KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac,
				MacAlgorithms: []keyops.Algorithm{keyops.AlgorithmHMACSHA256}, Exportability: keyops.ExportNever,
			}},
			{"multi-Region signing key", keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify, MultiRegion: true}, keyops.KeyMetadata{
				KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify, MultiRegion: true,
				SigningAlgorithms: []keyops.Algorithm{keyops.AlgorithmECDSASHA256}, Exportability: keyops.ExportTransportOnly,
			}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				got := create(t, r, tc.in)
				tc.want.AccountID, tc.want.Enabled, tc.want.KeyState, tc.want.Origin = keyopstest.Account, true, "Enabled", keyops.OriginToken
				tc.want.KeyID = got.KeyID
				tc.want.ARN = "arn:aws:kms:eu-paris-1:111122223333:key/" + string(got.KeyID)
				if tc.want.MultiRegion {
					tc.want.MultiRegionConfiguration = &keyops.MultiRegionConfiguration{
						MultiRegionKeyType: keyops.Primary,
						PrimaryKey:         keyops.MultiRegionKey{ARN: tc.want.ARN, Region: "eu-paris-1", Member: "ACTIVE"},
						ReplicaKeys:        []keyops.MultiRegionKey{},
					}
				}
				ignore := cmpopts.IgnoreFields(keyops.KeyMetadata{}, "CreationDate", "CurrentKeyMaterialID")
				if c := got.MultiRegionConfiguration; c != nil && len(c.Certificate) != 64 {
					t.Errorf("certificate %q", c.Certificate)
				}
				if diff := cmp.Diff(tc.want, got, ignore, cmpopts.IgnoreFields(keyops.MultiRegionConfiguration{}, "Certificate")); diff != "" {
					t.Errorf("metadata (-want +got):\n%s", diff)
				}
				if got.KeyID.MultiRegion() != tc.in.MultiRegion {
					t.Errorf("key ID %s of a key with MultiRegion %v", got.KeyID, tc.in.MultiRegion)
				}
				if (len(got.CurrentKeyMaterialID) == 64) != (got.KeySpec == keyops.SymmetricDefault) {
					t.Errorf("current material %q", got.CurrentKeyMaterialID)
				}
				if d := time.Since(got.CreationDate); d < 0 || d > time.Minute {
					t.Errorf("created %s ago", d)
				}
				out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: got.ARN})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(got, out.KeyMetadata); diff != "" {
					t.Errorf("DescribeKey says something else (-CreateKey +DescribeKey):\n%s", diff)
				}
			})
		}
	})
}

func TestEncryptDecrypt(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		kinds(t, func(t *testing.T, multiRegion bool) {
			k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
			context := map[string]string{"env": "prod", "app": "payroll"}
			for _, plaintext := range [][]byte{{0}, []byte("hello"), bytes.Repeat([]byte{7}, 4096)} {
				enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: plaintext, EncryptionContext: context})
				if err != nil {
					t.Fatal(explain(err))
				}
				if enc.KeyID != k.ARN || enc.EncryptionAlgorithm != keyops.AlgorithmSymmetricDefault || enc.KeyMaterialID != k.CurrentKeyMaterialID {
					t.Errorf("encrypted by %s with %s under %s", enc.KeyID, enc.EncryptionAlgorithm, enc.KeyMaterialID)
				}
				if bytes.Contains(enc.CiphertextBlob, plaintext) && len(plaintext) > 1 {
					t.Error("the plaintext is in the ciphertext")
				}
				again, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: plaintext, EncryptionContext: context})
				if err != nil || bytes.Equal(again.CiphertextBlob, enc.CiphertextBlob) {
					t.Errorf("the same plaintext gives the same ciphertext, or an error: %v", err)
				}
				for _, ref := range []string{"", k.ARN, string(k.KeyID)} {
					dec, err := r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob, EncryptionContext: context, KeyID: ref})
					if err != nil {
						t.Fatal(explain(err))
					}
					want := keyops.DecryptOutput{Plaintext: plaintext, KeyID: k.ARN, EncryptionAlgorithm: keyops.AlgorithmSymmetricDefault, KeyMaterialID: k.CurrentKeyMaterialID}
					if diff := cmp.Diff(want, dec); diff != "" {
						t.Errorf("decrypting (-want +got):\n%s", diff)
					}
				}
			}
		})
	})
}

func TestGenerateDataKey(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		k := create(t, r, keyops.CreateKeyInput{})
		for _, tc := range []struct {
			in   keyops.GenerateDataKeyInput
			want int
		}{
			{keyops.GenerateDataKeyInput{KeySpec: keyops.DataKeyAES256}, 32},
			{keyops.GenerateDataKeyInput{KeySpec: keyops.DataKeyAES128}, 16},
			{keyops.GenerateDataKeyInput{NumberOfBytes: 1}, 1},
			{keyops.GenerateDataKeyInput{NumberOfBytes: 1024}, 1024},
		} {
			tc.in.KeyID, tc.in.EncryptionContext = k.ARN, map[string]string{"a": "b"}
			out, err := r.GenerateDataKey(t.Context(), admin(), tc.in)
			if err != nil {
				t.Fatal(explain(err))
			}
			if len(out.Plaintext) != tc.want || out.KeyID != k.ARN || out.KeyMaterialID != k.CurrentKeyMaterialID {
				t.Errorf("%d bytes by %s, want %d", len(out.Plaintext), out.KeyID, tc.want)
			}
			dec, err := r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: tc.in.EncryptionContext})
			if err != nil || !bytes.Equal(dec.Plaintext, out.Plaintext) {
				t.Errorf("the encrypted data key is not the plain one: %v", err)
			}
		}
	})
}

func TestMac(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		kinds(t, func(t *testing.T, multiRegion bool) {
			k := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac, MultiRegion: multiRegion})
			in := keyops.GenerateMacInput{KeyID: k.ARN, Message: []byte("message"), MacAlgorithm: keyops.AlgorithmHMACSHA256}
			mac, err := r.GenerateMac(t.Context(), admin(), in)
			if err != nil {
				t.Fatal(explain(err))
			}
			if len(mac.Mac) != 32 || mac.KeyID != k.ARN || mac.MacAlgorithm != in.MacAlgorithm {
				t.Errorf("MAC of %d bytes by %s", len(mac.Mac), mac.KeyID)
			}
			verify := keyops.VerifyMacInput{KeyID: k.ARN, Message: in.Message, Mac: mac.Mac, MacAlgorithm: in.MacAlgorithm}
			out, err := r.VerifyMac(t.Context(), admin(), verify)
			if err != nil || !out.MacValid {
				t.Errorf("valid MAC: %+v, %v", out, explain(err))
			}
			for i := range mac.Mac {
				bad := verify
				bad.Mac = bytes.Clone(mac.Mac)
				bad.Mac[i] ^= 1
				if _, err := r.VerifyMac(t.Context(), admin(), bad); err == nil {
					t.Errorf("MAC with byte %d changed is valid", i)
				} else {
					want(t, err, keyops.ErrInvalidMac, "")
				}
			}
			short := verify
			short.Mac = mac.Mac[:31]
			_, err = r.VerifyMac(t.Context(), admin(), short)
			want(t, err, keyops.ErrInvalidMac, "")
			other := verify
			other.Message = []byte("Message")
			_, err = r.VerifyMac(t.Context(), admin(), other)
			want(t, err, keyops.ErrInvalidMac, "")
		})
	})
}

func TestSignVerify(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		kinds(t, func(t *testing.T, multiRegion bool) {
			k := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify, MultiRegion: multiRegion})
			pub, err := r.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: k.ARN})
			if err != nil {
				t.Fatal(explain(err))
			}
			parsed, err := x509.ParsePKIXPublicKey(pub.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			message := []byte("a message")
			digest := sha256.Sum256(message)
			for _, in := range []keyops.SignInput{
				{Message: message},
				{Message: message, MessageType: keyops.Raw},
				{Message: digest[:], MessageType: keyops.Digest},
			} {
				in.KeyID, in.SigningAlgorithm = k.ARN, keyops.AlgorithmECDSASHA256
				sig, err := r.Sign(t.Context(), admin(), in)
				if err != nil {
					t.Fatal(explain(err))
				}
				if !ecdsa.VerifyASN1(parsed.(*ecdsa.PublicKey), digest[:], sig.Signature) {
					t.Error("Go's standard library refuses the signature")
				}
				openssl(t, pub.PublicKey, message, sig.Signature)
				verify := keyops.VerifyInput{KeyID: k.ARN, Message: in.Message, MessageType: in.MessageType, Signature: sig.Signature, SigningAlgorithm: in.SigningAlgorithm}
				out, err := r.Verify(t.Context(), admin(), verify)
				if err != nil || !out.SignatureValid {
					t.Errorf("valid signature: %+v, %v", out, explain(err))
				}
				verify.Signature = bytes.Clone(sig.Signature)
				verify.Signature[len(verify.Signature)-1] ^= 1
				_, err = r.Verify(t.Context(), admin(), verify)
				want(t, err, keyops.ErrInvalidSignature, "")
			}
		})
	})
}

// openssl verifies a signature with the openssl command.
func openssl(t *testing.T, spki, message, signature []byte) {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{
		"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}),
		"message": message, "signature": signature,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Verified OK") {
		t.Errorf("openssl: %v: %s", err, out)
	}
}

func TestGenerateRandom(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		seen := map[string]bool{}
		for range 3 {
			out, err := r.GenerateRandom(t.Context(), admin(), keyops.GenerateRandomInput{NumberOfBytes: 32})
			if err != nil || len(out.Plaintext) != 32 || seen[string(out.Plaintext)] {
				t.Errorf("random bytes %x: %v", out.Plaintext, err)
			}
			seen[string(out.Plaintext)] = true
		}
	})
}

func TestEnableDisable(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		kinds(t, func(t *testing.T, multiRegion bool) {
			k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
			enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: []byte("x")})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time changes nothing and is no error
				if _, err := r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}); err != nil {
					t.Fatal(explain(err))
				}
			}
			r.Restart(t)
			_, err = r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: []byte("x")})
			want(t, err, keyops.ErrDisabled, k.ARN+" is disabled.")
			_, err = r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob})
			want(t, err, keyops.ErrDisabled, k.ARN+" is disabled.")
			out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
			if err != nil || out.KeyMetadata.Enabled || out.KeyMetadata.KeyState != "Disabled" {
				t.Errorf("%+v, %v", out, err)
			}
			if _, err := r.EnableKey(t.Context(), admin(), keyops.EnableKeyInput{KeyID: k.ARN}); err != nil {
				t.Fatal(explain(err))
			}
			if _, err := r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob}); err != nil {
				t.Error(explain(err))
			}
		})
	})
}

func TestAliases(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a := create(t, r, keyops.CreateKeyInput{})
	b := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	mac := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac})
	ctx := t.Context()
	if _, err := r.CreateAlias(ctx, admin(), keyops.CreateAliasInput{AliasName: "alias/payroll", TargetKeyID: string(a.KeyID)}); err != nil {
		t.Fatal(explain(err))
	}
	_, err := r.CreateAlias(ctx, admin(), keyops.CreateAliasInput{AliasName: "alias/payroll", TargetKeyID: string(b.KeyID)})
	want(t, err, keyops.ErrAlreadyExists, "alias/payroll already exists")

	target := func() arn.KeyID {
		t.Helper()
		for _, ref := range []string{"alias/payroll", "arn:aws:kms:eu-paris-1:111122223333:alias/payroll"} {
			if _, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: ref, Plaintext: []byte("x")}); err != nil {
				t.Error(explain(err))
			}
		}
		out, err := r.DescribeKey(ctx, admin(), keyops.DescribeKeyInput{KeyID: "alias/payroll"})
		if err != nil {
			t.Fatal(explain(err))
		}
		return out.KeyMetadata.KeyID
	}
	if got := target(); got != a.KeyID {
		t.Errorf("alias points to %s, want %s", got, a.KeyID)
	}
	if _, err := r.UpdateAlias(ctx, admin(), keyops.UpdateAliasInput{AliasName: "alias/payroll", TargetKeyID: b.ARN}); err != nil {
		t.Fatal(explain(err))
	}
	if got := target(); got != b.KeyID {
		t.Errorf("alias points to %s, want %s", got, b.KeyID)
	}
	r.Restart(t)
	if got := target(); got != b.KeyID {
		t.Errorf("after a restart the alias points to %s, want %s", got, b.KeyID)
	}
	// To itself is allowed, as in AWS.
	if _, err := r.UpdateAlias(ctx, admin(), keyops.UpdateAliasInput{AliasName: "alias/payroll", TargetKeyID: b.ARN}); err != nil {
		t.Error(explain(err))
	}
	_, err = r.UpdateAlias(ctx, admin(), keyops.UpdateAliasInput{AliasName: "alias/payroll", TargetKeyID: mac.ARN})
	want(t, err, keyops.ErrValidation, "another such key")
	_, err = r.UpdateAlias(ctx, admin(), keyops.UpdateAliasInput{AliasName: "alias/other", TargetKeyID: b.ARN})
	want(t, err, keyops.ErrNotFound, "alias/other is not found")

	list, err := r.ListAliases(ctx, admin(), keyops.ListAliasesInput{KeyID: b.ARN})
	if err != nil || len(list.Aliases) != 1 || list.Aliases[0].AliasName != "alias/payroll" || list.Aliases[0].TargetKeyID != b.KeyID ||
		list.Aliases[0].AliasARN != "arn:aws:kms:eu-paris-1:111122223333:alias/payroll" {
		t.Errorf("aliases of the key: %+v, %v", list, explain(err))
	}
	if _, err := r.DeleteAlias(ctx, admin(), keyops.DeleteAliasInput{AliasName: "alias/payroll"}); err != nil {
		t.Fatal(explain(err))
	}
	_, err = r.DescribeKey(ctx, admin(), keyops.DescribeKeyInput{KeyID: "alias/payroll"})
	want(t, err, keyops.ErrNotFound, "Alias arn:aws:kms:eu-paris-1:111122223333:alias/payroll is not found.")
	_, err = r.DeleteAlias(ctx, admin(), keyops.DeleteAliasInput{AliasName: "alias/payroll"})
	want(t, err, keyops.ErrNotFound, "is not found")
}

func TestPagination(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	ids := map[arn.KeyID]bool{}
	for i := range 7 {
		k := create(t, r, keyops.CreateKeyInput{})
		ids[k.KeyID] = true
		name := "alias/" + strings.Repeat("n", i+1)
		if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: name, TargetKeyID: k.ARN}); err != nil {
			t.Fatal(err)
		}
	}
	var marker, last string
	for pages := 1; ; pages++ {
		out, err := r.ListKeys(t.Context(), admin(), keyops.ListKeysInput{Limit: 3, Marker: marker})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range out.Keys {
			if !ids[k.KeyID] || string(k.KeyID) <= last || !strings.HasSuffix(k.KeyARN, string(k.KeyID)) {
				t.Errorf("key %+v after %s", k, last)
			}
			delete(ids, k.KeyID)
			last = string(k.KeyID)
		}
		if out.Truncated != (pages < 3) || out.Truncated != (out.NextMarker != "") {
			t.Fatalf("page %d: truncated %v, marker %q", pages, out.Truncated, out.NextMarker)
		}
		if marker = out.NextMarker; !out.Truncated {
			break
		}
		_, err = r.ListAliases(t.Context(), admin(), keyops.ListAliasesInput{Marker: marker})
		want(t, err, keyops.ErrInvalidMarker, "")
	}
	if len(ids) != 0 {
		t.Errorf("not listed: %v", ids)
	}
	names := 0
	for marker = ""; ; {
		out, err := r.ListAliases(t.Context(), admin(), keyops.ListAliasesInput{Limit: 2, Marker: marker})
		if err != nil {
			t.Fatal(err)
		}
		names += len(out.Aliases)
		if marker = out.NextMarker; marker == "" {
			break
		}
	}
	if names != 7 {
		t.Errorf("%d aliases listed, want 7", names)
	}
	for _, bad := range []string{"x", "!!!!", "TGlzdEtleXM", strings.Repeat("A", 1000)} {
		_, err := r.ListKeys(t.Context(), admin(), keyops.ListKeysInput{Marker: bad})
		want(t, err, keyops.ErrInvalidMarker, "")
	}
}

func TestCallerAndRegion(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	who, err := r.GetCallerIdentity(t.Context(), keyopstest.User("nobody"), keyops.GetCallerIdentityInput{})
	if err != nil || who.ARN != "arn:aws:iam::111122223333:user/nobody" || who.Account != keyopstest.Account {
		t.Errorf("%+v, %v", who, err)
	}
	out, err := r.DescribeRegion(t.Context(), admin(), keyops.DescribeRegionInput{})
	if err != nil {
		t.Fatal(err)
	}
	if out.Region != "eu-paris-1" || out.Instance != r.Descriptor.Instance || out.Boundary != "api-only" ||
		out.Fingerprint != r.Descriptor.Fingerprint() || out.KeyQuota != 100_000 || len(out.KeySpecs) != 17 {
		t.Errorf("%+v", out)
	}
	for _, s := range out.KeySpecs {
		never := strings.Contains("ECC_NIST_EDWARDS25519 ML_DSA_44 ML_DSA_65 ML_DSA_87 SM2", string(s.KeySpec))
		if s.Supported == never || s.MultiRegion == never || (s.Reason == "") == never {
			t.Errorf("%+v", s)
		}
	}
	_, err = r.DescribeRegion(t.Context(), keyopstest.User("nobody"), keyops.DescribeRegionInput{})
	want(t, err, keyops.ErrAccessDenied, "kms:DescribeRegion")
}
