package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/gateway/reload"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// Server serves one Region's clients. New makes it, Serve runs it once.
type Server struct {
	config  Config
	log     logrus.FieldLogger
	health  *health
	methods map[string]method // the table

	certificate *reload.Value[tls.Certificate]
	clients     *reload.Value[*authorities]
	rules       mapper[*x509.Certificate]
	bearer      *bearer.Verifier // nil if no tokens are taken
	claimRules  mapper[bearer.Claims]
	throttle    *throttle
	slots       *slots
	tally       *tally

	grpc     *grpc.Server
	behind   *grpc.Server // REST's; the same services
	rest     *http.Server // nil without REST
	inside   *inProcessListener
	toInside *grpc.ClientConn // nil without REST

	grpcListener net.Listener
	restListener net.Listener // nil without REST
}

// New checks the configuration, reads the TLS files and takes the ports. Nothing is served
// before Serve.
func New(config Config) (*Server, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		config:   config,
		log:      config.Log,
		methods:  methods,
		health:   &health{check: config.Health, log: config.Log, now: config.Now},
		throttle: newThrottle(config.Limits.Rates, config.Now),
		slots:    newSlots(config.Limits),
		tally:    newTally(config.Now),
		inside:   newInProcessListener(),
	}
	if err := s.loadIdentity(); err != nil {
		return nil, err
	}
	limits := config.Limits
	s.grpc = s.newGRPC(limits.MaxConcurrentStreams)
	if s.grpcListener, err = listen(config.GRPCAddress, limits.MaxConnections, limits.MaxConnectionsPerAddress); err != nil {
		return nil, err
	}
	if config.RESTAddress == "" {
		return s, nil
	}
	if err := s.addREST(); err != nil {
		return nil, errors.Join(err, s.grpcListener.Close())
	}
	return s, nil
}

