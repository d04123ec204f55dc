package simulation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

// What goes back in time: stores, audit logs and tokens.

const maxBackups = 6

// backup is what a backup of one Region holds.
type backup struct {
	of    *node
	file  *storetest.Memory // stamped, as the backup tool makes it
	token hsmtest.Snapshot
	disk  *storetest.Memory // as a snapshot of the disk has it
	audit map[string][]byte
	keys  map[arn.KeyID]bool // that the store has

	epochs map[arn.KeyID]mrk.Epoch // that it knows
}

// save makes a backup of a Region.
func (w *world) save(n *node) backup {
	file, err := n.file.Backup(n.clock())
	w.must(err)
	b := backup{of: n, file: file, token: n.fake.Snapshot(), disk: n.file.Copy(), audit: map[string][]byte{}}
	names, err := filepath.Glob(filepath.Join(n.audit, "*"))
	w.must(err)
	for _, name := range names {
		b.audit[name], err = os.ReadFile(name)
		w.must(err)
	}
	b.keys, b.epochs = map[arn.KeyID]bool{}, map[arn.KeyID]mrk.Epoch{}
	for _, id := range w.keys {
		k := n.key(id)
		if b.keys[id] = k != nil; k != nil {
			b.epochs[id] = k.Set.Epoch()
		}
	}
	return b
}

// remembered reports whether a store can go back without forgetting a key whose material no
// other Region holds and knows: nobody could say what the object in the token is (PROTOCOL.md
// 5, 1: an epoch that every Region has forgotten).
func (w *world) remembered(b backup) bool {
	for _, id := range w.keys {
		k := b.of.key(id)
		if k == nil || b.keys[id] {
			continue
		}
		for _, m := range k.Held() {
			if !w.somewhere(m.String(), b.of) {
				return false
			}
		}
	}
	return true
}

func (w *world) backUp() {
	n := pick(w, w.nodes)
	w.note("%s: backed up", n.name)
	b := w.save(n)
	if kept := w.backups[len(w.nodes):]; len(kept) >= maxBackups {
		kept[w.rng.IntN(len(kept))] = b
		return
	}
	w.backups = append(w.backups, b)
}

// restore puts a backup back: the store, the token, or both.
// anyBackup picks one, mostly not of before any key.
func (w *world) anyBackup() backup {
	if newer := w.backups[len(w.nodes):]; len(newer) > 0 && w.chance(80) {
		return pick(w, newer)
	}
	return pick(w, w.backups)
}

func (w *world) restore() {
	b := w.anyBackup()
	n := b.of
	store, token := w.chance(70), w.chance(50)
	if token && !w.spared(n, b.token) || store && !w.remembered(b) {
		return
	}
	if n.running() {
		n.stop()
	}
	n.doubt(store || token)
	if store {
		w.putBackup(b)
	}
	if token {
		n.fake.Restore(b.token)
	}
	w.note("%s: restored, store %t, token %t", n.name, store, token)
	w.must(n.start())
	n.recallOut()
}

// putBackup puts the store of a backup back, which shows by its stamp what it is.
func (w *world) putBackup(b backup) {
	for _, id := range w.keys {
		w.record(id) // what was written before
		at := membership{id, b.of.name}
		w.ledger.back[at] = back{w.ledger.back[at].times + 1, b.epochs[id]}
	}
	b.of.putBack(b.file)
}

// putBack puts an older store in the place of the Region's.
func (n *node) putBack(file *storetest.Memory) {
	n.file = file.Copy()
	n.last = map[arn.KeyID]*keyops.Key{}
	n.w.ledger.wentBack, n.wentBack = true, true
}

// rollBack puts store and audit log back together, as a snapshot of the disk does: nothing in
// the Region shows it, unless the token holds what the store has forgotten.
func (w *world) rollBack() {
	b := w.anyBackup()
	if !w.remembered(b) {
		return
	}
	w.rollBackTo(b, w.chance(30) && w.spared(b.of, b.token))
}

func (w *world) rollBackTo(b backup, token bool) {
	n := b.of
	if n.running() {
		n.stop()
	}
	n.doubt(true)
	for _, id := range w.keys {
		w.record(id) // what it wrote before it went back
	}
	n.unaware = true
	w.ledger.rolls[n.name]++
	n.putBack(b.disk)
	names, err := filepath.Glob(filepath.Join(n.audit, "*"))
	w.must(err)
	for _, name := range names {
		w.must(os.Remove(name))
	}
	for name, content := range b.audit {
		w.must(os.WriteFile(name, content, 0o600))
	}
	if token {
		n.fake.Restore(b.token)
	}
	w.note("%s: rolled back, token %t", n.name, token)
	w.must(n.start())
	n.recallOut()
}

// loseToken empties a token of its materials.
func (w *world) loseToken() {
	n := pick(w, w.nodes)
	if !w.spared(n, n.plant.token) {
		return
	}
	var single arn.KeyID
	if w.again && n.running() && !n.frozen() && n.fuse == (fuse{}) {
		out, err := n.run.svc.CreateKey(context.Background(), caller(), keyops.CreateKeyInput{})
		w.must(err)
		single = out.KeyMetadata.KeyID
	}
	if n.running() {
		n.stop()
	}
	n.doubt(true)
	n.fake.Restore(n.plant.token)
	w.note("%s: token lost", n.name)
	w.must(n.start())
	if single != "" {
		w.lostByName(n, single)
	}
}

// lostByName checks what operators are told who have put a new token in the place of a lost one:
// a single-Region key, which no other Region can send again, by its name.
func (w *world) lostByName(n *node, id arn.KeyID) {
	c := n.run.custody()
	lost, err := c.LostKeys(context.Background())
	w.must(err)
	if !slices.ContainsFunc(lost, func(k keyops.LostKey) bool { return k.ID == id }) {
		w.break_("%s does not name single-Region key %s as lost with its token", n.name, id)
	}
	_, err = n.run.svc.Encrypt(context.Background(), caller(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("x")})
	if !errors.Is(err, keyops.ErrKeyUnavailable) {
		w.break_("%s encrypts with key %s, which is lost: %v", n.name, id, err)
	}
}

// overrule does what operators do when nobody acts for a key that contradictions of a member
// freeze, which never numbers past them: what is heard of a frozen key lets nobody act again
// (docs/replication.md). They promote a Region, and evict the member.
func (w *world) overrule(id arn.KeyID) {
	for _, n := range w.up() {
		k := n.key(id)
		if k == nil || k.Gone() || k.Set.Frozen() == nil {
			continue
		}
		c, h := k.Set.Frozen(), w.heir(id, w.frozen())
		if c.Cause == mrk.CauseEquivocation && c.Epoch.IsZero() && h != nil && c.Writer != h.name && w.promoteOne(h, id) {
			w.evictOne(h, id, w.node(c.Writer))
			return
		}
	}
}

// keeps reports whether a Region has a key for good, as far as anybody knows. One that was restored
// from a backup of before its deletion hears sooner or later that it has none (rule 20).
func (n *node) keeps(id arn.KeyID) bool {
	if !n.running() {
		return false
	}
	k := n.key(id)
	return k != nil && !k.Gone() && !k.Set.Told() && !slices.ContainsFunc(n.w.up(), func(o *node) bool {
		its := o.key(id)
		return its != nil && its.Set.Fact(n.name) != nil && its.Set.Fact(n.name).Deleted && its.Set.Fact(n.name).Incarnation >= k.Set.Incarnation()
	})
}
