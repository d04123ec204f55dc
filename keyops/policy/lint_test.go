package policy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/policy"
)

// mayPut keeps the finding that nobody manages the key out of the tests of other rules.
const mayPut = `{` + who + `, "Effect": "Allow", "Action": "kms:PutKeyPolicy", "Resource": "*"}`

// lints has one or more documents for every rule, each a statement beside mayPut.
var lints = []struct{ name, rule, problem, members string }{
	{"everybody", "allows-everybody", "every principal of every account", `"Principal": "*", ` + rest},
	{"everybody, by list", "allows-everybody", "every principal", `"Principal": {"AWS": ["111122223333", "*"]}, ` + rest},
	{"everybody denied", "denies-everybody", "nobody can ever change", `"Principal": "*", "Effect": "Deny", "Action": "kms:*", ` + resource},
	{"everybody denied by NotAction", "denies-everybody", "nobody can ever change", `"Principal": "*", "Effect": "Deny", "NotAction": "kms:Encrypt", ` + resource},
	{"NotPrincipal everybody", "never-applies", "leaves everybody out", `"NotPrincipal": "*", "Effect": "Deny", ` + action + ", " + resource},
	{"NotPrincipal without account", "denies-the-excepted", "add arn:aws:iam::111122223333:root", `"NotPrincipal": {"AWS": "arn:aws:iam::111122223333:user/alice"}, "Effect": "Deny", ` + action + ", " + resource},
	{"NotAction everything", "never-applies", "leaves every action out", who + `, "Effect": "Deny", "NotAction": "*", ` + resource},
	{"NotAction that allows", "allows-all-others", "list the actions", who + `, "Effect": "Allow", "NotAction": "kms:Encrypt", ` + resource},
	{"NotResource everything", "never-applies", "leaves everything out", who + ", " + effect + ", " + action + `, "NotResource": "*"`},
	{"CreateKey in a key policy", "action-without-key", "kms:CreateKey acts on no key", who + `, "Effect": "Allow", "Action": "kms:CreateKey", ` + resource},
	{"Encrypt on an alias", "resource-does-not-fit", "kms:Encrypt acts on a key", who + ", " + effect + ", " + action + `, "Resource": "arn:aws:kms:*:*:alias/*"`},
	{"an alias in a key policy", "resource-does-not-fit", "matches no key", who + ", " + effect + `, "Action": "kms:*", "Resource": "arn:aws:kms:*:*:a*"`},
	{"a key that no action carries", "key-not-carried", "never holds", who + ", " + rest + `, "Condition": {"StringEquals": {"kms:ReplicaRegion": "eu-paris-1"}}`},
	{"a negated key that no action carries", "key-not-carried", "always holds", who + `, "Effect": "Deny", ` + action + ", " + resource + `, "Condition": {"StringNotEquals": {"kms:ReplicaRegion": "eu-paris-1"}}`},
	{"Null of a key that no action carries", "key-not-carried", "always holds", who + ", " + rest + `, "Condition": {"Null": {"kms:ReplicaRegion": "true"}}`},
	{"one action that does not carry the key", "key-not-carried", "kms:DescribeKey never carries", who + ", " + effect + `, "Action": ["kms:Encrypt", "kms:DescribeKey"], ` + resource + `, "Condition": {"StringEquals": {"kms:EncryptionContext:a": "b"}}`},
	{"ForAllValues without Null", "holds-for-none", `add "Null": {"kms:EncryptionContextKeys": "false"}`, who + ", " + rest + `, "Condition": {"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "a"}}`},
	{"a pattern under StringEquals", "literal-wildcard", `in "eu-*" literally`, `"Principal": "*", "Effect": "Deny", "Action": "kms:ReplicateKey", ` + resource + `, "Condition": {"StringNotEquals": {"kms:ReplicaRegion": "eu-*"}}`},
	{"a misspelt role", "impossible-value", `no request has "Replica"`, who + ", " + rest + `, "Condition": {"StringEquals": {"kms:MultiRegionKeyType": "Replica"}}`},
	{"a pattern of nothing", "impossible-value", `no request has "AWS-*"`, who + ", " + rest + `, "Condition": {"StringLike": {"kms:KeyOrigin": "AWS-*"}}`},
	{"a Region in capitals", "impossible-value", `no request has "EU-paris-1"`, who + ", " + rest + `, "Condition": {"StringEquals": {"aws:RequestedRegion": "EU-paris-1"}}`},
	{"an alias without alias/", "impossible-value", `no request has "payroll"`, who + ", " + rest + `, "Condition": {"StringEquals": {"kms:RequestAlias": "payroll"}}`},
	{"an account of 11 digits", "impossible-value", `no request has "11112222333"`, who + ", " + rest + `, "Condition": {"StringEquals": {"kms:CallerAccount": "11112222333"}}`},
}

