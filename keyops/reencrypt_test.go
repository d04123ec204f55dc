package keyops_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

func oaep(t testing.TB, r *keyopstest.Region) keyops.KeyMetadata {
	return create(t, r, keyops.CreateKeyInput{KeySpec: keyops.RSA2048, KeyUsage: keyops.EncryptDecrypt})
}

// TestReEncrypt goes from every kind of key to every other.
func TestReEncrypt(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a, b, rsa := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{MultiRegion: true}), oaep(t, r)
	from, to := map[string]string{"env": "from"}, map[string]string{"env": "to"}
	ctx := t.Context()
	type half struct {
		key       keyops.KeyMetadata
		context   map[string]string
		algorithm keyops.Algorithm
	}
	halves := []half{{key: a, context: from}, {key: b, context: to}, {key: rsa, algorithm: "RSAES_OAEP_SHA_1"}, {key: rsa, algorithm: "RSAES_OAEP_SHA_256"}, {key: a, context: to}}
	for _, source := range halves {
		enc, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: source.key.ARN, Plaintext: []byte("secret"), EncryptionContext: source.context, EncryptionAlgorithm: source.algorithm})
		if err != nil {
			t.Fatal(explain(err))
		}
		for _, dest := range halves {
			in := keyops.ReEncryptInput{
				CiphertextBlob: enc.CiphertextBlob, SourceEncryptionContext: source.context, SourceEncryptionAlgorithm: source.algorithm,
				DestinationKeyID: dest.key.ARN, DestinationEncryptionContext: dest.context, DestinationEncryptionAlgorithm: dest.algorithm,
			}
			if source.algorithm != "" {
				in.SourceKeyID = string(source.key.KeyID)
			}
			in.DryRun = true
			want(t, second(r.ReEncrypt(ctx, admin(), in)), keyops.ErrDryRun, "")
			in.DryRun = false
			out, err := r.ReEncrypt(ctx, admin(), in)
			if err != nil {
				t.Fatal(explain(err))
			}
			symmetric := keyops.AlgorithmSymmetricDefault
			if out.SourceKeyID != source.key.ARN || out.KeyID != dest.key.ARN ||
				out.SourceKeyMaterialID != source.key.CurrentKeyMaterialID || out.DestinationKeyMaterialID != dest.key.CurrentKeyMaterialID ||
				out.SourceEncryptionAlgorithm != or(source.algorithm, symmetric) || out.DestinationEncryptionAlgorithm != or(dest.algorithm, symmetric) {
				t.Errorf("%+v", out)
			}
			dec, err := r.Decrypt(ctx, admin(), keyops.DecryptInput{KeyID: dest.key.ARN, CiphertextBlob: out.CiphertextBlob, EncryptionContext: dest.context, EncryptionAlgorithm: dest.algorithm})
			if err != nil || string(dec.Plaintext) != "secret" {
				t.Errorf("%q, %v", dec.Plaintext, explain(err))
			}
		}
	}
}

func or(a, b keyops.Algorithm) keyops.Algorithm {
	if a != "" {
		return a
	}
	return b
}

