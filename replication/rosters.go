package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

// electors knows, beside the pinned keys, whose approvals count: the operators of a pinned
// Region are those of its descriptor, and of the changes of that roster that are known here.
type electors struct {
	mrk.Verifier
	r *Replicator
}

var _ mrk.Historian = electors{}

// Roster implements mrk.Electors.
func (e electors) Roster(name region.Name, instance region.InstanceID, version uint64) (approval.Roster, uint64, error) {
	none := approval.Roster{}
	d, ok := e.r.descriptor(name, instance)
	if !ok {
		return none, 0, fmt.Errorf("%w: instance %s of Region %s", errNotPinned, instance, name)
	}
	keys, err := e.r.running()
	if err != nil {
		return none, 0, err
	}
	roster, newest, known := keys.Roster(d, version)
	if !known {
		return none, newest, fmt.Errorf("%w: version %d of Region %s, known is %d", mrk.ErrRosterUnknown, version, name, newest)
	}
	return roster, newest, nil
}

// Former implements mrk.Historian.
func (e electors) Former(name region.Name, instance region.InstanceID) bool {
	h, ok := e.Verifier.(mrk.Historian)
	return ok && h.Former(name, instance)
}

// descriptor returns the descriptor of an instance: a pinned one, this Region's own, or that
// of one that is no more.
func (r *Replicator) descriptor(name region.Name, instance region.InstanceID) (region.Descriptor, bool) {
	for _, d := range r.cfg.Former {
		if d.Region == name && d.Instance == instance {
			return d, true
		}
	}
	d, ok := r.cfg.Self, true
	if name != r.self.region {
		d, ok = r.Peer(name)
	}
	return d, ok && d.Instance == instance
}

// rosterNeed names a roster whose operators approved something here, and who are not known
// yet: changes after version From, up to version To. No more are asked for: a Region that
// knows a newer roster than the one that approved would refuse what was approved.
type rosterNeed struct {
	region   region.Name
	instance region.InstanceID
	from, to uint64
}

func (n rosterNeed) encode(w *wire.Writer) {
	w.Bool(n.to > 0)
	if n.to == 0 {
		return
	}
	w.String(string(n.region))
	w.String(string(n.instance))
	w.Uint(n.from)
	w.Uint(n.to)
}

func decodeRosterNeed(r *wire.Reader) rosterNeed {
	if !r.Bool() {
		return rosterNeed{}
	}
	p := decodeParty(r)
	n := rosterNeed{p.region, p.instance, r.Uint(), r.Uint()}
	if r.Err() == nil && n.from >= n.to {
		r.Fail("changes of a roster after version %d, up to %d", n.from, n.to)
	}
	return n
}

// need returns which roster has to be shown before what an error is about can be believed.
func (r *Replicator) need(keys Keys, err error) rosterNeed {
	var unknown *mrk.RosterUnknownError
	if !errors.As(err, &unknown) {
		return rosterNeed{}
	}
	d, ok := r.descriptor(unknown.Region, unknown.Instance)
	if !ok {
		return rosterNeed{}
	}
	n := rosterNeed{d.Region, d.Instance, uint64(len(keys.RosterChanges(d))), unknown.Version}
	if n.from >= n.to {
		return rosterNeed{}
	}
	return n
}

// rostersBody carries changes of one roster, or asks for them.
type rostersBody struct {
	need    rosterNeed
	changes []approval.Change // after need.from; none in a question
}

const (
	maxChanges     = 64        // of one message
	maxChangeBytes = 384 << 10 // of one message, but for the first change
)

func (b rostersBody) marshal() []byte {
	var w wire.Writer
	b.need.encode(&w)
	w.Count(len(b.changes))
	for _, c := range b.changes {
		keyops.EncodeChange(&w, c)
	}
	return w.Out()
}

func parseRosters(p []byte) (rostersBody, error) {
	r := wire.NewReader(p)
	b := rostersBody{need: decodeRosterNeed(r)}
	if r.Err() == nil && b.need.to == 0 {
		r.Fail("nobody's roster")
	}
	for range r.Count(maxChanges) {
		b.changes = append(b.changes, keyops.DecodeChange(r))
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return b, fmt.Errorf("parsing changes of a roster: %w", err)
	}
	return b, nil
}

// show returns the changes that are asked for, as far as they are known here and fit.
func (r *Replicator) show(keys Keys, n rosterNeed) []approval.Change {
	d, ok := r.descriptor(n.region, n.instance)
	if !ok {
		return nil
	}
	known := keys.RosterChanges(d)
	if n.from >= uint64(len(known)) {
		return nil
	}
	known = known[n.from:min(uint64(len(known)), n.to)]
	var out []approval.Change
	left := maxChangeBytes
	for _, c := range known {
		var w wire.Writer
		keyops.EncodeChange(&w, c)
		if left -= len(w.Out()); len(out) > 0 && left < 0 || len(out) == maxChanges {
			break
		}
		out = append(out, c)
	}
	return out
}

// keep believes changes that follow what is known here: each is approved by the roster
// before it, so it does not matter who shows them.
func (r *Replicator) keep(ctx context.Context, keys Keys, b rostersBody) error {
	d, ok := r.descriptor(b.need.region, b.need.instance)
	if !ok {
		return fmt.Errorf("%w: instance %s of Region %s", errNotPinned, b.need.instance, b.need.region)
	}
	known := keys.RosterChanges(d)
	if b.need.from > uint64(len(known)) {
		return fmt.Errorf("%w: changes after version %d of Region %s", mrk.ErrRosterUnknown, b.need.from, d.Region)
	}
	return keys.KeepRoster(ctx, d, append(known[:b.need.from:b.need.from], b.changes...))
}

// askRoster asks the peer, who has shown what unknown operators approved, who they are.
func (p *peer) askRoster(ctx context.Context, keys Keys, n rosterNeed) error {
	reply, err := p.exchange(ctx, kindRosters, "", rostersBody{need: n}.marshal())
	if err != nil {
		return err
	}
	b, err := parseRosters(reply.body)
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if b.need != n || len(b.changes) == 0 {
		return fmt.Errorf("%w: %s shows a promotion, and not who approved it", &mrk.RosterUnknownError{Region: n.region, Instance: n.instance, Version: n.to}, p.pin.Region)
	}
	return p.r.keep(ctx, keys, b)
}

// showRoster shows the peer who approved what it cannot believe yet. It reports whether
// there was something to show.
func (p *peer) showRoster(ctx context.Context, keys Keys, n rosterNeed) (shown bool, err error) {
	changes := p.r.show(keys, n)
	if len(changes) == 0 {
		return false, nil
	}
	_, err = p.exchange(ctx, kindRosters, "", rostersBody{n, changes}.marshal())
	return err == nil, err
}

// answerRosters keeps what the peer shows, and shows what it asks for.
func (r *Replicator) answerRosters(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	b, err := parseRosters(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	if len(b.changes) == 0 {
		return rostersBody{b.need, r.show(keys, b.need)}.marshal(), nil
	}
	if err := r.keep(ctx, keys, b); err != nil {
		alarm := p.log.WithError(err).WithField("of", b.need.region)
		switch {
		case errors.Is(err, region.ErrRosterFork):
			alarm.Error("ALARM: some operators have approved two rosters of one version")
		case errors.Is(err, approval.ErrRoster), errors.Is(err, errNotPinned), errors.Is(err, mrk.ErrRosterUnknown):
			alarm.Warn("a peer shows changes of a roster that do not follow")
		default:
			return nil, err // the store's fault, which passes
		}
	}
	return rostersBody{need: b.need}.marshal(), nil
}
