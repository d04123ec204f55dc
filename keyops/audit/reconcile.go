package audit

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
)

// Source is one Region's log, to be compared with other Regions' logs.
type Source struct {
	Region   region.Name
	Instance region.InstanceID
	FS       fs.FS
	Keys     []crypto.PublicKey // as for Verify
}

// Entry is where a log says something.
type Entry struct {
	Region    region.Name `json:"region"`
	Seq       uint64      `json:"seq"`
	Time      time.Time   `json:"time"`
	Event     string      `json:"event"`
	Outcome   Outcome     `json:"outcome"`
	Principal string      `json:"principal,omitempty"`
}

// Finding is one exchange between two Regions on which their logs do not agree.
type Finding struct {
	Exchange
	Status Status `json:"status"`
	Says   Entry  `json:"says"` // what one log says
	// Other is the Region whose log does not say its part; if Instead is there, it says this.
	Other   region.Name `json:"other"`
	Instead *Entry      `json:"instead,omitempty"`
}

// Status says what a finding means.
type Status string

const (
	Contradiction Status = "contradiction" // the other log should say its part, and does not
	InFlight      Status = "inFlight"      // it may still: it ends too early to tell
	Unknown       Status = "unknown"       // it was not given, or begins too late to tell
)

// Reconciliation is what several Regions' logs say of each other.
type Reconciliation struct {
	Logs     []Report
	Agree    int       // exchanges on which both logs agree
	Findings []Finding // ordered by time
}

// Count returns how many findings have a status.
func (r Reconciliation) Count(s Status) (n int) {
	for _, f := range r.Findings {
		if f.Status == s {
			n++
		}
	}
	return n
}

// Reconcile verifies logs of different Regions, and compares what they say of the exchanges
// between them. What one log says and the other lacks is in flight if the other one ends
// less than grace later, which also has to cover the difference of the Regions' clocks. The
// error is about logs that do not hold: from them nothing follows.
func Reconcile(sources []Source, grace time.Duration) (Reconciliation, error) {
	var r Reconciliation
	l := ledger{
		grace: grace, logs: map[region.Name]Report{}, exchanges: map[Exchange]*ends{},
		begun: map[Exchange]map[string]*Entry{}, arrived: map[Exchange]bool{},
	}
	for _, s := range sources {
		if _, twice := l.logs[s.Region]; twice {
			return r, fmt.Errorf("reconciling audit logs: two logs of Region %s", s.Region)
		}
		report, err := verify(s.FS, s.Keys, nil, l.enter)
		if err == nil && (report.Region != string(s.Region) || report.Instance != string(s.Instance)) {
			err = fmt.Errorf("it is that of instance %s in %s", report.Instance, report.Region)
		}
		if err != nil {
			return r, fmt.Errorf("reconciling audit logs: the log of instance %s in %s: %w", s.Instance, s.Region, err)
		}
		l.logs[s.Region] = report
		r.Logs = append(r.Logs, report)
	}
	if len(l.logs) < 2 {
		return r, errors.New("reconciling audit logs: one log agrees with itself, give at least two")
	}
	for x, e := range l.exchanges {
		switch f, ok := l.judge(x, e); {
		case ok:
			r.Findings = append(r.Findings, f)
		case e.source.sure() || e.destination.sure():
			r.Agree++
		}
	}
	slices.SortFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(a.Says.Time.Compare(b.Says.Time), cmp.Compare(a.Says.Region, b.Says.Region), cmp.Compare(a.Says.Seq, b.Says.Seq))
	})
	return r, nil
}

// ledger has what was read so far.
type ledger struct {
	grace     time.Duration
	logs      map[region.Name]Report
	exchanges map[Exchange]*ends
	// begun are calls without an end, by request ID, of exchanges without a destination: their
	// process may have died after it had let the change in, and before it said where to.
	begun map[Exchange]map[string]*Entry
	// arrived are materials that are in a destination, as exchanges without a source: what
	// one Region sends in vain another one may have brought.
	arrived map[Exchange]bool
}

// ends is what both Regions' logs say of one exchange; nil if nothing.
type ends struct{ source, destination *Entry }

// sure reports whether what an entry tells of has happened.
func (e *Entry) sure() bool { return e != nil && e.Outcome == Success }

// enter takes what a line says of an exchange. What has happened outweighs what was tried.
func (l *ledger) enter(text *line) error {
	x, atSource, ok := text.exchange()
	if !ok {
		return nil
	}
	at, err := time.Parse(timeFormat, text.Time)
	if err != nil {
		return err
	}
	entry := &Entry{
		Region: region.Name(text.Region), Seq: text.Seq, Time: at, Event: text.Event, Outcome: text.Outcome,
		Principal: cmp.Or(text.Principal, text.Details["claimedPrincipal"]),
	}
	if atSource && text.RequestID != "" {
		unsaid := x
		unsaid.Destination = ""
		if text.Outcome == Begun {
			if l.begun[unsaid] == nil {
				l.begun[unsaid] = map[string]*Entry{}
			}
			l.begun[unsaid][text.RequestID] = entry
			return nil
		}
		delete(l.begun[unsaid], text.RequestID)
	}
	if x.Destination == "" {
		return nil // failed before anybody knew where to
	}
	e := l.exchanges[x]
	if e == nil {
		e = &ends{}
		l.exchanges[x] = e
	}
	end := &e.destination
	if atSource {
		end = &e.source
	}
	if !(*end).sure() {
		*end = entry
	}
	if !atSource && entry.sure() {
		x.Source = ""
		l.arrived[x] = true
	}
	return nil
}

// begunFor returns a call without an end that may have begun the exchange.
func (l *ledger) begunFor(x Exchange) *Entry {
	x.Destination = ""
	for _, e := range l.begun[x] {
		return e
	}
	return nil
}

// elsewhere reports whether the destination has got the same from another Region.
func (l *ledger) elsewhere(x Exchange) bool {
	x.Source = ""
	return l.arrived[x]
}

// judge returns what is wrong with an exchange, if anything is.
func (l *ledger) judge(x Exchange, e *ends) (Finding, bool) {
	source, destination := e.source, e.destination
	if source == nil {
		source = l.begunFor(x)
	}
	switch {
	case source.sure() && destination == nil && !l.elsewhere(x):
		return Finding{x, l.excuse(x.Destination, source.Time), *source, x.Destination, nil}, true
	case destination.sure() && source == nil:
		return Finding{x, l.excuse(x.Source, destination.Time), *destination, x.Source, nil}, true
	case destination.sure() && (source.Outcome == Error || source.Principal != destination.Principal):
		return Finding{x, Contradiction, *destination, x.Source, source}, true
	}
	return Finding{}, false
}

// excuse says why a Region's log may lack its part of what happened at a time.
func (l *ledger) excuse(name region.Name, at time.Time) Status {
	r, given := l.logs[name]
	switch {
	case !given || r.FirstSeq > 1 && at.Add(-l.grace).Before(r.First):
		return Unknown
	case at.Add(l.grace).After(r.Newest):
		return InFlight
	}
	return Contradiction
}
