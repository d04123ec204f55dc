package mrk

import (
	"context"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// SignCertificate lets tests write the certificates that a hostile Region, or a later
// version of this package, would.
func SignCertificate(ctx context.Context, issuer, counter Signer, c Certificate) (Certificate, error) {
	if err := c.Sign(ctx, issuer); err != nil || counter == nil {
		return c, err
	}
	return c, c.Countersign(ctx, counter)
}

// SignState lets tests write any state in anybody's name.
func SignState(ctx context.Context, signer Signer, s State) (*State, error) {
	err := s.Sign(ctx, signer)
	return &s, err
}

// SignMember lets tests write any member fact in anybody's name.
func SignMember(ctx context.Context, signer Signer, m Member) (*Member, error) {
	err := m.Sign(ctx, signer)
	return &m, err
}

// SignRequest lets tests write any create request in anybody's name.
func SignRequest(ctx context.Context, signer Signer, c CreateRequest) (CreateRequest, error) {
	err := c.Sign(ctx, signer)
	return c, err
}

// Payloads returns what is signed, for the committed vectors.
func Payloads(c Certificate, s *State, m *Member, r CreateRequest) map[string][]byte {
	return map[string][]byte{"certificate": c.payload(), "state": s.payload(), "member": m.payload(), "create-replica": r.payload()}
}

// ParseStatement parses a fact of any kind, for fuzzing.
func ParseStatement(s statement.Signed) (reencoded []byte, err error) {
	switch s.Purpose {
	case statement.Certificate:
		c, err := parseCertificate(s, nil, nil)
		return c.payload(), err
	case statement.State:
		st, err := parseState(s)
		if err != nil {
			return nil, err
		}
		return st.payload(), nil
	case statement.Member:
		m, err := parseMember(s)
		if err != nil {
			return nil, err
		}
		return m.payload(), nil
	default:
		c, err := ParseCreateRequest(s)
		return c.payload(), err
	}
}

// Force puts approvals into a certificate, before it is signed.
func Force(c Certificate, a Approved) Certificate {
	c.Force(a)
	return c
}

// Proves reports whether the proof leads from the key to the root.
func Proves(p ListProof, root Hash, k ListedKey) bool {
	got, ok := p.root(k)
	return ok && got == root
}

// Proven reports whether rule 5 calls a member active, by the facts as they are now.
func Proven(s *Set, r region.Name) bool { return s.proven(s.state.clone(), s.Entry(r)) }

// StalePermit reports whether the set carries a permit for another epoch than its newest.
func StalePermit(s *Set) bool { return s.permit != Nonce{} && s.permit != s.Epoch().Nonce }

// Approves reports whether the approvals in a certificate that opens a line are for its key
// after the certificate that it follows.
func Approves(c Certificate) bool {
	return c.forced == nil || c.forced.lists(ListedKey{c.Key, c.Parent})
}
