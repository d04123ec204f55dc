package simulation

import (
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// testimony is what Regions have really said, while they were honest, and what operators have
// really approved: an honest Region believes nothing else of honest ones, whatever a thief says.
type testimony struct {
	said     map[mrk.Hash]bool                  // certificates, states and member facts, by whom they are of
	offered  map[mrk.Hash]bool                  // certificates that a Region has offered
	approved map[string]bool                    // serials of promotions
	follows  map[branch]mrk.Hash                // the successor by which an honest Region has followed a certificate
	ruled    map[arn.KeyID]bool                 // keys that had a thief for their primary Region
	known    map[arn.KeyID]bool                 // keys whose primary Region a thief is or was
	planted  map[arn.KeyID]map[material.ID]bool // of bytes that a thief knows
}

type branch struct {
	at     region.Name
	parent mrk.Hash
}

func newTestimony() *testimony {
	return &testimony{
		said: map[mrk.Hash]bool{}, offered: map[mrk.Hash]bool{}, approved: map[string]bool{}, follows: map[branch]mrk.Hash{},
		ruled: map[arn.KeyID]bool{}, known: map[arn.KeyID]bool{}, planted: map[arn.KeyID]map[material.ID]bool{},
	}
}

// hears writes down what a Region says of itself, as long as it is honest.
func (t *testimony) hears(n *node) {
	if t == nil || n.hostile {
		return
	}
	for _, id := range n.w.keys {
		k := n.key(id)
		if k == nil {
			continue
		}
		for _, c := range k.Set.Facts(mrk.Hash{}).Certificates {
			if c.Epoch.Region == n.name {
				t.said[c.Hash()] = true
			}
		}
		if st := k.Set.State(); st != nil && st.Epoch.Region == n.name {
			t.said[st.Hash()] = true
		}
		if own := k.Set.Own(); own != nil {
			t.said[own.Hash()] = true
		}
		if o, ok := k.Set.Offered(); ok {
			t.offered[o.Certificate.Hash()] = true
		}
	}
}

// authentic is that honest Regions believe of each other only what they have said, follow no
// Region that nobody has made the primary Region, stay with the successor that they know, and
// hold no material that a thief has slipped in (DESIGN 6).
func (w *world) authentic(id arn.KeyID) {
	t := w.testimony
	if t == nil {
		return
	}
	for _, n := range w.nodes {
		t.hears(n)
	}
	for _, n := range honest(w.nodes) {
		k := n.key(id)
		if k == nil {
			continue
		}
		chain := k.Set.Facts(mrk.Hash{}).Certificates
		for i, c := range chain {
			w.appointed(n, id, chain, i, c)
		}
		if len(chain) > 0 && w.node(chain[len(chain)-1].Epoch.Region).hostile {
			t.ruled[id] = true
		}
		if st := k.Set.State(); st != nil && !w.node(st.Epoch.Region).hostile && !t.said[st.Hash()] {
			w.break_("%s believes state %d of epoch %s of %s, which %s has not written", n.name, st.Seq, st.Epoch, id, st.Epoch.Region)
		}
		for _, o := range honest(w.nodes) {
			if f := k.Set.Fact(o.name); f != nil && !t.said[f.Hash()] {
				w.break_("%s believes what %s has not said of itself in %s", n.name, o.name, id)
			}
		}
		for _, m := range k.Materials {
			if t.planted[id][m.ID] && !t.known[id] {
				w.break_("%s holds material %.8s of %s, whose bytes a thief knows", n.name, m.ID, id)
			}
		}
		if t.planted[id][k.Current] && !t.ruled[id] {
			w.break_("%s encrypts in %s with %.8s, whose bytes a thief knows", n.name, id, k.Current)
		}
	}
}

// appointed checks one certificate that an honest Region believes.
func (w *world) appointed(n *node, id arn.KeyID, chain []mrk.Certificate, i int, c mrk.Certificate) {
	t := w.testimony
	p, forced := c.ForcedBy()
	switch of := w.node(c.Epoch.Region); {
	case forced && !t.approved[p.Serial]:
		w.break_("%s follows %s in epoch %s of %s, which no operators have approved", n.name, of.name, c.Epoch, id)
	case !of.hostile && !t.said[c.Hash()]:
		w.break_("%s follows %s in epoch %s of %s, of which that one does not know", n.name, of.name, c.Epoch, id)
	case of.hostile:
		t.known[id] = true
		if i > 0 && !forced && !t.said[c.Hash()] && !w.node(chain[i-1].Epoch.Region).hostile && !t.offered[c.Hash()] {
			w.break_("%s follows %s in epoch %s of %s, which %s has not offered", n.name, of.name, c.Epoch, id, chain[i-1].Epoch.Region)
		}
	}
	if i == 0 || forced {
		return
	}
	at := branch{n.name, c.Parent}
	if before, ok := t.follows[at]; ok && before != c.Hash() {
		w.break_("%s has left the successor of an epoch of %s that it knew, for %s", n.name, id, c.Epoch)
	}
	t.follows[at] = c.Hash()
}

// spoilt reports whether a key has, or had, a thief for its primary Region: who it is that the
// thief calls active, and what the key is encrypted with, is then the thief's choice.
func (w *world) spoilt(id arn.KeyID) bool { return w.testimony != nil && w.testimony.ruled[id] }
