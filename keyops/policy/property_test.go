package policy_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	_ "github.com/keyferry/keyferry/keyops/keyopstest/seededtest"
	"github.com/keyferry/keyferry/keyops/policy"
)

// The properties run over documents made of few names, so that statements meet.
var (
	somePrincipals = []string{
		"arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:role/app",
		"arn:aws:iam::444455556666:root", "arn:aws:iam::444455556666:user/bob",
	}
	someStatementPrincipals = append([]string{"*", "111122223333", "444455556666"}, somePrincipals...)
	someActions             = []string{"kms:Encrypt", "kms:Decrypt", "kms:PutKeyPolicy", "kms:CreateKey", "kms:CreateAlias", "kms:ReEncryptFrom", "kms:EnableKeyRotation", "kms:CreateGrant"}
	someActionPatterns      = append([]string{"*", "kms:*", "KMS:*crypt*", "kms:Create*", "kms:?ncrypt"}, someActions...)
	someResources           = []string{
		"*", "arn:aws:kms:eu-paris-1:111122223333:key/mrk-a", "arn:aws:kms:eu-paris-1:444455556666:key/mrk-a",
		"arn:aws:kms:us-east-1:111122223333:key/b", "arn:aws:kms:eu-paris-1:111122223333:alias/a",
	}
	someResourcePatterns = append([]string{"arn:aws:kms:*:*:*", "arn:aws:kms:*:111122223333:key/*", "arn:aws:kms:eu-*:*:key/mrk-?", "arn:*:kms:*:*:alias/*"}, someResources...)
)

// plain is a statement as it is written.
type plain struct {
	Effect       string
	Principal    map[string][]string            `json:",omitempty"`
	NotPrincipal map[string][]string            `json:",omitempty"`
	Action       []string                       `json:",omitempty"`
	NotAction    []string                       `json:",omitempty"`
	Resource     []string                       `json:",omitempty"`
	NotResource  []string                       `json:",omitempty"`
	Condition    map[string]map[string][]string `json:",omitempty"`
}

// someConditions maps operators to keys to values, those that match among them.
var someConditions = map[string]map[string][]string{
	"StringEquals":                     {"kms:KeySpec": {"RSA_2048", "HMAC_256"}, "kms:EncryptionContext:env": {"prod", "test", ""}, "kms:CallerAccount": {"111122223333"}},
	"StringNotEquals":                  {"kms:KeySpec": {"RSA_2048", "HMAC_256"}, "kms:EncryptionContext:env": {"prod", "test"}},
	"StringEqualsIgnoreCase":           {"kms:KeySpec": {"rsa_2048"}, "kms:EncryptionContext:ENV": {"PROD"}},
	"StringNotEqualsIgnoreCase":        {"kms:KeySpec": {"rsa_2048"}},
	"StringLike":                       {"kms:KeySpec": {"RSA*", "?MAC_256", "*"}, "aws:PrincipalArn": {"*:user/*", "*bob"}},
	"StringNotLikeIfExists":            {"kms:KeySpec": {"RSA*"}, "kms:EncryptionContext:env": {"p*"}},
	"Bool":                             {"kms:MultiRegion": {"true", "false"}},
	"BoolIfExists":                     {"kms:MultiRegion": {"true"}},
	"Null":                             {"kms:MultiRegion": {"true", "false"}, "kms:ResourceAliases": {"true", "false"}, "kms:EncryptionContext:env": {"true", "false"}},
	"NumericLessThan":                  {"kms:RotationPeriodInDays": {"90", "365.5"}},
	"NumericNotEquals":                 {"kms:RotationPeriodInDays": {"90", "90.0"}},
	"NumericGreaterThanEquals":         {"kms:RotationPeriodInDays": {"365", "-1"}},
	"DateGreaterThan":                  {"aws:CurrentTime": {"2030-01-01", "2029-12-31T23:59:59Z"}},
	"DateLessThanEquals":               {"aws:CurrentTime": {"2030-01-01T01:00:00+01:00"}},
	"IpAddress":                        {"aws:SourceIp": {"10.0.0.0/8", "192.0.2.1"}},
	"NotIpAddress":                     {"aws:SourceIp": {"10.0.0.0/8", "2001:db8::/32"}},
	"ArnLike":                          {"aws:PrincipalArn": {"arn:aws:iam::*:user/*", "arn:aws:iam::111122223333:*"}},
	"ArnNotEquals":                     {"aws:PrincipalArn": {"arn:aws:iam::111122223333:user/alice"}},
	"ForAllValues:StringEquals":        {"kms:ResourceAliases": {"alias/a", "alias/b"}, "kms:EncryptionContextKeys": {"env", "app"}},
	"ForAnyValue:StringLike":           {"kms:ResourceAliases": {"alias/a*", "*"}, "kms:EncryptionContextKeys": {"e*"}},
	"ForAnyValue:StringNotEquals":      {"kms:ResourceAliases": {"alias/a"}},
	"ForAllValues:StringNotLike":       {"kms:ResourceAliases": {"alias/b*"}, "kms:KeySpec": {"RSA*"}},
	"ForAnyValue:BoolIfExists":         {"kms:MultiRegion": {"true"}},
	"ForAllValues:NumericLessThan":     {"kms:RotationPeriodInDays": {"365"}},
	"ForAnyValue:StringEqualsIfExists": {"kms:ResourceAliases": {"alias/b"}},
}

