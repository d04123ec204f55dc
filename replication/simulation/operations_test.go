package simulation

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// operation is one thing that may happen. What cannot happen now does nothing.
type operation struct {
	name   string
	weight int // how often it is chosen, compared with the others
	do     func(*world)
}

// operations is everything that may happen between two messages.
var operations = []operation{
	{"create", 3, (*world).create},
	{"create to import", 1, (*world).createExternal},
	{"import", 10, (*world).importSome},
	{"delete import", 1, (*world).deleteImported},
	{"replicate", 8, (*world).replicate},
	{"encrypt", 12, (*world).encrypt},
	{"decrypt", 6, (*world).decrypt},
	{"disable", 2, (*world).toggle},
	{"suspend", 2, (*world).suspend},
	{"rotate", 6, (*world).rotate},
	{"hand over", 4, (*world).handOver},
	{"promote", 2, (*world).promote},
	{"evict", 1, (*world).evict},
	{"disassociate", 4, (*world).disassociate},
	{"write off", 1, (*world).writeOff},
	{"schedule deletion", 3, (*world).scheduleDeletion},
	{"cancel deletion", 1, (*world).cancelDeletion},
	{"rotate by itself", 1, (*world).rotateByItself},
	{"days", 2, (*world).days},
	{"work", 4, (*world).work},
	{"round", 50, (*world).round},
	{"rounds", 5, (*world).everybody},
	{"step", 4, (*world).step},
	{"checkpoint", 4, (*world).checkpoint},
	{"time", 8, (*world).pass},
	{"deliver", 8, (*world).deliver},
	{"cut", 3, (*world).sever},
	{"mend", 5, (*world).mend},
	{"fuse", 5, (*world).lightFuse},
	{"kill", 2, (*world).kill},
	{"stop", 1, (*world).stopOne},
	{"start", 12, (*world).startOne},
	{"back up", 4, (*world).backUp},
	{"restore", 4, (*world).restore},
	{"roll back", 2, (*world).rollBack},
	{"lose token", 3, (*world).loseToken},
	{"begin again", 2, (*world).beginAgain},
	{"pin anew", 3, (*world).pinSome},
	{"clock", 1, (*world).jump},
	{"hostile", 0, (*world).mischief}, // in schedules that have a thief
}

// between is what may happen while a message is on its way, or operators approve.
var between []operation

// maxDepth bounds how much happens within one exchange.
const maxDepth = 3

func init() {
	for _, op := range operations {
		switch op.name {
		case "stop", "start", "restore", "roll back", "back up", "lose token", "begin again", "pin anew", "clock", "days", "rounds":
			continue // between two messages only
		}
		between = append(between, op)
	}
}

// meanwhile lets something else happen so often of 100, within what is happening.
func (w *world) meanwhile(percent int) {
	if w.faults && w.depth < maxDepth && w.chance(percent) {
		w.do(w.choose(between))
	}
}

const maxKeys = 2

// caller is an operator of any Region. Its request ID is part of the schedule.
func caller() keyops.Caller { return keyopstest.Admin() }

// answered checks that an operation ended as it may: done, refused in AWS's terms, or cut
// off by the end of the daemon.
func (w *world) answered(n *node, r *run, what string, err error) bool {
	if r.dead {
		w.note("%s: %s: cut off", n.name, what)
		return false
	}
	var refused *keyops.Error
	if err != nil && !errors.As(err, &refused) {
		w.break_("%s: %s: not an error of the API: %v", n.name, what, err)
	}
	w.note("%s: %s: %v", n.name, what, err)
	return err == nil
}

func (w *world) anyUp() (*node, *run) {
	up := w.up()
	if len(up) == 0 {
		return nil, nil
	}
	n := pick(w, up)
	return n, n.run
}

func (w *world) create() {
	n, r := w.anyUp()
	if n == nil || len(w.keys) >= maxKeys {
		return
	}
	_, err := n.createKey()
	w.answered(n, r, "create", err)
}

