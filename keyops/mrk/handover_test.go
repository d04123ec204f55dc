package mrk_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

func TestHandOver(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA)) // what is pending goes over with the key
	for range 2 {
		w.sync(regionA, regionB)
	}
	w.must(w.offer(regionA, regionB))
	a, b := w.nodes[regionA], w.nodes[regionB]
	if a.set.Acting() || a.state != "Updating" {
		t.Fatalf("after the offer A acts %v and is %s", a.set.Acting(), a.state)
	}
	for name, do := range map[string]func() error{
		"rotating": func() error { return w.rotate(regionA) }, "offering again": func() error { return w.offer(regionA, regionC) },
		"suspending": func() error { return w.suspend(regionA, regionC) },
	} {
		if err := do(); !errors.Is(err, mrk.ErrOffered) {
			t.Errorf("%s while the key is on offer: %v", name, err)
		}
	}
	if events := w.step(regionA); len(events) != 0 {
		t.Fatalf("A, which has offered the key, did %v", events)
	}
	if w.step(regionC); w.nodes[regionC].set.Acting() {
		t.Fatal("C acts")
	}
	w.sync(regionA, regionB)
	if b.state != "Updating" {
		t.Fatalf("B, which has an offer to decide, is %s", b.state)
	}
	if !w.encrypt(regionA) || !w.encrypt(regionB) {
		t.Fatal("a key that is Updating does not encrypt")
	}
	w.must(w.accept(regionB))
	if !b.set.Acting() || b.set.Epoch().Number != 1 || b.state != "Enabled" {
		t.Fatalf("B acts %v in epoch %s and is %s", b.set.Acting(), b.set.Epoch(), b.state)
	}
	if got := b.set.Pending(); got != testMaterial(1) {
		t.Errorf("pending after the hand-over: %.8s", got)
	}
	for _, r := range []regionName{regionA, regionC} {
		if got := b.set.Entry(r).Status; got != mrk.Rejoining {
			t.Errorf("%s is %s before it has proven anything in the new epoch", r, got)
		}
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if a.set.Primary() != regionB || a.state != "Enabled" || a.current != testMaterial(1) {
		t.Errorf("A thinks that %s is primary, is %s and encrypts with %.8s", a.set.Primary(), a.state, a.current)
	}
	w.must(w.offer(regionB, regionC)) // and on, and back
	w.sync(regionB, regionC)
	w.must(w.accept(regionC))
	w.heal()
	w.must(w.offer(regionC, regionA))
	w.sync(regionC, regionA)
	w.must(w.accept(regionA))
	w.heal()
	w.converged(regionA, regionB, regionC)
	if !a.set.Acting() || a.set.Epoch().Number != 3 {
		t.Errorf("after three hand-overs A acts %v in epoch %s", a.set.Acting(), a.set.Epoch())
	}
}

func TestOfferRefused(t *testing.T) {
	tests := []struct {
		name string
		to   regionName
		edit func(*world)
		want error
	}{
		{"to a Region that has no replica", regionC, func(*world) {}, mrk.ErrNotActive},
		{"to itself", regionA, func(*world) {}, mrk.ErrMember},
		{"to a suspended member", regionB, func(w *world) { w.must(w.suspend(regionA, regionB)) }, mrk.ErrNotActive},
		{"to a deleted member", regionB, func(w *world) { w.delete(regionB); w.sync(regionB, regionA) }, mrk.ErrNotActive},
		{"while the key is disabled", regionB, func(w *world) { w.nodes[regionA].state = "Disabled"; w.settle(w.nodes[regionA]) }, mrk.ErrNotEnabled},
		{"before B was heard", regionB, func(w *world) { clear(w.nodes[regionA].heard) }, mrk.ErrNotHeard},
		{"without a permit", regionB, func(w *world) { w.nodes[regionA].set.DropPermit() }, mrk.ErrNotPrimary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.replicate(regionA, regionB))
			w.heal()
			tt.edit(w)
			before := w.fingerprint()
			if err := w.offer(regionA, tt.to); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if w.fingerprint() != before {
				t.Error("the refused call changed something")
			}
		})
	}
}

// offered has a key that A offers to B, which knows of it.
func offered(t *testing.T) *world {
	w := withReplicas(t)
	w.must(w.offer(regionA, regionB))
	w.sync(regionA, regionB)
	return w
}

