package keyops_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	_ "github.com/keyferry/keyferry/keyops/keyopstest/seededtest"
	"github.com/keyferry/keyferry/keyops/policy"
)

// document is a key policy of statements; the account may do everything besides.
func document(statements ...string) string {
	all := append([]string{`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}`}, statements...)
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(all, ",") + `]}`
}

func allowApp(actions string) string {
	return `{"Effect":"Allow","Principal":{"AWS":"` + appARN + `"},"Action":` + actions + `,"Resource":"*"}`
}

func put(r *keyopstest.Region, c keyops.Caller, key, doc string) error {
	return second(r.PutKeyPolicy(context.Background(), c, keyops.PutKeyPolicyInput{KeyID: key, Policy: doc}))
}

// TestPutKeyPolicy: a policy decides from the moment that it is put, here and nowhere else.
func TestPutKeyPolicy(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	doc := document(allowApp(`"kms:Encrypt"`))
	want(t, encryptAs(w.paris, app(), k.ARN, nil), keyops.ErrAccessDenied, "")
	caller := admin()
	if err := put(w.paris, caller, string(k.KeyID), doc); err != nil {
		t.Fatal(explain(err))
	}
	if lines := auditLines(t, w.paris, caller.RequestID); len(lines) != 2 || len(lines[0].Details["policySha256"]) != 64 {
		t.Errorf("recorded %+v", lines)
	}
	w.paris.Restart(t)
	if err := encryptAs(w.paris, app(), k.ARN, nil); err != nil {
		t.Error(explain(err))
	}
	w.sync(t, k.KeyID)
	want(t, encryptAs(w.tokyo, app(), string(k.KeyID), nil), keyops.ErrAccessDenied, "")
	out, err := w.paris.GetKeyPolicy(t.Context(), admin(), keyops.GetKeyPolicyInput{KeyID: k.ARN, PolicyName: "default"})
	if err != nil || out.Policy != doc {
		t.Errorf("%+v, %v", out, explain(err))
	}
	head := w.paris.StoreHead()
	if err := put(w.paris, admin(), k.ARN, doc); err != nil || w.paris.StoreHead() != head {
		t.Errorf("the same policy again is a change, or: %v", err)
	}
	if err := put(w.paris, admin(), k.ARN, document()); err != nil {
		t.Fatal(explain(err))
	}
	want(t, encryptAs(w.paris, app(), k.ARN, nil), keyops.ErrAccessDenied, "")
	names, err := w.paris.ListKeyPolicies(t.Context(), admin(), keyops.ListKeyPoliciesInput{KeyID: k.ARN})
	if err != nil || !slices.Equal(names.PolicyNames, []string{"default"}) {
		t.Errorf("%+v, %v", names, explain(err))
	}
	_, err = w.paris.ListKeyPolicies(t.Context(), admin(), keyops.ListKeyPoliciesInput{KeyID: k.ARN, Marker: "x"})
	want(t, err, keyops.ErrInvalidMarker, "")
}

