package policy

import (
	"fmt"
	"slices"
	"strings"
)

// version is the only policy language that is understood. The older one differs in policy
// variables, which are not.
const version = "2012-10-17"

// Policy is a compiled document.
type Policy struct {
	kind       Kind
	name       string
	statements []*statement
}

// statement is one compiled statement. Decisions point to it.
type statement struct {
	ref         Statement
	deny        bool
	who         *principals // nil in an identity policy
	notWho      bool        // who is NotPrincipal; denies only
	actions     actionSet
	named       actionSet // those of actions that are written out, without wildcards
	notAction   bool      // actions was written as NotAction
	resources   []resourcePattern
	notResource bool
	conditions  []condition
}

// Parse compiles one document. Its errors are *Error and wrap ErrMalformed.
func Parse(data []byte, kind Kind) (*Policy, error) {
	if kind != KeyPolicy && kind != IdentityPolicy {
		return nil, &Error{Problem: fmt.Sprintf("%s cannot be parsed by itself", kind)}
	}
	policy, _, err := parse(data, kind, MaxPolicySize, MaxStatements)
	return policy, err
}

func parse(data []byte, kind Kind, maxSize, maxStatements int) (*Policy, *parser, error) {
	if len(data) > maxSize {
		return nil, nil, &Error{Problem: fmt.Sprintf("%d bytes; %s has at most %d", len(data), kind, maxSize)}
	}
	p := &parser{document: document{data: data}, kind: kind, maxStatements: maxStatements}
	root, err := p.read()
	if err != nil {
		return nil, nil, err
	}
	policy, err := p.policy(root)
	return policy, p, err
}

type parser struct {
	document
	kind          Kind
	maxStatements int
	groups        map[string][]string // of an identities file: group ARN → members' ARNs
}

func (p *parser) failAt(n node, format string, args ...any) error {
	return p.fail(n.path, n.offset, format, args...)
}

// elements maps the names of an object's members to their values, after refusing every name
// that is not allowed there.
func (p *parser) elements(n node, allowed ...string) (map[string]node, error) {
	if !n.isObject() {
		return nil, p.failAt(n, "%s; want an object", n.kind())
	}
	found := make(map[string]node, len(n.members))
	for _, m := range n.members {
		if !slices.Contains(allowed, m.name) {
			return nil, p.fail(m.node.path, m.offset, "%s", p.refusal(m.name, allowed))
		}
		found[m.name] = m.node
	}
	return found, nil
}

// refusal says why an element is not allowed and what to do instead.
func (p *parser) refusal(name string, allowed []string) string {
	switch name {
	case "Principal", "NotPrincipal":
		if p.kind == IdentityPolicy {
			return "an identity policy has none, since it is attached to its principal; leave it out"
		}
		if p.kind == identitiesFile {
			return "identity policies are attached by name; list them in Principal"
		}
	case "Service", "Federated", "CanonicalUser":
		return "not supported; name principals under AWS"
	}
	for _, a := range allowed {
		if strings.EqualFold(a, name) {
			return "unknown element; write " + a
		}
	}
	return "unknown element; there are " + strings.Join(allowed, ", ")
}

func (p *parser) policy(root node) (*Policy, error) {
	allowed := []string{"Version", "Id", "Statement"}
	if p.kind == identitiesFile {
		allowed = append(allowed, "Groups")
	}
	found, err := p.elements(root, allowed...)
	if err != nil {
		return nil, err
	}
	if groups, ok := found["Groups"]; ok {
		if err := p.readGroups(groups); err != nil {
			return nil, err
		}
	}
	v, ok := found["Version"]
	if !ok {
		return nil, p.failAt(root, `Version is missing; add "Version": "%s"`, version)
	}
	if v.value != version {
		return nil, p.failAt(v, `unknown version; write "%s"`, version)
	}
	result := &Policy{kind: p.kind, name: p.kind.String()}
	if id, ok := found["Id"]; ok {
		text, err := p.label(id)
		if err != nil {
			return nil, err
		}
		result.name += " " + text
	}
	list, ok := found["Statement"]
	if !ok {
		return nil, p.failAt(root, "Statement is missing; a policy has at least one")
	}
	if list.isObject() {
		list = node{path: list.path, offset: list.offset, elems: []node{list}}
	} else if !list.isList() {
		return nil, p.failAt(list, "%s; want an object or a list of objects", list.kind())
	}
	if len(list.elems) == 0 {
		return nil, p.failAt(list, "empty; a policy has at least one statement")
	}
	if len(list.elems) > p.maxStatements {
		return nil, p.failAt(list, "%d statements; %s has at most %d", len(list.elems), p.kind, p.maxStatements)
	}
	sids := map[string]bool{}
	for i, n := range list.elems {
		s, err := p.statement(n, Statement{Policy: result.name, Index: i})
		if err != nil {
			return nil, err
		}
		if s.ref.Sid != "" && sids[s.ref.Sid] {
			return nil, p.failAt(n, "Sid %q given twice; decisions name statements by it", s.ref.Sid)
		}
		sids[s.ref.Sid] = true
		result.statements = append(result.statements, s)
	}
	return result, nil
}

