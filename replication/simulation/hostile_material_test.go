package simulation

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication/message"
)

// What a hostile Region sends, asks for, and says that it holds.

// loses empties a Region's token of materials, while nobody can give it any back.
func (w *world) loses(n *node) {
	w.t.Helper()
	n.stop()
	n.doubt(true)
	n.fake.Restore(n.plant.token)
	w.isolate(n)
	w.must(n.start())
}

// holding returns how many materials of a key are in a Region's token, by its rows.
func (n *node) holding(id arn.KeyID) int {
	held := 0
	for _, m := range n.key(id).Materials {
		if n.holds(n.key(id), m) {
			held++
		}
	}
	return held
}

// CE16: a replica sends what no state lists, what is not what it is called, and what is for
// another incarnation of the key. None of it is used.
func TestHostileMaterial(t *testing.T) {
	for name, blob := range map[string]func(w *world, h hostile, id arn.KeyID, to *node) mrk.Blob{
		"a material that nobody lists": func(w *world, h hostile, id arn.KeyID, to *node) mrk.Blob {
			object, called := h.plants(id)
			return h.wraps(id, object, called, to)
		},
		"another one than it is called": func(w *world, h hostile, id arn.KeyID, to *node) mrk.Blob {
			object, _ := h.plants(id)
			return h.wraps(id, object, h.set(id).Current(), to)
		},
		"for an incarnation that is over": func(w *world, h hostile, id arn.KeyID, to *node) mrk.Blob {
			b := h.wraps(id, h.key(id).Material(h.set(id).Current()).Object, h.set(id).Current(), to)
			b.Incarnation++
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			b, c := w.nodes[1], w.nodes[2]
			id := w.withReplicas()
			h := w.steal(b)
			w.loses(c)
			w.net.join(b, c)
			if err := h.sends(c, blob(w, h, id, c)); err == nil {
				t.Error("it is taken without a word")
			}
			if held := c.holding(id); held != 0 {
				t.Errorf("%s holds %d materials", c.name, held)
			}
			// What is as it should be is taken.
			w.must(h.sends(c, h.wraps(id, h.key(id).Material(h.set(id).Current()).Object, h.set(id).Current(), c)))
			if held := c.holding(id); held != 1 {
				t.Errorf("%s holds %d materials, want the one that it had", c.name, held)
			}
		})
	}
}

// A replica that was deleted is back from a backup, and has been told. Nothing gives it
// material again.
func TestHostileMaterialForTheDeleted(t *testing.T) {
	w := scene(t)
	b, c := w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	old := w.save(c)
	w.must(c.scheduleDeletion(id))
	w.now = w.now.Add(8 * day)
	w.settle()
	w.must(c.run.svc.Work(t.Context()))
	w.settle()
	w.restoreTo(old)
	w.settle()
	if k := c.key(id); k.Gone() || !k.Set.Told() || c.holding(id) != 0 {
		t.Fatalf("gone %t, told %t, holds %d", k.Gone(), k.Set.Told(), c.holding(id))
	}
	h := w.steal(b)
	unwrapped := c.fake.Calls()["C_UnwrapKey"]
	_ = h.sends(c, h.wraps(id, h.key(id).Material(h.set(id).Current()).Object, h.set(id).Current(), c))
	if held := c.holding(id); held != 0 || c.fake.Calls()["C_UnwrapKey"] != unwrapped {
		t.Errorf("a key that is deleted holds %d materials, and %d were brought into the token", held, c.fake.Calls()["C_UnwrapKey"]-unwrapped)
	}
}

