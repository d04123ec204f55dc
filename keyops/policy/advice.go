package policy

import "fmt"

// invalid says what is wrong with a request that names nothing that exists.
func invalid(req Request, keyPolicy *Policy) string {
	row, known := actionIndex[req.Action]
	if !known {
		if best := nearest(req.Action); best != "" {
			return fmt.Sprintf("there is no action %s; perhaps %s", req.Action, best)
		}
		return fmt.Sprintf("there is no action %s", req.Action)
	}
	if _, ok := parsePrincipal(req.Principal); !ok {
		return fmt.Sprintf("%q is no principal; want arn:<partition>:iam::<account>: and root, user/<name> or role/<name>", req.Principal)
	}
	what, ok := parseResource(req.Resource)
	switch {
	case !ok:
		return fmt.Sprintf("%q is no resource; want *, or the ARN of a key or an alias", req.Resource)
	case actions[row].on&what.kind == 0:
		return fmt.Sprintf("%s does not act on %s; it acts on %s", req.Action, what.kind, actions[row].on)
	case keyPolicy != nil && what.kind != onKey:
		return fmt.Sprintf("%s has no key policy", req.Resource)
	}
	return "a key policy and an identity policy stand in each other's place"
}

// String names a kind of resource, or several.
func (k resourceKind) String() string {
	s := ""
	for _, kind := range []struct {
		bit  resourceKind
		name string
	}{{onKey, "a key"}, {onAlias, "an alias"}, {onNothing, "*"}} {
		if k&kind.bit == 0 {
			continue
		}
		if s != "" {
			s += " or "
		}
		s += kind.name
	}
	return s
}

// advice says what would have to change for a refused request, the nearest change first.
func (e *Explanation) advice(q *query, d Decision) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	who, root := q.who.arn, q.who.accountARN+":root"
	switch d.Reason {
	case ExplicitDeny:
		for _, c := range e.Considered {
			if c.Effect == Denies && c.Applies {
				add("%s denies, which no allow overrides; narrow it or take it away", c.Statement)
			}
		}
	case NoKeyPolicy:
		add("give the key its policy back; without one it refuses everybody")
	case CrossAccountRefused:
		add("call it as a principal of account %s; no policy opens %s to other accounts", q.what.account(), e.Action)
	case NoDelegation:
		e.nearMisses(add)
		add("add %s for %s to the key policy", e.Action, who)
		add("or add it there for %s, which lets %s decide", root, d.Statement)
		e.grantAdvice(q, add)
	case NoIdentityAllow:
		e.nearMisses(add)
		add("add %s on %s to an identity policy of %s", e.Action, e.Resource, who)
		if q.what.account() == q.who.account {
			add("or name %s in a key policy statement that allows %s", who, e.Action)
		}
		e.grantAdvice(q, add)
	default:
		e.nearMisses(add)
		switch {
		case q.what.kind != onKey:
			add("add %s on %s to an identity policy of %s", e.Action, e.Resource, who)
		case q.what.account() != q.who.account:
			add("add %s for %s to the key policy, and on %s to an identity policy of it", e.Action, who, e.Resource)
			e.grantAdvice(q, add)
		default:
			add("add %s for %s to the key policy", e.Action, who)
			add("or add it there for %s, and on %s to an identity policy of %s", root, e.Resource, who)
			e.grantAdvice(q, add)
		}
	}
	return list
}

func (e *Explanation) grantAdvice(q *query, add func(string, ...any)) {
	if row := actions[q.action]; row.grantable && row.name != "CreateGrant" && row.name != "RetireGrant" {
		add("or create a grant with the operation %s for %s", row.name, q.who.arn)
	}
}

// nearMisses names what would allow but for one element.
func (e *Explanation) nearMisses(add func(string, ...any)) {
	for _, c := range e.Considered {
		if c.Effect == Denies || c.Applies {
			continue
		}
		var failed []Element
		for _, el := range c.Elements {
			if !el.Matches {
				failed = append(failed, el)
			}
		}
		if len(failed) == 1 {
			add("%s would apply but for its %s: %s", c.Statement, failed[0].Name, failed[0].Why)
		}
	}
}
