package audit

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// StoreHead is the head of the sealed store at the time of a checkpoint. It converts to and
// from seal.Head.
type StoreHead struct {
	Version uint64
	Hash    hash
}

// Checkpoint says that the log had, at its line Seq, this hash, and that the store had this
// head. Checkpoints of one instance are numbered from 1 without a gap.
type Checkpoint struct {
	Region   region.Name
	Instance region.InstanceID
	Number   uint64
	Time     time.Time
	Seq      uint64 // the last line that is covered
	Hash     hash   // of that line
	Store    StoreHead
}

// SignedCheckpoint is a checkpoint as it is shown to peers.
type SignedCheckpoint struct {
	Checkpoint
	Statement statement.Signed
}

const checkpointForm = 1

// payload returns the bytes that are signed.
func (c Checkpoint) payload() []byte {
	var w wire.Writer
	w.Uint(checkpointForm)
	w.String(string(c.Region))
	w.String(string(c.Instance))
	w.Uint(c.Number)
	w.Uint(uint64(c.Time.UnixNano()))
	w.Uint(c.Seq)
	w.Bytes(c.Hash[:])
	w.Uint(c.Store.Version)
	w.Bytes(c.Store.Hash[:])
	return w.Out()
}

// ParseCheckpoint reads a checkpoint from a statement that the caller has verified.
func ParseCheckpoint(s statement.Signed) (SignedCheckpoint, error) {
	if s.Purpose != statement.Checkpoint {
		return SignedCheckpoint{}, fmt.Errorf("parsing checkpoint: it is a %s", s.Purpose)
	}
	r := wire.NewReader(s.Payload)
	if v := r.Uint(); v != checkpointForm {
		r.Fail("checkpoint of form %d", v)
	}
	c := Checkpoint{
		Region:   region.Name(r.String(64)),
		Instance: region.InstanceID(r.String(64)),
		Number:   r.Uint(),
		Time:     time.Unix(0, int64(r.Uint())).UTC(),
		Seq:      r.Uint(),
	}
	r.Fixed(c.Hash[:])
	c.Store.Version = r.Uint()
	r.Fixed(c.Store.Hash[:])
	if err := r.Done(); err != nil {
		return SignedCheckpoint{}, fmt.Errorf("parsing checkpoint: %w", err)
	}
	return SignedCheckpoint{Checkpoint: c, Statement: s}, nil
}

// Verify checks the signature, and that it is over this checkpoint.
func (c SignedCheckpoint) Verify(pub crypto.PublicKey) error {
	s := statement.Signed{Purpose: statement.Checkpoint, Payload: c.payload(), Signature: c.Statement.Signature}
	return s.Verify(pub)
}

// verifyAny accepts the signature of any of the keys.
func (c SignedCheckpoint) verifyAny(keys []crypto.PublicKey) error {
	err := errors.New("no key to verify it with")
	for _, key := range keys {
		if err = c.Verify(key); err == nil {
			return nil
		}
	}
	return err
}

func (c Checkpoint) sign(ctx context.Context, s statement.Signer) (SignedCheckpoint, error) {
	signed, err := statement.Sign(ctx, s, statement.Checkpoint, c.payload())
	if err != nil {
		return SignedCheckpoint{}, fmt.Errorf("signing checkpoint %d: %w", c.Number, err)
	}
	return SignedCheckpoint{Checkpoint: c, Statement: signed}, nil
}

// line returns the checkpoint as a line; its place in the chain is the caller's.
func (c SignedCheckpoint) line() line {
	return line{
		V:        lineVersion,
		Time:     c.Time.UTC().Format(timeFormat),
		Type:     checkpointType,
		Region:   string(c.Region),
		Instance: string(c.Instance),
		Checkpoint: &checkpointField{
			Number:       c.Number,
			Seq:          c.Seq,
			Hash:         hexHash(c.Hash),
			StoreVersion: c.Store.Version,
			StoreHash:    hexHash(c.Store.Hash),
			Signature:    c.Statement.Signature,
		},
	}
}

// checkpoint returns the checkpoint in a line that parseLine accepted, or false.
func (l *line) checkpoint() (SignedCheckpoint, bool) {
	f := l.Checkpoint
	if f == nil {
		return SignedCheckpoint{}, false
	}
	at, err := time.Parse(timeFormat, l.Time)
	if err != nil {
		return SignedCheckpoint{}, false
	}
	c := Checkpoint{
		Region:   region.Name(l.Region),
		Instance: region.InstanceID(l.Instance),
		Number:   f.Number,
		Time:     at,
		Seq:      f.Seq,
		Hash:     hash(f.Hash),
		Store:    StoreHead{f.StoreVersion, hash(f.StoreHash)},
	}
	s := statement.Signed{Purpose: statement.Checkpoint, Payload: c.payload(), Signature: f.Signature}
	return SignedCheckpoint{Checkpoint: c, Statement: s}, true
}
