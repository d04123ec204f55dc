package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/wire"
)

// kindSevered is of the pairs of instances that can never be associated again. Rows are never
// deleted, and all Regions show them to each other, so that no restore brings a pair back.
const kindSevered store.Kind = "severed"

const (
	severedRowSchema = 1
	// maxSeveredBy bounds the pairs that one instance can make others remember.
	maxSeveredBy = 64
	maxApproval  = 64 << 10
)

// severedPair is a pair, and what only the primary instance keeps of it.
type severedPair struct {
	synchronization.Severed
	// approvals are those that the caller gave, for the replica instance. They are kept until
	// that has accepted them.
	approvals [][]byte
}

func (p severedPair) encode() []byte {
	var w wire.Writer
	w.Uint(severedRowSchema)
	w.Bytes(p.Encode())
	w.Count(len(p.approvals))
	for _, b := range p.approvals {
		w.Bytes(b)
	}
	return w.Out()
}

func decodeSeveredPair(row store.Row) (severedPair, error) {
	r := wire.NewReader(row.Body)
	if v := r.Uint(); r.Err() == nil && v != severedRowSchema {
		r.Fail("severance of schema %d", v)
	}
	body := r.Bytes(maxApproval)
	var p severedPair
	for range r.Count(approval.MaxOperators) {
		p.approvals = append(p.approvals, r.Bytes(maxApproval))
	}
	if err := r.Done(); err != nil {
		return p, fmt.Errorf("decoding a severance: %w", err)
	}
	var err error
	if p.Severed, err = synchronization.DecodeSevered(body); err == nil && p.Name() != row.ID {
		err = fmt.Errorf("%w: severance of %s", store.ErrInvalid, p.Name())
	}
	return p, err
}

// readSevered takes a row over at the start.
func (s *Service) readSevered(row store.Row) error {
	p, err := decodeSeveredPair(row)
	if err == nil {
		s.syncs.show(s.self, p)
	}
	return err
}

// show publishes a pair that is durable.
func (y *synchronizations) show(self region.Descriptor, p severedPair) {
	list := slices.Clone(y.pairs())
	i, found := slices.BinarySearchFunc(list, p.Name(), func(o severedPair, name string) int {
		return strings.Compare(o.Name(), name)
	})
	if found {
		list[i] = p
	} else {
		list = slices.Insert(list, i, p)
	}
	y.severed.Store(&list)
	if p.Replica.Instance == self.Instance && p.Frozen() {
		y.frozen.Store(&p.Severed)
	}
}

// pairs returns the pairs that are known here, ordered by name. They must not be changed.
func (y *synchronizations) pairs() []severedPair {
	if list := y.severed.Load(); list != nil {
		return *list
	}
	return nil
}

// apart returns the severance of exactly these two instances.
func (y *synchronizations) apart(a, b synchronization.End) (severedPair, bool) {
	for _, p := range y.pairs() {
		if p.Between(a, b) {
			return p, true
		}
	}
	return severedPair{}, false
}

// forbidden returns why two ends can never be associated, if that is so.
func (y *synchronizations) forbidden(primary, replica synchronization.End) error {
	for _, p := range y.pairs() {
		if p.Forbids(primary, replica) {
			return &Error{Reason: ErrUnsupportedOperation, cause: ErrReplicaFrozen, Message: fmt.Sprintf(
				"%s was disassociated from %s, which cannot be undone: the two Regions can never be associated again, whatever instances they have. Associate an instance of another Region.", p.Replica, p.Primary)}
		}
	}
	return nil
}

// end is this instance as an end of an association.
func (s *Service) end() synchronization.End { return synchronization.EndOf(s.self) }

// severedFrom reports whether this instance and another one are severed, so that no transport
// key between them is used any more.
func (s *Service) severedFrom(r region.Name, instance region.InstanceID) bool {
	_, apart := s.syncs.apart(s.end(), synchronization.End{Region: r, Instance: instance})
	return apart
}

// together refuses to give an instance a key, or the role of its primary key, that is severed
// from this one.
func (s *Service) together(d region.Descriptor) error {
	if !s.severedFrom(d.Region, d.Instance) {
		return nil
	}
	return &Error{Reason: ErrInvalidState, cause: ErrReplicaFrozen, Message: fmt.Sprintf(
		"%s: instance %s of Region %s was disassociated from this one for good, and gets no keys from it any more.", mrk.CauseReplicaFrozen, d.Instance, d.Region)}
}

// Severed returns the pairs of instances that are severed, as far as is known here, ordered.
func (s *Service) Severed() []synchronization.Severed {
	var list []synchronization.Severed
	for _, p := range s.syncs.pairs() {
		list = append(list, p.Severed)
	}
	return list
}

