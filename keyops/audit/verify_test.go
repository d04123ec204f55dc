package audit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/keyferry/keyferry/keyops/statement"
)

// sample is a log of ten lines: start, two records, checkpoint 1, two records, checkpoint
// 2, one record, stop, checkpoint 3.
func sample(t *testing.T) []byte {
	t.Helper()
	f := newFixture(t)
	disk := &faultyFile{}
	l := f.start(disk)
	f.cover(l)
	f.append(l, "CreateKey")
	f.small(l, "Encrypt")
	f.head.Version = 1
	f.checkpoint(l)
	f.small(l, "Decrypt", "Sign")
	f.head.Version = 2
	f.checkpoint(l)
	f.small(l, "Verify")
	f.close(l)
	return disk.durable()
}

func verifyFile(b []byte, witnesses ...Witness) (Report, error) {
	return Verify(fstest.MapFS{fileName(1): {Data: b}}, keys(), witnesses...)
}

func seen(c SignedCheckpoint) Witness { return Witness{c, "us-east-1", 7} }

// TestEveryByteCounts changes each byte in two ways. Each change must be found, unless
// it is in the last line break, which leaves a line that was never finished.
func TestEveryByteCounts(t *testing.T) {
	b := sample(t)
	good, err := verifyFile(b)
	if err != nil || good.Covered != 9 || good.LastSeq != 10 {
		t.Fatalf("the sample itself: %+v, error %v", good, err)
	}
	for i := range b {
		for _, flip := range []byte{0x01, b[i] ^ '\n'} {
			if flip == 0 {
				continue
			}
			changed := bytes.Clone(b)
			changed[i] ^= flip
			r, err := verifyFile(changed)
			var p *Problem
			switch {
			case errors.As(err, &p):
				if want := bytes.Count(b[:i], []byte("\n")) + 1; p.Line != want && p.Line != want+1 || p.File != fileName(1) {
					t.Fatalf("byte %d of line %d: the problem is said to be at %v", i, want, p)
				}
			case err == nil && i == len(b)-1 && r.Torn > 0 && r.Covered < good.Covered:
			default:
				t.Fatalf("byte %d (%q) changed by %#x: got %+v, error %v, want a problem", i, b[i], flip, r, err)
			}
		}
	}
}

// TestRewritten gives each changed log a chain that is right again, as whoever can write
// the file would.
func TestRewritten(t *testing.T) {
	whole := slices.Collect(bytes.Lines(sample(t)))
	forge := func(lines ...[]byte) []byte { return rechain(t, lines) }
	replace := func(i int, old, with string) [][]byte {
		c := slices.Clone(whole)
		c[i] = bytes.Replace(c[i], []byte(old), []byte(with), 1)
		if bytes.Equal(c[i], whole[i]) {
			t.Fatalf("line %d has no %q", i+1, old)
		}
		return c
	}
	without := func(i int) [][]byte { return slices.Delete(slices.Clone(whole), i, i+1) }
	if r, err := verifyFile(forge(whole...)); err != nil || r.LastSeq != 10 {
		t.Fatalf("the forger's tool spoils the log: %+v, error %v", r, err)
	}
	for _, tc := range []struct {
		name string
		log  []byte
		want string
	}{
		{"a record changed", forge(replace(1, "CreateKey", "DeleteKey")...), "line 4, after sequence number 3: checkpoint 1 covers another line 3"},
		{"a record removed", forge(without(2)...), "checkpoint 1 covers line 3"},
		{"a record inserted", forge(slices.Insert(slices.Clone(whole), 1, whole[1])...), "checkpoint 1 covers another line 3"},
		{"two records swapped", forge(whole[0], whole[2], whole[1], whole[3]), "checkpoint 1 covers another line 3"},
		{"a checkpoint removed", forge(without(3)...), "checkpoint 2, want 1"},
		{"the first checkpoint removed with its records", forge(append([][]byte{whole[0]}, whole[4:]...)...), "checkpoint 2, want 1"},
		{"a checkpoint given twice", forge(slices.Insert(slices.Clone(whole), 4, whole[3])...), "checkpoint 1, want 2"},
		{"a checkpoint with another number", forge(replace(3, `"number":1`, `"number":2`)...), "checkpoint 2, want 1"},
		{"a checkpoint with another head", forge(replace(3, `"storeVersion":1`, `"storeVersion":2`)...), "signature not valid"},
		{"a checkpoint with another time", forge(replace(3, `"time":"`, `"time":"1`)...), "not in the form"},
		{"a checkpoint with more in it", forge(replace(3, `"region"`, `"event":"Encrypt","region"`)...), "not in the form"},
		{"a checkpoint that is a record", forge(replace(3, `"type":"Checkpoint"`, `"type":"ApiCall"`)...), "not in the form"},
		{"a record that is a checkpoint", forge(replace(1, `"type":"ApiCall"`, `"type":"Checkpoint"`)...), "not in the form"},
		{"another instance", forge(replace(1, testInstance, "kfi-ffffffffffff")...), "written by instance"},
		{"another version", forge(replace(1, `"v":1`, `"v":2`)...), "line of version 2"},
		{"an unknown field", forge(replace(1, `"event"`, `"mfa":"no","event"`)...), "not in the form"},
		{"a field twice", forge(replace(1, `"event"`, `"event":"Encrypt","event"`)...), "not in the form"},
		{"an empty line", forge(slices.Insert(slices.Clone(whole), 1, []byte("\n"))...), "line 2"},
		{"a line that is too long", append(slices.Concat(whole[:3]...), bytes.Repeat([]byte("x"), 2*maxLine)...), "longer than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := verifyFile(tc.log)
			var p *Problem
			if !errors.As(err, &p) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %+v, error %v, want a problem with %q", r, err, tc.want)
			}
		})
	}
}

