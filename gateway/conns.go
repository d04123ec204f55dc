package gateway

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/net/netutil"
)

// listen takes a port. At most total connections are open at once, more wait to be accepted;
// those beyond one address's share are closed at once, so that one host cannot keep the
// others out.
func listen(address string, total, perAddress int) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	return &sharedListener{Listener: netutil.LimitListener(l, total), share: perAddress, open: map[string]int{}}, nil
}

// sharedListener counts connections by the host that they come from.
type sharedListener struct {
	net.Listener
	share int

	mu   sync.Mutex
	open map[string]int // guarded by mu; hosts without connections are not in it
}

// Accept returns the next connection of a host that has not used up its share.
func (l *sharedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host := hostOf(conn.RemoteAddr().String())
		if l.take(host) {
			return &sharedConn{Conn: conn, give: sync.OnceFunc(func() { l.give(host) })}, nil
		}
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return nil, err
		}
	}
}

func (l *sharedListener) take(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[host] >= l.share {
		return false
	}
	l.open[host]++
	return true
}

func (l *sharedListener) give(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[host]--; l.open[host] == 0 {
		delete(l.open, host)
	}
}

// sharedConn gives back its place when it is closed.
type sharedConn struct {
	net.Conn
	give func()
}

// Close closes the connection.
func (c *sharedConn) Close() error {
	defer c.give()
	return c.Conn.Close()
}

// hostOf returns the host of host:port.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
