package keyops

import (
	"context"
	"crypto"
	"fmt"
	"sync/atomic"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
)

// OperationRows lists the operations that have a row, for the test that compares them with
// the methods of Service.
func OperationRows() map[string]bool {
	rows := map[string]bool{}
	for name := range operations {
		rows[name] = true
	}
	return rows
}

// PublishCopies makes n more keys visible, which the store does not have: what a request
// costs beside many keys depends on the view alone.
func (s *Service) PublishCopies(of arn.KeyID, n int) {
	model := s.view.key(of)
	for i := range n {
		k := model.clone()
		k.ID = arn.NewKeyID(false)
		k.arn = s.keyARN(k.Account, k.ID)
		k.Aliases = []Alias{{Name: fmt.Sprint("alias/copy-", i)}}
		s.view.publish(k)
	}
}

// SetEncryptions makes it look as if a key's current material had encrypted n times.
func (s *Service) SetEncryptions(id arn.KeyID, n uint64) {
	k := s.view.key(id)
	k.Material(k.Current).watch.count.Store(n)
}

// Encryptions returns the count of a key's current material, and its stored bound.
func (s *Service) Encryptions(id arn.KeyID) (count, reserved uint64) {
	k := s.view.key(id)
	m := k.Material(k.Current)
	return m.watch.count.Load(), m.Reserved
}

// EncodeKey and DecodeKey are the body of a key row.
func EncodeKey(k *Key) []byte { return k.encode() }

// DecodeKey reads what EncodeKey wrote.
func DecodeKey(id string, body []byte) (*Key, error) { return decodeKey(id, body) }

// TombstoneBody returns the body of a tombstone row.
func TombstoneBody(account arn.Account, objects ...hsm.ID) []byte {
	return tombstone{account: account, objects: objects}.encode()
}

// PutTombstone writes a tombstone, as deletion will.
func (s *Service) PutTombstone(ctx context.Context, key arn.KeyID, account arn.Account, objects ...hsm.ID) error {
	return s.update(ctx, func(tx *seal.Tx) error {
		return tx.Put(kindTombstone, string(key), TombstoneBody(account, objects...))
	})
}

// IntentBody returns the body of an intent row.
func IntentBody(key arn.KeyID, install bool, want material.ID) []byte {
	i := intent{by: byCreate, key: key, want: want}
	if install {
		i.by = byInstall
	}
	return i.encode()
}

// DecodeIntent and DecodeTombstone read what is stored.
func DecodeIntent(id string, body []byte) ([]byte, error) {
	i, err := decodeIntent(id, body)
	return i.encode(), err
}

// DecodeTombstone reads a tombstone and encodes it again.
func DecodeTombstone(body []byte) ([]byte, error) {
	t, err := decodeTombstone(body)
	return t.encode(), err
}

// DecodeMark reads a mark and encodes it again.
func DecodeMark(body []byte) ([]byte, error) {
	m, err := decodeMark(body)
	return m.encode(), err
}

// GrantCopies gives a key n more grants like its first one, in one change.
func (s *Service) GrantCopies(ctx context.Context, id arn.KeyID, n int) error {
	_, err := s.change(ctx, id, func(k *Key) error {
		g := k.Grants[0]
		for i := range n {
			g.ID = fmt.Sprintf("%064x", i)
			k.addGrant(g)
		}
		return nil
	}, nil)
	return err
}

// OpenIntents returns the CKA_IDs that open intents name.
func (s *Service) OpenIntents(ctx context.Context) (ids []string) {
	err := s.book.View(ctx, func(tx *seal.Tx) error {
		return tx.Scan(kindIntent, func(row store.Row, _ *seal.Finding) error {
			ids = append(ids, row.ID)
			return nil
		})
	})
	if err != nil {
		panic(err)
	}
	return ids
}

// SetState puts a key into a state that this package's operations do not reach.
func (s *Service) SetState(ctx context.Context, id arn.KeyID, fn func(*Key)) error {
	_, err := s.change(ctx, id, func(k *Key) error { fn(k); return nil }, nil)
	return err
}

// TakePairs takes every place of those who make RSA pairs until release is called.
func (s *Service) TakePairs() (release func()) {
	for range cap(s.pairs) {
		s.pairs <- struct{}{}
	}
	return func() {
		for range cap(s.pairs) {
			<-s.pairs
		}
	}
}

// Identify recomputes the ID of a key's current material as if it had this public key.
func (s *Service) Identify(ctx context.Context, id arn.KeyID, spki []byte) (material.ID, error) {
	k := s.view.key(id)
	return s.identify(ctx, k.ID, k.Spec, k.use(), k.Material(k.Current).Object, spki)
}

// ErrNotOurs is what Identify returns for an object that is another one.
var ErrNotOurs = errNotOurs

// CountDecisions counts how often the policies of who asks are looked up from now on, which
// is once for each decision.
func (s *Service) CountDecisions() *atomic.Int64 {
	n, ask := new(atomic.Int64), s.identities
	s.identities = func() *policy.Identities {
		n.Add(1)
		return ask()
	}
	return n
}

// VerifySignature is what Verify does on the host with a digest.
func VerifySignature(pub crypto.PublicKey, a Algorithm, digest, signature []byte) error {
	return verify(pub, signSchemes[a], digest, signature)
}
