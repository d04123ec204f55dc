package keyops

import (
	"github.com/keyferry/keyferry/keyops/mrk"
)

// KeyPlace proves that a key, with its newest certificate, is on a list of many keys whose
// root operators have approved.
type KeyPlace struct {
	KeyCount uint64   // keys on the approved list; 0 = no list was made, but the key was named
	KeyIndex uint64   // place of this key on the list, which is ordered by key ID
	Path     [][]byte // hashes from this key up to the root of the list, as mrk.ListProof has them
}

// proof returns the place as package mrk has it.
func (p KeyPlace) proof() (mrk.ListProof, error) {
	proof := mrk.ListProof{Count: max(p.KeyCount, 1), Index: p.KeyIndex}
	if proof.Count > mrk.MaxListed || proof.Index >= proof.Count {
		return proof, invalid("keyIndex", "be less than keyCount, which is at most %d", mrk.MaxListed)
	}
	if p.KeyCount == 0 && len(p.Path) > 0 {
		return proof, invalid("keyCount", "be set where path is")
	}
	if len(p.Path) > mrk.MaxPath {
		return proof, invalid("path", "have at most %d members", mrk.MaxPath)
	}
	for _, b := range p.Path {
		var h mrk.Hash
		if len(b) != len(h) {
			return proof, invalid("path", "have members of %d bytes", len(h))
		}
		copy(h[:], b)
		proof.Path = append(proof.Path, h)
	}
	return proof, nil
}

// rootOf returns the root of the list that has the key at its place, which follows from the
// key as it is here.
func rootOf(proof mrk.ListProof, k *Key) (mrk.Hash, error) {
	root, ok := proof.Root(mrk.ListedKey{Key: k.ID, Head: k.Set.Head()})
	if !ok {
		return root, invalid("path", "have as many hashes as the place of the key on a list of that length has")
	}
	return root, nil
}
