package mrk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
)

// MaxListed bounds the keys of one approval.
const MaxListed = 1 << 20

// ListedKey is a key of which operators approve that it gets another primary Region, or that
// a Region has no part in it, and the newest certificate of it that is known where that is
// carried out.
type ListedKey struct {
	Key  arn.KeyID
	Head Hash
}

// KeyList is what operators approve: keys in order, each once. They sign its root, and with
// each key travels the proof that the key is on the list, so that an approval of many keys
// is no larger than one of few.
type KeyList []ListedKey

// NewKeyList sorts the keys and refuses a key that is there twice.
func NewKeyList(keys []ListedKey) (KeyList, error) {
	l := slices.Clone(keys)
	slices.SortFunc(l, func(a, b ListedKey) int { return strings.Compare(string(a.Key), string(b.Key)) })
	if len(l) < 1 || len(l) > MaxListed {
		return nil, fmt.Errorf("list of %d keys, want 1 to %d", len(l), MaxListed)
	}
	for i, k := range l {
		if id, err := arn.ParseKeyID(string(k.Key)); err != nil || !id.MultiRegion() || k.Head.IsZero() {
			return nil, fmt.Errorf("list with %.64q: want multi-Region keys, each with its newest certificate", k.Key)
		}
		if i > 0 && l[i-1].Key == k.Key {
			return nil, fmt.Errorf("list with key %s twice", k.Key)
		}
	}
	return l, nil
}

// A leaf and a node are hashed with different first bytes, so that neither can be shown in
// the place of the other (as in RFC 6962).
const (
	leafByte = 0
	nodeByte = 1
)

func leaf(k ListedKey) Hash {
	b := append([]byte{leafByte}, "keyferry/promoted-key/v1\x00"...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(k.Key)))
	b = append(b, k.Key...)
	return sha256.Sum256(append(b, k.Head[:]...))
}

func node(left, right Hash) Hash {
	b := append([]byte{nodeByte}, left[:]...)
	return sha256.Sum256(append(b, right[:]...))
}

func (l KeyList) leaves() []Hash {
	out := make([]Hash, len(l))
	for i, k := range l {
		out[i] = leaf(k)
	}
	return out
}

// above returns the level of the tree above one. The last hash of an odd level goes up as it is.
func above(level []Hash) []Hash {
	up := make([]Hash, 0, (len(level)+1)/2)
	for i := 0; i < len(level); i += 2 {
		if i+1 < len(level) {
			up = append(up, node(level[i], level[i+1]))
		} else {
			up = append(up, level[i])
		}
	}
	return up
}

// Root returns what stands for the list in a request for approvals.
func (l KeyList) Root() Hash {
	level := l.leaves()
	for len(level) > 1 {
		level = above(level)
	}
	return level[0]
}

// ListProof proves that a key is on a list of which only the root is known.
type ListProof struct {
	Count uint64 // keys on the list
	Index uint64 // of the key
	Path  []Hash // the other child of each node from the leaf up
}

// Prove returns the proof for a key.
func (l KeyList) Prove(key arn.KeyID) (ListProof, bool) {
	at, found := slices.BinarySearchFunc(l, key, func(k ListedKey, id arn.KeyID) int { return strings.Compare(string(k.Key), string(id)) })
	if !found {
		return ListProof{}, false
	}
	p := ListProof{Count: uint64(len(l)), Index: uint64(at)}
	for level := l.leaves(); len(level) > 1; level = above(level) {
		if other := at ^ 1; other < len(level) {
			p.Path = append(p.Path, level[other])
		}
		at /= 2
	}
	return p, true
}

// Root returns the root of the list that has the key where the proof says, or false if the
// proof does not hold together.
func (p ListProof) Root(k ListedKey) (Hash, bool) { return p.root(k) }

// root computes the root that the proof leads to, and refuses a proof with too few hashes
// or too many.
func (p ListProof) root(k ListedKey) (Hash, bool) {
	if p.Index >= p.Count || p.Count > MaxListed {
		return Hash{}, false
	}
	h, path := leaf(k), p.Path
	for at, n := p.Index, p.Count; n > 1; at, n = at/2, (n+1)/2 {
		if at^1 >= n {
			continue
		}
		if len(path) == 0 {
			return Hash{}, false
		}
		if at%2 == 0 {
			h = node(h, path[0])
		} else {
			h = node(path[0], h)
		}
		path = path[1:]
	}
	return h, len(path) == 0
}

// Text returns the list as operators read it, one key in a line with its newest certificate.
func (l KeyList) Text() []byte {
	var b bytes.Buffer
	for _, k := range l {
		fmt.Fprintf(&b, "%s %s\n", k.Key, k.Head)
	}
	return b.Bytes()
}
