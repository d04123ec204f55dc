package keyops_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestRestoredAlone: in a deployment of one Region nobody is to be heard, so its multi-Region
// keys are managed again at once after the store went back in time.
func TestRestoredAlone(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	r.Stop()
	stamp(t, r)
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	before, err := r.SharedKey(k.KeyID)
	if err != nil || !before.Set.Acting() || !r.Reconciliation().Restored {
		t.Fatalf("a restored Region without others does not act: %v", err)
	}
	if _, err := r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}); err != nil {
		t.Error(explain(err))
	}
	r.Restart(t)
	after, err := r.SharedKey(k.KeyID)
	if err != nil || !after.Set.Acting() || after.Set.Epoch() != before.Set.Epoch() {
		t.Errorf("the next start opens another epoch: %v", err)
	}
}

// TestRestoredWithReplicasWaits: a Region whose peers were taken out of its configuration is
// not one without others. Its key has a member elsewhere, who knows what it has forgotten.
func TestRestoredWithReplicasWaits(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{MultiRegion: true})
	w.paris.Stop()
	stamp(t, w.paris)
	w.paris.Options.Peers = nil
	if err := startErr(w.paris); err != nil {
		t.Fatal(err)
	}
	key, err := w.paris.SharedKey(k.KeyID)
	if err != nil || key.Set.Acting() {
		t.Errorf("a Region acts that has forgotten whom it has to hear: %v", err)
	}
}
