package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/gateway/reload"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/region"
)

// Config is what a Server is made of. A zero value in a field that names a default means
// that default.
type Config struct {
	// GRPCAddress is where gRPC is served, host and port. Port 0 takes a free one. Required.
	GRPCAddress string
	// RESTAddress is where REST is served. Empty: no REST.
	RESTAddress string
	// TLS names the files of both listeners' certificate and of the clients' authority. Required.
	TLS TLSFiles
	// Files keeps what is made of the files of TLS and Bearer current; somebody has to run it.
	// nil: they are read once, by New.
	Files *reload.Watcher
	// Principals are the rules that name the principal of a verified client certificate, in
	// order; the first that fits decides. A certificate that none fits is Unauthenticated, so
	// without rules nobody enters.
	Principals []Rule

	// Bearer says whose bearer tokens are taken from clients without a certificate. nil: nobody's,
	// and gRPC clients need a certificate to connect.
	Bearer *Bearer

	// Region is the name of the Region that is served. Required.
	Region region.Name
	// Keys is the one door to keys. Required.
	Keys keyops.Operations
	// Doctor answers GetRegionHealth; nil says nothing.
	Doctor func(context.Context) []HealthCheck
	// Replication answers ListReplicas and ListPeers. nil in a deployment of one Region.
	Replication Replication
	// Health uses the token, as a health check must. Its result is kept for a second. Required.
	Health func(context.Context) error
	// Version is the software's version, for DescribeRegion. Default: "unknown".
	Version string
	// Log receives one entry per call, without payload. nil: no log.
	Log logrus.FieldLogger
	// Now is the clock that judges a certificate's dates during a connection, and the age of a
	// health check. nil: time.Now.
	Now func() time.Time

	// Observer is told of every call. nil: nobody is.
	Observer Observer
	// RecordThrottled writes calls that limits refused to the audit log, some of one principal
	// together. nil: nobody does.
	RecordThrottled func(context.Context, keyops.ThrottledCalls) error

	// Limits bound what clients can occupy.
	Limits Limits
	// DrainTimeout is how long Serve lets calls in flight finish when it stops. Default: 20 s.
	DrainTimeout time.Duration
}

// TLSFiles names PEM files.
type TLSFiles struct {
	// Certificate is the server's certificate chain, leaf first. Required.
	Certificate string
	// Key is the certificate's private key; the file must not be open to others. Required.
	Key string
	// ClientCA holds the certificates of the authorities that issue client certificates. Required.
	ClientCA string
	// CRLs holds revocation lists of these authorities, PEM or DER, at most one of each. A
	// certificate of an authority without a list is taken until it expires.
	CRLs []string
	// CRLGrace is how long after its next update was due a list still counts. Later, no
	// certificate of its authority is taken: who holds back a list must not hold back
	// revocations. Default: 0.
	CRLGrace time.Duration
}

// Bearer says whose bearer tokens are taken, and as whom.
type Bearer struct {
	// Config says whose tokens are taken. Its Now is that of the Server.
	bearer.Config
	// Principals are the rules that name the principal of a verified token, in order; the first
	// that fits decides. A token that none fits is Unauthenticated.
	Principals []ClaimRule
}

// Limits bound what clients can occupy. Sizes and deadlines of calls are per method, in the
// table of methods.go.
type Limits struct {
	// MaxConnections is how many connections each listener has at once; more wait to be
	// accepted. Default: 1000.
	MaxConnections int
	// MaxConnectionsPerAddress is how many of them may come from one address; more are closed
	// at once. Default: half of MaxConnections.
	MaxConnectionsPerAddress int
	// MaxConcurrentStreams is how many calls one connection has at once. Default: 100.
	MaxConcurrentStreams uint32
	// MaxCalls is how many calls of both listeners are in flight at once. More are refused, but
	// for probes. Streams that stay open, such as a watch of health, are not counted: there are
	// at most MaxConnections of them. Default: 2000.
	MaxCalls int
	// MaxCallsPerPrincipal is how many of them one principal has. Default: half of MaxCalls.
	MaxCallsPerPrincipal int
	// HandshakeTimeout is how long a new connection may take to authenticate, and a REST
	// client to send its headers. Default: 10 s.
	HandshakeTimeout time.Duration
	// IdleTimeout closes a connection without calls. Default: 5 min.
	IdleTimeout time.Duration
	// MaxConnectionAge closes a gRPC connection however busy, once its calls have finished,
	// so that certificates are looked at again. Default: 1 h.
	MaxConnectionAge time.Duration
	// Rates bound how often calls are served.
	Rates Rates
	// StreamWorkers is how many goroutines serve gRPC calls without being started for each.
	// Default: 0, a goroutine for each call.
	StreamWorkers uint32
}

