package audit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// peerLog is the log of another Region that has kept these checkpoints, and its key.
func peerLog(t *testing.T, kept ...SignedCheckpoint) (fstest.MapFS, []crypto.PublicKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.cfg.Region, f.cfg.Instance = "us-east-1", "kfi-ba9876543210"
	f.cfg.Signer, f.cfg.Keys = statement.HostKey(key), []crypto.PublicKey{key.Public()}
	disk := &faultyFile{}
	l := f.start(disk)
	f.cover(l)
	for _, c := range kept {
		if err := l.Append(context.Background(), WitnessRecord(c)); err != nil {
			t.Fatal(err)
		}
	}
	f.close(l)
	return fstest.MapFS{fileName(1): {Data: disk.durable()}}, f.cfg.Keys
}

// kept are the witnesses in a peer's log, which must hold.
func kept(t *testing.T, checkpoints ...SignedCheckpoint) []Witness {
	t.Helper()
	fsys, keys := peerLog(t, checkpoints...)
	r, err := Verify(fsys, keys)
	if err != nil {
		t.Fatal(err)
	}
	return r.Seen
}

// checkpoints are all that a log has.
func checkpoints(t *testing.T, b []byte) (all []SignedCheckpoint) {
	t.Helper()
	for text := range bytes.Lines(b) {
		l, err := newEncoder().parseLine(bytes.TrimSuffix(text, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := l.checkpoint(); ok {
			all = append(all, c)
		}
	}
	return all
}

// TestPeersLog verifies one Region's log with what another Region's log has kept of it.
func TestPeersLog(t *testing.T) {
	b, rewritten := sample(t), sample(t)
	lines := slices.Collect(bytes.Lines(b))
	all := checkpoints(t, b) // 1 of line 3, 2 of line 6, 3 of line 9
	for _, tc := range []struct {
		name string
		log  []byte
		kept []SignedCheckpoint
		want string
	}{
		{"whole", b, all, ""},
		{"whole, last checkpoint not seen", b, all[:2], ""},
		{"cut off behind checkpoint 1", slices.Concat(lines[:4]...), all[:2], "line 5, after sequence number 4: the log ends at checkpoint 1 of line 3, a witness saw checkpoint 2 of line 6 (us-east-1, line 3): the end was cut off"},
		{"cut off in the middle", slices.Concat(lines[:6]...), all[:2], "the end was cut off"},
		{"cut off before any checkpoint", slices.Concat(lines[:2]...), all[:1], "the end was cut off"},
		{"the unseen tail cut off", slices.Concat(lines[:7]...), all[:2], ""}, // what nobody saw nobody misses
		{"signed anew", rewritten, all[:1], "checkpoint 1 is not the one that was witnessed (us-east-1, line 2): the log was written anew"},
		{"signed anew after what was seen twice", rewritten, all, "the log was written anew"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := verifyFile(tc.log, kept(t, tc.kept...)...)
			var p *Problem
			switch {
			case tc.want == "":
				if err != nil || r.Witnesses != len(tc.kept) || r.Witnessed != tc.kept[len(tc.kept)-1].Seq {
					t.Errorf("got %+v, error %v, want %d witnesses, the last of line %d", r, err, len(tc.kept), tc.kept[len(tc.kept)-1].Seq)
				}
			case !errors.As(err, &p) || !strings.Contains(err.Error(), tc.want):
				t.Errorf("got error %v, want a problem with %q", err, tc.want)
			}
		})
	}
}

// TestTornCheckpoint shows that with a witness not even the last line break can go, without
// which the line looks as if it had never been finished.
func TestTornCheckpoint(t *testing.T) {
	b := sample(t)
	witnesses := kept(t, checkpoints(t, b)[2])
	for i := bytes.LastIndexByte(b[:len(b)-1], '\n'); i < len(b); i++ {
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if r, err := verifyFile(changed, witnesses...); err == nil {
			t.Fatalf("byte %d changed: got %+v, want a problem", i, r)
		}
	}
}

// TestWitnessesProveNothingElse has peers that say more than they saw.
func TestWitnessesProveNothingElse(t *testing.T) {
	b := sample(t)
	last := checkpoints(t, b)[2]
	made := func(change func(*Checkpoint), key *ecdsa.PrivateKey) SignedCheckpoint {
		c := last.Checkpoint
		change(&c)
		s, err := c.sign(context.Background(), statement.HostKey(key))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := made(func(c *Checkpoint) { c.Number = 9 }, stranger)
	other := made(func(c *Checkpoint) { c.Number, c.Region = 9, "ap-tokyo-1" }, testKey())
	earlier := made(func(c *Checkpoint) { c.Number, c.Instance = 9, region.InstanceID("kfi-ffffffffffff") }, testKey())
	r, err := verifyFile(b, kept(t, forged, other, earlier, last)...)
	if err != nil || r.WitnessesUnsigned != 1 || r.Witnesses != 1 {
		t.Errorf("got %+v, error %v, want one witness that counts and one that is not signed", r, err)
	}

	// The fields for people do not decide.
	record := WitnessRecord(last)
	record.Details["number"], record.Details["peer"] = "9", "ap-tokyo-1"
	l := recordLine(&record)
	if w, ok := l.witness(); !ok || w.Number != 3 || w.Region != testRegion {
		t.Errorf("got %+v, %t, want checkpoint 3 of %s", w, ok, testRegion)
	}
	for name, change := range map[string]func(*Record){
		"no checkpoint":     func(r *Record) { delete(r.Details, "checkpoint") },
		"not base64":        func(r *Record) { r.Details["checkpoint"] = "!" },
		"no statement form": func(r *Record) { r.Details["checkpoint"] = "AAAA" },
		"another event":     func(r *Record) { r.Event = "Encrypt" },
		"a call":            func(r *Record) { r.Type = APICall },
	} {
		record := WitnessRecord(last)
		change(&record)
		l := recordLine(&record)
		if w, ok := l.witness(); ok {
			t.Errorf("%s: got witness %+v", name, w)
		}
	}
}

// TestWitnessOfMovedLines shows that what is not here any more is neither missed nor vouched for.
func TestWitnessOfMovedLines(t *testing.T) {
	b := sample(t)
	lines := slices.Collect(bytes.Lines(b))
	fsys := fstest.MapFS{fileName(2): {Data: slices.Concat(lines[5:]...)}}
	r, err := Verify(fsys, keys(), kept(t, checkpoints(t, b)...)...)
	if err != nil || r.FirstSeq != 6 || r.Witnesses != 2 || r.Witnessed != 9 {
		t.Errorf("got %+v, error %v, want the two witnesses of what is here", r, err)
	}
}
