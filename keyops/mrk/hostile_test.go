package mrk_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
)

// The traces that need a Region which says what the protocol does not let it say.

func TestCE15FormerPrimaryCannotRetake(t *testing.T) {
	w := withReplicas(t)
	root := w.chain(regionA)[0]
	proper := w.handOver(regionA, regionB, root)
	n := w.nodes[regionC]
	if _, err := n.set.Merge(pins{}, w.facts(proper)); err != nil {
		t.Fatal(err)
	}
	next := root
	var retaken []mrk.Certificate
	for range 3 {
		next = w.renewal(regionA, next)
		retaken = append(retaken, next)
	}
	res, err := n.set.Merge(pins{}, w.facts(retaken...))
	w.must(err)
	if n.set.Primary() != regionB || len(res.Refused) == 0 || !errors.Is(res.Refused[0].Err, mrk.ErrEpochFork) {
		t.Fatalf("primary %s after A signed itself three epochs: %v", n.set.Primary(), res.Refused)
	}
	state := *w.nodes[regionA].set.State()
	state.Seq += 100
	forged, err := mrk.SignState(ctx(), testSigner(regionA), state)
	w.must(err)
	forged.Epoch = proper.Epoch
	again, err := mrk.SignState(ctx(), testSigner(regionA), *forged)
	w.must(err)
	res, err = n.set.Merge(pins{}, mrk.Facts{Key: testKey, State: again})
	w.must(err)
	if len(res.Refused) != 1 || !errors.Is(res.Refused[0].Err, statement.ErrSignature) {
		t.Fatalf("a state of B's epoch signed by A: %v", res.Refused)
	}
}

func TestCE16MaterialThatNoStateListsIsRefused(t *testing.T) {
	w := withReplicas(t)
	c := w.nodes[regionC]
	good := mrk.Blob{
		Key: testKey, Material: testMaterial(0), Source: regionB, Instance: testInstance(regionB),
		Destination: regionC, ToInstance: testInstance(regionC), Incarnation: 1, Class: "aes", Epoch: 1, Wrapped: []byte{1},
	}
	if _, err := c.set.Accepts(good); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		edit func(*mrk.Blob)
		want error
	}{
		"unlisted material":    {func(b *mrk.Blob) { b.Material = material.ID{9} }, mrk.ErrUnlisted},
		"another Region":       {func(b *mrk.Blob) { b.Destination = regionA }, mrk.ErrForeign},
		"another instance":     {func(b *mrk.Blob) { b.ToInstance = testInstance(regionA) }, mrk.ErrForeign},
		"an older incarnation": {func(b *mrk.Blob) { b.Incarnation = 0 }, mrk.ErrForeign},
		"a later incarnation":  {func(b *mrk.Blob) { b.Incarnation = 2 }, mrk.ErrForeign},
		"another key":          {func(b *mrk.Blob) { b.Key = "mrk-ff112233445566778899aabbccddeeff" }, mrk.ErrForeign},
	}
	for name, tt := range tests {
		b := good
		tt.edit(&b)
		if _, err := c.set.Accepts(b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestEquivocationFreezesUntilNumberedPast(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	own := *a.set.State()
	own.Rotation.Enabled = true
	two, err := mrk.SignState(ctx(), testSigner(regionA), own)
	w.must(err)
	b := w.nodes[regionB]
	res, err := b.set.Merge(pins{}, mrk.Facts{Key: testKey, State: two})
	w.must(err)
	if len(res.Refused) != 1 || res.Refused[0].Cause != mrk.CauseEquivocation || b.set.Frozen() == nil {
		t.Fatalf("two states with one number: %+v", res)
	}
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	if b.set.Frozen() != nil {
		t.Fatal("still frozen by a state that is two numbers old")
	}

	fact := *b.set.Own()
	fact.KeyState = "Disabled"
	other, err := mrk.SignMember(ctx(), testSigner(regionB), fact)
	w.must(err)
	w.sync(regionB, regionA)
	res, err = a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{other}})
	w.must(err)
	if len(res.Refused) != 1 || res.Refused[0].Cause != mrk.CauseEquivocation {
		t.Fatalf("two member facts with one number: %+v", res)
	}
	if err := a.set.AddMember(ctx(), testSigner(regionA), regionC, testInstance(regionC), mrk.CreateRequest{}); !errors.Is(err, mrk.ErrFrozen) {
		t.Errorf("managing a frozen key: %v", err)
	}
	if events := w.step(regionA); len(events) != 0 {
		t.Errorf("the frozen primary did %v", events)
	}
	if _, err := a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{a.set.Members()[2].Fact}}); err != nil {
		t.Fatal(err)
	}
	w.heal()
	fact.Counter += 2
	past, err := mrk.SignMember(ctx(), testSigner(regionB), fact)
	w.must(err)
	if _, err := a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{past}}); err != nil {
		t.Fatal(err)
	}
	if a.set.Frozen() != nil {
		t.Error("still frozen after the writer has numbered past both facts")
	}
}

