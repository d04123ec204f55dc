package policy

import "fmt"

// Request is one question: may this principal take this action on this resource?
type Request struct {
	Principal string // the caller's ARN
	Action    string // such as kms:Encrypt, spelt as in Actions
	Resource  string // a key's or an alias's ARN, or * for a call on neither

	// EncryptionContext is that of the call; for CreateGrant and RetireGrant it is the pairs
	// of the grant's constraint. Conditions on kms:EncryptionContext:<name> and
	// kms:EncryptionContextKeys read it, and so do the constraints of grants.
	EncryptionContext map[string]string

	// Context holds the values of the other condition keys, by the constants of this
	// package, which say what belongs in. Only aws:PrincipalArn, aws:PrincipalAccount and
	// kms:CallerAccount do not, since Principal says them. A key that the action does not
	// carry is not looked at. Nil means that nobody has filled in anything: then conditions
	// count against the caller, those on the encryption context too, so that what is allowed
	// is allowed whatever the values are.
	Context map[string][]string
}

// Statement names a statement of a document.
type Statement struct {
	Policy string // the document's kind and Id; empty if no statement decided
	Index  int    // counted from 0, as in Statement[0]
	Sid    string
}

// grantPolicy is the Policy of a Statement that is no statement but a grant, whose ID is its
// Sid.
const grantPolicy = "grant"

// String returns document, index and Sid, or "no statement".
func (s Statement) String() string {
	if s.Policy == "" {
		return "no statement"
	}
	if s.Policy == grantPolicy {
		return fmt.Sprintf("grant %q", s.Sid)
	}
	if s.Sid == "" {
		return fmt.Sprintf("%s, Statement[%d]", s.Policy, s.Index)
	}
	return fmt.Sprintf("%s, Statement[%d] %q", s.Policy, s.Index, s.Sid)
}

// Reason says what a decision rests on.
type Reason int

// Reasons of decisions.
const (
	InvalidRequest      Reason = iota // the request names no known action, principal or resource, or ones that do not fit
	ExplicitDeny                      // a statement denies
	KeyPolicyAllow                    // the key policy names the principal
	IdentityAllow                     // an identity policy allows, where it is asked
	CrossAccountAllow                 // the key policy and an identity policy both allow a foreign principal
	RootAllow                         // the account's own root, on a call without a key
	NoKeyPolicy                       // the key has no policy; that never means a default one
	NoAllow                           // nothing allows
	NoDelegation                      // an identity policy allows, but the key policy does not trust the account
	NoIdentityAllow                   // the key policy trusts the account, but no identity policy allows
	CrossAccountRefused               // the action is never open to other accounts
	GrantAllow                        // a grant allows
)

var reasons = [...]struct{ name, missing string }{
	InvalidRequest:      {"InvalidRequest", "a request that names a known action and its kind of resource"},
	ExplicitDeny:        {"ExplicitDeny", "a deny statement matches; no allow overrides it"},
	KeyPolicyAllow:      {"KeyPolicyAllow", ""},
	IdentityAllow:       {"IdentityAllow", ""},
	CrossAccountAllow:   {"CrossAccountAllow", ""},
	RootAllow:           {"RootAllow", ""},
	NoKeyPolicy:         {"NoKeyPolicy", "the key's policy"},
	NoAllow:             {"NoAllow", "an allow for this principal, action and resource"},
	NoDelegation:        {"NoDelegation", "a key policy statement that allows the action to the principal or to its account"},
	NoIdentityAllow:     {"NoIdentityAllow", "an identity policy of the principal that allows the action on this resource"},
	CrossAccountRefused: {"CrossAccountRefused", "a principal of the account that owns the resource"},
	GrantAllow:          {"GrantAllow", ""},
}

// String returns the reason's name.
func (r Reason) String() string {
	if r < 0 || int(r) >= len(reasons) {
		return fmt.Sprintf("Reason(%d)", int(r))
	}
	return reasons[r].name
}

