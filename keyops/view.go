package keyops

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
)

// view is the Region's keys in memory: what requests read. It follows the store, never the
// other way round. Its lock is held for a look-up or a swap, never across a token call.
type view struct {
	mu      sync.RWMutex
	entries map[arn.KeyID]*entry
	aliases map[aliasName]arn.KeyID
	keys    map[arn.Account][]arn.KeyID // ordered
	made    map[string]int              // keys by the principal that made them
	names   map[arn.Account][]string    // alias names, ordered
	retires map[string][]grantRef       // by the retiring principal's ARN, ordered
	refused map[arn.KeyID]error         // rows that cannot be believed, and why
	due     map[arn.KeyID]time.Time     // when the worker has to look at the key
	shared  atomic.Uint64               // grows with every change of a multi-Region key
}

// entry is the place of one key.
type entry struct {
	change  sync.Mutex          // held by the one who changes the key, from the copy to the publication
	install sync.Mutex          // held by the one who unwraps a material of the key; taken before change
	key     atomic.Pointer[Key] // nil once the key is deleted
}

type aliasName struct {
	account arn.Account
	name    string
}

func newView() *view {
	return &view{
		entries: map[arn.KeyID]*entry{},
		aliases: map[aliasName]arn.KeyID{},
		keys:    map[arn.Account][]arn.KeyID{},
		made:    map[string]int{},
		names:   map[arn.Account][]string{},
		retires: map[string][]grantRef{},
		refused: map[arn.KeyID]error{},
		due:     map[arn.KeyID]time.Time{},
	}
}

// key returns the key's newest snapshot, or nil if there is none, or none any more.
func (v *view) key(id arn.KeyID) *Key {
	if k := v.fact(id); k != nil && !k.Gone() {
		return k
	}
	return nil
}

// fact is key for those who also have to know of multi-Region keys that are deleted here.
func (v *view) fact(id arn.KeyID) *Key {
	if e := v.entry(id); e != nil {
		return e.key.Load()
	}
	return nil
}

func (v *view) entry(id arn.KeyID) *entry {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.entries[id]
}

// unreadable returns why a key that the store has cannot be used, or nil.
func (v *view) unreadable(id arn.KeyID) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.refused[id]
}

func (v *view) refuse(id arn.KeyID, why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refused[id] = why
	v.shared.Add(1)
}

// target returns the key that an alias points to.
func (v *view) target(account arn.Account, alias string) (arn.KeyID, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	id, ok := v.aliases[aliasName{account, alias}]
	return id, ok
}

// count returns how many keys an account has.
func (v *view) count(account arn.Account) int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.keys[account])
}

// madeBy returns how many keys a principal has made that exist.
func (v *view) madeBy(principal string) int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.made[principal]
}

func (v *view) countMaker(k *Key, n int) {
	if k == nil || k.Creator == "" || k.Gone() {
		return
	}
	if v.made[k.Creator] += n; v.made[k.Creator] <= 0 {
		delete(v.made, k.Creator)
	}
}

// total returns how many keys all accounts have.
func (v *view) total() (n int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, ids := range v.keys {
		n += len(ids)
	}
	return n
}

// publish makes durable keys visible, all at once, with their aliases.
func (v *view) publish(keys ...*Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, k := range keys {
		v.publishLocked(k)
	}
}

func (v *view) publishLocked(k *Key) {
	e := v.entries[k.ID]
	if e == nil {
		e = &entry{}
		v.entries[k.ID] = e
	}
	if k.Gone() {
		v.keys[k.Account] = remove(v.keys[k.Account], k.ID)
	} else {
		v.keys[k.Account] = insert(v.keys[k.Account], k.ID)
	}
	old := e.key.Swap(k)
	v.countMaker(old, -1)
	v.countMaker(k, 1)
	if k.Set != nil {
		v.shared.Add(1)
	}
	v.indexRetirable(old, k)
	if old != nil {
		v.takeAliases(old)
	}
	if next := k.nextDue(); next.IsZero() {
		delete(v.due, k.ID)
	} else {
		v.due[k.ID] = next
	}
	for _, a := range k.Aliases {
		v.aliases[aliasName{k.Account, a.Name}] = k.ID
		v.names[k.Account] = insert(v.names[k.Account], a.Name)
	}
}

