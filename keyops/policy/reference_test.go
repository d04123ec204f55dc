package policy_test

import (
	"maps"
	"math/big"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops/policy"
)

// TestAgainstReference compares with an evaluator that is written from the rules, over the
// documents as text, with regular expressions and without any thought of speed.
func TestAgainstReference(t *testing.T) {
	allowed, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		got, want := w.decide(t), w.reference()
		if got.Allowed != want {
			t.Fatalf("%+v\ngot %+v, want allowed %t", w, got, want)
		}
		if want {
			allowed++
		} else {
			refused++
		}
	})
	if allowed == 0 || refused == 0 {
		t.Errorf("%d requests allowed, %d refused: the comparison says nothing", allowed, refused)
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

// matchesARN compares part by part.
func matchesARN(pattern, text string) bool {
	want, have := strings.SplitN(pattern, ":", 6), strings.SplitN(text, ":", 6)
	return slices.EqualFunc(want, have, func(w, h string) bool { return matches(w, h, false) })
}

func (s plain) matchesRequest(w world) bool {
	action := slices.ContainsFunc(append(s.Action, s.NotAction...), func(p string) bool { return matches(p, w.req.Action, true) })
	resource := slices.ContainsFunc(append(s.Resource, s.NotResource...), func(p string) bool {
		return p == "*" || matchesARN(p, w.req.Resource)
	})
	return action == (s.NotAction == nil) && resource == (s.NotResource == nil) && s.conditionsHold(w)
}

func (s plain) conditionsHold(w world) bool {
	for operator, keys := range s.Condition {
		for key, values := range keys {
			if !w.holds(operator, key, values, s.Effect == "Deny") {
				return false
			}
		}
	}
	return true
}

// carriers says which of someActions carry a key; a key that is not here is carried by all.
var carriers = map[string][]string{
	"kms:KeySpec":               {"kms:Encrypt", "kms:Decrypt", "kms:PutKeyPolicy", "kms:CreateKey", "kms:CreateAlias", "kms:ReEncryptFrom", "kms:EnableKeyRotation", "kms:CreateGrant"},
	"kms:MultiRegion":           {"kms:Encrypt", "kms:Decrypt", "kms:PutKeyPolicy", "kms:CreateKey", "kms:CreateAlias", "kms:ReEncryptFrom", "kms:EnableKeyRotation", "kms:CreateGrant"},
	"kms:ResourceAliases":       {"kms:Encrypt", "kms:Decrypt", "kms:PutKeyPolicy", "kms:CreateAlias", "kms:ReEncryptFrom", "kms:EnableKeyRotation", "kms:CreateGrant"},
	"kms:RotationPeriodInDays":  {"kms:EnableKeyRotation"},
	"kms:EncryptionContextKeys": {"kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:CreateGrant"},
}

// holds has one paragraph for each rule of the documentation.
func (w world) holds(operator, key string, want []string, deny bool) bool {
	parts := regexp.MustCompile(`^(ForAllValues:|ForAnyValue:)?(.*?)(IfExists)?$`).FindStringSubmatch(operator)
	quantifier, base, ifExists := parts[1], parts[2], parts[3] != ""

	var have []string
	list := carriers[key]
	pair, isPair := strings.CutPrefix(key, "kms:EncryptionContext:")
	if isPair {
		list = carriers["kms:EncryptionContextKeys"]
	}
	carried := list == nil || slices.Contains(list, w.req.Action)
	switch {
	case !carried:
	case key == "aws:PrincipalArn":
		have = []string{w.req.Principal}
	case key == "kms:CallerAccount":
		have = []string{strings.Split(w.req.Principal, ":")[4]}
	case w.req.Context == nil:
		return deny // what is not known counts against the caller
	case key == "kms:EncryptionContextKeys":
		have = slices.Collect(maps.Keys(w.req.EncryptionContext))
	case isPair:
		for k, v := range w.req.EncryptionContext {
			if strings.EqualFold(k, pair) {
				have = append(have, v)
			}
		}
	default:
		have = w.req.Context[key]
	}

	if base == "Null" {
		return slices.Contains(want, map[bool]string{true: "true", false: "false"}[len(have) == 0])
	}
	negated := strings.Contains(base, "Not")
	if len(have) == 0 {
		return ifExists || quantifier == "ForAllValues:" || quantifier == "" && negated
	}
	satisfied := 0
	for _, h := range have {
		if one(strings.Replace(base, "Not", "", 1), want, h, negated, deny) {
			satisfied++
		}
	}
	if quantifier == "ForAnyValue:" || quantifier == "" && deny {
		return satisfied > 0
	}
	return satisfied == len(have)
}

// one compares one value of the request with all of the document.
func one(base string, want []string, have string, negated, deny bool) bool {
	for _, v := range want {
		var match, readable bool
		switch {
		case base == "StringEquals":
			match, readable = v == have, true
		case base == "StringEqualsIgnoreCase":
			match, readable = strings.EqualFold(v, have), true
		case base == "StringLike":
			match, readable = matches(v, have, false), true
		case strings.HasPrefix(base, "Arn"):
			match, readable = matchesARN(v, have), true
		case base == "Bool":
			match, readable = v == have, have == "true" || have == "false"
		case base == "IpAddress":
			ip := net.ParseIP(have)
			if _, network, err := net.ParseCIDR(v); err == nil {
				match, readable = ip != nil && network.Contains(ip), ip != nil
			} else {
				match, readable = net.ParseIP(v).Equal(ip), ip != nil
			}
		case strings.HasPrefix(base, "Numeric"):
			h, ok := new(big.Rat).SetString(have)
			if readable = ok; ok {
				n, _ := new(big.Rat).SetString(v)
				match = compares(strings.TrimPrefix(base, "Numeric"), h.Cmp(n))
			}
		case strings.HasPrefix(base, "Date"):
			h, err := time.Parse(time.RFC3339, have)
			if readable = err == nil; readable {
				if !strings.Contains(v, "T") {
					v += "T00:00:00Z"
				}
				d, err := time.Parse(time.RFC3339, v)
				if err != nil {
					panic(err)
				}
				match = compares(strings.TrimPrefix(base, "Date"), int(h.Sub(d)))
			}
		default:
			panic("the reference does not know " + base)
		}
		if !readable {
			return deny
		}
		if match {
			return !negated
		}
	}
	return negated
}

func compares(how string, c int) bool {
	return strings.HasPrefix(how, "LessThan") && c < 0 || strings.HasPrefix(how, "GreaterThan") && c > 0 || strings.HasSuffix(how, "Equals") && c == 0
}

func (w world) reference() bool {
	account := strings.Split(w.req.Principal, ":")[4]
	root := "arn:aws:iam::" + account + ":root"
	onKey := strings.Contains(w.req.Resource, ":key/")
	alias := strings.Contains(w.req.Resource, ":alias/")
	crossAccount := slices.Contains([]string{"kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:CreateGrant"}, w.req.Action)
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
		who := append(slices.Clone(s.Principal["AWS"]), s.NotPrincipal["AWS"]...)
		direct := slices.Contains(who, "*") || slices.Contains(who, w.req.Principal)
		through := slices.Contains(who, account) || slices.Contains(who, root)
		if s.NotPrincipal != nil {
			isRoot := w.req.Principal == root
			direct, through = !(slices.Contains(who, "*") || through && (isRoot || slices.Contains(who, w.req.Principal))), false
		}
		if !(direct || through) || !s.matchesRequest(w) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		named = named || direct || w.req.Principal == root
		trusted = trusted || through
	}
	for _, s := range w.identity {
		if !s.matchesRequest(w) {
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
	case slices.ContainsFunc(w.grants, w.granted):
		return true
	case owner != account:
		return (named || trusted) && byIdentity
	}
	return named || trusted && byIdentity
}

func (w world) granted(g policy.Grant) bool {
	operation := strings.TrimPrefix(w.req.Action, "kms:")
	if g.Grantee != w.req.Principal || !slices.Contains(g.Operations, operation) {
		return false
	}
	if operation == "CreateGrant" {
		asked := w.req.Context["kms:GrantOperations"]
		for _, op := range asked {
			if !slices.Contains(g.Operations, op) {
				return false
			}
		}
		if len(asked) == 0 || len(g.EncryptionContextEquals) > 0 && !slices.Contains(w.req.Context["kms:GrantConstraintType"], "EncryptionContextEquals") {
			return false
		}
	}
	if len(g.EncryptionContextEquals) > 0 {
		return maps.Equal(g.EncryptionContextEquals, w.req.EncryptionContext)
	}
	both := maps.Clone(w.req.EncryptionContext)
	maps.Copy(both, g.EncryptionContextSubset)
	return maps.Equal(both, w.req.EncryptionContext)
}
