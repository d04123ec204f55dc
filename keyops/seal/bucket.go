package seal

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

const (
	buckets = 256
	// A bucket grows with the store: at a million rows it has about 4,000 entries of 600
	// bytes at most. The bound is what a row can hold.
	maxEntries = store.MaxBody / 32
	bucketForm = 1
	headForm   = 1
	headID     = "store"
)

type hash = [sha256.Size]byte

// name is the primary key of a row.
type name struct {
	kind store.Kind
	id   string
}

func (n name) compare(o name) int {
	return cmp.Or(cmp.Compare(n.kind, o.kind), cmp.Compare(n.id, o.id))
}

// bucket tells which bucket covers the row. Names are chosen by clients in part, so a hash
// spreads them; who crowds one bucket slows down writes there and gains nothing.
func (n name) bucket() uint8 {
	var w wire.Writer
	w.String(string(n.kind))
	w.String(n.id)
	return sha256.Sum256(w.Out())[0]
}

// entry is what a bucket says of one row.
type entry struct {
	name
	version uint64
	seal    []byte
	// digest is the hash of what was sealed, kept in memory once the token has confirmed
	// the seal, so that reading a row again needs no token. Zero: not confirmed.
	digest hash
}

// bucket lists its rows by name, each once.
//
// The head hashes these lists rather than combining one hash per row by XOR or addition:
// such sums can be met again by a choice among old rows, whose seals are valid.
type bucket struct {
	rows    []entry // sorted by name
	version uint64  // of the bucket's own row; 0 if there is none
	hash    hash    // of the bucket's body; zero if there is none
	broken  bool    // the stored bucket is not the one that the head covers
}

func (b *bucket) find(n name) (int, bool) {
	return slices.BinarySearchFunc(b.rows, n, func(e entry, n name) int { return e.compare(n) })
}

// with returns the rows with e put in, leaving b as it is.
func (b *bucket) with(e entry) []entry {
	i, found := b.find(e.name)
	if found {
		rows := slices.Clone(b.rows)
		rows[i] = e
		return rows
	}
	return slices.Insert(slices.Clone(b.rows), i, e)
}

// without returns the rows without n, leaving b as it is.
func (b *bucket) without(n name) []entry {
	i, found := b.find(n)
	if !found {
		return b.rows
	}
	return slices.Delete(slices.Clone(b.rows), i, i+1)
}

func encodeBucket(rows []entry) []byte {
	var w wire.Writer
	w.Uint(bucketForm)
	w.Count(len(rows))
	for _, e := range rows {
		w.String(string(e.kind))
		w.String(e.id)
		w.Uint(e.version)
		w.Bytes(e.seal)
	}
	return w.Out()
}

// decodeBucket reads the body of the bucket number i. What it accepts, encodeBucket
// returns to the same bytes.
func decodeBucket(i uint8, body []byte) ([]entry, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != bucketForm {
		r.Fail("bucket of form %d", v)
	}
	var rows []entry
	for range r.Count(maxEntries) {
		e := entry{name: name{store.Kind(r.String(32)), r.String(512)}, version: r.Uint(), seal: r.Bytes(64)}
		if r.Err() != nil {
			break
		}
		row := store.Row{Kind: e.kind, ID: e.id, Version: e.version, Seal: e.seal}
		if err := row.Check(); err != nil || !e.kind.Sealed() || e.name.bucket() != i {
			r.Fail("entry that does not belong here")
		}
		if n := len(rows); n > 0 && rows[n-1].compare(e.name) >= 0 {
			r.Fail("entries out of order")
		}
		rows = append(rows, e)
	}
	if err := r.Done(); err != nil {
		return nil, err
	}
	return rows, nil
}

func bucketID(i uint8) string { return hex.EncodeToString([]byte{i}) }

// encodeHead returns the body of the head's row. The head's version is inside, because it
// may have to jump over versions that a witness has seen.
func encodeHead(version uint64, hashes *[buckets]hash) []byte {
	w := wire.NewWriter(24 + buckets*(4+len(hash{})))
	w.Uint(headForm)
	w.Uint(version)
	for i := range hashes {
		w.Bytes(hashes[i][:])
	}
	return w.Out()
}

func decodeHead(body []byte) (version uint64, hashes [buckets]hash, err error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != headForm {
		r.Fail("head of form %d", v)
	}
	version = r.Uint()
	for i := range hashes {
		r.Fixed(hashes[i][:])
	}
	return version, hashes, r.Done()
}
