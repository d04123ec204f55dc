package hsm

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
)

// index knows the token's objects by ID. It is filled by one enumeration and kept up to
// date by writes, because a search in the token is linear: 160 ms at 10,000 objects.
type index struct {
	mu          sync.RWMutex
	entries     map[ID]entry
	quarantined []Quarantined
}

// entry is an object and where it is in the current connection.
type entry struct {
	Object
	handle pkcs11.ObjectHandle
}

func newIndex() *index { return &index{entries: map[ID]entry{}} }

func (x *index) get(id ID) (entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.entries[id]
	return e, ok
}

// one returns some object that has this use.
func (x *index) one(u Use) (ID, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for id, e := range x.entries {
		if CheckUse(e.Spec, u) == nil {
			return id, true
		}
	}
	return ID{}, false
}

func (x *index) put(e entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.entries[e.ID] = e
}

// forget removes an entry if it still has this handle.
func (x *index) forget(id ID, handle pkcs11.ObjectHandle) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.entries[id].handle == handle {
		delete(x.entries, id)
	}
}

func (x *index) replace(s scan) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.entries, x.quarantined = s.entries, s.quarantined
}

// Objects lists the objects that are in use, by ID.
func (t *Token) Objects() []Object {
	t.index.mu.RLock()
	defer t.index.mu.RUnlock()
	out := make([]Object, 0, len(t.index.entries))
	for _, e := range t.index.entries {
		out = append(out, e.Object)
	}
	slices.SortFunc(out, func(a, b Object) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

// Quarantined lists the token objects that are not used, and why, as of the last scan.
func (t *Token) Quarantined() []Quarantined {
	t.index.mu.RLock()
	defer t.index.mu.RUnlock()
	return slices.Clone(t.index.quarantined)
}

// Rescan enumerates the token again, for objects that another process has made, such as a
// ceremony's transport keys.
func (t *Token) Rescan(ctx context.Context) error {
	_, err := do(ctx, t, call{op: "Rescan", write: true}, func(c *connection, s pkcs11.SessionHandle) (any, error) {
		found, err := t.enumerate(ctx, s)
		if err != nil {
			return nil, err
		}
		if err := t.probe(c); err != nil { // SoftHSM lists nothing, without an error, when its files are gone
			return nil, err
		}
		t.index.replace(found)
		return nil, nil
	})
	return err
}

// Lookup says what the token holds under this ID. If the index has nothing, the token is
// searched, at most once a second over all IDs after a burst of 64; beyond that the answer
// is [ErrUnavailable], since "not there" would be a guess.
func (t *Token) Lookup(ctx context.Context, id ID) (Object, error) {
	if e, ok := t.index.get(id); ok {
		return e.Object, nil
	}
	return do(ctx, t, call{op: "Lookup"}, func(c *connection, s pkcs11.SessionHandle) (Object, error) {
		e, err := t.resolve(ctx, c, s, id)
		return e.Object, err
	})
}

// Present is Lookup that does not believe the index: another process may have destroyed the
// object since, or put another one in its place.
func (t *Token) Present(ctx context.Context, id ID) (Object, error) {
	return reach(ctx, t, "Present", id, func(s pkcs11.SessionHandle, e entry) (Object, error) {
		_, err := t.driver.Attributes(s, e.handle, []uint{pkcs11.CKA_PRIVATE})
		return e.Object, err
	})
}

// resolve finds an object in the index or, rarely, in the token.
func (t *Token) resolve(ctx context.Context, c *connection, s pkcs11.SessionHandle, id ID) (entry, error) {
	if e, ok := t.index.get(id); ok {
		return e, nil
	}
	if !t.misses.Allow() {
		return entry{}, fmt.Errorf("object %s is not in the index and too many were searched for: %w", id, ErrUnavailable)
	}
	return t.search(ctx, c, s, id)
}

// search looks for an object in the token itself.
func (t *Token) search(ctx context.Context, c *connection, s pkcs11.SessionHandle, id ID) (entry, error) {
	handles, err := t.driver.Find(s, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), // flags first: SoftHSM decrypts byte strings to compare them
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]),
	})
	if err != nil {
		return entry{}, err
	}
	found, err := t.examine(ctx, s, handles)
	if err != nil {
		return entry{}, err
	}
	if e, ok := found.entries[id]; ok {
		t.index.put(e)
		return e, nil
	}
	if len(found.quarantined) > 0 {
		return entry{}, fmt.Errorf("object %s: %w", id, ErrQuarantined)
	}
	if err := t.probe(c); err != nil {
		return entry{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return entry{}, fmt.Errorf("object %s: %w", id, ErrNotFound)
}

// scan is the result of an enumeration.
type scan struct {
	entries     map[ID]entry
	quarantined []Quarantined
}

// enumerate reads every object of the token.
func (t *Token) enumerate(ctx context.Context, s pkcs11.SessionHandle) (scan, error) {
	handles, err := t.driver.Find(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)})
	if err != nil {
		return scan{}, err
	}
	found, err := t.examine(ctx, s, handles)
	if err != nil {
		return scan{}, err
	}
	for _, q := range found.quarantined {
		t.log.WithField("id", q.ID).WithField("label", q.Label).WithField("reason", q.Reason).
			Error("token object in quarantine")
	}
	return found, nil
}

// examine sorts objects into those that are what their labels say and the rest. Two private
// objects under one ID are both refused: with the user PIN anyone can make a known key under
// a known ID. Objects that are not private do not count there, since they can be made
// without any PIN and would be a way to switch keys off.
func (t *Token) examine(ctx context.Context, s pkcs11.SessionHandle, handles []pkcs11.ObjectHandle) (scan, error) {
	found := scan{entries: map[ID]entry{}}
	private := map[string]int{}
	type candidate struct {
		entry  entry
		rawID  string
		label  string
		reason error
	}
	var candidates []candidate
	for _, h := range handles {
		if err := ctx.Err(); err != nil {
			return scan{}, err
		}
		// An object that is gone was destroyed by another process since it was found. That is
		// no error: anybody can make and destroy public objects all the time, without a PIN.
		named, err := t.driver.Attributes(s, h, []uint{pkcs11.CKA_PRIVATE, pkcs11.CKA_ID, pkcs11.CKA_LABEL})
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return scan{}, err
		}
		c := candidate{rawID: string(named[pkcs11.CKA_ID]), label: string(named[pkcs11.CKA_LABEL])}
		c.entry, c.reason = t.inspect(s, h, c.rawID, c.label)
		if errors.Is(c.reason, ErrNotFound) {
			continue
		}
		if c.reason != nil && !errors.Is(c.reason, errNotOurs) {
			return scan{}, c.reason
		}
		if isTrue(named[pkcs11.CKA_PRIVATE]) {
			private[c.rawID]++
		}
		candidates = append(candidates, c)
	}
	for _, c := range candidates {
		if c.reason == nil && private[c.rawID] > 1 {
			c.reason = fmt.Errorf("%w: %d objects under this ID", errNotOurs, private[c.rawID])
		}
		if c.reason == nil {
			found.entries[c.entry.ID] = c.entry
			continue
		}
		found.quarantined = append(found.quarantined, Quarantined{
			ID:     hex.EncodeToString([]byte(c.rawID)),
			Label:  loggable(c.label),
			Reason: strings.TrimPrefix(c.reason.Error(), errNotOurs.Error()+": "),
		})
	}
	return found, nil
}

// loggable keeps a foreign label from writing control characters into logs.
func loggable(label string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, label[:min(len(label), 256)])
}

func isTrue(value []byte) bool { return len(value) == 1 && value[0] != 0 }