// A Region that has no part in a key cannot freeze it by contradicting itself, and all
// others keep the same one of its facts.
func TestStrangersDoNotFreeze(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	a, b := w.nodes[regionA].set, w.nodes[regionB].set
	word := *b.Own()
	word.Region, word.Instance = regionC, testInstance(regionC)
	var words []*mrk.Member
	for _, state := range []string{"Enabled", "Disabled"} {
		word.KeyState = state
		m, err := mrk.SignMember(ctx(), testSigner(regionC), word)
		w.must(err)
		words = append(words, m)
	}
	for set, order := range map[*mrk.Set][]int{a: {0, 1}, b: {1, 0}} {
		for _, i := range order {
			res, err := set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{words[i]}})
			w.must(err)
			if len(res.Refused) != 0 || set.Frozen() != nil {
				t.Fatalf("a stranger's word: %+v, frozen %v", res, set.Frozen())
			}
		}
	}
	if a.Fact(regionC).Hash() != b.Fact(regionC).Hash() {
		t.Error("two Regions keep different words of a stranger")
	}
	w.must(w.rotate(regionA))
	w.heal()
	w.check()
}

// A former primary Region that was evicted cannot write itself the request by which it
// would be a member again.
func TestFormerPrimaryCannotAdmitItself(t *testing.T) {
	w := withReplicas(t)
	set := w.nodes[regionC].set
	proper := w.handOver(regionA, regionB, w.chain(regionA)[0])
	if _, err := set.Merge(pins{}, w.facts(proper)); err != nil {
		t.Fatal(err)
	}
	req := *w.nodes[regionB].set.Admission()
	req.Destination, req.ToInstance, req.Incarnation = regionA, testInstance(regionA), 7
	req, err := mrk.SignRequest(ctx(), testSigner(regionA), req)
	w.must(err)
	res, err := set.Merge(pins{}, mrk.Facts{Key: testKey, Admission: &req})
	w.must(err)
	if len(res.Refused) != 1 || !errors.Is(res.Refused[0].Err, mrk.ErrRequest) || res.Changed {
		t.Errorf("an admission of its own making: %+v", res)
	}
}

// A former primary Region shows states and admissions without end. What it makes others
// remember takes no room from what the primary Region lists, from members, or from what a
// Region has left behind itself.
func TestFormerPrimaryCrowdsNobodyOut(t *testing.T) {
	w := withReplicas(t)
	w.must(w.offer(regionA, regionB))
	w.sync(regionA, regionB)
	w.must(w.accept(regionB))
	w.heal()
	b, c := w.nodes[regionB], w.nodes[regionC]
	branch := []mrk.Certificate{w.renewal(regionA, w.chain(regionC)[0])}
	for len(branch) < 4 {
		branch = append(branch, w.renewal(regionA, branch[len(branch)-1]))
	}
	crowd := func(n *node) {
		t.Helper()
		for i := range branch {
			s := *n.set.State()
			s.Epoch, s.Materials, s.Current, s.Pending = branch[i].Epoch, nil, material.ID{}, material.ID{}
			s.Members = []mrk.Entry{{Region: regionA, Instance: testInstance(regionA), Incarnation: 1, Status: mrk.Active}}
			for j := range mrk.MaxMaterials {
				s.Materials = append(s.Materials, mrk.Listed{ID: material.ID{0xff, byte(i), byte(j), byte(j >> 8)}})
			}
			st, err := mrk.SignState(ctx(), testSigner(regionA), s)
			w.must(err)
			res, err := n.set.Merge(pins{}, mrk.Facts{Key: testKey, Earlier: []mrk.Earlier{{Branch: branch[:i+1], State: st}}})
			w.must(err)
			if len(res.Refused) != 0 {
				t.Fatal(res.Refused[0].Err)
			}
		}
		w.settle(n)
	}
	crowd(c)
	for i := range mrk.MaxMembers + 1 {
		to := regionName(fmt.Sprintf("eu-nowhere-%d", i))
		req, err := mrk.SignRequest(ctx(), testSigner(regionA), mrk.CreateRequest{
			Key: testKey, Source: regionA, Instance: testInstance(regionA), Destination: to, ToInstance: testInstance(to),
			Incarnation: 1, Principal: "arn:aws:iam::111122223333:user/ops",
		})
		w.must(err)
		_, err = c.set.Merge(pins{}, mrk.Facts{Key: testKey, Admission: &req})
		w.must(err)
		if c.set.Concerns(to) {
			t.Fatalf("%s, which has said nothing, is taken for a member", to)
		}
	}
	w.must(w.rotate(regionB))
	w.heal()
	w.check()
	if got := len(c.held()); got != 2 || c.current != b.current {
		t.Errorf("C holds %d materials after a rotation, want 2", got)
	}

	w.must(w.rotate(regionB)) // of which nobody hears before another Region is promoted
	alone := b.set.State()
	w.must(w.force(regionC))
	w.sync(regionC, regionB)
	crowd(b)
	if !slices.ContainsFunc(b.set.Facts(mrk.Hash{}).Earlier, func(e mrk.Earlier) bool { return e.State.Hash() == alone.Hash() }) {
		t.Error("B shows its own last state no more")
	}
}

