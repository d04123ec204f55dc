package replication_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/replication"
)

// manyKeys is a Region's keys in memory, enough of it for digests; other methods panic.
type manyKeys struct {
	replication.Keys
	ids     []arn.KeyID
	all     map[arn.KeyID]*keyops.Key
	version uint64
	asked   int // for single keys
}

func (m *manyKeys) SharedKeys() []arn.KeyID                     { return m.ids }
func (m *manyKeys) SharedVersion() uint64                       { return m.version }
func (m *manyKeys) SharedKey(id arn.KeyID) (*keyops.Key, error) { m.asked++; return m.all[id], nil }

// noSignature stands for a signature of the usual size.
type noSignature struct{}

func (noSignature) Sign(_ context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	return statement.Signed{Purpose: p, Payload: payload, Signature: make([]byte, 103)}, nil
}

func newManyKeys(t testing.TB, self mrk.Self, with *site, n int) *manyKeys {
	t.Helper()
	m := &manyKeys{all: map[arn.KeyID]*keyops.Key{}}
	ctx := context.Background()
	for i := range n {
		var raw [16]byte
		binary.BigEndian.PutUint64(raw[8:], uint64(i+1))
		id := arn.KeyID("mrk-" + hex.EncodeToString(raw[:]))
		set, err := mrk.Create(ctx, noSignature{}, self, mrk.Properties{
			Key: id, Account: "111122223333", Spec: "SYMMETRIC_DEFAULT", Usage: "ENCRYPT_DECRYPT", Origin: "AWS_KMS",
		}, mrk.Listed{ID: material.Compute("SYMMETRIC_DEFAULT", string(id), nil)}, mrk.Nonce(raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := set.AddMember(ctx, noSignature{}, with.name(), with.region.Descriptor.Instance, mrk.CreateRequest{}); err != nil {
			t.Fatal(err)
		}
		m.ids = append(m.ids, id)
		m.all[id] = &keyops.Key{ID: id, Set: set}
	}
	return m
}

// Digests of 10,000 unchanged keys cost at most 64 KiB, both ways together, and one changed
// key among them is named with the few that share its bucket.
func TestDigestCost(t *testing.T) {
	sites := prepare(t, paris, east)
	var ends [2]*replication.Replicator
	for i, s := range sites {
		var err error
		ends[i], err = replication.New(replication.Config{
			Self: s.region.Descriptor.Descriptor, Peers: s.peers(), Listener: closedListener(t), Log: s.log,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	self := mrk.Self{Region: paris, Instance: sites[0].region.Descriptor.Instance}
	const n = 10_000
	keys := newManyKeys(t, self, sites[1], n)
	began := time.Now()
	question := ends[0].DigestWith(keys, east)
	answer, err := ends[0].AnswerDigest(keys, east, question)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d unchanged keys: %d bytes, %s for both ends", n, len(question)+len(answer), time.Since(began))
	if got := len(question) + len(answer); got > 64<<10 {
		t.Errorf("%d bytes", got)
	}
	// Once it has been made, an inventory costs no look at any key until one changes: a peer
	// may ask hundreds of times in a second.
	asked := keys.asked
	began = time.Now()
	for range 100 {
		if _, err := ends[0].AnswerDigest(keys, east, question); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("asked again: %s each", time.Since(began)/100)
	if keys.asked != asked {
		t.Errorf("%d looks at keys that have not changed", keys.asked-asked)
	}
	changed := *keys.all[keys.ids[n/2]]
	changed.Set = changed.Set.Clone()
	keys.all[changed.ID] = &changed
	keys.version++
	if err := changed.Set.Suspend(context.Background(), noSignature{}, east); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	answer, err = ends[0].AnswerDigest(keys, east, question)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("one key changed: %s", time.Since(began))
	if got := len(answer); got < 100 || got > 16<<10 {
		t.Errorf("one changed key is answered with %d bytes", got)
	}
}
