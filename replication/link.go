package replication

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keyferry/keyferry/replication/message"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/region"
	replicationv1 "github.com/keyferry/keyferry/proto/keyferry/replication/v1"
)

// Link is the way to one peer. It knows nothing of what it carries: messages and answers are
// signed, and may be lost, late and repeated.
type Link interface {
	// Exchange takes a message to the peer's Receive and brings back what that returned. An
	// error wraps keyops.ErrPeerUnreachable unless the peer refused the message; the peer may
	// have acted on it all the same.
	Exchange(ctx context.Context, message []byte) (answer []byte, err error)
	// Reconnect lets the next Exchange, after a failure, try at once to reach the peer.
	Reconnect()
	Close() error
}

// connectTimeout bounds one try to connect to a peer.
const connectTimeout = 5 * time.Second

// grpcLink is a mutual TLS connection, which is made when it is first used and again
// whenever it breaks.
type grpcLink struct {
	open func() (*grpc.ClientConn, error)

	mu   sync.Mutex
	conn *grpc.ClientConn
}

// dial prepares the connection to a peer.
func (r *Replicator) dial(to region.Descriptor, address string) (Link, error) {
	want := message.Party{Region: to.Region, Instance: to.Instance}
	tls := r.identity.config(r.pinned, func(other tlsClaim) error {
		if other.Party != want {
			return fmt.Errorf("%w: %s answers at the address of %s", errNotPinned, other.Region, to.Region)
		}
		r.certified(other)
		return nil
	})
	tls.ServerName = string(to.Region)
	l := &grpcLink{open: func() (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+address,
			grpc.WithNoProxy(), // an address is an address
			grpc.WithTransportCredentials(credentials.NewTLS(tls)),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(message.MaxMessage+1024), grpc.MaxCallSendMsgSize(message.MaxMessage+1024)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           grpcBackoff(r.cfg.RetryMin, r.cfg.RetryMax),
				MinConnectTimeout: connectTimeout,
			}),
		)
	}}
	var err error
	if l.conn, err = l.open(); err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", to.Region, err)
	}
	return l, nil
}

func grpcBackoff(first, longest time.Duration) grpcbackoff.Config {
	return grpcbackoff.Config{BaseDelay: first, Multiplier: 2, Jitter: 0.2, MaxDelay: longest}
}

// Exchange makes one call.
func (l *grpcLink) Exchange(ctx context.Context, message []byte) ([]byte, error) {
	resp, err := replicationv1.NewReplicationServiceClient(l.current()).Exchange(ctx, &replicationv1.ExchangeRequest{Statement: message})
	if err != nil {
		return nil, fromStatus(err)
	}
	return resp.GetStatement(), nil
}

// fromStatus tells what the peer refused from what did not reach it.
func fromStatus(err error) error {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied:
		return fmt.Errorf("%w by the peer: %s", errMessage, status.Convert(err).Message())
	}
	return fmt.Errorf("%w: %s", keyops.ErrPeerUnreachable, status.Convert(err).Message())
}

func (l *grpcLink) current() *grpc.ClientConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// Reconnect takes a fresh connection if the old one has failed: that one would answer calls
// with its last failure, and does not show when its next try has ended. The first call on a
// fresh one waits for how that goes.
func (l *grpcLink) Reconnect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn.GetState() != connectivity.TransientFailure {
		return
	}
	if fresh, err := l.open(); err == nil {
		l.conn.Close()
		l.conn = fresh
	}
}

// Close breaks the connection.
func (l *grpcLink) Close() error { return l.current().Close() }
