package keyops

import (
	"bytes"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
)

// Key is one key as this Region has it: everything that its sealed row holds. A published
// Key never changes; a change is made on a copy and published once it is durable.
type Key struct {
	ID          arn.KeyID
	Account     arn.Account
	Spec        KeySpec
	Usage       KeyUsage
	Origin      Origin
	Description string
	Policy      []byte // never empty: a key without a policy is refused, not opened
	Tags        map[string]string
	Aliases     []Alias // ordered by name
	Created     time.Time
	Creator     string // ARN of the principal that made the key here, or had a peer make it; for its quota
	State       keystate.State
	// Withheld says of a key that is evicted that clients of this Region had disabled it, or
	// scheduled its deletion, before or since. Its state does not say so: it is Disabled anyway.
	Withheld bool
	Version  uint64 // of the row; only grows

	Materials []Material // every material that this Region has or had
	// Used lists the materials that were ever current here. It only grows, and a material is
	// in it, durably, before anything is encrypted with it.
	Used    []material.ID
	Current material.ID // what encrypts and signs; zero while there is none
	Set     *mrk.Set    // what is known of the multi-Region key; nil for a single-Region key
	// Grants are this Region's, ordered by ID. Copies of a Key share the list: it is replaced,
	// never changed.
	Grants []Grant

	DeletionDate time.Time       // when the key is deleted; zero unless it is PendingDeletion
	PendingDays  int             // waiting period of a deletion that is scheduled; else 0
	Rotation     Rotation        // of a single-Region key; that of a shared key is in its Set
	Rotations    []RotationEntry // of a single-Region key, oldest first
	// Deleted is when a multi-Region key was deleted here; zero while it exists. Its row stays
	// for what the other Regions have to hear, and so that nothing brings it back.
	Deleted time.Time

	policy   *policy.Policy // of parsed, which is Policy unless that has just changed
	parsed   []byte
	grantees map[string][]policy.Grant // Grants by grantee; nil if there are none, or they have just changed
	arn      string                    // in this Region
	used     *usage                    // when it was used last; copies of a Key share it
}

// Material is one generation of the key's secret, as this Region holds it.
type Material struct {
	ID      material.ID
	Object  hsm.ID // CKA_ID in the token
	SPKI    []byte // key pairs only; kept here because the token's public objects are not believed
	Created time.Time
	Local   bool // made in this token, rather than unwrapped into it
	Lost    bool // the object is gone from the token
	// Reserved bounds how often the material may have encrypted here: usage.go raises it in
	// coarse steps, before the count gets there.
	Reserved uint64

	Import      ImportState     // of origin EXTERNAL; empty for material made in a token
	Expires     time.Time       // when imported material expires; zero if it does not
	Expiration  ExpirationModel // of imported material
	Description string          // that the importer gave to the material

	watch     *watch
	elsewhere uint64 // how often the other Regions may have encrypted with it, as far as this one has heard
}

// watch is what the process remembers of a material between calls. Copies of a Key share it.
type watch struct {
	proven  atomic.Bool // its identity was recomputed in the token since the start
	missing atomic.Bool // its object was gone when it was last needed, or another was in its place
	count   atomic.Uint64
	due     atomic.Bool // that rotation is due was logged
}

// Alias is another name of a key, unique in its account and Region.
type Alias struct {
	Name    string // with the prefix alias/
	Created time.Time
	Updated time.Time
}

// Material returns the key's material with this ID, or nil.
func (k *Key) Material(id material.ID) *Material {
	for i := range k.Materials {
		if k.Materials[i].ID == id {
			return &k.Materials[i]
		}
	}
	return nil
}

// byPrefix returns the material that a ciphertext names, or nil. No two materials of a key
// share a prefix.
func (k *Key) byPrefix(p [material.PrefixSize]byte) *Material {
	for i := range k.Materials {
		if k.Materials[i].ID.Prefix() == p {
			return &k.Materials[i]
		}
	}
	return nil
}

// Held lists the materials that are in this Region's token.
func (k *Key) Held() []material.ID {
	var ids []material.ID
	for _, m := range k.Materials {
		if !m.Lost {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// hold adds a material. One that was lost and is here again is the same material in another
// object; what it has encrypted still counts.
func (k *Key) hold(m Material) {
	var before uint64
	if old := k.Material(m.ID); old != nil {
		before = old.Reserved
	}
	if k.Set != nil {
		before = max(before, k.Set.Spent(m.ID))
	}
	m.Reserved += before
	m.watch.count.Store(before)
	k.Materials = slices.DeleteFunc(k.Materials, func(x Material) bool { return x.ID == m.ID })
	k.Materials = append(k.Materials, m)
}

// use returns the table row of the key's spec and usage.
func (k *Key) use() use {
	row, _ := k.Spec.find(k.Usage)
	return row
}

// role returns the role of the key's materials in the token.
func (k *Key) role() hsm.Role {
	if k.ID.MultiRegion() && k.Origin != OriginExternal { // imported material never leaves its token
		return hsm.RoleSharedMaterial
	}
	return hsm.RoleMaterial
}

// ARN returns the key's ARN in this Region.
func (k *Key) ARN() string { return k.arn }

// current returns the material that encrypts and signs now.
func (k *Key) current() (*Material, error) {
	m, err := k.listed()
	if err == nil && m.Lost {
		return nil, refuse(ErrKeyUnavailable, "The current key material of %s is not in this Region's token.", k.arn)
	}
	return m, err
}

// listed returns the current material, which need not be in the token: its public key
// is enough to verify with.
func (k *Key) listed() (*Material, error) {
	if m := k.Material(k.Current); m != nil {
		return m, nil
	}
	return nil, refuse(ErrKeyUnavailable, "%s has no key material in this Region yet.", k.arn)
}

// makeCurrent makes a held material the one that encrypts.
func (k *Key) makeCurrent(id material.ID) {
	k.Current = id
	if guard9Used.Stops(!slices.Contains(k.Used, id)) {
		k.Used = append(k.Used, id)
	}
}

// clone returns a copy whose fields may be changed.
func (k *Key) clone() *Key {
	c := *k
	c.Tags = maps.Clone(k.Tags)
	c.Aliases = slices.Clone(k.Aliases)
	c.Materials = slices.Clone(k.Materials)
	c.Used = slices.Clone(k.Used)
	c.Policy = bytes.Clone(k.Policy)
	if k.Set != nil {
		c.Set = k.Set.Clone()
	}
	return &c
}

// unschedule forgets a scheduled deletion.
func (k *Key) unschedule() { k.DeletionDate, k.PendingDays = time.Time{}, 0 }
