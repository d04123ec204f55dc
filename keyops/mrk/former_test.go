package mrk_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// historian verifies as a Region does whose operators have said that an instance is no more.
type historian struct {
	pins
	gone region.Name
}

func (h historian) Former(r region.Name, instance region.InstanceID) bool {
	return r == h.gone && instance == testInstance(r)
}

// strangers verifies as a Region does that has never known an instance.
type strangers struct {
	pins
	unknown region.Name
}

func (s strangers) Verify(r region.Name, instance region.InstanceID, signed statement.Signed) error {
	if r == s.unknown {
		return errors.New("not pinned")
	}
	return s.pins.Verify(r, instance, signed)
}

// outlived has a key that A has made and handed over to B before A was no more, of which C has
// not heard.
func outlived(t *testing.T) (w *world, dark *mrk.Set) {
	w = withReplicas(t)
	w.must(w.rotate(regionA))
	for range 3 {
		w.sync(regionA, regionB)
	}
	dark = w.nodes[regionC].set.Clone()
	w.must(w.offer(regionA, regionB))
	w.sync(regionA, regionB)
	w.must(w.accept(regionB))
	w.sync(regionB, regionA)
	return w, dark
}

func TestFormerInstance(t *testing.T) {
	w, dark := outlived(t)
	b := w.nodes[regionB].set
	gone := historian{gone: regionA}
	all := b.Facts(mrk.Hash{})
	res, err := dark.Clone().Merge(strangers{unknown: regionA}, all)
	w.must(err)
	if len(res.Refused) == 0 || res.Epoch {
		t.Fatalf("a hand-over by an instance that is not known: %+v", res)
	}
	res, err = dark.Merge(gone, all)
	w.must(err)
	if len(res.Refused) != 0 || dark.Primary() != regionB || dark.Hash() != b.Hash() {
		t.Fatalf("what led to B is not believed: %v, primary %s", res.Refused, dark.Primary())
	}

	// A Region that is new learns all of it.
	fresh := region.Name("sa-lima-1")
	w.must(b.AddMember(ctx(), testSigner(regionB), fresh, testInstance(fresh), mrk.CreateRequest{}))
	req, _ := b.Request(fresh)
	self := mrk.Self{Region: fresh, Instance: testInstance(fresh)}
	if _, err := mrk.Join(self, strangers{unknown: regionA}, b.Facts(mrk.Hash{}), req); err == nil {
		t.Error("a key joined that nobody known has made")
	}
	joined, err := mrk.Join(self, gone, b.Facts(mrk.Hash{}), req)
	w.must(err)
	if joined.Hash() != b.Hash() {
		t.Error("who is new knows other facts")
	}
}

// What the key of a former instance signs by itself decides nothing, whoever shows it.
func TestFormerInstanceSaysNothingNew(t *testing.T) {
	w, _ := outlived(t)
	gone := historian{gone: regionA}
	b, c := w.nodes[regionB].set, w.nodes[regionC].set
	root := w.chain(regionC)[0]
	next := w.renewal(regionA, root)

	tests := []struct {
		name  string
		set   *mrk.Set
		facts mrk.Facts
	}{
		{"a term that goes on", c, w.facts(next)},
		{"two terms that go on", c, w.facts(next, w.renewal(regionA, next))},
		{"a state", c, func() mrk.Facts {
			st := *c.State()
			st.Seq += 5
			signed, err := mrk.SignState(ctx(), testSigner(regionA), st)
			w.must(err)
			return mrk.Facts{Key: testKey, State: signed}
		}()},
		{"a request that admits", w.says(b, "sa-lima-1"), func() mrk.Facts {
			req, err := mrk.SignRequest(ctx(), testSigner(regionA), mrk.CreateRequest{
				Key: testKey, Source: regionA, Instance: testInstance(regionA), Destination: "sa-lima-1", ToInstance: testInstance("sa-lima-1"), Incarnation: 1,
			})
			w.must(err)
			return mrk.Facts{Key: testKey, Admission: &req}
		}()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := tt.set.Clone()
			before := set.Hash()
			res, err := set.Merge(gone, tt.facts)
			w.must(err)
			if len(res.Refused) == 0 || !errors.Is(res.Refused[0].Err, mrk.ErrFormer) || res.Refused[0].Cause != mrk.CauseSignatureInvalid {
				t.Errorf("refused: %+v", res.Refused)
			}
			if set.Hash() != before || set.Primary() != tt.set.Primary() || set.Concerns("sa-lima-1") {
				t.Error("it was taken")
			}
			if res, err := tt.set.Clone().Merge(pins{}, tt.facts); err != nil || !res.Changed {
				t.Errorf("said by an instance that is there, it is not taken: %+v, %v", res, err)
			}
		})
	}
}

