package keyops

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// renewAlone lets this Region act again for the multi-Region keys that it does not act for
// any more, after its store was sealed anew or its token looked at, in a deployment of one
// Region: package replication, which does it otherwise, is not there, and there is nobody to
// be heard first. A Region that a key's members or this token's transport keys name is
// somebody, configured or not, so what it knows is waited for.
func (s *Service) renewAlone(ctx context.Context) error {
	if s.peers != nil {
		return nil
	}
	for _, k := range s.view.all() {
		if k.Set == nil || k.Set.Acting() {
			continue
		}
		var events []mrk.Event
		_, err := s.change(ctx, k.ID, func(k *Key) error {
			changed, said, err := k.Set.Step(ctx, s.Signer(), s.aloneContact(k))
			if events = said; err == nil && !changed {
				return ErrUnchanged
			}
			return err
		}, nil)
		if err != nil {
			return fmt.Errorf("acting again for key %s: %w", k.ID, err)
		}
		for _, e := range events {
			s.log.WithField("key", k.ID).WithField("event", e.Kind).Info("a multi-Region key went on")
		}
	}
	return nil
}

// aloneContact is what is known of others where nobody can be asked: their names.
func (s *Service) aloneContact(k *Key) mrk.Contact {
	var others []region.Name
	add := func(r region.Name) {
		if r != s.self.Region && !slices.Contains(others, r) {
			others = append(others, r)
		}
	}
	for _, m := range k.Set.Members() {
		add(m.Region)
	}
	for _, t := range s.transport.Load().Transcripts() {
		add(t.Peer.Region)
	}
	return mrk.Contact{
		Regions: others,
		Heard:   func(region.Name) bool { return false },
		Nonce:   func() (mrk.Nonce, error) { return mrk.NewNonce(rand.Reader) },
		Now:     func() int64 { return s.clock().Unix() },
	}
}
