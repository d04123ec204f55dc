package mrk_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func TestForcedPromotion(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	w.sync(regionA, regionB)
	w.must(w.force(regionB, regionA)) // A is dark
	b := w.nodes[regionB]
	if !b.set.Acting() || b.set.Epoch().Line.Generation != 1 {
		t.Fatalf("B acts %v in epoch %s", b.set.Acting(), b.set.Epoch())
	}
	if b.set.Entry(regionA).Status != mrk.Suspended || b.set.Entry(regionC).Status != mrk.Rejoining || b.set.Pending() != testMaterial(1) {
		t.Errorf("A is %s, C %s, pending %.8s", b.set.Entry(regionA).Status, b.set.Entry(regionC).Status, b.set.Pending())
	}
	w.sync(regionB, regionC)
	w.sync(regionB, regionC)
	w.sync(regionC, regionB)
	w.step(regionB)
	w.encrypt(regionB)
	if b.current != testMaterial(1) {
		t.Fatal("the rotation does not end without the dark Region")
	}
	a := w.nodes[regionA]
	if !a.set.Acting() {
		t.Fatal("A, which has heard nothing, does not act any more")
	}
	res, err := a.set.Merge(pins{}, b.set.Facts(mrk.Hash{}))
	w.must(err)
	if a.set.Acting() || !res.Fenced || !res.Epoch || len(res.Refused) != 0 {
		t.Fatalf("A, fenced, acts %v: %+v", a.set.Acting(), res)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if p, ok := w.chain(regionC)[1].ForcedBy(); !ok || p.Target != regionB || !slices.Equal(p.Suspend, []regionName{regionA}) {
		t.Errorf("C knows the promotion as %+v (%v)", p, ok)
	}
	w.must(w.offer(regionB, regionA)) // and back, in order
	w.sync(regionB, regionA)
	w.must(w.accept(regionA))
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// Approvals are used once. A Region that was promoted and has handed the key over opens no
// other line with them, which might outrank its successor's: that is a fork, and ends with
// another promotion.
func TestApprovalsOpenOneLine(t *testing.T) {
	lines := func(w *world) (lower, higher *mrk.Set) {
		a, n := approved(w.nodes[regionB].set), w.nodes[regionB]
		for _, s := range []**mrk.Set{&lower, &higher} { // nonces of this world grow
			*s = n.set.Clone()
			_, err := (*s).Promote(ctx(), testSigner(regionB), a, w.contact(n))
			w.must(err)
		}
		return lower, higher
	}
	for name, higher := range map[string]bool{"that outranks the one known": true, "that the one known outranks": false} {
		t.Run(name, func(t *testing.T) {
			w := withReplicas(t)
			first, second := lines(w)
			if !higher {
				first, second = second, first
			}
			b := w.nodes[regionB]
			b.set = first
			w.settle(b)
			w.heal()
			w.must(w.offer(regionB, regionA))
			w.sync(regionB, regionA)
			w.must(w.accept(regionA))
			w.heal()
			w.converged(regionA, regionB, regionC)
			for _, r := range []regionName{regionA, regionC} {
				n := w.nodes[r]
				res, err := n.set.Merge(pins{}, second.Facts(mrk.Hash{}))
				w.must(err)
				w.settle(n)
				if len(res.Refused) == 0 || !errors.Is(res.Refused[0].Err, mrk.ErrEpochFork) || n.set.Primary() != regionA {
					t.Errorf("%s calls %s primary: %v", r, n.set.Primary(), res.Refused)
				}
				if n.set.Frozen() == nil {
					t.Errorf("%s goes on", r)
				}
			}
			if !w.nodes[regionA].set.Acting() {
				t.Error("A was fenced")
			}
			w.must(w.force(regionA))
			w.heal()
			w.check()
			w.converged(regionA, regionB, regionC)
			for _, r := range allRegions {
				if f := w.nodes[r].set.Frozen(); f != nil {
					t.Errorf("%s is frozen by %s", r, f.Cause)
				}
			}
		})
	}
	t.Run("by a Region that was restored", func(t *testing.T) { // and finds out by itself, if it was the higher one
		w := withReplicas(t)
		again, first := lines(w)
		for _, r := range []regionName{regionA, regionC} {
			n := w.nodes[r]
			_, err := n.set.Merge(pins{}, first.Facts(mrk.Hash{}))
			w.must(err)
			w.settle(n)
		}
		b := w.nodes[regionB]
		b.set = again
		w.settle(b)
		w.heal()
		w.check()
		w.converged(regionA, regionB, regionC)
		if b.set.Epoch().Line != first.Epoch().Line || b.set.Frozen() != nil {
			t.Errorf("B is in %s, frozen %v", b.set.Epoch(), b.set.Frozen())
		}
	})
}

func TestPromoteRefused(t *testing.T) {
	good := func(w *world) mrk.Approved { return approved(w.nodes[regionB].set, regionA) }
	with := func(edit func(*mrk.Promotion)) func(*world) mrk.Approved {
		return func(w *world) mrk.Approved {
			a := good(w)
			edit(&a.Promotion)
			a.Approvals = approve(a.Promotion, "anna", "cleo")
			return a
		}
	}
	by := func(names ...string) func(*world) mrk.Approved {
		return func(w *world) mrk.Approved {
			a := good(w)
			a.Approvals = approve(a.Promotion, names...)
			return a
		}
	}
	at := func(now time.Time) func(*world) mrk.Approved {
		return func(w *world) mrk.Approved {
			a := good(w)
			a.Now = now
			return a
		}
	}
	expiry := testNow.Add(time.Hour)
	tests := []struct {
		name string
		what func(*world) mrk.Approved
		want error // nil: promoted
	}{
		{"as approved", good, nil},
		{"approved by all", by("anna", "bert", "cleo"), nil},
		{"one second before expiry", at(expiry.Add(-time.Second)), nil},
		{"at expiry", at(expiry), approval.ErrExpired},
		{"after expiry", at(expiry.Add(time.Second)), approval.ErrExpired},
		{"approved by one", by("anna"), approval.ErrNotEnough},
		{"approved by nobody", by(), approval.ErrNotEnough},
		{"approved by one twice", by("anna", "anna"), approval.ErrNotEnough},
		{"approved by an operator who was taken off", by("anna", "mallory"), approval.ErrNotEnough},
		{"approved by the roster before", with(func(p *mrk.Promotion) { p.Roster = 0 }), approval.ErrNotEnough},
		{"approved with the next generation but one", with(func(p *mrk.Promotion) { p.Generation += 5 }), nil},
		{"approved with a generation that is known", with(func(p *mrk.Promotion) { p.Generation-- }), mrk.ErrStale},
		{"approved for another Region", with(func(p *mrk.Promotion) { p.Target = regionC }), mrk.ErrForeign},
		{"approved for another instance", with(func(p *mrk.Promotion) { p.Instance = testInstance(regionC) }), mrk.ErrForeign},
		{"approved without waiting for itself", with(func(p *mrk.Promotion) { p.Suspend = []regionName{regionB} }), mrk.ErrForeign},
		{"approved for another list", with(func(p *mrk.Promotion) { p.Root[0]++ }), mrk.ErrStale},
		{"approved for a longer list", with(func(p *mrk.Promotion) { p.Keys++ }), mrk.ErrStale},
		{"approved for other suspensions", func(w *world) mrk.Approved {
			a := good(w)
			a.Promotion.Suspend = nil
			return a
		}, approval.ErrNotEnough},
		{"approved after a certificate that is not the newest any more", func(w *world) mrk.Approved {
			a := good(w)
			_, err := w.nodes[regionB].set.Merge(pins{}, w.facts(w.renewal(regionA, w.chain(regionA)[0])))
			w.must(err)
			return a
		}, mrk.ErrStale},
		{"of a disabled key", func(w *world) mrk.Approved {
			b := w.nodes[regionB]
			b.state = "Disabled"
			w.settle(b)
			return good(w)
		}, mrk.ErrNotEnabled},
		{"of a key whose material is lost here", func(w *world) mrk.Approved {
			b := w.nodes[regionB]
			clear(b.token)
			clear(b.rows)
			w.settle(b)
			return good(w)
		}, mrk.ErrUnusable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := withReplicas(t)
			a, set := tt.what(w), w.nodes[regionB].set
			before := set.Marshal()
			_, err := set.Promote(ctx(), testSigner(regionB), a, w.contact(w.nodes[regionB]))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil && (set.Acting() || string(set.Marshal()) != string(before)) {
				t.Error("the refused promotion changed something")
			}
			if tt.want == nil {
				if _, err := set.Promote(ctx(), testSigner(regionB), a, w.contact(w.nodes[regionB])); !errors.Is(err, mrk.ErrActing) {
					t.Errorf("promoted twice: %v", err)
				}
				set.DropPermit()
				if _, err := set.Promote(ctx(), testSigner(regionB), a, w.contact(w.nodes[regionB])); !errors.Is(err, mrk.ErrStale) {
					t.Errorf("approvals used twice: %v", err)
				}
			}
		})
	}
}

// electors is pins with another idea of the newest roster.
type electors struct {
	pins
	newest uint64
}

func (e electors) Roster(r region.Name, instance region.InstanceID, version uint64) (approval.Roster, uint64, error) {
	roster, _, err := e.pins.Roster(r, instance, version)
	return roster, e.newest, err
}

// onlyPins knows nobody's operators.
type onlyPins struct{}

func (onlyPins) Verify(r region.Name, i region.InstanceID, s statement.Signed) error {
	return pins{}.Verify(r, i, s)
}

// forge writes a certificate of a new line as Promote would, from whatever it is given.
func (w *world) forgeLine(by regionName, edit func(*mrk.Certificate, *mrk.Approved)) mrk.Certificate {
	w.t.Helper()
	a := approved(w.nodes[regionB].set)
	nonce, _ := w.nonce()
	c := mrk.Certificate{
		Key: testKey, Instance: testInstance(regionB), Parent: w.nodes[regionB].set.Head(),
		Epoch: mrk.Epoch{Line: mrk.Line{Generation: 1, Region: regionB, Nonce: nonce}, Region: regionB, Nonce: nonce},
	}
	edit(&c, &a)
	c = mrk.Force(c, a)
	c, err := mrk.SignCertificate(ctx(), testSigner(by), nil, c)
	w.must(err)
	return c
}

// What a third Region believes of a promotion. It checks signatures and rosters, and no clock.
func TestCE17WhoBelievesAPromotion(t *testing.T) {
	w := withReplicas(t)
	same := func(*mrk.Certificate, *mrk.Approved) {}
	again := func(edit func(*mrk.Promotion)) func(*mrk.Certificate, *mrk.Approved) {
		return func(_ *mrk.Certificate, a *mrk.Approved) {
			edit(&a.Promotion)
			a.Approvals = approve(a.Promotion, "anna", "cleo")
		}
	}
	by := func(names ...string) func(*mrk.Certificate, *mrk.Approved) {
		return func(_ *mrk.Certificate, a *mrk.Approved) { a.Approvals = approve(a.Promotion, names...) }
	}
	other, err := mrk.NewKeyList([]mrk.ListedKey{{Key: "mrk-ff112233445566778899aabbccddeeff", Head: mrk.Hash{1}}})
	w.must(err)
	tests := []struct {
		name   string
		signed regionName
		edit   func(*mrk.Certificate, *mrk.Approved)
		v      mrk.Verifier
		want   error
	}{
		{"as it was made", regionB, same, pins{}, nil},
		{"years after it expired (CE17)", regionB, again(func(p *mrk.Promotion) { p.Expires = testNow.AddDate(-9, 0, 0) }), pins{}, nil},
		{"signed by another Region", regionC, same, pins{}, statement.ErrSignature},
		{"without approvals (CE3)", regionB, by(), pins{}, mrk.ErrCertificate},
		{"approved by one", regionB, by("anna"), pins{}, mrk.ErrCertificate},
		{"approved by an operator who was taken off", regionB, by("anna", "mallory"), pins{}, mrk.ErrCertificate},
		{"approved by a roster that is older than the one known", regionB, func(_ *mrk.Certificate, a *mrk.Approved) {
			a.Promotion.Roster, a.Roster = 0, formerOperators
			a.Approvals = approve(a.Promotion, "anna", "mallory")
		}, pins{}, mrk.ErrCertificate},
		{"the same, where the newer one is not known yet", regionB, func(_ *mrk.Certificate, a *mrk.Approved) {
			a.Promotion.Roster, a.Roster = 0, formerOperators
			a.Approvals = approve(a.Promotion, "anna", "mallory")
		}, electors{newest: 0}, nil},
		{"approved by a roster that is not known", regionB, again(func(p *mrk.Promotion) { p.Roster = 2 }), pins{}, mrk.ErrRosterUnknown},
		{"where nobody's operators are known", regionB, same, onlyPins{}, mrk.ErrRosterUnknown},
		{"of a key that is not on the list", regionB, func(_ *mrk.Certificate, a *mrk.Approved) {
			a.Promotion.Root = other.Root()
			a.Proof, _ = other.Prove("mrk-ff112233445566778899aabbccddeeff")
			a.Approvals = approve(a.Promotion, "anna", "cleo")
		}, pins{}, mrk.ErrCertificate},
		{"after another certificate than the listed one", regionB, func(c *mrk.Certificate, _ *mrk.Approved) { c.Parent[0]++ }, pins{}, mrk.ErrCertificate},
		{"with another generation", regionB, func(c *mrk.Certificate, _ *mrk.Approved) { c.Epoch.Line.Generation++ }, pins{}, mrk.ErrCertificate},
		{"with a higher number", regionB, func(c *mrk.Certificate, _ *mrk.Approved) { c.Epoch.Number = 7 }, pins{}, mrk.ErrCertificate},
		{"for another Region (CE3)", regionC, func(c *mrk.Certificate, _ *mrk.Approved) {
			c.Epoch.Region, c.Epoch.Line.Region, c.Instance = regionC, regionC, testInstance(regionC)
		}, pins{}, mrk.ErrCertificate},
		{"with another word about who is dark", regionB, func(_ *mrk.Certificate, a *mrk.Approved) { a.Promotion.Suspend = []regionName{regionC} }, pins{}, mrk.ErrCertificate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := w.nodes[regionC].set.Clone()
			res, err := set.Merge(tt.v, w.facts(w.forgeLine(tt.signed, tt.edit)))
			w.must(err)
			if tt.want == nil {
				if len(res.Refused) != 0 || set.Primary() != regionB {
					t.Fatalf("refused: %v", res.Refused)
				}
				return
			}
			if len(res.Refused) != 1 || !errors.Is(res.Refused[0].Err, tt.want) || set.Primary() != regionA || res.Changed {
				t.Fatalf("got %+v, want %v", res, tt.want)
			}
			if res.Rosters != errors.Is(tt.want, mrk.ErrRosterUnknown) {
				t.Errorf("asks for rosters: %v", res.Rosters)
			}
		})
	}
}

