package policy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/policy"
)

type decisionCase struct {
	Name, Source                string
	KeyPolicy, Identities       string
	Principal, Action, Resource string
	Context                     map[string][]string
	EncryptionContext           map[string]string
	Grants                      []string
	Allowed                     bool
	Reason, Statement           string
}

func (c decisionCase) request() policy.Request {
	return policy.Request{
		Principal: c.Principal, Action: c.Action, Resource: c.Resource, Context: c.Context, EncryptionContext: c.EncryptionContext,
	}
}

type decisions struct {
	KeyPolicies map[string]json.RawMessage
	Identities  map[string]json.RawMessage
	Grants      map[string]policy.Grant
	Cases       []decisionCase
}

// parse compiles what a case is about.
func (d decisions) parse(t testing.TB, c decisionCase) (key *policy.Policy, identity []*policy.Policy, grants []policy.Grant) {
	t.Helper()
	if c.KeyPolicy != "" {
		key = mustParse(t, d.KeyPolicies[c.KeyPolicy], policy.KeyPolicy)
	}
	if c.Identities != "" {
		identity = mustIdentities(t, d.Identities[c.Identities]).For(c.Principal)
	}
	for _, name := range c.Grants {
		g, ok := d.Grants[name]
		if err := g.Check(); !ok || err != nil {
			t.Fatalf("grant %q: %v", name, err)
		}
		grants = append(grants, g)
	}
	return key, identity, grants
}

func mustDecisions(t testing.TB) decisions {
	t.Helper()
	data, err := os.ReadFile("testdata/decisions.json")
	if err != nil {
		t.Fatal(err)
	}
	var d decisions
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Cases) < 200 {
		t.Fatalf("got %d cases, want at least 200", len(d.Cases))
	}
	return d
}

