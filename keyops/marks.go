package keyops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Mark says that a peer has not confirmed this Region's newest facts about a key. The marks
// are the outbox: what to send follows from the facts, so there is no queue to keep.
type Mark struct {
	Key      arn.KeyID
	Peer     region.Name
	SetHash  mrk.Hash  // of the facts that are to be confirmed
	Since    time.Time // since when the peer lags behind
	Attempts uint64
	LastTry  time.Time
	NextTry  time.Time
	Cause    mrk.Cause // why the last try failed; empty if none did
	Text     string
}

const markSchema = 1

func (m Mark) row() string { return string(m.Key) + "/" + string(m.Peer) }

func (m Mark) encode() []byte {
	var w wire.Writer
	w.Uint(markSchema)
	w.String(string(m.Key))
	w.String(string(m.Peer))
	w.Bytes(m.SetHash[:])
	w.Time(m.Since)
	w.Uint(m.Attempts)
	w.Time(m.LastTry)
	w.Time(m.NextTry)
	w.String(string(m.Cause))
	w.String(m.Text)
	return w.Out()
}

func decodeMark(body []byte) (Mark, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != markSchema {
		r.Fail("mark of schema %d", v)
	}
	m := Mark{Key: arn.KeyID(r.String(64)), Peer: region.Name(r.String(64))}
	r.Fixed(m.SetHash[:])
	m.Since, m.Attempts = r.Time(), r.Uint()
	m.LastTry, m.NextTry = r.Time(), r.Time()
	m.Cause, m.Text = mrk.Cause(r.String(64)), r.String(1024)
	if err := r.Done(); err != nil {
		return Mark{}, fmt.Errorf("decoding a mark: %w", err)
	}
	return m, nil
}

type markName struct {
	key  arn.KeyID
	peer region.Name
}

// marks is the outbox in memory. Every change of it is durable before it shows here.
type marks struct {
	mu      sync.Mutex
	all     map[markName]Mark
	changed chan struct{}
}

func newMarks() *marks {
	return &marks{all: map[markName]Mark{}, changed: make(chan struct{}, 1)}
}

// due returns the marks that the change from old to k makes necessary: one for every other
// Region that is or was a member, if the facts have changed. What is known of a peer that
// already lagged behind is kept.
func (ms *marks) due(old, k *Key, now time.Time) []Mark {
	if k.Set == nil || old != nil && old.Set != nil && old.Set.Hash() == k.Set.Hash() {
		return nil
	}
	hash := k.Set.Hash()
	ms.mu.Lock()
	defer ms.mu.Unlock()
	var due []Mark
	for _, peer := range ms.audience(k) {
		m, lagging := ms.all[markName{k.ID, peer}]
		if !lagging {
			m = Mark{Key: k.ID, Peer: peer, Since: now}
		}
		m.SetHash = hash
		due = append(due, m)
	}
	return due
}

// audience returns whom a change of the key is to be shown. Who is owed something still is,
// even if a newer primary Region has never heard of it.
func (ms *marks) audience(k *Key) []region.Name {
	peers := k.Set.Audience()
	for name := range ms.all {
		if name.key == k.ID && !slices.Contains(peers, name.peer) {
			peers = append(peers, name.peer)
		}
	}
	slices.Sort(peers)
	return peers
}

// set shows marks that are durable, and wakes whoever waits for changes.
func (ms *marks) set(list []Mark) {
	if len(list) == 0 {
		return
	}
	ms.mu.Lock()
	for _, m := range list {
		ms.all[markName{m.Key, m.Peer}] = m
	}
	ms.mu.Unlock()
	ms.wake()
}

func (ms *marks) wake() {
	select {
	case ms.changed <- struct{}{}:
	default:
	}
}

func (ms *marks) get(key arn.KeyID, peer region.Name) (Mark, bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m, ok := ms.all[markName{key, peer}]
	return m, ok
}

func (ms *marks) clear(key arn.KeyID, peer region.Name) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	delete(ms.all, markName{key, peer})
}

// Marks returns the outbox, ordered by key and peer.
func (s *Service) Marks() []Mark {
	s.marks.mu.Lock()
	defer s.marks.mu.Unlock()
	list := make([]Mark, 0, len(s.marks.all))
	for _, m := range s.marks.all {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Mark) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Peer, b.Peer))
	})
	return list
}

// Mark returns one mark; false if the peer has confirmed everything.
func (s *Service) Mark(key arn.KeyID, peer region.Name) (Mark, bool) { return s.marks.get(key, peer) }

// Changed receives a value after marks or sets have changed. It holds at most one.
func (s *Service) Changed() <-chan struct{} { return s.marks.changed }

// SaveMark records what became of a try. The facts that are to be confirmed, and since
// when, are this package's to say: they may have changed meanwhile. A mark that was cleared
// meanwhile stays cleared.
func (s *Service) SaveMark(ctx context.Context, m Mark) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	now, ok := s.marks.get(m.Key, m.Peer)
	if !ok {
		return nil
	}
	m.SetHash, m.Since = now.SetHash, now.Since
	if len(m.Text) > 512 {
		m.Text = m.Text[:512]
	}
	err := s.update(ctx, func(tx *seal.Tx) error { return tx.Put(store.KindMark, m.row(), m.encode()) })
	if err != nil {
		return fmt.Errorf("saving the mark of key %s for %s: %w", m.Key, m.Peer, err)
	}
	s.marks.mu.Lock()
	s.marks.all[markName{m.Key, m.Peer}] = m
	s.marks.mu.Unlock()
	return nil
}

// ClearMark removes a mark once the peer has confirmed the facts of this hash. If they are
// no longer the newest the mark stays.
func (s *Service) ClearMark(ctx context.Context, key arn.KeyID, peer region.Name, confirmed mrk.Hash) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	m, ok := s.marks.get(key, peer)
	if !ok || m.SetHash != confirmed {
		return nil
	}
	err := s.update(ctx, func(tx *seal.Tx) error { return tx.Delete(store.KindMark, m.row()) })
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("clearing the mark of key %s for %s: %w", key, peer, err)
	}
	s.marks.clear(key, peer)
	return nil
}
