package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Finding is something in a valid document that probably is not what its author means.
type Finding struct {
	Statement string `json:"statement,omitempty"` // empty: the document as a whole
	Rule      string `json:"rule"`                // a name for programs; docs/policy.md lists them
	Problem   string `json:"problem"`
}

// Lint looks for statements that allow or deny too much, or nothing. It knows the document
// alone: not the key, nor who exists. An identities file is looked at by Identities.Lint.
func Lint(p *Policy) []Finding {
	l := linter{kind: p.kind}
	for _, s := range p.statements {
		l.statement(s)
	}
	if p.kind == KeyPolicy {
		l.manageable(p)
	}
	return l.findings
}

// Lint looks at every statement of the file once, and at its groups.
func (ids *Identities) Lint() []Finding {
	l := linter{kind: identitiesFile}
	for _, s := range ids.statements {
		l.statement(s)
	}
	l.findings = append(l.findings, ids.unused...)
	return l.findings
}

type linter struct {
	kind     Kind
	findings []Finding
	at       string
}

func (l *linter) report(rule, format string, args ...any) {
	l.findings = append(l.findings, Finding{l.at, rule, fmt.Sprintf(format, args...)})
}

func (l *linter) statement(s *statement) {
	l.at = s.ref.String()
	if l.kind == KeyPolicy {
		l.principals(s)
	}
	l.actions(s)
	l.resources(s)
	for i := range s.conditions {
		l.condition(s, &s.conditions[i])
	}
	l.at = ""
}

func (l *linter) principals(s *statement) {
	unconditional := len(s.conditions) == 0
	switch {
	case s.notWho && s.who.everyone:
		l.report("never-applies", "NotPrincipal leaves everybody out")
	case s.notWho:
		for _, arn := range slices.Sorted(maps.Keys(s.who.named)) {
			who, _ := parsePrincipal(arn)
			if !s.who.spares(&who) {
				l.report("denies-the-excepted", "NotPrincipal names %s without its account, so it is denied too; add %s:root", arn, who.accountARN)
			}
		}
	case s.who.everyone && !s.deny && unconditional:
		l.report("allows-everybody", "allows every principal of every account, without a condition; name principals, or add one on aws:PrincipalArn or kms:CallerAccount")
	case s.who.everyone && s.deny && unconditional && s.actions.has(actionIndex["kms:PutKeyPolicy"]) && s.covers(&anyKey):
		l.report("denies-everybody", "denies kms:PutKeyPolicy to everybody, so nobody can ever change this policy")
	}
}

func (l *linter) actions(s *statement) {
	if s.actions.empty() {
		l.report("never-applies", "NotAction leaves every action out")
		return
	}
	if s.notAction && !s.deny {
		l.report("allows-all-others", "Allow with NotAction allows every other action, those that come later too; list the actions")
	}
	for i, a := range actions {
		switch {
		case !s.named.has(i):
		case l.kind == KeyPolicy && a.on&onKey == 0:
			l.report("action-without-key", "kms:%s acts on no key, so no key policy is asked; allow it in an identity policy", a.name)
		case !s.fits(a):
			l.report("resource-does-not-fit", "kms:%s acts on %s, which Resource does not cover", a.name, a.on)
		}
	}
}

// fits reports whether an action acts on any kind of resource that the statement covers.
func (s *statement) fits(a action) bool {
	if s.notResource {
		return true // a pattern cannot leave out a whole kind, but for *, which is looked at elsewhere
	}
	for _, r := range s.resources {
		switch {
		case r.everything,
			a.on&onKey != 0 && mayBegin(r.parts[5], "key/"),
			a.on&onAlias != 0 && mayBegin(r.parts[5], "alias/"):
			return true
		}
	}
	return false
}

// mayBegin reports whether a pattern can match a text with a prefix.
func mayBegin(pattern, prefix string) bool {
	literal, _, wild := strings.Cut(strings.ReplaceAll(pattern, "?", "*"), "*")
	return strings.HasPrefix(literal, prefix) || wild && strings.HasPrefix(prefix, literal)
}

