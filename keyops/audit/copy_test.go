package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCopy copies beside a writer: whole lines, in all files.
func TestCopy(t *testing.T) {
	f := newFixture(t)
	to := filepath.Join(t.TempDir(), "copy")
	if err := Copy(to, f.cfg.Dir); err != nil {
		t.Fatalf("of no log: %v", err)
	}
	l := f.open()
	f.cover(l)
	f.append(l, "CreateKey")
	f.checkpoint(l)
	f.append(l, "Encrypt")
	whole := f.read()
	torn, err := os.OpenFile(f.path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString(`{"v":1,"se`); err != nil {
		t.Fatal(err)
	}
	if err := torn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Copy(to, f.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(to, fileName(1)))
	if err != nil || !bytes.Equal(got, whole) {
		t.Errorf("copied %d bytes of %d, %v", len(got), len(whole), err)
	}
	if c, seq, err := End(to, keys()); err != nil || c.Number != 1 || seq != l.tip.Load().seq {
		t.Errorf("end of the copy: checkpoint %d, line %d, %v; want line %d", c.Number, seq, err, l.tip.Load().seq)
	}
	if r, err := Verify(os.DirFS(to), keys()); err != nil || r.Torn != 0 {
		t.Errorf("the copy: %+v, %v", r, err)
	}
	if err := Copy(to, f.cfg.Dir); err == nil {
		t.Error("a copy replaced another")
	}
}

// TestChanges tells what was done to keys after a line, and nothing that was only read.
func TestChanges(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	record := func(event, key string, readOnly bool, outcome Outcome) {
		r := Record{Type: APICall, Event: event, Outcome: outcome, ReadOnly: readOnly}
		if key != "" {
			r.Resources = []Resource{{ARN: "arn", KeyID: key}}
		}
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	record("CreateKey", "k1", false, Success)
	after := l.tip.Load().seq
	record("DisableKey", "k1", false, Begun)
	record("DisableKey", "k1", false, Success)
	record("Encrypt", "k1", true, Success)
	record("CreateKey", "k2", false, Success)
	record("EnableKey", "k1", false, Denied)
	record("UpdateSomething", "", false, Success)
	f.close(l)
	got, err := Changes(os.DirFS(f.cfg.Dir), keys(), after)
	if err != nil {
		t.Fatal(err)
	}
	var names [][2]string
	for _, c := range got {
		names = append(names, [2]string{c.Event, c.KeyID})
		if c.Seq <= after || c.Time.IsZero() {
			t.Errorf("change %+v", c)
		}
	}
	if diff := cmp.Diff([][2]string{{"DisableKey", "k1"}, {"CreateKey", "k2"}}, names); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}
