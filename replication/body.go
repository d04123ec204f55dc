package replication

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Bounds of bodies.
const (
	buckets    = 256
	maxEntries = 8000 // of one answer to a digest
	maxBlobs   = 16   // of one message
	maxBlob    = 32 << 10
	maxEpochs  = 16 // of one answer
	maxText    = 1024
)

// entry is a key and the hash of its facts.
type entry struct {
	key  arn.KeyID
	hash mrk.Hash
}

// digestBody is the hash of each bucket of keys that both ends are or were members of, and
// the first bucket that is asked about.
type digestBody struct {
	from   int
	hashes [buckets]mrk.Hash
}

func (d digestBody) marshal() []byte {
	b := make([]byte, 0, buckets*len(mrk.Hash{}))
	for _, h := range d.hashes {
		b = append(b, h[:]...)
	}
	var w wire.Writer
	w.Uint(uint64(d.from))
	w.Bytes(b)
	return w.Out()
}

func parseDigest(p []byte) (digestBody, error) {
	var flat [buckets * len(mrk.Hash{})]byte
	r := wire.NewReader(p)
	from := r.Uint()
	if from >= buckets {
		r.Fail("bucket %d", from)
	}
	r.Fixed(flat[:])
	if err := r.Done(); err != nil {
		return digestBody{}, fmt.Errorf("parsing digest: %w", err)
	}
	d := digestBody{from: int(from)}
	for i := range d.hashes {
		copy(d.hashes[i][:], flat[i*len(mrk.Hash{}):])
	}
	return d, nil
}

// digestAnswer lists the answering Region's entries of the buckets that differ.
type digestAnswer struct {
	next      int // the first bucket of which nothing is said yet; buckets if all is said
	differing []differing
}

type differing struct {
	bucket  byte
	entries []entry
}

func (d digestAnswer) marshal() []byte {
	var w wire.Writer
	w.Uint(uint64(d.next))
	w.Count(len(d.differing))
	for _, b := range d.differing {
		w.Uint(uint64(b.bucket))
		w.Count(len(b.entries))
		for _, e := range b.entries {
			w.String(string(e.key))
			w.Bytes(e.hash[:])
		}
	}
	return w.Out()
}

func parseDigestAnswer(p []byte) (digestAnswer, error) {
	r := wire.NewReader(p)
	next := r.Uint()
	if next > buckets {
		r.Fail("bucket %d", next)
		next = 0
	}
	d := digestAnswer{next: int(next)}
	left := maxEntries
	for range r.Count(buckets) {
		n := r.Uint()
		if n >= next || len(d.differing) > 0 && n <= uint64(d.differing[len(d.differing)-1].bucket) {
			r.Fail("bucket %d", n)
		}
		b := differing{bucket: byte(n)}
		for range r.Count(left) {
			e := entry{key: decodeKey(r)}
			r.Fixed(e.hash[:])
			if r.Err() != nil {
				break
			}
			b.entries = append(b.entries, e)
		}
		left -= len(b.entries)
		d.differing = append(d.differing, b)
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return digestAnswer{}, fmt.Errorf("parsing answer to a digest: %w", err)
	}
	return d, nil
}

func decodeKey(r *wire.Reader) arn.KeyID {
	id, err := arn.ParseKeyID(r.String(64))
	if r.Err() == nil && (err != nil || !id.MultiRegion()) {
		r.Fail("not a multi-Region key ID")
	}
	return id
}

func decodePrincipal(r *wire.Reader) arn.Principal {
	p, err := arn.ParsePrincipal(r.String(1024))
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return p
}

// trouble says why the answering Region did not take all of a message.
type trouble struct {
	cause mrk.Cause // empty: no trouble
	text  string
}

// factsBody is what one Region knows of a key, in a message and in its answer.
type factsBody struct {
	key     arn.KeyID
	facts   mrk.Facts
	head    mrk.Hash // newest certificate known to the sender; the other end sends what follows it
	hash    mrk.Hash // of all facts that the sender knows; zero if it does not know the key
	request *mrk.CreateRequest
	blobs   []mrk.Blob // in messages only
	epochs  []uint64   // in answers only: of the transport keys under which the answering Region can be sent materials
	trouble trouble    // in answers only
	roster  rosterNeed // in answers only: whose operators have to be known before all of the message is believed
}

