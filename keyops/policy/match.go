package policy

import (
	"strings"
	"unicode/utf8"
)

// glob reports whether a text matches a pattern in which * stands for any characters, none
// included, and ? for any one. Its time is at most the product of the two lengths: after a
// mismatch only the last star takes one character more.
func glob(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		switch {
		// The star comes first: a text may contain one too, as the Resource of CreateKey does.
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && pattern[p] == '?':
			p, t = p+1, t+width(text[t:])
		case p < len(pattern) && pattern[p] == text[t]:
			p, t = p+1, t+1
		case star >= 0:
			mark += width(text[mark:])
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// width is the number of bytes of the first character.
func width(text string) int {
	if text[0] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRuneInString(text)
	return n
}

// arnParts is an ARN cut at its first five colons: arn, partition, service, Region,
// account, and the rest.
type arnParts [6]string

func splitARN(s string) (parts arnParts, ok bool) {
	for i := range 5 {
		if parts[i], s, ok = strings.Cut(s, ":"); !ok {
			return parts, false
		}
	}
	parts[5] = s
	return parts, parts[0] == "arn"
}

// match compares part by part, so that no wildcard reaches over a colon into the next part.
func (pattern *arnParts) match(have *arnParts) bool {
	// From the end, since the parts before it are mostly equal.
	for i := len(pattern) - 1; i > 0; i-- {
		if !glob(pattern[i], have[i]) {
			return false
		}
	}
	return true
}

// resourcePattern is one entry of a Resource element: everything, or an ARN with
// wildcards.
type resourcePattern struct {
	everything bool
	parts      arnParts
}

func (r *resourcePattern) match(what *resource) bool {
	return r.everything || what.kind != onNothing && r.parts.match(&what.parts)
}

// resource is what a request acts on.
type resource struct {
	kind  resourceKind
	parts arnParts
}

func (r *resource) account() string { return r.parts[4] }

func parseResource(s string) (resource, bool) {
	if s == "*" {
		return resource{kind: onNothing}, true
	}
	parts, ok := splitARN(s)
	if !ok || parts[2] != "kms" || !isAccount(parts[4]) {
		return resource{}, false
	}
	switch {
	case strings.HasPrefix(parts[5], "key/"):
		return resource{onKey, parts}, true
	case strings.HasPrefix(parts[5], "alias/"):
		return resource{onAlias, parts}, true
	}
	return resource{}, false
}

// principal is who asks.
type principal struct {
	arn        string
	accountARN string // arn:<partition>:iam::<account>, the root's ARN without :root
	account    string
	root       bool
}

func parsePrincipal(s string) (principal, bool) {
	parts, ok := splitARN(s)
	if !ok || !isPartition(parts[1]) || parts[2] != "iam" || parts[3] != "" || !isAccount(parts[4]) || !isPrincipalName(parts[5]) {
		return principal{}, false
	}
	return principal{
		arn:        s,
		accountARN: s[:len(s)-len(parts[5])-1],
		account:    parts[4],
		root:       parts[5] == "root",
	}, true
}

// isPrincipalName accepts root, user/<name> and role/<name>.
func isPrincipalName(s string) bool {
	if s == "root" {
		return true
	}
	kind, name, _ := strings.Cut(s, "/")
	if kind != "user" && kind != "role" || name == "" || len(name) > 128 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+=,.@_/-", c) >= 0) {
			return false
		}
	}
	return true
}

// isPartition accepts a lower-case word such as aws, aws-cn.
func isPartition(s string) bool {
	if s == "" || len(s) > 32 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

func isAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// principals is a Principal element, compiled.
type principals struct {
	everyone bool
	named    map[string]bool // ARNs of users and roles
	accounts map[string]bool // account numbers, and account ARNs as principal.accountARN
}

// reach says how a statement reaches a principal. A statement that names the account says
// that the account may decide; for the account's root that is the same as being named.
type reach int

const (
	notReached reach = iota
	throughAccount
	byName
)

func (p *principals) reach(who *principal) reach {
	if p.everyone || p.named[who.arn] {
		return byName
	}
	if p.accounts[who.accountARN] || p.accounts[who.account] {
		if who.root {
			return byName
		}
		return throughAccount
	}
	return notReached
}

// spares reports whether a deny for everybody but these leaves a principal out. As in AWS
// the principal and its account both have to be named: naming the account alone spares
// nobody but its root, and naming the principal alone leaves it denied with its account.
func (p *principals) spares(who *principal) bool {
	account := p.accounts[who.accountARN] || p.accounts[who.account]
	return p.everyone || account && (who.root || p.named[who.arn])
}
