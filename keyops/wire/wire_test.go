package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	_ "github.com/keyferry/keyferry/keyops/keyopstest/seededtest"
	"github.com/keyferry/keyferry/keyops/wire"
)

// TestEncoding pins the bytes: every seal, signature and hash depends on them.
func TestEncoding(t *testing.T) {
	var w wire.Writer
	w.Bytes([]byte{0xab})
	w.Bytes(nil)
	w.String("hé")
	w.Uint(258)
	w.Bool(true)
	w.Bool(false)
	w.Count(2)
	want := "00000001ab" + "00000000" + "0000000368c3a9" + "000000080000000000000102" +
		"000000080000000000000001" + "000000080000000000000000" + "000000080000000000000002"
	if diff := cmp.Diff(want, hex.EncodeToString(w.Out())); diff != "" {
		t.Fatalf("encoding (-want +got):\n%s", diff)
	}
	r := wire.NewReader(w.Out())
	var fixed [1]byte
	r.Fixed(fixed[:])
	got := []any{fixed, r.Bytes(0), r.String(3), r.Uint(), r.Bool(), r.Bool(), r.Count(2)}
	if diff := cmp.Diff([]any{[1]byte{0xab}, []byte{}, "hé", uint64(258), true, false, 2}, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if err := r.Done(); err != nil {
		t.Error(err)
	}
}

func TestMalformed(t *testing.T) {
	field := func(b ...byte) []byte { return append([]byte{0, 0, 0, byte(len(b))}, b...) }
	number := func(last byte) []byte { return field(0, 0, 0, 0, 0, 0, 0, last) }
	for _, tc := range []struct {
		name string
		in   []byte
		read func(*wire.Reader) any
		want string
	}{
		{"nothing", nil, func(r *wire.Reader) any { return r.String(9) }, "field length missing"},
		{"half a length", []byte{0, 0, 0}, func(r *wire.Reader) any { return r.String(9) }, "field length missing"},
		{"length over the bound", field(1, 2), func(r *wire.Reader) any { return r.Bytes(1) }, "field of 2 bytes, at most 1 allowed"},
		{"the greatest length", []byte{0xff, 0xff, 0xff, 0xff}, func(r *wire.Reader) any { return r.Bytes(math.MaxInt) }, "cut short"},
		{"field cut short", []byte{0, 0, 0, 2, 1}, func(r *wire.Reader) any { return r.String(9) }, "field of 2 bytes cut short"},
		{"fixed field too short", field(1), func(r *wire.Reader) any { var b [2]byte; r.Fixed(b[:]); return b }, "field of 1 bytes, want 2"},
		{"fixed field too long", field(1, 2, 3), func(r *wire.Reader) any { var b [2]byte; r.Fixed(b[:]); return b }, "at most 2 allowed"},
		{"integer too short", field(1), func(r *wire.Reader) any { return r.Uint() }, "field of 1 bytes, want 8"},
		{"integer too long", field(0, 0, 0, 0, 0, 0, 0, 0, 1), func(r *wire.Reader) any { return r.Uint() }, "at most 8 allowed"},
		{"boolean of two", number(2), func(r *wire.Reader) any { return r.Bool() }, "boolean of value 2"},
		{"list too long", number(3), func(r *wire.Reader) any { return r.Count(2) }, "list of 3 elements, at most 2 allowed"},
		{"a caller's finding", number(3), func(r *wire.Reader) any { r.Fail("version %d", r.Uint()); return 0 }, "version 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := wire.NewReader(tc.in)
			got := tc.read(r)
			if !errors.Is(r.Err(), wire.ErrMalformed) || !strings.Contains(r.Err().Error(), tc.want) {
				t.Errorf("got error %v, want one that says %q", r.Err(), tc.want)
			}
			if diff := cmp.Diff(tc.read(wire.NewReader(nil)), got); diff != "" {
				t.Errorf("a value came with the error: %v", got)
			}
			first := r.Err()
			after := []any{r.Bytes(9), r.String(9), r.Uint(), r.Bool(), r.Count(9)}
			if diff := cmp.Diff([]any{[]byte(nil), "", uint64(0), false, 0}, after); diff != "" {
				t.Errorf("values after the error (-want +got):\n%s", diff)
			}
			if r.Done() != first {
				t.Errorf("got error %v at the end, want the first, %v", r.Done(), first)
			}
		})
	}
	r := wire.NewReader(append(number(1), 0))
	if n := r.Uint(); n != 1 || r.Err() != nil || !errors.Is(r.Done(), wire.ErrMalformed) {
		t.Errorf("a byte left over: got %d, error %v", n, r.Done())
	}
}