// A replica asks, in place of the primary Region, for one that this has listed: with a policy
// of its own choice.
func TestHostileRequest(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(c)
	w.must(a.replicateTo(id, c))
	w.settle()
	h := w.steal(b)
	w.net.join(b, c)
	e := h.set(id).Entry(c.name)
	req := mrk.CreateRequest{
		Key: id, Source: b.name, Instance: b.plant.descriptor.Instance, Destination: c.name, ToInstance: e.Instance, Incarnation: e.Incarnation,
		Principal: keyopstest.Admin().Principal.String(), Policy: []byte(openPolicy),
	}
	h.signs(&req)
	_ = h.tells(c, message.Facts{Facts: h.set(id).Facts(mrk.Hash{}), Head: h.set(id).Head(), Hash: h.set(id).Hash(), Request: &req})
	if c.key(id) != nil {
		t.Errorf("%s has made a replica that %s asks for", c.name, b.name)
	}
	w.net.join(a, c)
	w.settle()
	if k := c.key(id); k == nil || k.Set.Admission().Source != a.name {
		t.Error("the primary Region's request is not followed")
	}
}

// mallory is somebody whom no identity policy knows.
const mallory = "arn:aws:iam::" + string(keyopstest.Account) + ":user/mallory"

// The primary Region is hostile. In whose name it asks for a replica, or hands its key over, is
// its claim, and the policies of who is asked decide.
func TestHostileClaims(t *testing.T) {
	t.Run("a replica", func(t *testing.T) {
		w := scene(t)
		a, c := w.nodes[0], w.nodes[2]
		id := w.key(a)
		h := w.steal(a)
		s := h.state(id)
		s.Members = append(s.Members, mrk.Entry{Region: c.name, Instance: c.plant.descriptor.Instance, Incarnation: 1, Status: mrk.Joining})
		slices.SortFunc(s.Members, func(x, y mrk.Entry) int { return strings.Compare(string(x.Region), string(y.Region)) })
		h.signs(s)
		for _, by := range []string{mallory, keyopstest.Admin().Principal.String()} {
			req := mrk.CreateRequest{
				Key: id, Source: a.name, Instance: a.plant.descriptor.Instance, Destination: c.name, ToInstance: c.plant.descriptor.Instance, Incarnation: 1, Principal: by,
			}
			h.signs(&req)
			f := h.set(id).Facts(mrk.Hash{})
			f.State = s
			_ = h.tells(c, message.Facts{Facts: f, Head: h.set(id).Head(), Hash: mrk.Hash{1}, Request: &req})
			if made := c.key(id) != nil; made != (by != mallory) {
				t.Errorf("in the name of %s a replica is made: %t", by, made)
			}
		}
	})
	for name, by := range map[string]string{"a hand-over": mallory, "a hand-over by who may": keyopstest.Admin().Principal.String()} {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			a, c := w.nodes[0], w.nodes[2]
			id := w.withReplicas()
			h := w.steal(a)
			m := h.word(id, a)
			m.KeyState = "Updating"
			h.signs(m)
			w.must(h.shows(c, mrk.Facts{Key: id, Members: []*mrk.Member{m}}))
			cert := h.after(id, c)
			h.signs(&cert)
			h.w.must(h.offers(c, mrk.Offer{Certificate: cert, By: mrk.Claim{Principal: by}}))
			if taken := c.key(id).Set.Acting(); taken != (by != mallory) {
				t.Errorf("in the name of %s the key is taken over: %t", by, taken)
			}
		})
	}
}

// due lets the deletion of a replica come due, while nobody but one Region is reached.
func (w *world) due(n, asked *node, id arn.KeyID) {
	w.t.Helper()
	w.must(n.scheduleDeletion(id))
	w.settle()
	w.isolate(n)
	w.net.join(n, asked)
	w.now = w.now.Add(8 * day)
}

