package mrk

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Facts is what one Region tells another about a key: signed facts of anybody, in the
// order parents before children. All of it may be missing, late or repeated.
type Facts struct {
	Key          arn.KeyID
	Certificates []Certificate
	State        *State
	Members      []*Member
	Admission    *CreateRequest // proof that the sender is a member, if its receiver may not know
	Earlier      []Earlier      // of epochs that are over, for materials that the state does not list
}

// Marshal returns the one encoding.
func (f Facts) Marshal() []byte {
	var w wire.Writer
	w.Uint(formatVersion)
	w.String(string(f.Key))
	w.Count(len(f.Certificates))
	for _, c := range f.Certificates {
		c.encode(&w)
	}
	w.Bool(f.State != nil)
	if f.State != nil {
		w.Bytes(f.State.signed.Marshal())
	}
	w.Count(len(f.Members))
	for _, m := range f.Members {
		w.Bytes(m.signed.Marshal())
	}
	w.Bool(f.Admission != nil)
	if f.Admission != nil {
		w.Bytes(f.Admission.signed.Marshal())
	}
	w.Count(len(f.Earlier))
	for _, e := range f.Earlier {
		e.encode(&w)
	}
	return w.Out()
}

// ParseFacts reads what Marshal wrote. It verifies nothing: Merge does.
func ParseFacts(b []byte) (Facts, error) {
	if len(b) > maxFacts {
		return Facts{}, fmt.Errorf("parsing facts: %w: %d bytes", wire.ErrMalformed, len(b))
	}
	r := wire.NewReader(b)
	decodeVersion(r)
	f := decodeFacts(r, decodeKeyID(r))
	if err := r.Done(); err != nil {
		return Facts{}, fmt.Errorf("parsing facts: %w", err)
	}
	return f, nil
}

// decodeFacts reads the fields after the key ID, which is key: a fact of another key is
// malformed here.
func decodeFacts(r *wire.Reader, key arn.KeyID) Facts {
	f := Facts{Key: key}
	for range r.Count(MaxCertificates) {
		c := decodeCertificate(r)
		if r.Err() != nil {
			return f
		}
		if c.Key != key {
			r.Fail("certificate of another key")
		}
		f.Certificates = append(f.Certificates, c)
	}
	if r.Bool() {
		if signed := decodeSigned(r); r.Err() == nil {
			st, err := parseState(signed)
			if err != nil {
				r.Fail("%v", err)
			} else if st.Key != key {
				r.Fail("state of another key")
			}
			f.State = st
		}
	}
	for range r.Count(MaxMembers) {
		signed := decodeSigned(r)
		if r.Err() != nil {
			return f
		}
		m, err := parseMember(signed)
		if err != nil {
			r.Fail("%v", err)
			return f
		}
		if m.Key != key {
			r.Fail("member fact of another key")
		}
		f.Members = append(f.Members, m)
	}
	if r.Bool() {
		f.Admission = decodeRequest(r, key)
	}
	for range r.Count(maxEarlier) {
		e := decodeEarlier(r)
		if r.Err() != nil {
			return f
		}
		if e.State.Key != key {
			r.Fail("state of another key")
		}
		f.Earlier = append(f.Earlier, e)
	}
	return f
}
