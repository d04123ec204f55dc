package simulation

import (
	"testing"

	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// A replica shows what it says that the primary Region has listed and forgotten: a material of its
// own making. What is listed is taken in, and opens what was encrypted with it.
func TestHostileEarlierState(t *testing.T) {
	w := scene(t)
	b := w.nodes[1]
	id := w.withReplicas()
	h := w.steal(b)
	_, planted := h.plants(id)
	s := h.state(id)
	s.Materials = append(s.Materials, mrk.Listed{ID: planted, Birth: s.Epoch.Nonce, Created: w.now.Unix()})
	h.signs(s)
	for _, to := range honest(w.nodes) {
		facts := h.set(id).Facts(mrk.Hash{})
		facts.Earlier = []mrk.Earlier{{State: s}}
		if h.shows(to, facts) == nil {
			t.Errorf("%s takes it without a word", to.name)
		}
		if _, known := to.key(id).Set.Known(planted); known {
			t.Errorf("%s believes that the primary Region has listed what a replica shows", to.name)
		}
	}
}

// A Region was the primary Region, has handed its key over, and was evicted. It asks itself for
// a replica, as a primary Region may ask others, and shows that to its successor.
func TestHostileAdmitsItself(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id := w.withReplicas()
	w.must(a.handsOver(id, b))
	w.settle()
	if !w.evictOne(b, id, a) {
		t.Fatal("not evicted")
	}
	w.settle()
	if k := a.key(id); k.State != keystate.Disabled {
		t.Fatalf("the key that was evicted is %s", k.State)
	}
	h := w.steal(a)
	word := h.word(id, a)
	word.Incarnation, word.Counter = word.Incarnation+1, 1
	h.signs(word)
	req := mrk.CreateRequest{
		Key: id, Source: a.name, Instance: word.Instance, Destination: a.name, ToInstance: word.Instance, Incarnation: word.Incarnation,
		Principal: caller().Principal.String(), Policy: []byte(openPolicy),
	}
	h.signs(&req)
	_ = h.shows(b, mrk.Facts{Key: id, Members: []*mrk.Member{word}, Admission: &req})
	w.isolate(a)
	b.tries()
	if e := b.key(id).Set.Entry(a.name); e.Status != mrk.Evicted {
		t.Errorf("a Region that was evicted has made itself a member: it is %s, incarnation %d", e.Status, e.Incarnation)
	}
}
