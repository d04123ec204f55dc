package policy

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Bounds of grant constraints; AWS's.
const (
	MaxConstraintPairs = 8   // pairs of a grant constraint
	MaxConstraintValue = 384 // characters of a value in a grant constraint
)

// ErrInvalidGrant is wrapped by the errors of Grant.Check.
var ErrInvalidGrant = errors.New("invalid grant")

// Grant allows one principal some operations on the key that it is about. A grant never
// denies, and an explicit deny wins over it.
type Grant struct {
	ID         string
	Grantee    string   // the principal's ARN
	Operations []string // such as Decrypt, without kms:; see GrantableOperations

	// At most one of the two is set. An operation with an encryption context is allowed only
	// if its context has all pairs of Subset, or is Equals; DescribeKey and RetireGrant have
	// none and are not constrained.
	EncryptionContextSubset map[string]string
	EncryptionContextEquals map[string]string
}

// GrantableOperations returns the operations that a grant can allow, sorted.
func GrantableOperations() []string {
	var names []string
	for _, a := range actions {
		if a.grantable {
			names = append(names, a.name)
		}
	}
	return names
}

// Check says whether a grant can exist, for whoever stores it.
func (g *Grant) Check() error {
	if _, ok := parsePrincipal(g.Grantee); !ok {
		return fmt.Errorf("%w: grantee is no principal's ARN", ErrInvalidGrant)
	}
	if len(g.Operations) == 0 {
		return fmt.Errorf("%w: no operations", ErrInvalidGrant)
	}
	pairs := g.EncryptionContextSubset
	if len(pairs) == 0 {
		pairs = g.EncryptionContextEquals
	} else if len(g.EncryptionContextEquals) > 0 {
		return fmt.Errorf("%w: both EncryptionContextSubset and EncryptionContextEquals", ErrInvalidGrant)
	}
	if len(pairs) > MaxConstraintPairs {
		return fmt.Errorf("%w: constraint has %d pairs, at most %d are allowed", ErrInvalidGrant, len(pairs), MaxConstraintPairs)
	}
	for key, value := range pairs {
		if key == "" || !utf8.ValidString(key) || !utf8.ValidString(value) || utf8.RuneCountInString(value) > MaxConstraintValue {
			return fmt.Errorf("%w: constraint has an empty key, no UTF-8, or a value of more than %d characters", ErrInvalidGrant, MaxConstraintValue)
		}
	}
	for i, op := range g.Operations {
		row, ok := actionIndex["kms:"+op]
		switch {
		case !ok || !actions[row].grantable:
			return fmt.Errorf("%w: operation %.64q cannot be granted", ErrInvalidGrant, op)
		case slices.Contains(g.Operations[:i], op):
			return fmt.Errorf("%w: operation %s given twice", ErrInvalidGrant, op)
		case len(pairs) > 0 && !inContext.has(row) && op != "DescribeKey":
			return fmt.Errorf("%w: operation %s has no encryption context, so it cannot be constrained by one", ErrInvalidGrant, op)
		}
	}
	return nil
}

// allows decides whether the grant allows a request on its key.
func (g *Grant) allows(q *query) bool {
	return q.who.arn == g.Grantee && actions[q.action].grantable && slices.Contains(g.Operations, actions[q.action].name) && g.constrains(q) == ""
}

// constrains returns what about a request the grant's constraint does not allow, if anything.
func (g *Grant) constrains(q *query) string {
	equals, subset := g.EncryptionContextEquals, g.EncryptionContextSubset
	switch actions[q.action].name {
	case "DescribeKey", "RetireGrant":
		return ""
	case "CreateGrant":
		// A grantee passes on at most what it has: operations of its own grant, under a
		// constraint at least as strict. The encryption context is the new grant's constraint.
		if !g.covers(q.context[GrantOperations]) {
			return "the new grant has operations that this one lacks"
		}
		if len(equals) > 0 && !slices.Contains(q.context[GrantConstraintType], "EncryptionContextEquals") {
			return "the new grant has a weaker constraint"
		}
	}
	if len(equals) > 0 && len(q.encryption) != len(equals) || !contains(q.encryption, equals) {
		return "the encryption context is not that of EncryptionContextEquals"
	}
	if !contains(q.encryption, subset) {
		return "the encryption context lacks a pair of EncryptionContextSubset"
	}
	return ""
}

func (g *Grant) covers(operations []string) bool {
	for _, op := range operations {
		if !slices.Contains(g.Operations, op) {
			return false
		}
	}
	return len(operations) > 0
}

// contains reports whether all pairs are in a context, byte for byte.
func contains(context, pairs map[string]string) bool {
	for key, value := range pairs {
		if have, ok := context[key]; !ok || have != value {
			return false
		}
	}
	return true
}