// A member has signed two facts with one number and does not number past them, as the
// incarnation that it is or as one that nobody has admitted. Nothing but its eviction is managed,
// and that ends it everywhere.
func TestEvictionEndsEquivocation(t *testing.T) {
	for name, above := range map[string]uint64{"its incarnation": 0, "one that nobody has admitted": 6} {
		t.Run(name, func(t *testing.T) {
			w := withReplicas(t)
			a, c := w.nodes[regionA], w.nodes[regionC]
			fact := *a.set.Fact(regionB)
			fact.Counter++
			fact.Incarnation += above
			var two []*mrk.Member
			for _, state := range []string{"Disabled", "Enabled"} {
				fact.KeyState = state
				m, err := mrk.SignMember(ctx(), testSigner(regionB), fact)
				w.must(err)
				two = append(two, m)
			}
			for i, n := range []*node{a, c} {
				for _, m := range []*mrk.Member{two[i], two[1-i]} {
					_, err := n.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{m}})
					w.must(err)
				}
				if n.set.Frozen() == nil {
					t.Fatalf("%s has not noticed", n.name)
				}
			}
			if err := w.evict(regionA, regionC); !errors.Is(err, mrk.ErrFrozen) {
				t.Errorf("evicting another member of a frozen key: %v", err)
			}
			lost := *a.set.Fact(regionC) // of which nothing could follow while the key was frozen
			lost.Counter, lost.Held = lost.Counter+1, nil
			word, err := mrk.SignMember(ctx(), testSigner(regionC), lost)
			w.must(err)
			_, err = a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{word}})
			w.must(err)
			w.step(regionA)
			if s := a.set.Entry(regionC).Status; s != mrk.Active {
				t.Errorf("the primary Region of a frozen key has made C %s", s)
			}
			w.must(w.evict(regionA, regionB))
			if s := a.set.Entry(regionC).Status; s != mrk.Rejoining {
				t.Errorf("C, which holds nothing, is %s", s)
			}
			w.sync(regionA, regionC)
			w.sync(regionC, regionA)
			w.sync(regionA, regionC)
			if a.set.Frozen() != nil || c.set.Frozen() != nil || a.set.Fact(regionB).Hash() != c.set.Fact(regionB).Hash() {
				t.Errorf("frozen %v at A, %v at C", a.set.Frozen(), c.set.Frozen())
			}
			w.must(w.rotate(regionA))
		})
	}
}

// A member that is evicted has signed two facts with one number, and has no key any more with
// which it would number past them. Nobody's management is frozen by it, and everybody keeps the
// same one of the two.
func TestEquivocationOfAnEvictedMember(t *testing.T) {
	w := withReplicas(t)
	a, c := w.nodes[regionA], w.nodes[regionC]
	w.must(w.evict(regionA, regionB))
	w.sync(regionA, regionC)
	fact := *a.set.Fact(regionB)
	fact.Counter++
	two := make([]*mrk.Member, 2)
	for i, state := range []string{"Disabled", "Enabled"} {
		var err error
		fact.KeyState = state
		two[i], err = mrk.SignMember(ctx(), testSigner(regionB), fact)
		w.must(err)
	}
	for i, n := range []*node{a, c} {
		for _, m := range []*mrk.Member{two[i], two[1-i]} {
			res, err := n.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{m}})
			w.must(err)
			if len(res.Refused) != 0 || n.set.Frozen() != nil {
				t.Fatalf("%s refuses %v, frozen %v", n.name, res.Refused, n.set.Frozen())
			}
		}
	}
	if a.set.Fact(regionB).Hash() != c.set.Fact(regionB).Hash() {
		t.Error("A and C keep different facts of B")
	}
	w.must(w.rotate(regionA))
}
