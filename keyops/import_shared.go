package keyops

import (
	"context"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// listImport lists an imported material in the facts of a multi-Region key (A4.6): the
// first one at once, as current; a new one of the primary key's Region as pending.
func (s *Service) listImport(ctx context.Context, k *Key, m Material, as ImportType) error {
	if as == ExistingKeyMaterial {
		return nil // it is listed; the member fact says that it is here now
	}
	l := mrk.Listed{ID: m.ID, SPKI: m.SPKI, Created: m.Created.Unix(), Reason: mrk.ReasonImport}
	return k.Set.ListImported(ctx, s.Signer(), l)
}

// unlistImport gives up the material that waits to become current: nobody has encrypted
// with it, in any Region.
func (s *Service) unlistImport(ctx context.Context, k *Key) error {
	return k.Set.CancelPending(ctx, s.Signer())
}
