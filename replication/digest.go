package replication

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// Digests find what marks have missed: a lost outbox, a restored store, a peer that was
// away. Keys are spread over buckets by a hash of their ID; a bucket's hash covers what is
// known of its keys. Digests name only keys of which both ends are or were members.

func bucketOf(id arn.KeyID) byte { return sha256.Sum256([]byte(id))[0] }

// inventory is what this Region would tell a peer that it knows, by bucket and then key.
type inventory [buckets][]entry

func (p *peer) inventory(keys Keys) *inventory {
	inv := new(inventory)
	for _, id := range keys.SharedKeys() { // ordered by ID
		k, err := keys.SharedKey(id)
		if err != nil || !k.Set.Concerns(p.pin.Region) {
			continue
		}
		b := bucketOf(id)
		inv[b] = append(inv[b], entry{id, k.Set.Hash()})
	}
	return inv
}

func (inv *inventory) digest() *digestBody {
	d := new(digestBody)
	for i, entries := range inv {
		if len(entries) == 0 {
			continue
		}
		h := sha256.New()
		for _, e := range entries {
			h.Write([]byte(e.key))
			h.Write(e.hash[:])
		}
		h.Sum(d[i][:0])
	}
	return d
}

// answerDigest lists what this Region has in the buckets that differ.
func (r *Replicator) answerDigest(keys Keys, p *peer, body []byte) ([]byte, error) {
	theirs, err := parseDigest(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	inv := p.inventory(keys)
	mine := inv.digest()
	var a digestAnswer
	left := maxEntries
	for i := range inv {
		if mine[i] == theirs[i] {
			continue
		}
		if len(inv[i]) > left {
			a.more = true
			continue
		}
		left -= len(inv[i])
		a.differing = append(a.differing, differing{byte(i), inv[i]})
	}
	return a.marshal(), nil
}

// digest compares what both ends know and settles the difference. After it the peer has
// been heard: all that it knew of any key when this run asked has been taken over. An error
// means that the peer does not answer.
func (p *peer) digest(ctx context.Context, keys Keys) error {
	began := p.r.cfg.Clock()
	tried := map[arn.KeyID]bool{}
	for more := true; more; {
		inv := p.inventory(keys)
		reply, err := p.exchange(ctx, kindDigest, "", inv.digest().marshal())
		if err != nil {
			return err
		}
		a, err := parseDigestAnswer(reply.body)
		if err != nil {
			return fmt.Errorf("%w: %w", errMessage, err)
		}
		differ, err := p.compare(ctx, keys, inv, a)
		if err != nil {
			return err
		}
		// A key that has failed is tried again by its mark or by the next digest.
		differ = slices.DeleteFunc(differ, func(id arn.KeyID) bool { return tried[id] })
		for _, id := range differ {
			tried[id] = true
		}
		if err := p.settleAll(ctx, keys, differ); err != nil {
			return err
		}
		more = a.more && len(differ) > 0
	}
	p.mu.Lock()
	if !p.heard {
		p.log.Info("all that a peer knows has been heard")
	}
	p.heard, p.digestAt = true, began.Add(p.r.cfg.DigestInterval)
	p.mu.Unlock()
	p.r.stepAll(ctx)
	return nil
}

// compare returns the keys on which the two ends differ, and clears the marks of those on
// which they do not.
func (p *peer) compare(ctx context.Context, keys Keys, inv *inventory, a digestAnswer) ([]arn.KeyID, error) {
	theirs := map[arn.KeyID]mrk.Hash{}
	differs := map[byte]bool{}
	for _, b := range a.differing {
		differs[b.bucket] = true
		for _, e := range b.entries {
			if bucketOf(e.key) != b.bucket {
				return nil, fmt.Errorf("%w: a key in the wrong bucket", errMessage)
			}
			theirs[e.key] = e.hash
		}
	}
	var differ []arn.KeyID
	for i, entries := range inv {
		for _, e := range entries {
			hash, ok := theirs[e.key]
			delete(theirs, e.key)
			switch {
			case !differs[byte(i)] && a.more: // not said yet
			case differs[byte(i)] && (!ok || hash != e.hash):
				differ = append(differ, e.key)
			default:
				if err := p.same(ctx, keys, e); err != nil {
					return nil, err
				}
			}
		}
	}
	for id := range theirs {
		differ = append(differ, id) // known to the peer alone
	}
	return differ, nil
}

// same handles a key of which the peer has shown the facts that are known here.
func (p *peer) same(ctx context.Context, keys Keys, e entry) error {
	p.mu.Lock()
	delete(p.unsettled, e.key)
	p.mu.Unlock()
	k, err := keys.SharedKey(e.key)
	if errors.Is(err, keyops.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, marked := keys.Mark(e.key, p.pin.Region); marked && len(p.owed(k.Set)) == 0 {
		return keys.ClearMark(ctx, e.key, p.pin.Region, e.hash)
	}
	return nil
}
