package replication

import (
	"context"
	"errors"
	"time"

	"github.com/keyferry/keyferry/replication/message"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	replicationv1 "github.com/keyferry/keyferry/proto/keyferry/replication/v1"
)

// newServer returns the server of the peer listener.
func (r *Replicator) newServer() *grpc.Server {
	tls := r.identity.config(r.pinned, func(c tlsClaim) error { r.certified(c); return nil })
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(tls)),
		grpc.MaxRecvMsgSize(message.MaxMessage+1024), grpc.MaxSendMsgSize(message.MaxMessage+1024),
		grpc.MaxConcurrentStreams(2*peerConcurrency),
		grpc.ConnectionTimeout(10*time.Second), // of the handshake
		grpc.MaxHeaderListSize(8<<10),
		// Connections end now and then, so that a TLS key of yesterday is not used for ever.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Hour, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}),
	)
	replicationv1.RegisterReplicationServiceServer(s, &service{r: r})
	return s
}

// service is the gRPC face of a Replicator.
type service struct {
	replicationv1.UnimplementedReplicationServiceServer
	r *Replicator
}

// Exchange lets one message of a peer in: from a pinned connection, within the peer's
// limits, with its signature.
func (s *service) Exchange(ctx context.Context, req *replicationv1.ExchangeRequest) (*replicationv1.ExchangeResponse, error) {
	p, err := s.r.caller(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "not a pinned peer")
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		return nil, status.Error(codes.ResourceExhausted, "too many exchanges at once")
	}
	if !p.limit.Allow() {
		return nil, status.Error(codes.ResourceExhausted, "too many exchanges per second")
	}
	ctx, cancel := context.WithTimeout(ctx, s.r.cfg.ExchangeTimeout)
	defer cancel()
	answer, err := s.r.Receive(ctx, p.pin.Region, req.GetStatement())
	if err != nil {
		return nil, refusedStatus(err)
	}
	return &replicationv1.ExchangeResponse{Statement: answer}, nil
}

// refusedStatus says to the peer what is wrong with its message, and nothing else.
func refusedStatus(err error) error {
	switch {
	case errors.Is(err, errNotStarted):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, statement.ErrSignature):
		return status.Error(codes.PermissionDenied, "signature not valid")
	case errors.Is(err, errMessage):
		return status.Error(codes.InvalidArgument, "malformed, or addressed to another instance")
	}
	return status.Error(codes.Unavailable, "cannot answer now")
}

// caller returns the peer at the other end of the connection, which the handshake verified.
func (r *Replicator) caller(ctx context.Context) (*peer, error) {
	c, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil, errNotPinned
	}
	info, ok := c.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, errNotPinned
	}
	// VerifyConnection has compared the name in the certificate with what the peer's Region
	// signing key certified.
	certs := info.State.PeerCertificates
	if len(certs) != 1 || len(certs[0].URIs) != 1 {
		return nil, errNotPinned
	}
	p, ok := r.peers[region.Name(certs[0].URIs[0].Host)]
	if !ok {
		return nil, errNotPinned
	}
	return p, nil
}
