package audit

import (
	"crypto"
	"io/fs"
	"time"
)

// Change is a change of a key that a log has recorded as done.
type Change struct {
	Seq   uint64    `json:"seq"`
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	KeyID string    `json:"keyId"`
}

// Changes returns what was done to keys after a line of the log, in order. The log is
// verified whole, and what could not be verified is not in the answer.
func Changes(fsys fs.FS, keys []crypto.PublicKey, after uint64) ([]Change, error) {
	var all []Change
	_, err := verify(fsys, keys, nil, func(l *line) error {
		if l.Seq <= after || l.Outcome != Success || l.ReadOnly || len(l.Resources) == 0 || l.Resources[0].KeyID == "" {
			return nil
		}
		at, err := time.Parse(timeFormat, l.Time)
		all = append(all, Change{Seq: l.Seq, Time: at, Event: l.Event, KeyID: l.Resources[0].KeyID})
		return err
	})
	return all, err
}
