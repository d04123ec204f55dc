package message

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/wire"
)

const (
	maxSevered  = 512     // pairs of one message
	maxSevering = 8 << 10 // of one pair with its signatures
)

// Severed is the pairs of instances that a Region knows to be severed. It is the message
// and the answer.
type Severed struct{ Pairs []synchronization.Severed }

// Marshal returns the one encoding of it.
func (s Severed) Marshal() []byte {
	pairs := s.Pairs[:min(len(s.Pairs), maxSevered)]
	var w wire.Writer
	w.Count(len(pairs))
	for _, p := range pairs {
		w.Bytes(p.Encode())
	}
	return w.Out()
}

// ParseSevered reads what Marshal wrote, and nothing else.
func ParseSevered(b []byte) (Severed, error) {
	r := wire.NewReader(b)
	var raw [][]byte
	for range r.Count(maxSevered) {
		raw = append(raw, r.Bytes(maxSevering))
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return Severed{}, fmt.Errorf("parsing severed message: %w", err)
	}
	var s Severed
	for _, b := range raw {
		p, err := synchronization.DecodeSevered(b)
		if err != nil {
			return s, err
		}
		s.Pairs = append(s.Pairs, p)
	}
	return s, nil
}
