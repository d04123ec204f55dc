package approval_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// people makes operators a, b, c... with keys of all accepted kinds.
func people(t *testing.T, n int) ([]crypto.Signer, []approval.Operator) {
	t.Helper()
	var keys []crypto.Signer
	var ops []approval.Operator
	for i := range n {
		var k crypto.Signer
		var err error
		switch i % 3 {
		case 0:
			k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		case 1:
			_, k, err = ed25519.GenerateKey(rand.Reader)
		case 2:
			k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		}
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys, ops = append(keys, k), append(ops, approval.Operator{Name: string(rune('a' + i)), Key: der})
	}
	return keys, ops
}

func TestApprovalsAreCounted(t *testing.T) {
	keys, ops := people(t, 4)
	roster := approval.Roster{Threshold: 2, Operators: ops[:3]} // the fourth is a stranger
	want := approval.Approval{Operation: approval.Offer, Object: bytes.Repeat([]byte{7}, 48), Epoch: 3, Expires: now.Add(time.Hour)}
	sign := func(who int, change func(*approval.Approval)) statement.File {
		t.Helper()
		a := want
		if change != nil {
			change(&a)
		}
		f, err := approval.Sign(t.Context(), keys[who], a)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	forged := sign(0, nil)
	forged.Key = sign(1, nil).Key
	for _, c := range []struct {
		name string
		got  []statement.File
		ok   bool
	}{
		{"none", nil, false},
		{"one", []statement.File{sign(0, nil)}, false},
		{"two", []statement.File{sign(0, nil), sign(1, nil)}, true},
		{"all", []statement.File{sign(0, nil), sign(1, nil), sign(2, nil)}, true},
		{"two and a stranger's", []statement.File{sign(3, nil), sign(0, nil), sign(2, nil)}, true},
		{"one operator twice", []statement.File{sign(0, nil), sign(0, nil)}, false},
		{"one and a stranger's", []statement.File{sign(0, nil), sign(3, nil)}, false},
		{"one and one under another's name", []statement.File{sign(0, nil), forged}, false},
		{"another operation", []statement.File{sign(0, nil), sign(1, func(a *approval.Approval) { a.Operation = "erase" })}, false},
		{"another object", []statement.File{sign(0, nil), sign(1, func(a *approval.Approval) { a.Object = bytes.Repeat([]byte{8}, 48) })}, false},
		{"another epoch", []statement.File{sign(0, nil), sign(1, func(a *approval.Approval) { a.Epoch++ })}, false},
		{"expired", []statement.File{sign(0, nil), sign(1, func(a *approval.Approval) { a.Expires = now })}, false},
		{"expires in a second", []statement.File{sign(0, nil), sign(1, func(a *approval.Approval) { a.Expires = now.Add(time.Second) })}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := roster.Check(want, now, c.got)
			if c.ok && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !c.ok && !errors.Is(err, approval.ErrNotEnough) {
				t.Errorf("got %v, want ErrNotEnough", err)
			}
		})
	}
	if err := (approval.Roster{}).Check(want, now, nil); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("an empty roster: got %v, want ErrNotEnough", err)
	}
}

func TestRosterValidate(t *testing.T) {
	_, ops := people(t, 3)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(p521.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r  approval.Roster
		ok bool
	}{
		"2 of 3":        {approval.Roster{Threshold: 2, Operators: ops}, true},
		"0 of 3":        {approval.Roster{Threshold: 0, Operators: ops}, false},
		"4 of 3":        {approval.Roster{Threshold: 4, Operators: ops}, false},
		"negative":      {approval.Roster{Threshold: -1, Operators: ops}, false},
		"same key":      {approval.Roster{Threshold: 1, Operators: []approval.Operator{ops[0], {Name: "other", Key: ops[0].Key}}}, false},
		"same name":     {approval.Roster{Threshold: 1, Operators: []approval.Operator{ops[0], {Name: ops[0].Name, Key: ops[1].Key}}}, false},
		"no name":       {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Key: ops[0].Key}}}, false},
		"no key":        {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "a"}}}, false},
		"key of a kind": {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "a", Key: der}}}, false},
	} {
		if err := c.r.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, c.ok)
		}
	}
}

func TestRosterOnTheWire(t *testing.T) {
	_, ops := people(t, 3)
	r := approval.Roster{Threshold: 2, Operators: ops}
	var w wire.Writer
	r.Append(&w)
	d := wire.NewReader(w.Out())
	got := approval.Take(d)
	if err := d.Done(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	var bad wire.Writer
	approval.Roster{Threshold: 4, Operators: ops}.Append(&bad)
	d = wire.NewReader(bad.Out())
	approval.Take(d)
	if d.Done() == nil {
		t.Error("a roster that is not valid was read")
	}
}

func TestLoadRoster(t *testing.T) {
	dir := t.TempDir()
	_, ops := people(t, 2)
	for _, o := range ops {
		b := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: o.Key})
		if err := os.WriteFile(filepath.Join(dir, o.Name+".pub"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"good":          {"threshold: 2\noperators:\n  - name: a\n    key: a.pub\n  - name: b\n    key: b.pub\n", true},
		"unknown field": {"threshold: 1\nquorum: 1\noperators:\n  - name: a\n    key: a.pub\n", false},
		"missing key":   {"threshold: 1\noperators:\n  - name: a\n    key: c.pub\n", false},
		"no threshold":  {"operators:\n  - name: a\n    key: a.pub\n", false},
		"empty":         {"", false},
	} {
		path := filepath.Join(dir, "operators.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := approval.LoadRoster(path)
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, c.ok)
		}
		if c.ok {
			if d := cmp.Diff(approval.Roster{Threshold: 2, Operators: ops}, r); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		}
	}
}
