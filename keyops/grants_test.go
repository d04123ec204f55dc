package keyops_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

var (
	app    = func() keyops.Caller { return keyopstest.User("app") }
	appARN = app().Principal.String()
	helper = "arn:aws:iam::111122223333:user/helper"
)

// grant makes a grant as the administrator, or fails the test.
func grant(t testing.TB, r *keyopstest.Region, in keyops.CreateGrantInput) keyops.CreateGrantOutput {
	t.Helper()
	out, err := r.CreateGrant(context.Background(), admin(), in)
	if err != nil {
		t.Fatal(explain(err))
	}
	return out
}

func revoke(t testing.TB, r *keyopstest.Region, key, grant string) {
	t.Helper()
	if _, err := r.RevokeGrant(context.Background(), admin(), keyops.RevokeGrantInput{KeyID: key, GrantID: grant}); err != nil {
		t.Fatal(explain(err))
	}
}

// encryptAs encrypts with a key as somebody.
func encryptAs(r *keyopstest.Region, c keyops.Caller, key string, ec map[string]string, tokens ...string) error {
	return second(r.Encrypt(context.Background(), c, keyops.EncryptInput{KeyID: key, Plaintext: x, EncryptionContext: ec, GrantTokens: tokens}))
}

// TestGrants: what a grant allows is allowed from CreateGrant to RevokeGrant, to its grantee
// alone, over a restart, and nothing besides.
func TestGrants(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	want(t, encryptAs(r, app(), k.ARN, nil), keyops.ErrAccessDenied, "kms:Encrypt")

	made := grant(t, r, keyops.CreateGrantInput{KeyID: string(k.KeyID), GranteePrincipal: appARN, RetiringPrincipal: helper, Operations: []string{"Encrypt", "Decrypt"}, Name: "batch"})
	check := func() {
		t.Helper()
		if err := encryptAs(r, app(), k.ARN, nil); err != nil {
			t.Error(explain(err))
		}
		if err := encryptAs(r, app(), string(k.KeyID), nil, made.GrantToken, made.GrantToken); err != nil {
			t.Error(explain(err))
		}
		blob, err := encryptWith(r, k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Decrypt(t.Context(), app(), keyops.DecryptInput{CiphertextBlob: blob, GrantTokens: []string{made.GrantToken}}); err != nil {
			t.Error(explain(err))
		}
		_, err = r.GenerateDataKey(t.Context(), app(), keyops.GenerateDataKeyInput{KeyID: k.ARN, NumberOfBytes: 1})
		want(t, err, keyops.ErrAccessDenied, "kms:GenerateDataKey")
		want(t, encryptAs(r, keyopstest.User("other"), k.ARN, nil), keyops.ErrAccessDenied, "")
	}
	check()
	r.Restart(t)
	check()

	list, err := r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: k.ARN})
	if err != nil || len(list.Grants) != 1 {
		t.Fatalf("%+v, %v", list, explain(err))
	}
	listed := list.Grants[0]
	entry := keyops.GrantListEntry{
		KeyID: k.ARN, GrantID: made.GrantID, Name: "batch", CreationDate: listed.CreationDate, GranteePrincipal: appARN,
		RetiringPrincipal: helper, IssuingAccount: keyopstest.Account, Operations: []string{"Decrypt", "Encrypt"},
	}
	if diff := cmp.Diff(entry, listed); diff != "" || listed.CreationDate.IsZero() || len(made.GrantID) != 64 {
		t.Errorf("listed (-want +got):\n%s", diff)
	}

	revoke(t, r, k.ARN, made.GrantID)
	for range 2 {
		want(t, encryptAs(r, app(), k.ARN, nil), keyops.ErrAccessDenied, "")
		want(t, encryptAs(r, app(), k.ARN, nil, made.GrantToken), keyops.ErrInvalidGrantToken, "")
		_, err = r.RevokeGrant(t.Context(), admin(), keyops.RevokeGrantInput{KeyID: k.ARN, GrantID: made.GrantID})
		want(t, err, keyops.ErrNotFound, "Grant ID "+made.GrantID+" not found")
		r.Restart(t)
	}
}

