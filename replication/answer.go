package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// maxUnsupported bounds the kinds of messages that are remembered as unknown.
const maxUnsupported = 16

// Receive acts on one message that has come from a peer and returns the signed answer. The
// message is believed to be the peer's once its signature has been verified.
func (r *Replicator) Receive(ctx context.Context, from region.Name, message []byte) ([]byte, error) {
	keys, err := r.running()
	if err != nil {
		return nil, err
	}
	p, ok := r.peers[from]
	if !ok {
		return nil, errNotPinned
	}
	m, err := p.open(message)
	if err != nil {
		p.log.WithError(err).Warn("a peer's message was refused")
		return nil, err
	}
	answer, err := r.answer(ctx, keys, p, m)
	if err != nil {
		p.log.WithError(err).WithField("kind", m.Kind).Warn("a peer's message could not be answered")
	}
	return answer, err
}

// answer acts on one message, which is the peer's, and returns the signed answer.
func (r *Replicator) answer(ctx context.Context, keys Keys, p *peer, m message.Envelope) ([]byte, error) {
	if m.Answer {
		return nil, fmt.Errorf("%w: an answer where a message belongs", errMessage)
	}
	p.saw(ctx, keys, m)
	p.comesIn()
	reply := message.Envelope{Kind: m.Kind, Answer: true, To: m.From, PeerSession: m.Session, Nonce: m.Nonce, Correlation: m.Correlation}
	var err error
	switch {
	case m.Kind == message.KindDigest:
		reply.Body, err = r.answerDigest(keys, p, m.Body)
	case m.Kind == message.KindCheck:
		reply.Body, err = r.answerCheck(ctx, keys, p, m.Body)
	case m.Kind == message.KindCheckPrimary:
		reply.Body, err = r.answerCheckPrimary(ctx, keys, p, m.Body)
	case m.Kind == message.KindRosters:
		reply.Body, err = r.answerRosters(ctx, keys, p, m.Body)
	case m.Kind == message.KindSevered:
		reply.Body, err = r.answerSevered(ctx, keys, p, m.Body)
	case m.Kind != message.KindFacts && m.Kind != message.KindConfirm && m.Kind != message.KindOffer && m.Kind != message.KindAssociate && m.Kind != message.KindDisassociate:
		reply.Kind = message.KindUnsupported
		p.unknown(m.Kind)
	case guardSession.Stops(m.PeerSession != r.session):
		// Sent before this Region's start, or repeated by somebody: what it says may be of
		// any age. The peer sends it again after it has seen this run's digest.
		reply.Kind = message.KindStale
	case m.Kind == message.KindFacts:
		reply.Body, err = r.answerFacts(ctx, keys, p, m)
	case m.Kind == message.KindAssociate:
		reply.Body, err = r.answerAssociate(ctx, keys, p, m.Body)
	case m.Kind == message.KindDisassociate:
		reply.Body, err = r.answerDisassociate(ctx, keys, p, m.Body)
	case m.Kind == message.KindOffer:
		reply.Body, err = r.answerOffer(ctx, keys, p, m.Body)
	default:
		reply.Body, err = r.answerConfirm(keys, p, m.Body)
	}
	if err != nil {
		return nil, err
	}
	signed, err := r.sign(ctx, keys, reply)
	if err == nil {
		p.answered()
	}
	return signed, err
}

// answered notes an exchange that the peer began.
func (p *peer) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastExchange = p.r.cfg.Clock()
}

// comesIn notes that a peer speaks: then it can be reached, too.
func (p *peer) comesIn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cameIn = p.r.cfg.Clock()
	if p.failures > 0 {
		p.retryAt = p.r.cfg.Clock()
		p.poke()
	}
}

// unknown remembers that the peer sends messages which this version does not know. They are
// not lost: the peer keeps its marks.
func (p *peer) unknown(kind string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.unsupported[kind]; !ok && len(p.unsupported) >= maxUnsupported {
		return
	}
	if p.unsupported[kind]++; p.unsupported[kind] == 1 {
		p.log.WithField("kind", clip(kind, message.MaxKind)).Warn("a peer sends messages that this version does not know; it keeps them")
	}
}

