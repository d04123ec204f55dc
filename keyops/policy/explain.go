package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Explanation is a Decision with the reasons for it, for people and, as JSON, for programs.
type Explanation struct {
	Principal string `json:"principal"`
	Action    string `json:"action"`
	Resource  string `json:"resource"`

	Allowed   bool   `json:"allowed"`
	Reason    string `json:"reason"`
	Statement string `json:"statement,omitempty"` // the one that decided, if one did

	Considered []Considered `json:"considered"`
	Advice     []string     `json:"advice,omitempty"` // what would change a refusal
}

// Considered is one statement or grant and whether it applies to the request.
type Considered struct {
	Statement string    `json:"statement"`
	Effect    Effect    `json:"effect"`
	Applies   bool      `json:"applies"`
	Elements  []Element `json:"elements"`
}

// Effect says what a statement does if it applies.
type Effect string

// Effects of statements.
const (
	Allows    Effect = "Allow"
	Denies    Effect = "Deny"
	Delegates Effect = "Delegate" // allows the account, so that its identity policies decide
)

// Element is one element of a statement, matched against the request.
type Element struct {
	Name    string `json:"name"`
	Matches bool   `json:"matches"`
	Why     string `json:"why"`
}

// Explain decides as Decide does, and says why. It looks at every element of every statement
// and so takes longer.
func Explain(req Request, keyPolicy *Policy, identity []*Policy, grants ...Grant) Explanation {
	d := Decide(req, keyPolicy, identity, grants...)
	e := Explanation{
		Principal: req.Principal, Action: req.Action, Resource: req.Resource,
		Allowed: d.Allowed, Reason: d.Reason.String(), Considered: []Considered{},
	}
	if d.Statement.Policy != "" {
		e.Statement = d.Statement.String()
	}
	q, ok := newQuery(req)
	if !ok || d.Reason == InvalidRequest {
		e.Advice = []string{invalid(req, keyPolicy)}
		return e
	}
	if keyPolicy != nil {
		e.consider(&q, keyPolicy)
	}
	for _, p := range identity {
		e.consider(&q, p)
	}
	for i := range grants {
		e.considerGrant(&q, i, &grants[i])
	}
	if !d.Allowed {
		e.Advice = e.advice(&q, d)
	}
	return e
}

func (e *Explanation) consider(q *query, p *Policy) {
	for _, s := range p.statements {
		c := Considered{Statement: s.ref.String(), Effect: Allows, Applies: true}
		how := s.reach(q, p.kind)
		switch {
		case s.deny:
			c.Effect = Denies
		case how == throughAccount:
			c.Effect = Delegates
		}
		if p.kind == KeyPolicy {
			c.add(s.not("Principal", s.notWho), how != notReached, s.whyPrincipal(q, how))
		}
		c.add(s.not("Action", s.notAction), s.actions.has(q.action), s.whyAction(q))
		c.add(s.not("Resource", s.notResource), s.covers(&q.what), s.whyResource(q))
		for i := range s.conditions {
			holds := s.conditions[i].holds(q, s.deny)
			c.add("Condition "+s.conditions[i].path, holds, s.conditions[i].why(q, holds))
		}
		e.Considered = append(e.Considered, c)
	}
}

func (e *Explanation) considerGrant(q *query, i int, g *Grant) {
	c := Considered{Statement: Statement{grantPolicy, i, g.ID}.String(), Effect: Allows, Applies: true}
	c.add("GranteePrincipal", q.who.arn == g.Grantee, "the grantee is "+g.Grantee)
	row := actions[q.action]
	c.add("Operations", row.grantable && slices.Contains(g.Operations, row.name), "the operations are "+strings.Join(g.Operations, ", "))
	why := g.constrains(q)
	if holds := why == ""; holds {
		c.add("Constraints", true, "no constraint is broken")
	} else {
		c.add("Constraints", false, why)
	}
	e.Considered = append(e.Considered, c)
}