// The primary Region shows a confirmation that it has given before, or one that leaves a material
// out. What it held then, or holds beside, is not what is asked for.
func TestHostileConfirmation(t *testing.T) {
	for name, tt := range map[string]struct {
		lie       func(*mrk.Confirmation)
		destroyed bool
	}{
		"a fresh one":          {func(*mrk.Confirmation) {}, true},
		"of another question":  {func(c *mrk.Confirmation) { c.Nonce[0]++ }, false},
		"without one material": {func(c *mrk.Confirmation) { c.Held = c.Held[1:] }, false},
		"of who does not act":  {func(c *mrk.Confirmation) { c.Acting = false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			a, c := w.nodes[0], w.nodes[2]
			id := w.withReplicas()
			w.must(a.rotates(id, false))
			w.settle()
			h := w.steal(a)
			h.confirms(func(q mrk.Question) mrk.Confirmation {
				said := mrk.Confirmation{Nonce: q.Nonce, Exists: true, Acting: true, Held: q.Held}
				tt.lie(&said)
				return said
			})
			w.due(c, a, id)
			_ = c.run.svc.Work(t.Context())
			w.check()
			if c.buried(id) != tt.destroyed {
				t.Errorf("destroyed: %t", c.buried(id))
			}
		})
	}
}

// A replica's deletion is due, and while it asks, it hears that it has the primary key: it was
// handed over in the time that its restored store has forgotten. The Region that answers is
// hostile, and says that it acts.
func TestHostileConfirmationOfThePrimaryKey(t *testing.T) {
	w := scene(t)
	a, c := w.nodes[0], w.nodes[2]
	id := w.withReplicas()
	w.must(c.scheduleDeletion(id))
	w.settle()
	old := w.save(c)
	w.must(c.cancelDeletion(id))
	w.must(c.enable(id))
	w.settle()
	w.must(a.handsOver(id, c))
	w.settle()
	if !c.key(id).Set.Acting() {
		t.Fatal("not handed over")
	}
	h := w.steal(a)
	known := h.set(id).Facts(mrk.Hash{})
	w.isolate(c)
	w.restoreTo(old)
	w.net.join(a, c)
	h.confirms(func(q mrk.Question) mrk.Confirmation {
		_ = h.shows(c, mrk.Facts{Key: id, Certificates: known.Certificates, State: known.State})
		return mrk.Confirmation{Nonce: q.Nonce, Exists: true, Acting: true, Held: q.Held}
	})
	w.now = w.now.Add(9 * day)
	_ = c.run.svc.Work(t.Context())
	w.check()
	w.now = w.now.Add(25 * time.Hour) // a restored store's clock is doubted for a day
	_ = c.run.svc.Work(t.Context())
	w.check()
	if k := c.key(id); k.Set.Primary() != c.name || c.buried(id) {
		t.Errorf("the primary Region is %s, destroyed %t", k.Set.Primary(), c.buried(id))
	}
}

// enable enables a key.
func (n *node) enable(id arn.KeyID) error {
	_, err := n.run.svc.EnableKey(context.Background(), caller(), keyops.EnableKeyInput{KeyID: string(id)})
	return err
}

// A replica says that it holds the material of a rotation, and does not. It harms those who read
// in its Region, and nobody else: the rotation still waits for every honest Region.
func TestHostileHolder(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	h := w.steal(b)
	w.isolate(c)
	w.net.cut[[2]region.Name{a.name, b.name}] = true
	w.must(a.rotates(id, false))
	pending := a.key(id).Set.Pending()
	m := h.word(id, b)
	m.Seq, m.Held = a.key(id).Set.State().Seq, append(slices.Clone(m.Held), pending)
	slices.SortFunc(m.Held, func(x, y material.ID) int { return slices.Compare(x[:], y[:]) })
	h.signs(m)
	w.net.join(a, b)
	w.must(h.shows(a, mrk.Facts{Key: id, Members: []*mrk.Member{m}}))
	if a.key(id).Set.Pending() != pending {
		t.Fatal("the rotation ends while an honest Region lacks the material")
	}
	w.isolate(b)
	w.net.join(a, c)
	w.settle()
	if !a.key(id).Set.Pending().IsZero() {
		t.Error("the rotation waits for who says that it holds the material")
	}
	if !w.encryptAt(a, a.run, id) {
		t.Fatal("cannot encrypt")
	}
	if _, err := w.open(c.run, w.letters[len(w.letters)-1]); err != nil || w.letters[len(w.letters)-1].material != pending.String() {
		t.Errorf("%s cannot read what is encrypted with the new material: %v", c.name, err)
	}
}
