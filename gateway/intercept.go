package gateway

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/keyferry/keyferry/keyops"
)

// requestIDHeader is the response header, of gRPC and of REST, that names the call.
const requestIDHeader = "x-request-id"

// headroom is taken off a caller's deadline, so that the answer, which says what was too
// slow, still reaches the caller.
const headroom = 20 * time.Millisecond

type callerKey struct{}

// callerOf returns who calls. Every handler runs behind the interceptors, which put it there.
func callerOf(ctx context.Context) keyops.Caller { return callOf(ctx).caller }

// identityOf returns how it is known who calls.
func identityOf(ctx context.Context) identity { return callOf(ctx).identity }

func callOf(ctx context.Context) *call { return ctx.Value(callerKey{}).(*call) }

// call is one RPC on its way through the gateway.
type call struct {
	server   *Server
	name     string // full method name
	row      method
	caller   keyops.Caller
	identity identity
	remote   string
	started  time.Time
	release  func() // gives back the principal's place; nil if it has none
}

// unary lets one call in, runs it and reports it.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	c := s.newCall(info.FullMethod)
	defer func() { err = c.finish(recover(), err) }()
	ctx, err = c.admit(ctx, func(h metadata.MD) error { return grpc.SetHeader(ctx, h) })
	if err != nil {
		return nil, err
	}
	if err := c.checkMessage(req); err != nil {
		return nil, err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return handler(ctx, req)
}

// stream is unary for the streams of health and reflection.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	c := s.newCall(info.FullMethod)
	defer func() { err = c.finish(recover(), err) }()
	ctx, err := c.admit(ss.Context(), ss.SetHeader)
	if err != nil {
		return err
	}
	return handler(srv, streamWithContext{ss, ctx})
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context that names the caller.
func (s streamWithContext) Context() context.Context { return s.ctx }

func (s *Server) newCall(name string) *call {
	s.config.Observer.Began()
	return &call{server: s, name: name, started: time.Now(), caller: keyops.Caller{RequestID: uuid.NewString()}}
}

// admit finds out who calls, and whether this method is served to them.
func (c *call) admit(ctx context.Context, setHeader func(metadata.MD) error) (context.Context, error) {
	shown, credentialErr := c.server.credentialOf(ctx)
	if shown.requestID != "" {
		c.caller.RequestID = shown.requestID
	}
	c.caller.CorrelationID = c.caller.RequestID
	c.caller.SourceIP, c.remote = hostOf(shown.remoteAddr), shown.remoteAddr
	if err := setHeader(metadata.Pairs(requestIDHeader, c.caller.RequestID)); err != nil {
		return nil, fmt.Errorf("setting request ID: %w", err)
	}
	if credentialErr != nil {
		return nil, credentialErr
	}
	row, ok := c.server.methods[c.name]
	if !ok {
		return nil, errUnknownMethod
	}
	c.row = row
	who, err := c.server.identify(ctx, shown)
	if err != nil && !(row.probe && shown.leaf != nil) {
		return nil, err
	}
	c.identity, c.caller.Principal = who, who.principal
	if err := c.limit(); err != nil {
		return nil, err
	}
	return context.WithValue(ctx, callerKey{}, c), nil
}

// limit holds the call to the rates and to the share of its principal.
func (c *call) limit() (err error) {
	defer func() {
		if r, ok := errors.AsType[*refusal](err); ok {
			c.server.config.Observer.Throttled(string(c.row.class), r.limit)
			c.server.tally.add(c.caller, c.name)
		}
	}()
	if err := c.server.throttle.admit(c.row.class, c.caller.Principal); err != nil || c.row.class == classProbe {
		return err
	}
	c.release, err = c.server.slots.takeShare(c.caller.Principal)
	return err
}

