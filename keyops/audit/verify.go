package audit

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"
)

// Problem is the first line of a log that does not hold.
type Problem struct {
	File string
	Line int    // from 1; one past the last line if something is missing at the end
	Seq  uint64 // of the last line that holds
	Err  error  // what is wrong
}

// Error names the place and what is wrong there.
func (p *Problem) Error() string {
	return fmt.Sprintf("%s line %d, after sequence number %d: %v", p.File, p.Line, p.Seq, p.Err)
}

// Unwrap returns what is wrong.
func (p *Problem) Unwrap() error { return p.Err }

// Report says what was found to hold.
type Report struct {
	Region   string
	Instance string
	Files    int
	Records  uint64
	First    time.Time // of the first line
	Newest   time.Time // of the last line
	FirstSeq uint64    // over 1 if older files were moved away
	LastSeq  uint64

	Checkpoints uint64
	Last        SignedCheckpoint // Number 0 if there is none
	Covered     uint64           // the last line that a checkpoint covers
	Uncovered   uint64           // lines after it: whoever can write the file could have changed them
	Restores    []Restore        // places at which the log was put back from a backup
	Rollbacks   []uint64         // checkpoints at which the store was older than before: a restore, or a rollback
	Torn        int64            // bytes after the last line break: being written, or left by a crash

	Witnesses         int    // witnesses whose checkpoint is here as they saw it
	Witnessed         uint64 // the last line that one of them vouches for
	WitnessesUnsigned int    // witnesses of what none of the keys has signed, which prove nothing

	Seen []Witness // checkpoints of other logs, which records of this one keep
}

// Verify checks a whole log: that each line is in its form and names the one before, that
// checkpoints are numbered, signed by one of the keys and true, and that the checkpoints of
// this log that witnesses saw are in it; those of other logs are ignored. The error is a *Problem for the first line that does
// not hold; the Report is then about the lines before it.
//
// Without witnesses, a log that was cut off behind a checkpoint looks like one that ended
// there; who has the signing key's PIN could have written all of it.
func Verify(fsys fs.FS, keys []crypto.PublicKey, witnesses ...Witness) (Report, error) {
	return verify(fsys, keys, witnesses, nil)
}

// verify is Verify, and gives each line that holds to each, if that is not nil.
func verify(fsys fs.FS, keys []crypto.PublicKey, witnesses []Witness, each func(*line) error) (Report, error) {
	if len(keys) == 0 {
		return Report{}, errors.New("verifying the audit log: no public key given")
	}
	numbers, err := listFiles(fsys)
	if err != nil {
		return Report{}, fmt.Errorf("verifying the audit log: %w", err)
	}
	if len(numbers) == 0 {
		return Report{}, fmt.Errorf("verifying the audit log: no file %s: %w", fileName(1), fs.ErrNotExist)
	}
	v := &verifier{keys: keys, enc: newEncoder(), called: witnesses, each: each}
	for i, n := range numbers {
		v.file, v.line = fileName(n), 0
		if n != numbers[0]+i {
			return v.report, v.problem(fmt.Errorf("file %s is missing", fileName(numbers[0]+i)))
		}
		if err := v.readFile(fsys, i == len(numbers)-1); err != nil {
			return v.report, err
		}
	}
	return v.report, v.end()
}

func same(a, b Checkpoint) bool { return bytes.Equal(a.payload(), b.payload()) }

// verifier follows one log.
type verifier struct {
	keys      []crypto.PublicKey
	called    []Witness // for this and other logs
	witnesses witnesses // of this log
	each      func(*line) error
	enc       *encoder
	report    Report

	file string
	line int
	prev hash
	next uint64 // the number of the next checkpoint, after a restore; else 0
	open []hash // of the lines after report.Covered
	base uint64 // the sequence number before open[0]
}

func (v *verifier) problem(err error) error {
	return &Problem{File: v.file, Line: v.line, Seq: v.report.LastSeq, Err: err}
}

