package gateway

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/keyops/arn"
)

// Rule names the principal of client certificates that fit it. Exactly one of SPIFFE and
// CommonName is set.
//
// One `*` in a pattern stands for a name: one or more letters, digits or `+=,.@_-`. The
// principal may repeat it with one `*` of its own:
//
//	{SPIFFE: "spiffe://corp.example/kms/user/*", Principal: "arn:aws:iam::111122223333:user/*"}
//	{CommonName: "*", OrganizationalUnit: "payroll", Principal: "arn:aws:iam::111122223333:role/payroll"}
type Rule struct {
	// SPIFFE is a pattern for the certificate's URI name. It fits only a certificate that has
	// exactly one URI name, as SPIFFE demands.
	SPIFFE string
	// CommonName is a pattern for the subject's common name.
	CommonName string
	// OrganizationalUnit, if set, must be one of the subject's organizational units. Only with
	// CommonName.
	OrganizationalUnit string
	// Principal is the ARN of the principal.
	Principal string
}

// ClaimRule names the principal of bearer tokens that fit it, by patterns as in Rule.
type ClaimRule struct {
	// Claim is the name of a claim at the top of the token, such as sub or groups.
	Claim string
	// Pattern is a pattern for the claim's text. A claim that is a list fits if the pattern
	// has no `*` and is in the list; which of many names a `*` meant would be chance.
	Pattern string
	// Principal is the ARN of the principal.
	Principal string
}

// sampleName stands in for `*` when a rule is checked.
const sampleName = "x"

// nameClass is what `*` can stand for. No slash and no colon, so that a name cannot reach
// beyond its place in a URI or an ARN.
const nameClass = `[A-Za-z0-9+=,.@_-]+`

// naming makes the name of a principal out of a text that fits a pattern.
type naming struct {
	pattern   *regexp.Regexp
	principal string
}

func newNaming(pattern, principal string) (naming, error) {
	if strings.Count(pattern, "*") > 1 || strings.Count(principal, "*") > strings.Count(pattern, "*") {
		return naming{}, errors.New("want at most one * in the pattern, and in the principal only if the pattern has it")
	}
	if name := strings.LastIndex(principal, ":"); strings.Contains(principal[:max(name, 0)], "*") {
		return naming{}, errors.New("a * in the principal can stand for its name only")
	}
	if _, err := arn.ParsePrincipal(strings.Replace(principal, "*", sampleName, 1)); err != nil {
		return naming{}, err
	}
	expression := strings.Replace(regexp.QuoteMeta(pattern), `\*`, "("+nameClass+")", 1)
	return naming{regexp.MustCompile("^(?:" + expression + ")$"), principal}, nil
}

// hasName reports whether the pattern has a `*`.
func (n naming) hasName() bool { return n.pattern.NumSubexp() > 0 }

// fits reports whether the text fits the pattern, and which principal it then names. One that
// is no principal's name is nobody's, and no later rule is asked.
func (n naming) fits(text string) (p arn.Principal, fits bool) {
	match := n.pattern.FindStringSubmatch(text)
	if match == nil {
		return arn.Principal{}, false
	}
	name := n.principal
	if len(match) == 2 {
		name = strings.Replace(name, "*", match[1], 1)
	}
	p, err := arn.ParsePrincipal(name)
	if err != nil {
		return arn.Principal{}, true
	}
	return p, true
}

// mapper names principals of what is of type T by ordered rules.
type mapper[T any] []func(T) (p arn.Principal, fits bool)

// compile checks all rules, and reports all mistakes.
func compile[R, T any](rules []R, one func(R) (func(T) (arn.Principal, bool), error)) (mapper[T], error) {
	var out mapper[T]
	var mistakes []error
	for i, r := range rules {
		rule, err := one(r)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("principal rule %d: %w", i+1, err))
			continue
		}
		out = append(out, rule)
	}
	return out, errors.Join(mistakes...)
}

// principal returns the principal that the first fitting rule names, and that rule's number
// from 1, or errNoRule.
func (m mapper[T]) principal(subject T) (arn.Principal, int, error) {
	for i, rule := range m {
		if p, fits := rule(subject); fits {
			if p == (arn.Principal{}) {
				break
			}
			return p, i + 1, nil
		}
	}
	return arn.Principal{}, 0, errNoRule
}

func (r Rule) compile() (func(*x509.Certificate) (arn.Principal, bool), error) {
	if (r.SPIFFE == "") == (r.CommonName == "") {
		return nil, errors.New("want exactly one of a SPIFFE and a common name pattern")
	}
	if r.OrganizationalUnit != "" && r.SPIFFE != "" {
		return nil, errors.New("an organizational unit goes with a common name only")
	}
	if r.SPIFFE != "" && !strings.HasPrefix(r.SPIFFE, "spiffe://") {
		return nil, fmt.Errorf("pattern %q: want spiffe://<trust domain>/<path>", r.SPIFFE)
	}
	n, err := newNaming(r.SPIFFE+r.CommonName, r.Principal)
	if err != nil {
		return nil, err
	}
	return func(leaf *x509.Certificate) (arn.Principal, bool) {
		subject, ok := r.subject(leaf)
		if !ok {
			return arn.Principal{}, false
		}
		return n.fits(subject)
	}, nil
}

// subject returns the name in the certificate that the rule looks at.
func (r Rule) subject(leaf *x509.Certificate) (string, bool) {
	if r.SPIFFE != "" {
		if len(leaf.URIs) != 1 {
			return "", false
		}
		return leaf.URIs[0].String(), true
	}
	if r.OrganizationalUnit != "" && !slices.Contains(leaf.Subject.OrganizationalUnit, r.OrganizationalUnit) {
		return "", false
	}
	return leaf.Subject.CommonName, true
}

func (r ClaimRule) compile() (func(bearer.Claims) (arn.Principal, bool), error) {
	if r.Claim == "" || r.Pattern == "" {
		return nil, errors.New("want a claim and a pattern")
	}
	n, err := newNaming(r.Pattern, r.Principal)
	if err != nil {
		return nil, err
	}
	return func(c bearer.Claims) (arn.Principal, bool) {
		values, list := c.Values(r.Claim)
		if list && n.hasName() {
			return arn.Principal{}, false
		}
		for _, v := range values {
			if p, fits := n.fits(v); fits {
				return p, true
			}
		}
		return arn.Principal{}, false
	}, nil
}
