package mrk_test

import (
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// message is a snapshot of what one Region would tell another.
type message struct {
	from, to region.Name
	facts    []byte    // in a quick world, known is delivered in their place
	known    mrk.Facts // never changes
	request  *mrk.CreateRequest
	blobs    []mrk.Blob
	offer    []byte
	late     bool
}

func (w *world) message(from, to region.Name) *message {
	n := w.nodes[from]
	if n.set == nil {
		return nil
	}
	if !n.set.Concerns(to) {
		return nil // digests name only keys that both are or were members of
	}
	facts := n.set.Facts(mrk.Hash{})
	if peer := w.nodes[to].set; peer != nil && !peer.Concerns(from) {
		facts.Admission = n.set.Admission() // as package replication introduces itself to who forgot it
	}
	m := &message{from: from, to: to, known: facts}
	if !w.quick {
		m.facts = facts.Marshal()
	}
	if req, ok := n.set.Request(to); ok {
		m.request = &req
	}
	if o, ok := n.set.Offered(); ok && o.Certificate.Epoch.Region == to {
		m.offer = o.Marshal()
	}
	for _, id := range n.set.Owes(to) {
		m.blobs = append(m.blobs, mrk.Blob{
			Key: testKey, Material: id, Source: from, Instance: testInstance(from), Destination: to, ToInstance: testInstance(to),
			Incarnation: n.set.Entry(to).Incarnation, Class: "aes", Epoch: 1, Algorithm: "AES_KEY_WRAP_PAD", Wrapped: id[:],
		})
	}
	return m
}

// deliver is what a Region does with a message. It returns why facts were refused.
func (w *world) deliver(m *message) []mrk.Refusal {
	w.t.Helper()
	if m == nil {
		return nil
	}
	n := w.nodes[m.to]
	facts, err := m.known, error(nil)
	if m.facts != nil {
		facts, err = mrk.ParseFacts(m.facts)
		w.must(err)
	}
	var res mrk.Result
	switch {
	case n.set != nil:
		res, err = n.set.Merge(w.verifier(), facts)
		w.must(err)
		if res.Reborn {
			n.state = "Creating"
		}
		if m.request != nil {
			n.set.KeepAdmission(w.verifier(), *m.request)
		}
		if m.request != nil && n.state == "Gone" && n.set.Admit(w.verifier(), *m.request) == nil {
			n.state, n.used, n.current = "Creating", map[material.ID]bool{}, material.ID{}
		}
	case m.request != nil:
		set, err := mrk.Join(n.self(), w.verifier(), facts, *m.request)
		if err != nil {
			return []mrk.Refusal{{Err: err}}
		}
		n.set, n.state = set, "Creating"
	default:
		return nil
	}
	if m.offer != nil && n.state != "Gone" {
		offer, err := mrk.ParseOffer(m.offer)
		w.must(err)
		_, _ = n.set.TakeOffer(w.verifier(), offer) // offered again if facts are missing
	}
	w.settle(n)
	for _, b := range m.blobs {
		if _, err := n.set.Accepts(b); err == nil && !n.rows[b.Material] {
			n.token[b.Material], n.rows[b.Material] = true, true
			n.unwraps++
		}
	}
	w.settle(n)
	if !m.late {
		n.heard[m.from] = true
	}
	return res.Refused
}