// A Region that reads the whole chain for the first time believes a promotion of the past,
// whose operators have been replaced since.
func TestJoinReadsPromotionsOfThePast(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.force(regionB))
	w.must(w.replicate(regionB, regionC))
	b := w.nodes[regionB].set
	req, _ := b.Request(regionC)
	set, err := mrk.Join(w.nodes[regionC].self(), electors{newest: 9}, b.Facts(mrk.Hash{}), req)
	if err != nil || set.Primary() != regionB {
		t.Fatalf("joining: %v", err)
	}
	if _, err := mrk.Unmarshal(set.Marshal()); err != nil {
		t.Error(err)
	}
}

func TestKeyLists(t *testing.T) {
	id := func(n int) arn.KeyID { return arn.KeyID(fmt.Sprintf("mrk-%032x", n)) }
	roots := map[mrk.Hash]bool{}
	for n := 1; n <= 33; n++ {
		var keys []mrk.ListedKey
		for i := n - 1; i >= 0; i-- {
			keys = append(keys, mrk.ListedKey{Key: id(i), Head: mrk.Hash{byte(i + 1)}})
		}
		l, err := mrk.NewKeyList(keys)
		if err != nil {
			t.Fatal(err)
		}
		if roots[l.Root()] {
			t.Fatalf("a list of %d keys has the root of another", n)
		}
		roots[l.Root()] = true
		for i := range n {
			p, ok := l.Prove(id(i))
			if !ok || !mrk.Proves(p, l.Root(), l[i]) {
				t.Fatalf("key %d of %d is not proven", i, n)
			}
			wrong := l[i]
			wrong.Head[31]++
			shifted, longer, shorter := p, p, p
			shifted.Index ^= 1
			longer.Path = append(slices.Clone(p.Path), mrk.Hash{})
			shorter.Path = p.Path[:max(0, len(p.Path)-1)]
			bad := map[string]bool{
				"another certificate": mrk.Proves(p, l.Root(), wrong), "another key": mrk.Proves(p, l.Root(), mrk.ListedKey{Key: id(99), Head: l[i].Head}),
				"a path that is too long":  mrk.Proves(longer, l.Root(), l[i]),
				"another place":            n > 1 && mrk.Proves(shifted, l.Root(), l[i]),
				"a path that is too short": len(p.Path) > 0 && mrk.Proves(shorter, l.Root(), l[i]),
			}
			for name, proven := range bad {
				if proven {
					t.Errorf("%s is proven to be key %d of %d", name, i, n)
				}
			}
		}
		if _, ok := l.Prove(id(99)); ok {
			t.Error("a key that is not on the list has a proof")
		}
	}
	for name, keys := range map[string][]mrk.ListedKey{
		"no keys": nil, "a key twice": {{Key: id(1), Head: mrk.Hash{1}}, {Key: id(1), Head: mrk.Hash{2}}},
		"no certificate": {{Key: id(1)}}, "a single-Region key": {{Key: "00112233-4455-6677-8899-aabbccddeeff", Head: mrk.Hash{1}}},
	} {
		if _, err := mrk.NewKeyList(keys); err == nil {
			t.Errorf("a list with %s was accepted", name)
		}
	}
}

