package gateway

import (
	"strings"
	"time"

	"google.golang.org/grpc/status"
)

// Observer is told of every call, for metrics. It is asked on the path of the call, so its
// methods return at once, and may be called by several goroutines. What it is told is a name
// of the table of methods, a code, a class: nothing that a client chose.
type Observer interface {
	// Began says that a call has arrived; one Ended follows.
	Began()
	// Ended says that a call has been answered. method is "unknown" if it is not served.
	Ended(method, code string, took time.Duration)
	// Throttled says that a limit refused a call: of a principal, an account or the server.
	Throttled(class, limit string)
}

// unobserved is the Observer of a Server that has none.
type unobserved struct{}

func (unobserved) Began()                              {}
func (unobserved) Ended(string, string, time.Duration) {}
func (unobserved) Throttled(string, string)            {}

// unknownMethod is the name of all methods that are not served. A client could make up any
// number of them.
const unknownMethod = "unknown"

// observed tells the observer how the call ended.
func (c *call) observed(err error) {
	name := unknownMethod
	if _, ok := c.server.methods[c.name]; ok {
		name = strings.TrimPrefix(c.name, "/")
	}
	c.server.config.Observer.Ended(name, status.Code(err).String(), time.Since(c.started))
}

// Connections is how many connections clients have open, by listener.
func (s *Server) Connections() map[string]int {
	open := map[string]int{"grpc": s.grpcListener.(*sharedListener).count()}
	if s.restListener != nil {
		open["rest"] = s.restListener.(*sharedListener).count()
	}
	return open
}

func (l *sharedListener) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, open := range l.open {
		n += open
	}
	return n
}
