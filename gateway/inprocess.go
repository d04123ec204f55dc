package gateway

import (
	"context"
	"net"
	"sync"
)

// inProcessConn is the server's end of a connection that REST made inside the process.
// Nothing but inProcessListener makes one, so its type is proof of where it comes from.
type inProcessConn struct{ net.Conn }

// inProcessListener hands the gRPC server connections that never leave the process.
type inProcessListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newInProcessListener() *inProcessListener {
	return &inProcessListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept returns the server's end of the next connection.
func (l *inProcessListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Dial returns the client's end of a new connection.
func (l *inProcessListener) Dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- inProcessConn{server}:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends Accept and Dial. Connections that were made stay.
func (l *inProcessListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns a name that is no address.
func (l *inProcessListener) Addr() net.Addr { return inProcessAddr{} }

type inProcessAddr struct{}

func (inProcessAddr) Network() string { return "in-process" }
func (inProcessAddr) String() string  { return "in-process" }
