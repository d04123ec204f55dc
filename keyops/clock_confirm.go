package keyops

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
)

// errNoClock means that there is nothing to confirm.
var errNoClock = errors.New("the store says nothing of a clock: no daemon has served from it yet")

// EventConfirmClock is the audit event of a clock that operators believed.
const EventConfirmClock = "ConfirmClock"

// ClockInspection is what is to be said of a Region's clock while no daemon serves.
type ClockInspection struct {
	Seen    time.Time     // by the clock, when a daemon last wrote it down
	Hold    time.Duration // for which a daemon would destroy nothing, had it gone on
	Pending []DueDeletion // keys that wait for deletion, by the date
}

// DueDeletion is a key that waits for deletion.
type DueDeletion struct {
	Key  arn.KeyID
	Date time.Time
}

// InspectClock reads what the store says of the clock, and which keys it would delete. The
// caller holds the writer lease.
func (c Custody) InspectClock(ctx context.Context) (ClockInspection, error) {
	book, err := c.open(ctx)
	if err != nil {
		return ClockInspection{}, err
	}
	return inspectClock(ctx, book)
}

// open opens a store whose rows may not hold: what does not is not read.
func (c Custody) open(ctx context.Context) (*seal.Book, error) {
	book, findings, err := seal.Open(ctx, c.Store, sealKey{c.Token, c.Seal}, c.Self.Instance)
	if err != nil {
		return nil, err
	}
	if bad := findings.Head(); bad != nil {
		return nil, fmt.Errorf("the store as a whole does not hold: %w", bad)
	}
	return book, nil
}

func inspectClock(ctx context.Context, book *seal.Book) (ClockInspection, error) {
	var in ClockInspection
	err := book.View(ctx, func(tx *seal.Tx) error {
		row, err := tx.Get(kindClock, clockID)
		if errors.Is(err, store.ErrNotFound) {
			return errNoClock
		}
		if err != nil {
			return err
		}
		clock, err := decodeClock(row.Body)
		if err != nil {
			return err
		}
		in.Seen, in.Hold = clock.seen, clock.hold
		return tx.Scan(kindKey, func(row store.Row, bad *seal.Finding) error {
			if bad != nil {
				return nil // a key that is not believed is not deleted
			}
			k, err := decodeKey(row.ID, row.Body)
			if err != nil {
				return nil
			}
			if due := k.deletionDue(); !due.IsZero() {
				in.Pending = append(in.Pending, DueDeletion{k.ID, due})
			}
			return nil
		})
	})
	if err != nil {
		return ClockInspection{}, fmt.Errorf("reading what the store says of the clock: %w", err)
	}
	return in, nil
}

// ClockRequest asks this Region's operators to believe the clock that the request expires by.
// They read which keys go, and the expiry shows them where the clock stands.
func (c Custody) ClockRequest(in ClockInspection, serial string, expires time.Time) approval.Request {
	object := []approval.Detail{
		{Name: "clock when a daemon last wrote it down", Text: in.Seen.Format(time.RFC3339)},
		{Name: "keys that are deleted at their dates", Text: strconv.Itoa(len(in.Pending))},
	}
	for i, d := range in.Pending {
		if i == maxShown {
			break
		}
		object = append(object, approval.Detail{Name: "key " + string(d.Key), Text: d.Date.Format(time.RFC3339)})
	}
	return approval.Request{
		Operation: approval.ConfirmClock, Region: string(c.Self.Region), Instance: string(c.Self.Instance),
		Roster: c.Roster.Version, Serial: serial, Expires: expires, Object: object,
	}
}

// ConfirmClock ends the time in which nothing is destroyed because the clock is in doubt, if
// enough operators have approved that. A daemon that starts within an hour believes the clock.
// The caller holds the writer lease and has opened the audit log.
func (c Custody) ConfirmClock(ctx context.Context, log *audit.Log, approvals []statement.File) error {
	if len(approvals) == 0 {
		return approval.ErrNotEnough
	}
	asked, err := approval.RequestOf(approvals[0])
	if err != nil {
		return err
	}
	book, err := c.open(ctx)
	if err != nil {
		return err
	}
	in, err := inspectClock(ctx, book)
	if err != nil {
		return err
	}
	want := c.ClockRequest(in, asked.Serial, asked.Expires)
	if err := c.Roster.Check(want, c.now(), approvals); err != nil {
		return err
	}
	now := c.now().Round(0).UTC()
	record := audit.Record{
		Type: audit.ServiceEvent, Event: EventConfirmClock, Outcome: audit.Begun,
		Details: map[string]string{
			"request": want.ID(), "approvedBy": strings.Join(c.Roster.Approved(want, approvals), ", "),
			"lastSeen": in.Seen.Format(time.RFC3339), "clock": now.Format(time.RFC3339), "pendingDeletions": strconv.Itoa(len(in.Pending)),
		},
	}
	if err := log.Append(ctx, record); err != nil {
		return err
	}
	err = book.Update(ctx, func(tx *seal.Tx) error {
		if err := useOnce(want, "", now, tx.Get, tx.Put); err != nil {
			return err
		}
		return tx.Put(kindClock, clockID, clockRow{seen: now}.encode())
	})
	if err != nil {
		record.Outcome, record.Error = audit.Error, string(ErrInternal)
		return errors.Join(fmt.Errorf("writing down the confirmed clock: %w", err), log.Append(ctx, record))
	}
	log.CoverStore(func() audit.StoreHead { return audit.StoreHead(book.Head()) })
	record.Outcome = audit.Success
	return log.Append(ctx, record)
}
