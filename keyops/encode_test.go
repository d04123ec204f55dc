package keyops_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

// TestKeyRowRoundTrip: what a row says is what was written, and nothing else can be read.
func TestKeyRowRoundTrip(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{
		Description: "payroll", Tags: []keyops.Tag{{Key: "b", Value: "2"}, {Key: "a", Value: "1"}},
		KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify,
	})
	for _, name := range []string{"alias/z", "alias/a"} {
		if _, err := w.paris.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: name, TargetKeyID: k.ARN}); err != nil {
			t.Fatal(err)
		}
	}
	key, err := w.paris.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	body := keyops.EncodeKey(key)
	again, err := keyops.DecodeKey(string(k.KeyID), body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(keyops.EncodeKey(again), body) || again.Set.Hash() != key.Set.Hash() || len(again.Aliases) != 2 || len(again.Tags) != 2 {
		t.Errorf("read back: %+v", again)
	}
	open := *key
	open.Policy = nil
	if _, err := keyops.DecodeKey(string(k.KeyID), keyops.EncodeKey(&open)); err == nil {
		t.Error("a row without a policy is read: a missing policy refuses, it never means a default one")
	}
	for n := range body {
		if _, err := keyops.DecodeKey(string(k.KeyID), body[:n]); err == nil {
			t.Fatalf("a row cut short at %d is read", n)
		}
	}
	if _, err := keyops.DecodeKey(string(k.KeyID), append(bytes.Clone(body), 0)); err == nil {
		t.Error("a longer row is read")
	}
	newer := bytes.Clone(body)
	newer[11]++ // the schema version, an integer of eight bytes after its length
	if _, err := keyops.DecodeKey(string(k.KeyID), newer); err == nil {
		t.Error("a row of a newer schema is read")
	}
	if _, err := keyops.DecodeKey(string(arn.NewKeyID(false)), body); err == nil {
		t.Error("a multi-Region key's row is read as a single-Region key's")
	}
}

// TestKeyRowsOfEverySchema: a row that says nothing of grants is written as it was before
// there were any, and such a row, kept from that time, is still read.
func TestKeyRowsOfEverySchema(t *testing.T) {
	file, err := os.ReadFile("testdata/key-row-1.txt")
	if err != nil {
		t.Fatal(err)
	}
	id, text, _ := strings.Cut(strings.TrimSpace(string(file)), "\n")
	old, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyops.DecodeKey(id, old)
	if err != nil {
		t.Fatal(err)
	}
	if k.Description != "payroll" || k.Tags["team"] != "pay" || len(k.Aliases) != 1 || len(k.Materials) != 1 || len(k.Grants) != 0 {
		t.Errorf("read %+v", k)
	}
	if !bytes.Equal(keyops.EncodeKey(k), old) {
		t.Error("written otherwise than before")
	}
	made := keyops.Grant{
		Grant: policy.Grant{ID: strings.Repeat("a", 64), Grantee: appARN, Operations: []string{"Decrypt", "Encrypt"}, EncryptionContextEquals: map[string]string{"b": "2", "a": "1"}},
		Name:  "n", Retiring: helper, Issuer: keyopstest.Account, Created: time.Unix(1, 0).UTC(),
	}
	k.Grants = []keyops.Grant{made}
	body := keyops.EncodeKey(k)
	again, err := keyops.DecodeKey(id, body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(k.Grants, again.Grants); diff != "" || body[11] != 2 || old[11] != 1 {
		t.Errorf("schemas %d and %d, grants (-want +got):\n%s", old[11], body[11], diff)
	}
	for n := range body {
		if _, err := keyops.DecodeKey(id, body[:n]); err == nil {
			t.Fatalf("a row cut short at %d is read", n)
		}
	}
	bare := bytes.Clone(old)
	bare[11] = 2
	if _, err := keyops.DecodeKey(id, append(bare, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0)); err == nil {
		t.Error("a row of the newer schema without grants is read: one value has two encodings")
	}
	for name, change := range map[string]func(*keyops.Grant){
		"an ID that is none":     func(g *keyops.Grant) { g.ID = "1" },
		"everybody":              func(g *keyops.Grant) { g.Grantee = "*" },
		"management":             func(g *keyops.Grant) { g.Operations = []string{"PutKeyPolicy"} },
		"an ID that is repeated": nil,
	} {
		bad := made
		k.Grants = []keyops.Grant{bad}
		if change == nil {
			k.Grants = append(k.Grants, bad)
		} else {
			change(&k.Grants[0])
		}
		if _, err := keyops.DecodeKey(id, keyops.EncodeKey(k)); err == nil {
			t.Errorf("%s: a row with a grant that no operation could have made is read", name)
		}
	}
}

func FuzzDecodeRows(f *testing.F) {
	f.Add(keyRow(f))
	f.Add(keyops.TombstoneBody("111122223333", hsm.ID{1}))
	f.Add(keyops.IntentBody(arn.NewKeyID(true), true, material.ID{1}))
	id := string(arn.NewKeyID(false))
	object := "000102030405060708090a0b0c0d0e0f"
	f.Fuzz(func(t *testing.T, body []byte) {
		if k, err := keyops.DecodeKey(id, body); err == nil && !bytes.Equal(keyops.EncodeKey(k), body) {
			t.Error("a key row has two encodings")
		}
		if b, err := keyops.DecodeIntent(object, body); err == nil && !bytes.Equal(b, body) {
			t.Error("an intent has two encodings")
		}
		if b, err := keyops.DecodeTombstone(body); err == nil && !bytes.Equal(b, body) {
			t.Error("a tombstone has two encodings")
		}
		if b, err := keyops.DecodeMark(body); err == nil && !bytes.Equal(b, body) {
			t.Error("a mark has two encodings")
		}
	})
}

// keyRow returns the row of a key as the store has it.
func keyRow(f *testing.F) []byte {
	r := keyopstest.New(f, keyopstest.Options{})
	k := create(f, r, keyops.CreateKeyInput{})
	r.Stop()
	return rowOf(f, r, "key", string(k.KeyID)).Body
}

func rowOf(t testing.TB, r *keyopstest.Region, kind store.Kind, id string) store.Row {
	t.Helper()
	db, err := sqlite.Open(context.Background(), sqlite.Config{Path: r.StorePath})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var row store.Row
	err = db.View(context.Background(), func(tx store.Tx) (err error) {
		row, err = tx.Get(kind, id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return row
}