func mustParse(t testing.TB, data []byte, kind policy.Kind) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(data, kind)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustIdentities(t testing.TB, data []byte) *policy.Identities {
	t.Helper()
	ids, err := policy.ParseIdentities(data)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestDecisions(t *testing.T) {
	d := mustDecisions(t)
	used := map[string]bool{}
	names := map[string]bool{}
	for _, c := range d.Cases {
		if names[c.Name+c.Action] || c.Source == "" {
			t.Errorf("case %q has no source, or the name of another one", c.Name)
		}
		names[c.Name+c.Action] = true
		t.Run(c.Name, func(t *testing.T) {
			used["key "+c.KeyPolicy], used["identities "+c.Identities] = true, true
			for _, name := range c.Grants {
				used["grant "+name] = true
			}
			key, identity, grants := d.parse(t, c)
			got := policy.Decide(c.request(), key, identity, grants...)
			want := fmt.Sprintf("allowed %t by %s: %s", c.Allowed, c.Reason, c.Statement)
			if diff := cmp.Diff(want, fmt.Sprintf("allowed %t by %s: %s", got.Allowed, got.Reason, got.Statement)); diff != "" {
				t.Errorf("%s\ndecision (-want +got):\n%s", c.Source, diff)
			}
			if e := policy.Explain(c.request(), key, identity, grants...); e.Allowed != got.Allowed || e.Reason != got.Reason.String() {
				t.Errorf("explained as %s", e)
			}
			if got.Allowed == (got.Missing != "") {
				t.Errorf("Missing is %q, allowed is %t", got.Missing, got.Allowed)
			}
		})
	}
	for name := range d.KeyPolicies {
		if !used["key "+name] {
			t.Errorf("no case uses the key policy %q", name)
		}
	}
	for name := range d.Identities {
		if !used["identities "+name] {
			t.Errorf("no case uses the identities %q", name)
		}
	}
	for name := range d.Grants {
		if !used["grant "+name] {
			t.Errorf("no case uses the grant %q", name)
		}
	}
}

// TestKindsOfPolicies passes documents where others belong.
func TestKindsOfPolicies(t *testing.T) {
	key := mustParse(t, policy.DefaultKeyPolicy("aws", "111122223333"), policy.KeyPolicy)
	identity := mustParse(t, []byte(`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}`), policy.IdentityPolicy)
	req := policy.Request{
		Principal: "arn:aws:iam::111122223333:user/alice", Action: "kms:Encrypt",
		Resource: "arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
	}
	if got := policy.Decide(req, key, []*policy.Policy{identity}); got.Reason != policy.IdentityAllow {
		t.Errorf("as they belong: got %s, want IdentityAllow", got.Reason)
	}
	if got := policy.Decide(req, identity, nil); got.Reason != policy.InvalidRequest {
		t.Errorf("an identity policy for the key's: got %s, want InvalidRequest", got.Reason)
	}
	if got := policy.Decide(req, key, []*policy.Policy{key}); got.Reason != policy.InvalidRequest {
		t.Errorf("a key policy for an identity policy: got %s, want InvalidRequest", got.Reason)
	}
}

// TestDecideDoesNotAllocate keeps authorisation off the garbage collector.
func TestDecideDoesNotAllocate(t *testing.T) {
	key, identities, req := benchmarkInput(t)
	if !policy.Decide(req, key, identities.For(req.Principal)).Allowed {
		t.Fatal("the measured request is refused")
	}
	got := testing.AllocsPerRun(100, func() { policy.Decide(req, key, identities.For(req.Principal)) })
	if got != 0 {
		t.Errorf("got %.0f allocations per decision, want none", got)
	}
}

// TestConditionsDoNotAllocate has a condition of every kind, all of which hold.
func TestConditionsDoNotAllocate(t *testing.T) {
	key := mustParse(t, []byte(with(`"Principal": "*"`, `"Effect": "Allow", "Action": "kms:*"`, resource, `"Condition": {
		"StringLike": {"kms:EncryptionContext:env": "p*"}, "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["env", "app"]},
		"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::111122223333:user/*"}, "Bool": {"kms:MultiRegion": "true"}, "Null": {"kms:RequestAlias": "true"},
		"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "DateGreaterThan": {"aws:CurrentTime": "2020-01-01"},
		"StringEqualsIgnoreCase": {"kms:KeySpec": "symmetric_default"}, "ForAnyValue:StringLike": {"kms:ResourceAliases": "alias/pay*"}
	}`)), policy.KeyPolicy)
	req := policy.Request{
		Principal: alice, Action: "kms:Encrypt", Resource: aKey, EncryptionContext: map[string]string{"env": "prod", "app": "x"},
		Context: map[string][]string{
			policy.MultiRegion: {"true"}, policy.SourceIP: {"10.1.2.3"}, policy.CurrentTime: {"2030-01-01T00:00:00Z"},
			policy.KeySpec: {"SYMMETRIC_DEFAULT"}, policy.ResourceAliases: {"alias/a", "alias/payroll"},
		},
	}
	grant := policy.Grant{Grantee: alice, Operations: []string{"Decrypt"}, EncryptionContextSubset: map[string]string{"env": "prod"}}
	if d := policy.Decide(req, key, nil, grant); d.Reason != policy.KeyPolicyAllow {
		t.Fatalf("the measured request is decided by %s", d.Reason)
	}
	if got := testing.AllocsPerRun(100, func() { policy.Decide(req, key, nil, grant) }); got != 0 {
		t.Errorf("got %.0f allocations per decision by conditions, want none", got)
	}
	req.Action = "kms:Decrypt"
	if got := testing.AllocsPerRun(100, func() { policy.Decide(req, mustNot, nil, grant) }); got != 0 {
		t.Errorf("got %.0f allocations per decision by a grant, want none", got)
	}
	if d := policy.Decide(req, mustNot, nil, grant); d.Reason != policy.GrantAllow {
		t.Errorf("the measured grant: got %s, want GrantAllow", d.Reason)
	}
}

// mustNot allows alice nothing.
var mustNot = func() *policy.Policy {
	p, err := policy.Parse(policy.DefaultKeyPolicy("aws", "444455556666"), policy.KeyPolicy)
	if err != nil {
		panic(err)
	}
	return p
}()

// benchmarkInput is a common case: delegation to the account, ten identity statements.
func benchmarkInput(t testing.TB) (*policy.Policy, *policy.Identities, policy.Request) {
	t.Helper()
	const who = "arn:aws:iam::111122223333:role/payroll"
	var statements []map[string]any
	for i := range 10 {
		statements = append(statements, map[string]any{
			"Sid": fmt.Sprintf("S%d", i), "Effect": "Allow", "Principal": map[string]any{"AWS": who},
			"Action":   []string{"kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey*"},
			"Resource": fmt.Sprintf("arn:aws:kms:*:111122223333:key/mrk-%d*", i),
		})
	}
	data, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, policy.DefaultKeyPolicy("aws", "111122223333"), policy.KeyPolicy), mustIdentities(t, data), policy.Request{
		Principal: who, Action: "kms:Decrypt",
		Resource: "arn:aws:kms:eu-paris-1:111122223333:key/mrk-9234abcd12ab34cd56ef1234567890ab",
	}
}

func BenchmarkDecide(b *testing.B) {
	key, identities, req := benchmarkInput(b)
	b.ReportAllocs()
	for b.Loop() {
		policy.Decide(req, key, identities.For(req.Principal))
	}
}

func BenchmarkParse(b *testing.B) {
	data := policy.DefaultKeyPolicy("aws", "111122223333")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Parse(data, policy.KeyPolicy); err != nil {
			b.Fatal(err)
		}
	}
}
