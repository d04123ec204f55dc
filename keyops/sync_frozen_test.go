package keyops_test

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// TestFrozenOperations asks a frozen instance for every operation of the table, on a key of
// each kind, and compares the answers with the table.
func TestFrozenOperations(t *testing.T) {
	w := newSynced(t)
	single, spare := create(t, w.tokyo, keyops.CreateKeyInput{}), create(t, w.tokyo, keyops.CreateKeyInput{})
	if _, err := w.tokyo.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/kept", TargetKeyID: string(w.key)}); err != nil {
		t.Fatal(explain(err))
	}
	w.end(t)
	w.tell(t, w.key, w.paris, w.tokyo)
	before, _ := w.tokyo.SharedKey(w.key)
	table := keyops.FrozenOperations()
	tried := map[string]bool{"ExplainAccess": true, "GetCallerIdentity": true} // of nobody's key
	refused := func(name, key string, err error) bool {
		t.Helper()
		var e *keyops.Error
		is := errors.As(err, &e) && strings.HasPrefix(e.Message, "REPLICA_FROZEN: ")
		if is != errors.Is(err, keyops.ErrReplicaFrozen) || is && e.Reason != keyops.ErrInvalidState {
			t.Errorf("%s on %s: %v", name, key, explain(err))
		}
		return is
	}
	for _, op := range onAKey {
		tried[op.name] = true
		for _, key := range []string{string(w.key), single.ARN} {
			kept := table[op.name] == "other" && key == string(w.key)
			if err := op.call(t.Context(), w.tokyo, admin(), key); refused(op.name, key, err) != kept {
				t.Errorf("%s on %s, which the table calls %q: %v", op.name, key, table[op.name], explain(err))
			}
		}
	}
	for _, op := range onNoKey {
		tried[op.name] = true
		if err := op.call(t.Context(), w.tokyo, admin(), ""); refused(op.name, "no key", err) != (table[op.name] == "no") {
			t.Errorf("%s, which the table calls %q: %v", op.name, table[op.name], explain(err))
		}
	}
	for name, word := range table {
		switch {
		case word == "":
			t.Errorf("the table does not say what a frozen instance does with %s", name)
		case !tried[name] && name != "DeleteAlias":
			t.Errorf("%s was not asked for", name)
		}
	}
	// An alias of a kept key is not taken from it, by its name or by another key.
	_, err := w.tokyo.DeleteAlias(t.Context(), admin(), keyops.DeleteAliasInput{AliasName: "alias/kept"})
	want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
	_, err = w.tokyo.UpdateAlias(t.Context(), admin(), keyops.UpdateAliasInput{AliasName: "alias/kept", TargetKeyID: spare.ARN})
	want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
	after, _ := w.tokyo.SharedKey(w.key)
	if after.Version != before.Version || after.State != before.State || !bytes.Equal(after.Policy, before.Policy) || !maps.Equal(after.Tags, before.Tags) {
		t.Errorf("the kept key has changed: version %d, now %d", before.Version, after.Version)
	}
	// A caller without permission hears nothing of the freeze.
	_, err = w.tokyo.CreateKey(t.Context(), keyopstest.User("mallory"), keyops.CreateKeyInput{})
	want(t, err, keyops.ErrAccessDenied, "kms:CreateKey")
}

// What the severed primary instance still signs takes no key away from a frozen instance: it
// was promised to go on using them, and could not undo it.
func TestFrozenKeysOutliveTheirPrimary(t *testing.T) {
	w := newSynced(t)
	w.end(t)
	w.tell(t, w.key, w.paris, w.tokyo)
	d := w.tokyo.Descriptor.Descriptor
	for _, step := range []struct {
		name string
		do   func(*mrk.Set) error
	}{
		{"lists it as a new replica", func(set *mrk.Set) error {
			return set.AddMember(t.Context(), w.paris.Signer(), d.Region, d.Instance, mrk.CreateRequest{Principal: admin().Principal.String()})
		}},
		{"evicts it", func(set *mrk.Set) error { return set.Evict(t.Context(), w.paris.Signer(), d.Region, false) }},
	} {
		if err := w.paris.UpdateShared(t.Context(), w.key, cause, func(k *keyops.Key) error { return step.do(k.Set) }); err != nil {
			t.Fatal(err)
		}
		w.tell(t, w.key, w.paris, w.tokyo)
		said, _ := w.paris.SharedKey(w.key)
		k, err := w.tokyo.SharedKey(w.key)
		if err != nil || k.Set.State().Hash() != said.Set.State().Hash() {
			t.Fatalf("Tokyo has not heard that Paris %s: %v", step.name, err)
		}
		if _, err := w.tokyo.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(w.key), Plaintext: x}); err != nil || k.State != "Enabled" {
			t.Errorf("Paris %s: the key is %s, %v", step.name, k.State, explain(err))
		}
	}
}
