package audit

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// WitnessCheckpoint is the event of a record that keeps a checkpoint of another Region's
// log. Being signed, the checkpoint proves what that log was, whoever shows it.
const WitnessCheckpoint = "WitnessCheckpoint"

// WitnessRecord returns the record that keeps a checkpoint of another Region's log.
func WitnessRecord(c SignedCheckpoint) Record {
	return Record{
		Type:    ServiceEvent,
		Event:   WitnessCheckpoint,
		Outcome: Success,
		Details: map[string]string{
			"peer":         string(c.Region),
			"peerInstance": string(c.Instance),
			"number":       strconv.FormatUint(c.Number, 10),
			"sequence":     strconv.FormatUint(c.Seq, 10),
			"checkpoint":   base64.StdEncoding.EncodeToString(c.Statement.Marshal()),
		},
	}
}

// Witness is a checkpoint of one log that another Region's log has kept.
type Witness struct {
	SignedCheckpoint
	By   region.Name // the Region whose log has it
	Line uint64      // sequence number of the record there
}

// String names the witness for people.
func (w Witness) String() string {
	return fmt.Sprintf("%s, line %d", w.By, w.Line)
}

// witness returns the checkpoint in a line, or false. What it says of the checkpoint is
// read from what is signed alone.
func (l *line) witness() (Witness, bool) {
	if l.Type != ServiceEvent || l.Event != WitnessCheckpoint {
		return Witness{}, false
	}
	b, err := base64.StdEncoding.DecodeString(l.Details["checkpoint"])
	if err != nil {
		return Witness{}, false
	}
	s, err := statement.Parse(b)
	if err != nil {
		return Witness{}, false
	}
	c, err := ParseCheckpoint(s)
	return Witness{c, region.Name(l.Region), l.Seq}, err == nil
}

// witnesses are what is to be found in one log.
type witnesses struct {
	byNumber map[uint64]Witness
	newest   Witness
}

// witnessesOf sorts out what witnesses say of one instance's log. Only what the instance has
// signed counts: a witness can hide what it saw, and make nothing up.
func witnessesOf(all []Witness, r *Report, keys []crypto.PublicKey) (witnesses, error) {
	w := witnesses{byNumber: map[uint64]Witness{}}
	for _, c := range all {
		if string(c.Region) != r.Region || string(c.Instance) != r.Instance {
			continue
		}
		if c.verifyAny(keys) != nil {
			r.WitnessesUnsigned++
			continue
		}
		if other, twice := w.byNumber[c.Number]; twice && !same(other.Checkpoint, c.Checkpoint) {
			return w, fmt.Errorf("two logs were signed: checkpoint %d differs between %v and %v", c.Number, other, c)
		}
		w.byNumber[c.Number] = c
		if c.Number > w.newest.Number {
			w.newest = c
		}
	}
	return w, nil
}

// compare checks a checkpoint of the log with its witness, if there is one.
func (w witnesses) compare(c SignedCheckpoint, r *Report) error {
	seen, ok := w.byNumber[c.Number]
	if !ok {
		return nil
	}
	if !same(seen.Checkpoint, c.Checkpoint) {
		return fmt.Errorf("checkpoint %d is not the one that was witnessed (%v): the log was written anew", c.Number, seen)
	}
	r.Witnesses++
	r.Witnessed = max(r.Witnessed, c.Seq)
	return nil
}

// missing says what witnesses saw and the log, which has ended, does not have.
func (w witnesses) missing(last Checkpoint) error {
	if w.newest.Number > last.Number {
		return fmt.Errorf("the log ends at checkpoint %d of line %d, a witness saw checkpoint %d of line %d (%v): the end was cut off",
			last.Number, last.Seq, w.newest.Number, w.newest.Seq, w.newest)
	}
	return nil
}
