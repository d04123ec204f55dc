package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/keyops"
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
	// Principals are the rules that name the principal of a verified client certificate, in
	// order; the first that fits decides. A certificate that none fits is Unauthenticated, so
	// without rules nobody enters.
	Principals []Rule

	// Keys is the one door to keys. Required.
	Keys keyops.Operations
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

	// Limits bound what clients can occupy.
	Limits Limits
	// DrainTimeout is how long Serve lets calls in flight finish when it stops. Default: 20 s.
	DrainTimeout time.Duration
}

// TLSFiles names PEM files. They are read once, by New.
type TLSFiles struct {
	// Certificate is the server's certificate chain, leaf first. Required.
	Certificate string
	// Key is the certificate's private key; the file must not be open to others. Required.
	Key string
	// ClientCA holds the certificates of the authorities that issue client certificates. Required.
	ClientCA string
}

// Limits bound what clients can occupy. Sizes and deadlines of calls are per method, in the
// table of methods.go.
type Limits struct {
	// MaxConnections is how many connections each listener has at once; more wait to be
	// accepted. Default: 1000.
	MaxConnections int
	// MaxConcurrentStreams is how many calls one gRPC connection has at once. Default: 100.
	MaxConcurrentStreams uint32
	// HandshakeTimeout is how long a new connection may take to authenticate, and a REST
	// client to send its headers. Default: 10 s.
	HandshakeTimeout time.Duration
	// IdleTimeout closes a connection without calls. Default: 5 min.
	IdleTimeout time.Duration
	// MaxConnectionAge closes a gRPC connection however busy, once its calls have finished,
	// so that certificates are looked at again. Default: 1 h.
	MaxConnectionAge time.Duration
	// StreamWorkers is how many goroutines serve gRPC calls without being started for each.
	// Default: 0, a goroutine for each call.
	StreamWorkers uint32
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
	need(c.Keys != nil, "Keys")
	need(c.Health != nil, "Health")

	for field, value := range map[string]int64{
		"DrainTimeout":            int64(c.DrainTimeout),
		"Limits.MaxConnections":   int64(c.Limits.MaxConnections),
		"Limits.HandshakeTimeout": int64(c.Limits.HandshakeTimeout),
		"Limits.IdleTimeout":      int64(c.Limits.IdleTimeout),
		"Limits.MaxConnectionAge": int64(c.Limits.MaxConnectionAge),
	} {
		if value < 0 {
			mistakes = append(mistakes, fmt.Errorf("gateway: %s is negative", field))
		}
	}

	orDefault(&c.Version, "unknown")
	orDefault(&c.DrainTimeout, 20*time.Second)
	orDefault(&c.Limits.MaxConnections, 1000)
	orDefault(&c.Limits.MaxConcurrentStreams, 100)
	orDefault(&c.Limits.HandshakeTimeout, 10*time.Second)
	orDefault(&c.Limits.IdleTimeout, 5*time.Minute)
	orDefault(&c.Limits.MaxConnectionAge, time.Hour)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = silent
	}
	return c, errors.Join(mistakes...)
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