// TestGrantTokens: a token that does not name a grant in force for the caller on this key in
// this Region is refused, with one answer for all.
func TestGrantTokens(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	other := create(t, w.paris, keyops.CreateKeyInput{})
	in := keyops.CreateGrantInput{GranteePrincipal: appARN, Operations: []string{"Encrypt"}}
	on := func(key string, to string) keyops.CreateGrantOutput {
		in.KeyID, in.GranteePrincipal = key, to
		return grant(t, w.paris, in)
	}
	good, gone, foreign, elsewhere := on(k.ARN, appARN), on(k.ARN, appARN), on(k.ARN, helper), on(other.ARN, appARN)
	revoke(t, w.paris, k.ARN, gone.GrantID)
	in.KeyID, in.GranteePrincipal = string(k.KeyID), appARN
	tokyo := grant(t, w.tokyo, in)
	bent := func(i int) string {
		b, err := base64.RawURLEncoding.DecodeString(good.GrantToken)
		if err != nil {
			t.Fatal(err)
		}
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	raw, err := base64.RawURLEncoding.DecodeString(good.GrantToken)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{
		"revoked": gone.GrantToken, "of another grantee": foreign.GrantToken, "of another key": elsewhere.GrantToken, "of another Region": tokyo.GrantToken,
		"cut short": good.GrantToken[:len(good.GrantToken)-2], "longer": good.GrantToken + "AA", "garbage": "no token", "the grant ID": good.GrantID,
	}
	for i := range raw {
		tokens[fmt.Sprint("bent at ", i)] = bent(i)
	}
	for name, token := range tokens {
		// Behind a good one, too.
		want(t, encryptAs(w.paris, app(), k.ARN, nil, good.GrantToken, token), keyops.ErrInvalidGrantToken, "no grant that is in force")
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for name, test := range map[string]struct {
		tokens []string
		reason keyops.Reason
	}{
		"ten":          {slices.Repeat([]string{good.GrantToken}, 10), ""},
		"eleven":       {slices.Repeat([]string{good.GrantToken}, 11), keyops.ErrValidation},
		"an empty one": {[]string{""}, keyops.ErrValidation},
		"a long one":   {[]string{strings.Repeat("A", 8193)}, keyops.ErrValidation},
		"almost long":  {[]string{strings.Repeat("A", 8192)}, keyops.ErrInvalidGrantToken},
	} {
		if err := encryptAs(w.paris, app(), k.ARN, nil, test.tokens...); test.reason == "" && err != nil {
			t.Errorf("%s: %v", name, explain(err))
		} else if test.reason != "" {
			want(t, err, test.reason, "")
		}
	}
	// A token tells nothing of keys to who has no grant.
	missing := "arn:aws:kms:eu-paris-1:111122223333:key/" + string(arn.NewKeyID(true))
	mallory := keyopstest.User("mallory")
	a, b := encryptAs(w.paris, mallory, k.ARN, nil, good.GrantToken), encryptAs(w.paris, mallory, missing, nil, good.GrantToken)
	want(t, a, keyops.ErrInvalidGrantToken, "")
	if a.Error() != b.Error() {
		t.Errorf("an existing key is told from a missing one:\n%v\n%v", a, b)
	}
	// Every operation that takes tokens looks at them.
	ctx, stale := t.Context(), []string{gone.GrantToken}
	for name, err := range map[string]error{
		"DescribeKey":     second(w.paris.DescribeKey(ctx, admin(), keyops.DescribeKeyInput{KeyID: k.ARN, GrantTokens: stale})),
		"Decrypt":         second(w.paris.Decrypt(ctx, admin(), keyops.DecryptInput{KeyID: k.ARN, CiphertextBlob: x, GrantTokens: stale})),
		"GenerateDataKey": second(w.paris.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: k.ARN, NumberOfBytes: 1, GrantTokens: stale})),
		"GenerateMac":     second(w.paris.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: k.ARN, Message: x, GrantTokens: stale})),
		"VerifyMac":       second(w.paris.VerifyMac(ctx, admin(), keyops.VerifyMacInput{KeyID: k.ARN, Message: x, Mac: x, GrantTokens: stale})),
		"Sign":            second(w.paris.Sign(ctx, admin(), keyops.SignInput{KeyID: k.ARN, Message: x, GrantTokens: stale})),
		"Verify":          second(w.paris.Verify(ctx, admin(), keyops.VerifyInput{KeyID: k.ARN, Message: x, Signature: x, GrantTokens: stale})),
		"GetPublicKey":    second(w.paris.GetPublicKey(ctx, admin(), keyops.GetPublicKeyInput{KeyID: k.ARN, GrantTokens: stale})),
		"CreateGrant":     second(w.paris.CreateGrant(ctx, admin(), keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}, GrantTokens: stale})),
		"RetireGrant":     second(w.paris.RetireGrant(ctx, admin(), keyops.RetireGrantInput{GrantToken: gone.GrantToken})),
		"in Paris":        second(w.paris.RetireGrant(ctx, admin(), keyops.RetireGrantInput{GrantToken: tokyo.GrantToken})),
	} {
		t.Run(name, func(t *testing.T) { want(t, err, keyops.ErrInvalidGrantToken, "") })
	}
}

