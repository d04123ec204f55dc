package simulation

import (
	"testing"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// What a hostile primary Region hands over, and what a hostile member says of its deletion.

// handing lets a hostile primary Region say that its key is Updating, as who offers it says.
func (h hostile) handing(id arn.KeyID, to *node) {
	h.w.t.Helper()
	m := h.word(id, h.node)
	m.KeyState = "Updating"
	h.signs(m)
	h.w.must(h.shows(to, mrk.Facts{Key: id, Members: []*mrk.Member{m}}))
}

// An offer is taken if it follows what is known where it arrives, and by an active member that
// holds all that is listed. Any other one makes nobody the primary Region.
func TestHostileOffer(t *testing.T) {
	rules := func(edit func(w *world, h hostile, id arn.KeyID, s *mrk.State)) func(*world, hostile, arn.KeyID, *mrk.Certificate) {
		return func(w *world, h hostile, id arn.KeyID, c *mrk.Certificate) {
			s := h.state(id)
			edit(w, h, id, s)
			h.signs(s)
			w.must(h.shows(w.nodes[2], mrk.Facts{Key: id, State: s}))
			c.Final = s.Hash()
		}
	}
	tests := map[string]struct {
		make  func(*world, hostile, arn.KeyID, *mrk.Certificate)
		taken bool
	}{
		"as it should be":           {func(*world, hostile, arn.KeyID, *mrk.Certificate) {}, true},
		"after another certificate": {func(_ *world, _ hostile, _ arn.KeyID, c *mrk.Certificate) { c.Parent[0]++ }, false},
		"after another state":       {func(_ *world, _ hostile, _ arn.KeyID, c *mrk.Certificate) { c.Final[0]++ }, false},
		"to a member that is suspended": {rules(func(w *world, _ hostile, _ arn.KeyID, s *mrk.State) {
			relist(s, w.nodes[2].name, func(e *mrk.Entry) { e.Status = mrk.Suspended })
		}), false},
		"to who lacks a material": {rules(func(_ *world, h hostile, id arn.KeyID, s *mrk.State) {
			_, called := h.plants(id)
			s.Materials = append(s.Materials, mrk.Listed{ID: called, Birth: s.Epoch.Nonce, Created: start.Unix()})
		}), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			a, c := w.nodes[0], w.nodes[2]
			id := w.withReplicas()
			h := w.steal(a)
			h.handing(id, c)
			cert := h.after(id, c)
			tt.make(w, h, id, &cert)
			h.signs(&cert)
			h.w.must(h.offers(c, mrk.Offer{Certificate: cert, By: mrk.Claim{Principal: keyopstest.Admin().Principal.String()}}))
			if got := c.key(id).Set.Acting(); got != tt.taken {
				t.Errorf("taken over: %t", got)
			}
		})
	}
}

// A member that has deleted its key says that it has not. Its deletion was the last word on that
// incarnation, and only operators give it the key again.
func TestHostileUndeletes(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	alive := *c.key(id).Set.Own()
	w.must(c.scheduleDeletion(id))
	w.now = w.now.Add(8 * day)
	w.settle()
	w.must(c.run.svc.Work(t.Context()))
	w.settle()
	if e := a.key(id).Set.Entry(c.name); !c.buried(id) || e.Status != mrk.Removed {
		t.Fatalf("deleted %t, listed as %s", c.buried(id), e.Status)
	}
	h := w.steal(c)
	alive.Counter += 1000
	h.signs(&alive)
	for _, to := range []*node{a, b} {
		_ = h.shows(to, mrk.Facts{Key: id, Members: []*mrk.Member{&alive}})
	}
	w.isolate(c)
	w.net.join(a, b)
	w.settle()
	if e := a.key(id).Set.Entry(c.name); e.Status != mrk.Removed {
		t.Errorf("what was deleted is listed as %s", e.Status)
	}
}

// A whole set is not deleted while any Region, member or not, answers that it has a key of it.
// A lie delays that, and no more.
func TestHostileHasTheKey(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id := w.key(a)
	h := w.steal(b)
	h.confirms(func(q mrk.Question) mrk.Confirmation { return mrk.Confirmation{Nonce: q.Nonce, Exists: true} })
	w.must(a.scheduleDeletion(id))
	w.now = w.now.Add(8 * day)
	w.settle()
	_ = a.run.svc.Work(t.Context())
	w.check()
	if a.buried(id) {
		t.Error("the set is deleted, though a Region answers that it has a key of it")
	}
	h.lies = nil
	w.now = w.now.Add(2 * day)
	w.settle()
	w.must(a.run.svc.Work(t.Context()))
	if !a.buried(id) {
		t.Error("the set is not deleted once everybody answers that there is none")
	}
}
