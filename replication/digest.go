package replication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// Digests find what marks have missed: a lost outbox, a restored store, a peer that was
// away. Keys are spread over buckets by a hash of their ID; a bucket's hash covers what is
// known of its keys. Digests name only keys of which both ends are or were members.

// answerDigest lists what this Region has in the buckets that differ, from the one on that
// is asked about, as far as one answer holds it.
func (r *Replicator) answerDigest(keys Keys, p *peer, body []byte) ([]byte, error) {
	theirs, err := message.ParseDigest(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	mine := p.inventory(keys)
	a := message.DigestAnswer{Next: theirs.From}
	for left := message.MaxEntries; a.Next < message.Buckets; a.Next++ {
		i := a.Next
		if mine.hashes[i] == theirs.Hashes[i] {
			continue
		}
		if left -= len(mine.entries[i]); left < 0 {
			break
		}
		a.Differing = append(a.Differing, message.Differing{Bucket: byte(i), Entries: mine.entries[i]})
	}
	return a.Marshal(), nil
}

// digest compares what both ends know and settles the difference. After it the peer has
// been heard: all that it knew of any key when this run asked has been taken over. Every
// bucket is compared once, so that keys which cannot be settled are in nobody's way. An
// error means that the peer does not answer.
func (p *peer) digest(ctx context.Context, keys Keys) error {
	began := p.r.cfg.Clock()
	for from := 0; from < message.Buckets; {
		inv := p.inventory(keys)
		reply, err := p.exchange(ctx, message.KindDigest, "", message.Digest{From: from, Hashes: inv.hashes}.Marshal())
		if err != nil {
			return err
		}
		a, err := message.ParseDigestAnswer(reply.Body)
		if err != nil {
			return fmt.Errorf("%w: %w", errMessage, err)
		}
		if a.Next <= from {
			return fmt.Errorf("%w: an answer to a digest that says nothing", errMessage)
		}
		differ, err := p.compare(ctx, keys, inv, from, a)
		if err != nil {
			return err
		}
		if err := p.settleAll(ctx, keys, differ); err != nil {
			return err
		}
		from = a.Next
	}
	p.mu.Lock()
	if !p.heard {
		p.log.Info("all that a peer knows has been heard")
	}
	p.heard, p.digestAt = true, began.Add(p.r.cfg.DigestInterval)
	p.mu.Unlock()
	p.r.Step(ctx)
	return nil
}

// compare returns the keys on which the two ends differ, of the buckets from one on that
// the answer is about, and clears the marks of those on which they do not.
func (p *peer) compare(ctx context.Context, keys Keys, inv *inventory, from int, a message.DigestAnswer) ([]arn.KeyID, error) {
	theirs := map[arn.KeyID]mrk.Hash{}
	differs := map[int]bool{}
	for _, b := range a.Differing {
		differs[int(b.Bucket)] = true
		for _, e := range b.Entries {
			if bucketOf(e.Key) != b.Bucket || int(b.Bucket) < from {
				return nil, fmt.Errorf("%w: a key in the wrong bucket", errMessage)
			}
			theirs[e.Key] = e.Hash
		}
	}
	var differ []arn.KeyID
	for i := from; i < a.Next; i++ {
		for _, e := range inv.entries[i] {
			hash, ok := theirs[e.Key]
			delete(theirs, e.Key)
			if differs[i] && (!ok || hash != e.Hash) {
				differ = append(differ, e.Key)
				continue
			}
			owed, err := p.same(ctx, keys, e)
			if err != nil {
				return nil, err
			}
			if owed {
				differ = append(differ, e.Key)
			}
		}
	}
	// What is known to the peer alone.
	differ = append(differ, slices.Sorted(maps.Keys(theirs))...)
	return differ, nil
}

// same handles a key of which the peer has shown the facts that are known here, and reports
// whether it is owed materials all the same: whose turn it is to send them can change
// without a fact, when the primary Region falls silent.
func (p *peer) same(ctx context.Context, keys Keys, e message.Entry) (owed bool, err error) {
	k, err := keys.SharedKey(e.Key)
	if errors.Is(err, keyops.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	delete(p.unsettled, e.Key)
	p.mu.Unlock()
	if len(p.owed(keys, k.Set)) > 0 || p.offered(k.Set) || p.asked(k.Set) {
		return true, nil
	}
	if _, marked := keys.Mark(e.Key, p.pin.Region); marked {
		return false, keys.ClearMark(ctx, e.Key, p.pin.Region, e.Hash)
	}
	return false, nil
}