// TestGrantsStayInTheirRegion: the replica key knows nothing of the primary key's grants.
func TestGrantsStayInTheirRegion(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	grant(t, w.paris, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}})
	w.sync(t, k.KeyID)
	if err := encryptAs(w.paris, app(), string(k.KeyID), nil); err != nil {
		t.Error(explain(err))
	}
	want(t, encryptAs(w.tokyo, app(), string(k.KeyID), nil), keyops.ErrAccessDenied, "")
	list, err := w.tokyo.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: string(k.KeyID)})
	if err != nil || len(list.Grants) != 0 {
		t.Errorf("%+v, %v", list, explain(err))
	}
}

func TestGrantConstraints(t *testing.T) {
	type pairs = map[string]string
	r := keyopstest.New(t, keyopstest.Options{})
	for _, tc := range []struct {
		name        string
		constraints keyops.GrantConstraints
		yes, no     []pairs
	}{
		{"subset", keyops.GrantConstraints{EncryptionContextSubset: pairs{"env": "prod"}},
			[]pairs{{"env": "prod"}, {"env": "prod", "a": "b"}}, []pairs{nil, {"env": "test"}, {"Env": "prod"}, {"env": "prod "}}},
		{"equals", keyops.GrantConstraints{EncryptionContextEquals: pairs{"env": "prod"}},
			[]pairs{{"env": "prod"}}, []pairs{nil, {"env": "prod", "a": "b"}, {"env": "test"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := create(t, r, keyops.CreateKeyInput{})
			grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt", "DescribeKey"}, Constraints: tc.constraints})
			r.Restart(t)
			for _, ec := range tc.yes {
				if err := encryptAs(r, app(), k.ARN, ec); err != nil {
					t.Errorf("%v: %v", ec, explain(err))
				}
			}
			for _, ec := range tc.no {
				want(t, encryptAs(r, app(), k.ARN, ec), keyops.ErrAccessDenied, "")
			}
			if _, err := r.DescribeKey(t.Context(), app(), keyops.DescribeKeyInput{KeyID: k.ARN}); err != nil {
				t.Error(explain(err))
			}
		})
	}
}

// TestGranteePassesOnNoMore: through a grant only grants of its operations, under a
// constraint at least as strict.
func TestGranteePassesOnNoMore(t *testing.T) {
	type pairs = map[string]string
	subset := func(p pairs) keyops.GrantConstraints { return keyops.GrantConstraints{EncryptionContextSubset: p} }
	equals := func(p pairs) keyops.GrantConstraints { return keyops.GrantConstraints{EncryptionContextEquals: p} }
	for _, tc := range []struct {
		name       string
		has        keyops.GrantConstraints
		operations string
		asks       keyops.GrantConstraints
		allowed    bool
	}{
		{"the same", subset(pairs{"env": "prod"}), "Decrypt", subset(pairs{"env": "prod"}), true},
		{"with the right to pass on", subset(pairs{"env": "prod"}), "CreateGrant Decrypt", subset(pairs{"env": "prod"}), true},
		{"stricter", subset(pairs{"env": "prod"}), "Decrypt", subset(pairs{"env": "prod", "a": "b"}), true},
		{"equality is stricter than a subset", subset(pairs{"env": "prod"}), "Decrypt", equals(pairs{"env": "prod"}), true},
		{"another operation", subset(pairs{"env": "prod"}), "Encrypt", subset(pairs{"env": "prod"}), false},
		{"one operation more", subset(pairs{"env": "prod"}), "Decrypt Encrypt", subset(pairs{"env": "prod"}), false},
		{"retiring, which it does not have", subset(pairs{"env": "prod"}), "RetireGrant", subset(pairs{"env": "prod"}), false},
		{"without the constraint", subset(pairs{"env": "prod"}), "Decrypt", subset(nil), false},
		{"with another constraint", subset(pairs{"env": "prod"}), "Decrypt", subset(pairs{"env": "test"}), false},
		{"with half of the constraint", subset(pairs{"env": "prod", "a": "b"}), "Decrypt", subset(pairs{"env": "prod"}), false},
		{"a subset is weaker than equality", equals(pairs{"env": "prod"}), "Decrypt", subset(pairs{"env": "prod"}), false},
		{"equality with more", equals(pairs{"env": "prod"}), "Decrypt", equals(pairs{"env": "prod", "a": "b"}), false},
		{"the same equality", equals(pairs{"env": "prod"}), "Decrypt", equals(pairs{"env": "prod"}), true},
		{"a constraint where there is none", subset(nil), "Decrypt", subset(pairs{"env": "prod"}), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := keyopstest.New(t, keyopstest.Options{})
			k := create(t, r, keyops.CreateKeyInput{})
			first := grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Decrypt", "CreateGrant"}, Constraints: tc.has})
			ask := keyops.CreateGrantInput{
				KeyID: k.ARN, GranteePrincipal: helper, Operations: strings.Fields(tc.operations), Constraints: tc.asks, GrantTokens: []string{first.GrantToken},
			}
			_, err := r.CreateGrant(t.Context(), app(), ask)
			if tc.allowed && err != nil {
				t.Error(explain(err))
			} else if !tc.allowed {
				want(t, err, keyops.ErrAccessDenied, "kms:CreateGrant")
			}
			// Two grants do not add up to one that has both.
			grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}})
			ask.Operations = []string{"Decrypt", "Encrypt"}
			_, err = r.CreateGrant(t.Context(), app(), ask)
			want(t, err, keyops.ErrAccessDenied, "")
			revoke(t, r, k.ARN, first.GrantID)
			ask.Operations, ask.GrantTokens, ask.Constraints = []string{"Decrypt"}, nil, tc.has
			_, err = r.CreateGrant(t.Context(), app(), ask)
			want(t, err, keyops.ErrAccessDenied, "")
		})
	}
}

