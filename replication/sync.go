package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// rounds bounds the messages about one key in a row. A replica that is made needs four;
// what is not settled by then has a fault, and waits like one.
const rounds = 12

// errNoKey means that the peer does not have a key that it should have, and has said so. A
// primary Region that was restored may have forgotten the request: only operators can make
// another, and nobody needs to wait for what the peer might still tell.
var errNoKey = errors.New("the peer does not have the key")

// declines are the causes with which a Region refuses to make a replica, or to make the one
// again that it has forgotten. It has no such key then, and has said so.
var declines = map[mrk.Cause]bool{
	mrk.CauseAccessDenied: true, mrk.CauseQuotaExceeded: true, mrk.CauseReplicaFrozen: true, mrk.CauseMechanismUnsupported: true,
}

// errRefused means that the peer has told all that it knows, and refuses something that it was
// sent. That is no reason to wait for it: a Region that was rolled back may have to act again
// before others can believe it.
var errRefused = errors.New("the peer refuses what it was sent")

// errUnadmitted means that the peer has told all that it knows, and that all of it is taken in
// but for the request by which the peer is a member.
var errUnadmitted = errors.New("the peer is believed, but not to be a member")

// syncKey exchanges facts and materials of one key until both ends know the same and the
// peer lacks nothing that this Region is to send.
func (p *peer) syncKey(ctx context.Context, keys Keys, id arn.KeyID) error {
	var last message.Facts // the peer's newest answer
	introduce := false
	for range rounds {
		body, unsent, err := p.compose(ctx, keys, id, last, introduce)
		if err != nil {
			return err
		}
		unasked := last.Hash == (mrk.Hash{}) && len(body.Blobs) > 0
		correlation := ""
		if body.Request != nil {
			correlation = body.Request.CorrelationID
		}
		reply, err := p.exchange(ctx, message.KindFacts, correlation, body.Marshal())
		if err != nil {
			return err
		}
		if last, err = message.ParseFacts(reply.Body); err != nil {
			return fmt.Errorf("%w: %w", errMessage, err)
		}
		if last.Key != id {
			return fmt.Errorf("%w: an answer about another key", errMessage)
		}
		if err := p.r.learn(ctx, keys, p, last, correlation); err != nil {
			n := p.r.need(keys, err)
			if n.To == 0 {
				return err
			}
			if err := p.askRoster(ctx, keys, n); err != nil {
				return err
			}
			last = message.Facts{} // as if nothing had been said: all of it is believed now, or nothing more
			continue
		}
		if shown, err := p.showRoster(ctx, keys, last.Roster); shown || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if unsent != nil {
			return unsent
		}
		if last.Trouble.Cause == mrk.CauseCreateRequestMissing && !introduce && body.Hash != (mrk.Hash{}) {
			introduce = true // the peer may not know that this Region is a member
			continue
		}
		if last.Trouble.Cause == mrk.CauseCreateRequestMissing && last.Hash == (mrk.Hash{}) {
			k, err := keys.SharedKey(id)
			if err != nil {
				return err
			}
			if !k.Set.Entry(p.pin.Region).Status.In() {
				// Evicted before it heard of the key, or deleted and forgotten: there is nobody to tell.
				return keys.ClearMark(ctx, id, p.pin.Region, body.Hash)
			}
			return fmt.Errorf("%w: %w", errNoKey, troubleError(last.Trouble))
		}
		if introduce && last.Trouble.Cause == mrk.CauseSignatureInvalid && last.Hash == (mrk.Hash{}) && p.nobodyToTell(keys, id) {
			return keys.ClearMark(ctx, id, p.pin.Region, body.Hash)
		}
		if last.Head == (mrk.Hash{}) && last.Hash == (mrk.Hash{}) && declines[last.Trouble.Cause] {
			return fmt.Errorf("%w: %w", errNoKey, troubleError(last.Trouble))
		}
		if last.Trouble.Cause != "" && !unasked {
			if last.Head == body.Head && last.Head != (mrk.Hash{}) {
				return fmt.Errorf("%w: %w", errRefused, troubleError(last.Trouble))
			}
			return troubleError(last.Trouble)
		}
		if body.Hash == (mrk.Hash{}) && p.stranger(keys, id) {
			return errUnadmitted // it was asked, has told everything, and is told nothing
		}
		done, err := p.confirmed(ctx, keys, id, last.Hash)
		if done || err != nil {
			return err
		}
	}
	return troubleError(message.Trouble{Cause: mrk.CauseWaitingForConfirmation, Text: "the Regions have not come to the same facts yet"})
}

