package seal_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
)

func (f *fixture) inspect() seal.Inspection {
	f.Helper()
	in, err := seal.Inspect(context.Background(), f.store, f.macer, instance)
	if err != nil {
		f.Fatal(err)
	}
	return in
}

// reseal approves the store as it is.
func (f *fixture) reseal(witnessed uint64) (*seal.Book, error) {
	return seal.Reseal(context.Background(), f.store, f.macer, instance, seal.Approved{Contents: f.inspect().Contents, Witnessed: witnessed})
}

func TestReseal(t *testing.T) {
	f := newFixture(t)
	f.put("key", "a", "b", "c")
	f.put(store.KindMark, "a:us-east-1")
	findings := f.behind(`UPDATE store_row SET body = X'00' WHERE id = 'a'`, `DELETE FROM store_row WHERE id = 'b'`,
		`UPDATE store_row SET body = X'00' WHERE kind = 'head'`)
	if findings.Head() == nil {
		t.Fatalf("got findings %v", findings)
	}
	book, err := f.reseal(41)
	if err != nil {
		t.Fatal(err)
	}
	if got := book.Head(); got.Version != 42 {
		t.Errorf("got head %v, want version 42, one over the highest that was witnessed", got)
	}
	want := book.Head()
	f.stop()
	f.wantFindings(f.start())
	if got := f.book.Head(); got != want {
		t.Errorf("got head %v after a restart, want %v", got, want)
	}
	for id, want := range map[string]seal.Problem{"a": "", "b": "NOT_FOUND", "c": ""} {
		if got := f.problem("key", id); got != want {
			t.Errorf("reading %s: got %q, want %q", id, got, want)
		}
	}
	f.put("key", "a", "b")

	// A forged head cannot leave no version over it.
	f.wantFindings(f.behind(`UPDATE store_row SET body = substr(body, 1, 16) || X'ffffffffffffffff' || substr(body, 25) WHERE kind = 'head'`),
		"head store HEAD_WRONG")
	if book, err = f.reseal(43); err != nil || book.Head().Version != 44 {
		t.Fatalf("after a forged head: got %v, error %v, want version 44", book, err)
	}

	// With a new seal key, as after the token was replaced.
	f.macer = &macer{key: "new"}
	if _, err := f.reseal(0); err != nil {
		t.Fatal(err)
	}
	f.stop()
	f.wantFindings(f.start())
	if got := f.book.Head().Version; got != 45 {
		t.Errorf("got head version %d, want 45, one over the last", got)
	}
}

// TestInspect: the hash of the contents changes with whatever a new seal would cover, and
// with nothing else.
func TestInspect(t *testing.T) {
	f := newFixture(t)
	f.put("key", "a", "b")
	f.put(store.KindMark, "a:us-east-1")
	before := f.inspect()
	if before.Head != f.book.Head() || before.Rows != 2 || len(before.Findings) != 0 {
		t.Errorf("got %+v, want two rows at head %v", before, f.book.Head())
	}
	f.put(store.KindMark, "b:us-east-1")
	if got := f.inspect(); got.Contents != before.Contents {
		t.Error("a mark, which is not sealed, changed the contents")
	}
	seen := map[[32]byte]string{before.Contents: "before"}
	for _, c := range []struct{ name, do string }{
		{"a body edited", `UPDATE store_row SET body = X'00' WHERE id = 'a'`},
		{"the same body edited again", `UPDATE store_row SET body = X'01' WHERE id = 'a'`},
		{"its seal edited", `UPDATE store_row SET seal = X'00' WHERE id = 'a'`},
		{"its version raised", `UPDATE store_row SET version = 9 WHERE id = 'a'`},
		{"a row renamed", `UPDATE store_row SET id = 'c' WHERE id = 'b'`},
		{"a row moved to another kind", `UPDATE store_row SET kind = 'peer' WHERE id = 'c'`},
		{"a row deleted", `DELETE FROM store_row WHERE id = 'c'`},
		{"a bucket deleted", `DELETE FROM store_row WHERE kind = 'bucket'`},
		{"the head edited", `UPDATE store_row SET body = X'00' WHERE kind = 'head'`},
	} {
		f.behind(c.do)
		got := f.inspect()
		if other, taken := seen[got.Contents]; taken {
			t.Errorf("%s: the same contents as %s", c.name, other)
		}
		if len(got.Findings) == 0 {
			t.Errorf("%s: no findings", c.name)
		}
		seen[got.Contents] = c.name
	}
}

// TestResealOnlyWhatWasApproved: whatever is wrong with the approval leaves the store as it is.
func TestResealOnlyWhatWasApproved(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t)
	f.put("key", "a", "b")
	f.behind(`UPDATE store_row SET body = X'00' WHERE id = 'a'`)
	approved := seal.Approved{Contents: f.inspect().Contents}
	f.behind(`UPDATE store_row SET body = X'01' WHERE id = 'a'`)
	before := f.inspect()
	if _, err := seal.Reseal(ctx, f.store, f.macer, instance, approved); !errors.Is(err, seal.ErrChanged) {
		t.Errorf("edited after it was approved: %v", err)
	}
	approved.Contents = before.Contents
	approved.Record = func(tx store.Tx) error {
		return errors.Join(tx.Put(store.Row{Kind: "approval", ID: "1", Version: 1}), errAway)
	}
	if _, err := seal.Reseal(ctx, f.store, f.macer, instance, approved); !errors.Is(err, errAway) {
		t.Errorf("with a record that refuses: %v", err)
	}
	approved.Record = nil
	f.macer.away.Store(true)
	if _, err := seal.Reseal(ctx, f.store, f.macer, instance, approved); !errors.Is(err, errAway) {
		t.Errorf("without the token: %v", err)
	}
	f.macer.away.Store(false)
	if got := f.inspect(); got.Contents != before.Contents {
		t.Error("a refused reseal changed the store")
	}
	approved.Record = func(tx store.Tx) error { return tx.Put(store.Row{Kind: "approval", ID: "1", Version: 1}) }
	book, err := seal.Reseal(ctx, f.store, f.macer, instance, approved)
	if err != nil {
		t.Fatal(err)
	}
	err = book.View(ctx, func(tx *seal.Tx) error {
		_, err := tx.Get("approval", "1")
		return err
	})
	if err != nil {
		t.Errorf("what was recorded: %v", err)
	}
}

// TestResealMalformed: a row that cannot be sealed stops everything, before anything.
func TestResealMalformed(t *testing.T) {
	for name, do := range map[string]string{
		"kind": `INSERT INTO store_row VALUES ('KEY', 'a', 1, X'', X'')`, "ID": `INSERT INTO store_row VALUES ('key', 'x y', 1, X'', X'')`,
	} {
		f := newFixture(t)
		f.put("key", "a")
		f.behind(do)
		before := f.inspect()
		if _, err := f.reseal(0); !errors.Is(err, seal.ErrTampered) {
			t.Errorf("%s: got %v, want ErrTampered", name, err)
		}
		if f.inspect().Contents != before.Contents {
			t.Errorf("%s: the store changed", name)
		}
	}
}
