package keyops

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/keyops/wire"
)

// ErrForgotten means that the Region's directory shows less, or something else, than it has
// shown before. Every file in it is signed, but not that it is the newest.
var ErrForgotten = errors.New("the Region's directory is not what it was")

// kindSight is of rows that remember what the Region's directory has shown: whoever can
// write there can take files away, and cannot change a sealed row.
const kindSight store.Kind = "sight"

const sightSchema = 1

// RegionFiles is what the Region's directory shows: pinned peers, and rosters of this Region
// and of peers.
type RegionFiles struct {
	Dir     region.Dir // where the service looks for later changes of its own roster, too
	Pins    []region.SignedDescriptor
	Rosters []RosterSeen
	Retired []region.Retirement
}

// RosterSeen is the newest roster of an instance that the directory shows.
type RosterSeen struct {
	Region   region.Name
	Instance region.InstanceID
	Roster   approval.Roster
	Changes  []approval.Change // that lead to it from the descriptor's
}

// sight is one thing that was shown.
type sight struct {
	version  uint64
	shown    string           // fingerprint
	evidence statement.Signed // of a pin, its descriptor; else empty
}

func (s sight) encode() []byte {
	var w wire.Writer
	w.Uint(sightSchema)
	w.Uint(s.version)
	w.String(s.shown)
	w.Bool(s.evidence.Purpose != "")
	if s.evidence.Purpose != "" {
		w.Bytes(s.evidence.Marshal())
	}
	return w.Out()
}

func decodeSight(body []byte) (s sight, err error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != sightSchema {
		r.Fail("sight of schema %d", v)
	}
	s = sight{version: r.Uint(), shown: r.String(128)}
	var evidence []byte
	if r.Bool() {
		evidence = r.Bytes(statement.MaxPayload)
	}
	if err := r.Done(); err != nil {
		return s, err
	}
	if evidence != nil {
		s.evidence, err = statement.Parse(evidence)
	}
	return s, err
}

func rosterSight(r approval.Roster) sight {
	var w wire.Writer
	r.Append(&w)
	return sight{version: r.Version, shown: statement.Fingerprint(w.Out())}
}

func rosterRow(r region.Name, instance region.InstanceID) string {
	return "roster/" + string(r) + "@" + string(instance)
}

func pinRow(r region.Name) string { return "pin/" + string(r) }

func retiredRow(r region.Name) string { return "retired/" + string(r) }

// remember compares the Region's directory with what it has shown before, and remembers what
// is new in it.
func (s *Service) remember(ctx context.Context, files RegionFiles) error {
	return s.update(ctx, func(tx *seal.Tx) error {
		for _, r := range files.Rosters {
			name := rosterRow(r.Region, r.Instance)
			if err := see(tx, name, rosterSight(r.Roster), func(sight) error { return nil }); err != nil { // each change is approved by the roster before
				return fmt.Errorf("roster of instance %s: %w", r.Instance, err)
			}
		}
		for _, r := range files.Retired {
			if err := see(tx, retiredRow(r.Region), sight{version: 1, shown: r.Fingerprint}, func(sight) error { return nil }); err != nil {
				return fmt.Errorf("retired Region %s: %w", r.Region, err)
			}
		}
		for _, p := range files.Pins {
			if _, err := tx.Get(kindSight, retiredRow(p.Region)); !errors.Is(err, store.ErrNotFound) {
				return errors.Join(err, fmt.Errorf("%w: Region %s was retired, and is a peer again: find out who took its retirement away", ErrForgotten, p.Region))
			}
			now := sight{version: p.Version, shown: p.Fingerprint(), evidence: p.Statement}
			err := see(tx, pinRow(p.Region), now, func(before sight) error { return s.mayFollow(files.Dir, before, p) })
			if err != nil {
				return fmt.Errorf("pinned descriptor of %s: %w", p.Region, err)
			}
		}
		return nil
	})
}

// see compares one thing with what was seen of it. follows decides of another one that is
// not older.
func see(tx *seal.Tx, name string, now sight, follows func(before sight) error) error {
	row, err := tx.Get(kindSight, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return tx.Put(kindSight, name, now.encode())
	case err != nil:
		return err
	}
	before, err := decodeSight(row.Body)
	if err != nil {
		return err
	}
	if before.shown == now.shown {
		return nil
	}
	if now.evidence.Purpose == "" && now.version <= before.version {
		return fmt.Errorf("%w: version %d is shown, and version %d was: find out who took files away", ErrForgotten, now.version, before.version)
	}
	if err := follows(before); err != nil {
		return err
	}
	return tx.Put(kindSight, name, now.encode())
}

// mayFollow decides whether a pin may take the place of the one that was there: the same
// instance with a key that its operators have put in the place of the one before, or another
// instance with which a ceremony was held at this token.
func (s *Service) mayFollow(dir region.Dir, before sight, now region.SignedDescriptor) error {
	old, err := region.Open(before.evidence)
	if err != nil {
		return err
	}
	if old.Instance == now.Instance {
		if err := dir.Follows(old, now); err != nil {
			return fmt.Errorf("%w: it is another one of the same instance: %w", ErrForgotten, err)
		}
		return nil
	}
	for _, t := range s.transport.Load().Transcripts() {
		if transport.EndOf(t.Peer.Descriptor) == transport.EndOf(now.Descriptor) {
			return nil // package transport has compared the keys
		}
	}
	return fmt.Errorf("%w: it is of instance %s, and was of %s: hold a ceremony with the new instance, or find out who pinned it", ErrForgotten, now.Instance, old.Instance)
}

// checkRoster refuses a roster that is older than the one that the daemon has seen: who was
// taken off could otherwise decide again. It believes the row whether its seal holds or not,
// since that can only refuse more.
func (c Custody) checkRoster(ctx context.Context) error {
	return c.Store.View(ctx, func(tx store.Tx) error {
		row, err := tx.Get(kindSight, rosterRow(c.Self.Region, c.Self.Instance))
		if errors.Is(err, store.ErrNotFound) {
			return c.checkShown(tx)
		}
		if err != nil {
			return err
		}
		seen, err := decodeSight(row.Body)
		if err == nil && seen.version > c.Roster.Version {
			return fmt.Errorf("%w: roster version %d is shown, and version %d was seen", region.ErrOlderRoster, c.Roster.Version, seen.version)
		}
		return c.checkShown(tx)
	})
}

// checkShown refuses a roster of which a peer has shown the next one.
func (c Custody) checkShown(tx store.Tx) error {
	_, err := tx.Get(kindRoster, changeRow(c.Self.Region, c.Self.Instance, int(c.Roster.Version)+1))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: roster version %d is shown, and a peer has shown the next one", region.ErrOlderRoster, c.Roster.Version)
}