func (p *parser) statement(n node, ref Statement) (*statement, error) {
	allowed := []string{"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
	switch p.kind {
	case IdentityPolicy:
		allowed = slices.Delete(allowed, 2, 4)
	case identitiesFile:
		allowed = slices.Delete(allowed, 3, 4)
	}
	found, err := p.elements(n, allowed...)
	if err != nil {
		return nil, err
	}
	s := &statement{ref: ref}
	if sid, ok := found["Sid"]; ok {
		if s.ref.Sid, err = p.label(sid); err != nil {
			return nil, err
		}
	}
	effect, ok := found["Effect"]
	if !ok {
		return nil, p.failAt(n, "Effect is missing")
	}
	switch effect.value {
	case "Allow":
	case "Deny":
		s.deny = true
	default:
		return nil, p.failAt(effect, "want Allow or Deny")
	}
	if p.kind != IdentityPolicy {
		who, not, err := p.either(n, found, "Principal")
		if err != nil {
			return nil, err
		}
		// AWS does not support it either: it would let in everybody who is yet to come.
		if not && !s.deny {
			return nil, p.failAt(who, `not with "Effect": "Allow"; say in Principal who is allowed`)
		}
		s.notWho = not
		if s.who, err = p.principals(who); err != nil {
			return nil, err
		}
	}
	list, not, err := p.either(n, found, "Action")
	if err != nil {
		return nil, err
	}
	if err := p.each(list, func(n node, text string) error { return p.action(s, n, text) }); err != nil {
		return nil, err
	}
	if s.notAction = not; not {
		s.actions, s.named = s.actions.others(), actionSet{}
	}
	list, not, err = p.either(n, found, "Resource")
	if err != nil {
		return nil, err
	}
	s.notResource = not
	if err := p.each(list, func(n node, text string) error { return p.resource(s, n, text) }); err != nil {
		return nil, err
	}
	if c, ok := found["Condition"]; ok {
		err = p.conditions(s, c)
	}
	return s, err
}

// either returns the one of an element and its Not form that the statement has.
func (p *parser) either(n node, found map[string]node, name string) (value node, not bool, err error) {
	value, plain := found[name]
	negated, not := found["Not"+name]
	switch {
	case plain && not:
		return value, not, p.failAt(negated, "given together with %s; keep one of them", name)
	case not:
		return negated, true, nil
	case plain:
		return value, false, nil
	}
	return value, false, p.failAt(n, "%s is missing", name)
}

// each calls do for a string, or for every string of a list that is not empty.
func (p *parser) each(n node, do func(n node, text string) error) error {
	list := []node{n}
	if n.isList() {
		list = n.elems
	}
	if len(list) == 0 {
		return p.failAt(n, "empty; want at least one entry")
	}
	for _, entry := range list {
		text, ok := entry.value.(string)
		if !ok {
			return p.failAt(entry, "%s; want a string or a list of strings", entry.kind())
		}
		if text == "" || len(text) > maxText || strings.ContainsFunc(text, notPrintable) {
			return p.failAt(entry, "want 1 to %d printable ASCII characters", maxText)
		}
		if strings.Contains(text, "${") {
			return p.failAt(entry, "policy variables are not supported; write the names out")
		}
		if err := do(entry, text); err != nil {
			return err
		}
	}
	return nil
}

// label reads an Id or a Sid.
func (p *parser) label(n node) (string, error) {
	text, ok := n.value.(string)
	if !ok || text == "" || len(text) > 128 || strings.ContainsFunc(text, notPrintable) {
		return "", p.failAt(n, "want 1 to 128 printable ASCII characters")
	}
	return text, nil
}