// Rates bound, by rate class (methods.go), how often calls are served in this Region. What
// one second allows may come at once.
type Rates struct {
	// Crypto is for use of keys. Default: 20,000 of an account, 10,000 of a principal.
	Crypto Rate
	// Read is for questions. Default: 2,000 and 1,000.
	Read Rate
	// Manage is for what changes keys and aliases. Default: 200 and 100.
	Manage Rate
}

// Rate is a number of calls per second.
type Rate struct {
	Account   int // of all principals of one account together
	Principal int // of one principal
}

// withDefaults checks what is required and fills in what is not.
func (c Config) withDefaults() (Config, error) {
	var mistakes []error
	need := func(present bool, field string) {
		if !present {
			mistakes = append(mistakes, fmt.Errorf("gateway: %s is required", field))
		}
	}
	need(c.GRPCAddress != "", "GRPCAddress")
	need(c.TLS.Certificate != "", "TLS.Certificate")
	need(c.TLS.Key != "", "TLS.Key")
	need(c.TLS.ClientCA != "", "TLS.ClientCA")
	need(c.Region != "", "Region")
	need(c.Keys != nil, "Keys")
	need(c.Health != nil, "Health")

	for field, value := range map[string]int64{
		"DrainTimeout":            int64(c.DrainTimeout),
		"TLS.CRLGrace":            int64(c.TLS.CRLGrace),
		"Limits.HandshakeTimeout": int64(c.Limits.HandshakeTimeout),
		"Limits.IdleTimeout":      int64(c.Limits.IdleTimeout),
		"Limits.MaxConnectionAge": int64(c.Limits.MaxConnectionAge),

		"Limits.MaxConnections":           int64(c.Limits.MaxConnections),
		"Limits.MaxConnectionsPerAddress": int64(c.Limits.MaxConnectionsPerAddress),
		"Limits.MaxCalls":                 int64(c.Limits.MaxCalls),
		"Limits.MaxCallsPerPrincipal":     int64(c.Limits.MaxCallsPerPrincipal),
		"Limits.Rates":                    int64(c.Limits.Rates.least()),
	} {
		if value < 0 {
			mistakes = append(mistakes, fmt.Errorf("gateway: %s is negative", field))
		}
	}

	orDefault(&c.Version, "unknown")
	orDefault(&c.DrainTimeout, 20*time.Second)
	orDefault(&c.Limits.MaxConnections, 1000)
	orDefault(&c.Limits.MaxConnectionsPerAddress, max(1, c.Limits.MaxConnections/2))
	orDefault(&c.Limits.MaxConcurrentStreams, 100)
	orDefault(&c.Limits.MaxCalls, 2000)
	orDefault(&c.Limits.MaxCallsPerPrincipal, max(1, c.Limits.MaxCalls/2))
	orDefault(&c.Limits.Rates.Crypto.Account, 20_000)
	orDefault(&c.Limits.Rates.Crypto.Principal, 10_000)
	orDefault(&c.Limits.Rates.Read.Account, 2_000)
	orDefault(&c.Limits.Rates.Read.Principal, 1_000)
	orDefault(&c.Limits.Rates.Manage.Account, 200)
	orDefault(&c.Limits.Rates.Manage.Principal, 100)
	orDefault(&c.Limits.HandshakeTimeout, 10*time.Second)
	orDefault(&c.Limits.IdleTimeout, 5*time.Minute)
	orDefault(&c.Limits.MaxConnectionAge, time.Hour)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	if c.RecordThrottled == nil {
		c.RecordThrottled = func(context.Context, keyops.ThrottledCalls) error { return nil }
	}
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = silent
	}
	if c.Files == nil {
		c.Files = reload.NewWatcher(c.Log, nil)
	}
	return c, errors.Join(mistakes...)
}

// least is the smallest of all rates.
func (r Rates) least() int {
	return min(r.Crypto.Account, r.Crypto.Principal, r.Read.Account, r.Read.Principal, r.Manage.Account, r.Manage.Principal)
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