func (c *Considered) add(name string, matches bool, why string) {
	c.Elements = append(c.Elements, Element{name, matches, why})
	c.Applies = c.Applies && matches
}

func (s *statement) not(name string, not bool) string {
	if not {
		return "Not" + name
	}
	return name
}

func (s *statement) whyPrincipal(q *query, how reach) string {
	switch {
	case s.notWho && how == notReached:
		return q.who.arn + " and its account are both left out"
	case s.notWho && (s.who.named[q.who.arn] || s.who.accounts[q.who.accountARN] || s.who.accounts[q.who.account]):
		return "only one of " + q.who.arn + " and " + q.who.accountARN + ":root is left out; both have to be"
	case s.notWho:
		return q.who.arn + " is not left out"
	case how == throughAccount:
		return "names the account " + q.who.account + ", whose identity policies decide"
	case s.who.everyone:
		return "names everybody"
	case how == byName:
		return "names " + q.who.arn
	}
	return "names neither " + q.who.arn + " nor its account"
}

func (s *statement) whyAction(q *query) string {
	name := "kms:" + actions[q.action].name
	switch {
	case s.notAction && s.actions.has(q.action):
		return name + " is not left out"
	case s.notAction:
		return name + " is left out"
	case s.actions.has(q.action):
		return "has " + name
	}
	return "does not have " + name
}

func (s *statement) whyResource(q *query) string {
	what := q.what.String()
	patterns := make([]string, len(s.resources))
	for i := range s.resources {
		patterns[i] = s.resources[i].String()
	}
	verb := " does not match "
	if s.covers(&q.what) != s.notResource {
		verb = " matches "
	}
	return what + verb + strings.Join(patterns, ", ")
}

func (c *condition) why(q *query, holds bool) string {
	action := "kms:" + actions[q.action].name
	if c.unknown(q) {
		return "nothing is known of the request's condition keys, which counts against the caller"
	}
	if !c.key.on.has(q.action) {
		return action + " never carries it, so it counts as absent"
	}
	var have []string
	q.each(c.key, c.name, func(v string) { have = append(have, fmt.Sprintf("%q", v)) })
	if len(have) == 0 {
		return "absent from the request"
	}
	slices.Sort(have)
	if c.operator.match == nil {
		return "present in the request"
	}
	want := make([]string, len(c.values))
	for i := range c.values {
		want[i] = fmt.Sprintf("%q", c.values[i].text)
	}
	return fmt.Sprintf("the request has %s; the statement, %s", strings.Join(have, ", "), strings.Join(want, ", "))
}

func (r *resource) String() string {
	if r.kind == onNothing {
		return "*"
	}
	return strings.Join(r.parts[:], ":")
}

func (r *resourcePattern) String() string {
	if r.everything {
		return "*"
	}
	return strings.Join(r.parts[:], ":")
}

// String returns the explanation as text, with a line for every statement and below it one
// for every element that does not match.
func (e Explanation) String() string {
	var b strings.Builder
	verdict := "refused"
	if e.Allowed {
		verdict = "allowed"
	}
	fmt.Fprintf(&b, "%s: %s on %s for %s\nreason: %s\n", verdict, e.Action, e.Resource, e.Principal, e.Reason)
	if e.Statement != "" {
		fmt.Fprintf(&b, "decided by: %s\n", e.Statement)
	}
	for _, c := range e.Considered {
		applies := "does not apply"
		if c.Applies {
			applies = "applies"
		}
		fmt.Fprintf(&b, "\n%s (%s): %s\n", c.Statement, c.Effect, applies)
		for _, el := range c.Elements {
			sign := "="
			if !el.Matches {
				sign = "x"
			}
			fmt.Fprintf(&b, "  %s %s: %s\n", sign, el.Name, el.Why)
		}
	}
	for i, a := range e.Advice {
		if i == 0 {
			b.WriteString("\nto allow it:\n")
		}
		fmt.Fprintf(&b, "  - %s\n", a)
	}
	return b.String()
}
