package keyops

import (
	"context"

	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// UseOnce remembers a request as every operation does that approvals allow.
func (s *Service) UseOnce(ctx context.Context, q approval.Request) error {
	return s.update(ctx, func(tx *seal.Tx) error { return useOnce(q, "", s.clock(), tx.Get, tx.Put) })
}
