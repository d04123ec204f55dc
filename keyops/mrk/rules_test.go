package mrk_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

func TestReplicate(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	if got := w.nodes[regionA].set.Entry(regionB); got.Status != mrk.Joining || got.Incarnation != 1 {
		t.Fatalf("after ReplicateKey: %+v", got)
	}
	w.sync(regionA, regionB)
	if got := w.nodes[regionB].state; got != "Creating" {
		t.Fatalf("the key in B is %s before any material arrived, want Creating", got)
	}
	if owed := w.nodes[regionA].set.Owes(regionB); len(owed) != 0 {
		t.Fatalf("A owes B %d materials before B has said what it lacks", len(owed))
	}
	w.sync(regionB, regionA)
	w.sync(regionA, regionB)
	if got := w.nodes[regionB]; len(got.held()) != 1 || got.state != "Creating" {
		t.Fatalf("B holds %d materials and is %s before the primary Region has called it active", len(got.held()), got.state)
	}
	w.heal()
	w.converged(regionA, regionB)
	if got := w.nodes[regionB].unwraps; got != 1 {
		t.Errorf("B unwrapped %d times, want once", got)
	}
	if _, kept := w.nodes[regionA].set.Request(regionB); kept {
		t.Error("the create request is kept although the replica is active")
	}
	w.must(w.replicate(regionA, regionC))
	w.heal()
	w.converged(regionA, regionB, regionC)
	if got := len(w.nodes[regionC].set.Members()); got != 3 {
		t.Errorf("C lists %d members, want 3", got)
	}
}

func TestReplicateRefused(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	tests := []struct {
		name string
		do   func() error
		want error
	}{
		{"again", func() error { return w.replicate(regionA, regionB) }, mrk.ErrMember},
		{"to itself", func() error { return w.replicate(regionA, regionA) }, mrk.ErrMember},
		{"from a replica", func() error { w.heal(); return w.replicate(regionB, regionC) }, mrk.ErrNotPrimary},
		{"again, when it is active", func() error { return w.replicate(regionA, regionB) }, mrk.ErrMember},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := w.fingerprint()
			if err := tt.do(); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.name != "from a replica" && w.fingerprint() != before {
				t.Error("the refused call changed something")
			}
		})
	}
}

func TestRotationIsABarrier(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.must(w.replicate(regionA, regionC))
	w.heal()
	w.must(w.rotate(regionA))
	if err := w.rotate(regionA); !errors.Is(err, mrk.ErrPending) {
		t.Fatalf("rotating while a material is pending: %v", err)
	}
	w.sync(regionA, regionB)
	w.sync(regionA, regionB)
	w.sync(regionB, regionA)
	w.step(regionA)
	for _, r := range allRegions {
		if got := w.nodes[r].current; got != testMaterial(0) {
			t.Fatalf("%s encrypts with a new material that C does not hold", r)
		}
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
	if got := w.nodes[regionC].current; got != testMaterial(1) {
		t.Errorf("after the barrier C encrypts with %.8s", got)
	}
	listed := w.nodes[regionC].set.Listed()
	if got := listed[1].Holders; got != 3 || listed[1].Released == 0 {
		t.Errorf("released with %d holders at %d, want 3", got, listed[1].Released)
	}
}

func TestOnlyThePrimaryReleases(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	w.sync(regionA, regionB)
	if events := w.step(regionB); len(events) != 0 {
		t.Fatalf("a replica did %v", events)
	}
}

// A Region that is not heard since this start blocks the release, also if it is no member
// that this Region remembers, unless it is suspended.
func TestReleaseWaitsUntilAllAreHeard(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	w.sync(regionA, regionB)
	b := w.message(regionB, regionA)
	a := w.nodes[regionA]
	clear(a.heard) // restarted
	b.late = true
	w.deliver(b)
	contact := w.contact(a)
	for _, heard := range []bool{false, true} {
		c := contact
		c.Heard = func(r regionName) bool { return heard }
		_, events, err := a.set.Clone().Step(context.Background(), testSigner(regionA), c)
		w.must(err)
		if got := len(events) == 1 && events[0].Kind == mrk.EventReleased; got != heard {
			t.Errorf("heard %v: released %v (%v)", heard, got, events)
		}
	}
}

func TestSuspendedMemberComesBackByItself(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.must(w.replicate(regionA, regionC))
	w.heal()
	w.must(w.rotate(regionA))
	w.must(w.suspend(regionA, regionC))
	w.sync(regionA, regionB)
	w.sync(regionA, regionB)
	w.sync(regionB, regionA)
	w.step(regionA)
	w.encrypt(regionA)
	w.check()
	if got := w.nodes[regionA].current; got != testMaterial(1) {
		t.Fatal("the rotation still waits for a suspended member")
	}
	if got := w.nodes[regionA].set.Entry(regionC).Status; got != mrk.Suspended {
		t.Fatalf("C is %s before it has proven anything", got)
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// A replica leaves Creating when it holds every material that the state lists, also one
// that was listed after it had been called active.
func TestReadyNeedsEveryListedMaterial(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	b := w.nodes[regionB].set
	for _, tt := range []struct {
		held []material.ID
		want bool
	}{
		{nil, false}, {[]material.ID{testMaterial(0)}, false}, {[]material.ID{testMaterial(1)}, false},
		{[]material.ID{testMaterial(0), testMaterial(1)}, true},
	} {
		if got := b.Ready(tt.held); got != tt.want {
			t.Errorf("ready with %d of 2 materials: %v", len(tt.held), got)
		}
	}
}

func TestSuspendRefusesWhoIsNoMember(t *testing.T) {
	w := newWorld(t)
	for _, r := range []regionName{regionA, regionB} {
		if err := w.suspend(regionA, r); !errors.Is(err, mrk.ErrNotMember) {
			t.Errorf("suspending %s: %v", r, err)
		}
	}
}

// A member that lost its token is demoted when it says so, gets everything back and is
// active again.
func TestTokenLossHeals(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	b := w.nodes[regionB]
	clear(b.token)
	w.settle(b)
	w.sync(regionB, regionA)
	if events := w.step(regionA); len(events) != 1 || events[0].Kind != mrk.EventDemoted {
		t.Fatalf("got %v, want a demotion", events)
	}
	clear(b.rows)
	w.settle(b)
	w.heal()
	w.converged(regionA, regionB)
}