func (n *node) createKey() (arn.KeyID, error) {
	out, err := n.run.svc.CreateKey(context.Background(), caller(), keyops.CreateKeyInput{MultiRegion: true})
	if err == nil {
		n.w.keys = append(n.w.keys, out.KeyMetadata.KeyID)
	}
	return out.KeyMetadata.KeyID, err
}

func (w *world) anyKey() arn.KeyID {
	if len(w.keys) == 0 {
		return ""
	}
	return pick(w, w.keys)
}

func (w *world) replicate() {
	id := w.anyKey()
	n, k := w.acting(id)
	if n == nil {
		return
	}
	to := pick(w, w.nodes)
	if to == n || k.Set.Entry(to.name).Status.In() && !k.Set.Forgotten(to.name) {
		return
	}
	r := n.run
	w.answered(n, r, fmt.Sprintf("replicate to %s", to.name), n.replicateTo(id, to))
}

func (n *node) replicateTo(id arn.KeyID, to *node) error {
	_, err := n.run.svc.ReplicateKey(context.Background(), caller(), keyops.ReplicateKeyInput{KeyID: string(id), ReplicaRegion: string(to.name)})
	return err
}

// letter is something that was encrypted.
type letter struct {
	key       arn.KeyID
	from      region.Name
	material  string
	blob      []byte
	plaintext []byte
	excused   bool // nobody promises that others can read it
}

func (w *world) encrypt() {
	n, r := w.anyUp()
	id := w.anyKey()
	if n == nil || id == "" || n.key(id) == nil {
		return
	}
	w.encryptAt(n, r, id)
}

func (w *world) encryptAt(n *node, r *run, id arn.KeyID) bool {
	l := letter{key: id, from: n.name, plaintext: binary.BigEndian.AppendUint32(nil, uint32(len(w.letters))), excused: n.doubted || n.hostile}
	out, err := r.svc.Encrypt(context.Background(), caller(), keyops.EncryptInput{KeyID: string(id), Plaintext: l.plaintext})
	if !w.answered(n, r, "encrypt", err) {
		return false
	}
	l.blob, l.material = out.CiphertextBlob, out.KeyMaterialID
	w.letters = append(w.letters, l)
	return true
}

func (w *world) decrypt() {
	n, r := w.anyUp()
	if n == nil || len(w.letters) == 0 {
		return
	}
	l := pick(w, w.letters)
	if n.key(l.key) == nil && w.chance(90) {
		return
	}
	must := w.reads(n, l)
	plaintext, err := w.open(r, l)
	if !w.answered(n, r, "decrypt", err) {
		if must && !r.dead {
			w.break_("%s, active, cannot decrypt what %s encrypted: %v", n.name, l.from, err)
		}
		return
	}
	if !bytes.Equal(plaintext, l.plaintext) {
		w.break_("%s decrypts to something else", n.name)
	}
}

func (w *world) open(r *run, l letter) ([]byte, error) {
	out, err := r.svc.Decrypt(context.Background(), caller(), keyops.DecryptInput{CiphertextBlob: l.blob})
	return out.Plaintext, err
}

// toggle disables a key, or enables it again.
func (w *world) toggle() {
	n, r := w.anyUp()
	id := w.anyKey()
	if n == nil || id == "" || n.key(id) == nil {
		return
	}
	if w.chance(30) {
		_, err := r.svc.DisableKey(context.Background(), caller(), keyops.DisableKeyInput{KeyID: string(id)})
		w.answered(n, r, "disable", err)
		return
	}
	_, err := r.svc.EnableKey(context.Background(), caller(), keyops.EnableKeyInput{KeyID: string(id)})
	w.answered(n, r, "enable", err)
}

func (w *world) rotate() {
	id := w.anyKey()
	n, _ := w.acting(id)
	if n == nil {
		return
	}
	r := n.run
	_, err := r.svc.RotateKeyOnDemand(context.Background(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id), AcceptAlone: w.chance(70)})
	w.answered(n, r, "rotate", err)
}

