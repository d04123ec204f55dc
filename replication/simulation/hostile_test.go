package simulation

import (
	"context"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/replication/message"
)

// A Region in a thief's hands. Its Region key signs and its transport keys wrap whatever the
// thief writes, and its messages authenticate like any Region's. Everybody else is honest: the
// invariants are about them. What such a Region gets all the same is in DESIGN 6 and in 8 of
// PROTOCOL.md 3: as primary it chooses materials and members, and nobody is promised that its
// own word holds.

// hostile is the thief's end of a Region. The Region's daemon goes on beside.
type hostile struct{ *node }

// steal puts a Region into a thief's hands.
func (w *world) steal(n *node) hostile {
	n.hostile = true
	w.note("%s: stolen", n.name)
	for i := range w.letters {
		if w.letters[i].from == n.name {
			w.letters[i].excused = true
		}
	}
	return hostile{n}
}

// honest leaves out who is hostile.
func honest(nodes []*node) []*node {
	if !slices.ContainsFunc(nodes, func(n *node) bool { return n.hostile }) {
		return nodes
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n.hostile })
}

// fact is anything that a Region signs about a key.
type fact interface {
	Sign(context.Context, mrk.Signer) error
}

// signs signs a fact with the Region's own key, whoever it is about.
func (h hostile) signs(f fact) { h.w.must(f.Sign(context.Background(), h.run.svc.Signer())) }

// late is the key of an instance that is no more, in a thief's hands.
type late region.InstanceID

// Sign implements mrk.Signer.
func (l late) Sign(ctx context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	return statement.Sign(ctx, statement.SignerFunc(func(_ context.Context, digest []byte) ([]byte, error) {
		return shortSign(region.InstanceID(l), digest), nil
	}), p, payload)
}

// shows tells another Region facts of a key.
func (h hostile) shows(to *node, f mrk.Facts) error {
	h.w.t.Helper()
	return h.tells(to, message.Facts{Facts: f, Hash: mrk.Hash{1}})
}

// set is what the Region knows of a key.
func (h hostile) set(id arn.KeyID) *mrk.Set { return h.key(id).Set }

// after is a certificate that would follow the newest one: of which Region's term, the caller
// says.
func (h hostile) after(id arn.KeyID, of *node) mrk.Certificate {
	s := h.set(id)
	c := mrk.Certificate{Key: id, Epoch: s.Epoch(), Instance: of.plant.descriptor.Instance, Parent: s.Head()}
	if of.name != c.Epoch.Region {
		c.Final = s.State().Hash()
	}
	c.Epoch.Number++
	c.Epoch.Region = of.name
	c.Epoch.Nonce = h.nonce()
	return c
}

func (h hostile) nonce() (n mrk.Nonce) {
	for i := range n {
		n[i] = byte(h.w.rng.Uint32())
	}
	return n
}

// state is the newest state that the Region knows, to be changed and signed again.
func (h hostile) state(id arn.KeyID) *mrk.State {
	s := *h.set(id).State()
	s.Members, s.Materials = slices.Clone(s.Members), slices.Clone(s.Materials)
	s.Seq++
	return &s
}

// relist changes the entry of a Region in a state that is not signed yet.
func relist(s *mrk.State, of region.Name, edit func(*mrk.Entry)) {
	for i := range s.Members {
		if s.Members[i].Region == of {
			edit(&s.Members[i])
		}
	}
}

// word is a Region's newest member fact, to be changed and signed again.
func (h hostile) word(id arn.KeyID, of *node) *mrk.Member {
	m := *h.set(id).Fact(of.name)
	m.Counter++
	return &m
}

// plants makes an AES key of bytes that the thief knows in its token, and returns what it would
// be called as a material of a key.
func (h hostile) plants(id arn.KeyID) (object hsm.ID, called material.ID) {
	h.w.t.Helper()
	ctx := context.Background()
	object = hsm.NewID()
	spec := hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.AES256, Name: "planted"}
	h.w.must(h.fake.Plant(spec, object, make([]byte, 32)))
	blocks := material.AESBlocks(string(id))
	check, err := h.fake.EncryptBlocks(ctx, object, blocks[:])
	h.w.must(err)
	called = material.Compute(h.set(id).State().Spec, string(id), check)
	if t := h.w.testimony; t != nil {
		if t.planted[id] == nil {
			t.planted[id] = map[material.ID]bool{}
		}
		t.planted[id][called] = true
	}
	return object, called
}

// wraps wraps an object of its token for another Region, as whatever material of a key.
func (h hostile) wraps(id arn.KeyID, object hsm.ID, as material.ID, to *node) mrk.Blob {
	h.w.t.Helper()
	key, ok := h.plant.transport.Newest(transport.EndOf(h.plant.descriptor.Descriptor), transport.EndOf(to.plant.descriptor.Descriptor), hsm.ClassAES)
	if !ok {
		h.w.t.Fatalf("%s has no transport key to %s", h.name, to.name)
	}
	wrapped, err := h.fake.Wrap(context.Background(), key.ID, object)
	h.w.must(err)
	return mrk.Blob{
		Key: id, Material: as, Source: h.name, Instance: h.plant.descriptor.Instance,
		Destination: to.name, ToInstance: to.plant.descriptor.Instance, Incarnation: to.key(id).Set.Incarnation(),
		Class: string(hsm.ClassAES), Epoch: key.Name.Epoch, Algorithm: "AES_KEY_WRAP_PAD", Length: 32, Wrapped: wrapped,
	}
}

// sends sends materials.
func (h hostile) sends(to *node, blobs ...mrk.Blob) error {
	h.w.t.Helper()
	return h.tells(to, message.Facts{Facts: mrk.Facts{Key: blobs[0].Key}, Hash: mrk.Hash{1}, Blobs: blobs})
}
