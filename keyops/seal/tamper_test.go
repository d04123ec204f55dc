package seal_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
)

// TestTampering is one table of what somebody does to the file, what the next start finds,
// and what of it can be read.
func TestTampering(t *testing.T) {
	const (
		saveOld = `CREATE TABLE old AS SELECT * FROM store_row`
		putBack = `INSERT OR REPLACE INTO store_row SELECT * FROM old`
	)
	// Each store has key a at version 2, b and c at 1, and d deleted. The table old in it
	// has a at version 1 and d, with their seals.
	prepare := func(t *testing.T) *fixture {
		f := newFixture(t)
		f.put("key", "a", "b", "c", "d")
		f.wantFindings(f.behind(saveOld))
		f.put("key", "a")
		if err := f.update(func(tx *seal.Tx) error { return tx.Delete("key", "d") }); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, tc := range []struct {
		name     string
		do       []string
		findings []string
		reads    map[string]seal.Problem // of keys a to d; "" holds
	}{
		{"nothing", []string{`UPDATE store_row SET version = version`}, nil, map[string]seal.Problem{"d": "NOT_FOUND"}},
		{"a body edited", []string{`UPDATE store_row SET body = X'00' WHERE id = 'a'`},
			[]string{"key a SEAL_WRONG"}, map[string]seal.Problem{"a": seal.SealWrong, "d": "NOT_FOUND"}},
		{"a version raised", []string{`UPDATE store_row SET version = 3 WHERE id = 'a'`},
			[]string{"key a SEAL_WRONG"}, map[string]seal.Problem{"a": seal.RowReplaced, "d": "NOT_FOUND"}},
		{"a seal emptied", []string{`UPDATE store_row SET seal = X'' WHERE id = 'a'`},
			[]string{"key a SEAL_WRONG"}, map[string]seal.Problem{"a": seal.RowReplaced, "d": "NOT_FOUND"}},
		{"two rows swapped", []string{
			`UPDATE store_row SET id = 'x' WHERE id = 'b'`, `UPDATE store_row SET id = 'b' WHERE id = 'c'`, `UPDATE store_row SET id = 'c' WHERE id = 'x'`},
			[]string{"key b SEAL_WRONG", "key c SEAL_WRONG"}, map[string]seal.Problem{"b": seal.RowReplaced, "c": seal.RowReplaced, "d": "NOT_FOUND"}},
		{"a row copied", []string{`INSERT INTO store_row SELECT kind, 'x', version, body, seal FROM store_row WHERE id = 'a'`},
			[]string{"key x SEAL_WRONG"}, map[string]seal.Problem{"d": "NOT_FOUND", "x": seal.RowUnknown}},
		{"a row copied to another kind", []string{`INSERT INTO store_row SELECT 'peer', id, version, body, seal FROM store_row WHERE id = 'a'`},
			[]string{"peer a SEAL_WRONG"}, map[string]seal.Problem{"d": "NOT_FOUND"}},
		{"a row deleted", []string{`DELETE FROM store_row WHERE id = 'a'`},
			[]string{"key a ROW_MISSING"}, map[string]seal.Problem{"a": seal.RowMissing, "d": "NOT_FOUND"}},
		{"an older row put back", []string{`DELETE FROM store_row WHERE id = 'a'`, `INSERT INTO store_row SELECT * FROM old WHERE id = 'a'`},
			[]string{"key a ROW_REPLACED"}, map[string]seal.Problem{"a": seal.RowReplaced, "d": "NOT_FOUND"}},
		{"a deleted row put back", []string{`INSERT INTO store_row SELECT * FROM old WHERE id = 'd'`},
			[]string{"key d ROW_UNKNOWN"}, map[string]seal.Problem{"d": seal.RowUnknown}},
		{"all sealed rows put back", []string{`INSERT OR REPLACE INTO store_row SELECT * FROM old WHERE kind = 'key'`},
			[]string{"key a ROW_REPLACED", "key d ROW_UNKNOWN"}, map[string]seal.Problem{"a": seal.RowReplaced, "d": seal.RowUnknown}},
		{"the head edited", []string{`UPDATE store_row SET body = X'00' WHERE kind = 'head'`},
			[]string{"head store HEAD_WRONG"}, map[string]seal.Problem{"a": seal.HeadWrong, "b": seal.HeadWrong, "c": seal.HeadWrong, "d": seal.HeadWrong}},
		{"the head deleted", []string{`DELETE FROM store_row WHERE kind = 'head'`},
			[]string{"head store HEAD_MISSING"}, map[string]seal.Problem{"a": seal.HeadMissing, "b": seal.HeadMissing, "c": seal.HeadMissing, "d": seal.HeadMissing}},
		{"rows of a name that nobody gives", []string{`INSERT INTO store_row VALUES ('KEY', 'a', 1, X'', X'')`, `INSERT INTO store_row VALUES ('key', 'x y', 1, X'', X'')`},
			[]string{`"KEY" "" ROW_MALFORMED`, `"key" "x y" ROW_MALFORMED`}, map[string]seal.Problem{"d": "NOT_FOUND"}},
		{"a bucket too many", []string{`INSERT INTO store_row VALUES ('bucket', 'zz', 1, X'', X'')`},
			[]string{"bucket zz ROW_UNKNOWN"}, map[string]seal.Problem{"d": "NOT_FOUND"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := prepare(t)
			f.wantFindings(f.behind(tc.do...), tc.findings...)
			check := func() {
				t.Helper()
				for _, id := range []string{"a", "b", "c", "d", "x"} {
					want, listed := tc.reads[id]
					if !listed && id == "x" {
						continue
					}
					if got := f.problem("key", id); got != want {
						t.Errorf("reading key %s: got %q, want %q", id, got, want)
					}
				}
			}
			check()
			// What does not hold cannot be changed, what holds can; and changing the rest
			// does not make the tampering look like our own doing.
			for _, id := range []string{"a", "b", "c"} {
				err := f.update(func(tx *seal.Tx) error { return tx.Put("key", id, []byte("new")) })
				if want := tc.reads[id]; (want == "") != (err == nil) || err != nil && !errors.Is(err, seal.ErrTampered) {
					t.Errorf("writing key %s: got %v, want a refusal because of %q", id, err, want)
				}
			}
			f.stop()
			f.wantFindings(f.start(), tc.findings...)
			check()
		})
	}
	t.Run("the whole store put back", func(t *testing.T) {
		f := prepare(t)
		witness := f.book.Head()
		f.wantFindings(f.behind(`DELETE FROM store_row`, putBack))
		if err := f.book.Head().Behind(witness); !errors.Is(err, seal.ErrRolledBack) {
			t.Errorf("got %v, want %v", err, seal.ErrRolledBack)
		}
	})
	t.Run("the whole store emptied", func(t *testing.T) {
		f := prepare(t)
		witness := f.book.Head()
		f.wantFindings(f.behind(`DELETE FROM store_row`))
		if err := f.book.Head().Behind(witness); !errors.Is(err, seal.ErrRolledBack) {
			t.Errorf("got %v, want %v", err, seal.ErrRolledBack)
		}
	})
}

// TestBucketEdited shows that one bucket's loss refuses its own rows only.
func TestBucketEdited(t *testing.T) {
	for name, change := range map[string]string{
		"edited":  `UPDATE store_row SET body = X'00' WHERE kind = 'bucket' AND id = '%s'`,
		"deleted": `DELETE FROM store_row WHERE kind = 'bucket' AND id = '%s'`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.put("key", "a")
			f.put("key", "b", "c")
			// The first update touched the bucket of a alone, so that bucket is the one whose
			// row was not written by the second.
			mine := seal.BucketOf("key", "a")
			if mine == seal.BucketOf("key", "b") || mine == seal.BucketOf("key", "c") {
				t.Fatal("choose other IDs")
			}
			findings := f.behind(fmt.Sprintf(change, mine))
			f.wantFindings(findings, "bucket "+mine+" BUCKET_WRONG", "key a ROW_UNPROVEN")
			if head := findings.Head(); head != nil {
				t.Errorf("got %v of the head", head)
			}
			if got := f.problem("key", "a"); got != seal.RowUnproven {
				t.Errorf("reading a: got %q", got)
			}
			if err := f.update(func(tx *seal.Tx) error { return tx.Put("key", "a", nil) }); !errors.Is(err, seal.ErrTampered) {
				t.Errorf("writing a: got %v", err)
			}
			f.put("key", "b")
			f.stop()
			f.wantFindings(f.start(), "bucket "+mine+" BUCKET_WRONG", "key a ROW_UNPROVEN")
		})
	}
}