// takeAliases forgets the aliases of a key, but for those that point to another by now.
func (v *view) takeAliases(k *Key) {
	for _, a := range k.Aliases {
		name := aliasName{k.Account, a.Name}
		if v.aliases[name] == k.ID {
			delete(v.aliases, name)
			v.names[k.Account] = remove(v.names[k.Account], a.Name)
		}
	}
}

// remove forgets a deleted key. Who waits for its lock finds that it has gone.
func (v *view) remove(k *Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.entries[k.ID]
	if e == nil {
		return
	}
	v.countMaker(e.key.Swap(nil), -1)
	v.indexRetirable(k, &Key{ID: k.ID})
	v.takeAliases(k)
	delete(v.entries, k.ID)
	v.shared.Add(1)
	delete(v.due, k.ID)
	v.keys[k.Account] = remove(v.keys[k.Account], k.ID)
}

// dueAt returns the keys that the worker has to look at by now, in order.
func (v *view) dueAt(now time.Time) []arn.KeyID {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var ids []arn.KeyID
	for id, next := range v.due {
		if !now.Before(next) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// grantRef names a grant of a key: <key ID>/<grant ID>.
type grantRef string

func (r grantRef) split() (arn.KeyID, string) {
	key, grant, _ := strings.Cut(string(r), "/")
	return arn.KeyID(key), grant
}

// indexRetirable keeps up with a change of a key's grants. Most changes are of something
// else, and leave the list itself in its place.
func (v *view) indexRetirable(old, now *Key) {
	each := func(k *Key, do func([]grantRef, grantRef) []grantRef) {
		for _, g := range k.Grants {
			if g.Retiring == "" {
				continue
			}
			list := do(v.retires[g.Retiring], grantRef(string(k.ID)+"/"+g.ID))
			if v.retires[g.Retiring] = list; len(list) == 0 {
				delete(v.retires, g.Retiring)
			}
		}
	}
	if old != nil {
		if len(old.Grants) == len(now.Grants) && (len(now.Grants) == 0 || &old.Grants[0] == &now.Grants[0]) {
			return
		}
		each(old, remove[grantRef])
	}
	each(now, insert[grantRef])
}

// retirableAfter returns up to limit grants that a principal may retire and that follow
// after, and whether there are more.
func (v *view) retirableAfter(principal string, after grantRef, limit int) ([]grantRef, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return page(v.retires[principal], after, limit)
}

// all returns the newest snapshot of every key that exists. It is for the start and for
// replication, not for requests.
func (v *view) all() []*Key {
	return slices.DeleteFunc(v.facts(), (*Key).Gone)
}

// facts is all with the multi-Region keys that are deleted here.
func (v *view) facts() []*Key {
	v.mu.RLock()
	defer v.mu.RUnlock()
	keys := make([]*Key, 0, len(v.entries))
	for _, e := range v.entries {
		keys = append(keys, e.key.Load())
	}
	slices.SortFunc(keys, func(a, b *Key) int { return cmp.Compare(a.ID, b.ID) })
	return keys
}

// keysAfter returns up to limit of the account's key IDs that follow after, and whether
// there are more.
func (v *view) keysAfter(account arn.Account, after arn.KeyID, limit int) ([]arn.KeyID, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return page(v.keys[account], after, limit)
}

// namesAfter does the same for alias names, and returns the keys that they point to.
func (v *view) namesAfter(account arn.Account, after string, limit int) ([]string, []arn.KeyID, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	names, more := page(v.names[account], after, limit)
	ids := make([]arn.KeyID, len(names))
	for i, n := range names {
		ids[i] = v.aliases[aliasName{account, n}]
	}
	return names, ids, more
}

func page[T cmp.Ordered](list []T, after T, limit int) ([]T, bool) {
	i, found := slices.BinarySearch(list, after)
	if found {
		i++
	}
	rest := list[i:]
	if len(rest) <= limit {
		return slices.Clone(rest), false
	}
	return slices.Clone(rest[:limit]), true
}

// insert and remove change lists in place under the view's lock; readers get copies.
func insert[T cmp.Ordered](list []T, v T) []T {
	i, found := slices.BinarySearch(list, v)
	if found {
		return list
	}
	return slices.Insert(list, i, v)
}

func remove[T cmp.Ordered](list []T, v T) []T {
	i, found := slices.BinarySearch(list, v)
	if !found {
		return list
	}
	return slices.Delete(list, i, i+1)
}