// KeepSevered keeps pairs that a peer shows, those that are new here, durably. Each is
// believed by the signature of either end, and for good.
func (s *Service) KeepSevered(ctx context.Context, shown []synchronization.Severed) error {
	var errs []error
	for _, f := range shown {
		if _, err := s.keepSevered(ctx, severedPair{Severed: f}, nil, nil); err != nil {
			errs = append(errs, fmt.Errorf("keeping that %s is severed from %s: %w", f.Replica, f.Primary, err))
		}
	}
	return errors.Join(errs...)
}

// keepSevered keeps one pair in a transaction, with what extra writes beside it and published
// then shows, and reports whether it was new.
func (s *Service) keepSevered(ctx context.Context, p severedPair, extra func(*seal.Tx) error, published func()) (bool, error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	if s.syncs.bad != nil {
		return false, s.syncsUnsound()
	}
	var err error
	if p.Severed, err = synchronization.DecodeSevered(p.Encode()); err != nil { // what is signed counts
		return false, err
	}
	old, known := s.syncs.apart(p.Primary, p.Replica)
	if known && !p.Newer(old.Severed) && (p.Frozen() || len(p.approvals) == 0) {
		return false, nil
	}
	if err := s.believeSevered(p.Severed); err != nil {
		return false, err
	}
	if by := s.syncs.countBy(p.Severed); !known && by >= maxSeveredBy {
		return false, fmt.Errorf("%w: one end of it was severed in %d pairs", ErrLimitExceeded, by)
	}
	if known && !p.Newer(old.Severed) {
		p.Severed = old.Severed // new approvals of what is known
	}
	if p.approvals == nil {
		p.approvals = old.approvals
	}
	if p.Frozen() {
		p.approvals = nil // nobody has to be shown them any more
	}
	err = s.update(ctx, func(tx *seal.Tx) error {
		if extra != nil {
			if err := extra(tx); err != nil {
				return err
			}
		}
		return tx.Put(kindSevered, p.Name(), p.encode())
	})
	if err != nil {
		return false, fmt.Errorf("storing the severance of %s: %w", p.Name(), err)
	}
	s.syncs.show(s.self, p)
	if published != nil {
		published()
	}
	s.syncs.poke()
	s.marks.wake() // peers are to be shown it
	s.log.WithField("primary", p.Primary).WithField("replica", p.Replica).WithField("frozen", p.Frozen()).Warn("a replica instance is disassociated, for good")
	return true, nil
}

// countBy returns how many pairs are known by the word of one end of another one: pairs that
// its primary instance has severed, or that its replica instance has accepted to be in. One
// that is hostile could name ends which nobody has heard of, without end.
func (y *synchronizations) countBy(of synchronization.Severed) int {
	ended, accepted := 0, 0
	for _, p := range y.pairs() {
		if p.Primary.Instance == of.Primary.Instance {
			ended++
		}
		if of.Frozen() && p.Frozen() && p.Replica.Instance == of.Replica.Instance {
			accepted++
		}
	}
	return max(ended, accepted)
}

// believeSevered verifies the signatures of both ends as far as their descriptors are known
// here. One is enough: each end's word binds itself, and of an instance that is no more,
// nobody may have the descriptor.
func (s *Service) believeSevered(f synchronization.Severed) error {
	believed := false
	for _, word := range []struct {
		of     synchronization.End
		signed statement.Signed
	}{{f.Primary, f.Ended}, {f.Replica, f.Accepted}} {
		if word.signed.Purpose == "" || s.peers == nil {
			continue
		}
		err := s.peers.Verify(word.of.Region, word.of.Instance, word.signed)
		if errors.Is(err, statement.ErrSignature) {
			return err
		}
		believed = believed || err == nil
	}
	if !believed {
		return fmt.Errorf("%w: neither end's signing key is known here", statement.ErrSignature)
	}
	return nil
}

// descriptorOf returns the descriptor of an instance, if it is this one or a peer's.
func (s *Service) descriptorOf(e synchronization.End) (region.Descriptor, bool) {
	if e == s.end() {
		return s.self, true
	}
	if s.peers == nil {
		return region.Descriptor{}, false
	}
	d, known := s.peers.Peer(e.Region)
	return d, known && d.Instance == e.Instance
}

// retireTransport destroys this token's transport keys with instances that this one is
// severed from. The transcripts still name them: "keyferry-ceremony retire" says so there.
func (s *Service) retireTransport(ctx context.Context) error {
	here := map[hsm.ID]bool{}
	for _, o := range s.token.Objects() {
		here[o.ID] = true
	}
	for _, key := range s.transport.Load().All() {
		name := key.Name
		a := synchronization.End{Region: name.Source.Region, Instance: name.Source.Instance}
		b := synchronization.End{Region: name.Destination.Region, Instance: name.Destination.Instance}
		if _, apart := s.syncs.apart(a, b); !apart || !here[key.ID] {
			continue
		}
		if err := s.token.Destroy(ctx, key.ID); err != nil {
			return fmt.Errorf("destroying transport key %s of a severed pair: %w", name, err)
		}
		s.log.WithField("set", name.String()).WithField("class", key.Class).Warn("a transport key of a severed pair was destroyed")
	}
	return nil
}