// TestTamperingWhileRunning changes rows under a running daemon.
func TestTamperingWhileRunning(t *testing.T) {
	f := newFixture(t)
	f.put("key", "a", "b", "c")
	db, err := sql.Open("sqlite", f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range []string{
		`UPDATE store_row SET body = X'00' WHERE id = 'a'`, `DELETE FROM store_row WHERE id = 'b'`,
		`INSERT INTO store_row VALUES ('key', 'x', 1, X'', X'')`,
	} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]seal.Problem{"a": seal.SealWrong, "b": seal.RowMissing, "c": "", "x": seal.RowUnknown}
	got := map[string]seal.Problem{}
	err = f.book.View(context.Background(), func(tx *seal.Tx) error {
		return tx.Scan("key", func(row store.Row, bad *seal.Finding) error {
			got[row.ID] = ""
			if bad != nil {
				got[row.ID] = bad.Problem
				if row.Body != nil {
					t.Errorf("%s comes with a body", row.ID)
				}
			}
			return nil
		})
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("error %v, problems (-want +got):\n%s", err, diff)
	}
	for id, p := range want {
		if got := f.problem("key", id); got != p {
			t.Errorf("reading %s: got %q, want %q", id, got, p)
		}
	}
}

func TestOtherKeyOrInstance(t *testing.T) {
	f := newFixture(t)
	f.put("key", "a")
	for name, open := range map[string]func() (*seal.Book, seal.Findings, error){
		"another seal key": func() (*seal.Book, seal.Findings, error) {
			return seal.Open(context.Background(), f.store, &macer{key: "another"}, instance)
		},
		"another instance": func() (*seal.Book, seal.Findings, error) {
			return seal.Open(context.Background(), f.store, f.macer, "kfi-ffffffffffff")
		},
	} {
		book, findings, err := open()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f.wantFindings(findings, "head store HEAD_WRONG", "key a SEAL_WRONG")
		if findings.Head() == nil {
			t.Errorf("%s: no finding about the head", name)
		}
		if err := book.Update(context.Background(), func(tx *seal.Tx) error { return tx.Put("key", "b", nil) }); !errors.Is(err, seal.ErrTampered) {
			t.Errorf("%s: writing: got %v, want %v", name, err, seal.ErrTampered)
		}
		// What is not sealed can still be written: it decides nothing.
		if err := book.Update(context.Background(), func(tx *seal.Tx) error { return tx.Put(store.KindMark, name[:7], nil) }); err != nil {
			t.Errorf("%s: writing a mark: %v", name, err)
		}
	}
	f.macer.away.Store(true)
	if _, _, err := seal.Open(context.Background(), f.store, f.macer, instance); !errors.Is(err, errAway) {
		t.Errorf("without the token: got %v, want %v", err, errAway)
	}
}
