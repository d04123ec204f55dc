package keyops

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// With 2^32 random 96-bit IVs under one AES key the chance that two are equal is 2^-33,
// which is the bound of NIST SP 800-38D, 8.3. Long before, the key says that it is time.
const (
	maxEncryptions = 1 << 32
	rotationDue    = 1 << 31
	// countStep is how far ahead of the count the stored bound is raised, so that encrypting
	// writes nothing to disk but once in a million calls. After a crash the count goes on at
	// the bound, never below what was done.
	countStep = 1 << 20
	// tellStep is how far ahead of that other Regions are told, so that a busy key writes a
	// fact every few minutes rather than seconds, and a restart none.
	tellStep = 1 << 24
)

// countEncryption counts one encryption under a material. The bound is on what all Regions
// have done together: each tells the others in its member fact how far it has reserved.
func (s *Service) countEncryption(ctx context.Context, k *Key, m *Material) error {
	n := m.watch.count.Add(1)
	switch all := n + m.elsewhere; {
	case all > maxEncryptions && !s.unbounded:
		return refuse(ErrLimitExceeded, "The current key material of %s has encrypted 2^32 times; rotate the key, or use a new one.", k.arn)
	case all >= rotationDue && m.watch.due.CompareAndSwap(false, true):
		s.log.WithField("key", k.ID).WithField("material", m.ID).
			Warn("key material has encrypted 2^31 times: the key is due for rotation, and refuses to encrypt at 2^32")
	}
	if n > m.Reserved {
		// Only a call that crosses the bound that its snapshot shows comes here.
		return s.reserve(ctx, k, m.ID, n)
	}
	return nil
}

// rotationDue reports whether the key's current material has encrypted so often that it is
// time for another one.
func (k *Key) rotationDue() bool {
	m := k.Material(k.Current)
	return m != nil && k.counts() && m.watch.count.Load()+m.elsewhere >= rotationDue
}

// counts reports whether there is a bound on how often the key's materials may be used.
func (k *Key) counts() bool { return k.Spec == SymmetricDefault }

// told is the bound that other Regions reckon with.
func (m *Material) told() uint64 { return (m.Reserved + tellStep - 1) / tellStep * tellStep }

// spent is what this Region tells the others.
func (k *Key) spent() mrk.Counts {
	if !k.counts() {
		return nil
	}
	c := mrk.Counts{}
	for i := range k.Materials {
		c[k.Materials[i].ID] = k.Materials[i].told()
	}
	return c
}

// recount takes over what the set remembers of this Region, which may be more than the row
// does: the store was restored, or the key here was another incarnation before.
func (k *Key) recount() {
	for i := range k.Materials {
		m := &k.Materials[i]
		n := k.Set.Spent(m.ID)
		if n <= m.told() || !k.counts() {
			continue
		}
		m.Reserved = n
		for m.watch != nil {
			if old := m.watch.count.Load(); old >= n || m.watch.count.CompareAndSwap(old, n) {
				break
			}
		}
	}
}

// reserve raises the stored bound above n before the n-th encryption happens.
func (s *Service) reserve(ctx context.Context, k *Key, id material.ID, n uint64) error {
	_, err := s.change(ctx, k.ID, func(k *Key) error {
		m := k.Material(id)
		if m == nil || m.Reserved >= n {
			return ErrUnchanged
		}
		m.Reserved = n - 1 + countStep
		return nil
	}, nil)
	if err != nil {
		return fmt.Errorf("raising the bound of encryptions: %w", err)
	}
	return nil
}
