package gateway

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

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

// sampleName stands in for `*` when a rule is checked.
const sampleName = "x"

// nameClass is what `*` can stand for. No slash and no colon, so that a name cannot reach
// beyond its place in a URI or an ARN.
const nameClass = `[A-Za-z0-9+=,.@_-]+`

// mapper applies the rules to certificates.
type mapper []compiledRule

type compiledRule struct {
	Rule
	pattern *regexp.Regexp
}

// newMapper checks all rules, and reports all mistakes.
func newMapper(rules []Rule) (mapper, error) {
	var out mapper
	var mistakes []error
	for i, r := range rules {
		c, err := r.compile()
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("principal rule %d: %w", i+1, err))
			continue
		}
		out = append(out, c)
	}
	return out, errors.Join(mistakes...)
}

func (r Rule) compile() (compiledRule, error) {
	if (r.SPIFFE == "") == (r.CommonName == "") {
		return compiledRule{}, errors.New("want exactly one of a SPIFFE and a common name pattern")
	}
	if r.OrganizationalUnit != "" && r.SPIFFE != "" {
		return compiledRule{}, errors.New("an organizational unit goes with a common name only")
	}
	if r.SPIFFE != "" && !strings.HasPrefix(r.SPIFFE, "spiffe://") {
		return compiledRule{}, fmt.Errorf("pattern %q: want spiffe://<trust domain>/<path>", r.SPIFFE)
	}
	pattern := r.SPIFFE + r.CommonName
	if strings.Count(pattern, "*") > 1 || strings.Count(r.Principal, "*") > strings.Count(pattern, "*") {
		return compiledRule{}, errors.New("want at most one * in the pattern, and in the principal only if the pattern has it")
	}
	if name := strings.LastIndex(r.Principal, ":"); strings.Contains(r.Principal[:max(name, 0)], "*") {
		return compiledRule{}, errors.New("a * in the principal can stand for its name only")
	}
	if _, err := arn.ParsePrincipal(strings.Replace(r.Principal, "*", sampleName, 1)); err != nil {
		return compiledRule{}, err
	}
	expression := strings.Replace(regexp.QuoteMeta(pattern), `\*`, "("+nameClass+")", 1)
	return compiledRule{r, regexp.MustCompile("^(?:" + expression + ")$")}, nil
}

// principal names the principal of a verified certificate, or reports that no rule does.
func (m mapper) principal(leaf *x509.Certificate) (arn.Principal, bool) {
	for _, r := range m {
		subject, ok := r.subject(leaf)
		if !ok {
			continue
		}
		match := r.pattern.FindStringSubmatch(subject)
		if match == nil {
			continue
		}
		name := r.Principal
		if len(match) == 2 {
			name = strings.Replace(name, "*", match[1], 1)
		}
		p, err := arn.ParsePrincipal(name)
		return p, err == nil
	}
	return arn.Principal{}, false
}

// subject returns the name in the certificate that the rule looks at.
func (r compiledRule) subject(leaf *x509.Certificate) (string, bool) {
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