// rechain sets sequence numbers and hashes anew, line by line.
func rechain(t *testing.T, lines [][]byte) []byte {
	t.Helper()
	var out []byte
	var prev hash
	for i, text := range lines {
		if at := bytes.Index(text, []byte(`"seq":`)); at >= 0 {
			end := bytes.IndexByte(text[at:], ',') + at
			text = slices.Concat(text[:at], fmt.Appendf(nil, `"seq":%d`, i+1), text[end:])
		}
		if at := bytes.Index(text, []byte(`"prev":"`)); at >= 0 {
			text = slices.Concat(text[:at+8], fmt.Appendf(nil, "%x", prev), text[at+8+64:])
		}
		prev = sha256.Sum256(bytes.TrimSuffix(text, []byte("\n")))
		out = append(out, text...)
	}
	return out
}

// TestTruncated cuts off whole lines, which the log alone cannot tell from an earlier end;
// a witness can.
func TestTruncated(t *testing.T) {
	b := sample(t)
	lines := slices.Collect(bytes.Lines(b))
	whole, err := verifyFile(b)
	if err != nil {
		t.Fatal(err)
	}
	covered := map[int]uint64{3: 0, 4: 3, 6: 3, 7: 6, 9: 6, 10: 9}
	for n, want := range covered {
		cut := slices.Concat(lines[:n]...)
		r, err := verifyFile(cut)
		if err != nil || r.Covered != want || r.Uncovered != uint64(n)-want {
			t.Errorf("%d lines: got %+v, error %v, want %d covered and the rest not", n, r, err, want)
		}
		_, err = verifyFile(cut, seen(whole.Last))
		var p *Problem
		if (n < 10) != errors.As(err, &p) || p != nil && !strings.Contains(p.Error(), "a witness saw checkpoint 3") {
			t.Errorf("%d lines with a witness of checkpoint 3: got %v", n, err)
		}
	}
}

