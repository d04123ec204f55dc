package keyops_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/policy"
)

func ask(r *keyopstest.Region, c keyops.Caller, in keyops.ExplainAccessInput) (keyops.ExplainAccessOutput, error) {
	return r.ExplainAccess(context.Background(), c, in)
}

// TestExplain: who may read the key policy hears the decision, what decided, and what is
// missing.
func TestExplain(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{Policy: document(
		`{"Sid":"App","Effect":"Allow","Principal":{"AWS":"` + appARN + `"},"Action":"kms:Encrypt","Resource":"*","Condition":{"StringEquals":{"kms:EncryptionContext:env":"prod"},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}`)})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/payroll", TargetKeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	prod := map[string]string{"env": "prod"}
	inside := map[string][]string{policy.SourceIP: {"10.1.2.3"}}
	made := grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: helper, RetiringPrincipal: appARN, Operations: []string{"Decrypt"}})
	for _, tc := range []struct {
		name              string
		in                keyops.ExplainAccessInput
		allowed           bool
		reason, statement string
		advice            string
	}{
		{"allowed", keyops.ExplainAccessInput{Action: "kms:Encrypt", EncryptionContext: prod, Conditions: inside}, true, "KeyPolicyAllow", `"App"`, ""},
		{"by alias", keyops.ExplainAccessInput{Action: "kms:Encrypt", KeyID: "alias/payroll", EncryptionContext: prod, Conditions: inside}, true, "KeyPolicyAllow", `"App"`, ""},
		{"another context", keyops.ExplainAccessInput{Action: "kms:Encrypt", EncryptionContext: map[string]string{"env": "test"}, Conditions: inside}, false, "NoIdentityAllow", "", "but for its Condition"},
		{"an address that is not known", keyops.ExplainAccessInput{Action: "kms:Encrypt", EncryptionContext: prod}, false, "NoIdentityAllow", "", "absent from the request"},
		{"another action", keyops.ExplainAccessInput{Action: "kms:Decrypt"}, false, "NoIdentityAllow", "", "create a grant"},
		{"a grant", keyops.ExplainAccessInput{Principal: helper, Action: "kms:Decrypt"}, true, "GrantAllow", made.GrantID, ""},
		{"a retiring principal", keyops.ExplainAccessInput{Action: "kms:RetireGrant"}, true, "GrantAllow", made.GrantID, ""},
		{"another policy, not yet put", keyops.ExplainAccessInput{Action: "kms:Decrypt", Policy: document(allowApp(`"kms:*"`))}, true, "KeyPolicyAllow", "", ""},
		{"a policy that is too narrow", keyops.ExplainAccessInput{Action: "kms:Encrypt", EncryptionContext: prod, Conditions: inside, Policy: document()}, false, "NoIdentityAllow", "", ""},
		{"the administrator", keyops.ExplainAccessInput{Principal: admin().Principal.String(), Action: "kms:PutKeyPolicy"}, true, "IdentityAllow", `"admin"`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.in.Principal == "" {
				tc.in.Principal = appARN
			}
			if tc.in.KeyID == "" {
				tc.in.KeyID = string(k.KeyID)
			}
			out, err := ask(r, admin(), tc.in)
			if err != nil {
				t.Fatal(explain(err))
			}
			if len(out.Decisions) != 1 || out.Allowed != tc.allowed {
				t.Fatalf("%+v", out)
			}
			d := out.Decisions[0]
			if d.Allowed != tc.allowed || d.Reason != tc.reason || !strings.Contains(d.Statement, tc.statement) || len(d.Considered) == 0 || d.Region != "eu-paris-1" || d.Resource != k.ARN {
				t.Errorf("%s\n%+v", d, d.Considered)
			}
			if advice := strings.Join(d.Advice, "\n"); !strings.Contains(advice, tc.advice) || (advice == "") != tc.allowed {
				t.Errorf("advice %q", advice)
			}
		})
	}
	// What a question supposes changes nothing.
	want(t, encryptAs(r, app(), k.ARN, nil), keyops.ErrAccessDenied, "")
}

