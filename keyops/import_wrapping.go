package keyops

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/wire"
)

// wrapping is one wrapping key that was handed out. It lives until it has served one import,
// has served five attempts, or has expired.
type wrapping struct {
	object   hsm.ID
	key      arn.KeyID
	account  arn.Account
	scheme   hsm.ImportScheme
	until    time.Time
	attempts int  // begun
	spent    bool // one succeeded
}

const wrappingSchema = 1

func (w wrapping) encode() []byte {
	var out wire.Writer
	out.Uint(wrappingSchema)
	out.String(string(w.key))
	out.String(string(w.account))
	out.String(string(w.scheme))
	out.Time(w.until)
	out.Uint(uint64(w.attempts))
	out.Bool(w.spent)
	return out.Out()
}

func decodeWrapping(id string, body []byte) (wrapping, error) {
	object, err := hsm.ParseID(id)
	if err != nil {
		return wrapping{}, err
	}
	r := wire.NewReader(body)
	if v := r.Uint(); v != wrappingSchema {
		r.Fail("import wrapping key of schema %d", v)
	}
	w := wrapping{
		object: object, key: arn.KeyID(r.String(64)), account: arn.Account(r.String(12)),
		scheme: hsm.ImportScheme(r.String(64)), until: r.Time(), attempts: readCount(r), spent: r.Bool(),
	}
	if err := r.Done(); err != nil {
		return wrapping{}, fmt.Errorf("decoding import wrapping key %s: %w", id, err)
	}
	return w, nil
}

// open reports whether another attempt may be made.
func (w wrapping) open(now time.Time) bool {
	return !w.spent && w.attempts < maxImportAttempts && now.Before(w.until)
}

// wrappings are the wrapping keys of all keys, as the store has them, and the imported
// objects that are to be destroyed.
type wrappings struct {
	mu     sync.Mutex
	all    map[hsm.ID]wrapping
	making map[hsm.ID]wrapping // being generated: they count as well
	busy   map[hsm.ID]bool     // an attempt is being made
	doomed map[hsm.ID]bool     // objects of deleted or expired material; true: an intent names it
}

func newWrappings() *wrappings {
	return &wrappings{all: map[hsm.ID]wrapping{}, making: map[hsm.ID]wrapping{}, busy: map[hsm.ID]bool{}, doomed: map[hsm.ID]bool{}}
}

// reserve makes room for a wrapping key, within the bounds of its key and its account.
func (r *wrappings) reserve(w wrapping, keyARN string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, account := 0, 0
	for _, m := range []map[hsm.ID]wrapping{r.all, r.making} {
		for _, x := range m {
			if x.key == w.key {
				key++
			}
			if x.account == w.account {
				account++
			}
		}
	}
	switch {
	case key >= maxWrappingPerKey:
		return refuse(ErrLimitExceeded, "%s has %d sets of import parameters already; use one of them, or wait until they expire a day after they were made.", keyARN, maxWrappingPerKey)
	case account >= maxWrappingPerAccount:
		return refuse(ErrLimitExceeded, "Account %s has %d sets of import parameters already; use one of them, or wait until they expire a day after they were made.", w.account, maxWrappingPerAccount)
	}
	r.making[w.object] = w
	return nil
}

// made ends a reservation.
func (r *wrappings) made(id hsm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.making, id)
}

func (r *wrappings) get(id hsm.ID) (wrapping, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.all[id]
	return w, ok
}

// take returns a wrapping key for one more attempt. Until release it is not destroyed,
// though it may be its last.
func (r *wrappings) take(id hsm.ID, now time.Time) (wrapping, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.all[id]
	if !ok || !w.open(now) {
		return wrapping{}, false
	}
	r.busy[id] = true
	return w, true
}

func (r *wrappings) release(id hsm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, id)
}

func (r *wrappings) put(w wrapping) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[w.object] = w
}

func (r *wrappings) drop(id hsm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, id)
}

// over lists the wrapping keys that serve nothing any more, in a fixed order.
func (r *wrappings) over(now time.Time) []wrapping {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []wrapping
	for _, w := range r.all {
		if !w.open(now) && !r.busy[w.object] {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b wrapping) int { return slices.Compare(a.object[:], b.object[:]) })
	return list
}

func (r *wrappings) doom(id hsm.ID, intended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doomed[id] = intended
}

func (r *wrappings) intended(id hsm.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doomed[id]
}

func (r *wrappings) gone(id hsm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.doomed, id)
}

func (r *wrappings) dooms() []hsm.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]hsm.ID, 0, len(r.doomed))
	for id := range r.doomed {
		list = append(list, id)
	}
	slices.SortFunc(list, func(a, b hsm.ID) int { return slices.Compare(a[:], b[:]) })
	return list
}