func TestAcceptRefused(t *testing.T) {
	tests := []struct {
		name string
		edit func(*world, *node)
		want error
	}{
		{"a key that is disabled", func(w *world, b *node) { b.state = "Disabled"; w.settle(b) }, mrk.ErrNotEnabled},
		{"a key that lacks a material", func(w *world, b *node) { clear(b.token); clear(b.rows); w.settle(b) }, mrk.ErrLacking},
		{"before A was heard since the start", func(w *world, b *node) { clear(b.heard) }, mrk.ErrNotHeard},
		{"a key that A has gone on with", func(w *world, b *node) {
			other := w.renewal(regionA, w.chain(regionA)[0])
			_, err := b.set.Merge(pins{}, w.facts(other))
			w.must(err)
		}, mrk.ErrGap},
		{"a key with a newer state than the final one", func(w *world, b *node) {
			s := *b.set.State()
			s.Seq++
			newer, err := mrk.SignState(ctx(), testSigner(regionA), s)
			w.must(err)
			_, err = b.set.Merge(pins{}, mrk.Facts{Key: testKey, State: newer})
			w.must(err)
		}, mrk.ErrGap},
		{"a frozen key", func(w *world, b *node) {
			s := *b.set.State()
			s.Rotation.Enabled = true
			two, err := mrk.SignState(ctx(), testSigner(regionA), s)
			w.must(err)
			_, err = b.set.Merge(pins{}, mrk.Facts{Key: testKey, State: two})
			w.must(err)
		}, mrk.ErrFrozen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := offered(t)
			b := w.nodes[regionB]
			tt.edit(w, b)
			w.settle(b)
			before := w.fingerprint()
			if err := w.accept(regionB); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if b.set.Acting() || w.fingerprint() != before {
				t.Error("the refused acceptance changed something")
			}
		})
	}
	if err := withReplicas(t).accept(regionB); !errors.Is(err, mrk.ErrNothing) {
		t.Errorf("accepting what nobody offered: %v", err)
	}
}

func TestTakeOfferRefused(t *testing.T) {
	w := withReplicas(t)
	w.must(w.replicateAgain(regionA))
	w.must(w.offer(regionA, regionB))
	w.deliver(&message{from: regionA, to: regionB, facts: w.nodes[regionA].set.Facts(mrk.Hash{}).Marshal()})
	good, _ := w.nodes[regionA].set.Offered()
	sign := func(by regionName, edit func(*mrk.Certificate)) mrk.Offer {
		c := good.Certificate
		edit(&c)
		c, err := mrk.SignCertificate(ctx(), testSigner(by), nil, c)
		w.must(err)
		return mrk.Offer{Certificate: c, Requests: good.Requests}
	}
	tests := []struct {
		name  string
		offer mrk.Offer
		want  error
	}{
		{"as it was made", good, nil},
		{"signed by another Region", sign(regionC, func(*mrk.Certificate) {}), errAny},
		{"to another Region", sign(regionA, func(c *mrk.Certificate) { c.Epoch.Region = regionC }), mrk.ErrForeign},
		{"to another instance", sign(regionA, func(c *mrk.Certificate) { c.Instance = testInstance(regionC) }), mrk.ErrForeign},
		{"of another key", sign(regionA, func(c *mrk.Certificate) { c.Key = "mrk-ff112233445566778899aabbccddeeff" }), mrk.ErrForeign},
		{"after another certificate", sign(regionA, func(c *mrk.Certificate) { c.Parent[0]++ }), mrk.ErrGap},
		{"after another state", sign(regionA, func(c *mrk.Certificate) { c.Final[0]++ }), mrk.ErrGap},
		{"with a number in between", sign(regionA, func(c *mrk.Certificate) { c.Epoch.Number++ }), mrk.ErrOffer},
		{"in another line", sign(regionA, func(c *mrk.Certificate) { c.Epoch.Line.Generation++ }), mrk.ErrOffer},
		{"with a nonce of before", sign(regionA, func(c *mrk.Certificate) { c.Epoch.Nonce = w.chain(regionA)[0].Epoch.Nonce }), mrk.ErrOffer},
		{"with a forged create request", mrk.Offer{Certificate: good.Certificate, Requests: forge(w, good.Requests, regionB, regionA)}, mrk.ErrRequest},
		{"with a create request of who was never primary", mrk.Offer{Certificate: good.Certificate, Requests: forge(w, good.Requests, regionC, regionC)}, mrk.ErrRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := w.nodes[regionB].set.Clone()
			changed, err := set.TakeOffer(pins{}, tt.offer)
			if tt.want == nil {
				if err != nil || !changed {
					t.Fatalf("got %v, changed %v", err, changed)
				}
				if again, err := set.TakeOffer(pins{}, tt.offer); again || err != nil {
					t.Errorf("taken twice: %v, %v", again, err)
				}
				return
			}
			if err == nil || tt.want != errAny && !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if _, ok := set.Considering(); ok {
				t.Error("the refused offer is considered")
			}
		})
	}
}