// TestExplainTellsNothing: whoever may not read the policy hears about itself what a call
// would tell, about others nothing, and about missing keys the same as about others.
func TestExplainTellsNothing(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{Policy: document(allowApp(`"kms:Encrypt"`), `{"Sid":"Secret","Effect":"Deny","Principal":{"AWS":"`+helper+`"},"Action":"kms:Encrypt","Resource":"*"}`)})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/there", TargetKeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	for action, allowed := range map[string]bool{"kms:Encrypt": true, "kms:Decrypt": false} {
		out, err := ask(r, app(), keyops.ExplainAccessInput{Action: action, KeyID: k.ARN})
		if err != nil || out.Allowed != allowed || len(out.Decisions) != 1 {
			t.Fatalf("%s: %+v, %v", action, out, explain(err))
		}
		if d := out.Decisions[0]; d.Reason != "" || d.Statement != "" || len(d.Considered) != 0 || len(d.Advice) != 1 {
			t.Errorf("%s: the caller hears %+v", action, d)
		}
	}
	mallory := keyopstest.User("mallory")
	missing := "arn:aws:kms:eu-paris-1:111122223333:key/" + string(arn.NewKeyID(false))
	clean := strings.NewReplacer(string(k.KeyID), "ID", missing[strings.LastIndex(missing, "/")+1:], "ID", "alias/there", "ALIAS", "alias/gone", "ALIAS")
	for _, in := range []keyops.ExplainAccessInput{
		{Action: "kms:Encrypt"},
		{Action: "kms:Encrypt", Principal: helper},
		{Action: "kms:Encrypt", Policy: document()},
		{Action: "kms:Encrypt", Conditions: map[string][]string{policy.SourceIP: {"10.0.0.1"}}},
		{Action: "kms:CreateAlias", AliasName: "alias/x"},
		{Action: "kms:ReplicateKey", ReplicaRegion: "us-east-1"},
	} {
		for there, gone := range map[string]string{k.ARN: missing, "alias/there": "alias/gone"} {
			var heard []string
			for _, ref := range []string{there, gone} {
				in.KeyID = ref
				out, err := ask(r, mallory, in)
				if err != nil {
					want(t, err, keyops.ErrAccessDenied, "kms:GetKeyPolicy")
					heard = append(heard, clean.Replace(err.Error()))
					continue
				}
				if out.Allowed || in.Principal != "" || in.Policy != "" || in.Conditions != nil {
					t.Errorf("%+v hears %+v", in, out)
				}
				text := ""
				for _, d := range out.Decisions {
					text += d.String()
				}
				heard = append(heard, clean.Replace(text))
			}
			if heard[0] != heard[1] || strings.Contains(heard[0], "Secret") {
				t.Errorf("%+v: an existing key is told from a missing one:\n%s\n%s", in, heard[0], heard[1])
			}
		}
	}
	// Who may list the keys hears that there is none.
	_, err := ask(r, admin(), keyops.ExplainAccessInput{Action: "kms:Encrypt", KeyID: missing})
	want(t, err, keyops.ErrNotFound, "does not exist")
	_, err = ask(r, app(), keyops.ExplainAccessInput{Action: "kms:Encrypt", KeyID: "arn:aws:kms:us-east-1:111122223333:key/" + string(k.KeyID)})
	want(t, err, keyops.ErrNotFound, "Invalid arn us-east-1")
}

