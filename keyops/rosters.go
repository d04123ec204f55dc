package keyops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// kindRoster is of the changes of Regions' rosters that peers have shown. The daemon cannot
// write into the Region's directory, and what it has learned must not be forgotten: whoever
// was taken off a roster could otherwise approve again.
const kindRoster store.Kind = "roster"

const (
	rosterSchema = 1
	maxRoster    = 32 << 10 // of approval.MaxOperators, encoded
)

// rosters are the changes of each instance's roster that are known here: the first makes
// version 1, and each the next.
type rosters struct {
	mu      sync.Mutex
	changes map[string][]approval.Change // by rosterRow
}

// EncodeChange writes a change of a roster to w.
func EncodeChange(w *wire.Writer, c approval.Change) {
	w.Bytes(c.Roster)
	w.Count(len(c.Approvals))
	for _, f := range c.Approvals {
		f.Encode(w)
	}
}

// DecodeChange reads what EncodeChange wrote. It verifies nothing: KeepRoster does.
func DecodeChange(r *wire.Reader) approval.Change {
	c := approval.Change{Roster: r.Bytes(maxRoster)}
	for range r.Count(2 * approval.MaxOperators) {
		c.Approvals = append(c.Approvals, statement.DecodeFile(r))
	}
	return c
}

func encodeRosterRow(c approval.Change) []byte {
	var w wire.Writer
	w.Uint(rosterSchema)
	EncodeChange(&w, c)
	return w.Out()
}

func decodeRosterRow(body []byte) (approval.Change, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != rosterSchema {
		r.Fail("roster of schema %d", v)
	}
	c := DecodeChange(r)
	return c, r.Done()
}

// changeRow names the row of one change, so that rows are in the order of versions.
func changeRow(r region.Name, instance region.InstanceID, version int) string {
	return fmt.Sprintf("%s#%020d", rosterRow(r, instance), version)
}

// openRosters reads the changes that peers have shown, behind those that the Region's
// directory shows. A row that does not hold ends its chain: what follows it is asked for
// again.
func (s *Service) openRosters(ctx context.Context, files RegionFiles) error {
	s.rosters.changes = map[string][]approval.Change{}
	for _, seen := range files.Rosters {
		s.rosters.changes[rosterRow(seen.Region, seen.Instance)] = slices.Clone(seen.Changes)
	}
	return s.book.View(ctx, func(tx *seal.Tx) error {
		return tx.Scan(kindRoster, func(row store.Row, bad *seal.Finding) error {
			if bad != nil {
				s.refuseRow(kindRoster, row.ID, bad)
				return nil
			}
			c, err := decodeRosterRow(row.Body)
			if err != nil {
				s.refuseRow(kindRoster, row.ID, err)
				return nil
			}
			of, version, _ := strings.Cut(row.ID, "#")
			n, err := strconv.ParseUint(version, 10, 64)
			known := s.rosters.changes[of]
			switch next := uint64(len(known)) + 1; {
			case err != nil || n == 0 || n > next:
				s.refuseRow(kindRoster, row.ID, errors.New("the change before it is missing"))
			case n == next:
				s.rosters.changes[of] = append(known, c)
			case !bytes.Equal(known[n-1].Roster, c.Roster):
				s.log.WithField("roster", of).WithField("version", n).
					Error("ALARM: some operators have approved two rosters of one version; the one of region_dir counts")
			}
			return nil
		})
	})
}

// RosterChanges returns the changes of the roster of a descriptor's instance that are known
// here, oldest first. They are verified.
func (s *Service) RosterChanges(of region.Descriptor) []approval.Change {
	s.rosters.mu.Lock()
	defer s.rosters.mu.Unlock()
	return slices.Clip(s.rosters.changes[rosterRow(of.Region, of.Instance)])
}

// Roster returns a version of the roster of a descriptor's instance, and the newest version
// that is known here. What is kept was verified before it was kept.
func (s *Service) Roster(of region.Descriptor, version uint64) (r approval.Roster, newest uint64, known bool) {
	changes := s.RosterChanges(of)
	newest = uint64(len(changes))
	switch {
	case version > newest:
		return approval.Roster{}, newest, false
	case version == 0:
		return of.Operators, newest, true
	}
	return rosterOf(changes[version-1]), newest, true
}

// rosterOf returns the roster that a verified change makes.
func rosterOf(c approval.Change) approval.Roster { return approval.Take(wire.NewReader(c.Roster)) }

// newestOf returns the roster of a descriptor's instance after verified changes.
func newestOf(of region.Descriptor, changes []approval.Change) approval.Roster {
	if len(changes) == 0 {
		return of.Operators
	}
	return rosterOf(changes[len(changes)-1])
}

// operators returns the newest roster of this Region that is known: its directory has shown
// it, or a peer.
func (s *Service) operators() approval.Roster { return newestOf(s.self, s.RosterChanges(s.self)) }

// lookAtOperators takes over what a ceremony has changed in this Region's roster since the
// start: who was taken off it must not approve until the daemon starts again.
func (s *Service) lookAtOperators(ctx context.Context) error {
	if s.dir == "" {
		return nil
	}
	_, changes, err := s.dir.LoadRosters(s.self)
	if err != nil {
		return fmt.Errorf("reading the roster of this Region: %w", err)
	}
	return s.KeepRoster(ctx, s.self, changes)
}

// KeepRoster verifies changes of an instance's roster, the first of which follows its pinned
// descriptor, and keeps those that are new here. Fewer than are known change nothing, and
// another one of a known version is region.ErrRosterFork: some operators have approved both.
func (s *Service) KeepRoster(ctx context.Context, of region.Descriptor, changes []approval.Change) error {
	s.rosters.mu.Lock()
	defer s.rosters.mu.Unlock()
	name := rosterRow(of.Region, of.Instance)
	known := s.rosters.changes[name]
	for i := range min(len(known), len(changes)) {
		if !bytes.Equal(known[i].Roster, changes[i].Roster) {
			return fmt.Errorf("%w: version %d of instance %s", region.ErrRosterFork, i+1, of.Instance)
		}
	}
	if len(changes) <= len(known) {
		return nil
	}
	news := changes[len(known):]
	if _, err := newestOf(of, known).Follow(string(of.Region), string(of.Instance), news...); err != nil {
		return fmt.Errorf("changes of the roster of instance %s: %w", of.Instance, err)
	}
	err := s.update(ctx, func(tx *seal.Tx) error {
		for i, c := range news {
			if err := tx.Put(kindRoster, changeRow(of.Region, of.Instance, len(known)+i+1), encodeRosterRow(c)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping changes of the roster of instance %s: %w", of.Instance, err)
	}
	s.rosters.changes[name] = append(slices.Clip(known), news...)
	s.log.WithField("of", of.Region).WithField("version", len(changes)).Warn("the operators of a Region have changed")
	return nil
}
