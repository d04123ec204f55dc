package audit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRestart(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	f.cover(l)
	f.append(l, "CreateKey")
	f.head.Version = 5
	f.close(l)
	f.close(l)
	if err := l.Append(context.Background(), record("late")); !errors.Is(err, ErrClosed) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("after the end: got %v, want %v", err, ErrClosed)
	}
	if err := l.Ready(); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: got %v, want %v", err, ErrClosed)
	}

	l = f.open()
	if c, ok := l.Last(); !ok || c.Store.Version != 5 || c.Verify(testKey().Public()) != nil {
		t.Errorf("got last checkpoint %+v (%t), want that of the end before", c, ok)
	}
	f.cover(l)
	f.append(l, "Encrypt")
	f.checkpoint(l)
	f.append(l, "Decrypt")
	crash(f, l, 0)

	l = f.open()
	f.close(l)
	var starts []map[string]string
	for _, line := range f.lines() {
		if line.Event == AuditStart {
			delete(line.Details, "lastHash")
			delete(line.Details, "tornHash")
			starts = append(starts, line.Details)
		}
	}
	want := []map[string]string{
		{"lastSequence": "0", "lastCheckpoint": "0", "clean": "true", "tornBytes": "0"},
		{"lastSequence": "4", "lastCheckpoint": "1", "clean": "true", "tornBytes": "0"},
		{"lastSequence": "8", "lastCheckpoint": "2", "clean": "false", "tornBytes": "0"},
	}
	if diff := cmp.Diff(want, starts); diff != "" {
		t.Errorf("details of the starts (-want +got):\n%s", diff)
	}
	f.verify()
}

// crash leaves the file as it is now, without its last bytes, to the next start, as the
// end of a process does.
func crash(f *fixture, l *Log, lost int) {
	f.Helper()
	b := f.read()
	f.close(l)
	if err := os.WriteFile(f.path(), b[:len(b)-lost], 0o600); err != nil {
		f.Fatal(err)
	}
}

// TestTornAnywhere cuts a log at every byte and starts again.
func TestTornAnywhere(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	f.cover(l)
	f.small(l, "CreateKey")
	f.checkpoint(l)
	f.small(l, "Encrypt", "Decrypt")
	f.close(l)
	whole := f.read()
	for n := range len(whole) {
		complete := bytes.Count(whole[:n], []byte("\n"))
		torn := n - (bytes.LastIndexByte(whole[:n], '\n') + 1)
		disk := &faultyFile{now: bytes.Clone(whole[:n])}
		f.close(f.start(disk))
		r := f.verifyBytes(disk.durable())
		text := bytes.Split(disk.durable(), []byte("\n"))[complete]
		start, err := newEncoder().parseLine(text)
		if err != nil || start.Event != AuditStart || r.Torn != 0 ||
			start.Details["tornBytes"] != fmt.Sprint(torn) || start.Details["lastSequence"] != fmt.Sprint(complete) {
			t.Fatalf("cut to %d bytes: error %v, got %+v, report %+v; want %d bytes torn after line %d", n, err, start.Details, r, torn, complete)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(text string) func(*fixture) {
		return func(f *fixture) {
			if err := errors.Join(os.MkdirAll(f.cfg.Dir, 0o700), os.WriteFile(f.path(), []byte(text), 0o600)); err != nil {
				f.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name string
		make func(*fixture)
		want string
	}{
		{"another file", write("listen: 127.0.0.1\n"), "damaged"},
		{"a mode that lets others in", func(f *fixture) {
			write("")(f)
			if err := os.Chmod(f.path(), 0o644); err != nil {
				f.Fatal(err)
			}
		}, "want a file with 0600"},
		{"another writer", func(f *fixture) { f.open() }, "another process"},
		{"another instance's log", func(f *fixture) {
			l := f.open()
			f.cover(l)
			f.close(l)
			f.cfg.Instance = "kfi-ffffffffffff"
		}, "it is the log of instance kfi-0123456789ab"},
		{"a checkpoint of another key", func(f *fixture) {
			l := f.open()
			f.cover(l)
			f.close(l)
			another, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				f.Fatal(err)
			}
			f.cfg.Keys = []crypto.PublicKey{another.Public()}
		}, "damaged: checkpoint 1: verifying checkpoint: signature not valid"},
		{"no signer", func(f *fixture) { f.cfg.Signer = nil }, "must be given"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			tc.make(f)
			before, _ := os.ReadFile(f.path())
			l, err := Open(context.Background(), f.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got log %v, error %v, want one with %q", l, err, tc.want)
			}
			if after, _ := os.ReadFile(f.path()); !bytes.Equal(before, after) {
				t.Error("the refused file was changed")
			}
		})
	}
}