// tap bounds a call from its first byte: the message of one that sends it slowly, or never
// to its end, is read before the interceptors see the call. Probes are answered however many
// calls there are, or a busy Region would be taken for a dead one.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	row, ok := s.methods[info.FullMethodName]
	if stays := ok && row.timeout == 0; stays || row.class != classProbe {
		if err := s.slots.take(stays); err != nil {
			s.config.Observer.Throttled(string(row.class), limitServer)
			return nil, statusOf(err, uuid.NewString()).Err()
		}
		context.AfterFunc(ctx, func() { s.slots.give(stays) })
	}
	if !ok || row.timeout == 0 {
		return ctx, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Limits.HandshakeTimeout+row.timeout)
	context.AfterFunc(ctx, cancel) // ctx ends with the call at the latest
	return ctx, nil
}

// checkMessage refuses what is too large, and fields of a later version of the API: a client
// that sets one means something by it, and must not believe that it was heeded.
func (c *call) checkMessage(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return fmt.Errorf("request of type %T is no message", req)
	}
	if size := proto.Size(m); size > c.row.maxBytes {
		return &refusal{code: codes.ResourceExhausted, reason: reasonTooLarge,
			message: fmt.Sprintf("request of %d bytes, at most %d are taken", size, c.row.maxBytes)}
	}
	if !c.row.probe && hasUnknown(m.ProtoReflect()) {
		return &refusal{code: codes.InvalidArgument, reason: string(keyops.ErrValidation),
			message: "the request has a field that this version does not know"}
	}
	return nil
}

// hasUnknown reports whether a message, or one within it, has a field that is unknown here.
func hasUnknown(m protoreflect.Message) bool {
	found := len(m.GetUnknown()) > 0
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					found = found || hasUnknown(v.Message())
					return !found
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				found = found || hasUnknown(value.List().Get(i).Message())
			}
		default:
			found = found || hasUnknown(value.Message())
		}
		return !found
	})
	return found
}

// bound gives the call its deadline: the method's, or the caller's less headroom if that is
// sooner.
func (c *call) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := c.row.timeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-headroom)
	}
	return context.WithTimeout(ctx, limit)
}

// finish turns a panic into an error, an error into what the client sees, and logs the call.
func (c *call) finish(panicked any, err error) error {
	if c.release != nil {
		c.release()
	}
	err = c.report(panicked, err)
	c.observed(err)
	return err
}

func (c *call) report(panicked any, err error) error {
	log := c.server.log.WithFields(logrus.Fields{
		fieldRequestID: c.caller.RequestID,
		fieldMethod:    strings.TrimPrefix(c.name, "/"),
		fieldRemote:    c.remote,
		fieldMillis:    float64(time.Since(c.started).Microseconds()) / 1000,
	})
	if c.caller.Principal.Name != "" {
		log = log.WithField(fieldPrincipal, c.caller.Principal.String())
	}
	if panicked != nil {
		// The value may hold part of a request; its type is enough beside the stack.
		log.WithFields(logrus.Fields{fieldPanic: fmt.Sprintf("%T", panicked), fieldStack: string(debug.Stack())}).Error("call panicked")
		return statusOf(fmt.Errorf("panic"), c.caller.RequestID).Err()
	}
	if err == nil {
		if c.row.class == classManage {
			log.Info("call served")
		} else {
			log.Debug("call served")
		}
		return nil
	}
	st := c.status(err)
	log = log.WithFields(logrus.Fields{fieldCode: st.Code().String(), fieldReason: reasonOf(st)})
	if st.Code() == codes.Internal {
		log.WithError(err).Error("call failed")
	} else {
		log.Info("call refused")
	}
	return st.Err()
}

// status is statusOf, but for health and reflection, which answer in statuses of their own.
func (c *call) status(err error) *status.Status {
	if st, ok := status.FromError(err); ok && c.row.class == classProbe {
		return st
	}
	return statusOf(err, c.caller.RequestID)
}

// reasonOf returns the reason that a status names.
func reasonOf(st *status.Status) string {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
