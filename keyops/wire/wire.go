// Package wire is the one binary encoding of everything that is sealed, signed or hashed.
//
// A value is a sequence of fields in a fixed order, each preceded by its length as four
// bytes, big-endian; integers are eight bytes, big-endian. There is one encoding of each
// value, so bytes can be compared and signed, and a decoder that meets anything else
// (a short field, an extra byte, a length over its bound) fails as a whole.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("malformed encoding")

// Writer appends fields. The zero value is ready to use.
type Writer struct{ b []byte }

// NewWriter returns a Writer with room for so many bytes.
func NewWriter(room int) *Writer { return &Writer{make([]byte, 0, room)} }

// Bytes appends one field.
func (w *Writer) Bytes(p []byte) {
	w.b = binary.BigEndian.AppendUint32(w.b, uint32(len(p)))
	w.b = append(w.b, p...)
}

// String appends one field of text.
func (w *Writer) String(s string) {
	w.b = binary.BigEndian.AppendUint32(w.b, uint32(len(s)))
	w.b = append(w.b, s...)
}

// Uint appends one field of eight bytes.
func (w *Writer) Uint(v uint64) {
	w.b = binary.BigEndian.AppendUint32(w.b, 8)
	w.b = binary.BigEndian.AppendUint64(w.b, v)
}

// Bool appends a Uint of 0 or 1.
func (w *Writer) Bool(v bool) {
	if v {
		w.Uint(1)
		return
	}
	w.Uint(0)
}

// Time appends a Uint of the nanoseconds since 1970, and 0 for the zero time.
func (w *Writer) Time(t time.Time) {
	if t.IsZero() {
		w.Uint(0)
		return
	}
	w.Uint(uint64(t.UnixNano()))
}

// Count appends the number of elements of a list; each element follows as its own fields.
func (w *Writer) Count(n int) { w.Uint(uint64(n)) }

// Out returns what was written.
func (w *Writer) Out() []byte { return w.b }

// Reader takes fields in the order in which they were written. After the first error every
// further call returns a zero value, and Done returns that error.
type Reader struct {
	b   []byte
	err error
}

// NewReader reads from b without copying it.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

func (r *Reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
}

// Fail records a caller's own finding, such as a value out of its range.
func (r *Reader) Fail(format string, args ...any) { r.fail(format, args...) }

// Bytes takes one field of at most limit bytes. It returns a copy.
func (r *Reader) Bytes(limit int) []byte {
	p := r.take(limit)
	if p == nil {
		return nil
	}
	return append([]byte{}, p...)
}

func (r *Reader) take(limit int) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.b) < 4 {
		r.fail("field length missing")
		return nil
	}
	n := uint64(binary.BigEndian.Uint32(r.b))
	if n > uint64(limit) {
		r.fail("field of %d bytes, at most %d allowed", n, limit)
		return nil
	}
	if uint64(len(r.b)-4) < n {
		r.fail("field of %d bytes cut short", n)
		return nil
	}
	p := r.b[4 : 4+n : 4+n]
	r.b = r.b[4+n:]
	return p
}

// Fixed takes one field of exactly len(dst) bytes into dst.
func (r *Reader) Fixed(dst []byte) {
	p := r.take(len(dst))
	if r.err == nil && len(p) != len(dst) {
		r.fail("field of %d bytes, want %d", len(p), len(dst))
		return
	}
	copy(dst, p)
}

// String takes one field of text of at most limit bytes.
func (r *Reader) String(limit int) string { return string(r.take(limit)) }

// Uint takes one field of eight bytes.
func (r *Reader) Uint() uint64 {
	var b [8]byte
	r.Fixed(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// Time takes what [Writer.Time] appended, in UTC.
func (r *Reader) Time() time.Time {
	n := r.Uint()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

// Bool takes a Uint that must be 0 or 1.
func (r *Reader) Bool() bool {
	v := r.Uint()
	if v > 1 {
		r.fail("boolean of value %d", v)
	}
	return v == 1
}

// Count takes the number of elements of a list of at most limit.
func (r *Reader) Count(limit int) int {
	n := r.Uint()
	if n > uint64(limit) {
		r.fail("list of %d elements, at most %d allowed", n, limit)
		return 0
	}
	return int(n)
}

// Err returns the first error so far.
func (r *Reader) Err() error { return r.err }

// Done returns the first error, or an error if bytes are left over.
func (r *Reader) Done() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes left over", len(r.b))
	}
	return r.err
}