func TestLint(t *testing.T) {
	for _, test := range lints {
		t.Run(test.name, func(t *testing.T) {
			p := mustParse(t, []byte(`{"Version": "2012-10-17", "Statement": [`+mayPut+`, {"Sid": "Odd", `+test.members+`}]}`), policy.KeyPolicy)
			found := policy.Lint(p)
			if len(found) == 0 || found[0].Rule != test.rule || !strings.Contains(found[0].Problem, test.problem) || found[0].Statement != `key policy, Statement[1] "Odd"` {
				t.Errorf("got %+v, want %s: %s", found, test.rule, test.problem)
			}
		})
	}
	found := policy.Lint(mustParse(t, []byte(with(who, rest)), policy.KeyPolicy))
	want := []policy.Finding{{Rule: "nobody-manages", Problem: "no statement allows kms:PutKeyPolicy to anybody, so this policy can never be changed"}}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("a policy that nobody can change (-want +got):\n%s", diff)
	}
}

// TestLintIsQuiet has documents about which there is nothing to say.
func TestLintIsQuiet(t *testing.T) {
	for name, members := range map[string]string{
		"everybody of one account":     `"Principal": "*", ` + rest + `, "Condition": {"StringEquals": {"kms:CallerAccount": "111122223333"}}`,
		"nobody replicates":            `"Principal": "*", "Effect": "Deny", "Action": "kms:ReplicateKey", ` + resource,
		"residency":                    `"Principal": "*", "Effect": "Deny", "Action": "kms:ReplicateKey", ` + resource + `, "Condition": {"StringNotLike": {"kms:ReplicaRegion": ["eu-*", "ch-*"]}}`,
		"NotPrincipal with account":    `"NotPrincipal": {"AWS": ["111122223333", "arn:aws:iam::111122223333:user/alice"]}, "Effect": "Deny", ` + action + ", " + resource,
		"ForAllValues with Null":       who + ", " + rest + `, "Condition": {"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "a"}, "Null": {"kms:EncryptionContextKeys": "false"}}`,
		"ForAllValues that denies":     `"Principal": "*", "Effect": "Deny", ` + action + ", " + resource + `, "Condition": {"ForAllValues:StringNotLike": {"kms:ResourceAliases": "alias/a*"}}`,
		"wildcards over many actions":  who + `, "Effect": "Allow", "Action": "kms:*", ` + resource + `, "Condition": {"StringEqualsIfExists": {"kms:ReplicaRegion": "eu-paris-1"}}`,
		"a value under another case":   who + ", " + rest + `, "Condition": {"StringEqualsIgnoreCase": {"kms:MultiRegionKeyType": "replica"}}`,
		"patterns of aliases":          who + ", " + rest + `, "Condition": {"ForAnyValue:StringLike": {"kms:ResourceAliases": "*pay*"}}`,
		"deny an action on some alias": who + `, "Effect": "Deny", "Action": "kms:CreateAlias", ` + resource,
	} {
		p := mustParse(t, []byte(`{"Version": "2012-10-17", "Statement": [`+mayPut+`, {`+members+`}]}`), policy.KeyPolicy)
		if found := policy.Lint(p); len(found) > 0 {
			t.Errorf("%s: got %+v, want nothing", name, found)
		}
	}
	if found := policy.Lint(mustParse(t, policy.DefaultKeyPolicy("aws", "111122223333"), policy.KeyPolicy)); len(found) > 0 {
		t.Errorf("the default key policy: got %+v", found)
	}
}

func TestLintIdentities(t *testing.T) {
	ids := mustIdentities(t, []byte(`{"Version": "2012-10-17",
		"Groups": {"arn:aws:iam::111122223333:group/used": ["`+alice+`"], "arn:aws:iam::111122223333:group/unused": []},
		"Statement": [
			{"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::111122223333:group/used", "`+alice+`"]}, "Action": "kms:CreateKey", "Resource": "arn:aws:kms:*:*:key/*"},
			{"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": ["kms:CreateAlias", "kms:Encrypt"], "Resource": ["arn:aws:kms:*:*:alias/a*", "arn:aws:kms:*:*:key/*"]}
		]}`))
	want := []policy.Finding{
		{Statement: "identity policies, Statement[0]", Rule: "resource-does-not-fit", Problem: "kms:CreateKey acts on *, which Resource does not cover"},
		{Rule: "unused-group", Problem: "no statement is attached to arn:aws:iam::111122223333:group/unused"},
	}
	if diff := cmp.Diff(want, ids.Lint()); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestRulesPage looks for the row of every rule.
func TestRulesPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]bool{"nobody-manages": true, "unused-group": true}
	for _, test := range lints {
		rules[test.rule] = true
	}
	for rule := range rules {
		if row := fmt.Sprintf("| `%s` | ", rule); !strings.Contains(string(page), row) {
			t.Errorf("docs/policy.md has no row %q", row)
		}
	}
}