// TestGrantsInAudit: the log names grants, and what a call rested on; never a token.
func TestGrantsInAudit(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	caller := admin()
	made, err := r.CreateGrant(t.Context(), caller, keyops.CreateGrantInput{
		KeyID: k.ARN, GranteePrincipal: appARN, RetiringPrincipal: helper, Operations: []string{"Encrypt", "Decrypt"},
		Constraints: keyops.GrantConstraints{EncryptionContextSubset: map[string]string{"env": "prod"}},
	})
	if err != nil {
		t.Fatal(explain(err))
	}
	lines := auditLines(t, r, caller.RequestID)
	details := map[string]string{
		"granteePrincipal": appARN, "retiringPrincipal": helper, "grantOperations": "Decrypt Encrypt", "grantConstraintType": "EncryptionContextSubset", "grantId": made.GrantID,
	}
	if diff := cmp.Diff(details, lines[1].Details); diff != "" || lines[1].EncryptionContext["env"] != "prod" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	user := app()
	if err := encryptAs(r, user, k.ARN, map[string]string{"env": "prod"}, made.GrantToken); err != nil {
		t.Fatal(explain(err))
	}
	if lines := auditLines(t, r, user.RequestID); len(lines) != 1 || lines[0].Details["byGrant"] != made.GrantID {
		t.Errorf("%+v", lines)
	}
	files, _ := filepath.Glob(filepath.Join(r.AuditDir, "*"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || strings.Contains(string(b), made.GrantToken) {
			t.Errorf("%s: the token is in the audit log, or: %v", f, err)
		}
	}
}