func drawCondition(t *rapid.T) map[string]map[string][]string {
	c := map[string]map[string][]string{}
	for range rapid.IntRange(0, 2).Draw(t, "conditions") {
		operator := rapid.SampledFrom(slices.Sorted(maps.Keys(someConditions))).Draw(t, "operator")
		keys := someConditions[operator]
		key := rapid.SampledFrom(slices.Sorted(maps.Keys(keys))).Draw(t, "key")
		if c[operator] == nil {
			c[operator] = map[string][]string{}
		}
		c[operator][key] = rapid.SliceOfNDistinct(rapid.SampledFrom(keys[key]), 1, len(keys[key]), rapid.ID).Draw(t, "values")
	}
	return c
}

func drawStatement(effects []string, principal bool) *rapid.Generator[plain] {
	return rapid.Custom(func(t *rapid.T) plain {
		some := func(from []string, name string) []string {
			return rapid.SliceOfN(rapid.SampledFrom(from), 1, 3).Draw(t, name)
		}
		rarely := func(name string) bool { return rapid.IntRange(0, 3).Draw(t, name) == 0 }
		s := plain{Effect: rapid.SampledFrom(effects).Draw(t, "effect"), Condition: drawCondition(t)}
		if actions := some(someActionPatterns, "action"); rarely("not these actions") {
			s.NotAction = actions
		} else {
			s.Action = actions
		}
		if resources := some(someResourcePatterns, "resource"); rarely("not these resources") {
			s.NotResource = resources
		} else {
			s.Resource = resources
		}
		if !principal {
			return s
		}
		if who := map[string][]string{"AWS": some(someStatementPrincipals, "principal")}; s.Effect == "Deny" && rarely("not these principals") {
			s.NotPrincipal = who
		} else {
			s.Principal = who
		}
		return s
	})
}

func drawStatements(t *rapid.T, principal bool, name string) []plain {
	return rapid.SliceOfN(drawStatement([]string{"Allow", "Allow", "Deny"}, principal), 1, 4).Draw(t, name)
}

func compile(t *rapid.T, statements []plain, kind policy.Kind) *policy.Policy {
	if len(statements) == 0 {
		return nil
	}
	data, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(data, kind)
	if err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return p
}

// world is what one decision depends on.
type world struct {
	req      policy.Request
	key      []plain // nil for a call without a key
	identity []plain
	grants   []policy.Grant
}

func drawWorld(t *rapid.T) world {
	w := world{req: policy.Request{
		Principal: rapid.SampledFrom(somePrincipals).Draw(t, "principal"),
		Action:    rapid.SampledFrom(someActions).Draw(t, "action"),
		Resource:  rapid.SampledFrom(someResources).Draw(t, "resource"),
	}}
	w.req.EncryptionContext = drawPairs(t, "encryption context")
	w.req.Context = drawContext(t)
	if strings.Contains(w.req.Resource, ":key/") {
		w.key = drawStatements(t, true, "key policy")
		w.grants = rapid.SliceOfN(rapid.Custom(drawGrant), 0, 2).Draw(t, "grants")
	}
	w.identity = drawStatements(t, false, "identity policy")
	return w
}

