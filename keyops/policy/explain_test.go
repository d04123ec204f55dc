package policy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/policy"
)

const (
	alice  = "arn:aws:iam::111122223333:user/alice"
	aKey   = "arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
	aAlias = "arn:aws:kms:eu-paris-1:111122223333:alias/payroll"
)

func ExampleExplain() {
	key, err := policy.Parse([]byte(`{
  "Version": "2012-10-17",
  "Id": "payroll",
  "Statement": [
    {"Sid": "Account", "Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "kms:*", "Resource": "*"},
    {"Sid": "Payroll", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:user/alice"}, "Action": "kms:Decrypt", "Resource": "*",
     "Condition": {"StringEquals": {"kms:EncryptionContext:data": "payroll"}}}
  ]
}`), policy.KeyPolicy)
	if err != nil {
		fmt.Println(err)
		return
	}
	req := policy.Request{
		Principal: alice, Action: "kms:Decrypt", Resource: aKey,
		EncryptionContext: map[string]string{"data": "orders"},
		Context:           map[string][]string{},
	}
	fmt.Print(policy.Explain(req, key, nil))
	// Output:
	// refused: kms:Decrypt on arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab for arn:aws:iam::111122223333:user/alice
	// reason: NoIdentityAllow
	// decided by: key policy payroll, Statement[0] "Account"
	//
	// key policy payroll, Statement[0] "Account" (Delegate): applies
	//   = Principal: names the account 111122223333, whose identity policies decide
	//   = Action: has kms:Decrypt
	//   = Resource: arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab matches *
	//
	// key policy payroll, Statement[1] "Payroll" (Allow): does not apply
	//   = Principal: names arn:aws:iam::111122223333:user/alice
	//   = Action: has kms:Decrypt
	//   = Resource: arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab matches *
	//   x Condition StringEquals kms:EncryptionContext:data: the request has "orders"; the statement, "payroll"
	//
	// to allow it:
	//   - key policy payroll, Statement[1] "Payroll" would apply but for its Condition StringEquals kms:EncryptionContext:data: the request has "orders"; the statement, "payroll"
	//   - add kms:Decrypt on arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab to an identity policy of arn:aws:iam::111122223333:user/alice
	//   - or name arn:aws:iam::111122223333:user/alice in a key policy statement that allows kms:Decrypt
	//   - or create a grant with the operation Decrypt for arn:aws:iam::111122223333:user/alice
}

// TestAdvice looks for the piece of advice that matters, for every reason of a refusal.
func TestAdvice(t *testing.T) {
	const bob, mallory = "arn:aws:iam::111122223333:user/bob", "arn:aws:iam::444455556666:user/mallory"
	deny := with(`"Sid": "Never", "Principal": "*"`, `"Effect": "Deny"`, action, resource)
	named := with(`"Sid": "Bob", "Principal": {"AWS": "`+bob+`"}`, rest)
	all := `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}`
	for _, test := range []struct {
		name, key, identity        string
		principal, action, on      string
		reason, advice, considered string
	}{
		{"a deny", deny, all, alice, "kms:Encrypt", aKey, "ExplicitDeny", `key policy, Statement[0] "Never" denies`, "names everybody"},
		{"nothing", named, "", alice, "kms:Encrypt", aKey, "NoAllow", "add kms:Encrypt for " + alice + " to the key policy", "names neither"},
		{"nothing but another name", named, "", alice, "kms:Encrypt", aKey, "NoAllow", "would apply but for its Principal", "names neither"},
		{"no delegation", named, all, alice, "kms:Encrypt", aKey, "NoDelegation", "add it there for arn:aws:iam::111122223333:root", "names neither"},
		{"no identity policy", with(who, rest), "", alice, "kms:Encrypt", aKey, "NoIdentityAllow", "to an identity policy of " + alice, "names the account"},
		{"another account", with(`"Principal": "*"`, rest), "", mallory, "kms:Encrypt", aKey, "NoIdentityAllow", "to an identity policy of " + mallory, "names everybody"},
		{"another account and nothing", named, "", mallory, "kms:Encrypt", aKey, "NoAllow", "add kms:Encrypt for " + mallory + " to the key policy, and", "names neither"},
		{"management by another account", with(`"Principal": "*"`, rest), all, mallory, "kms:PutKeyPolicy", aKey, "CrossAccountRefused", "call it as a principal of account 111122223333", "does not have kms:PutKeyPolicy"},
		{"no key policy", "", all, alice, "kms:Encrypt", aKey, "NoKeyPolicy", "give the key its policy back", "matches *"},
		{"without a key", "", "", alice, "kms:CreateKey", "*", "NoAllow", "add kms:CreateKey on * to an identity policy", ""},
		{"on an alias", "", "", alice, "kms:CreateAlias", aAlias, "NoAllow", "add kms:CreateAlias on " + aAlias, ""},
		{"no such action", "", "", alice, "kms:Decryt", aKey, "InvalidRequest", "perhaps kms:Decrypt", ""},
		{"no action at all", "", "", alice, "s3:PutObject", aKey, "InvalidRequest", "there is no action s3:PutObject", ""},
		{"no principal", "", "", "alice", "kms:Decrypt", aKey, "InvalidRequest", "is no principal", ""},
		{"no resource", "", "", alice, "kms:Decrypt", "payroll", "InvalidRequest", "is no resource", ""},
		{"another kind of resource", "", "", alice, "kms:CreateKey", aKey, "InvalidRequest", "kms:CreateKey does not act on a key; it acts on *", ""},
		{"key policy of an alias", named, "", alice, "kms:CreateAlias", aAlias, "InvalidRequest", "has no key policy", ""},
		{"nothing known", condition(`"Bool": {"kms:MultiRegion": "true"}`), "", alice, "kms:Encrypt", aKey, "NoAllow", "would apply but for its Condition", "nothing is known"},
		{"a key that is never carried", condition(`"StringEquals": {"kms:ReplicaRegion": "eu-1"}`), "", alice, "kms:Encrypt", aKey, "NoAllow", "would apply but for its Condition", "kms:Encrypt never carries it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var key *policy.Policy
			if test.key != "" {
				key = mustParse(t, []byte(test.key), policy.KeyPolicy)
			}
			var identity []*policy.Policy
			if test.identity != "" {
				identity = append(identity, mustParse(t, []byte(test.identity), policy.IdentityPolicy))
			}
			e := policy.Explain(policy.Request{Principal: test.principal, Action: test.action, Resource: test.on}, key, identity)
			if e.Allowed || e.Reason != test.reason || !strings.Contains(strings.Join(e.Advice, "\n"), test.advice) || !strings.Contains(e.String(), test.considered) {
				t.Errorf("want %s, %q and %q; got\n%s", test.reason, test.advice, test.considered, e)
			}
		})
	}
}

