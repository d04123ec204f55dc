package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// listImport lists an imported material in the facts of a multi-Region key (A4.6): the
// first one at once, as current; a new one of the primary key's Region as pending; one that
// a member has used and that no state lists any more, again.
func (s *Service) listImport(ctx context.Context, k *Key, m Material, as ImportType) error {
	l := mrk.Listed{ID: m.ID, SPKI: m.SPKI, Created: m.Created.Unix(), Reason: mrk.ReasonImport}
	if as == ExistingKeyMaterial {
		if k.Set.Primary() == s.self.Region && slices.Contains(k.Set.Orphans(), m.ID) {
			return s.unmanaged(k, k.Set.Relist(ctx, s.Signer(), l))
		}
		return nil // it is listed; the member fact says that it is here now
	}
	return s.unmanaged(k, k.Set.ListImported(ctx, s.Signer(), l))
}

// releaseImport makes the material current that every awaited Region has imported.
func (s *Service) releaseImport(ctx context.Context, k *Key) error {
	_, err := k.Set.ReleaseImported(ctx, s.Signer(), s.contact(k))
	if errors.Is(err, mrk.ErrAwaited) {
		p, _ := k.Set.Progress()
		return &Error{Reason: ErrInvalidState, Message: fmt.Sprintf(
			"The key material pending rotation of %s is not imported yet in %v; import the same bytes there first, or suspend replica keys in Regions that are lost.", k.arn, p.Awaited), cause: err}
	}
	return s.unmanaged(k, err)
}

// unlisted reports whether a Region holds an import that the primary key's Region has given
// up: nobody has encrypted with it, and nobody will.
func (k *Key) unlisted(m Material) bool {
	if k.Set == nil || m.Import != MaterialImported || slices.Contains(k.Used, m.ID) || k.Set.State() == nil {
		return false
	}
	return !slices.ContainsFunc(k.Set.Listed(), func(l mrk.Listed) bool { return l.ID == m.ID })
}

// unlistImport gives up the material that waits to become current: nobody has encrypted
// with it, in any Region.
func (s *Service) unlistImport(ctx context.Context, k *Key) error {
	return s.unmanaged(k, k.Set.CancelPending(ctx, s.Signer()))
}