var anyKey = resource{kind: onKey, parts: arnParts{"arn", "aws", "kms", "any-region-1", "000000000000", "key/any"}}

func (l *linter) resources(s *statement) {
	for _, r := range s.resources {
		switch {
		case s.notResource && r.everything:
			l.report("never-applies", "NotResource leaves everything out")
		case l.kind == KeyPolicy && !r.everything && !mayBegin(r.parts[5], "key/"):
			l.report("resource-does-not-fit", "a key policy is about its key; %s matches no key", r.String())
		}
	}
}

func (l *linter) condition(s *statement, c *condition) {
	carry := s.actions.and(c.key.on)
	switch {
	case s.actions.empty():
	case carry.empty():
		l.report("key-not-carried", "Condition %s: no action of the statement carries this key, so it %s", c.path, constantly(c.absentOutcome()))
		return
	case !c.absentOutcome() && !s.deny:
		for i, a := range actions {
			if s.named.has(i) && !carry.has(i) {
				l.report("key-not-carried", "Condition %s: kms:%s never carries this key, so the statement never allows it", c.path, a.name)
			}
		}
	}
	if c.operator.match == nil {
		return
	}
	if c.quantity == forAllValues && !s.deny && !s.requires(c) {
		l.report("holds-for-none", `Condition %s: ForAllValues holds for a request without any value too; add "Null": {"%s%s": "false"}`, c.path, c.key.name, c.name)
	}
	literally := c.operator.takes == textual && !strings.HasSuffix(c.operator.name, "Like")
	for i := range c.values {
		switch v := &c.values[i]; {
		case literally && strings.ContainsAny(v.text, "*?"):
			l.report("literal-wildcard", "Condition %s: %s takes * and ? in %q literally; write StringLike or StringNotLike", c.path, c.operator.name, v.text)
		case !c.possible(v):
			l.report("impossible-value", "Condition %s: no request has %q", c.path, v.text)
		}
	}
}

func constantly(holds bool) string {
	if holds {
		return "always holds"
	}
	return "never holds"
}

// absentOutcome is what the condition says of a request without its key.
func (c *condition) absentOutcome() bool {
	if c.operator.match == nil {
		return c.wantsAbsent(true)
	}
	return c.holdsAbsent()
}

// requires reports whether another condition of the statement demands the same key.
func (s *statement) requires(c *condition) bool {
	for i := range s.conditions {
		o := &s.conditions[i]
		if o.key == c.key && strings.EqualFold(o.name, c.name) && !o.absentOutcome() {
			return true
		}
	}
	return false
}

// possible reports whether any request can match a value.
func (c *condition) possible(v *operand) bool {
	switch {
	case c.operator.takes&textual == 0:
		return true
	case c.key.name == RequestAlias || c.key.name == ResourceAliases:
		return c.operator.name != "StringEquals" || strings.HasPrefix(v.text, "alias/")
	case c.key.name == RequestedRegion || c.key.name == ReplicaRegion || c.key.name == PrimaryRegion:
		return strings.HasSuffix(c.operator.name, "IgnoreCase") || isLower(v.text)
	case c.key.source == fromPrincipalAccount:
		return isAccount(v.text) || strings.HasSuffix(c.operator.name, "Like") && strings.ContainsAny(v.text, "*?")
	case c.key.values == nil:
		return true
	}
	for _, have := range c.key.values {
		if matches, _ := c.operator.match(v, have); matches {
			return true
		}
	}
	return false
}

// manageable reports a key policy that leaves nobody to change it.
func (l *linter) manageable(p *Policy) {
	put := actionIndex["kms:PutKeyPolicy"]
	for _, s := range p.statements {
		if !s.deny && s.actions.has(put) {
			return
		}
	}
	l.report("nobody-manages", "no statement allows kms:PutKeyPolicy to anybody, so this policy can never be changed")
}
