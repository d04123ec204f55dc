package keyops_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Guards of the protocol that honest Regions hardly ever run into, each tried by itself.

// handOver asks Paris to hand a key over to Tokyo.
func (w two) handOver(t *testing.T, id arn.KeyID) error {
	t.Helper()
	return second(w.paris.UpdatePrimaryRegion(t.Context(), admin(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: "ap-tokyo-1"}))
}

// An offer is weighed by the policies of the Region that takes the key over, as they are when
// the offer arrives (rule 13): between the question and the offer they may have changed.
func TestOfferIsWeighedWhereItArrives(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	if err := w.handOver(t, id); err != nil {
		t.Fatal(explain(err))
	}
	deny := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"kms:UpdatePrimaryRegion","Resource":"*"}]}`
	if err := second(w.tokyo.PutKeyPolicy(t.Context(), admin(), keyops.PutKeyPolicyInput{KeyID: string(id), Policy: deny})); err != nil {
		t.Fatal(explain(err))
	}
	w.tell(t, id, w.paris, w.tokyo)
	k, err := w.paris.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	offer, _ := k.Set.Offered()
	if err := w.tokyo.DecideOffer(t.Context(), "eu-paris-1", offer, w.net, w.net.Contact(id)); err != nil {
		t.Fatal(explain(err))
	}
	if k, err = w.tokyo.SharedKey(id); err != nil || k.Set.Acting() || k.Set.Own().Refused == (mrk.Nonce{}) || !strings.Contains(k.Set.Own().RefusedFor, "kms:UpdatePrimaryRegion") {
		t.Errorf("Tokyo acts %v, refused for %q (%v)", k.Set.Acting(), k.Set.Own().RefusedFor, err)
	}
}

// Who cannot send materials to a member does not become the primary Region (rule 13).
func TestPrimaryNeedsTransportKeys(t *testing.T) {
	net := keyopstest.NewNetwork()
	w := two{
		net:   net,
		paris: keyopstest.New(t, keyopstest.Options{Name: "eu-paris-1", Peers: net}),
		tokyo: keyopstest.New(t, keyopstest.Options{Name: "ap-tokyo-1", Peers: net}),
	}
	net.Add(w.paris, w.tokyo)
	name := keyopstest.SetName(w.paris, w.tokyo, 1) // one direction only
	if err := keyopstest.Transcribe(t.Context(), w.paris, w.tokyo, name, hsmtest.Establish(w.paris.Fake, w.tokyo.Fake, name.String())); err != nil {
		t.Fatal(err)
	}
	w.paris.Restart(t)
	w.tokyo.Restart(t)
	id := w.shared(t)
	want(t, w.handOver(t, id), keyops.ErrInvalidState, "no transport key to Region eu-paris-1")
	if k, err := w.paris.SharedKey(id); err != nil || !k.Set.Acting() {
		t.Errorf("Paris does not act any more: %v", err)
	}
}

// A Region that waited for its replicas to be deleted, to delete its primary key, and is not
// the primary Region any more, deletes nothing (rule 16): no clock starts because of a
// promotion.
func TestFencedPrimaryDeletesNothing(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	out, err := w.paris.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7})
	if err != nil || out.KeyState != "PendingReplicaDeletion" {
		t.Fatalf("%s, %v", out.KeyState, explain(err))
	}
	w.tokyo.Promote(t, []region.Name{"eu-paris-1"}, id)
	w.tell(t, id, w.tokyo, w.paris)
	k, err := w.paris.SharedKey(id)
	if err != nil || k.State != "Disabled" || !k.DeletionDate.IsZero() {
		t.Errorf("the key is %s, due %s (%v)", k.State, k.DeletionDate, err)
	}
}

// An object of a shared key that the store does not know shows that the store is not what it
// was: the primary Region does not act before it has heard the others (rule 19).
func TestUnknownObjectDropsThePermit(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	spec := hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.AES256, Name: string(id) + "/-"}
	if _, err := w.paris.Fake.Generate(t.Context(), spec, hsm.NewID()); err != nil {
		t.Fatal(err)
	}
	w.paris.Restart(t)
	if got := w.paris.Reconciliation(); len(got.TakenBack) != 1 {
		t.Fatalf("%+v", got)
	}
	k, err := w.paris.SharedKey(id)
	if err != nil || k.Set.Acting() || len(k.Set.Own().Used) != 2 {
		t.Fatalf("acting %v, used %d (%v)", k.Set.Acting(), len(k.Set.Own().Used), err)
	}
	w.tell(t, id, w.tokyo, w.paris)
	if k, err = w.paris.SharedKey(id); err != nil || !k.Set.Acting() || len(k.Set.Listed()) != 2 {
		t.Errorf("after it has heard Tokyo: acting %v, %d materials (%v)", k.Set.Acting(), len(k.Set.Listed()), err)
	}
}

// A replica key is destroyed when it is due by two clocks: this Region's, and that of the
// Region that confirms what it holds (rule 22). One clock that is wrong destroys nothing.
func TestDueByTheClockOfTwoRegions(t *testing.T) {
	net := keyopstest.NewNetwork()
	there, here := newClock(), newClock()
	w := two{
		net:   net,
		paris: keyopstest.New(t, keyopstest.Options{Name: "eu-paris-1", Peers: net, Clock: there.now, Elapsed: there.passed}),
		tokyo: keyopstest.New(t, keyopstest.Options{Name: "ap-tokyo-1", Peers: net, Clock: here.now, Elapsed: here.passed}),
	}
	net.Add(w.paris, w.tokyo)
	keyopstest.Connect(t, w.paris, w.tokyo)
	id := w.shared(t)
	due := here.now().Add(7 * aDay)
	if err := second(w.tokyo.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7})); err != nil {
		t.Fatal(explain(err))
	}
	w.sync(t, id)
	gone := func(name string, at time.Time, want bool) {
		t.Helper()
		there.advance(at.Sub(there.now()))
		here.advance(time.Hour) // longer than the pause between two tries
		_ = w.tokyo.Work(context.Background())
		if k, err := w.tokyo.SharedKey(id); err != nil || k.Gone() != want {
			t.Errorf("%s: gone %v, want %v (%v)", name, k.Gone(), want, err)
		}
	}
	here.advance(7 * aDay)
	gone("due here alone", there.now(), false)
	gone("a second too early there", due.Add(-time.Second), false)
	gone("due there, too", due, true)
}