func TestReEncryptRefuses(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a, b, rsa := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{}), oaep(t, r)
	ctx, ec := t.Context(), map[string]string{"a": "b"}
	blob := func(n int) []byte {
		out, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: a.ARN, Plaintext: bytes.Repeat(x, n), EncryptionContext: ec})
		if err != nil {
			t.Fatal(explain(err))
		}
		return out.CiphertextBlob
	}
	good := keyops.ReEncryptInput{CiphertextBlob: blob(1), SourceEncryptionContext: ec, DestinationKeyID: b.ARN}
	for name, tc := range map[string]struct {
		change func(in *keyops.ReEncryptInput)
		reason keyops.Reason
		part   string
	}{
		"nothing":                  {func(in *keyops.ReEncryptInput) {}, "", ""},
		"no ciphertext":            {func(in *keyops.ReEncryptInput) { in.CiphertextBlob = nil }, keyops.ErrValidation, "'ciphertextBlob'"},
		"6145 bytes":               {func(in *keyops.ReEncryptInput) { in.CiphertextBlob = make([]byte, 6145) }, keyops.ErrValidation, "less than or equal to 6144"},
		"a changed ciphertext":     {func(in *keyops.ReEncryptInput) { in.CiphertextBlob = append(bytes.Clone(in.CiphertextBlob), 0) }, keyops.ErrInvalidCiphertext, ""},
		"another source context":   {func(in *keyops.ReEncryptInput) { in.SourceEncryptionContext = nil }, keyops.ErrInvalidCiphertext, ""},
		"another source key":       {func(in *keyops.ReEncryptInput) { in.SourceKeyID = b.ARN }, keyops.ErrIncorrectKey, ""},
		"no destination":           {func(in *keyops.ReEncryptInput) { in.DestinationKeyID = "" }, keyops.ErrValidation, "'keyId'"},
		"an impossible context":    {func(in *keyops.ReEncryptInput) { in.DestinationEncryptionContext = map[string]string{"": ""} }, keyops.ErrValidation, "empty key"},
		"a missing source":         {func(in *keyops.ReEncryptInput) { in.SourceKeyID = string(arn.NewKeyID(false)) }, keyops.ErrNotFound, "does not exist"},
		"a missing destination":    {func(in *keyops.ReEncryptInput) { in.DestinationKeyID = "alias/none" }, keyops.ErrNotFound, "alias/none"},
		"an unknown algorithm":     {func(in *keyops.ReEncryptInput) { in.SourceEncryptionAlgorithm = "X" }, keyops.ErrValidation, ""},
		"an unknown algorithm too": {func(in *keyops.ReEncryptInput) { in.DestinationEncryptionAlgorithm = "X" }, keyops.ErrValidation, "'destinationEncryptionAlgorithm'"},
		"another spec's algorithm": {func(in *keyops.ReEncryptInput) { in.DestinationKeyID = rsa.ARN }, keyops.ErrInvalidKeyUsage, "Algorithm SYMMETRIC_DEFAULT is incompatible"},
		"an unnamed RSA source":    {func(in *keyops.ReEncryptInput) { in.SourceEncryptionAlgorithm = "RSAES_OAEP_SHA_1" }, keyops.ErrValidation, "does not name its key"},
		"what RSA takes": {func(in *keyops.ReEncryptInput) {
			in.DestinationKeyID, in.DestinationEncryptionAlgorithm, in.CiphertextBlob = rsa.ARN, "RSAES_OAEP_SHA_1", blob(214)
		}, "", ""},
		"more than RSA takes": {func(in *keyops.ReEncryptInput) {
			in.DestinationKeyID, in.DestinationEncryptionAlgorithm, in.CiphertextBlob = rsa.ARN, "RSAES_OAEP_SHA_1", blob(215)
		}, keyops.ErrValidation, "cannot encrypt data larger than 214 bytes"},
		"a context for RSA": {func(in *keyops.ReEncryptInput) {
			in.DestinationKeyID, in.DestinationEncryptionAlgorithm, in.DestinationEncryptionContext = rsa.ARN, "RSAES_OAEP_SHA_1", ec
		}, keyops.ErrValidation, "encryption context is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			in := good
			tc.change(&in)
			_, err := r.ReEncrypt(ctx, admin(), in)
			if tc.reason == "" {
				if err != nil {
					t.Error(explain(err))
				}
				return
			}
			want(t, err, tc.reason, tc.part)
		})
	}
	for name, key := range map[string]keyops.KeyMetadata{"source": a, "destination": b} {
		if _, err := r.DisableKey(ctx, admin(), keyops.DisableKeyInput{KeyID: string(key.KeyID)}); err != nil {
			t.Fatal(err)
		}
		_, err := r.ReEncrypt(ctx, admin(), good)
		want(t, err, keyops.ErrDisabled, key.ARN+" is disabled.")
		if _, err := r.EnableKey(ctx, admin(), keyops.EnableKeyInput{KeyID: string(key.KeyID)}); err != nil {
			t.Fatal(name, err)
		}
	}
}