// The list that operators read is what the root stands for.
func TestKeyListText(t *testing.T) {
	l, err := mrk.NewKeyList([]mrk.ListedKey{{Key: testKey, Head: mrk.Hash{0xab}}})
	if err != nil {
		t.Fatal(err)
	}
	want := string(testKey) + " ab" + fmt.Sprintf("%062d", 0) + "\n"
	if got := string(l.Text()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Old lines are forgotten after some promotions, and everybody still agrees.
func TestManyPromotions(t *testing.T) {
	w := withReplicas(t)
	for n := 1; n <= 20; n++ {
		r := allRegions[n%3]
		w.must(w.force(r))
		w.heal()
		w.converged(regionA, regionB, regionC)
		if got := len(w.chain(regionA)); got > 10 {
			t.Fatalf("%d certificates after %d promotions", got, n)
		}
	}
	w.must(w.rotate(allRegions[20%3]))
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// TestApprovedAgain: B was promoted by operators of whom A knows that they were taken off. A
// does not give way to that, and gives way when their successors approve, although it never
// believes what they follow. What A encrypted in between is taken in.
func TestApprovedAgain(t *testing.T) {
	w := withReplicas(t)
	b := w.nodes[regionB]
	former := approved(b.set)
	former.Promotion.Roster, former.Roster = 0, formerOperators
	former.Approvals = approve(former.Promotion, "anna", "mallory")
	if _, err := b.set.Promote(ctx(), testSigner(regionB), former, w.contact(b)); err != nil {
		t.Fatal(err)
	}
	w.settle(b)
	w.sync(regionB, regionA)
	a := w.nodes[regionA]
	if !a.set.Acting() {
		t.Fatal("A gave way to operators who were taken off")
	}
	w.must(w.suspend(regionA, regionB))
	w.must(w.suspend(regionA, regionC))
	w.must(w.rotate(regionA))
	w.step(regionA)
	w.encrypt(regionA)
	if a.current != testMaterial(1) {
		t.Fatal("A did not release")
	}
	// The second approval comes while B acts in the line that only B believes.
	b.set.DropPermit()
	w.must(w.force(regionB))
	w.sync(regionB, regionA)
	if a.set.Acting() || a.set.Primary() != regionB || a.set.Epoch().Line.Generation != 2 {
		t.Fatalf("after a second approval A acts %v in %s", a.set.Acting(), a.set.Epoch())
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := len(b.held()); got != 2 {
		t.Errorf("B holds %d materials: what A encrypted with is lost", got)
	}
}
