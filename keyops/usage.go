package keyops

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/keyops/material"
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
)

// countEncryption counts one encryption under a material, in this Region.
func (s *Service) countEncryption(ctx context.Context, k *Key, m *Material) error {
	n := m.watch.count.Add(1)
	switch {
	case n > maxEncryptions:
		return refuse(ErrLimitExceeded, "The current key material of %s has encrypted 2^32 times; rotate the key, or use a new one.", k.arn)
	case n == rotationDue:
		s.log.WithField("key", k.ID).WithField("material", m.ID).
			Warn("key material has encrypted 2^31 times: the key is due for rotation, and refuses to encrypt at 2^32")
	}
	if n > m.Reserved {
		// Only a call that crosses the bound that its snapshot shows comes here.
		return s.reserve(ctx, k, m.ID, n)
	}
	return nil
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
