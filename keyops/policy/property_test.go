package policy_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops/policy"
)

// The properties run over documents made of few names, so that statements meet.
var (
	somePrincipals = []string{
		"arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:role/app",
		"arn:aws:iam::444455556666:root", "arn:aws:iam::444455556666:user/bob",
	}
	someStatementPrincipals = append([]string{"*", "111122223333", "444455556666"}, somePrincipals...)
	someActions             = []string{"kms:Encrypt", "kms:Decrypt", "kms:PutKeyPolicy", "kms:CreateKey", "kms:CreateAlias", "kms:ReEncryptFrom"}
	someActionPatterns      = append([]string{"*", "kms:*", "KMS:*crypt*", "kms:Create*", "kms:?ncrypt"}, someActions...)
	someResources           = []string{
		"*", "arn:aws:kms:eu-paris-1:111122223333:key/mrk-a", "arn:aws:kms:eu-paris-1:444455556666:key/mrk-a",
		"arn:aws:kms:us-east-1:111122223333:key/b", "arn:aws:kms:eu-paris-1:111122223333:alias/a",
	}
	someResourcePatterns = append([]string{"arn:aws:kms:*:*:*", "arn:aws:kms:*:111122223333:key/*", "arn:aws:kms:eu-*:*:key/mrk-?", "arn:*:kms:*:*:alias/*"}, someResources...)
)

// plain is a statement as it is written.
type plain struct {
	Effect    string
	Principal map[string][]string `json:",omitempty"`
	Action    []string
	Resource  []string
}

func drawStatement(effects []string, principal bool) *rapid.Generator[plain] {
	return rapid.Custom(func(t *rapid.T) plain {
		some := func(from []string, name string) []string {
			return rapid.SliceOfN(rapid.SampledFrom(from), 1, 3).Draw(t, name)
		}
		s := plain{
			Effect: rapid.SampledFrom(effects).Draw(t, "effect"),
			Action: some(someActionPatterns, "action"), Resource: some(someResourcePatterns, "resource"),
		}
		if principal {
			s.Principal = map[string][]string{"AWS": some(someStatementPrincipals, "principal")}
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
}

func drawWorld(t *rapid.T) world {
	w := world{req: policy.Request{
		Principal: rapid.SampledFrom(somePrincipals).Draw(t, "principal"),
		Action:    rapid.SampledFrom(someActions).Draw(t, "action"),
		Resource:  rapid.SampledFrom(someResources).Draw(t, "resource"),
	}}
	if strings.Contains(w.req.Resource, ":key/") {
		w.key = drawStatements(t, true, "key policy")
	}
	w.identity = drawStatements(t, false, "identity policy")
	return w
}

func (w world) decide(t *rapid.T) policy.Decision {
	var identity []*policy.Policy
	if p := compile(t, w.identity, policy.IdentityPolicy); p != nil {
		identity = append(identity, p)
	}
	return policy.Decide(w.req, compile(t, w.key, policy.KeyPolicy), identity)
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
		if after := w.decide(t); after.Allowed != before.Allowed || after.Reason != before.Reason {
			t.Fatalf("got %+v, before %+v", after, before)
		}
	})
}

// TestAgainstReference compares with an evaluator that is written from the rules, over the
// documents as text, with regular expressions and without any thought of speed.
func TestAgainstReference(t *testing.T) {
	allowed := 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		got, want := w.decide(t), w.reference()
		if got.Allowed != want {
			t.Fatalf("%+v\ngot %+v, want allowed %t", w, got, want)
		}
		if want {
			allowed++
		}
	})
	if allowed == 0 {
		t.Error("no request was allowed: the comparison says nothing")
	}
}

func matches(pattern, text string, fold bool) bool {
	re := regexp.QuoteMeta(pattern)
	re = strings.ReplaceAll(strings.ReplaceAll(re, `\*`, `.*`), `\?`, `.`)
	if fold {
		re = "(?i)" + re
	}
	return regexp.MustCompile(`^(?s:` + re + `)$`).MatchString(text)
}

func (s plain) matchesRequest(req policy.Request) bool {
	action := slices.ContainsFunc(s.Action, func(p string) bool { return matches(p, req.Action, true) })
	return action && slices.ContainsFunc(s.Resource, func(p string) bool {
		if p == "*" {
			return true
		}
		want, have := strings.SplitN(p, ":", 6), strings.SplitN(req.Resource, ":", 6)
		if len(want) != len(have) {
			return false
		}
		for i := range want {
			if !matches(want[i], have[i], false) {
				return false
			}
		}
		return true
	})
}

func (w world) reference() bool {
	account := strings.Split(w.req.Principal, ":")[4]
	root := "arn:aws:iam::" + account + ":root"
	onKey := strings.Contains(w.req.Resource, ":key/")
	alias := strings.Contains(w.req.Resource, ":alias/")
	crossAccount := slices.Contains([]string{"kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom"}, w.req.Action)
	switch w.req.Action {
	case "kms:CreateKey":
		if onKey || alias {
			return false
		}
	case "kms:CreateAlias":
		if !onKey && !alias {
			return false
		}
	default:
		if !onKey {
			return false
		}
	}
	named, trusted, byIdentity := false, false, w.req.Principal == root
	for _, s := range w.key {
		who := s.Principal["AWS"]
		direct := slices.Contains(who, "*") || slices.Contains(who, w.req.Principal)
		through := slices.Contains(who, account) || slices.Contains(who, root)
		if !(direct || through) || !s.matchesRequest(w.req) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		named = named || direct || w.req.Principal == root
		trusted = trusted || through
	}
	for _, s := range w.identity {
		if !s.matchesRequest(w.req) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		byIdentity = true
	}
	owner := account
	if onKey || alias {
		owner = strings.Split(w.req.Resource, ":")[4]
	}
	switch {
	case owner != account && !crossAccount:
		return false
	case !onKey:
		return byIdentity
	case owner != account:
		return (named || trusted) && byIdentity
	}
	return named || trusted && byIdentity
}

func FuzzParse(f *testing.F) {
	d := mustDecisions(f)
	for _, p := range d.KeyPolicies {
		f.Add([]byte(p))
	}
	for _, p := range d.Identities {
		f.Add([]byte(p))
	}
	f.Add([]byte(with(who, rest, `"Condition": {}`)))
	f.Add([]byte("\xef\xbb\xbf{}"))
	req := policy.Request{
		Principal: "arn:aws:iam::111122223333:user/alice", Action: "kms:Encrypt",
		Resource: "arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := policy.Parse(data, policy.KeyPolicy)
		checkError(t, err)
		if err == nil {
			d := policy.Decide(req, key, nil)
			if d.Allowed && !strings.Contains(string(data), "Allow") && !strings.Contains(string(data), `\u`) {
				t.Errorf("got %+v from a document that nowhere says Allow", d)
			}
			if !json.Valid(data) {
				t.Error("accepted what is no JSON")
			}
		}
		identity, err := policy.Parse(data, policy.IdentityPolicy)
		checkError(t, err)
		if err == nil {
			policy.Decide(req, key, []*policy.Policy{identity})
			if key != nil {
				t.Error("one document is both a key policy and an identity policy")
			}
		}
		ids, err := policy.ParseIdentities(data)
		checkError(t, err)
		if err == nil {
			policy.Decide(req, key, ids.For(req.Principal))
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var e *policy.Error
	if err != nil && (!errors.Is(err, policy.ErrMalformed) || !errors.As(err, &e) || e.Problem == "") {
		t.Errorf("got %v, want an *Error that wraps ErrMalformed", err)
	}
}
