package gateway

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/keyops"
)

// httpRefusal is a refusal whose HTTP status does not follow from its gRPC code.
func httpRefusal(http int, code codes.Code, reason, message string) *refusal {
	return &refusal{code: code, reason: reason, message: message, http: http}
}

// badRequest refuses the form of a request.
func badRequest(message string) *refusal {
	return &refusal{code: codes.InvalidArgument, reason: reasonForm, message: message}
}

// writeError writes a google.rpc.Status as JSON.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	id, _ := r.Context().Value(requestIDKey{}).(string)
	st := restStatus(err, id)
	code := runtime.HTTPStatusFromCode(st.Code())
	var own *refusal
	if errors.As(err, &own) && own.http != 0 {
		code = own.http
	}
	if after := retryAfter(st); after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	}
	body, err := marshalJSON(st.Proto())
	if err != nil {
		body = []byte(`{"code":13,"message":"internal error, request ID ` + id + `"}` + "\n")
	}
	writeJSON(w, code, body)
}

// retryAfter returns when a refused call may be repeated, or 0.
func retryAfter(st *status.Status) time.Duration {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// restStatus makes sure that every status names a reason. One that does not has not come
// from a handler but from the translation or from the connection into the gRPC server.
func restStatus(err error, requestID string) *status.Status {
	st, ok := status.FromError(err)
	switch {
	case !ok:
		return statusOf(err, requestID)
	case reasonOf(st) != "":
		return st
	}
	switch st.Code() {
	case codes.InvalidArgument:
		return newStatus(st.Code(), reasonForm, st.Message(), requestID)
	case codes.Unavailable:
		return newStatus(st.Code(), reasonUnavailable, "the service is stopping or not yet up; the call can be repeated", requestID)
	case codes.Canceled, codes.DeadlineExceeded:
		return newStatus(st.Code(), string(keyops.ErrDependencyTimeout), "the call took longer than it may; it can be repeated", requestID)
	}
	return newStatus(codes.Internal, string(keyops.ErrInternal), "internal error, request ID "+requestID, requestID)
}

func writeJSON(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that has gone is nobody's error
}
