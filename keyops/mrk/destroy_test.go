package mrk_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

func TestReplicaIsDestroyedOnceConfirmed(t *testing.T) {
	w := withReplicas(t)
	b := w.nodes[regionB].set
	nonce := mrk.Nonce{1}
	good := w.nodes[regionA].set.Confirm(b.Ask(nonce))
	with := func(edit func(*mrk.Confirmation)) mrk.Confirmation {
		c := good
		edit(&c)
		return c
	}
	tests := []struct {
		name string
		conf mrk.Confirmation
		want error
	}{
		{"confirmed", good, nil},
		{"not confirmed", mrk.Confirmation{}, mrk.ErrUnconfirmed},
		{"confirmed before (CE8c)", with(func(c *mrk.Confirmation) { c.Nonce = mrk.Nonce{2} }), mrk.ErrUnconfirmed},
		{"confirmed by a Region that does not act", with(func(c *mrk.Confirmation) { c.Acting = false }), mrk.ErrUnconfirmed},
		{"confirmed by itself", with(func(c *mrk.Confirmation) { c.From = regionB }), mrk.ErrUnconfirmed},
		{"confirmed but for one material", with(func(c *mrk.Confirmation) { c.Held = nil }), mrk.ErrUnconfirmed},
		{"confirmed with another material", with(func(c *mrk.Confirmation) { c.Held = []material.ID{{1}} }), mrk.ErrUnconfirmed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := b.Clone()
			if err := set.BeginDestruction(nonce, tt.conf); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if set.Destroying() != (tt.want == nil) {
				t.Errorf("destroying: %v", set.Destroying())
			}
		})
	}
	if err := b.Clone().BeginDestruction(mrk.Nonce{}, with(func(c *mrk.Confirmation) { c.Nonce = mrk.Nonce{} })); !errors.Is(err, mrk.ErrUnconfirmed) {
		t.Errorf("a question without a nonce: %v", err)
	}
	a := w.nodes[regionA].set.Clone()
	if err := a.BeginDestruction(nonce, mrk.Confirmation{From: regionB, Nonce: nonce, Acting: true, Held: good.Held}); !errors.Is(err, mrk.ErrPrimary) {
		t.Errorf("the primary key by the rule for replicas: %v", err)
	}
}

// Once the destruction has begun there is no way back: the key counts for nothing any more,
// also after a restart between the decision and the token.
func TestNoWayBackFromDestruction(t *testing.T) {
	w := withReplicas(t)
	b := w.nodes[regionB]
	nonce := mrk.Nonce{1}
	w.must(b.set.BeginDestruction(nonce, w.nodes[regionA].set.Confirm(b.set.Ask(nonce))))
	w.settle(b)
	if !b.set.Destroying() || len(b.set.Own().Held) != 0 {
		t.Fatalf("after a restart: destroying %v, says that it holds %d", b.set.Destroying(), len(b.set.Own().Held))
	}
	blob := mrk.Blob{
		Key: testKey, Material: testMaterial(0), Source: regionA, Instance: testInstance(regionA),
		Destination: regionB, ToInstance: testInstance(regionB), Incarnation: 1, Class: "aes", Epoch: 1, Wrapped: []byte{1},
	}
	if _, err := b.set.Accepts(blob); !errors.Is(err, mrk.ErrForeign) {
		t.Errorf("a material arrives: %v", err)
	}
	if owed := b.set.Owes(regionC); len(owed) != 0 {
		t.Errorf("it owes %d materials", len(owed))
	}
	if err := w.force(regionB); !errors.Is(err, mrk.ErrNotEnabled) {
		t.Errorf("promoting it: %v", err)
	}
	if c := b.set.Confirm(w.nodes[regionC].set.Ask(nonce)); c.Acting || len(c.Held) != 0 {
		t.Errorf("it confirms %+v", c)
	}
	w.sync(regionB, regionA)
	w.step(regionA)
	if got := w.nodes[regionA].set.Entry(regionB).Status; got == mrk.Active {
		t.Error("A calls it active")
	}
	w.delete(regionB)
	w.heal()
	w.converged(regionA, regionC)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// What is deleted here takes nothing in, even if its blob names the incarnation.
func TestDeletedKeyTakesNoMaterial(t *testing.T) {
	w := withReplicas(t)
	blob := mrk.Blob{
		Key: testKey, Material: testMaterial(0), Source: regionA, Instance: testInstance(regionA),
		Destination: regionB, ToInstance: testInstance(regionB), Incarnation: 1, Class: "aes", Epoch: 1, Wrapped: []byte{1},
	}
	b := w.nodes[regionB]
	backup := b.set.Marshal()
	w.delete(regionB)
	if _, err := b.set.Accepts(blob); !errors.Is(err, mrk.ErrForeign) {
		t.Errorf("a tombstone takes a material: %v", err)
	}
	w.sync(regionB, regionA)
	w.restore(regionB, backup)
	b.state = "Enabled"
	w.settle(b)
	w.sync(regionA, regionB)
	if _, err := b.set.Accepts(blob); !b.set.Told() || !errors.Is(err, mrk.ErrForeign) {
		t.Errorf("a key that is told to be deleted takes a material: %v", err)
	}
}

// CE8a: B, promoted, evicts A, which does not know and replicates to C. B does not destroy
// the set while C lives.
func TestCE8aSetIsNotDestroyedUnderALivingMember(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.force(regionB))
	w.must(w.evict(regionB, regionA))
	w.must(w.replicate(regionA, regionC))
	w.sync(regionA, regionC)
	if err := w.destroySet(regionB); !errors.Is(err, mrk.ErrPresent) {
		t.Fatalf("destroying the set while C lives: %v", err)
	}
	if w.nodes[regionB].set.Destroying() {
		t.Fatal("it is being destroyed")
	}
}