// answerFacts takes over what the peer knows, installs what it has wrapped, and tells what
// is known here.
func (r *Replicator) answerFacts(ctx context.Context, keys Keys, p *peer, m message.Envelope) ([]byte, error) {
	f, err := message.ParseFacts(m.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	problem := r.learn(ctx, keys, p, f, m.Correlation)
	for _, b := range f.Blobs {
		if problem != nil {
			break
		}
		if b.Key != f.Key || b.Source != p.pin.Region || b.Instance != p.pin.Instance {
			problem = fmt.Errorf("%w: blob of another key or source", mrk.ErrForeign)
			break
		}
		problem = keys.InstallMaterial(ctx, f.Key, b)
	}
	if problem == nil && len(f.Blobs) > 0 {
		problem = r.step(ctx, keys, f.Key, m.Correlation)
	}
	reply := message.Facts{Key: f.Key, Facts: mrk.Facts{Key: f.Key}, Trouble: tell(problem), Roster: r.need(keys, problem)}
	if problem != nil {
		p.log.WithError(problem).WithField("key", f.Key).Warn("a peer's facts were not all taken")
	}
	k, err := keys.SharedKey(f.Key)
	switch {
	case errors.Is(err, keyops.ErrNotFound) || err == nil && !k.Set.Concerns(p.pin.Region):
		// Also a Region that was never a member is told no more than this.
		if problem == nil && f.Hash != (mrk.Hash{}) {
			reply.Trouble = message.Trouble{Cause: mrk.CauseCreateRequestMissing, Text: "the key is not known here and nothing asked for it"}
		}
	case err != nil:
		// Of this key alone: an exchange that fails stands for a Region that does not answer.
		reply.Trouble = tell(err)
	default:
		if err := p.knows(ctx, keys, k, f.Hash); err != nil {
			return nil, err
		}
		reply.Facts, reply.Head, reply.Hash = k.Set.Facts(f.Head), k.Set.Head(), k.Set.Hash()
		reply.Epochs = keys.UnwrapEpochs(f.Key, p.pin)
		reply.Epochs = reply.Epochs[:min(len(reply.Epochs), message.MaxEpochs)]
		reply.Request, _ = p.request(k) // one that is not sent shows in this Region's own tries
	}
	return reply.Marshal(), nil
}

// admit makes the replica that the primary Region asks for (rule 3).
func (r *Replicator) admit(ctx context.Context, keys Keys, f message.Facts) error {
	if f.Request == nil {
		return r.recreate(ctx, keys, f)
	}
	set, err := mrk.Join(mrk.Self{Region: r.self.Region, Instance: r.self.Instance}, r.signed, f.Facts, *f.Request)
	if err != nil {
		return fmt.Errorf("joining key %s: %w", f.Key, err)
	}
	return r.makeReplica(ctx, keys, set, *f.Request)
}

// recreate makes a key again that this Region has had, if the facts prove it. If they do
// not, nothing is done: whoever is to send a create request will.
func (r *Replicator) recreate(ctx context.Context, keys Keys, f message.Facts) error {
	set, used, err := mrk.Recreate(mrk.Self{Region: r.self.Region, Instance: r.self.Instance}, r.signed, f.Facts)
	if errors.Is(err, mrk.ErrRequest) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recreating key %s: %w", f.Key, err)
	}
	return keys.RecreateKey(ctx, set, used)
}

// readmit makes a replica again that was deleted here. A request that is not for a new
// incarnation is an old one, and says nothing.
func (r *Replicator) readmit(ctx context.Context, keys Keys, gone *keyops.Key, req mrk.CreateRequest) error {
	if req.Incarnation <= gone.Set.Incarnation() {
		return nil
	}
	set := gone.Set.Clone()
	if err := set.Admit(r.signed, req); err != nil {
		return fmt.Errorf("joining key %s again: %w", gone.ID, err)
	}
	return r.makeReplica(ctx, keys, set, req)
}

func (r *Replicator) makeReplica(ctx context.Context, keys Keys, set *mrk.Set, req mrk.CreateRequest) error {
	principal, err := arn.ParsePrincipal(req.Principal)
	if err != nil {
		return fmt.Errorf("joining key %s: %w: %w", set.Key(), mrk.ErrRequest, err)
	}
	st := set.State()
	claim := keyops.ReplicaClaim{
		Source: req.Source, Key: set.Key(), Account: st.Account, Principal: principal,
		Spec: keyops.KeySpec(st.Spec), Usage: keyops.KeyUsage(st.Usage), Origin: keyops.Origin(st.Origin),
		Policy: req.Policy, Description: req.Description,
		Materials: len(set.Listed()), CorrelationID: req.CorrelationID,
	}
	for _, t := range req.Tags {
		claim.Tags = append(claim.Tags, keyops.Tag(t))
	}
	err = keys.AdmitReplica(ctx, claim, set)
	if errors.Is(err, keyops.ErrAlreadyExists) {
		if _, known := keys.SharedKey(set.Key()); known == nil {
			return nil // the same request came twice at once
		}
	}
	return err
}

// answerCheck decides a claim without effect.
func (r *Replicator) answerCheck(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	c, err := message.ParseCheck(body, p.pin.Region)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return decision(keys.CheckReplica(ctx, c.Claim))
}

// decision makes an answer of yes, or of a refusal that the other Region may pass on.
func decision(err error) ([]byte, error) {
	a, err := decide(err)
	if err != nil {
		return nil, err
	}
	return a.Marshal(), nil
}

func decide(err error) (message.Decision, error) {
	var refused *keyops.Error
	switch {
	case err == nil:
		return message.Decision{}, nil
	case errors.As(err, &refused):
		return message.Decision{Reason: refused.Reason, Message: clip(refused.Message, 4096)}, nil
	}
	return message.Decision{}, err
}