// nobodyToTell reports whether a peer that does not take this Region for a member of the key, nor
// the word of who admitted it, has nothing to hear: the key is deleted here. Of one that is not,
// operators see in the status what is refused.
func (p *peer) nobodyToTell(keys Keys, id arn.KeyID) bool {
	k, err := keys.SharedKey(id)
	return err == nil && k.Gone()
}

// stranger reports whether the key is known here, and the peer as no member of it.
func (p *peer) stranger(keys Keys, id arn.KeyID) bool {
	k, err := keys.SharedKey(id)
	return err == nil && !k.Set.Concerns(p.pin.Region)
}

// confirmed clears the mark if the peer has shown the hash of the newest facts and is owed
// nothing.
func (p *peer) confirmed(ctx context.Context, keys Keys, id arn.KeyID, hash mrk.Hash) (bool, error) {
	k, err := keys.SharedKey(id)
	if errors.Is(err, keyops.ErrNotFound) {
		return true, nil // neither end has it
	}
	if err != nil {
		return false, err
	}
	if k.Set.Hash() != hash || len(p.owed(keys, k.Set)) > 0 || p.asked(k.Set) {
		return false, nil
	}
	if decided, err := p.handOver(ctx, k); decided || err != nil {
		return false, err
	}
	if err := keys.ClearMark(ctx, id, p.pin.Region, hash); err != nil {
		return false, err
	}
	p.mu.Lock()
	p.settled[id] = p.r.cfg.Clock()
	p.mu.Unlock()
	return true, nil
}

// knows clears the mark if the peer, in a message of its own, has shown the hash of the newest
// facts, and is owed nothing: then there is nothing to tell it.
func (p *peer) knows(ctx context.Context, keys Keys, k *keyops.Key, hash mrk.Hash) error {
	if k.Set.Hash() != hash || len(p.owed(keys, k.Set)) > 0 || p.offered(k.Set) || p.asked(k.Set) {
		return nil
	}
	if _, marked := keys.Mark(k.ID, p.pin.Region); !marked {
		return nil
	}
	if err := keys.ClearMark(ctx, k.ID, p.pin.Region, hash); err != nil {
		return err
	}
	p.mu.Lock()
	p.settled[k.ID] = p.r.cfg.Clock()
	p.mu.Unlock()
	return nil
}

// compose makes the next message about a key, after the peer's last answer in this
// exchange: what follows the certificates that the peer is known to have, and materials
// once the peer has said what it lacks and what it can unwrap. A request or a material that
// cannot be sent, which unsent is about, keeps no fact back.
func (p *peer) compose(ctx context.Context, keys Keys, id arn.KeyID, last message.Facts, introduce bool) (body message.Facts, unsent, err error) {
	k, err := keys.SharedKey(id)
	if errors.Is(err, keyops.ErrNotFound) || err == nil && !k.Set.Concerns(p.pin.Region) {
		return message.Facts{Key: id, Facts: mrk.Facts{Key: id}}, nil, nil // asks what the peer knows
	}
	if err != nil {
		return message.Facts{}, nil, err
	}
	body = message.Facts{Key: id, Facts: k.Set.Facts(last.Head), Head: k.Set.Head(), Hash: k.Set.Hash()}
	if introduce {
		body.Facts.Admission = k.Set.Admission()
	}
	if body.Request, unsent = p.request(k); unsent != nil {
		return body, unsent, nil
	}
	owed := p.owed(keys, k.Set)
	if len(owed) == 0 {
		return body, nil, nil
	}
	epochs := p.unwraps(k.Set, last)
	if last.Hash == (mrk.Hash{}) {
		// A first try need not ask what the peer can unwrap, if that is known: a rotation then
		// takes one round trip less. After a failure, and if the peer has changed, it is asked.
		if m, marked := keys.Mark(id, p.pin.Region); len(epochs) == 0 || !marked || m.Attempts > 0 {
			return body, nil, nil
		}
	}
	if len(epochs) == 0 {
		return body, fmt.Errorf("sending materials to %s: %w", p.pin.Region, keyops.ErrNoTransportKey), nil
	}
	for _, m := range owed {
		b, err := keys.WrapMaterial(ctx, id, m, p.pin, epochs...)
		if err != nil {
			return body, fmt.Errorf("wrapping for %s: %w", p.pin.Region, err), nil
		}
		if body.Blobs = append(body.Blobs, b); len(body.Blobs) == message.MaxBlobs {
			break
		}
	}
	return body, nil, nil
}

