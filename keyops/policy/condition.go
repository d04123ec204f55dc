package policy

import "strings"

// quantifier says which of a request's values have to satisfy a condition.
type quantifier byte

const (
	single quantifier = iota
	forAllValues
	forAnyValue
)

// condition is one key under one operator. All conditions of a statement have to hold.
type condition struct {
	operator *operator
	key      *conditionKey
	name     string // after kms:EncryptionContext:
	quantity quantifier
	ifExists bool
	values   []operand
	path     string // operator and key as the document has them
}

// holds evaluates the condition as AWS documents it. What is wrong with a request counts
// against the caller: a value that cannot be read, a second value of a key that has one, or
// a Context that nobody filled in, satisfies a deny and no allow.
func (c *condition) holds(q *query, deny bool) bool {
	if c.unknown(q) {
		return deny
	}
	present, all, some := false, true, false
	q.each(c.key, c.name, func(have string) {
		present = true
		if c.operator.match == nil {
			return
		}
		if c.satisfiedBy(have, deny) {
			some = true
		} else {
			all = false
		}
	})
	switch {
	case c.operator.match == nil:
		return c.wantsAbsent(!present)
	case !present:
		return c.holdsAbsent()
	case c.quantity == forAnyValue, c.quantity == single && deny:
		return some
	}
	return all
}

// unknown reports whether nobody has said what the request's value is.
func (c *condition) unknown(q *query) bool {
	byPrincipal := c.key.source == fromPrincipalARN || c.key.source == fromPrincipalAccount
	return q.context == nil && !byPrincipal && c.key.on.has(q.action)
}

// holdsAbsent answers for a request without the key.
func (c *condition) holdsAbsent() bool {
	switch {
	case c.ifExists || c.quantity == forAllValues:
		return true
	case c.quantity == forAnyValue:
		return false
	}
	return c.operator.negated
}

// wantsAbsent evaluates Null.
func (c *condition) wantsAbsent(absent bool) bool {
	for i := range c.values {
		if c.values[i].truth == absent {
			return true
		}
	}
	return false
}

func (c *condition) satisfiedBy(have string, deny bool) bool {
	for i := range c.values {
		matches, readable := c.operator.match(&c.values[i], have)
		if !readable {
			return deny
		}
		if matches {
			return !c.operator.negated
		}
	}
	return c.operator.negated
}

// parseOperator takes an operator apart: ForAnyValue:StringLikeIfExists.
func parseOperator(text string) (c condition, ok bool) {
	base := text
	if rest, found := strings.CutPrefix(base, "ForAllValues:"); found {
		base, c.quantity = rest, forAllValues
	} else if rest, found := strings.CutPrefix(base, "ForAnyValue:"); found {
		base, c.quantity = rest, forAnyValue
	}
	base, c.ifExists = strings.CutSuffix(base, "IfExists")
	c.operator = findOperator(base)
	if c.operator == nil || c.operator.match == nil && base != text {
		return c, false // Null asks whether the key exists, so it has no other forms
	}
	return c, true
}

// nearestOperator returns the operator that a misspelt name most resembles.
func nearestOperator(text string) string {
	best, bestDistance := "", 4
	for i := range operators {
		if d := distance(strings.ToLower(text), strings.ToLower(operators[i].name)); d < bestDistance {
			best, bestDistance = operators[i].name, d
		}
	}
	return best
}

func (p *parser) conditions(s *statement, n node) error {
	if !n.isObject() {
		return p.failAt(n, "%s; want an object of operators", n.kind())
	}
	if len(n.members) == 0 {
		return p.failAt(n, "empty; leave it out")
	}
	for _, m := range n.members {
		c, ok := parseOperator(m.name)
		if !ok {
			if best := nearestOperator(m.name); best != "" {
				return p.fail(m.node.path, m.offset, "unknown operator; perhaps %s", best)
			}
			return p.fail(m.node.path, m.offset, "unknown operator; see the list of operators")
		}
		if !m.node.isObject() || len(m.node.members) == 0 {
			return p.failAt(m.node, "want an object of condition keys and their values")
		}
		var seen []condition
		for _, k := range m.node.members {
			c.path = m.name + " " + k.name
			done, err := p.condition(c, k)
			if err != nil {
				return err
			}
			for _, other := range seen {
				if other.key == done.key && strings.EqualFold(other.name, done.name) {
					return p.fail(k.node.path, k.offset, "given twice, since letter case does not count; keep one of them")
				}
			}
			seen = append(seen, done)
		}
		s.conditions = append(s.conditions, seen...)
	}
	return nil
}

// condition reads one key and its values under an operator.
func (p *parser) condition(c condition, k member) (condition, error) {
	fail := func(format string, args ...any) (condition, error) {
		return c, p.fail(k.node.path, k.offset, format, args...)
	}
	var ok bool
	if len(k.name) > maxText || strings.ContainsFunc(k.name, notPrintable) {
		return fail("want at most %d printable ASCII characters", maxText)
	}
	if strings.Contains(k.name, "${") {
		return fail("policy variables are not supported; write the names out")
	}
	if c.key, c.name, ok = findConditionKey(k.name); !ok {
		if best := nearestConditionKey(k.name); best != "" {
			return fail("unknown condition key; perhaps %s", best)
		}
		return fail("unknown condition key; see the list of condition keys")
	}
	if c.operator.takes&c.key.typ == 0 {
		return fail("%s is not for condition keys of type %s; see the list of operators", c.operator.name, c.key.typ)
	}
	if c.key.multi && c.quantity == single && c.operator.match != nil {
		return fail("a request has many values of this key; write ForAllValues:%s or ForAnyValue:%s", c.operator.name, c.operator.name)
	}
	list := []node{k.node}
	if k.node.isList() {
		list = k.node.elems
	}
	if len(list) == 0 {
		return c, p.failAt(k.node, "empty; want at least one value")
	}
	for _, n := range list {
		v, err := p.operand(&c, n)
		if err != nil {
			return c, err
		}
		c.values = append(c.values, v)
	}
	return c, nil
}

func (p *parser) operand(c *condition, n node) (operand, error) {
	text, ok := n.scalar()
	if !ok {
		return operand{}, p.failAt(n, "%s; want a value or a list of values", n.kind())
	}
	if _, quoted := n.value.(string); !quoted && c.operator.takes&textual != 0 && c.operator.match != nil {
		return operand{}, p.failAt(n, `%s; write "%s"`, n.kind(), text)
	}
	if len(text) > maxText || strings.ContainsFunc(text, notLatin) {
		return operand{}, p.failAt(n, "want at most %d bytes of printable Latin characters", maxText)
	}
	if strings.Contains(text, "${") {
		return operand{}, p.failAt(n, "policy variables are not supported; write the values out")
	}
	v, problem := c.operator.compile(text)
	if problem != "" {
		return operand{}, p.failAt(n, "%q: %s", text, problem)
	}
	return v, nil
}

// notLatin finds characters that AWS has not in key policies either.
func notLatin(r rune) bool { return r < ' ' || r > '~' && r < '\u00a0' || r > '\u00ff' }
