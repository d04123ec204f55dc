package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"
)

type requestIDKey struct{}

// ServeHTTP gives the request its ID and hands it to the front.
func (h *restHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set(requestIDHeader, id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store") // an answer can be a plaintext
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
	switch {
	case !slices.Contains(verbs, r.Method):
		writeError(w, r, httpRefusal(http.StatusNotImplemented, codes.Unimplemented, reasonNoOperation, "this HTTP method is not known here"))
	case strings.Contains(r.URL.EscapedPath(), "%"):
		// Nothing in a path needs escapes, and what they hide is judged twice and differently.
		writeError(w, r, badRequest("escapes in the path are not taken"))
	case slices.ContainsFunc(strings.Split(r.URL.Path, "/")[1:], isNoName):
		writeError(w, r, errNoPath)
	default:
		h.front.ServeHTTP(w, r)
	}
}

// isNoName reports whether a part of a path is one that others, proxies among them, clean
// away. No name here is like that, and whose path means two things may be asked for either.
func isNoName(part string) bool { return part == "" || part == "." || part == ".." }

// errNoPath refuses a path that is no operation's.
var errNoPath = httpRefusal(http.StatusNotFound, codes.NotFound, reasonNoOperation, "there is nothing at this path")

// route fills the front: the RPCs, the probes and the OpenAPI document.
func (h *restHandler) route() error {
	h.front = runtime.NewServeMux(
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, _ int) {
			writeError(w, r, errNoPath)
		}),
	)
	all, err := routes()
	if err != nil {
		return err
	}
	for _, path := range paths(all) {
		served := map[string]endpoint{}
		for _, r := range path {
			if served[r.verb].handler != nil {
				return fmt.Errorf("two methods at %s %s", r.verb, r.pattern)
			}
			served[r.verb] = endpoint{r.pattern, h.api(r)}
		}
		if err := h.handle(served); err != nil {
			return err
		}
	}
	return errors.Join(
		h.handle(map[string]endpoint{http.MethodGet: {"/healthz", h.alive}}),
		h.handle(map[string]endpoint{http.MethodGet: {"/readyz", h.ready}}),
		h.handle(map[string]endpoint{http.MethodGet: {"/v1/openapi.json", h.openAPI}}),
	)
}

// endpoint is what one HTTP method does at one path. The pattern is the method's own, since
// methods name the variables of one path differently.
type endpoint struct {
	pattern string
	handler runtime.HandlerFunc
}

// handle serves one path: the methods that it has, and 405 with their list for the others.
func (h *restHandler) handle(served map[string]endpoint) error {
	var has []string
	var pattern string
	for _, verb := range verbs {
		if e, ok := served[verb]; ok {
			has, pattern = append(has, verb), e.pattern
		}
	}
	list := strings.Join(has, ", ")
	refuse := func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		w.Header().Set("Allow", list)
		writeError(w, r, httpRefusal(http.StatusMethodNotAllowed, codes.Unimplemented, reasonNoOperation, "this path takes "+list))
	}
	for _, verb := range verbs {
		e, ok := served[verb]
		if !ok {
			e = endpoint{pattern, refuse}
		}
		if err := h.front.HandlePath(verb, e.pattern, e.handler); err != nil {
			return fmt.Errorf("routing %s: %w", e.pattern, err)
		}
	}
	return nil
}

// api serves one route of one RPC: it refuses what the translation would ignore, then
// translates.
func (h *restHandler) api(rt route) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, inPath map[string]string) {
		for _, name := range inPath {
			if strings.HasSuffix(name, "/") { // alias/ without a name
				writeError(w, r, errNoPath)
				return
			}
		}
		// Before the body is read. Who it is, and whether they may, is decided behind.
		shown, err := h.server.shownBy(r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		body, err := rt.check(r, inPath)
		if err != nil {
			writeError(w, r, err)
			return
		}
		inner := r.Clone(context.WithValue(r.Context(), forwardedCtx{}, shown))
		// No header of the client's crosses, so none can become metadata.
		inner.Header = http.Header{}
		inner.Body = newRequestBody(body, inPath)
		h.translated.ServeHTTP(w, inner)
	}
}

