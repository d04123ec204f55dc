package keyops_test

import (
	"bytes"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

// vault is a Region whose store somebody is about to change. Key a has changed since the
// table old, and the file, were copied; key d did not exist then; b is a multi-Region key.
type vault struct {
	*keyopstest.Region
	keys  map[string]arn.KeyID
	blobs map[string][]byte
	file  string // an old copy of the file
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{
		Region: keyopstest.New(t, keyopstest.Options{Operators: 3}),
		keys:   map[string]arn.KeyID{}, blobs: map[string][]byte{}, file: t.TempDir() + "/old.db",
	}
	v.create(t, "a", keyops.CreateKeyInput{Description: "before"})
	v.create(t, "b", keyops.CreateKeyInput{MultiRegion: true})
	v.create(t, "c", keyops.CreateKeyInput{})
	v.behind(t, `CREATE TABLE old AS SELECT * FROM store_row`)
	copyStore(t, v.StorePath, v.file)
	v.start(t)
	if err := second(v.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: string(v.keys["a"])})); err != nil {
		t.Fatal(explain(err))
	}
	v.create(t, "d", keyops.CreateKeyInput{})
	v.Stop()
	return v
}

func (v *vault) create(t *testing.T, name string, in keyops.CreateKeyInput) {
	t.Helper()
	k := create(t, v.Region, in)
	blob, err := encryptWith(v.Region, k)
	if err != nil {
		t.Fatal(explain(err))
	}
	v.keys[name], v.blobs[name] = k.KeyID, blob
}

func (v *vault) start(t *testing.T) {
	t.Helper()
	if err := startErr(v.Region); err != nil {
		t.Fatal(explain(err))
	}
}

