package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// TestRestored puts a log back from a backup: no checkpoint number is used twice, and who
// verifies it with what peers saw is told of the restore, and of no forgery.
func TestRestored(t *testing.T) {
	f := newFixture(t)
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	f.cfg.Now = func() time.Time { return now }
	l := f.open()
	f.cover(l)
	f.append(l, "CreateKey")
	first := f.checkpoint(l)
	f.append(l, "Encrypt")
	backup := f.read() // a record is not covered yet
	f.append(l, "Decrypt")
	second := f.checkpoint(l)
	f.append(l, "Decrypt")
	third := f.checkpoint(l)
	f.close(l)
	saw := []Witness{seen(first), seen(second), seen(third)}

	restore := func(tell bool) {
		t.Helper()
		if err := os.WriteFile(f.path(), backup, 0o600); err != nil {
			t.Fatal(err)
		}
		if !tell {
			return
		}
		if err := Restored(t.Context(), f.cfg, map[string]string{"backupTaken": "monday"}); err != nil {
			t.Fatal(err)
		}
	}
	goOn := func() SignedCheckpoint {
		t.Helper()
		now = now.Add(time.Second)
		l := f.open()
		f.cover(l)
		f.append(l, "Encrypt")
		c := f.checkpoint(l)
		f.close(l)
		return c
	}

	restore(false)
	goOn()
	if _, err := verifyFile(f.read(), saw...); err == nil || errors.Is(err, ErrRestored) {
		t.Errorf("a log that was cut off and continued: %v", err)
	}

	restore(true)
	// Nothing but a restore is told while the log has not gone on.
	if _, err := verifyFile(f.read(), saw...); !errors.Is(err, ErrRestored) {
		t.Errorf("before it goes on: %v", err)
	}
	f.close(f.open()) // a start that comes to no checkpoint forgets nothing
	again := goOn()
	if again.Number <= third.Number || again.Number >= 1<<53 {
		t.Errorf("checkpoint %d after %d", again.Number, third.Number)
	}
	r, err := verifyFile(f.read())
	if err != nil || len(r.Restores) != 1 || r.Restores[0].After != 1 || r.Restores[0].Next != again.Number || r.Restores[0].LostCheckpoint != 0 {
		t.Errorf("without witnesses: %+v, %v", r.Restores, err)
	}
	r, err = verifyFile(f.read(), append(saw, seen(again))...)
	if !errors.Is(err, ErrRestored) || len(r.Restores) != 1 || r.Restores[0].LostCheckpoint != 3 || r.Restores[0].LostSeq != third.Seq {
		t.Errorf("with witnesses: %+v, %v", r.Restores, err)
	}
	if r.Witnesses != 2 { // the first, and the one after
		t.Errorf("%d witnesses agree", r.Witnesses)
	}

	now = now.Add(time.Second)
	restore(true)
	later := goOn()
	if later.Number <= again.Number {
		t.Errorf("a second restore of one backup goes on with checkpoint %d, after %d", later.Number, again.Number)
	}
	saw = append(saw, seen(again))
	if r, err = verifyFile(f.read(), saw...); !errors.Is(err, ErrRestored) || r.Restores[0].LostCheckpoint != again.Number {
		t.Errorf("after the second: %+v, %v", r.Restores, err)
	}

	// A record of a restore hides nothing else.
	cut := f.read()
	for bytes.Contains(cut, fmt.Appendf(nil, `"number":%d`, later.Number)) {
		cut = cut[:bytes.LastIndexByte(bytes.TrimSuffix(cut, []byte("\n")), '\n')+1]
	}
	if _, err := verifyFile(cut, append(saw, seen(later))...); err == nil || errors.Is(err, ErrRestored) {
		t.Errorf("cut off before the checkpoint that a peer saw: %v", err)
	}
}