func drawPairs(t *rapid.T, name string) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom([]string{"env", "Env", "app"}), rapid.SampledFrom([]string{"prod", "test", ""}), 0, 2).Draw(t, name)
}

// drawContext leaves keys out as well, or all of it, and has values that cannot be read.
func drawContext(t *rapid.T) map[string][]string {
	if rapid.IntRange(0, 9).Draw(t, "without context") == 0 {
		return nil
	}
	c := map[string][]string{}
	for key, values := range map[string][]string{
		"kms:KeySpec": {"RSA_2048", "HMAC_256"}, "kms:MultiRegion": {"true", "false", "perhaps"}, "kms:RotationPeriodInDays": {"90", "365", "x"},
		"aws:CurrentTime": {"2030-01-01T00:00:00Z", "2031-05-05T00:00:00Z", "now"}, "aws:SourceIp": {"10.9.8.7", "192.0.2.1", "2001:db8::1", "here"},
		"kms:GrantOperations": {"Encrypt", "Decrypt"}, "kms:GrantConstraintType": {"EncryptionContextEquals", "EncryptionContextSubset"},
	} {
		if rapid.IntRange(0, 3).Draw(t, key+" is there") > 0 {
			c[key] = []string{rapid.SampledFrom(values).Draw(t, key)}
		}
	}
	c["kms:ResourceAliases"] = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"alias/a", "alias/b"}), 0, 2, rapid.ID).Draw(t, "aliases")
	return c
}

func drawGrant(t *rapid.T) policy.Grant {
	g := policy.Grant{
		ID: "g", Grantee: rapid.SampledFrom(somePrincipals).Draw(t, "grantee"),
		Operations: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"Encrypt", "Decrypt", "ReEncryptFrom", "CreateGrant"}), 1, 3, rapid.ID).Draw(t, "operations"),
	}
	switch pairs := drawPairs(t, "constraint"); rapid.IntRange(0, 2).Draw(t, "constrained") {
	case 1:
		g.EncryptionContextSubset = pairs
	case 2:
		g.EncryptionContextEquals = pairs
	}
	return g
}

// documents compiles the policies.
func (w world) documents(t *rapid.T) (key *policy.Policy, identity []*policy.Policy) {
	if p := compile(t, w.identity, policy.IdentityPolicy); p != nil {
		identity = append(identity, p)
	}
	return compile(t, w.key, policy.KeyPolicy), identity
}

func (w world) decide(t *rapid.T) policy.Decision {
	key, identity := w.documents(t)
	return policy.Decide(w.req, key, identity, w.grants...)
}

// TestDenyAlwaysWins adds a statement that denies the request, anywhere in either document.
func TestDenyAlwaysWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		deny := plain{Effect: "Deny", Action: []string{w.req.Action}, Resource: []string{w.req.Resource}}
		if w.key != nil && rapid.Bool().Draw(t, "in the key policy") {
			account := strings.Split(w.req.Principal, ":")[4]
			who := rapid.SampledFrom([]string{"*", w.req.Principal, account, "arn:aws:iam::" + account + ":root"}).Draw(t, "whom")
			deny.Principal = map[string][]string{"AWS": {who}}
			w.key = slices.Insert(w.key, rapid.IntRange(0, len(w.key)).Draw(t, "where"), deny)
		} else {
			w.identity = slices.Insert(w.identity, rapid.IntRange(0, len(w.identity)).Draw(t, "where"), deny)
		}
		if d := w.decide(t); d.Allowed || d.Reason != policy.ExplicitDeny && d.Reason != policy.InvalidRequest {
			t.Fatalf("got %+v, want ExplicitDeny", d)
		}
	})
}

// TestRemovingAnAllowNeverAllows takes one allowing statement out of either document.
func TestRemovingAnAllowNeverAllows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.decide(t)
		for _, list := range []*[]plain{&w.key, &w.identity} {
			whole := *list
			for i, s := range whole {
				if s.Effect != "Allow" {
					continue
				}
				*list = slices.Delete(slices.Clone(whole), i, i+1)
				if after := w.decide(t); after.Allowed && !before.Allowed {
					t.Fatalf("without %+v: got %+v, before %+v", s, after, before)
				}
				*list = whole
			}
		}
		whole := w.grants
		for i := range whole {
			w.grants = slices.Delete(slices.Clone(whole), i, i+1)
			if after := w.decide(t); after.Allowed && !before.Allowed {
				t.Fatalf("without grant %d: got %+v, before %+v", i, after, before)
			}
		}
	})
}

