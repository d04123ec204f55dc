package keyops

import (
	"context"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
)

// reconcileImports finishes at the start what a crash left of imports. A wrapping key of a
// key that is here, but of no row, was handed out by a store that has gone back in time, and
// nobody can come with its token any more: it is destroyed. Nothing was ever encrypted under
// it whose owner does not have it still.
func (s *Service) reconcileImports(ctx context.Context, objects map[hsm.ID]hsm.Object) {
	for id, o := range objects {
		if o.Spec.Role != hsm.RoleImportWrapping {
			continue
		}
		if _, known := s.wrappings.get(id); known || s.view.key(arn.KeyID(o.Spec.Name)) == nil {
			continue
		}
		if err := s.token.Destroy(ctx, id); err != nil {
			s.log.WithError(err).WithField("object", id).Warn("an import wrapping key that nobody can use stays for now")
		}
	}
	if err := s.tidyImports(ctx); err != nil {
		s.log.WithError(err).Warn("what imports have left behind stays for now")
	}
}