// handOver asks for another primary Region.
func (w *world) handOver() {
	id := w.anyKey()
	n, k := w.acting(id)
	if n == nil {
		return
	}
	to, r := pick(w, w.nodes), n.run
	for range 3 { // mostly to one that can have it
		if k.Set.Entry(to.name).Status == mrk.Active && to != n {
			break
		}
		to = pick(w, w.nodes)
	}
	_, err := r.svc.UpdatePrimaryRegion(context.Background(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(to.name)})
	w.answered(n, r, fmt.Sprintf("hand over to %s", to.name), err)
}

// work is what a daemon does by its clock every minute. Its one worker may be in an exchange
// within which this is called.
func (w *world) work() {
	n, r := w.anyUp()
	if n == nil || r.working {
		return
	}
	r.working = true
	defer func() { r.working = false }()
	err := r.svc.Work(context.Background())
	w.note("%s: work: %t", n.name, err == nil)
}

// round lets one Region do what is due with one peer.
func (w *world) round() {
	n, r := w.anyUp()
	if n == nil {
		return
	}
	peer := pick(w, w.nodes)
	pair := [2]region.Name{n.name, peer.name}
	if peer == n || w.rounds[pair] {
		return // each peer has one sender
	}
	w.rounds[pair] = true
	defer delete(w.rounds, pair)
	next := r.repl.Round(context.Background(), peer.name)
	w.note("%s: round with %s", n.name, peer.name)
	if wait := next.Sub(n.clock()); !r.dead && wait > 0 && wait < time.Hour && w.chance(50) {
		w.now = w.now.Add(wait)
	}
}

// everybody lets each Region that is up do what is due with each other one.
func (w *world) everybody() {
	for _, n := range w.up() {
		for _, peer := range w.nodes {
			if r := n.run; r != nil && !r.dead && peer != n {
				r.repl.Round(context.Background(), peer.name)
			}
		}
	}
	w.now = w.now.Add(30 * time.Second)
}

func (w *world) step() {
	if n, r := w.anyUp(); n != nil {
		r.repl.Step(context.Background())
		w.note("%s: step", n.name)
	}
}

// checkpoint is what a daemon does by its clock every second.
func (w *world) checkpoint() {
	if n, r := w.anyUp(); n != nil {
		_, err := r.log.Checkpoint(context.Background())
		w.note("%s: checkpoint: %t", n.name, err == nil)
	}
}

func (w *world) pass() {
	w.now = w.now.Add(time.Duration(w.rng.IntN(60_000)) * time.Millisecond)
}

func (w *world) jump() {
	pick(w, w.nodes).offset += time.Duration(w.rng.IntN(48*60)-24*60) * time.Minute
}

func (w *world) sever() {
	a, b := pick(w, w.nodes), pick(w, w.nodes)
	w.net.cut[[2]region.Name{a.name, b.name}] = true
	if w.chance(60) {
		w.net.cut[[2]region.Name{b.name, a.name}] = true
	}
}

func (w *world) mend() {
	if w.chance(30) {
		w.net.heal()
		return
	}
	w.net.join(pick(w, w.nodes), pick(w, w.nodes))
}

func (w *world) lightFuse() {
	if n, _ := w.anyUp(); n != nil {
		n.fuse = fuse{1 + w.rng.IntN(40)}
	}
}

func (w *world) kill() {
	if n, r := w.anyUp(); n != nil {
		w.note("%s: killed", n.name)
		r.die()
	}
}

func (w *world) stopOne() {
	if n, _ := w.anyUp(); n != nil {
		w.note("%s: stopped", n.name)
		n.stop()
	}
}

func (w *world) startOne() {
	for _, n := range w.nodes {
		if !n.running() {
			w.note("%s: started", n.name)
			w.must(n.start())
			return
		}
	}
}
