package mrk_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

const (
	testKey = arn.KeyID("mrk-00112233445566778899aabbccddeeff")
	regionA = region.Name("eu-paris-1")
	regionB = region.Name("us-east-1")
	regionC = region.Name("ap-tokyo-1")
)

var allRegions = []region.Name{regionA, regionB, regionC}

// hostSigner signs with a key of this process, always the same bytes for the same words.
type hostSigner struct{ key *ecdsa.PrivateKey }

func (s hostSigner) Sign(ctx context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	return statement.Sign(ctx, statement.SignerFunc(func(_ context.Context, digest []byte) ([]byte, error) {
		return s.key.Sign(nil, digest, crypto.SHA384)
	}), p, payload)
}

// testSigner returns the signing key of a Region, derived from its name.
func testSigner(r region.Name) hostSigner {
	h := sha256.Sum256([]byte(r))
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), append(make([]byte, 16), h[:]...))
	if err != nil {
		panic(err)
	}
	return hostSigner{k}
}

func testInstance(r region.Name) region.InstanceID {
	h := sha256.Sum256([]byte("instance" + r))
	return region.InstanceID(fmt.Sprintf("kfi-%x", h[:6]))
}

// pins verifies as a Region does that has pinned all others.
type pins struct{}

func (pins) Verify(r region.Name, instance region.InstanceID, s statement.Signed) error {
	if instance != testInstance(r) {
		return fmt.Errorf("instance %s of %s is not pinned", instance, r)
	}
	return s.Verify(&testSigner(r).key.PublicKey)
}

func testMaterial(n int) material.ID {
	return material.Compute("SYMMETRIC_DEFAULT", string(testKey), []byte{byte(n)})
}

// node is one Region as package keyops runs it: token, key row and set.
type node struct {
	name    region.Name
	set     *mrk.Set
	token   map[material.ID]bool
	rows    map[material.ID]bool
	used    map[material.ID]bool // durable
	wrote   map[material.ID]bool // what this Region really encrypted with
	current material.ID
	state   string
	heard   map[region.Name]bool
	unwraps int
	mute    bool // the token with the signing key was lost: no certificate can be signed
}

// tester is what tests, fuzz targets and property tests have in common.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// world is a whole deployment without network, token and store.
type world struct {
	t      tester
	nodes  map[region.Name]*node
	nonces int
	mats   int
	events []mrk.Event
	quick  bool // facts are signed with hashes and nothing is encoded but in restarts, for the many schedules of the property tests
	ghost  *ghost
}

// signer returns what a Region signs with.
func (w *world) signer(r region.Name) mrk.Signer {
	if w.quick {
		return quickSigner(r)
	}
	return testSigner(r)
}

// verifier returns what every Region verifies with.
func (w *world) verifier() mrk.Verifier {
	if w.quick {
		return quickPins{}
	}
	return pins{}
}

// quickSigner signs with a hash that anybody could compute.
type quickSigner region.Name

func (q quickSigner) Sign(_ context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %s", string(q), p, len(payload), payload))
	return statement.Signed{Purpose: p, Payload: payload, Signature: h[:]}, nil
}

type quickPins struct{ pins }

func (quickPins) Verify(r region.Name, instance region.InstanceID, s statement.Signed) error {
	want, _ := quickSigner(r).Sign(context.Background(), s.Purpose, s.Payload)
	if instance != testInstance(r) || !bytes.Equal(want.Signature, s.Signature) {
		return fmt.Errorf("statement of %s: %w", r, statement.ErrSignature)
	}
	return nil
}

func (w *world) nonce() (mrk.Nonce, error) {
	w.nonces++
	return mrk.Nonce{byte(w.nonces), byte(w.nonces >> 8)}, nil
}

// newWorld has a key in A, replicated nowhere.
func newWorld(t tester) *world { return createWorld(t, false) }

func createWorld(t tester, quick bool) *world {
	w := &world{t: t, nodes: map[region.Name]*node{}, quick: quick}
	for _, r := range allRegions {
		w.nodes[r] = &node{
			name: r, token: map[material.ID]bool{}, rows: map[material.ID]bool{}, used: map[material.ID]bool{},
			wrote: map[material.ID]bool{}, heard: map[region.Name]bool{},
		}
	}
	a := w.nodes[regionA]
	nonce, _ := w.nonce()
	set, err := mrk.Create(context.Background(), w.signer(regionA), a.self(), mrk.Properties{
		Key: testKey, Account: "111122223333", Spec: "SYMMETRIC_DEFAULT", Usage: "ENCRYPT_DECRYPT", Origin: "AWS_KMS", Created: 1700000000,
	}, mrk.Listed{ID: w.material(), Created: 1700000000}, nonce)
	w.must(err)
	a.set, a.state = set, "Enabled"
	a.token[testMaterial(0)], a.rows[testMaterial(0)] = true, true
	w.settle(a)
	return w
}