// TestExplanationAsJSON pins the form that programs read.
func TestExplanationAsJSON(t *testing.T) {
	key := mustParse(t, []byte(with(`"NotPrincipal": {"AWS": "`+alice+`"}`, `"Effect": "Deny"`, `"NotAction": "kms:Encrypt"`, `"NotResource": "arn:aws:kms:us-*:*:*"`)), policy.KeyPolicy)
	grant := policy.Grant{ID: "g1", Grantee: alice, Operations: []string{"Encrypt"}, EncryptionContextEquals: map[string]string{"a": "b"}}
	got, err := json.MarshalIndent(policy.Explain(policy.Request{Principal: alice, Action: "kms:Encrypt", Resource: aKey}, key, nil, grant), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "principal": "` + alice + `",
 "action": "kms:Encrypt",
 "resource": "` + aKey + `",
 "allowed": false,
 "reason": "NoAllow",
 "considered": [
  {
   "statement": "key policy, Statement[0]",
   "effect": "Deny",
   "applies": false,
   "elements": [
    {
     "name": "NotPrincipal",
     "matches": true,
     "why": "only one of ` + alice + ` and arn:aws:iam::111122223333:root is left out; both have to be"
    },
    {
     "name": "NotAction",
     "matches": false,
     "why": "kms:Encrypt is left out"
    },
    {
     "name": "NotResource",
     "matches": true,
     "why": "` + aKey + ` does not match arn:aws:kms:us-*:*:*"
    }
   ]
  },
  {
   "statement": "grant \"g1\"",
   "effect": "Allow",
   "applies": false,
   "elements": [
    {
     "name": "GranteePrincipal",
     "matches": true,
     "why": "the grantee is ` + alice + `"
    },
    {
     "name": "Operations",
     "matches": true,
     "why": "the operations are Encrypt"
    },
    {
     "name": "Constraints",
     "matches": false,
     "why": "the encryption context is not that of EncryptionContextEquals"
    }
   ]
  }
 ],
 "advice": [
  "grant \"g1\" would apply but for its Constraints: the encryption context is not that of EncryptionContextEquals",
  "add kms:Encrypt for ` + alice + ` to the key policy",
  "or add it there for arn:aws:iam::111122223333:root, and on ` + aKey + ` to an identity policy of ` + alice + `",
  "or create a grant with the operation Encrypt for ` + alice + `"
 ]
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("explanation (-want +got):\n%s", diff)
	}
}