// TestPoliciesRefused: a policy that locks out its author, or everybody, is taken only when
// the caller insists; one that cannot be understood never is.
func TestPoliciesRefused(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	everybodyOut := document(`{"Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*"}`)
	const authorOut = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/app"},"Action":"kms:*","Resource":"*"}]}`
	elsewhere := document(`{"Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":"198.51.100.0/24"}}}`)
	single := document(`{"Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*","Condition":{"Bool":{"kms:MultiRegion":"false"}}}`)
	for _, tc := range []struct {
		name, doc string
		reason    keyops.Reason
		insist    bool // succeeds with the bypass
	}{
		{"everybody is locked out", everybodyOut, keyops.ErrMalformedPolicyDocument, true},
		{"the author is locked out", authorOut, keyops.ErrMalformedPolicyDocument, true},
		{"from another network only", elsewhere, keyops.ErrMalformedPolicyDocument, true},
		{"denied because of what the key is", single, keyops.ErrMalformedPolicyDocument, true},
		{"empty", "", keyops.ErrValidation, false},
		{"no JSON", "policy", keyops.ErrMalformedPolicyDocument, false},
		{"an unknown condition key", document(`{"Effect":"Deny","Principal":"*","Action":"kms:Decrypt","Resource":"*","Condition":{"Bool":{"kms:MultiRegoin":"true"}}}`), keyops.ErrMalformedPolicyDocument, false},
		{"too long", document() + strings.Repeat(" ", 32<<10), keyops.ErrLimitExceeded, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := create(t, r, keyops.CreateKeyInput{})
			want(t, put(r, admin(), k.ARN, tc.doc), tc.reason, "")
			out, err := r.GetKeyPolicy(t.Context(), admin(), keyops.GetKeyPolicyInput{KeyID: k.ARN})
			if err != nil || out.Policy != string(policy.DefaultKeyPolicy("aws", string(keyopstest.Account))) {
				t.Errorf("the policy has changed: %+v, %v", out, explain(err))
			}
			_, err = r.PutKeyPolicy(t.Context(), admin(), keyops.PutKeyPolicyInput{KeyID: k.ARN, Policy: tc.doc, BypassPolicyLockoutSafetyCheck: true})
			if !tc.insist {
				want(t, err, tc.reason, "")
				return
			}
			if err != nil {
				t.Fatal(explain(err))
			}
			// What was wanted is what is there: the author is out.
			want(t, put(r, admin(), k.ARN, document()), keyops.ErrAccessDenied, "kms:PutKeyPolicy")
		})
	}
	k := create(t, r, keyops.CreateKeyInput{})
	_, err := r.PutKeyPolicy(t.Context(), admin(), keyops.PutKeyPolicyInput{KeyID: k.ARN, Policy: document(), PolicyName: "other"})
	want(t, err, keyops.ErrNotFound, "")
	noBypass := document(`{"Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*","Condition":{"Bool":{"kms:BypassPolicyLockoutSafetyCheck":"true"}}}`)
	if err := put(r, admin(), k.ARN, noBypass); err != nil {
		t.Fatal(explain(err))
	}
	_, err = r.PutKeyPolicy(t.Context(), admin(), keyops.PutKeyPolicyInput{KeyID: k.ARN, Policy: everybodyOut, BypassPolicyLockoutSafetyCheck: true})
	want(t, err, keyops.ErrAccessDenied, "")
	// No grant allows it, whoever makes the grant.
	_, err = r.CreateGrant(t.Context(), admin(), keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"PutKeyPolicy"}})
	want(t, err, keyops.ErrValidation, "cannot be granted")
}

// TestDenyBeatsGrants: of a random policy and random grants, a call is allowed exactly if the
// one or the other allows it and nothing denies it. The explanation says the same.
func TestDenyBeatsGrants(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	operations := map[string]func() error{
		"Encrypt": func() error { return encryptAs(r, app(), k.ARN, nil) },
		"GenerateDataKey": func() error {
			return second(r.GenerateDataKey(context.Background(), app(), keyops.GenerateDataKeyInput{KeyID: k.ARN, NumberOfBytes: 1}))
		},
		"DescribeKey": func() error {
			return second(r.DescribeKey(context.Background(), app(), keyops.DescribeKeyInput{KeyID: k.ARN}))
		},
		"CreateGrant": func() error {
			in := keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: helper, Operations: []string{"DescribeKey"}, DryRun: true}
			if err := second(r.CreateGrant(context.Background(), app(), in)); !strings.HasPrefix(err.Error(), string(keyops.ErrDryRun)) {
				return err
			}
			return nil
		},
	}
	names := []string{"CreateGrant", "DescribeKey", "Encrypt", "GenerateDataKey"}
	some := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 3, rapid.ID[string])
	rapid.Check(t, func(rt *rapid.T) {
		allows, denies, denyAll := some.Draw(rt, "allows"), some.Draw(rt, "denies"), rapid.Bool().Draw(rt, "everybody")
		granted := rapid.SliceOfN(some.Filter(func(ops []string) bool { return len(ops) > 0 }), 0, 3).Draw(rt, "grants")
		var statements []string
		for _, op := range allows {
			statements = append(statements, allowApp(fmt.Sprintf("%q", "kms:"+op)))
		}
		for _, op := range denies {
			whom := `{"AWS":"` + appARN + `"}`
			if denyAll {
				whom = `"*"`
			}
			statements = append(statements, fmt.Sprintf(`{"Effect":"Deny","Principal":%s,"Action":"kms:%s","Resource":"*","Condition":{"ArnLike":{"aws:PrincipalArn":%q}}}`, whom, op, appARN))
		}
		if err := put(r, admin(), k.ARN, document(statements...)); err != nil {
			rt.Fatal(explain(err))
		}
		var made []string
		for _, ops := range granted {
			made = append(made, grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: ops}).GrantID)
		}
		for _, op := range names {
			allowed := slices.Contains(allows, op)
			for _, ops := range granted {
				// What is passed on here is DescribeKey, which the grant must have, too.
				allowed = allowed || slices.Contains(ops, op) && (op != "CreateGrant" || slices.Contains(ops, "DescribeKey"))
			}
			allowed = allowed && !slices.Contains(denies, op)
			if err := operations[op](); (err == nil) != allowed {
				rt.Errorf("%s is allowed: want %t, got %v", op, allowed, explain(err))
			}
			for _, asker := range []keyops.Caller{admin(), app()} {
				e, err := r.ExplainAccess(context.Background(), asker, keyops.ExplainAccessInput{
					Principal: appARN, Action: "kms:" + op, KeyID: k.ARN, Conditions: map[string][]string{policy.GrantOperations: {"DescribeKey"}},
				})
				if err != nil || e.Allowed != allowed {
					rt.Errorf("%s is explained as %+v, %v; want %t", op, e, explain(err), allowed)
				}
			}
		}
		for _, id := range made {
			revoke(t, r, k.ARN, id)
		}
	})
}

