package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/replication/message"

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
	if name != r.self.Region {
		d, ok = r.Peer(name)
	}
	return d, ok && d.Instance == instance
}

// need returns which roster has to be shown before what an error is about can be believed.
func (r *Replicator) need(keys Keys, err error) message.RosterNeed {
	var unknown *mrk.RosterUnknownError
	if !errors.As(err, &unknown) {
		return message.RosterNeed{}
	}
	d, ok := r.descriptor(unknown.Region, unknown.Instance)
	if !ok {
		return message.RosterNeed{}
	}
	n := message.RosterNeed{Region: d.Region, Instance: d.Instance, From: uint64(len(keys.RosterChanges(d))), To: unknown.Version}
	if n.From >= n.To {
		return message.RosterNeed{}
	}
	return n
}

// show returns the changes that are asked for, as far as they are known here and fit.
func (r *Replicator) show(keys Keys, n message.RosterNeed) []approval.Change {
	d, ok := r.descriptor(n.Region, n.Instance)
	if !ok {
		return nil
	}
	known := keys.RosterChanges(d)
	if n.From >= uint64(len(known)) {
		return nil
	}
	known = known[n.From:min(uint64(len(known)), n.To)]
	var out []approval.Change
	left := message.MaxChangeBytes
	for _, c := range known {
		var w wire.Writer
		keyops.EncodeChange(&w, c)
		if left -= len(w.Out()); len(out) > 0 && left < 0 || len(out) == message.MaxChanges {
			break
		}
		out = append(out, c)
	}
	return out
}

// keep believes changes that follow what is known here: each is approved by the roster
// before it, so it does not matter who shows them.
func (r *Replicator) keep(ctx context.Context, keys Keys, b message.Rosters) error {
	d, ok := r.descriptor(b.Need.Region, b.Need.Instance)
	if !ok {
		return fmt.Errorf("%w: instance %s of Region %s", errNotPinned, b.Need.Instance, b.Need.Region)
	}
	known := keys.RosterChanges(d)
	if b.Need.From > uint64(len(known)) {
		return fmt.Errorf("%w: changes after version %d of Region %s", mrk.ErrRosterUnknown, b.Need.From, d.Region)
	}
	return keys.KeepRoster(ctx, d, append(known[:b.Need.From:b.Need.From], b.Changes...))
}

// askRoster asks the peer, who has shown what unknown operators approved, who they are.
func (p *peer) askRoster(ctx context.Context, keys Keys, n message.RosterNeed) error {
	reply, err := p.exchange(ctx, message.KindRosters, "", message.Rosters{Need: n}.Marshal())
	if err != nil {
		return err
	}
	b, err := message.ParseRosters(reply.Body)
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if b.Need != n || len(b.Changes) == 0 {
		return fmt.Errorf("%w: %s shows a promotion, and not who approved it", &mrk.RosterUnknownError{Region: n.Region, Instance: n.Instance, Version: n.To}, p.pin.Region)
	}
	return p.r.keep(ctx, keys, b)
}

// showRoster shows the peer who approved what it cannot believe yet. It reports whether
// there was something to show.
func (p *peer) showRoster(ctx context.Context, keys Keys, n message.RosterNeed) (shown bool, err error) {
	changes := p.r.show(keys, n)
	if len(changes) == 0 {
		return false, nil
	}
	_, err = p.exchange(ctx, message.KindRosters, "", message.Rosters{Need: n, Changes: changes}.Marshal())
	return err == nil, err
}

// answerRosters keeps what the peer shows, and shows what it asks for.
func (r *Replicator) answerRosters(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	b, err := message.ParseRosters(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	if len(b.Changes) == 0 {
		return message.Rosters{Need: b.Need, Changes: r.show(keys, b.Need)}.Marshal(), nil
	}
	if err := r.keep(ctx, keys, b); err != nil {
		alarm := p.log.WithError(err).WithField("of", b.Need.Region)
		switch {
		case errors.Is(err, region.ErrRosterFork):
			alarm.Error("ALARM: some operators have approved two rosters of one version")
		case errors.Is(err, approval.ErrRoster), errors.Is(err, errNotPinned), errors.Is(err, mrk.ErrRosterUnknown):
			alarm.Warn("a peer shows changes of a roster that do not follow")
		default:
			return nil, err // the store's fault, which passes
		}
	}
	return message.Rosters{Need: b.Need}.Marshal(), nil
}
