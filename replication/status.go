package replication

import (
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Statuses of a (key, Region) pair, as this Region knows it.
const (
	StatusPending      = "PENDING"      // not tried yet, or nothing heard of the replica yet
	StatusInProgress   = "IN_PROGRESS"  // under way
	StatusSynchronized = "SYNCHRONIZED" // has confirmed everything, and is active
	StatusFailed       = "FAILED"       // the last try failed; it is tried again
	StatusSuspended    = "SUSPENDED"    // not waited for, by operators' decision
)

// RegionStatus is what is known here of one member of a multi-Region key.
type RegionStatus struct {
	Region           region.Name
	KeyState         string // as the member last reported it; Creating while one that is being made has not
	Status           string
	Cause            string // of the last failure, if FAILED
	Text             string
	Attempts         int // failures in a row
	NextTry          time.Time
	LagFacts         int           // facts and materials that the member has not confirmed
	Lag              time.Duration // since when
	LastSynchronized time.Time     // zero if it never was
	Held             []string      // material IDs
}

// PeerStatus is how the connection to one peer stands.
type PeerStatus struct {
	Region         region.Name
	Instance       region.InstanceID
	Fingerprint    string
	Address        string
	Connected      time.Time // since when; zero while not connected
	LastExchange   time.Time // begun by either end
	LastError      string
	Unconfirmed    int       // keys of which the peer has not confirmed the newest facts
	Clock          Clock     // the peer's, against this Region's
	CertifiedUntil time.Time // of the TLS key that the peer has shown last; zero before it has
}

// Status returns a row for each Region that has or is to have the key, ordered by Region.
// It answers from memory.
func (r *Replicator) Status(id arn.KeyID) []RegionStatus {
	keys, err := r.running()
	if err != nil {
		return nil
	}
	k, err := keys.SharedKey(id)
	if err != nil {
		return nil
	}
	var rows []RegionStatus
	for _, m := range k.Set.Members() {
		rows = append(rows, r.status(keys, k, m))
	}
	return rows
}

func (r *Replicator) status(keys Keys, k *keyops.Key, m mrk.MemberView) RegionStatus {
	row := RegionStatus{Region: m.Region, Status: StatusInProgress}
	fresh := m.Fact != nil && m.Fact.Incarnation == m.Incarnation && m.Fact.Instance == m.Instance
	if !fresh && m.Status == mrk.Joining {
		row.KeyState = string(keystate.Creating)
	}
	if fresh {
		row.KeyState = m.Fact.KeyState
		for _, id := range m.Fact.Held {
			row.Held = append(row.Held, id.String())
		}
	}
	mark, marked := keys.Mark(k.ID, m.Region)
	p := r.peers[m.Region]
	proven := m.Status == mrk.Active && fresh && lacking(k.Set, m) == 0
	switch {
	case m.Region == r.self.Region && proven, p != nil && proven && !marked:
		row.Status = StatusSynchronized
	case !fresh:
		row.Status = StatusPending
	}
	if m.Region == r.self.Region && k.PolicyLost() {
		row.Status, row.Cause, row.Text = StatusFailed, string(mrk.CausePolicyLost), "the store comes from a backup of before the key: put a key policy, then enable the key"
	}
	if m.Region == r.self.Region || p == nil {
		return row
	}
	if text, ok := unlisted(k.Set, m); ok {
		row.Status, row.Cause, row.Text = StatusFailed, string(mrk.CauseMaterialMismatch), text
	}
	if row.Status != StatusSynchronized && p.apart(keys) {
		row.Status, row.Cause = StatusFailed, string(mrk.CauseReplicaFrozen)
		row.Text = "this instance and that of the Region were disassociated, and nothing goes from one to the other any more: evict the replica"
	}
	p.describe(&row, k.ID)
	now := r.cfg.Clock()
	if marked {
		row.Lag = max(now.Sub(mark.Since), 0)
		row.LagFacts = lacking(k.Set, m)
		if fresh {
			row.LastSynchronized = mark.Since // everything before was confirmed
		}
		if mark.Attempts > 0 && mark.Cause != "" && row.Status != StatusFailed && !p.trying(k.ID) {
			row.Status, row.Cause, row.Text = StatusFailed, string(mark.Cause), mark.Text
		}
		if row.Status == StatusFailed {
			row.Attempts = max(row.Attempts, int(mark.Attempts))
			if mark.NextTry.After(row.NextTry) {
				row.NextTry = mark.NextTry
			}
		}
	} else if row.Status == StatusSynchronized && row.LastSynchronized.IsZero() {
		row.LastSynchronized = p.r.LastContact(m.Region)
	}
	if f := k.Set.Frozen(); f != nil {
		row.Status, row.Cause, row.Text = StatusFailed, string(f.Cause), "contradictory facts of "+string(f.Writer)
	}
	if m.Status == mrk.Suspended {
		row.Status = StatusSuspended
	}
	return row
}

// describe adds what the peer's connection says.
func (p *peer) describe(row *RegionStatus, id arn.KeyID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	row.LastSynchronized = p.settled[id]
	if why, ok := p.unsettled[id]; ok {
		row.Status, row.Cause, row.Text = StatusFailed, string(why.cause), why.text
	}
	if p.failures > 0 && row.Status != StatusSynchronized {
		row.Status, row.Cause, row.Text = StatusFailed, string(p.lastCause), p.lastError
		row.Attempts, row.NextTry = int(p.failures), p.retryAt
	}
	if p.busy[id] && row.Status != StatusSynchronized {
		row.Status = StatusInProgress
	}
}

// trying reports whether the key is being exchanged with the peer now.
func (p *peer) trying(id arn.KeyID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy[id]
}

// lacking counts what a member has not confirmed: states after the one that it follows, and
// materials that are listed and that it does not hold.
func lacking(s *mrk.Set, m mrk.MemberView) int {
	st := s.State()
	n := 0
	if m.Fact == nil || m.Fact.Incarnation != m.Incarnation || m.Fact.Joined != st.Epoch {
		n = 1
	} else if st.Seq > m.Fact.Seq {
		n = int(st.Seq - m.Fact.Seq)
	}
	if st.Origin == string(keyops.OriginExternal) {
		return n
	}
	for _, l := range st.Materials {
		if !l.WrittenOff && (m.Fact == nil || !m.Fact.Holds(l.ID)) {
			n++
		}
	}
	return n
}

// unlisted says that a member has used a material which no state lists that counts here, and
// what to do. Nobody takes it in on the member's word.
func unlisted(s *mrk.Set, m mrk.MemberView) (text string, ok bool) {
	if m.Fact == nil || m.Fact.Incarnation != m.Incarnation {
		return "", false
	}
	imported := s.Orphans()
	for _, id := range m.Fact.Used {
		if slices.Contains(imported, id) {
			return "has used imported key material " + id.String() + ", which is listed no more: import the same bytes where the primary key is, as existing key material, and then in every Region that waits for them", true
		}
		if _, known := s.Known(id); !known && m.Status != mrk.Active {
			return "has encrypted with key material " + id.String() + ", which a restored backup has made the others forget: promote the key of that Region, so that it is listed again", true
		}
	}
	return "", false
}

// Peers returns a row for each peer, ordered by Region. It answers from memory.
func (r *Replicator) Peers() []PeerStatus {
	unconfirmed := map[region.Name]int{}
	if keys, err := r.running(); err == nil {
		for _, m := range keys.Marks() {
			unconfirmed[m.Peer]++
		}
	}
	var rows []PeerStatus
	for _, name := range r.names() {
		rows = append(rows, r.peers[name].status(unconfirmed[name]))
	}
	return rows
}

func (p *peer) status(unconfirmed int) PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PeerStatus{
		Region: p.pin.Region, Instance: p.pin.Instance, Fingerprint: p.shown, Address: p.where,
		Connected: p.connected, LastExchange: p.lastExchange, LastError: p.lastError, Unconfirmed: unconfirmed, Clock: p.clock,
		CertifiedUntil: p.certifiedUntil,
	}
}