// Decision is the answer to a Request.
type Decision struct {
	Allowed   bool
	Reason    Reason
	Statement Statement // the one that decided, if one did
	Missing   string    // what a refused principal lacks
}

func refuse(r Reason, s *statement) Decision {
	d := Decision{Reason: r, Missing: reasons[r].missing}
	if s != nil {
		d.Statement = s.ref
	}
	return d
}

func allow(r Reason, s *statement) Decision {
	d := Decision{Allowed: true, Reason: r}
	if s != nil {
		d.Statement = s.ref
	}
	return d
}

// Decide answers a request. keyPolicy is that of the key, and nil for a call without a key
// or on an alias; identity are the policies attached to the principal; grants are those on
// the key, for whomever, and for RetireGrant only the grant that is to be retired.
func Decide(req Request, keyPolicy *Policy, identity []*Policy, grants ...Grant) Decision {
	q, ok := newQuery(req)
	if !ok || keyPolicy != nil && (keyPolicy.kind != KeyPolicy || q.what.kind != onKey) {
		return refuse(InvalidRequest, nil)
	}
	var byKey, byIdentity findings
	if keyPolicy != nil {
		byKey.scan(&q, keyPolicy)
	}
	for _, p := range identity {
		if p.kind != IdentityPolicy {
			return refuse(InvalidRequest, nil)
		}
		byIdentity.scan(&q, p)
	}
	if byKey.deny != nil {
		return refuse(ExplicitDeny, byKey.deny)
	}
	if byIdentity.deny != nil {
		return refuse(ExplicitDeny, byIdentity.deny)
	}
	if q.what.kind == onKey && keyPolicy == nil {
		return refuse(NoKeyPolicy, nil)
	}
	foreign := q.what.kind != onNothing && q.what.account() != q.who.account
	if foreign && !actions[q.action].crossAccount {
		return refuse(CrossAccountRefused, nil)
	}
	var d Decision
	switch {
	case q.what.kind != onKey:
		return decideByIdentity(&q, &byIdentity)
	case foreign:
		d = decideForeign(&q, &byKey, &byIdentity)
	default:
		d = decideOwn(&byKey, &byIdentity)
	}
	if d.Allowed {
		return d
	}
	for i := range grants {
		if grants[i].allows(&q) {
			return Decision{Allowed: true, Reason: GrantAllow, Statement: Statement{grantPolicy, i, grants[i].ID}}
		}
	}
	return d
}

// decideByIdentity is for calls without a key: there is no key policy to ask. The account's
// root may do everything in its account, as in AWS, or nobody could begin.
func decideByIdentity(q *query, byIdentity *findings) Decision {
	switch {
	case byIdentity.named != nil:
		return allow(IdentityAllow, byIdentity.named)
	case q.who.root:
		return allow(RootAllow, nil)
	}
	return refuse(NoAllow, nil)
}

// decideOwn is for a key of the principal's own account: the key policy alone may allow, or
// leave it to the account's identity policies.
func decideOwn(byKey, byIdentity *findings) Decision {
	switch {
	case byKey.named != nil:
		return allow(KeyPolicyAllow, byKey.named)
	case byKey.account != nil && byIdentity.named != nil:
		return allow(IdentityAllow, byIdentity.named)
	case byKey.account != nil:
		return refuse(NoIdentityAllow, byKey.account)
	case byIdentity.named != nil:
		return refuse(NoDelegation, byIdentity.named)
	}
	return refuse(NoAllow, nil)
}

// decideForeign is for a key of another account: the owner's key policy must allow, and the
// principal's account must let it go there.
func decideForeign(q *query, byKey, byIdentity *findings) Decision {
	byOwner := byKey.named
	if byOwner == nil {
		byOwner = byKey.account
	}
	switch {
	case byOwner != nil && (byIdentity.named != nil || q.who.root):
		return allow(CrossAccountAllow, byOwner)
	case byOwner != nil:
		return refuse(NoIdentityAllow, byOwner)
	case byIdentity.named != nil:
		return refuse(NoDelegation, byIdentity.named)
	}
	return refuse(NoAllow, nil)
}