// TestSignedAnew has somebody with the PIN write another history.
func TestSignedAnew(t *testing.T) {
	first, second := sample(t), sample(t)
	r, err := verifyFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyFile(second); err != nil {
		t.Fatalf("without a witness both hold: %v", err)
	}
	if _, err := verifyFile(second, seen(r.Last)); err == nil || !strings.Contains(err.Error(), "not the one that was witnessed") {
		t.Errorf("got %v, want the witness to disagree", err)
	}
	other, err := verifyFile(second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyFile(first, seen(r.Last), seen(other.Last)); err == nil || !strings.Contains(err.Error(), "two logs were signed") {
		t.Errorf("got %v, want the witnesses to disagree", err)
	}
}

func TestVerifyKeys(t *testing.T) {
	b := sample(t)
	another, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{fileName(1): {Data: b}}
	if _, err := Verify(fsys, nil); err == nil {
		t.Error("verified without a key")
	}
	if _, err := Verify(fsys, []crypto.PublicKey{another.Public()}); !errors.Is(err, statement.ErrSignature) {
		t.Errorf("with another key: got %v, want %v", err, statement.ErrSignature)
	}
	if _, err := Verify(fsys, []crypto.PublicKey{another.Public(), testKey().Public()}); err != nil {
		t.Errorf("with an older key beside: %v", err)
	}
	if _, err := Verify(fstest.MapFS{"other.jsonl": {Data: b}}, keys()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a log: got %v, want %v", err, fs.ErrNotExist)
	}
}

// TestSeveralFiles spreads one chain over files.
func TestSeveralFiles(t *testing.T) {
	lines := slices.Collect(bytes.Lines(sample(t)))
	at := func(cuts ...int) fstest.MapFS {
		fsys, from := fstest.MapFS{"notes.txt": {}}, 0
		for i, to := range append(cuts, len(lines)) {
			fsys[fileName(i+1)] = &fstest.MapFile{Data: slices.Concat(lines[from:to]...)}
			from = to
		}
		return fsys
	}
	want, err := Verify(at(), keys())
	if err != nil {
		t.Fatal(err)
	}
	for _, cuts := range [][]int{{4}, {1, 2, 3}, {7, 9}, {5, 5}} {
		r, err := Verify(at(cuts...), keys())
		if err != nil || r.LastSeq != want.LastSeq || r.Covered != want.Covered || r.Files != len(cuts)+1 {
			t.Errorf("cut at %v: got %+v, error %v", cuts, r, err)
		}
	}

	moved := at(2, 5)
	delete(moved, fileName(1))
	if r, err := Verify(moved, keys()); err != nil || r.FirstSeq != 3 || r.Covered != 9 || r.Checkpoints != 3 {
		t.Errorf("with the first file moved away: got %+v, error %v", r, err)
	}
	// Checkpoint 1 comes first now, and covers a line that was moved away.
	moved = at(3)
	delete(moved, fileName(1))
	if r, err := Verify(moved, keys()); err != nil || r.FirstSeq != 4 || r.Covered != 9 {
		t.Errorf("with a checkpoint first: got %+v, error %v", r, err)
	}
	missing := at(2, 5)
	delete(missing, fileName(2))
	if _, err := Verify(missing, keys()); err == nil || !strings.Contains(err.Error(), "audit-000002.jsonl is missing") {
		t.Errorf("with a file missing: got %v", err)
	}
	torn := at(2, 5)
	torn[fileName(2)].Data = bytes.TrimSuffix(torn[fileName(2)].Data, []byte("\n"))
	if _, err := Verify(torn, keys()); err == nil || !strings.Contains(err.Error(), "another file follows") {
		t.Errorf("with a torn line before the last file: got %v", err)
	}
}

// TestStoreWentBack shows a restored store in the report.
func TestStoreWentBack(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	f.cover(l)
	for _, v := range []uint64{5, 3, 4} {
		f.head.Version = v
		f.append(l, "CreateKey")
		f.checkpoint(l)
	}
	f.close(l)
	if r := f.verify(); !slices.Equal(r.Rollbacks, []uint64{2}) {
		t.Errorf("got rollbacks %v, want checkpoint 2", r.Rollbacks)
	}
}

func TestFileNames(t *testing.T) {
	for name, want := range map[string]int{
		"audit-000001.jsonl": 1, "audit-123456.jsonl": 123456, "audit-1234567.jsonl": 1234567,
		"audit-000000.jsonl": 0, "audit-1.jsonl": 0, "audit-0000001.jsonl": 0, "audit-+00001.jsonl": 0,
		"audit-000001.jsonl.gz": 0, "audit-000001": 0, "000001.jsonl": 0, "audit--00001.jsonl": 0,
	} {
		if got := fileNumber(name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	e := newEncoder()
	r := record("Encrypt")
	l := recordLine(&r)
	b, err := e.encode(&l)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(b[:len(b)-1]))
	c, err := Checkpoint{Region: testRegion, Instance: testInstance, Number: 1, Seq: 1}.sign(context.Background(), statement.HostKey(testKey()))
	if err != nil {
		f.Fatal(err)
	}
	l = c.line()
	if b, err = e.encode(&l); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(b[:len(b)-1]))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newEncoder()
		l, err := e.parseLine(b)
		if err != nil {
			return
		}
		again, err := e.encode(&l)
		if err != nil || !bytes.Equal(again, append(bytes.Clone(b), '\n')) {
			t.Errorf("accepted %q, writes %q, error %v", b, again, err)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(Checkpoint{Region: testRegion, Instance: testInstance, Number: 1, Seq: 1}.payload())
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := ParseCheckpoint(statement.Signed{Purpose: statement.Checkpoint, Payload: payload})
		if err == nil && !bytes.Equal(c.payload(), payload) {
			t.Errorf("accepted %x, writes %x", payload, c.payload())
		}
	})
}
