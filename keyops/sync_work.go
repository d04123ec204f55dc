package keyops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

const (
	// syncBatch bounds the replicas that one run asks for, so that other work that is due
	// waits for no more than that.
	syncBatch = 64
	// syncRetryMost bounds the growing time between attempts at a resource that is refused.
	syncRetryMost = 10 * time.Minute
)

// syncPair is one resource in one replica instance.
type syncPair struct {
	resource string
	instance region.InstanceID
}

// syncTry is what became of the last attempt to ask for a replica. It is kept in memory
// only: after a start each is tried anew.
type syncTry struct {
	cause mrk.Cause
	text  string
	wait  time.Duration
	next  time.Duration // by the monotonic clock
}

// synchronize asks for the replicas that associations ask for and that nothing has asked for
// yet. What is to be done follows from the associations and the keys, so a death in between
// loses nothing.
func (s *Service) synchronize(ctx context.Context) error {
	if s.syncs.bad != nil || s.peers == nil {
		return nil
	}
	errs := []error{s.endPairs(ctx)}
	own := s.syncs.own.Load()
	if own == nil {
		return errors.Join(errs...)
	}
	left := syncBatch
	for _, a := range own.Associations {
		if s.severedFrom(a.Region, a.Instance) {
			continue
		}
		if a.Stage == synchronization.Asking {
			errs = append(errs, s.askAgain(ctx, own, a))
			continue // with what was answered in the next run
		}
		left -= s.askFor(ctx, own, a, left)
	}
	if left <= 0 {
		s.syncs.poke()
	}
	return errors.Join(errs...)
}

// askAgain finishes an association that was interrupted, or whose instance did not answer.
func (s *Service) askAgain(ctx context.Context, own *synchronization.Synchronization, a synchronization.Association) error {
	err := s.confirmAssociation(ctx, own, a)
	if errors.Is(err, ErrPeerUnreachable) {
		return nil // the next run tries again
	}
	if err != nil {
		return fmt.Errorf("associating %s: %w", a.Instance, err)
	}
	return nil
}

// askFor asks for up to most replicas of one association, and returns for how many.
func (s *Service) askFor(ctx context.Context, own *synchronization.Synchronization, a synchronization.Association, most int) int {
	asked, reachable := 0, s.answers(a.Region)
	for _, kind := range s.resourceKinds() {
		for _, id := range kind.list(own.Account) {
			if asked >= most || ctx.Err() != nil {
				return asked
			}
			pair := syncPair{id, a.Instance}
			if !a.Covers(id) {
				continue
			}
			if now, ok := kind.status(a, id); !ok || !now.due || !s.syncs.mayTry(pair, s.elapsed()) {
				continue
			}
			asked++
			err := kind.replicate(ctx, own, a, id, reachable)
			s.syncs.tried(pair, err, s.elapsed())
			if err != nil && ctx.Err() == nil {
				s.log.WithError(err).WithField("resource", id).WithField("replicaInstance", a.Instance).Warn("a resource was not synchronized; it is tried again")
			}
		}
	}
	return asked
}

// answers reports whether a Region answers questions now, as far as that is known: with one
// that does not, each key would wait for it.
func (s *Service) answers(r region.Name) bool {
	p, ok := s.peers.(interface{ Reachable(region.Name) bool })
	return !ok || p.Reachable(r)
}

// mayTry reports whether it is time for an attempt.
func (y *synchronizations) mayTry(p syncPair, now time.Duration) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	t, failed := y.tries[p]
	return !failed || now >= t.next
}

// tried remembers what became of an attempt.
func (y *synchronizations) tried(p syncPair, err error, now time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if err == nil {
		delete(y.tries, p)
		return
	}
	t := y.tries[p]
	t.wait = min(max(2*t.wait, workEvery), syncRetryMost)
	t.next = now + t.wait
	t.cause, t.text = syncCause(err), clip(answer(err).Message)
	y.tries[p] = t
}

// last returns what became of the last attempt, if it failed.
func (y *synchronizations) last(p syncPair) (syncTry, bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	t, failed := y.tries[p]
	return t, failed
}

// syncCauses maps what a replica is refused with to causes. The first row that matches
// decides; what matches none is the token's or the store's fault, which passes.
var syncCauses = []struct {
	is    error
	cause mrk.Cause
}{
	{ErrPeerUnreachable, mrk.CausePeerUnreachable},
	{ErrReplicaFrozen, mrk.CauseReplicaFrozen},
	{ErrAccessDenied, mrk.CauseAccessDenied},
	{ErrMalformedPolicyDocument, mrk.CauseAccessDenied},
	{ErrLimitExceeded, mrk.CauseQuotaExceeded},
	{ErrAlreadyExists, mrk.CauseAlreadyExists},
	{ErrUnsupportedOperation, mrk.CauseMechanismUnsupported},
	{ErrConflict, mrk.CauseWaitingForConfirmation},
	{ErrInvalidState, mrk.CauseWaitingForConfirmation},
}

func syncCause(err error) mrk.Cause {
	for _, row := range syncCauses {
		if errors.Is(err, row.is) {
			return row.cause
		}
	}
	return mrk.CauseTokenUnavailable
}
