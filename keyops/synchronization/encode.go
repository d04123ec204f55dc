package synchronization

import (
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

const (
	schema     = 1
	roleSchema = 1

	maxName      = 64
	maxPrincipal = 1024
	maxResource  = 128
)

// Encode returns the one encoding of a synchronization.
func (s *Synchronization) Encode() []byte {
	var w wire.Writer
	w.Uint(schema)
	w.String(string(s.ID))
	w.String(string(s.Account))
	w.String(s.Principal)
	w.Time(s.Created)
	w.Count(len(s.Associations))
	for _, a := range s.Associations {
		w.String(string(a.Region))
		w.String(string(a.Instance))
		w.String(string(a.Type))
		w.String(string(a.Stage))
		w.String(a.Principal)
		w.String(a.CorrelationID)
		w.Time(a.Created)
		w.Count(len(a.Selected))
		for _, r := range a.Selected {
			w.String(r)
		}
	}
	return w.Out()
}

// Decode reads what Encode wrote, and refuses what breaks a rule of this package.
func Decode(body []byte) (*Synchronization, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); r.Err() == nil && v != schema {
		r.Fail("synchronization of schema %d", v)
	}
	s := &Synchronization{ID: decodeID(r), Account: decodeAccount(r), Principal: r.String(maxPrincipal), Created: r.Time()}
	for range r.Count(MaxReplicas) {
		a := decodeAssociation(r)
		if r.Err() != nil {
			break
		}
		if err := s.Associate(a); err != nil {
			r.Fail("%v", err)
		}
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("decoding a synchronization: %w", err)
	}
	return s, nil
}

func decodeAssociation(r *wire.Reader) Association {
	a := Association{
		Region: decodeRegion(r), Instance: decodeInstance(r),
		Type: Type(r.String(maxName)), Stage: Stage(r.String(maxName)),
		Principal: r.String(maxPrincipal), CorrelationID: r.String(maxName * 2), Created: r.Time(),
	}
	if r.Err() == nil && (!a.Type.Known() || a.Stage != Asking && a.Stage != Associated) {
		r.Fail("association of type %q and stage %q", a.Type, a.Stage)
	}
	for range r.Count(MaxSelected) {
		a.Selected = append(a.Selected, r.String(maxResource))
		if r.Err() != nil {
			return a
		}
	}
	if !slices.IsSorted(a.Selected) || a.Type == AllResources && len(a.Selected) > 0 {
		r.Fail("selection out of order, or of all resources")
	}
	return a
}

// Encode returns the one encoding of a role.
func (o Role) Encode() []byte {
	var w wire.Writer
	w.Uint(roleSchema)
	w.String(string(o.ID))
	w.String(string(o.Account))
	w.String(string(o.PrimaryRegion))
	w.String(string(o.PrimaryInstance))
	w.String(o.Principal)
	w.Time(o.Since)
	return w.Out()
}

// DecodeRole reads what Encode wrote.
func DecodeRole(body []byte) (Role, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); r.Err() == nil && v != roleSchema {
		r.Fail("role of schema %d", v)
	}
	o := Role{
		ID: decodeID(r), Account: decodeAccount(r), PrimaryRegion: decodeRegion(r), PrimaryInstance: decodeInstance(r),
		Principal: r.String(maxPrincipal), Since: r.Time(),
	}
	if err := r.Done(); err != nil {
		return Role{}, fmt.Errorf("decoding the role of a replica instance: %w", err)
	}
	return o, nil
}

// parse reads a text that has a grammar.
func parse[T any](r *wire.Reader, read func(string) (T, error)) T {
	v, err := read(r.String(maxName))
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return v
}

func decodeID(r *wire.Reader) ID                      { return parse(r, ParseID) }
func decodeAccount(r *wire.Reader) arn.Account        { return parse(r, arn.ParseAccount) }
func decodeRegion(r *wire.Reader) region.Name         { return parse(r, region.ParseName) }
func decodeInstance(r *wire.Reader) region.InstanceID { return parse(r, region.ParseInstanceID) }