// replicateAgain makes C a member that is joining, so that its create request is outstanding.
func (w *world) replicateAgain(p regionName) error {
	w.delete(regionC)
	w.sync(regionC, p)
	w.step(p)
	err := w.replicate(p, regionC)
	w.sync(p, regionB)
	return err
}

func forge(w *world, requests []mrk.CreateRequest, by, source regionName) []mrk.CreateRequest {
	w.t.Helper()
	if len(requests) != 1 {
		w.t.Fatalf("the offer carries %d create requests, want 1", len(requests))
	}
	r := requests[0]
	r.Source, r.Instance = source, testInstance(source)
	r, err := mrk.SignRequest(ctx(), testSigner(by), r)
	w.must(err)
	return []mrk.CreateRequest{r}
}

// A replica that is being made while the key is handed over is made by the new primary
// Region, with the policy that the request names.
func TestHandOverCarriesCreateRequests(t *testing.T) {
	w := withReplicas(t)
	w.must(w.replicateAgain(regionA))
	w.must(w.offer(regionA, regionB))
	w.sync(regionA, regionB)
	w.must(w.accept(regionB))
	req, ok := w.nodes[regionB].set.Request(regionC)
	if !ok || req.Source != regionB || string(req.Policy) != "{}" || req.Incarnation != 2 {
		t.Fatalf("B's request to C: %+v (%v)", req, ok)
	}
	w.sync(regionB, regionC)
	if got := w.nodes[regionC]; got.set.Incarnation() != 2 || got.state != "Creating" {
		t.Fatalf("C is %s, incarnation %d", got.state, got.set.Incarnation())
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

func TestRefusalBurnsTheNumber(t *testing.T) {
	w := offered(t)
	a, b := w.nodes[regionA], w.nodes[regionB]
	offer, _ := a.set.Offered()
	w.must(w.refuse(regionB))
	if err := w.refuse(regionB); !errors.Is(err, mrk.ErrNothing) {
		t.Errorf("refusing twice: %v", err)
	}
	if b.state != "Enabled" {
		t.Errorf("B is %s after it has refused", b.state)
	}
	if changed, err := b.set.TakeOffer(pins{}, offer); changed || err != nil {
		t.Errorf("the refused offer again: %v, %v", changed, err)
	}
	w.sync(regionB, regionA)
	events := w.step(regionA)
	if len(events) == 0 || events[0].Kind != mrk.EventDeclined || events[0].Reason != "not today" || events[0].Region != regionB {
		t.Fatalf("A did %+v", events)
	}
	if !a.set.Acting() || a.set.Epoch().Number != 2 || a.state != "Enabled" {
		t.Errorf("A acts %v in epoch %s and is %s", a.set.Acting(), a.set.Epoch(), a.state)
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
	if err := b.set.Refuse(strings.Repeat("ü", 5000)); !errors.Is(err, mrk.ErrNothing) {
		t.Errorf("refusing nothing: %v", err)
	}
}

// An offer that a backup has made its maker forget is refused as soon as that is heard, whatever
// the key is there by now: nobody makes it again.
func TestForgottenOfferIsRefused(t *testing.T) {
	for _, state := range []string{"Enabled", "Disabled"} {
		t.Run(state, func(t *testing.T) {
			w := withReplicas(t)
			backup := w.nodes[regionA].set.Marshal()
			w.must(w.offer(regionA, regionB))
			w.sync(regionA, regionB)
			a, b := w.nodes[regionA], w.nodes[regionB]
			made, open := b.set.Considering()
			if !open || b.state != "Updating" || b.set.Refused(made) {
				t.Fatalf("B is %s, and considers an offer: %v", b.state, open)
			}
			w.restore(regionA, backup)
			a.state = state
			w.settle(a)
			w.sync(regionB, regionA)
			w.sync(regionA, regionB)
			if _, open := b.set.Considering(); open || !b.set.Refused(made) || b.state != "Enabled" {
				t.Fatalf("B considers what A has forgotten: %v, is %s", open, b.state)
			}
			if changed, err := b.set.TakeOffer(pins{}, made); changed || err != nil {
				t.Errorf("the offer, shown once more: %v, %v", changed, err)
			}
			a.state = "Enabled"
			w.settle(a)
			w.heal()
			w.must(w.offer(regionA, regionB))
			w.sync(regionA, regionB)
			w.must(w.accept(regionB))
			w.heal()
			w.converged(regionA, regionB, regionC)
		})
	}
}

func TestLongReasonsAreCut(t *testing.T) {
	for _, n := range []int{1023, 1024, 1025, 5000} {
		w := offered(t)
		b := w.nodes[regionB]
		w.must(b.set.Refuse(strings.Repeat("a", n-1) + "ü"))
		w.settle(b)
		if got := len(b.set.Own().RefusedFor); got > 1024 || got < 1023 {
			t.Errorf("a reason of %d bytes was cut to %d", n+1, got)
		}
		if _, err := mrk.Unmarshal(b.set.Marshal()); err != nil {
			t.Error(err)
		}
	}
}

func TestDeletionOfTheTargetIsARefusal(t *testing.T) {
	w := offered(t)
	w.delete(regionB)
	w.sync(regionB, regionA)
	if events := w.step(regionA); len(events) < 2 || events[0].Kind != mrk.EventDeclined {
		t.Fatalf("A did %v", events)
	}
	w.heal()
	w.converged(regionA, regionC)
	if got := w.nodes[regionA].set.Epoch().Number; got != 2 {
		t.Errorf("A acts in number %d, want 2", got)
	}
}

func TestFullChainTakesNoHandOver(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	chain := w.chain(regionA)
	for len(chain) < mrk.MaxCertificates-3 {
		chain = append(chain, w.renewal(regionA, chain[len(chain)-1]))
	}
	_, err := a.set.Merge(pins{}, w.facts(chain...))
	w.must(err)
	w.settle(a)
	w.step(regionA) // renews: two more fit
	w.heal()
	if err := w.offer(regionA, regionB); !errors.Is(err, mrk.ErrFull) {
		t.Fatalf("offering with %d certificates: %v", len(w.chain(regionA)), err)
	}
	w.must(w.force(regionB))
	w.heal()
	w.converged(regionA, regionB, regionC)
	if got := len(w.chain(regionC)); got != 1 {
		t.Errorf("%d certificates after a forced promotion out of a full chain, want 1", got)
	}
	w.must(w.offer(regionB, regionA))
}

func TestOffersComeBack(t *testing.T) {
	w := withReplicas(t)
	w.must(w.replicateAgain(regionA))
	w.must(w.offer(regionA, regionB))
	offer, _ := w.nodes[regionA].set.Offered()
	b := offer.Marshal()
	again, err := mrk.ParseOffer(b)
	w.must(err)
	if !bytes.Equal(again.Marshal(), b) || len(again.Requests) != 1 {
		t.Error("an offer changes when it is read")
	}
	for n := range b {
		if _, err := mrk.ParseOffer(b[:n]); err == nil {
			t.Fatalf("an offer cut to %d of %d bytes was accepted", n, len(b))
		}
	}
	if _, err := mrk.ParseOffer(append(bytes.Clone(b), 0)); err == nil {
		t.Error("an offer with a byte too many was accepted")
	}
}

// A key with EXTERNAL material is handed over to who has imported what is current and pending.
func TestHandOverOfAnImportedKey(t *testing.T) {
	w := imported(t)
	w.must(w.offer(regionA, regionB))
	w.sync(regionA, regionB)
	b := w.nodes[regionB]
	if err := w.accept(regionB); !errors.Is(err, mrk.ErrNotEnabled) {
		t.Fatalf("accepting before the import: %v", err)
	}
	w.importInto(regionB, testMaterial(0))
	w.must(w.accept(regionB))
	w.heal()
	if got := w.nodes[regionA].set.Primary(); got != regionB || b.set.Current() != testMaterial(0) {
		t.Errorf("primary %s, current %.8s", got, b.set.Current())
	}
}
