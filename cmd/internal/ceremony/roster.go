package ceremony

import (
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// RequestRoster writes what operators have to approve so that next takes the place of this
// Region's roster.
func (t Tool) RequestRoster(next approval.Roster, path string, expiry time.Duration) error {
	own, err := t.Dir.LoadOwn()
	if err != nil {
		return err
	}
	now, _, err := t.Dir.LoadRosters(own.Descriptor)
	if err != nil {
		return err
	}
	next.Version = now.Version + 1
	q := now.RequestChange(string(own.Region), string(own.Instance), next, approval.NewSerial(), t.Now().Add(expiry).Truncate(time.Second).UTC())
	if err := q.Validate(); err != nil {
		return err
	}
	if err := statement.WriteJSON(path, q); err != nil {
		return err
	}
	t.say("request %s, fingerprint %s", path, q.Fingerprint())
	t.say("approvals needed: %d of the present %d operators, and %d of the next %d", now.Threshold, len(now.Operators), next.Threshold, len(next.Operators))
	return nil
}

// ChangeRoster puts next in the place of this Region's roster.
func (t Tool) ChangeRoster(next approval.Roster, approvals []string) error {
	own, err := t.Dir.LoadOwn()
	if err != nil {
		return err
	}
	now, changes, err := t.Dir.LoadRosters(own.Descriptor)
	if err != nil {
		return err
	}
	var files []statement.File
	for _, path := range approvals {
		var f statement.File
		if err := statement.ReadJSON(path, &f); err != nil {
			return err
		}
		files = append(files, f)
	}
	next.Version = now.Version + 1
	c, err := now.NewChange(string(own.Region), string(own.Instance), next, t.Now(), files)
	if err != nil {
		return err
	}
	if _, err := t.Dir.KeepRosters(own.Descriptor, append(changes, c)); err != nil {
		return err
	}
	t.say("roster version %d: %d of %d operators approve", next.Version, next.Threshold, len(next.Operators))
	return nil
}
