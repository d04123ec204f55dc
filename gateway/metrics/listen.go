package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// scrapeTimeout is after how long an answer that is not ready is given up.
	scrapeTimeout = 10 * time.Second
	// readTimeout bounds how slowly a request may come.
	readTimeout = 5 * time.Second
	// maxConnections is how many readers are connected at once; more wait to be accepted.
	maxConnections = 16
	// maxHeaders bounds a request's headers in bytes; readers send few.
	maxHeaders = 4 << 10
)

// Server shows metrics to whoever reaches its address.
type Server struct {
	http     *http.Server
	listener net.Listener
}

// Listen takes the address. Nothing is answered before Serve.
func Listen(address string, m *Metrics) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s for metrics: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	return &Server{
		listener: netutil.LimitListener(l, maxConnections),
		http: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: readTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      readTimeout + scrapeTimeout,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    maxHeaders,
			ErrorLog:          log.New(io.Discard, "", 0),
		},
	}, nil
}

// Addr returns the address that is served.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}

// Close gives the address back if Serve has not been called.
func (s *Server) Close() error {
	return errors.Join(s.http.Close(), closed(s.listener.Close()))
}

func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
