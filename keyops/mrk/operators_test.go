package mrk_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// Three operators in each Region, of whom two have to approve, and one who was taken off.

func operator(name string) ed25519.PrivateKey {
	h := sha256.Sum256([]byte("operator " + name))
	return ed25519.NewKeyFromSeed(h[:])
}

func roster(version uint64, names ...string) approval.Roster {
	r := approval.Roster{Version: version, Threshold: len(names)/2 + 1}
	for _, n := range names {
		der, err := x509.MarshalPKIXPublicKey(operator(n).Public())
		if err != nil {
			panic(err)
		}
		r.Operators = append(r.Operators, approval.Operator{Name: n, Key: der})
	}
	return r
}

var (
	formerOperators = roster(0, "anna", "bert", "mallory")
	testOperators   = roster(1, "anna", "bert", "cleo")
)

// Roster makes pins know the operators of every Region.
func (pins) Roster(r region.Name, instance region.InstanceID, version uint64) (approval.Roster, uint64, error) {
	switch {
	case instance != testInstance(r):
		return approval.Roster{}, 0, fmt.Errorf("instance %s of %s is not pinned", instance, r)
	case version == 0:
		return formerOperators, 1, nil
	case version == 1:
		return testOperators, 1, nil
	}
	return approval.Roster{}, 0, mrk.ErrRosterUnknown
}

var testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// promotion returns what operators are asked for, to make a Region the primary one of the
// test's key, as far as it knows the key.
func promotion(set *mrk.Set, dark ...region.Name) (mrk.Promotion, mrk.KeyList) {
	list, err := mrk.NewKeyList([]mrk.ListedKey{{Key: testKey, Head: set.Head()}, {Key: "mrk-ff112233445566778899aabbccddeeff", Head: mrk.Hash{1}}})
	if err != nil {
		panic(err)
	}
	return mrk.Promotion{
		Target: set.Self().Region, Instance: set.Self().Instance, Generation: set.NextGeneration(), Suspend: dark,
		Keys: uint64(len(list)), Root: list.Root(), Roster: 1, Serial: fmt.Sprintf("%032x", 1), Expires: testNow.Add(time.Hour),
	}, list
}

// approve signs a promotion in the names of operators.
func approve(p mrk.Promotion, names ...string) []statement.File {
	var out []statement.File
	for _, n := range names {
		f, err := approval.Sign(context.Background(), operator(n), p.Request())
		if err != nil {
			panic(err)
		}
		out = append(out, f)
	}
	return out
}

// approved is a promotion that anna and cleo have approved.
func approved(set *mrk.Set, dark ...region.Name) mrk.Approved {
	p, list := promotion(set, dark...)
	proof, _ := list.Prove(testKey)
	return mrk.Approved{Promotion: p, Proof: proof, Approvals: approve(p, "anna", "cleo"), Roster: testOperators, Now: testNow}
}

// force promotes a Region.
func (w *world) force(r region.Name, dark ...region.Name) error {
	return w.promoteBy(r, approved(w.nodes[r].set, dark...))
}

func (w *world) promoteBy(r region.Name, a mrk.Approved) error {
	n := w.nodes[r]
	_, err := n.set.Promote(context.Background(), w.signer(r), a, w.contact(n))
	if err == nil {
		n.mute = false
		w.began(r)
	}
	w.settle(n)
	return err
}

// offer begins a hand-over.
func (w *world) offer(from, to region.Name) error {
	n := w.nodes[from]
	err := n.set.OfferTo(context.Background(), w.signer(from), to, w.contact(n))
	w.settle(n)
	return err
}

// accept ends it.
func (w *world) accept(r region.Name) error {
	n := w.nodes[r]
	_, err := n.set.Accept(context.Background(), w.signer(r), w.contact(n))
	if err == nil {
		w.began(r)
	}
	w.settle(n)
	return err
}

// refuse ends it the other way.
func (w *world) refuse(r region.Name) error {
	n := w.nodes[r]
	o, ok := n.set.Considering()
	err := n.set.Refuse("not today")
	w.settle(n)
	if ok && err == nil && w.ghost != nil {
		e := o.Certificate.Epoch
		w.ghost.refused[e] = true
		if !w.ghost.bogus[e] {
			w.ghost.burnt[number{e.Line, e.Number}] = r
		}
	}
	return err
}

func (w *world) evict(p, r region.Name) error {
	n := w.nodes[p]
	err := n.set.Evict(context.Background(), w.signer(p), r, false)
	w.settle(n)
	return err
}

// destroy is rule 22: the replica asks every other Region, and an acting primary Region
// confirms.
func (w *world) destroy(r region.Name) error {
	n := w.nodes[r]
	nonce, _ := w.nonce()
	q := n.set.Ask(nonce)
	err := n.set.Clone().BeginDestruction(nonce, mrk.Confirmation{})
	for _, other := range allRegions {
		if o := w.nodes[other]; other != r && o.set != nil && err != nil {
			err = n.set.Clone().BeginDestruction(nonce, o.set.Confirm(q))
			if err == nil {
				w.must(n.set.BeginDestruction(nonce, o.set.Confirm(q)))
			}
		}
	}
	if err != nil {
		return err
	}
	w.destroys(n)
	w.delete(r)
	return nil
}

// destroySet is rule 24.
func (w *world) destroySet(r region.Name) error {
	n := w.nodes[r]
	nonce, _ := w.nonce()
	var answers []mrk.Confirmation
	for _, other := range allRegions {
		if o := w.nodes[other]; other != r {
			a := mrk.Confirmation{From: other, Nonce: nonce}
			if o.set != nil {
				a = o.set.Confirm(n.set.Ask(nonce))
			}
			answers = append(answers, a)
		}
	}
	if err := n.set.BeginSetDestruction(w.contact(n), nonce, answers); err != nil {
		return err
	}
	w.delete(r)
	return nil
}
