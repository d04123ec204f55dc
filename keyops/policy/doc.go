// Package policy decides who may do what, by documents in the AWS policy grammar.
//
// Parse compiles a document once; Decide evaluates compiled documents against one request.
// A call on a key is decided by that key's policy, by the caller's identity policies where
// the key policy trusts the caller's account, and by grants; a call without a key by
// identity policies alone. An explicit deny wins over everything; what nothing allows is
// refused. Explain says why, and Lint says what in a document is probably a mistake.
//
// What is not understood is refused when it is parsed, never ignored: an unknown element,
// a misspelt action or a condition that nobody evaluates would otherwise widen a policy in
// silence. Documents come from administrators and are bounded in size and depth. What a
// request leaves in doubt counts against the caller.
//
// The package knows nothing else of the product. A *Policy never changes after it was
// parsed; all functions are safe for concurrent use. Decide does not allocate.
package policy

import (
	"errors"
	"fmt"
)

// Kind says what a document is attached to, and so which elements it has.
type Kind int

// Kinds of documents.
const (
	KeyPolicy      Kind = iota + 1 // attached to a key; each statement has a Principal
	IdentityPolicy                 // attached to a principal; no statement has a Principal

	identitiesFile // the identity policies of many principals; see ParseIdentities
)

// String returns the words that messages use.
func (k Kind) String() string {
	switch k {
	case KeyPolicy:
		return "key policy"
	case IdentityPolicy:
		return "identity policy"
	case identitiesFile:
		return "identity policies"
	}
	return fmt.Sprintf("policy kind %d", int(k))
}

// Bounds of documents. The size of a key policy is AWS's quota.
const (
	MaxPolicySize     = 32 << 10 // bytes of a key policy or an identity policy
	MaxStatements     = 100      // statements of a key policy or an identity policy
	MaxIdentitiesSize = 1 << 20  // bytes of an identities file
	MaxIdentities     = 4096     // statements of an identities file

	maxDepth = 8    // nested objects and lists; the grammar needs seven
	maxText  = 2048 // bytes of one string
)

// ErrMalformed is wrapped by every error of parsing; it is AWS's MalformedPolicyDocument.
var ErrMalformed = errors.New("malformed policy document")

// Error says where a document is wrong and what to do.
type Error struct {
	Path         string // such as Statement[2].Action[0]; empty for the document as a whole
	Line, Column int    // counted from 1, in characters; 0 if there is no position
	Problem      string
}

// Error returns position, path and problem in one line.
func (e *Error) Error() string {
	s := ErrMalformed.Error()
	if e.Line > 0 {
		s += fmt.Sprintf(": line %d, column %d", e.Line, e.Column)
	}
	if e.Path != "" {
		s += ": " + e.Path
	}
	return s + ": " + e.Problem
}

// Unwrap returns ErrMalformed.
func (e *Error) Unwrap() error { return ErrMalformed }
