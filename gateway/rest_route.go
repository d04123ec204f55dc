package gateway

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// route is one HTTP method and path pattern of an RPC, from its google.api.http annotation.
type route struct {
	verb    string // HTTP method
	pattern string
	body    bool // the request comes in the body; else in path and query
	name    string
	row     method
	input   protoreflect.MessageDescriptor
}

// apiFiles are the files whose services REST offers.
var apiFiles = []protoreflect.FileDescriptor{
	kmsv1.File_keyferry_kms_v1_key_service_proto,
	kmsv1.File_keyferry_kms_v1_crypto_service_proto,
	kmsv1.File_keyferry_kms_v1_region_service_proto,
	kmsv1.File_keyferry_kms_v1_synchronization_service_proto,
}

// routes reads the annotations of every RPC.
func routes() ([]route, error) {
	var out []route
	for _, file := range apiFiles {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				found, err := routesOf(service.Methods().Get(j))
				if err != nil {
					return nil, err
				}
				out = append(out, found...)
			}
		}
	}
	return out, nil
}

func routesOf(m protoreflect.MethodDescriptor) ([]route, error) {
	name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	row, ok := methods[name]
	if !ok {
		return nil, fmt.Errorf("method %s has no row", name)
	}
	rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return nil, fmt.Errorf("method %s has no HTTP annotation", name)
	}
	var out []route
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		verb, pattern := verbOf(r)
		if verb == "" || (r.GetBody() != "" && r.GetBody() != "*") {
			return nil, fmt.Errorf("method %s: want get, post, put, patch or delete, and the whole body or none", name)
		}
		out = append(out, route{verb, pattern, r.GetBody() == "*", name, row, m.Input()})
	}
	return out, nil
}

func verbOf(r *annotations.HttpRule) (verb, pattern string) {
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		return http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		return http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, p.Delete
	}
	return "", ""
}

// verbs are the HTTP methods that a path can be asked with. Others are 501.
var verbs = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
	http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// paths groups routes by the paths that they fit, patterns with a verb at their end last:
// the router asks the last one first, and a pattern without a verb would take the verb for
// part of a key ID.
func paths(all []route) [][]route {
	var shapes []string
	byShape := map[string][]route{}
	for _, r := range all {
		shape := variable.ReplaceAllString(r.pattern, "{")
		if byShape[shape] == nil {
			shapes = append(shapes, shape)
		}
		byShape[shape] = append(byShape[shape], r)
	}
	slices.SortStableFunc(shapes, func(a, b string) int { return strings.Count(a, "}:") - strings.Count(b, "}:") })
	var out [][]route
	for _, shape := range shapes {
		out = append(out, byShape[shape])
	}
	return out
}

// variable is the name of a path variable, which has no part in which paths a pattern fits.
var variable = regexp.MustCompile(`\{[a-z_]+`)