// TestBytesAreCopies shows that what was read does not change with the buffer.
func TestBytesAreCopies(t *testing.T) {
	var w wire.Writer
	w.Bytes([]byte("abc"))
	w.Bytes([]byte("def"))
	in := w.Out()
	r := wire.NewReader(in)
	got := r.Bytes(3)
	clear(in[:7])
	got = append(got, 'x')
	if string(got) != "abcx" || r.String(3) != "def" {
		t.Errorf("got %q", got)
	}
}

// value is one field of any kind.
type value struct {
	Kind   int
	Bytes  []byte
	Number uint64
}

func (v value) write(w *wire.Writer) {
	switch v.Kind {
	case 0:
		w.Bytes(v.Bytes)
	case 1:
		w.String(string(v.Bytes))
	case 2:
		w.Uint(v.Number)
	case 3:
		w.Bool(v.Number == 1)
	case 4:
		w.Count(int(v.Number))
	}
}

func read(r *wire.Reader, kind int) (v value) {
	v.Kind = kind
	switch kind {
	case 0:
		v.Bytes = r.Bytes(100)
	case 1:
		v.Bytes = []byte(r.String(100))
	case 2:
		v.Number = r.Uint()
	case 3:
		if r.Bool() {
			v.Number = 1
		}
	case 4:
		v.Number = uint64(r.Count(1000))
	}
	return v
}

// TestRoundTrip reads back any sequence of fields.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Custom(func(t *rapid.T) value {
			v := value{Kind: rapid.IntRange(0, 4).Draw(t, "kind")}
			switch v.Kind {
			case 0, 1:
				v.Bytes = rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "bytes")
			case 2:
				v.Number = rapid.Uint64().Draw(t, "number")
			case 3:
				v.Number = rapid.Uint64Range(0, 1).Draw(t, "boolean")
			case 4:
				v.Number = rapid.Uint64Range(0, 1000).Draw(t, "count")
			}
			return v
		})).Draw(t, "values")
		var w wire.Writer
		for _, v := range values {
			v.write(&w)
		}
		r := wire.NewReader(w.Out())
		for i, v := range values {
			if got := read(r, v.Kind); got.Kind != v.Kind || !bytes.Equal(got.Bytes, v.Bytes) || got.Number != v.Number {
				t.Fatalf("field %d: got %v, want %v", i, got, v)
			}
		}
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzReader reads any bytes as any fields: there is no panic, and what is accepted has
// one encoding.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4}, []byte("\x00\x00\x00\x01a"))
	var w wire.Writer
	w.Uint(7)
	w.Bytes([]byte("abc"))
	f.Add([]byte{2, 0}, w.Out())
	f.Fuzz(func(t *testing.T, kinds, in []byte) {
		r := wire.NewReader(in)
		var w wire.Writer
		for _, k := range kinds {
			v := read(r, int(k)%5)
			if r.Err() != nil {
				break
			}
			v.write(&w)
		}
		if err := r.Done(); err == nil && !bytes.Equal(w.Out(), in) {
			t.Errorf("accepted %x, writes %x", in, w.Out())
		} else if err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("got error %v, want %v", err, wire.ErrMalformed)
		}
	})
}
