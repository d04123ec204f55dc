package mrk

import (
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Marshal returns the one encoding of the set, for this Region's own store.
func (s *Set) Marshal() []byte {
	var w wire.Writer
	facts := s.Facts(Hash{})
	facts.Admission = nil // written below
	facts.Earlier = s.earlier
	w.Bytes(facts.Marshal())
	w.String(string(s.self.Region))
	w.String(string(s.self.Instance))
	w.Bytes(s.permit[:])
	w.Uint(s.incarnation)
	w.Bool(s.told)
	w.Uint(s.floor)
	s.spent.encode(&w)
	w.Count(len(s.requests))
	for _, r := range slices.Sorted(maps.Keys(s.requests)) {
		w.Bytes(s.requests[r].signed.Marshal())
	}
	w.Count(len(s.known))
	for _, id := range slices.SortedFunc(maps.Keys(s.known), compareIDs) {
		s.known[id].encode(&w)
	}
	w.Count(len(s.admitted))
	for _, r := range slices.Sorted(maps.Keys(s.admitted)) {
		w.String(string(r))
		w.Uint(s.admitted[r])
	}
	w.Bool(s.admission != nil)
	if s.admission != nil {
		w.Bytes(s.admission.signed.Marshal())
	}
	w.Bool(s.frozen != nil)
	if f := s.frozen; f != nil {
		w.String(string(f.Cause))
		w.String(string(f.Writer))
		f.Epoch.encodeOptional(&w)
		w.Uint(f.Incarnation)
		w.Uint(f.Number)
		w.Bytes(f.Evidence)
	}
	w.Bool(s.sealed != nil)
	if s.sealed != nil {
		s.sealed.encode(&w)
		s.by.encode(&w)
	}
	w.Bool(s.offer != nil)
	if s.offer != nil {
		w.Bytes(s.offer.Marshal())
	}
	w.Bytes(s.refused[:])
	w.String(s.refusedFor)
	encodeOptionalMaterial(&w, s.alone)
	w.Bool(s.destroying)
	return w.Out()
}

// Unmarshal reads what Marshal wrote. The bytes come from this Region's own sealed row, so
// signatures are not verified again.
func Unmarshal(b []byte) (*Set, error) {
	r := wire.NewReader(b)
	f, err := ParseFacts(r.Bytes(maxFacts))
	if err != nil && r.Err() == nil {
		return nil, err
	}
	s := newSet(Self{decodeRegion(r), decodeInstance(r)}, f.Key)
	s.chain, s.state, s.earlier = f.Certificates, f.State, f.Earlier
	for _, m := range f.Members {
		s.members[m.Region] = m
	}
	r.Fixed(s.permit[:])
	s.incarnation = r.Uint()
	s.told = r.Bool()
	s.floor = r.Uint()
	s.spent = decodeCounts(r)
	decodeRequests(r, s.key, s.requests)
	decodeKnown(r, s.known)
	for range r.Count(MaxMembers) {
		s.admitted[decodeRegion(r)] = r.Uint()
	}
	if r.Bool() {
		s.admission = decodeRequest(r, s.key)
	}
	if r.Bool() {
		s.frozen = decodeConflict(r)
	}
	if r.Bool() {
		if c := decodeCertificate(r); r.Err() == nil {
			s.sealed = &c
		}
		s.by = decodeClaim(r)
	}
	if r.Bool() {
		s.offer = decodeOffer(r)
	}
	r.Fixed(s.refused[:])
	s.refusedFor = r.String(maxText)
	s.alone = decodeOptionalMaterial(r)
	s.destroying = r.Bool()
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("parsing set: %w", err)
	}
	return s, nil
}

func decodeRequests(r *wire.Reader, key arn.KeyID, into map[region.Name]CreateRequest) {
	for range r.Count(MaxMembers) {
		req := decodeRequest(r, key)
		if req == nil {
			return
		}
		into[req.Destination] = *req
	}
}

// decodeRequest returns nil after an error.
func decodeRequest(r *wire.Reader, key arn.KeyID) *CreateRequest {
	signed := decodeSigned(r)
	if r.Err() != nil {
		return nil
	}
	req, err := ParseCreateRequest(signed)
	if err != nil {
		r.Fail("%v", err)
		return nil
	}
	if req.Key != key {
		r.Fail("create request of another key")
		return nil
	}
	return &req
}

func decodeKnown(r *wire.Reader, into map[material.ID]Listed) {
	for range r.Count(2 * MaxMaterials) {
		m := decodeListed(r)
		if r.Err() != nil {
			return
		}
		into[m.ID] = m
	}
}

func decodeConflict(r *wire.Reader) *Conflict {
	return &Conflict{
		Cause: Cause(decodeWord(r, upperWord, "cause")), Writer: decodeRegion(r), Epoch: decodeOptionalEpoch(r),
		Incarnation: r.Uint(), Number: r.Uint(), Evidence: r.Bytes(maxStatement),
	}
}