func TestTags(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{Description: "old", Tags: []keyops.Tag{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}}})
	tag := func(tags ...keyops.Tag) error {
		return second(r.TagResource(t.Context(), admin(), keyops.TagResourceInput{KeyID: k.ARN, Tags: tags}))
	}
	if err := tag(keyops.Tag{Key: "b", Value: "3"}, keyops.Tag{Key: "c"}); err != nil {
		t.Fatal(explain(err))
	}
	for range 2 { // taking away what is not there is no error
		if _, err := r.UntagResource(t.Context(), admin(), keyops.UntagResourceInput{KeyID: k.ARN, TagKeys: []string{"a", "x"}}); err != nil {
			t.Fatal(explain(err))
		}
	}
	if _, err := r.UpdateKeyDescription(t.Context(), admin(), keyops.UpdateKeyDescriptionInput{KeyID: k.ARN, Description: "new"}); err != nil {
		t.Fatal(explain(err))
	}
	r.Restart(t)
	var tags []keyops.Tag
	in := keyops.ListResourceTagsInput{KeyID: k.ARN, Limit: 1}
	for more := true; more; {
		out, err := r.ListResourceTags(t.Context(), admin(), in)
		if err != nil {
			t.Fatal(explain(err))
		}
		tags = append(tags, out.Tags...)
		in.Marker, more = out.NextMarker, out.Truncated
	}
	if diff := cmp.Diff([]keyops.Tag{{Key: "b", Value: "3"}, {Key: "c"}}, tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	if err != nil || out.KeyMetadata.Description != "new" {
		t.Errorf("%+v, %v", out, err)
	}
	var many []keyops.Tag
	for i := range 49 {
		many = append(many, keyops.Tag{Key: fmt.Sprint("k", i)})
	}
	want(t, tag(many...), keyops.ErrTag, "Too many tags")
	if err := tag(many[:48]...); err != nil {
		t.Error(explain(err))
	}
	want(t, tag(keyops.Tag{Key: "aws:x"}), keyops.ErrTag, "reserved")
	want(t, tag(keyops.Tag{Key: "x"}, keyops.Tag{Key: "x"}), keyops.ErrTag, "Duplicate")
	want(t, tag(), keyops.ErrValidation, "tags")
	_, err = r.UntagResource(t.Context(), admin(), keyops.UntagResourceInput{KeyID: k.ARN})
	want(t, err, keyops.ErrValidation, "tagKeys")
	_, err = r.UpdateKeyDescription(t.Context(), admin(), keyops.UpdateKeyDescriptionInput{KeyID: k.ARN, Description: strings.Repeat("x", 8193)})
	want(t, err, keyops.ErrValidation, "description")
}
