package keyops

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/store"
)

// Ways in which a material came into a token.
const (
	WayMade      = "made"      // generated in this token
	WayDelivered = "delivered" // unwrapped from another Region's
	WayImported  = "imported"  // from its owner
)

// MadeMaterial is what a store and a token say of one material. Either may have been edited
// by whoever had the PIN, so what they do not agree on is told, not decided.
type MadeMaterial struct {
	Key      arn.KeyID
	Account  arn.Account
	Spec     KeySpec
	Material material.ID // zero for an object that no row names
	Object   hsm.ID
	Created  time.Time // as the store says; zero for an object that no row names
	Way      string    // as the store says; empty for an object that no row names
	Current  bool
	// Suspect is what does not fit: the row or the token is not what this daemon makes.
	Suspect string
}

// Made lists every material that was made, delivered or imported at since or later, and
// whatever does not fit, whenever it was made; the oldest first. It is what to replace after
// somebody had the use of the token since then.
func (c Custody) Made(ctx context.Context, since time.Time) ([]MadeMaterial, error) {
	objects, named := map[hsm.ID]hsm.Object{}, map[hsm.ID]bool{}
	for _, o := range c.Token.Objects() {
		objects[o.ID] = o
	}
	var all []MadeMaterial
	err := c.Store.View(ctx, func(tx store.Tx) error {
		return tx.Scan(kindKey, func(row store.Row) error {
			k, err := decodeKey(row.ID, row.Body)
			if err != nil {
				all = append(all, MadeMaterial{Key: arn.KeyID(row.ID), Suspect: "the row cannot be read"})
				return nil
			}
			for _, m := range k.Materials {
				named[m.Object] = true
				made := MadeMaterial{
					Key: k.ID, Account: k.Account, Spec: k.Spec, Material: m.ID, Object: m.Object,
					Created: m.Created, Way: wayOf(k, m), Current: m.ID == k.Current,
				}
				o, there := objects[m.Object]
				made.Suspect = suspect(made, o, there || m.Lost || m.Import != "")
				if made.Suspect != "" || !m.Created.Before(since) {
					all = append(all, made)
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	for id, o := range objects {
		if o.Spec.Material() && !named[id] {
			all = append(all, MadeMaterial{Object: id, Suspect: fmt.Sprintf("object that no row names: %s", o.Spec.Label())})
		}
	}
	slices.SortFunc(all, func(a, b MadeMaterial) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Object.String(), b.Object.String()))
	})
	return all, nil
}

func wayOf(k *Key, m Material) string {
	switch {
	case k.Origin == OriginExternal:
		return WayImported
	case m.Local:
		return WayMade
	}
	return WayDelivered
}

// suspect compares what the store says of a material with the attributes of its object.
// expected says whether the object, if it is not there, is known not to be.
func suspect(m MadeMaterial, o hsm.Object, expected bool) string {
	switch {
	case o.ID != m.Object && !expected:
		return "its object is not in the token, or in quarantine"
	case o.ID != m.Object:
		return ""
	case m.Way == WayMade && !(o.Local && o.AlwaysSensitive):
		return "the store says that this token made it, and the token that it did not"
	case m.Way != WayMade && o.Local:
		return "the token made it, and the store says that it was " + m.Way
	}
	return ""
}
