package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
)

const ForwardedKey = forwardedKey

// GRPC is the server behind both listeners.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// DialInside returns a connection that the server takes for REST's.
func (s *Server) DialInside() *grpc.ClientConn { return s.toInside }

// NewInsideConn makes a connection of the type that proves it is REST's.
func NewInsideConn(c net.Conn) net.Conn { return inProcessConn{c} }

// ServerCredentials are those of the gRPC server.
func ServerCredentials(c *tls.Config) credentials.TransportCredentials {
	return newServerCredentials(c)
}

// ForwardedIdentity encodes what REST forwards.
func ForwardedIdentity(leaf []byte, remote, requestID string) string {
	return forwarded{leaf: leaf, remoteAddr: remote, requestID: requestID}.marshal()
}

// Map applies rules to a certificate.
func Map(rules []Rule, leaf *x509.Certificate) (arn.Principal, bool, error) {
	m, err := compile(rules, Rule.compile)
	if err != nil {
		return arn.Principal{}, false, err
	}
	p, _, err := m.principal(leaf)
	return p, err == nil, nil
}

// MethodRow is a row of the table, for comparison with others' tables.
type MethodRow struct {
	Action, Resource, Audit, Class string
	MaxBytes                       int
	Bounded                        bool
}

// MethodRows returns the table by full method name.
func MethodRows() map[string]MethodRow {
	out := map[string]MethodRow{}
	for name, m := range methods {
		out[name] = MethodRow{m.action, string(m.resource), string(m.audit), string(m.class), m.maxBytes, m.timeout > 0}
	}
	return out
}

// ReasonCodes returns the mapping of errors.
func ReasonCodes() map[keyops.Reason]codes.Code { return reasonCodes }

// Route is one HTTP method and path of an RPC.
type Route struct {
	Verb, Pattern, Method string
	Body                  bool
	Input                 protoreflect.MessageDescriptor
}

// Routes returns every route of the API.
func Routes() ([]Route, error) {
	all, err := routes()
	var out []Route
	for _, r := range all {
		out = append(out, Route{r.verb, r.pattern, r.name, r.body, r.input})
	}
	return out, err
}

// OwnReasons are the reasons of the gateway's own refusals.
const OwnReasons = reasonNoCredential + " " + reasonNobody + " " + reasonNoOperation + " " + reasonForm + " " +
	reasonTooLarge + " " + reasonMediaType + " " + reasonUnavailable + " " + reasonCanceled

var UnmarshalStrict = unmarshalStrict

// CompileClaimRule checks a rule.
func CompileClaimRule(r ClaimRule) error {
	_, err := r.compile()
	return err
}

// MaxBuckets is how many buckets a throttle keeps.
const MaxBuckets = maxBuckets

// Throttle holds calls to rates.
type Throttle struct{ t *throttle }

// NewThrottle makes one.
func NewThrottle(r Rates, now func() time.Time) Throttle { return Throttle{newThrottle(r, now)} }

// Admit lets one call in, or not.
func (t Throttle) Admit(c string, p arn.Principal) error { return t.t.admit(class(c), p) }

// Buckets is how many are kept.
func (t Throttle) Buckets() int { return len(t.t.buckets) }

// ConnectionsOf counts the open connections of a host.
func (s *Server) ConnectionsOf(host string) (n int) {
	for _, l := range []net.Listener{s.grpcListener, s.restListener} {
		shared := l.(*sharedListener)
		shared.mu.Lock()
		n += shared.open[host]
		shared.mu.Unlock()
	}
	return n
}

// IdentityRefusals are the messages with which a credential is refused, but for those of
// package bearer and the one to attackers.
func IdentityRefusals() (out []string) {
	for _, r := range []*refusal{errNoCredential, errNoBearer, errNoToken, errTwoCredentials, errExpired, errRevoked, errStaleList, errDistrusted, errNoRule} {
		out = append(out, r.message)
	}
	return out
}

// Shorten makes every call that has an end have it soon, and requests that wait for one.
func (s *Server) Shorten(d time.Duration) {
	s.rest.ReadTimeout -= quick - d
	s.methods = maps.Clone(s.methods)
	for name, row := range s.methods {
		if row.timeout > 0 {
			row.timeout = d
			s.methods[name] = row
		}
	}
}

// InFlight is how many calls, and streams that stay, hold a place.
func (s *Server) InFlight() (calls, streams int) {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	return s.slots.open[false], s.slots.open[true]
}

// Slots bounds calls in flight.
type Slots struct{ s *slots }

// NewSlots makes them.
func NewSlots(l Limits) Slots { return Slots{newSlots(l)} }

// Take takes a place.
func (s Slots) Take(stays bool) error { return s.s.take(stays) }

// Give gives it back.
func (s Slots) Give(stays bool) { s.s.give(stays) }

// TakeShare takes a principal's place.
func (s Slots) TakeShare(p arn.Principal) (func(), error) { return s.s.takeShare(p) }

// Principals is how many have calls in flight.
func (s Slots) Principals() int { return len(s.s.of) }

// Tally counts refused calls.
type Tally struct{ t *tally }

// MaxTallied is how many principals it tells apart.
const MaxTallied = maxTallied

// NewTally makes one.
func NewTally(now func() time.Time) Tally { return Tally{newTally(now)} }

// Add counts one call.
func (t Tally) Add(c keyops.Caller, method string) { t.t.add(c, method) }

// Take returns what was counted.
func (t Tally) Take() map[arn.Principal]*keyops.ThrottledCalls { return t.t.take() }
