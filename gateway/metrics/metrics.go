// Package metrics counts and measures what one daemon does, and shows it to Prometheus.
//
// Only what is measured is shown. Labels have few values, all of them this program's own or
// the operator's: methods, codes, names of alarms and of peer Regions. No key, principal,
// address or request ever becomes a label, since whoever reads metrics need not be allowed to
// know who uses which key, and since clients could make up any number of them. The table of
// docs/metrics.md is compared with the registry by a test.
//
// Trust: the listener asks nobody who they are, so it belongs on a loopback address, or
// behind something that does (listen.go). A Metrics may be used by several goroutines at once;
// nothing in it is durable.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// buckets span a software token's tenth of a millisecond and a call that asks another Region.
var buckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60}

// Build is which program runs where.
type Build struct {
	Version, Region string
}

// Metrics are those of one daemon.
type Metrics struct {
	registry *prometheus.Registry

	calls     *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	inFlight  prometheus.Gauge
	throttled *prometheus.CounterVec
	token     *prometheus.HistogramVec
	failures  *prometheus.CounterVec
}

// New returns metrics that nobody has added to.
func New(b Build) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyferry_calls_total", Help: "Calls of clients that have ended, by method and gRPC code."},
			[]string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyferry_call_duration_seconds", Help: "Time from a call's arrival to its answer.", Buckets: buckets},
			[]string{"method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keyferry_calls_in_flight", Help: "Calls of clients that have not been answered."}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyferry_calls_throttled_total", Help: "Calls refused by a limit, by the class of call and by whose limit it was."},
			[]string{"class", "limit"}),
		token: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyferry_token_duration_seconds", Help: "Time of an operation in the token, with the wait for a session.", Buckets: buckets},
			[]string{"operation"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyferry_token_failures_total", Help: "Operations in the token that failed, those that a client's data caused included."},
			[]string{"operation"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "keyferry_build_info", Help: "1, with what runs here."}, []string{"version", "region"})
	build.WithLabelValues(b.Version, b.Region).Set(1)
	m.registry.MustRegister(build, m.calls, m.duration, m.inFlight, m.throttled, m.token, m.failures,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Began counts a call that has arrived. Each is followed by one Ended.
func (m *Metrics) Began() { m.inFlight.Inc() }

// Ended counts a call that has been answered. method is a name of the table of methods, or
// "unknown", never what a client sent.
func (m *Metrics) Ended(method, code string, took time.Duration) {
	m.inFlight.Dec()
	m.calls.WithLabelValues(method, code).Inc()
	m.duration.WithLabelValues(method).Observe(took.Seconds())
}

// Throttled counts a call that a limit refused.
func (m *Metrics) Throttled(class, limit string) { m.throttled.WithLabelValues(class, limit).Inc() }

// Token counts an operation of the token.
func (m *Metrics) Token(operation string, took time.Duration, err error) {
	m.token.WithLabelValues(operation).Observe(took.Seconds())
	if err != nil {
		m.failures.WithLabelValues(operation).Inc()
	}
}

// Watch adds what is looked up whenever somebody reads the metrics. It is called once.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(&watched{s}) }

// Handler answers every request with all metrics. How many answers are made at once is
// bounded, since each walks over what it shows.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: scrapeTimeout})
}