// check refuses what is wrong with a request apart from the fields in its body, which it
// returns.
func (rt route) check(r *http.Request, inPath map[string]string) ([]byte, error) {
	if err := rt.checkQuery(r.URL.RawQuery, inPath); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(rt.row.maxBytes)+1))
	switch {
	case err != nil:
		return nil, badRequest("the body could not be read")
	case len(body) > rt.row.maxBytes:
		return nil, httpRefusal(http.StatusRequestEntityTooLarge, codes.ResourceExhausted, reasonTooLarge,
			fmt.Sprintf("the body is larger than %d bytes", rt.row.maxBytes))
	case len(body) == 0:
		return nil, nil
	case !rt.body:
		return nil, badRequest("this request takes no body")
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" || r.Header.Get("Content-Encoding") != "" {
		return nil, httpRefusal(http.StatusUnsupportedMediaType, codes.InvalidArgument, reasonMediaType,
			"the body must be application/json without a content encoding")
	}
	return body, nil
}

// checkQuery lets through only parameters that are fields, once each.
func (rt route) checkQuery(raw string, inPath map[string]string) error {
	if raw == "" {
		return nil
	}
	if rt.body {
		return badRequest("this request takes no query parameters; its fields go into the body")
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return badRequest("the query could not be read")
	}
	seen := map[protoreflect.Name]bool{}
	for name, values := range query {
		field := fieldNamed(rt.input.Fields(), name)
		switch {
		case field == nil:
			return badRequest(fmt.Sprintf("query parameter %q is unknown", clip(name)))
		case len(values) != 1 || seen[field.Name()]:
			return badRequest(fmt.Sprintf("query parameter %q is there twice", field.JSONName()))
		}
		if _, ok := inPath[string(field.Name())]; ok {
			return badRequest(fmt.Sprintf("query parameter %q is in the path, it cannot be in the query as well", field.JSONName()))
		}
		seen[field.Name()] = true
	}
	return nil
}

type forwardedCtx struct{}

// shownBy collects what the client of a request has shown, for the gRPC server to judge. A
// certificate is checked here, where its chains are.
func (s *Server) shownBy(r *http.Request) (forwarded, error) {
	f := forwarded{remoteAddr: r.RemoteAddr}
	f.requestID, _ = r.Context().Value(requestIDKey{}).(string)
	if r.TLS != nil {
		leaf, err := s.clients.Get().leaf(r.TLS.VerifiedChains, s.config.Now())
		if err != nil {
			return forwarded{}, err
		}
		if leaf != nil {
			f.leaf = leaf.Raw
		}
	}
	var err error
	if f.token, err = s.shownToken(r.Header.Values(tokenKey)); err != nil {
		return forwarded{}, err
	}
	if f.leaf == nil && f.token == "" {
		return forwarded{}, errNoCredential
	}
	return f, nil
}

// forwardedMetadata tells the gRPC server who calls.
func forwardedMetadata(_ context.Context, r *http.Request) metadata.MD {
	f, _ := r.Context().Value(forwardedCtx{}).(forwarded) // without it nobody is named, and nobody served
	return metadata.Pairs(forwardedKey, f.marshal())
}

// alive says that the process serves HTTP.
func (h *restHandler) alive(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	writeJSON(w, http.StatusOK, []byte(`{"status":"SERVING"}`+"\n"))
}

// ready says whether the Region can serve, which needs its token.
func (h *restHandler) ready(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	if h.server.health.serving() {
		writeJSON(w, http.StatusOK, []byte(`{"status":"SERVING"}`+"\n"))
		return
	}
	writeJSON(w, http.StatusServiceUnavailable, []byte(`{"status":"NOT_SERVING"}`+"\n"))
}

// openAPI serves the document to whoever is somebody.
func (h *restHandler) openAPI(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	if err := h.identified(r); err != nil {
		writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, openAPI)
}

func (h *restHandler) identified(r *http.Request) error {
	f, err := h.server.shownBy(r)
	if err != nil {
		return err
	}
	shown, err := f.credential()
	if err != nil {
		return err
	}
	_, err = h.server.identify(r.Context(), shown)
	return err
}
