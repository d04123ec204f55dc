package policy

import "strings"

func (p *parser) action(s *statement, n node, text string) error {
	if s.actions.addPattern(text) {
		if !strings.ContainsAny(text, "*?") {
			s.named.addPattern(text)
		}
		return nil
	}
	if service, _, ok := strings.Cut(text, ":"); text != "*" && (!ok || !strings.EqualFold(service, "kms")) {
		return p.failAt(n, "action %q is of another service; actions here begin with kms:", text)
	}
	if best := nearest(text); best != "" {
		return p.failAt(n, "unknown action %q; perhaps %s", text, best)
	}
	return p.failAt(n, "unknown action %q; see the list of actions", text)
}

func (p *parser) resource(s *statement, n node, text string) error {
	if text == "*" {
		s.resources = append(s.resources, resourcePattern{everything: true})
		return nil
	}
	const want = "want * or arn:<partition>:kms:<region>:<account>:key/<key ID> or ...:alias/<name>"
	parts, ok := splitARN(text)
	if !ok {
		return p.failAt(n, "resource %q has not all parts of an ARN; %s, where * and ? match within one part", text, want)
	}
	if parts[2] != "kms" {
		return p.failAt(n, "resource %q is of another service; %s", text, want)
	}
	// What has another form matches nothing, and a deny that matches nothing is worse than none.
	kind, name, slash := strings.Cut(parts[5], "/")
	wrong := ""
	switch {
	case !isLower(parts[1]):
		wrong = "partition"
	case !isLower(parts[3]):
		wrong = "Region"
	case !isAccount(parts[4]) && !strings.ContainsAny(parts[4], "*?"):
		wrong = "account"
	case !strings.ContainsAny(kind, "*?") && (!slash || kind != "key" && kind != "alias"):
		wrong = "kind"
	case kind == "key" && !isLower(name):
		wrong = "key ID"
	}
	if wrong != "" {
		return p.failAt(n, "resource %q: no such %s; %s", text, wrong, want)
	}
	s.resources = append(s.resources, resourcePattern{parts: parts})
	return nil
}

func (p *parser) principals(n node) (*principals, error) {
	who := &principals{named: map[string]bool{}, accounts: map[string]bool{}}
	add := func(n node, text string) error { return p.principal(who, n, text) }
	if n.value == "*" {
		return who, add(n, "*")
	}
	if !n.isObject() {
		return nil, p.failAt(n, `%s; want "*" or {"AWS": ...}`, n.kind())
	}
	found, err := p.elements(n, "AWS")
	if err != nil {
		return nil, err
	}
	list, ok := found["AWS"]
	if !ok {
		return nil, p.failAt(n, `empty; want {"AWS": ...}`)
	}
	return who, p.each(list, add)
}

func (p *parser) principal(who *principals, n node, text string) error {
	const want = "want an account number, or arn:<partition>:iam::<account>: and root, user/<name> or role/<name>"
	if text == "*" {
		if p.kind == identitiesFile {
			return p.failAt(n, "identity policies cannot be attached to everybody; %s", want)
		}
		who.everyone = true
		return nil
	}
	if isAccount(text) {
		who.accounts[text] = true
		return nil
	}
	if strings.ContainsAny(text, "*?") {
		return p.failAt(n, "principal %q: no wildcards within a principal; %s", text, want)
	}
	if isGroupARN(text) && p.kind == identitiesFile {
		if _, ok := p.groups[text]; !ok {
			return p.failAt(n, "group %q is not in Groups; add it there", text)
		}
		who.named[text] = true
		return nil
	}
	named, ok := parsePrincipal(text)
	if !ok {
		return p.failAt(n, "principal %q; %s", text, want)
	}
	if named.root {
		who.accounts[named.accountARN] = true
	} else {
		who.named[named.arn] = true
	}
	return nil
}

// notPrintable also keeps look-alike characters out of names that people compare by eye.
func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// isLower accepts what partitions, Regions and key IDs, and patterns of them, consist of.
func isLower(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-*?", r))
	})
}