func TestSetIsDestroyedLast(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	if err := w.destroySet(regionA); !errors.Is(err, mrk.ErrPresent) {
		t.Fatalf("with two replicas: %v", err)
	}
	if err := w.destroySet(regionB); !errors.Is(err, mrk.ErrNotPrimary) {
		t.Fatalf("at a replica: %v", err)
	}
	w.must(w.destroy(regionB))
	w.heal()
	w.must(w.evict(regionA, regionC))
	nonce := mrk.Nonce{1}
	none := func(edit func(*mrk.Confirmation)) []mrk.Confirmation {
		c := mrk.Confirmation{From: regionB, Nonce: nonce}
		edit(&c)
		return []mrk.Confirmation{c, {From: regionC, Nonce: nonce, Exists: true}} // evicted: not asked for
	}
	for name, answers := range map[string][]mrk.Confirmation{
		"nobody answers":             nil,
		"B has the key":              none(func(c *mrk.Confirmation) { c.Exists = true }),
		"B answers another question": none(func(c *mrk.Confirmation) { c.Nonce = mrk.Nonce{9} }),
	} {
		if err := a.set.Clone().BeginSetDestruction(w.contact(a), nonce, answers); !errors.Is(err, mrk.ErrPresent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.must(a.set.Clone().BeginSetDestruction(w.contact(a), nonce, none(func(*mrk.Confirmation) {})))
	w.must(w.destroySet(regionA))
	if a.set.Acting() || !a.set.Own().Deleted {
		t.Errorf("after its destruction A acts %v", a.set.Acting())
	}
}

// A member whose deletion was heard, but not yet written into the state, is gone.
func TestSetDestructionCountsWhatWasHeard(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.destroy(regionB))
	w.sync(regionB, regionA)
	w.must(w.destroySet(regionA))
}

func TestEvictedMember(t *testing.T) {
	w := withReplicas(t)
	for r, want := range map[regionName]error{regionA: mrk.ErrNotMember, "eu-nowhere-9": mrk.ErrNotMember} {
		if err := w.evict(regionA, r); !errors.Is(err, want) {
			t.Errorf("evicting %s: %v", r, err)
		}
	}
	w.must(w.evict(regionA, regionB))
	if err := w.evict(regionA, regionB); !errors.Is(err, mrk.ErrNotMember) {
		t.Errorf("evicting twice: %v", err)
	}
	w.heal()
	b := w.nodes[regionB]
	if !b.set.Shut() || b.state != "Disabled" {
		t.Fatalf("the evicted key is %s", b.state)
	}
	if got := w.nodes[regionA].set.Entry(regionB).Status; got != mrk.Evicted {
		t.Fatalf("B came back by itself, as %s", got)
	}
	w.must(w.rotate(regionA)) // is not waited for
	w.heal()
	w.converged(regionA, regionC)
	if len(b.held()) != 1 {
		t.Errorf("the evicted member was sent %d materials", len(b.held()))
	}
	w.must(w.replicate(regionA, regionB))
	w.step(regionA)
	if got := w.nodes[regionA].set.Entry(regionB); got.Status != mrk.Joining || got.Incarnation != 2 {
		t.Fatalf("replicated again, on the word of the incarnation that was evicted: %+v", got)
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// The word of an incarnation that was evicted does not prove anything of the next one.
func TestIncarnationsProveForThemselves(t *testing.T) {
	w := withReplicas(t)
	w.must(w.evict(regionA, regionB))
	w.must(w.replicate(regionA, regionB))
	if events := w.step(regionA); len(events) != 0 || w.nodes[regionA].set.Entry(regionB).Status != mrk.Joining {
		t.Fatalf("A did %v", events)
	}
}

func TestCE18RetainedMember(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	w.must(a.set.Evict(ctx(), testSigner(regionA), regionB, true))
	w.settle(a)
	w.heal()
	if b := w.nodes[regionB]; b.set.Shut() || b.state != "Enabled" || b.set.Entry(regionB).Status != mrk.Retained {
		t.Errorf("the retained key is %s and %s", b.state, b.set.Entry(regionB).Status)
	}
}

// A member that once used a material which is in no token any more is active again when
// operators have given that material up.
func TestWriteOff(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.rotate(regionA))
	w.heal()
	a, b := w.nodes[regionA], w.nodes[regionB]
	writeOff := func(id material.ID) error {
		err := a.set.WriteOff(ctx(), testSigner(regionA), id, w.contact(a))
		w.settle(a)
		return err
	}
	if err := writeOff(testMaterial(1)); !errors.Is(err, mrk.ErrMaterial) {
		t.Errorf("giving up what is current: %v", err)
	}
	if err := writeOff(testMaterial(0)); !errors.Is(err, mrk.ErrMaterial) {
		t.Errorf("giving up what is held: %v", err)
	}
	if err := writeOff(material.ID{9}); !errors.Is(err, mrk.ErrUnlisted) {
		t.Errorf("giving up what nobody has heard of: %v", err)
	}
	for _, n := range []*node{a, b} { // both lose the first material
		delete(n.token, testMaterial(0))
		delete(n.rows, testMaterial(0))
		n.set.DropPermit()
		w.settle(n)
	}
	w.heal()
	if got := a.set.Entry(regionB).Status; got != mrk.Rejoining {
		t.Fatalf("B, which used what is lost, is %s", got)
	}
	clear(a.heard)
	if err := writeOff(testMaterial(0)); !errors.Is(err, mrk.ErrNotHeard) {
		t.Errorf("before all were heard: %v", err)
	}
	w.heal()
	w.must(writeOff(testMaterial(0)))
	seq := a.set.State().Seq
	w.must(writeOff(testMaterial(0)))
	if a.set.State().Seq != seq {
		t.Error("given up twice")
	}
	w.heal()
	w.converged(regionA, regionB)
	a.token[testMaterial(0)], a.rows[testMaterial(0)] = true, true // found after all
	w.settle(a)
	w.heal()
	w.converged(regionA, regionB)
	if i := slices.IndexFunc(b.set.Listed(), func(m mrk.Listed) bool { return m.ID == testMaterial(0) && !m.WrittenOff }); i < 0 || len(b.held()) != 2 {
		t.Errorf("found again, and listed as %+v", b.set.Listed())
	}
}