// behind changes the file of the stopped Region; a, b, c and d in statements stand for keys.
func (v *vault) behind(t *testing.T, statements ...string) {
	t.Helper()
	v.Stop()
	db, err := sql.Open("sqlite", v.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		for name, id := range v.keys {
			s = strings.ReplaceAll(s, "$"+name, "'"+string(id)+"'")
		}
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// editBody changes bytes inside a row, so that it still decodes.
func (v *vault) editBody(t *testing.T, key, old, with string) {
	t.Helper()
	v.Stop()
	db, err := sql.Open("sqlite", v.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var body []byte
	if err := db.QueryRow(`SELECT body FROM store_row WHERE kind = 'key' AND id = $1`, string(v.keys[key])).Scan(&body); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(body, []byte(old), []byte(with), 1)
	if bytes.Equal(changed, body) || len(changed) != len(body) {
		t.Fatalf("%q is not in the row", old)
	}
	if _, err := db.Exec(`UPDATE store_row SET body = $1 WHERE kind = 'key' AND id = $2`, changed, string(v.keys[key])); err != nil {
		t.Fatal(err)
	}
}

// serving lists the keys that decrypt what they have encrypted.
func (v *vault) serving() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(v.keys)) {
		if decryptWith(v.Region, v.blobs[name]) == nil {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// TestTamperedStore is one table of what somebody does to the file: what is noticed, what is
// served meanwhile, and what is served once operators have agreed to believe it.
func TestTamperedStore(t *testing.T) {
	swap := []string{`UPDATE store_row SET id = 'x' WHERE id = $a`, `UPDATE store_row SET id = $a WHERE id = $c`, `UPDATE store_row SET id = $c WHERE id = 'x'`}
	for _, tc := range []struct {
		name     string
		do       func(*testing.T, *vault)
		findings []string // problem and key
		behind   error    // whether the store as a whole went back
		serving  string   // before the new seal; "-" if the Region does not start
		after    string
	}{
		{"nothing", func(*testing.T, *vault) {}, nil, nil, "a b c d", "a b c d"},
		{"a row edited", func(t *testing.T, v *vault) { v.editBody(t, "a", "before", "BEFORE") },
			[]string{"SEAL_WRONG a"}, nil, "b c d", "a b c d"},
		// What is believed of a swapped row is not believed of the token's objects: their
		// material IDs name the key. An object that no row lists any more is taken back.
		{"two rows swapped", func(t *testing.T, v *vault) { v.behind(t, swap...) },
			[]string{"SEAL_WRONG a", "SEAL_WRONG c"}, nil, "b d", "b d"},
		{"a row copied over another", func(t *testing.T, v *vault) {
			v.behind(t, `UPDATE store_row SET body = (SELECT body FROM store_row WHERE id = $a), seal = (SELECT seal FROM store_row WHERE id = $a) WHERE id = $c`)
		}, []string{"SEAL_WRONG c"}, nil, "a b d", "a b c d"},
		{"a row deleted", func(t *testing.T, v *vault) { v.behind(t, `DELETE FROM store_row WHERE id = $a`) },
			[]string{"ROW_MISSING a"}, nil, "b c d", "b c d"},
		{"an older row put back", func(t *testing.T, v *vault) {
			v.behind(t, `DELETE FROM store_row WHERE id = $a`, `INSERT INTO store_row SELECT * FROM old WHERE id = $a`)
		}, []string{"ROW_REPLACED a"}, nil, "b c d", "a b c d"},
		{"all older rows put back", func(t *testing.T, v *vault) {
			v.behind(t, `DELETE FROM store_row WHERE kind = 'key'`, `INSERT INTO store_row SELECT * FROM old WHERE kind = 'key'`)
		}, []string{"ROW_MISSING d", "ROW_REPLACED a"}, nil, "b c", "a b c"},
		{"the whole store put back, inside the file", func(t *testing.T, v *vault) {
			v.behind(t, `DELETE FROM store_row`, `INSERT INTO store_row SELECT * FROM old`)
		}, nil, seal.ErrRolledBack, "-", "a b c"},
		{"the whole store put back, as a file", func(t *testing.T, v *vault) { v.Stop(); copyStore(t, v.file, v.StorePath) },
			nil, seal.ErrRolledBack, "-", "a b c"},
		{"all rows deleted, seals and all", func(t *testing.T, v *vault) { v.behind(t, `DELETE FROM store_row WHERE kind <> 'meta'`) },
			nil, seal.ErrRolledBack, "-", ""},
		{"the head edited", func(t *testing.T, v *vault) { v.behind(t, `UPDATE store_row SET body = X'00' WHERE kind = 'head'`) },
			[]string{"HEAD_WRONG store"}, nil, "-", "a b c d"},
		{"the head deleted", func(t *testing.T, v *vault) { v.behind(t, `DELETE FROM store_row WHERE kind = 'head'`) },
			[]string{"HEAD_MISSING store"}, nil, "-", "a b c d"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newVault(t)
			tc.do(t, v)
			in, _ := v.Inspect(t)
			if got := v.name(in.Findings); !slices.Equal(got, tc.findings) {
				t.Errorf("findings %v, want %v", got, tc.findings)
			}
			if !errors.Is(in.Behind, tc.behind) || (in.Err() == nil) != (tc.name == "nothing") {
				t.Errorf("behind: %v, want %v; in all: %v", in.Behind, tc.behind, in.Err())
			}
			v.check(t, tc.serving)
			if tc.name == "nothing" {
				_, q := v.Inspect(t)
				if _, err := v.Reseal(t.Context(), v.Approve(t, q, 2)); !errors.Is(err, keyops.ErrNothingToReseal) {
					t.Errorf("a store that holds: %v", err)
				}
				return
			}
			// What the daemon wrote meanwhile has changed the store, so operators look again.
			in, q := v.Inspect(t)
			head, err := v.Reseal(t.Context(), v.Approve(t, q, 2))
			if err != nil {
				t.Fatal(err)
			}
			if head.Version <= in.Head.Version || head.Version <= in.Witnessed.Version {
				t.Errorf("the new head %v is not over %v and %v", head, in.Head, in.Witnessed)
			}
			v.check(t, tc.after)
			v.check(t, tc.after) // and it stays so
			if in, _ := v.Inspect(t); in.Err() != nil {
				t.Errorf("after all: %v", in.Err())
			}
		})
	}
}

// check starts the Region, compares what it serves, and stops it.
func (v *vault) check(t *testing.T, want string) {
	t.Helper()
	err := startErr(v.Region)
	defer v.Stop()
	if want == "-" {
		if !errors.Is(err, seal.ErrRolledBack) && !errors.Is(err, seal.ErrTampered) {
			t.Errorf("started, or not for the store: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(explain(err))
	}
	if got := v.serving(); got != want {
		t.Errorf("serves %q, want %q", got, want)
	}
}

// name gives findings with the names of keys.
func (v *vault) name(all seal.Findings) []string {
	var names []string
	for _, f := range all {
		id := f.ID
		for name, key := range v.keys {
			if id == string(key) {
				id = name
			}
		}
		names = append(names, string(f.Problem)+" "+id)
	}
	slices.Sort(names)
	return names
}

// TestResealNeedsApprovals: whatever is not the approval of enough operators of exactly this
// store, now, changes nothing.
func TestResealNeedsApprovals(t *testing.T) {
	v := newVault(t)
	v.editBody(t, "a", "before", "BEFORE")
	before, q := v.Inspect(t)
	other := newVault(t)
	change := func(fn func(*approval.Request)) []statement.File {
		c := q
		c.Object = slices.Clone(q.Object)
		fn(&c)
		return v.Approve(t, c, 3)
	}
	for name, files := range map[string][]statement.File{
		"none":                  nil,
		"one of two":            v.Approve(t, q, 1),
		"one twice":             slices.Repeat(v.Approve(t, q, 1), 2),
		"another Region's":      other.Approve(t, q, 3),
		"of another operation":  change(func(q *approval.Request) { q.Operation = approval.ChangeRoster }),
		"of another instance":   change(func(q *approval.Request) { q.Instance = string(other.Descriptor.Instance) }),
		"of another head":       change(func(q *approval.Request) { q.Object[0].Text = seal.Head{}.String() }),
		"of other contents":     change(func(q *approval.Request) { q.Object[3].Text += "0" }),
		"of fewer findings":     change(func(q *approval.Request) { q.Object = q.Object[:5] }),
		"expired":               change(func(q *approval.Request) { q.Expires = time.Unix(1, 0).UTC() }),
		"that live too long":    change(func(q *approval.Request) { q.Expires = q.Expires.Add(approval.MaxLife) }),
		"of two requests, each": {v.Approve(t, q, 1)[0], change(func(q *approval.Request) { q.Serial = approval.NewSerial() })[1]},
	} {
		_, err := v.Reseal(t.Context(), files)
		if !errors.Is(err, approval.ErrNotEnough) && !errors.Is(err, approval.ErrExpired) {
			t.Errorf("approvals %s: got %v", name, err)
		}
	}
	approved := v.Approve(t, q, 2)
	v.editBody(t, "a", "BEFORE", "Before") // the same finding, other contents
	if _, err := v.Reseal(t.Context(), approved); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("edited after it was approved: %v", err)
	}
	v.editBody(t, "a", "Before", "BEFORE")
	if after, _ := v.Inspect(t); after.Contents != before.Contents {
		t.Error("a refusal changed the store")
	}
	v.check(t, "b c d")
}

// TestResealOnce: approvals are used up, also when somebody puts the very store back that
// they were for, in which nothing is remembered of them.
func TestResealOnce(t *testing.T) {
	v := newVault(t)
	copyStore(t, v.file, v.StorePath)
	_, q := v.Inspect(t)
	approved := v.Approve(t, q, 2)
	head, err := v.Reseal(t.Context(), approved)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Reseal(t.Context(), approved); !errors.Is(err, keyops.ErrNothingToReseal) {
		t.Errorf("again: %v", err)
	}
	copyStore(t, v.file, v.StorePath)
	again, _ := v.Inspect(t)
	if again.Witnessed != head {
		t.Errorf("witnessed is %v, want the head that was sealed, %v", again.Witnessed, head)
	}
	if _, err := v.Reseal(t.Context(), approved); !errors.Is(err, approval.ErrNotEnough) || !strings.Contains(err.Error(), `"witnessed head"`) {
		t.Errorf("on the same old store: %v", err)
	}
	v.check(t, "-")
	if after, _ := v.Inspect(t); after.Contents != again.Contents {
		t.Error("a refusal changed the store")
	}
}

func TestUseOnce(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	one, two := approval.Request{Serial: approval.NewSerial()}, approval.Request{Serial: approval.NewSerial()}
	for i, step := range []struct {
		q    approval.Request
		want error
	}{{one, nil}, {one, approval.ErrUsed}, {two, nil}} {
		if err := r.UseOnce(t.Context(), step.q); !errors.Is(err, step.want) {
			t.Errorf("step %d: got %v, want %v", i, err, step.want)
		}
	}
	r.Restart(t)
	if err := r.UseOnce(t.Context(), two); !errors.Is(err, approval.ErrUsed) {
		t.Errorf("after a start: %v", err)
	}
}

// TestResealOverPeers: what a peer has witnessed counts like what the own log says, also
// when store and log were both put back.
func TestResealOverPeers(t *testing.T) {
	v := newVault(t)
	v.Witnessed = []audit.StoreHead{{Version: 99}}
	in, q := v.Inspect(t)
	if !errors.Is(in.Behind, seal.ErrRolledBack) {
		t.Errorf("behind: %v", in.Behind)
	}
	head, err := v.Reseal(t.Context(), v.Approve(t, q, 2))
	if err != nil || head.Version != 100 {
		t.Errorf("head %v, %v; want version 100", head, err)
	}
	v.check(t, "a b c d")
}

// TestResealIsAudited: who approved what is in the log, which still verifies.
func TestResealIsAudited(t *testing.T) {
	v := newVault(t)
	copyStore(t, v.file, v.StorePath)
	_, q := v.Inspect(t)
	if _, err := v.Reseal(t.Context(), v.Approve(t, q, 2)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range auditLines(t, v.Region, "") {
		if l.Event == keyops.EventResealStore {
			got = append(got, l.Outcome+" "+l.Details["request"]+" by "+l.Details["approvedBy"])
		}
	}
	want := []string{"Begun " + q.ID() + " by operator-1, operator-2", "Success " + q.ID() + " by operator-1, operator-2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// TestResealCrashes fails each stage of the one transaction: the store is resealed or as it
// was, and the same approvals do it in the end, or are used.
func TestResealCrashes(t *testing.T) {
	for _, stage := range []storetest.Stage{storetest.Before, storetest.Within, storetest.After} {
		v := newVault(t)
		copyStore(t, v.file, v.StorePath)
		_, q := v.Inspect(t)
		approved := v.Approve(t, q, 2)
		v.Options.Store = func(s store.Store) store.Store {
			return storetest.NewFaulty(s, func(p storetest.Point) error {
				if p.Stage == stage {
					return storetest.ErrCrash
				}
				return nil
			})
		}
		if _, err := v.Reseal(t.Context(), approved); !errors.Is(err, storetest.ErrCrash) {
			t.Fatalf("%s: got %v", stage, err)
		}
		v.Options.Store = nil
		if stage == storetest.After {
			v.check(t, "a b c")
			continue
		}
		v.check(t, "-")
		if _, err := v.Reseal(t.Context(), approved); err != nil {
			t.Errorf("%s: again: %v", stage, err)
		}
		v.check(t, "a b c")
	}
}

// TestInspectWhileServing: operators may look while the daemon serves.
func TestInspectWhileServing(t *testing.T) {
	v := newVault(t)
	v.start(t)
	if in, _ := v.Inspect(t); in.Err() != nil || in.Head != v.StoreHead() {
		t.Errorf("%v at head %v, want none at %v", in.Err(), in.Head, v.StoreHead())
	}
	db, err := sql.Open("sqlite", v.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE store_row SET body = X'00' WHERE id = $1`, string(v.keys["a"])); err != nil {
		t.Fatal(err)
	}
	if in, _ := v.Inspect(t); !slices.Equal(v.name(in.Findings), []string{"SEAL_WRONG a"}) {
		t.Errorf("findings %v", in.Findings)
	}
	if got := v.serving(); got != "a b c d" { // memory is not the file
		t.Errorf("serves %q", got)
	}
}