// clone returns a copy that another test may go on with.
func (w *world) clone(t tester) *world {
	c := *w
	c.t, c.nodes = t, map[region.Name]*node{}
	for r, n := range w.nodes {
		m := *n
		if n.set != nil {
			m.set = n.set.Clone()
		}
		m.token, m.rows, m.used = maps.Clone(n.token), maps.Clone(n.rows), maps.Clone(n.used)
		m.wrote, m.heard = maps.Clone(n.wrote), maps.Clone(n.heard)
		c.nodes[r] = &m
	}
	return &c
}

func (w *world) material() material.ID {
	w.mats++
	return testMaterial(w.mats - 1)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (n *node) self() mrk.Self { return mrk.Self{Region: n.name, Instance: testInstance(n.name)} }

func (n *node) held() []material.ID {
	var out []material.ID
	for id := range n.rows {
		if n.token[id] {
			out = append(out, id)
		}
	}
	return out
}

// settle is what keyops does at the end of every transaction on a key.
func (w *world) settle(n *node) {
	w.t.Helper()
	held := n.held()
	if n.set.Shut() && (n.state == "Enabled" || n.state == "Creating" || n.state == "Updating") {
		n.state = "Disabled"
	}
	if n.set.Told() && n.state != "" && n.state != "Gone" {
		n.state = "PendingDeletion"
	}
	if n.state == "Creating" && n.set.Ready(held) {
		n.state = "Enabled"
		w.readied(n)
	}
	_, giving := n.set.Offered()
	_, taking := n.set.Considering()
	switch {
	case n.state == "Enabled" && (giving || taking):
		n.state = "Updating"
	case n.state == "Updating" && !giving && !taking:
		n.state = "Enabled"
	}
	if cur := n.set.Current(); slices.Contains(held, cur) {
		n.current = cur
		n.used[cur] = true
	}
	_, err := n.set.Reissue(context.Background(), w.signer(n.name), n.own())
	w.must(err)
	if w.quick {
		n.set = n.set.Clone()
		return
	}
	w.reload(n)
}

// reload makes what is stored what is used.
func (w *world) reload(n *node) {
	w.t.Helper()
	stored, err := mrk.Unmarshal(n.set.Marshal())
	w.must(err)
	n.set = stored
}

func (n *node) own() mrk.OwnFacts {
	own := mrk.OwnFacts{
		Held: n.held(), Used: slices.Collect(maps.Keys(n.used)), KeyState: n.state, Deleted: n.state == "Gone",
	}
	if n.rows[n.current] && n.token[n.current] {
		own.Current = n.current
	}
	if own.KeyState == "" {
		own.KeyState = "Creating"
	}
	return own
}

func (w *world) sync(from, to region.Name) []mrk.Refusal { return w.deliver(w.message(from, to)) }

// contact knows every Region: also of keys that a Region has no word of.
func (w *world) contact(n *node) mrk.Contact {
	others := slices.DeleteFunc(slices.Clone(allRegions), func(r region.Name) bool { return r == n.name })
	return mrk.Contact{
		Regions: others, Nonce: w.nonce, Now: func() int64 { return 1700000001 },
		Heard: func(r region.Name) bool { return n.heard[r] || w.message(r, n.name) == nil },
	}
}

func (w *world) step(r region.Name) []mrk.Event {
	w.t.Helper()
	n := w.nodes[r]
	if n.set == nil || n.state == "Gone" || n.mute && !n.set.Acting() {
		return nil
	}
	_, events, err := n.set.Step(context.Background(), w.signer(r), w.contact(n))
	w.must(err)
	w.events = append(w.events, events...)
	w.settle(n)
	return events
}

func (w *world) replicate(from, to region.Name) error {
	n := w.nodes[from]
	err := n.set.AddMember(context.Background(), w.signer(from), to, testInstance(to), mrk.CreateRequest{
		Principal: "arn:aws:iam::111122223333:user/ops", CorrelationID: "c-1", Policy: []byte("{}"),
	})
	w.settle(n)
	return err
}

func (w *world) rotate(r region.Name) error {
	n := w.nodes[r]
	id := w.material()
	if err := n.set.RotateAlone(context.Background(), w.signer(r), mrk.Listed{ID: id}); err != nil {
		return err
	}
	n.token[id], n.rows[id] = true, true
	w.settle(n)
	return nil
}

func (w *world) suspend(p, r region.Name) error {
	n := w.nodes[p]
	err := n.set.Suspend(context.Background(), w.signer(p), r)
	w.settle(n)
	return err
}

func (w *world) encrypt(r region.Name) bool {
	n := w.nodes[r]
	if n.state != "Enabled" && n.state != "Updating" || n.current.IsZero() || !n.token[n.current] || !n.rows[n.current] {
		return false
	}
	n.wrote[n.current] = true
	return true
}

// delete ends the key of a replica, as rule 22 does at its end.
func (w *world) delete(r region.Name) {
	n := w.nodes[r]
	n.token, n.rows, n.state, n.current = map[material.ID]bool{}, map[material.ID]bool{}, "Gone", material.ID{}
	w.settle(n)
}

// heal exchanges everything until nothing changes.
func (w *world) heal() {
	w.t.Helper()
	for range 40 {
		before := w.fingerprint()
		for _, x := range allRegions {
			for _, y := range allRegions {
				if x != y {
					w.sync(x, y)
				}
			}
			w.step(x)
		}
		if w.fingerprint() == before {
			return
		}
	}
	w.t.Fatal("still changing after 40 rounds")
}

func (w *world) fingerprint() string {
	s := ""
	for _, r := range allRegions {
		n := w.nodes[r]
		if n.set != nil {
			s += fmt.Sprintf("%s %x %s %v %d;", r, sha256.Sum256(n.set.Marshal()), n.state, n.current, len(n.heard))
		}
	}
	return s
}

// check fails if a member that the newest state calls Active cannot decrypt what another
// one encrypted, or if two Regions act in one epoch.
func (w *world) check() {
	w.t.Helper()
	var top *mrk.State
	acting := map[mrk.Epoch]region.Name{}
	for _, r := range allRegions {
		n := w.nodes[r]
		if n.set == nil || n.set.State() == nil {
			continue
		}
		if top == nil || n.set.State().Compare(top) > 0 {
			top = n.set.State()
		}
		if n.set.Acting() {
			if other, ok := acting[n.set.Epoch()]; ok {
				w.t.Fatalf("%s and %s act in epoch %s", other, r, n.set.Epoch())
			}
			acting[n.set.Epoch()] = r
		}
	}
	now := func(r region.Name) bool {
		n, e := w.nodes[r], top.Entry(r)
		return n.set != nil && n.state == "Enabled" && e.Status == mrk.Active && e.Incarnation == n.set.Incarnation()
	}
	for _, x := range allRegions {
		for _, y := range allRegions {
			if !now(x) || !now(y) {
				continue
			}
			for id := range w.nodes[x].wrote {
				if !w.nodes[y].rows[id] || !w.nodes[y].token[id] {
					w.t.Fatalf("%s encrypted with %.8s, which %s, also active, cannot decrypt", x, id, y)
				}
			}
		}
	}
}

// converged fails unless everybody knows the same, holds the same and uses the same.
func (w *world) converged(members ...region.Name) {
	w.t.Helper()
	first := w.nodes[members[0]]
	for _, r := range members {
		n := w.nodes[r]
		if n.set == nil {
			w.t.Fatalf("%s has no key", r)
		}
		if n.set.Hash() != first.set.Hash() {
			w.t.Fatalf("%s and %s know different facts", first.name, r)
		}
		if e := n.set.Entry(r); e.Status != mrk.Active {
			w.t.Fatalf("%s is %s", r, e.Status)
		}
		if n.state != "Enabled" {
			w.t.Fatalf("the key in %s is %s", r, n.state)
		}
		if n.current != first.current || len(n.held()) != len(first.held()) {
			w.t.Fatalf("%s holds %d and uses %.8s, %s holds %d and uses %.8s",
				r, len(n.held()), n.current, first.name, len(first.held()), first.current)
		}
	}
}

type regionName = region.Name
