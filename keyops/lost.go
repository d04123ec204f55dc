package keyops

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
)

// Unsealed says of a store whose seal key is lost what can be said: which rows it has, not
// whether this Region wrote them.
func (in StoreInspection) Unsealed() []approval.Detail {
	return []approval.Detail{
		{Name: "store", Text: fmt.Sprintf("%d rows with hash %x, whose seals nobody can check any more", in.Rows, in.Contents)},
		{Name: "witnessed head", Text: in.Witnessed.String()},
	}
}

// LostKey is a key of whose materials some are not in the token.
type LostKey struct {
	ID      arn.KeyID
	Account arn.Account
	Spec    KeySpec
	Aliases []string
	Lost    int // of its materials
}

// LostKeys lists the keys that a store names and whose materials are not all in the token, by
// ID. Other Regions have those of multi-Region keys, if they have replicas. It believes the
// rows, so that it can be asked when their seal key is lost as well.
func (c Custody) LostKeys(ctx context.Context) ([]LostKey, error) {
	there := map[hsm.ID]bool{}
	for _, o := range c.Token.Objects() {
		there[o.ID] = true
	}
	var all []LostKey
	err := c.Store.View(ctx, func(tx store.Tx) error {
		return tx.Scan(kindKey, func(row store.Row) error {
			k, err := decodeKey(row.ID, row.Body)
			if err != nil {
				return nil // findings tell
			}
			lost := LostKey{ID: k.ID, Account: k.Account, Spec: k.Spec}
			for _, a := range k.Aliases {
				lost.Aliases = append(lost.Aliases, a.Name)
			}
			for _, m := range k.Materials {
				if !there[m.Object] && m.Import == "" {
					lost.Lost++
				}
			}
			if lost.Lost > 0 && !k.Gone() {
				all = append(all, lost)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	slices.SortFunc(all, func(a, b LostKey) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}
