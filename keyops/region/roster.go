package region

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

var (
	// ErrOlderRoster means that somebody shows less of an instance's rosters than is known here.
	ErrOlderRoster = errors.New("roster older than the one that is known here")
	// ErrRosterFork means that two rosters followed one, each with a quorum: some operator
	// approved both, and the signatures prove it.
	ErrRosterFork = errors.New("another roster of this version is known here")
)

// rosters is the directory of the changes of an instance's roster. N.json makes version N.
func (d Dir) rosters(of Descriptor) string {
	return filepath.Join(string(d), "rosters", string(of.Region)+"@"+string(of.Instance))
}

// LoadRosters returns the newest roster of an instance that is known here, which is the
// descriptor's until it was changed, and the changes that lead to it.
func (d Dir) LoadRosters(of Descriptor) (approval.Roster, []approval.Change, error) {
	files, err := filepath.Glob(filepath.Join(d.rosters(of), "*.json"))
	if err != nil {
		return approval.Roster{}, nil, err
	}
	r := of.Operators
	var changes []approval.Change
	for range files { // a file that is missing in between is an error, not an end
		path := filepath.Join(d.rosters(of), fmt.Sprintf("%d.json", r.Version+1))
		var c approval.Change
		if err := statement.ReadJSON(path, &c); err != nil {
			return approval.Roster{}, nil, err
		}
		if r, err = r.Follow(string(of.Region), string(of.Instance), c); err != nil {
			return approval.Roster{}, nil, fmt.Errorf("%s: %w", path, err)
		}
		changes = append(changes, c)
	}
	return r, changes, nil
}

// KeepRosters verifies all changes of an instance's roster since its descriptor, keeps those
// that are new here, and returns the newest roster. Fewer than are known here are refused:
// who was taken off a roster could otherwise come back by leaving the change out.
func (d Dir) KeepRosters(of Descriptor, changes []approval.Change) (approval.Roster, error) {
	known, kept, err := d.LoadRosters(of)
	if err != nil {
		return approval.Roster{}, err
	}
	shown, err := of.Operators.Follow(string(of.Region), string(of.Instance), changes...)
	if err != nil {
		return approval.Roster{}, err
	}
	if shown.Version < known.Version {
		return approval.Roster{}, fmt.Errorf("%w: version %d of instance %s, known is %d", ErrOlderRoster, shown.Version, of.Instance, known.Version)
	}
	for i := range kept {
		if !bytes.Equal(kept[i].Roster, changes[i].Roster) {
			return approval.Roster{}, fmt.Errorf("%w: version %d of instance %s", ErrRosterFork, i+1, of.Instance)
		}
	}
	if err := os.MkdirAll(d.rosters(of), 0o755); err != nil {
		return approval.Roster{}, err
	}
	for i, c := range changes[len(kept):] {
		path := filepath.Join(d.rosters(of), fmt.Sprintf("%d.json", known.Version+uint64(i)+1))
		if err := statement.WriteJSON(path, c); err != nil && !errors.Is(err, fs.ErrExist) {
			return approval.Roster{}, err
		}
	}
	return shown, nil
}
