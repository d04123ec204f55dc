package policy

import (
	"maps"
	"slices"
	"strings"
)

// Identities holds the identity policies of a deployment's principals, from one document
// whose statements say in Principal to whom they are attached: to users and roles by ARN,
// to a group that the document defines, or to a whole account, its root included, by its
// number or its root's ARN. In the zero value nothing is attached to anybody.
type Identities struct {
	// attached maps a principal's ARN, an account's ARN or an account's number to all
	// policies that are in force for it, those of its groups and its account included.
	attached map[string][]*Policy
	groups   map[string][]string // member's ARN → group ARNs, sorted

	// For Lint.
	statements []*statement
	unused     []Finding
}

// ParseIdentities compiles an identities file. Its errors are *Error and wrap ErrMalformed.
func ParseIdentities(data []byte) (*Identities, error) {
	file, p, err := parse(data, identitiesFile, MaxIdentitiesSize, MaxIdentities)
	if err != nil {
		return nil, err
	}
	own := map[string]*Policy{}
	attach := func(to string, s *statement) {
		if own[to] == nil {
			own[to] = &Policy{kind: IdentityPolicy, name: file.name}
		}
		own[to].statements = append(own[to].statements, s)
	}
	for _, s := range file.statements {
		for to := range s.who.named {
			attach(to, s)
		}
		for to := range s.who.accounts {
			attach(to, s)
		}
	}
	ids := &Identities{
		attached:   make(map[string][]*Policy, len(own)),
		groups:     map[string][]string{},
		statements: file.statements,
	}
	for _, group := range slices.Sorted(maps.Keys(p.groups)) {
		members := p.groups[group]
		if own[group] == nil {
			ids.unused = append(ids.unused, Finding{Rule: "unused-group", Problem: "no statement is attached to " + group})
		}
		for _, member := range members {
			ids.groups[member] = append(ids.groups[member], group)
		}
	}
	for member := range ids.groups {
		if own[member] == nil {
			own[member] = nil // whoever is in a group has an entry, even without policies of its own
		}
	}
	for to := range own {
		if isGroupARN(to) {
			continue
		}
		keys := append([]string{to}, ids.groups[to]...)
		if who, ok := parsePrincipal(to); ok {
			keys = append(keys, who.accountARN, who.account)
		} else if who, ok := parsePrincipal(to + ":root"); ok {
			keys = append(keys, who.account)
		}
		for _, key := range keys {
			if p := own[key]; p != nil {
				ids.attached[to] = append(ids.attached[to], p)
			}
		}
		ids.attached[to] = slices.Clip(ids.attached[to])
	}
	return ids, nil
}

// readGroups reads {"<group ARN>": [<member ARNs>], ...}. Groups do not contain groups.
func (p *parser) readGroups(n node) error {
	if !n.isObject() {
		return p.failAt(n, "%s; want an object of groups and their members", n.kind())
	}
	p.groups = map[string][]string{}
	for _, m := range n.members {
		if !isGroupARN(m.name) {
			return p.fail(m.node.path, m.offset, "want arn:<partition>:iam::<account>:group/<name>")
		}
		group, _ := splitARN(m.name)
		p.groups[m.name] = []string{}
		if m.node.isList() && len(m.node.elems) == 0 {
			continue // nobody is left in it
		}
		err := p.each(m.node, func(n node, text string) error {
			member, ok := parsePrincipal(text)
			switch {
			case !ok || member.root:
				return p.failAt(n, "member %q; want arn:<partition>:iam::<account>: and user/<name> or role/<name>", text)
			case member.account != group[4] || !strings.HasPrefix(text, "arn:"+group[1]+":"):
				return p.failAt(n, "member %q is of another account than its group", text)
			case slices.Contains(p.groups[m.name], text):
				return p.failAt(n, "member %q given twice; keep one of them", text)
			}
			p.groups[m.name] = append(p.groups[m.name], text)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isGroupARN accepts arn:<partition>:iam::<account>:group/<name>, with the names of users.
func isGroupARN(s string) bool {
	parts, ok := splitARN(s)
	if !ok {
		return false
	}
	name, ok := strings.CutPrefix(parts[5], "group/")
	return ok && isPartition(parts[1]) && parts[2] == "iam" && parts[3] == "" && isAccount(parts[4]) && isPrincipalName("user/"+name)
}

// Groups returns the ARNs of the groups that a principal is in, sorted. The result is shared
// and must not be changed.
func (ids *Identities) Groups(principalARN string) []string { return ids.groups[principalARN] }

// For returns the policies that are attached to a principal, for Decide. The result is
// shared and must not be changed.
func (ids *Identities) For(principalARN string) []*Policy {
	who, ok := parsePrincipal(principalARN)
	if !ok {
		return nil
	}
	for _, key := range [...]string{who.arn, who.accountARN, who.account} {
		if policies, ok := ids.attached[key]; ok {
			return policies
		}
	}
	return nil
}