// newGRPC makes a gRPC server with every service. It differs in how many calls a connection
// has: all of REST comes over one.
func (s *Server) newGRPC(streams uint32) *grpc.Server {
	config, limits := s.config, s.config.Limits
	g := grpc.NewServer(
		grpc.Creds(newServerCredentials(s.tlsConfig(s.grpcClientAuth(), "h2"))),
		grpc.InTapHandle(s.tap),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(largestRequest()),
		grpc.MaxConcurrentStreams(streams),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(limits.HandshakeTimeout),
		grpc.NumStreamWorkers(limits.StreamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle:     limits.IdleTimeout,
			MaxConnectionAge:      limits.MaxConnectionAge,
			MaxConnectionAgeGrace: config.DrainTimeout,
			Time:                  time.Minute,
			Timeout:               limits.HandshakeTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
	kmsv1.RegisterKeyServiceServer(g, &keyService{keys: config.Keys, replication: config.Replication})
	kmsv1.RegisterCryptoServiceServer(g, &cryptoService{keys: config.Keys})
	kmsv1.RegisterSynchronizationServiceServer(g, &synchronizationService{keys: config.Keys})
	kmsv1.RegisterRegionServiceServer(g, &regionService{
		keys: config.Keys, replication: config.Replication, region: config.Region, version: config.Version, doctor: config.Doctor, now: config.Now,
	})
	grpc_health_v1.RegisterHealthServer(g, s.health)
	reflection.RegisterV1(g)
	return g
}

// maxHeaders bounds the metadata of a call in bytes. REST forwards a certificate in it.
const maxHeaders = 32 << 10

// loadIdentity compiles the rules and reads the files that say who may call.
func (s *Server) loadIdentity() (err error) {
	if s.rules, err = compile(s.config.Principals, Rule.compile); err != nil {
		return err
	}
	if err := s.loadTLS(s.config.Files); err != nil {
		return err
	}
	if s.config.Bearer == nil {
		return nil
	}
	if s.claimRules, err = compile(s.config.Bearer.Principals, ClaimRule.compile); err != nil {
		return fmt.Errorf("bearer: %w", err)
	}
	c := s.config.Bearer.Config
	c.Now = s.config.Now
	if s.bearer, err = bearer.New(c); err != nil {
		return err
	}
	s.config.Files.Add("keys of bearer tokens", s.bearer.Refresh)
	return nil
}

// GRPCAddr returns the address at which gRPC is served.
func (s *Server) GRPCAddr() net.Addr { return s.grpcListener.Addr() }

// RESTAddr returns the address at which REST is served, or nil.
func (s *Server) RESTAddr() net.Addr {
	if s.restListener == nil {
		return nil
	}
	return s.restListener.Addr()
}

// Serve serves until ctx ends or a listener fails, then stops: health turns to NOT_SERVING,
// no new connection is accepted, and calls in flight have DrainTimeout to finish. It returns
// nil if ctx ended and every call finished.
func (s *Server) Serve(ctx context.Context) error {
	group, failed := errgroup.WithContext(ctx)
	group.Go(func() error { return s.serveGRPC(s.grpc, s.grpcListener) })
	if s.rest != nil {
		group.Go(func() error { return s.serveGRPC(s.behind, s.inside) })
		group.Go(func() error {
			if err := s.rest.ServeTLS(s.restListener, "", ""); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving REST: %w", err)
			}
			return nil
		})
		s.log.WithFields(logrus.Fields{fieldListener: "rest", fieldAddress: s.RESTAddr().String()}).Info("listening")
	}
	s.log.WithFields(logrus.Fields{fieldListener: "grpc", fieldAddress: s.GRPCAddr().String()}).Info("listening")

	group.Go(func() error {
		s.recordEvery(failed)
		return nil
	})
	stopped := make(chan error, 1)
	go func() {
		<-failed.Done()
		stopped <- s.stop()
	}()
	err := errors.Join(group.Wait(), <-stopped)
	s.recordThrottled() // what was refused while the last calls ended
	return err
}

// serveGRPC serves until stop. What stop does to a server that has not begun is no failure.
func (s *Server) serveGRPC(g *grpc.Server, l net.Listener) error {
	if err := g.Serve(l); err != nil && !s.health.draining.Load() {
		return fmt.Errorf("serving gRPC: %w", err)
	}
	return nil
}

// stop lets calls in flight finish. REST stops first, since its calls are calls of the gRPC
// server; what it has in flight by half-time has got there, and is finished there.
func (s *Server) stop() error {
	s.health.draining.Store(true)
	deadline, cancel := context.WithTimeout(context.Background(), s.config.DrainTimeout)
	defer cancel()
	closed := s.grpcListener.Close()

	restStopped := make(chan error, 1)
	go func() { restStopped <- s.stopREST(deadline) }()
	select {
	case err := <-restStopped:
		restStopped <- err
	case <-time.After(s.config.DrainTimeout / 2):
	}
	var behind error
	if s.behind != nil {
		behind = stopGRPC(deadline, s.behind)
	}
	return errors.Join(closed, behind, stopGRPC(deadline, s.grpc), <-restStopped)
}

func (s *Server) stopREST(deadline context.Context) error {
	if s.rest == nil {
		return nil
	}
	var late error
	if s.rest.Shutdown(deadline) != nil {
		late = errors.Join(errors.New("REST calls were cut off"), s.rest.Close())
	}
	return errors.Join(late, s.toInside.Close())
}

func stopGRPC(deadline context.Context, g *grpc.Server) error {
	if within(deadline, g.GracefulStop) {
		return nil
	}
	last, cancel := context.WithTimeout(context.Background(), cutOff)
	defer cancel()
	if !within(last, g.Stop) {
		return errors.New("a gRPC call does not end although it was cancelled")
	}
	return errors.New("gRPC calls were cut off")
}

// cutOff is how long calls that were cancelled have to notice.
const cutOff = time.Second

// within runs f and reports whether it returned before ctx ended.
func within(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