// Without any word of the former instance, a Region that operators promote is believed: of
// what was before the line nothing has to be.
func TestPromotionOutlivesAFormerInstance(t *testing.T) {
	w, dark := outlived(t)
	w.must(w.force(regionC))
	w.sync(regionC, regionB)
	b := w.nodes[regionB].set
	if b.Primary() != regionC {
		t.Fatalf("B follows %s", b.Primary())
	}
	res, err := dark.Merge(strangers{unknown: regionA}, mrk.Facts{Key: testKey, Certificates: b.Facts(mrk.Hash{}).Certificates, State: w.nodes[regionC].set.State()})
	w.must(err)
	if len(res.Refused) != 0 || dark.Epoch() != w.nodes[regionC].set.Epoch() {
		t.Errorf("refused %v, epoch %s", res.Refused, dark.Epoch())
	}
}

// says returns what a Region knows that has heard another one call itself a member.
func (w *world) says(set *mrk.Set, r regionName) *mrk.Set {
	w.t.Helper()
	m := *set.Own()
	m.Region, m.Instance = r, testInstance(r)
	word, err := mrk.SignMember(ctx(), testSigner(r), m)
	w.must(err)
	set = set.Clone()
	_, err = set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{word}})
	w.must(err)
	return set
}

// again verifies as a Region does where operators have pinned another instance of A.
type again struct {
	historian
	instance region.InstanceID
}

func (a again) Verify(r region.Name, instance region.InstanceID, signed statement.Signed) error {
	if instance == a.instance {
		return signed.Verify(&testSigner("another " + r).key.PublicKey)
	}
	return a.historian.Verify(r, instance, signed)
}

// The instance that is there has the last word on its Region, whatever number the one before
// has used or would use now.
func TestNewInstanceHasTheLastWord(t *testing.T) {
	w, _ := outlived(t)
	b := w.nodes[regionB].set
	v := again{historian{gone: regionA}, "kfi-aaaaaaaaaaaa"}
	was := *b.Fact(regionA)
	was.Incarnation, was.Deleted = 7, true
	old, err := mrk.SignMember(ctx(), testSigner(regionA), was)
	w.must(err)
	is := *b.Fact(regionA)
	is.Instance, is.Incarnation = v.instance, 2
	now, err := mrk.SignMember(ctx(), testSigner("another "+regionA), is)
	w.must(err)
	for name, order := range map[string][]*mrk.Member{"the new one first": {now, old}, "the old one first": {old, now}} {
		set := b.Clone()
		for _, m := range order {
			res, err := set.Merge(v, mrk.Facts{Key: testKey, Members: []*mrk.Member{m}})
			w.must(err)
			if len(res.Refused) != 0 {
				t.Errorf("%s: refused %v", name, res.Refused)
			}
		}
		if m := set.Fact(regionA); m.Instance != v.instance || m.Deleted {
			t.Errorf("%s: known is incarnation %d of %s", name, m.Incarnation, m.Instance)
		}
	}
}

// An instance has signed two facts with one number, and is no more: it will not number past
// them, and the key is managed again, whether anybody sends a message about it or not.
func TestEquivocationOfAFormerInstanceIsHistory(t *testing.T) {
	for _, by := range []string{"message", "step"} {
		w := withReplicas(t)
		a, b := w.nodes[regionA], w.nodes[regionB]
		fact := *b.set.Own()
		fact.KeyState = "Disabled"
		other, err := mrk.SignMember(ctx(), testSigner(regionB), fact)
		w.must(err)
		contact := w.contact(a)
		for _, v := range []mrk.Verifier{pins{}, historian{gone: regionC}, historian{gone: regionB}} {
			_, err = a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{other}})
			w.must(err)
			if f := a.set.Frozen(); f == nil || f.Writer != regionB {
				t.Fatalf("%s, %v: frozen %v", by, v, f)
			}
			changed := false
			if contact.Verifier = v; by == "message" {
				res, err := a.set.Merge(v, mrk.Facts{Key: testKey})
				w.must(err)
				changed = res.Changed
			} else {
				changed, _, err = a.set.Step(ctx(), testSigner(regionA), contact)
				w.must(err)
			}
			if over := v == mrk.Verifier(historian{gone: regionB}); changed != over || (a.set.Frozen() == nil) != over {
				t.Errorf("%s, %v: changed %t, frozen %v", by, v, changed, a.set.Frozen())
			}
		}
	}
}

// An offer of an instance that is no more is not accepted, also one that was taken while it was
// there: the first word about the key frees it.
func TestOfferOfAFormerInstance(t *testing.T) {
	w := offered(t)
	b := w.nodes[regionB]
	contact := w.contact(b)
	contact.Verifier = historian{gone: regionA}
	if _, err := b.set.Clone().Accept(ctx(), testSigner(regionB), contact); !errors.Is(err, mrk.ErrWithdrawn) {
		t.Errorf("accepting it: %v", err)
	}
	for _, v := range []historian{{gone: regionC}, {gone: regionA}} {
		set := b.set.Clone()
		offer, _ := set.Considering()
		res, err := set.Merge(v, mrk.Facts{Key: testKey})
		w.must(err)
		_, open := set.Considering()
		if over := v.gone == regionA; res.Changed != over || open == over || set.Refused(offer) != over {
			t.Errorf("without %s: changed %t, considering %t, refused %t", v.gone, res.Changed, open, set.Refused(offer))
		}
	}
	w.must(w.accept(regionB))
}
