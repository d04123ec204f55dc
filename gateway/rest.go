package gateway

import (
	"bytes"
	"context"
	_ "embed" // the OpenAPI document
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// openAPI is generated from the .proto files.
//
//go:embed openapi.swagger.json
var openAPI []byte

// addREST makes the HTTP server and its connection into the gRPC server.
func (s *Server) addREST() error {
	var err error
	s.behind = s.newGRPC(uint32(s.config.Limits.MaxCalls))
	s.toInside, err = grpc.NewClient("passthrough:in-process",
		// The connection is a pipe within this process.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.inside.Dial(ctx) }),
	)
	if err != nil {
		return fmt.Errorf("connecting REST: %w", err)
	}
	handler, err := s.newRESTHandler()
	if err != nil {
		return errors.Join(err, s.toInside.Close())
	}
	limits := s.config.Limits
	s.rest = &http.Server{
		Handler:           handler,
		TLSConfig:         s.tlsConfig(restClientAuth, "h2", "http/1.1"),
		ReadHeaderTimeout: limits.HandshakeTimeout,
		ReadTimeout:       limits.HandshakeTimeout + quick,
		WriteTimeout:      limits.HandshakeTimeout + quick + slow,
		IdleTimeout:       limits.IdleTimeout,
		MaxHeaderBytes:    maxHeaders,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: int(limits.MaxConcurrentStreams)},
		ErrorLog:          log.New(debugWriter{s.log}, "", 0),
	}
	s.restListener, err = listen(s.config.RESTAddress, limits.MaxConnections, limits.MaxConnectionsPerAddress)
	if err != nil {
		return errors.Join(err, s.toInside.Close())
	}
	return nil
}

// debugWriter takes the HTTP server's complaints about clients that hang up or fail the
// handshake, which are not the operator's errors.
type debugWriter struct{ log logrus.FieldLogger }

// Write logs one complaint.
func (w debugWriter) Write(p []byte) (int, error) {
	w.log.WithField(fieldText, string(bytes.TrimSpace(p))).Debug("HTTP connection failed")
	return len(p), nil
}

// restHandler is REST: a strict front, whose routes are the annotations of the .proto files,
// before the generated translation, which is lenient.
type restHandler struct {
	server     *Server
	front      *runtime.ServeMux
	translated *runtime.ServeMux
}

func (s *Server) newRESTHandler() (http.Handler, error) {
	h := &restHandler{server: s}
	h.translated = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, strictJSON{&runtime.JSONPb{}}),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(forwardedMetadata),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			writeError(w, r, err)
		}),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	ctx := context.Background()
	if err := errors.Join(
		kmsv1.RegisterKeyServiceHandler(ctx, h.translated, s.toInside),
		kmsv1.RegisterCryptoServiceHandler(ctx, h.translated, s.toInside),
		kmsv1.RegisterSynchronizationServiceHandler(ctx, h.translated, s.toInside),
		kmsv1.RegisterRegionServiceHandler(ctx, h.translated, s.toInside),
	); err != nil {
		return nil, fmt.Errorf("registering REST: %w", err)
	}
	return h, h.route()
}
