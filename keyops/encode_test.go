package keyops_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
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
