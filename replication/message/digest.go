package message

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Entry is a key and the hash of its facts.
type Entry struct {
	Key  arn.KeyID
	Hash mrk.Hash
}

// Digest is the hash of each bucket of keys that both ends are or were members of, and
// the first bucket that is asked about.
type Digest struct {
	From   int
	Hashes [Buckets]mrk.Hash
}

// Marshal returns the one encoding of it.
func (d Digest) Marshal() []byte {
	b := make([]byte, 0, Buckets*len(mrk.Hash{}))
	for _, h := range d.Hashes {
		b = append(b, h[:]...)
	}
	var w wire.Writer
	w.Uint(uint64(d.From))
	w.Bytes(b)
	return w.Out()
}

// ParseDigest reads what Marshal wrote, and nothing else.
func ParseDigest(p []byte) (Digest, error) {
	var flat [Buckets * len(mrk.Hash{})]byte
	r := wire.NewReader(p)
	from := r.Uint()
	if from >= Buckets {
		r.Fail("bucket %d", from)
	}
	r.Fixed(flat[:])
	if err := r.Done(); err != nil {
		return Digest{}, fmt.Errorf("parsing digest: %w", err)
	}
	d := Digest{From: int(from)}
	for i := range d.Hashes {
		copy(d.Hashes[i][:], flat[i*len(mrk.Hash{}):])
	}
	return d, nil
}

// DigestAnswer lists the answering Region's entries of the buckets that differ.
type DigestAnswer struct {
	Next      int // the first bucket of which nothing is said yet; Buckets if all is said
	Differing []Differing
}

// Differing lists the entries of one bucket.
type Differing struct {
	Bucket  byte
	Entries []Entry
}

// Marshal returns the one encoding of it.
func (d DigestAnswer) Marshal() []byte {
	var w wire.Writer
	w.Uint(uint64(d.Next))
	w.Count(len(d.Differing))
	for _, b := range d.Differing {
		w.Uint(uint64(b.Bucket))
		w.Count(len(b.Entries))
		for _, e := range b.Entries {
			w.String(string(e.Key))
			w.Bytes(e.Hash[:])
		}
	}
	return w.Out()
}

// ParseDigestAnswer reads what Marshal wrote, and nothing else.
func ParseDigestAnswer(p []byte) (DigestAnswer, error) {
	r := wire.NewReader(p)
	next := r.Uint()
	if next > Buckets {
		r.Fail("bucket %d", next)
		next = 0
	}
	d := DigestAnswer{Next: int(next)}
	left := MaxEntries
	for range r.Count(Buckets) {
		n := r.Uint()
		if n >= next || len(d.Differing) > 0 && n <= uint64(d.Differing[len(d.Differing)-1].Bucket) {
			r.Fail("bucket %d", n)
		}
		b := Differing{Bucket: byte(n)}
		for range r.Count(left) {
			e := Entry{Key: decodeKey(r)}
			r.Fixed(e.Hash[:])
			if r.Err() != nil {
				break
			}
			b.Entries = append(b.Entries, e)
		}
		left -= len(b.Entries)
		d.Differing = append(d.Differing, b)
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return DigestAnswer{}, fmt.Errorf("parsing answer to a digest: %w", err)
	}
	return d, nil
}