func (v *verifier) readFile(fsys fs.FS, newest bool) error {
	f, err := fsys.Open(v.file)
	if err != nil {
		return err
	}
	defer f.Close()
	v.report.Files++
	lines := &lineReader{r: f}
	for {
		text, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		v.line++
		if errors.Is(err, errForm) {
			return v.problem(err)
		}
		if err != nil {
			return err
		}
		if !whole {
			if !newest {
				return v.problem(errors.New("the last line has no end, and another file follows"))
			}
			v.report.Torn = int64(len(text))
			return nil
		}
		if err := v.check(text); err != nil {
			return v.problem(err)
		}
	}
}

// check takes the next line.
func (v *verifier) check(text []byte) error {
	l, err := v.enc.parseLine(text)
	if err != nil {
		return err
	}
	r := &v.report
	if r.LastSeq == 0 {
		r.Region, r.Instance, r.FirstSeq = l.Region, l.Instance, l.Seq
		if l.Seq == 0 {
			return errors.New("sequence number 0")
		}
		if l.Seq > 1 { // older files were moved away: the chain begins here
			r.LastSeq, v.prev = l.Seq-1, hash(l.Prev)
		}
		r.Covered, v.base = l.Seq-1, l.Seq-1
		if v.witnesses, err = witnessesOf(v.called, r, v.keys); err != nil {
			return err
		}
	}
	if err := l.follows(r.LastSeq, v.prev); err != nil {
		return err
	}
	if l.Region != r.Region || l.Instance != r.Instance {
		return fmt.Errorf("written by instance %q in %q, the lines before by %q in %q", l.Instance, l.Region, r.Instance, r.Region)
	}
	c, ok := l.checkpoint()
	if ok {
		if err := v.checkpoint(c); err != nil {
			return err
		}
	} else {
		r.Records++
		if err := v.restored(&l); err != nil {
			return err
		}
		if w, ok := l.witness(); ok {
			r.Seen = append(r.Seen, w)
		}
	}
	v.prev = sha256.Sum256(text)
	v.open = append(v.open, v.prev)
	at, err := time.Parse(timeFormat, l.Time)
	if err != nil {
		return err
	}
	if r.First.IsZero() {
		r.First = at
	}
	r.Newest, r.LastSeq = at, l.Seq
	if v.each != nil {
		if err := v.each(&l); err != nil {
			return err
		}
	}
	r.Uncovered = r.LastSeq - r.Covered
	return nil
}

func (v *verifier) checkpoint(c SignedCheckpoint) error {
	r := &v.report
	begun, want := r.Checkpoints > 0 || r.FirstSeq == 1 || v.next != 0, r.Last.Number+1
	if v.next != 0 {
		want = v.next
	}
	switch {
	case begun && c.Number != want:
		return fmt.Errorf("checkpoint %d, want %d", c.Number, want)
	case c.Seq < r.FirstSeq: // it covers what was moved away
	case c.Seq <= v.base || c.Seq > r.LastSeq:
		return fmt.Errorf("checkpoint %d covers line %d, want one after %d and before its own", c.Number, c.Seq, v.base)
	case v.open[c.Seq-v.base-1] != c.Hash:
		return fmt.Errorf("checkpoint %d covers another line %d than the one that is here", c.Number, c.Seq)
	}
	if err := c.verifyAny(v.keys); err != nil {
		return fmt.Errorf("checkpoint %d: %w", c.Number, err)
	}
	if err := v.witnesses.compare(c, r); err != nil {
		return err
	}
	if c.Store.Version < r.Last.Store.Version {
		r.Rollbacks = append(r.Rollbacks, c.Number)
	}
	r.Checkpoints++
	r.Last, v.next = c, 0
	if c.Seq >= r.FirstSeq {
		r.Covered = c.Seq
		v.open = slices.Clone(v.open[c.Seq-v.base:])
		v.base = c.Seq
	}
	return nil
}

// end looks for what witnesses saw and the log does not have.
func (v *verifier) end() error {
	v.line++
	last := v.report.Last.Checkpoint
	if v.next != 0 { // restored, and not gone on since: what is missing is what the restore has lost
		last.Number = v.next - 1
	}
	err := v.witnesses.missing(last)
	if err == nil {
		err = v.report.lost()
	}
	if err != nil {
		return v.problem(err)
	}
	return nil
}
