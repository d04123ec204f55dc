package keyops

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
)

// EventReplaceKeys is the audit event of a Region whose signing and seal keys were replaced.
const EventReplaceKeys = "ReplaceRegionKeys"

// ErrStoreDoesNotHold means that the store is not what this Region wrote, so that a new seal
// would cover it up.
var ErrStoreDoesNotHold = errors.New("the store does not hold: seal it anew first, with approvals")

// Rekey seals the store under the next seal key, if enough operators have approved the next
// descriptor, and writes down in the audit log that they did. The caller holds the writer
// lease and has opened the audit log. It may be repeated until it succeeds, after a crash
// too: a store that the next key has sealed already is left as it is.
//
// Where the keys before are lost with their token, c.Seal is the next seal key as well: no
// seal holds, and the operators have approved the store as it is.
func (c Custody) Rekey(ctx context.Context, log *audit.Log, r region.Replacement, nextSeal hsm.ID) (region.SignedDescriptor, error) {
	next, want, err := c.replacement(r)
	if err != nil {
		return next, err
	}
	if err := c.checkRoster(ctx); err != nil {
		return next, err
	}
	after := c
	after.Seal = nextSeal
	done, err := after.Inspect(ctx)
	if err != nil {
		return next, err
	}
	record := audit.Record{
		Type: audit.ServiceEvent, Event: EventReplaceKeys, Outcome: audit.Success,
		Details: map[string]string{
			"request": want.ID(), "approvedBy": strings.Join(c.Roster.Approved(want, r.Approvals), ", "),
			"signingKey": statement.Fingerprint(next.SigningKey), "previousSigningKey": statement.Fingerprint(c.Self.SigningKey),
			"descriptor": next.Fingerprint(),
		},
	}
	if done.Err() == nil && done.Rows > 0 {
		return next, log.Append(ctx, record) // a crash came after the transaction
	}
	in, err := c.Inspect(ctx)
	if err != nil {
		return next, err
	}
	switch why := in.Err(); {
	case r.Lost():
		// Nobody can tell whether it holds; but it is the one that the operators have seen.
		asked := region.RequestLost(c.Roster, c.Self, next, want.Serial, want.Expires, in.Unsealed())
		if err := c.Roster.Verify(asked, r.Approvals); err != nil {
			return next, err
		}
	case why != nil:
		return next, fmt.Errorf("%w: %w", ErrStoreDoesNotHold, why)
	}
	if err := c.Roster.Check(want, c.now(), r.Approvals); err != nil { // now it counts that they have not expired
		return next, err
	}
	begun := record
	begun.Outcome = audit.Begun
	if err := log.Append(ctx, begun); err != nil {
		return next, err
	}
	book, err := seal.Reseal(ctx, c.Store, sealKey{c.Token, nextSeal}, c.Self.Instance, seal.Approved{
		Contents: in.Contents, Witnessed: in.Witnessed.Version,
		Record: func(tx store.Tx) error {
			err := useOnce(want, "", c.now(), tx.Get, func(kind store.Kind, id string, body []byte) error {
				return tx.Put(store.Row{Kind: kind, ID: id, Version: 1, Body: body})
			})
			if err == nil && r.Lost() {
				err = c.stampRestored(tx) // it may be older than the token was
			}
			return err
		},
	})
	if err != nil {
		record.Outcome, record.Error = audit.Error, string(ErrInternal)
		return next, errors.Join(err, log.Append(ctx, record))
	}
	log.CoverStore(func() audit.StoreHead { return audit.StoreHead(book.Head()) })
	return next, log.Append(ctx, record)
}

// replacement verifies a replacement and what was asked for it.
func (c Custody) replacement(r region.Replacement) (region.SignedDescriptor, approval.Request, error) {
	next, err := r.Open(c.Self)
	if err != nil {
		return next, approval.Request{}, err
	}
	if len(r.Approvals) == 0 {
		return next, approval.Request{}, approval.ErrNotEnough
	}
	asked, err := approval.RequestOf(r.Approvals[0])
	if err != nil {
		return next, approval.Request{}, err
	}
	want := r.Request(c.Roster, c.Self, next, asked)
	return next, want, c.Roster.Verify(want, r.Approvals)
}