func (f factsBody) marshal() []byte {
	var w wire.Writer
	w.String(string(f.key))
	w.Bytes(f.facts.Marshal())
	w.Bytes(f.head[:])
	w.Bytes(f.hash[:])
	if f.request == nil {
		w.Bytes(nil)
	} else {
		w.Bytes(f.request.Signed().Marshal())
	}
	w.Count(len(f.blobs))
	for _, b := range f.blobs {
		w.Bytes(b.Marshal())
	}
	w.Count(len(f.epochs))
	for _, e := range f.epochs {
		w.Uint(e)
	}
	w.String(string(f.trouble.cause))
	w.String(f.trouble.text)
	f.roster.encode(&w)
	return w.Out()
}

func parseFacts(p []byte) (factsBody, error) {
	r := wire.NewReader(p)
	f := factsBody{key: decodeKey(r)}
	facts := r.Bytes(maxBody)
	r.Fixed(f.head[:])
	r.Fixed(f.hash[:])
	request := r.Bytes(statement.MaxPayload)
	var blobs [][]byte
	for range r.Count(maxBlobs) {
		blobs = append(blobs, r.Bytes(maxBlob))
	}
	for range r.Count(maxEpochs) {
		f.epochs = append(f.epochs, r.Uint())
	}
	f.trouble = trouble{cause: mrk.Cause(r.String(maxKind)), text: r.String(maxText)}
	f.roster = decodeRosterNeed(r)
	if err := r.Done(); err != nil {
		return f, fmt.Errorf("parsing facts message: %w", err)
	}
	return f, f.parseParts(facts, request, blobs)
}

func (f *factsBody) parseParts(facts, request []byte, blobs [][]byte) (err error) {
	if f.facts, err = mrk.ParseFacts(facts); err != nil {
		return err
	}
	if f.facts.Key != f.key {
		return fmt.Errorf("parsing facts message: %w: facts of another key", wire.ErrMalformed)
	}
	if len(request) > 0 {
		signed, err := statement.Parse(request)
		if err != nil {
			return err
		}
		req, err := mrk.ParseCreateRequest(signed)
		if err != nil {
			return err
		}
		f.request = &req
	}
	for _, p := range blobs {
		b, err := mrk.ParseBlob(p)
		if err != nil {
			return err
		}
		f.blobs = append(f.blobs, b)
	}
	return nil
}

// checkBody is a claim to be decided without effect.
type checkBody struct{ claim keyops.ReplicaClaim }

func (c checkBody) marshal() []byte {
	var w wire.Writer
	w.String(string(c.claim.Key))
	w.String(string(c.claim.Account))
	w.String(c.claim.Principal.String())
	w.String(string(c.claim.Spec))
	w.String(string(c.claim.Usage))
	w.String(string(c.claim.Origin))
	w.Bytes(c.claim.Policy)
	w.String(c.claim.Description)
	w.Count(len(c.claim.Tags))
	for _, t := range c.claim.Tags {
		w.String(t.Key)
		w.String(t.Value)
	}
	w.Count(c.claim.Materials)
	w.String(c.claim.CorrelationID)
	return w.Out()
}

func parseCheck(p []byte, source region.Name) (checkBody, error) {
	r := wire.NewReader(p)
	c := keyops.ReplicaClaim{Source: source, Key: decodeKey(r)}
	account, err := arn.ParseAccount(r.String(64))
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	c.Account, c.Principal = account, decodePrincipal(r)
	c.Spec, c.Usage, c.Origin = keyops.KeySpec(r.String(64)), keyops.KeyUsage(r.String(64)), keyops.Origin(r.String(64))
	c.Policy = r.Bytes(64 << 10)
	c.Description = r.String(64 << 10)
	for range r.Count(mrk.MaxTags) {
		c.Tags = append(c.Tags, keyops.Tag{Key: r.String(4096), Value: r.String(4096)})
	}
	c.Materials = r.Count(mrk.MaxMaterials)
	c.CorrelationID = r.String(maxCorrelation)
	if err := r.Done(); err != nil {
		return checkBody{}, fmt.Errorf("parsing check-replica message: %w", err)
	}
	return checkBody{c}, nil
}

// checkAnswer is a decision: an empty reason means yes.
type checkAnswer struct {
	reason  keyops.Reason
	message string
}

func (c checkAnswer) marshal() []byte {
	var w wire.Writer
	w.String(string(c.reason))
	w.String(c.message)
	return w.Out()
}

func parseCheckAnswer(p []byte) (checkAnswer, error) {
	r := wire.NewReader(p)
	c := checkAnswer{reason: keyops.Reason(r.String(maxKind)), message: r.String(8192)}
	if err := r.Done(); err != nil {
		return c, fmt.Errorf("parsing answer to a check-replica message: %w", err)
	}
	return c, nil
}
