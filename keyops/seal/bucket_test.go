package seal

import (
	"bytes"
	"testing"

	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

func mustEntry(kind store.Kind, id string) entry {
	return entry{name: name{kind, id}, version: 1, seal: make([]byte, 32)}
}

// TestBucketRefuses names what a bucket must not be; all of these are bodies that only a
// forger or a fault could write.
func TestBucketRefuses(t *testing.T) {
	a := mustEntry("key", "a")
	i := a.bucket()
	good := encodeBucket([]entry{a})
	if rows, err := decodeBucket(i, good); err != nil || len(rows) != 1 {
		t.Fatalf("a good bucket: got %v, error %v", rows, err)
	}
	change := func(fn func(*entry)) []byte {
		e := a
		fn(&e)
		return encodeBucket([]entry{e})
	}
	var form wire.Writer
	form.Uint(2)
	form.Count(0)
	for name, body := range map[string][]byte{
		"empty":             {},
		"another form":      form.Out(),
		"one byte short":    good[:len(good)-1],
		"one byte over":     append(bytes.Clone(good), 0),
		"an entry twice":    encodeBucket([]entry{a, a}),
		"another bucket's":  change(func(e *entry) { e.id = "b" }),
		"no kind":           change(func(e *entry) { e.kind = "" }),
		"version zero":      change(func(e *entry) { e.version = 0 }),
		"seal too long":     change(func(e *entry) { e.seal = make([]byte, 65) }),
		"a kind not sealed": encodeBucket([]entry{mustEntry(store.KindMark, "a")}),
	} {
		at := i
		if name == "a kind not sealed" {
			at = mustEntry(store.KindMark, "a").bucket()
		}
		if rows, err := decodeBucket(at, body); err == nil {
			t.Errorf("%s: got %v, want an error", name, rows)
		}
	}
}

// TestBucketsSpread guards against all rows falling into few buckets.
func TestBucketsSpread(t *testing.T) {
	var count [buckets]int
	for i := range 256 * 40 {
		count[name{"key", string(rune('!'+i%90)) + string(rune('!'+i/90))}.bucket()]++
	}
	for i, n := range count {
		if n == 0 || n > 100 {
			t.Errorf("bucket %d has %d of %d rows, want about 40", i, n, 256*40)
		}
	}
}

func FuzzDecodeBucket(f *testing.F) {
	a := mustEntry("key", "a")
	f.Add(a.bucket(), encodeBucket([]entry{a}))
	f.Add(uint8(0), encodeBucket(nil))
	f.Fuzz(func(t *testing.T, i uint8, body []byte) {
		rows, err := decodeBucket(i, body)
		if err == nil && !bytes.Equal(encodeBucket(rows), body) {
			t.Errorf("accepted %x, writes %x", body, encodeBucket(rows))
		}
	})
}

func FuzzDecodeHead(f *testing.F) {
	f.Add(encodeHead(7, &[buckets]hash{}))
	f.Fuzz(func(t *testing.T, body []byte) {
		version, hashes, err := decodeHead(body)
		if err == nil && !bytes.Equal(encodeHead(version, &hashes), body) {
			t.Errorf("accepted %x, writes %x", body, encodeHead(version, &hashes))
		}
	})
}