// TestExplainWithoutKey: of what identity policies decide alone, a principal hears about
// itself and the root about everybody.
func TestExplainWithoutKey(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Identities: `{"Version":"2012-10-17","Statement":[
		{"Sid":"admin","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/admin"},"Action":"kms:*","Resource":"*"},
		{"Sid":"single","Effect":"Allow","Principal":{"AWS":"` + appARN + `"},"Action":"kms:CreateKey","Resource":"*","Condition":{"Bool":{"kms:MultiRegion":"false"},"StringEquals":{"kms:KeyUsage":"GENERATE_VERIFY_MAC"}}}]}`})
	root := app()
	root.Principal.Name = "root"
	for _, tc := range []struct {
		name    string
		caller  keyops.Caller
		in      keyops.ExplainAccessInput
		allowed bool
		reason  keyops.Reason
	}{
		{"oneself", app(), keyops.ExplainAccessInput{Action: "kms:CreateKey", Conditions: map[string][]string{policy.KeySpec: {"HMAC_256"}}}, true, ""},
		{"by default", app(), keyops.ExplainAccessInput{Action: "kms:CreateKey"}, false, ""},
		{"multi-Region", app(), keyops.ExplainAccessInput{Action: "kms:CreateKey", Conditions: map[string][]string{policy.KeySpec: {"HMAC_256"}, policy.MultiRegion: {"true"}}}, false, ""},
		{"others", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKey", Principal: appARN}, false, keyops.ErrAccessDenied},
		{"the root asks", root, keyops.ExplainAccessInput{Action: "kms:CreateKey", Principal: appARN, Conditions: map[string][]string{policy.KeySpec: {"HMAC_256"}}}, true, ""},
		{"another account", root, keyops.ExplainAccessInput{Action: "kms:CreateKey", Principal: "arn:aws:iam::444455556666:user/x"}, false, keyops.ErrValidation},
		{"nobody", root, keyops.ExplainAccessInput{Action: "kms:CreateKey", Principal: "x"}, false, keyops.ErrInvalidArn},
		{"no such action", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKy"}, false, keyops.ErrValidation},
		{"an action on a key", admin(), keyops.ExplainAccessInput{Action: "kms:Encrypt"}, false, keyops.ErrValidation},
		{"an action on no key", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKey", KeyID: string(arn.NewKeyID(false))}, false, keyops.ErrValidation},
		{"half of an alias", admin(), keyops.ExplainAccessInput{Action: "kms:CreateAlias", AliasName: "alias/a"}, false, keyops.ErrValidation},
		{"an alias for nothing", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKey", AliasName: "alias/a"}, false, keyops.ErrValidation},
		{"a bad alias", admin(), keyops.ExplainAccessInput{Action: "kms:CreateAlias", AliasName: "a b", KeyID: string(arn.NewKeyID(false))}, false, keyops.ErrInvalidAliasName},
		{"a policy of nothing", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKey", Policy: document()}, false, keyops.ErrValidation},
		{"an unknown condition key", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKey", Conditions: map[string][]string{"kms:multiregion": {"true"}}}, false, keyops.ErrValidation},
		{"what the Region says", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKey", Conditions: map[string][]string{policy.RequestedRegion: {"x"}}}, false, keyops.ErrValidation},
		{"a key without values", admin(), keyops.ExplainAccessInput{Action: "kms:CreateKey", Conditions: map[string][]string{policy.MultiRegion: nil}}, false, keyops.ErrValidation},
		{"no Region", admin(), keyops.ExplainAccessInput{Action: "kms:ReplicateKey", KeyID: string(arn.NewKeyID(true))}, false, keyops.ErrValidation},
		{"a bad Region", admin(), keyops.ExplainAccessInput{Action: "kms:ReplicateKey", KeyID: string(arn.NewKeyID(true)), ReplicaRegion: "Paris"}, false, keyops.ErrValidation},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := ask(r, tc.caller, tc.in)
			if tc.reason != "" {
				want(t, err, tc.reason, "")
				return
			}
			if err != nil || out.Allowed != tc.allowed || len(out.Decisions[0].Considered) != 1 {
				t.Errorf("%+v, %v", out, explain(err))
			}
		})
	}
	k := create(t, r, keyops.CreateKeyInput{})
	out, err := ask(r, admin(), keyops.ExplainAccessInput{Action: "kms:CreateAlias", AliasName: "alias/a", KeyID: k.ARN})
	if err != nil || !out.Allowed || len(out.Decisions) != 2 || !strings.HasSuffix(out.Decisions[0].Resource, ":alias/a") || out.Decisions[1].Resource != k.ARN {
		t.Errorf("%+v, %v", out, explain(err))
	}
}

// TestExplainReplicateKey: both Regions are asked, and a question leaves nothing behind in
// either.
func TestExplainReplicateKey(t *testing.T) {
	allowed := policyFor(`"kms:CreateKey"`)
	for _, tc := range []struct {
		name        string
		here, there string // statements of the key policy, and identity policies in Tokyo
		to          string
		dark        bool
		decisions   []bool
		reason      string // of the last decision
		advice      string
	}{
		{"both allow", allowApp(`"kms:ReplicateKey"`), allowed, "ap-tokyo-1", false, []bool{true, true}, "PeerAllow", ""},
		{"refused there", allowApp(`"kms:ReplicateKey"`), policyFor(`"kms:ListKeys"`), "ap-tokyo-1", false, []bool{true, false}, "AccessDeniedException", "kms:CreateKey in Region ap-tokyo-1"},
		{"refused here", allowApp(`"kms:Encrypt"`), allowed, "ap-tokyo-1", false, []bool{false, true}, "PeerAllow", ""},
		{"refused in both", allowApp(`"kms:Encrypt"`), policyFor(`"kms:ListKeys"`), "ap-tokyo-1", false, []bool{false, false}, "AccessDeniedException", ""},
		{"dark", allowApp(`"kms:ReplicateKey"`), allowed, "ap-tokyo-1", true, []bool{true, false}, "DependencyTimeoutException", "did not answer"},
		{"not to be sent", allowApp(`"kms:ReplicateKey"`), allowed, "ap-tokyo-1", false, []bool{true, false}, "AccessDeniedException", "configuration of Region eu-paris-1"},
		{"unknown Region", allowApp(`"kms:ReplicateKey"`), allowed, "us-east-1", false, []bool{true, false}, "InvalidArnException", "us-east-1 is not known"},
		{"this Region", allowApp(`"kms:ReplicateKey"`), allowed, "eu-paris-1", false, []bool{true, false}, "AlreadyExistsException", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newTwo(t)
			w.tokyo.Options.Identities = tc.there
			w.tokyo.Restart(t)
			w.net.SetDark("ap-tokyo-1", tc.dark)
			if tc.name == "not to be sent" {
				w.net.SetAuthority("ap-tokyo-1", keyops.Authority{})
			}
			k := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true, Policy: document(tc.here)})
			in := keyops.ExplainAccessInput{Principal: appARN, Action: "kms:ReplicateKey", KeyID: k.ARN, ReplicaRegion: tc.to}
			out, err := ask(w.paris, admin(), in)
			if err != nil || len(out.Decisions) != len(tc.decisions) {
				t.Fatalf("%+v, %v", out, explain(err))
			}
			all := true
			for i, d := range out.Decisions {
				all = all && tc.decisions[i]
				if d.Allowed != tc.decisions[i] {
					t.Errorf("decision %d: %s", i, d)
				}
			}
			last := out.Decisions[len(out.Decisions)-1]
			if out.Allowed != all || string(last.Region) != tc.to || last.Reason != tc.reason || !strings.Contains(strings.Join(last.Advice, ""), tc.advice) {
				t.Errorf("%+v", out)
			}
			// About itself, without the policy: the other Region is asked only if this one allows.
			self, err := ask(w.paris, app(), in)
			if err != nil || self.Allowed != all || (len(self.Decisions) == 2) != tc.decisions[0] {
				t.Errorf("to itself: %+v, %v", self, explain(err))
			}
			after, err := w.paris.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
			if err != nil || len(after.KeyMetadata.MultiRegionConfiguration.ReplicaKeys) != 0 {
				t.Errorf("the question made a replica: %+v, %v", after, err)
			}
		})
	}
	w := newTwo(t)
	single := create(t, w.paris, keyops.CreateKeyInput{})
	out, err := ask(w.paris, admin(), keyops.ExplainAccessInput{Action: "kms:ReplicateKey", KeyID: single.ARN, ReplicaRegion: "ap-tokyo-1"})
	if err != nil || out.Allowed || out.Decisions[1].Reason != "UnsupportedOperationException" {
		t.Errorf("a single-Region key: %+v, %v", out, explain(err))
	}
	elsewhere := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true, Policy: document(
		`{"Effect":"Deny","Principal":"*","Action":"kms:ReplicateKey","Resource":"*","Condition":{"StringNotLike":{"kms:ReplicaRegion":"eu-*"}}}`)})
	out, err = ask(w.paris, admin(), keyops.ExplainAccessInput{Action: "kms:ReplicateKey", KeyID: elsewhere.ARN, ReplicaRegion: "ap-tokyo-1"})
	if err != nil || out.Allowed || out.Decisions[0].Reason != "ExplicitDeny" {
		t.Errorf("a key that stays in Europe: %+v, %v", out, explain(err))
	}
}

// policyFor is identity policies that allow user/app an action.
func policyFor(action string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + appARN + `"},"Action":` + action + `,"Resource":"*"}]}`
}

// TestExplainKnowsOfStates: a decision is that of the policies, and beside it stands what the
// state of the key says to the call.
func TestExplainKnowsOfStates(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	told := func(action string) (allowed bool, advice string) {
		t.Helper()
		out, err := ask(r, admin(), keyops.ExplainAccessInput{Action: action, KeyID: k.ARN})
		if err != nil {
			t.Fatal(explain(err))
		}
		return out.Allowed, strings.Join(out.Decisions[0].Advice, "; ")
	}
	if allowed, advice := told("kms:Encrypt"); !allowed || strings.Contains(advice, "state") {
		t.Errorf("of an enabled key: %v, %q", allowed, advice)
	}
	if _, err := r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	for action, refused := range map[string]bool{"kms:Encrypt": true, "kms:ReEncryptFrom": true, "kms:DescribeKey": false, "kms:EnableKey": false} {
		if allowed, advice := told(action); !allowed || strings.Contains(advice, "DisabledException") != refused {
			t.Errorf("%s on a disabled key: %v, %q", action, allowed, advice)
		}
	}
}