// unwraps returns the epochs of the transport keys under which the peer takes materials of the
// key: as it has just said, or as it said last of a key of this kind.
func (p *peer) unwraps(s *mrk.Set, last message.Facts) []uint64 {
	st := s.State()
	if st == nil {
		return last.Epochs
	}
	kind := st.Spec + "/" + st.Usage
	p.mu.Lock()
	defer p.mu.Unlock()
	if last.Hash != (mrk.Hash{}) {
		p.epochs[kind] = last.Epochs
	}
	return p.epochs[kind]
}

// request returns the create request that the peer has yet to act on, or nil. The
// configuration may forbid today what it allowed when ReplicateKey was called.
func (p *peer) request(k *keyops.Key) (*mrk.CreateRequest, error) {
	req, ok := p.outstanding(k.Set)
	if !ok {
		return nil, nil
	}
	if !slices.Contains(p.authority.Send, k.Account) {
		return nil, fmt.Errorf("%w: the configuration of Region %s does not let keys of account %s go to Region %s",
			keyops.ErrAccessDenied, p.r.self.Region, k.Account, p.pin.Region)
	}
	return &req, nil
}

// asked reports whether the peer has yet to act on a create request that counts: of the primary
// Region, for the incarnation that it lists. The peer may know all facts before that, from other
// Regions, if it had a replica that is deleted.
func (p *peer) asked(s *mrk.Set) bool {
	req, ok := p.outstanding(s)
	e := s.Entry(p.pin.Region)
	return ok && s.Acting() && e.Status.In() && e.Incarnation == req.Incarnation
}

// outstanding returns the create request that the peer has yet to act on: the instance that it
// is for has not spoken as the incarnation that it asks for. The instance before may have, at the
// request of another Region. One for an instance that is no more is nobody's; who is there would
// refuse it, and not say what it knows.
func (p *peer) outstanding(s *mrk.Set) (mrk.CreateRequest, bool) {
	req, ok := s.Request(p.pin.Region)
	m := s.Fact(p.pin.Region)
	return req, ok && req.ToInstance == p.pin.Instance && (m == nil || m.Incarnation < req.Incarnation || m.Instance != req.ToInstance)
}

// owed returns the materials that the peer lacks and that this Region is to send. The
// primary Region sends them; another one does where the primary Region cannot: to it, or in
// its place if it lacks the material or cannot be reached from here. Severed instances owe each
// other nothing: what else they have to say waits for no material.
func (p *peer) owed(keys Keys, s *mrk.Set) []material.ID {
	owed := s.Owes(p.pin.Region)
	if len(owed) > 0 && p.apart(keys) {
		return nil
	}
	primary := s.Primary()
	if len(owed) == 0 || s.Acting() || primary == p.pin.Region || p.r.silent(primary) {
		return owed
	}
	fact := s.Fact(primary)
	if primary == p.r.self.Region || fact == nil {
		return owed
	}
	return slices.DeleteFunc(owed, fact.Holds)
}

// silent reports whether a peer does not answer now.
func (r *Replicator) silent(name region.Name) bool {
	p, ok := r.peers[name]
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failures > 2
}
