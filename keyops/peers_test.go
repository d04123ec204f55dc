package keyops_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// What a Region says that it encrypts with is what it encrypts with: neither what the
// primary key's Region calls current and has not arrived, nor what is lost.
func TestOwnFactNamesWhatEncrypts(t *testing.T) {
	w := newTwo(t)
	id := w.replicate(t, keyops.CreateKeyInput{}).KeyID
	says := func(r *keyopstest.Region) (key *keyops.Key, current material.ID) {
		t.Helper()
		k, err := r.SharedKey(id)
		if err != nil {
			t.Fatal(err)
		}
		return k, k.Set.Own().Current
	}
	w.tell(t, id, w.paris, w.tokyo)
	if _, got := says(w.tokyo); !got.IsZero() {
		t.Errorf("Tokyo says %s before it holds anything", got)
	}
	w.sync(t, id)
	k, first := says(w.paris)
	if _, got := says(w.tokyo); first.IsZero() || first != k.Current || got != first {
		t.Fatalf("Paris says %s, Tokyo %s, of one material %s", first, got, k.Current)
	}

	second := materialIn(t, w.paris, k)
	err := w.paris.UpdateShared(t.Context(), id, cause, func(k *keyops.Key) error {
		k.Materials = append(k.Materials, second)
		if err := k.Set.Suspend(t.Context(), w.paris.Signer(), "ap-tokyo-1"); err != nil {
			return err
		}
		return k.Set.RotateAlone(t.Context(), w.paris.Signer(), mrk.Listed{ID: second.ID})
	})
	if err != nil {
		t.Fatal(explain(err))
	}
	w.tell(t, id, w.tokyo, w.paris) // Paris steps
	w.tell(t, id, w.paris, w.tokyo)
	if k, got := says(w.paris); got != second.ID || k.Current != second.ID {
		t.Errorf("Paris says %s after rotating to %s", got, second.ID)
	}
	if k, got := says(w.tokyo); k.Set.Current() != second.ID || got != first {
		t.Errorf("Tokyo was told that %s is current and says %s, and encrypts with %s", k.Set.Current(), got, first)
	}
	err = w.tokyo.UpdateShared(t.Context(), id, cause, func(k *keyops.Key) error {
		k.Material(first).Lost = true
		return nil
	})
	if err != nil {
		t.Fatal(explain(err))
	}
	if _, got := says(w.tokyo); !got.IsZero() {
		t.Errorf("Tokyo says %s, which it has lost", got)
	}
}

// materialIn makes a further material of a symmetric key in a Region's token.
func materialIn(t *testing.T, r *keyopstest.Region, k *keyops.Key) keyops.Material {
	t.Helper()
	first, err := r.Token.Lookup(t.Context(), k.Materials[0].Object)
	if err != nil {
		t.Fatal(err)
	}
	m := keyops.Material{Object: hsm.NewID(), Created: time.Now(), Local: true}
	if _, err := r.Token.Generate(t.Context(), first.Spec, m.Object); err != nil {
		t.Fatal(err)
	}
	blocks := material.AESBlocks(string(k.ID))
	check, err := r.Token.EncryptBlocks(t.Context(), m.Object, blocks[:])
	if err != nil {
		t.Fatal(err)
	}
	m.ID = material.Compute(string(k.Spec), string(k.ID), check)
	return m
}

// A Region that no configuration knows can have nothing made here, and gets nothing.
func TestUnknownRegionHasNoAuthority(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	alone := keyopstest.New(t, keyopstest.Options{Name: "us-east-1"}) // without peers
	claim := keyops.ReplicaClaim{
		Source: "eu-madrid-1", Key: arn.NewKeyID(true), Account: keyopstest.Account, Principal: admin().Principal,
		Spec: k.KeySpec, Usage: k.KeyUsage, Origin: k.Origin,
	}
	want(t, w.tokyo.CheckReplica(t.Context(), claim), keyops.ErrAccessDenied, "configuration of Region ap-tokyo-1")
	want(t, alone.CheckReplica(t.Context(), claim), keyops.ErrAccessDenied, "configuration of Region us-east-1")

	w.net.SetAuthority("ap-tokyo-1", keyops.Authority{})
	before := w.paris.TokenCalls(t)
	_, err := w.paris.WrapMaterial(t.Context(), k.KeyID, materialOf(t, w.paris, k.KeyID), w.tokyo.Descriptor.Descriptor)
	want(t, err, keyops.ErrAccessDenied, "configuration of Region eu-paris-1")
	after := w.paris.Fake.Calls()
	for function, n := range after {
		if n != before[function] {
			t.Errorf("%d calls of %s for what may not be sent", n-before[function], function)
		}
	}
}

func materialOf(t *testing.T, r *keyopstest.Region, id arn.KeyID) material.ID {
	t.Helper()
	k, err := r.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	return k.Current
}

// What a peer brings is on record before it is made: a Region that dies in between has said
// so. The record is there before the token is asked, and before the row is.
func TestBegunBeforeMade(t *testing.T) {
	w := newTwo(t)
	var at []string
	begun := func() (n int) {
		for _, l := range auditLines(t, w.tokyo, "") {
			if l.Outcome == string(audit.Begun) && (l.Event == "CreateKey" || l.Details["installedMaterialId"] != "") {
				n++
			}
		}
		return n
	}
	w.tokyo.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		if c.Op == "Unwrap" {
			at = append(at, fmt.Sprintf("unwrapped after %d", begun()))
		}
		return hsmtest.Fault{}
	})
	id := w.replicate(t, keyops.CreateKeyInput{}).KeyID
	w.tell(t, id, w.paris, w.tokyo)
	at = append(at, fmt.Sprintf("admitted after %d", begun()))
	w.sync(t, id)
	if diff := cmp.Diff([]string{"admitted after 1", "unwrapped after 2"}, at); diff != "" {
		t.Errorf("records of what was let in (-want +got):\n%s", diff)
	}
	ends := 0
	for _, l := range auditLines(t, w.tokyo, "") {
		if l.Outcome == string(audit.Success) && (l.Event == "CreateKey" || l.Details["installedMaterialId"] != "") {
			ends++
		}
	}
	if ends != 2 {
		t.Errorf("%d ends of one key and one material", ends)
	}
}
