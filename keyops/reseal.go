package keyops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// ErrNothingToReseal means that the store holds as it is, so that nobody is to be asked to
// believe it.
var ErrNothingToReseal = errors.New("the store holds: there is nothing to seal anew")

// EventResealStore is the audit event of a store that was sealed anew.
const EventResealStore = "ResealStore"

// Custody is a Region's store in the hands of its operators: looked at while a daemon may be
// serving, sealed anew while none is.
type Custody struct {
	Self   region.SignedDescriptor
	Roster approval.Roster // the newest of this Region's operators
	Token  Token
	Seal   hsm.ID // the seal key
	Store  store.Store
	// Witnessed are heads that audit checkpoints of this Region have seen of the store: that
	// of the last one in its own log, and those that peers have kept. They are verified.
	Witnessed []audit.StoreHead
	Clock     func() time.Time // nil = time.Now
}

// Inspect says what is to be said of the store, and changes nothing.
func (c Custody) Inspect(ctx context.Context) (StoreInspection, error) {
	in, err := seal.Inspect(ctx, c.Store, sealKey{c.Token, c.Seal}, c.Self.Instance)
	if err != nil {
		return StoreInspection{}, err
	}
	s := StoreInspection{Inspection: in}
	for _, w := range c.Witnessed {
		head := seal.Head(w)
		if head.Version > s.Witnessed.Version {
			s.Witnessed = head
		}
		if in.Findings.Head() == nil { // else the store has no head to compare
			s.Behind = cmp.Or(s.Behind, in.Head.Behind(head))
		}
	}
	return s, nil
}

// Request asks this Region's operators to believe the store as it was inspected.
func (c Custody) Request(in StoreInspection, serial string, expires time.Time) approval.Request {
	return approval.Request{
		Operation: approval.ResealStore, Region: string(c.Self.Region), Instance: string(c.Self.Instance),
		Roster: c.Roster.Version, Serial: serial, Expires: expires, Object: in.details(),
	}
}

// Reseal believes the store as it is, if enough operators have approved exactly that, and
// writes down in the audit log that they did. The caller holds the writer lease and has
// opened the audit log; closing the log makes the checkpoint that covers the new head.
//
// The approvals cannot be used again. Nothing that they name comes back: the new head is
// over every head that was witnessed, and the checkpoint witnesses it. An old store that is
// put back is behind it and makes another request.
func (c Custody) Reseal(ctx context.Context, log *audit.Log, approvals []statement.File) (seal.Head, error) {
	if len(approvals) == 0 {
		return seal.Head{}, approval.ErrNotEnough
	}
	asked, err := approval.RequestOf(approvals[0])
	if err != nil {
		return seal.Head{}, err
	}
	if err := c.checkRoster(ctx); err != nil {
		return seal.Head{}, err
	}
	in, err := c.Inspect(ctx)
	if err != nil {
		return seal.Head{}, err
	}
	if in.Err() == nil {
		return seal.Head{}, ErrNothingToReseal
	}
	want := c.Request(in, asked.Serial, asked.Expires)
	if err := c.Roster.Check(want, c.now(), approvals); err != nil {
		return seal.Head{}, err
	}
	record := audit.Record{
		Type: audit.ServiceEvent, Event: EventResealStore, Outcome: audit.Begun,
		Details: map[string]string{
			"request": want.ID(), "approvedBy": strings.Join(c.Roster.Approved(want, approvals), ", "),
			"contents": fmt.Sprintf("%x", in.Contents), "findings": strconv.Itoa(len(in.Findings)),
			"head": in.Head.String(), "witnessedHead": in.Witnessed.String(),
		},
	}
	if err := log.Append(ctx, record); err != nil {
		return seal.Head{}, err
	}
	book, err := seal.Reseal(ctx, c.Store, sealKey{c.Token, c.Seal}, c.Self.Instance, seal.Approved{
		Contents: in.Contents, Witnessed: in.Witnessed.Version,
		Record: func(tx store.Tx) error {
			put := func(kind store.Kind, id string, body []byte) error {
				return tx.Put(store.Row{Kind: kind, ID: id, Version: 1, Body: body})
			}
			return errors.Join(useOnce(want, "", c.now(), tx.Get, put), c.stampRestored(tx))
		},
	})
	if err != nil {
		record.Outcome, record.Error = audit.Error, string(ErrInternal)
		return seal.Head{}, errors.Join(err, log.Append(ctx, record))
	}
	log.CoverStore(func() audit.StoreHead { return audit.StoreHead(book.Head()) })
	record.Outcome = audit.Success
	return book.Head(), log.Append(ctx, record)
}

func (c Custody) now() time.Time {
	if c.Clock == nil {
		return time.Now()
	}
	return c.Clock()
}

// stampRestored marks the store as one that went back in time, so that the next start
// manages no shared key before the other Regions were heard (rule 19).
func (c Custody) stampRestored(tx store.Tx) error {
	meta, err := store.ReadMeta(tx)
	if err != nil || !meta.Restored.IsZero() {
		return err
	}
	meta.Restored = c.now().UTC()
	return store.WriteMeta(tx, meta)
}

// kindApproval is of rows that name the requests that were carried out.
const kindApproval store.Kind = "approval"

const usedSchema = 1

// useOnce remembers, in the transaction whose get and put these are, that the request is
// carried out, or returns approval.ErrUsed. Every operation that approvals allow calls it.
// One that is carried out on each of several objects names the object in suffix.
func useOnce(q approval.Request, suffix string, now time.Time, get func(store.Kind, string) (store.Row, error), put func(store.Kind, string, []byte) error) error {
	_, err := get(kindApproval, q.ID()+suffix)
	if err == nil {
		return approval.ErrUsed
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var w wire.Writer
	w.Uint(usedSchema)
	w.String(string(q.Operation))
	w.Time(now.UTC())
	return put(kindApproval, q.ID()+suffix, w.Out())
}
