package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyferry/keyferry/gateway/alarm"
)

// Sources are asked whenever somebody reads the metrics. Each answers from memory and at
// once. nil: there is nothing to show of it.
type Sources struct {
	Boundary    string // what the self-test of the token found
	Alarms      func() []alarm.Alarm
	Sessions    func() (inUse, total int) // of the token
	PKCS11      func() map[string]uint64  // calls of each function
	Quarantined func() int                // objects of the token that are not used
	Queue       func() (records, room int)
	Findings    func() int // rows of the store that do not hold
	Keys        func() int
	Connections func() map[string]int // by listener
	Peers       func() []Peer
}

// Peer is how the replication to one Region stands.
type Peer struct {
	Region       string
	Connected    bool
	LastExchange time.Time     // zero: none since the start
	Unconfirmed  int           // keys of which it has not confirmed the newest facts
	Lag          time.Duration // since the oldest of these changed
	Failed       int           // of these, those whose last try failed
}

// watched shows Sources.
type watched struct{ Sources }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyferry_"+name, help, labels, nil)
}

var (
	boundary      = desc("boundary", "1, with the replication boundary that the token's self-test found.", "boundary")
	alarmRaised   = desc("alarms_total", "How often an alarm was raised since the start, once for each new cause.", "alarm")
	alarmStands   = desc("alarm", "1 while the alarm stands.", "alarm")
	sessionsUsed  = desc("token_sessions_in_use", "Sessions of the token that are working.")
	sessionsTotal = desc("token_sessions", "Sessions of the token; 0 while it is away.")
	pkcs11Calls   = desc("pkcs11_calls_total", "Calls of each PKCS#11 function.", "function")
	quarantined   = desc("token_quarantined_objects", "Objects in the token that are not what their role demands, and are not used.")
	queueRecords  = desc("audit_queue_records", "Audit records that wait for the disk.")
	queueRoom     = desc("audit_queue_limit", "Audit records that may wait; then calls are refused.")
	findings      = desc("store_findings", "Rows of the store that did not hold at the start; what they decide is refused.")
	keys          = desc("keys", "Keys in this Region, with those that wait for deletion.")
	connections   = desc("connections", "Open connections of clients.", "listener")
	peerUp        = desc("peer_connected", "1 while this Region is connected to the peer.", "peer")
	peerExchange  = desc("peer_last_exchange_timestamp_seconds", "When the last exchange with the peer ended, in Unix time; absent before the first.", "peer")
	peerMarks     = desc("peer_unconfirmed_keys", "Keys of which the peer has not confirmed the newest facts.", "peer")
	peerFailed    = desc("peer_failed_keys", "Of these, keys whose last try failed.", "peer")
	peerLag       = desc("peer_lag_seconds", "For how long the oldest of these has been waiting; 0 if there is none.", "peer")
)

// Describe sends what Collect may send.
func (w *watched) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		boundary, alarmRaised, alarmStands, sessionsUsed, sessionsTotal, pkcs11Calls, quarantined, queueRecords, queueRoom,
		findings, keys, connections, peerUp, peerExchange, peerMarks, peerFailed, peerLag,
	} {
		ch <- d
	}
}

// Collect asks the sources.
func (w *watched) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	if w.Boundary != "" {
		gauge(boundary, 1, w.Boundary)
	}
	if w.Alarms != nil {
		for _, a := range w.Alarms() {
			counter(alarmRaised, a.Count, a.Name)
			gauge(alarmStands, bit(a.Cause != nil), a.Name)
		}
	}
	if w.Sessions != nil {
		used, total := w.Sessions()
		gauge(sessionsUsed, float64(used))
		gauge(sessionsTotal, float64(total))
	}
	if w.PKCS11 != nil {
		for function, n := range w.PKCS11() {
			counter(pkcs11Calls, n, function)
		}
	}
	if w.Queue != nil {
		records, room := w.Queue()
		gauge(queueRecords, float64(records))
		gauge(queueRoom, float64(room))
	}
	for _, one := range []struct {
		d     *prometheus.Desc
		count func() int
	}{{quarantined, w.Quarantined}, {findings, w.Findings}, {keys, w.Keys}} {
		if one.count != nil {
			gauge(one.d, float64(one.count()))
		}
	}
	if w.Connections != nil {
		for listener, n := range w.Connections() {
			gauge(connections, float64(n), listener)
		}
	}
	if w.Peers == nil {
		return
	}
	for _, p := range w.Peers() {
		gauge(peerUp, bit(p.Connected), p.Region)
		if !p.LastExchange.IsZero() {
			gauge(peerExchange, float64(p.LastExchange.UnixMilli())/1000, p.Region)
		}
		gauge(peerMarks, float64(p.Unconfirmed), p.Region)
		gauge(peerFailed, float64(p.Failed), p.Region)
		gauge(peerLag, p.Lag.Seconds(), p.Region)
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
