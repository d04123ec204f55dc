package replication

import (
	"crypto/sha256"
	"sync"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
)

func bucketOf(id arn.KeyID) byte { return sha256.Sum256([]byte(id))[0] }

// inventory is what this Region would tell a peer that it knows, by bucket and then key. It
// is not changed once it is made.
type inventory struct {
	version uint64 // of the keys
	entries [message.Buckets][]message.Entry
	hashes  [message.Buckets]mrk.Hash
}

// inventory returns what this Region would tell the peer. A peer can ask for it as often as
// its limits allow, so while no key changes it is made once.
func (p *peer) inventory(keys Keys) *inventory {
	version := keys.SharedVersion() // before the keys: what changes meanwhile is seen the next time
	if inv := p.told.Load(); inv != nil && inv.version == version {
		return inv
	}
	inv := &inventory{version: version}
	for _, e := range p.r.hashed.entries(keys, version) {
		if e.key.Set.Concerns(p.pin.Region) {
			inv.entries[e.bucket] = append(inv.entries[e.bucket], message.Entry{Key: e.key.ID, Hash: e.hash})
		}
	}
	for i, entries := range inv.entries {
		if len(entries) == 0 {
			continue
		}
		h := sha256.New()
		for _, e := range entries {
			h.Write([]byte(e.Key))
			h.Write(e.Hash[:])
		}
		h.Sum(inv.hashes[i][:0])
	}
	p.told.Store(inv)
	return inv
}

// hashes remembers the hash of each key's facts, for all peers. A snapshot of a key never
// changes, so of a key that has not changed nothing is hashed again.
type hashes struct {
	mu      sync.Mutex
	version uint64
	list    []hashed              // ordered by ID; replaced, never changed
	places  map[arn.KeyID]*hashed // of list
}

type hashed struct {
	key    *keyops.Key
	bucket byte
	hash   mrk.Hash
}

func (h *hashes) entries(keys Keys, version uint64) []hashed {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.places != nil && h.version == version {
		return h.list
	}
	ids := keys.SharedKeys()
	list, places := make([]hashed, 0, len(ids)), make(map[arn.KeyID]*hashed, len(ids))
	for _, id := range ids {
		k, err := keys.SharedKey(id)
		if err != nil {
			continue
		}
		now := hashed{key: k}
		if before := h.places[id]; before == nil {
			now.bucket, now.hash = bucketOf(id), k.Set.Hash()
		} else if now = *before; before.key != k {
			now.key, now.hash = k, k.Set.Hash()
		}
		list = append(list, now)
		places[id] = &list[len(list)-1]
	}
	h.version, h.list, h.places = version, list, places
	return list
}