// TestReEncryptNeedsBothPermissions: each key decides on its half, whether by policy or by
// grant, and hears its own context and algorithm.
func TestReEncryptNeedsBothPermissions(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	source, dest, other := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
	from, to := map[string]string{"side": "from"}, map[string]string{"side": "to"}
	enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: source.ARN, Plaintext: x, EncryptionContext: from})
	if err != nil {
		t.Fatal(explain(err))
	}
	in := keyops.ReEncryptInput{
		CiphertextBlob: enc.CiphertextBlob, SourceEncryptionContext: from, DestinationKeyID: dest.ARN, DestinationEncryptionContext: to,
	}
	call := func(tokens ...string) error {
		in := in
		in.GrantTokens = tokens
		return second(r.ReEncrypt(t.Context(), app(), in))
	}
	allow := func(k keyops.KeyMetadata, op string, ec map[string]string) keyops.CreateGrantOutput {
		g := keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{op}}
		g.Constraints.EncryptionContextEquals = ec
		return grant(t, r, g)
	}
	want(t, call(), keyops.ErrAccessDenied, "perform: kms:ReEncryptFrom on resource: "+source.ARN)
	allow(source, "ReEncryptTo", nil)
	want(t, call(), keyops.ErrAccessDenied, "perform: kms:ReEncryptFrom")
	wrong := allow(source, "ReEncryptFrom", to)
	want(t, call(), keyops.ErrAccessDenied, "perform: kms:ReEncryptFrom")
	revoke(t, r, source.ARN, wrong.GrantID)
	fromGrant := allow(source, "ReEncryptFrom", from)
	want(t, call(), keyops.ErrAccessDenied, "perform: kms:ReEncryptTo on resource: "+dest.ARN)
	allow(dest, "ReEncryptFrom", nil)
	want(t, call(), keyops.ErrAccessDenied, "perform: kms:ReEncryptTo")
	toGrant := allow(dest, "ReEncryptTo", to)
	if err := call(); err != nil {
		t.Error(explain(err))
	}
	if err := call(fromGrant.GrantToken, toGrant.GrantToken); err != nil {
		t.Error(explain(err))
	}
	elsewhere := allow(other, "ReEncryptTo", nil)
	want(t, call(fromGrant.GrantToken, elsewhere.GrantToken), keyops.ErrInvalidGrantToken, "")

	// The record says which grant allowed which half, both keys and both contexts.
	caller := app()
	if _, err := r.ReEncrypt(t.Context(), caller, in); err != nil {
		t.Fatal(explain(err))
	}
	lines := auditLines(t, r, caller.RequestID)
	if len(lines) != 1 || len(lines[0].Resources) != 2 || lines[0].Resources[0].ARN != source.ARN || lines[0].Resources[1].ARN != dest.ARN {
		t.Fatalf("%+v", lines)
	}
	if diff := cmp.Diff(map[string]string{"bySourceGrant": fromGrant.GrantID, "byGrant": toGrant.GrantID, "sourceEncryptionContext": `{"side":"from"}`}, lines[0].Details); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(to, lines[0].EncryptionContext); diff != "" {
		t.Error(diff)
	}
}

// TestReEncryptOnSameKey: a condition tells the renewal of a ciphertext from its passing on.
func TestReEncryptOnSameKey(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	doc := `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Allow","Principal":{"AWS":"` + appARN + `"},"Action":["kms:ReEncrypt*"],"Resource":"*","Condition":{"Bool":{"kms:ReEncryptOnSameKey":"true"}}}]}`
	a, b := create(t, r, keyops.CreateKeyInput{Policy: doc}), create(t, r, keyops.CreateKeyInput{Policy: doc})
	enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: a.ARN, Plaintext: x})
	if err != nil {
		t.Fatal(explain(err))
	}
	if _, err := r.ReEncrypt(t.Context(), app(), keyops.ReEncryptInput{CiphertextBlob: enc.CiphertextBlob, DestinationKeyID: a.ARN}); err != nil {
		t.Error(explain(err))
	}
	_, err = r.ReEncrypt(t.Context(), app(), keyops.ReEncryptInput{CiphertextBlob: enc.CiphertextBlob, DestinationKeyID: b.ARN})
	want(t, err, keyops.ErrAccessDenied, "kms:ReEncryptFrom")
}

// TestReEncryptTellsOfNoOtherAccount is TestCiphertextsTellOfNoOtherAccount for ReEncrypt.
func TestReEncryptTellsOfNoOtherAccount(t *testing.T) {
	const other arn.Account = "444455556666"
	r := keyopstest.New(t, keyopstest.Options{
		Accounts:   []arn.Account{keyopstest.Account, other},
		Identities: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:user/admin","arn:aws:iam::444455556666:user/partner"]},"Action":"kms:*","Resource":"*"}]}`,
	})
	partner := keyopstest.UserOf(other, "partner")
	theirs, err := r.CreateKey(t.Context(), partner, keyops.CreateKeyInput{})
	if err != nil {
		t.Fatal(explain(err))
	}
	blob, err := encryptWith(r, create(t, r, keyops.CreateKeyInput{}))
	if err != nil {
		t.Fatal(explain(err))
	}
	nobodys := bytes.Clone(blob)
	nobodys[3] ^= 1
	var answers []string
	for _, b := range [][]byte{blob, nobodys} {
		_, err := r.ReEncrypt(t.Context(), keyopstest.UserOf(other, "partner"), keyops.ReEncryptInput{CiphertextBlob: b, DestinationKeyID: theirs.KeyMetadata.ARN})
		want(t, err, keyops.ErrInvalidCiphertext, "")
		answers = append(answers, err.Error())
	}
	if answers[0] != answers[1] || strings.Contains(answers[0], "111122223333") {
		t.Errorf("another account's key answers %q, none %q", answers[0], answers[1])
	}
}
