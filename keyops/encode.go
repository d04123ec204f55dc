package keyops

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Versions of a key row's body. A reader refuses a version above its own, so that an older
// daemon never drops what a newer one wrote. A row has the oldest version that can hold what
// it says: one value has one encoding, and rows of the version before are still read.
const (
	schemaFirst  = 1
	schemaGrants = 2 // ends with the key's grants, of which there is at least one
	schemaLife   = 3 // ends with deletion, rotation and imports, after grants or none
	schemaMaker  = 4 // ends with the principal that made the key, after those
	schemaKept   = 5 // ends with the word of clients on an evicted key, after those, the principal or none
)

func (k *Key) schema() uint64 {
	if k.Withheld {
		return schemaKept
	}
	if k.Creator != "" {
		return schemaMaker
	}
	if k.lives() {
		return schemaLife
	}
	if len(k.Grants) > 0 {
		return schemaGrants
	}
	return schemaFirst
}

// Bounds of a key row. They are above what any operation lets in, and keep a row that was
// damaged from being read at length.
const (
	maxMaterials = 4096
	maxSPKI      = 8192
	maxSet       = 8 << 20
)

// encode returns the body of the key's row.
func (k *Key) encode() []byte {
	var w wire.Writer
	w.Uint(k.schema())
	w.String(string(k.Account))
	w.String(string(k.Spec))
	w.String(string(k.Usage))
	w.String(string(k.Origin))
	w.String(k.Description)
	w.Bytes(k.Policy)
	w.Time(k.Created)
	w.String(string(k.State))
	w.Count(len(k.Tags))
	for _, name := range slices.Sorted(maps.Keys(k.Tags)) {
		w.String(name)
		w.String(k.Tags[name])
	}
	w.Count(len(k.Aliases))
	for _, a := range k.Aliases {
		w.String(a.Name)
		w.Time(a.Created)
		w.Time(a.Updated)
	}
	w.Count(len(k.Materials))
	for _, m := range k.Materials {
		w.Bytes(m.ID[:])
		w.Bytes(m.Object[:])
		w.Bytes(m.SPKI)
		w.Time(m.Created)
		w.Bool(m.Local)
		w.Bool(m.Lost)
		w.Uint(m.Reserved)
	}
	w.Count(len(k.Used))
	for _, id := range k.Used {
		w.Bytes(id[:])
	}
	w.Bytes(k.Current[:])
	if k.Set == nil {
		w.Bytes(nil)
	} else {
		w.Bytes(k.Set.Marshal())
	}
	if k.schema() >= schemaGrants {
		encodeGrants(&w, k.Grants)
	}
	if k.schema() >= schemaLife {
		encodeLife(&w, k)
	}
	if k.schema() >= schemaMaker {
		w.String(k.Creator)
	}
	if k.schema() >= schemaKept {
		w.Bool(k.Withheld)
	}
	return w.Out()
}

// decodeKey reads the body of a key row whose seal holds.
func decodeKey(id string, body []byte) (*Key, error) {
	keyID, err := arn.ParseKeyID(id)
	if err != nil {
		return nil, err
	}
	r := wire.NewReader(body)
	schema := r.Uint()
	if schema < schemaFirst || schema > schemaKept {
		r.Fail("key row of schema %d, this daemon reads %d to %d", schema, schemaFirst, schemaKept)
	}
	k := &Key{
		ID:          keyID,
		Account:     arn.Account(r.String(12)),
		Spec:        KeySpec(r.String(64)),
		Usage:       KeyUsage(r.String(64)),
		Origin:      Origin(r.String(64)),
		Description: r.String(4 * maxDescription),
		Policy:      r.Bytes(maxPolicy),
		Created:     r.Time(),
		State:       keystate.State(r.String(64)),
	}
	for range r.Count(maxTags) {
		if k.Tags == nil {
			k.Tags = map[string]string{}
		}
		name := r.String(4 * maxTagKey)
		k.Tags[name] = r.String(4 * maxTagValue)
	}
	for range r.Count(maxAliases) {
		k.Aliases = append(k.Aliases, Alias{Name: r.String(256), Created: r.Time(), Updated: r.Time()})
	}
	for range r.Count(maxMaterials) {
		m := Material{watch: &watch{}}
		r.Fixed(m.ID[:])
		r.Fixed(m.Object[:])
		m.SPKI = r.Bytes(maxSPKI)
		m.Created, m.Local, m.Lost, m.Reserved = r.Time(), r.Bool(), r.Bool(), r.Uint()
		m.watch.count.Store(m.Reserved)
		k.Materials = append(k.Materials, m)
	}
	for range r.Count(maxMaterials) {
		var u material.ID
		r.Fixed(u[:])
		k.Used = append(k.Used, u)
	}
	r.Fixed(k.Current[:])
	set := r.Bytes(maxSet)
	if schema >= schemaGrants {
		k.Grants = decodeGrants(r)
	}
	if schema >= schemaLife {
		decodeLife(r, k)
	}
	if schema >= schemaMaker {
		k.Creator = r.String(maxReference)
	}
	if schema >= schemaKept {
		k.Withheld = r.Bool()
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("decoding the row of key %s: %w", id, err)
	}
	if len(set) != 0 {
		if k.Set, err = mrk.Unmarshal(set); err != nil {
			return nil, fmt.Errorf("decoding the facts of key %s: %w", id, err)
		}
	}
	// One value has one encoding; a body that would be written otherwise was not written by
	// this code.
	if !bytes.Equal(k.encode(), body) {
		return nil, fmt.Errorf("decoding the row of key %s: %w: not in canonical form", id, wire.ErrMalformed)
	}
	return k, k.check()
}

// check refuses a decoded key that no operation could have made.
func (k *Key) check() error {
	fail := func(what string) error { return fmt.Errorf("row of key %s: %s", k.ID, what) }
	if _, err := arn.ParseAccount(string(k.Account)); err != nil {
		return fail("account malformed")
	}
	if _, ok := k.Spec.find(k.Usage); !ok {
		return fail("spec and usage do not belong together")
	}
	if _, err := keystate.Parse(string(k.State)); err != nil {
		return fail("state unknown")
	}
	if len(k.Policy) == 0 {
		return fail("policy missing")
	}
	if k.ID.MultiRegion() != (k.Set != nil) {
		return fail("facts of a multi-Region key missing or out of place")
	}
	if k.Withheld && k.Set == nil {
		return fail("evicted, and no multi-Region key")
	}
	if !k.Current.IsZero() && (k.Material(k.Current) == nil || !slices.Contains(k.Used, k.Current)) {
		return fail("current material not listed")
	}
	prefixes := map[[material.PrefixSize]byte]bool{}
	objects := map[hsm.ID]bool{}
	for _, m := range k.Materials {
		if prefixes[m.ID.Prefix()] || objects[m.Object] {
			return fail("material listed twice")
		}
		prefixes[m.ID.Prefix()], objects[m.Object] = true, true
	}
	if what := k.checkLife(); what != "" {
		return fail(what)
	}
	for i := range k.Grants {
		if i > 0 && k.Grants[i-1].ID >= k.Grants[i].ID {
			return fail("grants out of order")
		}
		if err := k.Grants[i].check(); err != nil {
			return fmt.Errorf("row of key %s: grant %d: %w", k.ID, i, err)
		}
	}
	return nil
}