// TestAddingAConditionNeverWidens makes one allowing statement conditional, or more so.
func TestAddingAConditionNeverWidens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.decide(t)
		for _, list := range []*[]plain{&w.key, &w.identity} {
			for i := range *list {
				s := (*list)[i]
				if s.Effect != "Allow" {
					continue
				}
				more := maps.Clone(s.Condition)
				for operator, keys := range drawCondition(t) {
					if _, has := more[operator]; !has { // a value added beside others would be an alternative
						more[operator] = keys
					}
				}
				(*list)[i].Condition = more
				if after := w.decide(t); after.Allowed && !before.Allowed {
					t.Fatalf("with %+v: got %+v, before %+v", more, after, before)
				}
				(*list)[i] = s
			}
		}
	})
}

// TestUnknownNeverAllowsMore takes away what is known of the request. A caller may ask so
// first, and fill in the values only if it is refused.
func TestUnknownNeverAllowsMore(t *testing.T) {
	early := 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		known := w.decide(t)
		w.req.Context, w.req.EncryptionContext = nil, nil
		if unknown := w.decide(t); unknown.Allowed {
			early++
			if !known.Allowed {
				t.Fatalf("without values: got %+v, with them %+v", unknown, known)
			}
		}
	})
	if early == 0 {
		t.Error("nothing was allowed without values: the comparison says nothing")
	}
}

// TestExplainSaysWhatDecideDoes compares the two, and looks into the explanation.
func TestExplainSaysWhatDecideDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		key, identity := w.documents(t)
		d, e := policy.Decide(w.req, key, identity, w.grants...), policy.Explain(w.req, key, identity, w.grants...)
		if e.Allowed != d.Allowed || e.Reason != d.Reason.String() || e.Allowed == (len(e.Advice) > 0) {
			t.Fatalf("got %+v, Decide says %+v", e, d)
		}
		if d.Reason == policy.InvalidRequest {
			return
		}
		if want := len(w.key) + len(w.identity) + len(w.grants); len(e.Considered) != want {
			t.Fatalf("got %d statements and grants considered, want %d", len(e.Considered), want)
		}
		denied, decider := false, e.Statement == ""
		for _, c := range e.Considered {
			every := true
			for _, el := range c.Elements {
				every = every && el.Matches
				if el.Why == "" {
					t.Fatalf("%s: no reason for %s", c.Statement, el.Name)
				}
			}
			if c.Applies != every {
				t.Fatalf("%s: applies is %t, elements are %+v", c.Statement, c.Applies, c.Elements)
			}
			denied = denied || c.Applies && c.Effect == policy.Denies
			decider = decider || c.Applies && c.Statement == e.Statement
		}
		if denied != (d.Reason == policy.ExplicitDeny) || !decider {
			t.Fatalf("a deny applies: %t, the decider applies: %t; got %s", denied, decider, e)
		}
	})
}

// TestAddingADenyNeverAllows adds any deny, matching or not.
func TestAddingADenyNeverAllows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.decide(t)
		if w.key != nil {
			w.key = append(w.key, drawStatement([]string{"Deny"}, true).Draw(t, "deny"))
		}
		w.identity = append(w.identity, drawStatement([]string{"Deny"}, false).Draw(t, "identity deny"))
		if after := w.decide(t); after.Allowed && !before.Allowed {
			t.Fatalf("got %+v, before %+v", after, before)
		}
	})
}

// TestOrderDoesNotCount turns both documents round.
func TestOrderDoesNotCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.decide(t)
		slices.Reverse(w.key)
		slices.Reverse(w.identity)
		slices.Reverse(w.grants)
		for _, values := range w.req.Context {
			slices.Reverse(values)
		}
		if after := w.decide(t); after.Allowed != before.Allowed || after.Reason != before.Reason {
			t.Fatalf("got %+v, before %+v", after, before)
		}
	})
}
