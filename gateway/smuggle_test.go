package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// TestMetadataThatLooksLikeIdentity has a client without a credential, and Alice with her
// certificate, say in headers of all kinds that they are root.
func TestMetadataThatLooksLikeIdentity(t *testing.T) {
	w := startWithTokens(t)
	root := "Bearer " + w.provider.token(map[string]any{"name": "root"})
	for _, key := range []string{
		"grpcgateway-authorization", "grpc-metadata-authorization", "proxy-authorization", "x-authorization", "authorization-bin",
		"x-forwarded-user", "x-forwarded-client-cert", "x-client-verify", "x-ssl-client-cert", "x-amz-security-token", "cookie", "forwarded",
	} {
		t.Run(key, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(context.Background(), key, root)
			_, err := whoami(ctx, w.served, w.ca.trusting())
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("gRPC without a credential: %v", err)
			}
			arn, err := whoami(ctx, w.served, w.ca.trusting(w.ca.issue(aliceURI, nil)))
			if err != nil || !strings.HasSuffix(arn, ":user/alice") {
				t.Errorf("gRPC as Alice: %s, %v", arn, err)
			}
			header := http.Header{http.CanonicalHeaderKey(key): {root}}
			if got := w.do(http.MethodGet, "/v1/whoami", "", header); got.code != http.StatusOK || !strings.Contains(got.body, "user/alice") {
				t.Errorf("REST as Alice: %d %s", got.code, got.body)
			}
			alice := w.http
			w.http = w.client(w.ca.trusting())
			if got := w.do(http.MethodGet, "/v1/whoami", "", header); got.code != http.StatusUnauthorized {
				t.Errorf("REST without a credential: %d %s", got.code, got.body)
			}
			w.http = alice
		})
	}
}

// TestRequestsOfTwoMeanings sends requests that a proxy before the daemon could read in
// another way than the daemon does. None may reach the keys as two.
func TestRequestsOfTwoMeanings(t *testing.T) {
	s := start(t, nil)
	const tail = "\r\n\r\nGET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for name, request := range map[string]string{
		"two lengths":            "POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 54" + tail,
		"length no number":       "POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nContent-Length: +0" + tail,
		"unknown encoding":       "POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked" + tail,
		"encoding twice":         "POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity" + tail,
		"space before the colon": "POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nContent-Length : 54" + tail,
		"no host":                "GET /v1/whoami HTTP/1.1" + tail,
		"two hosts":              "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nHost: y" + tail,
		"control in a header":    "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX: a\x00b" + tail,
		"space in the path":      "GET /v1/whoami /v1/keys HTTP/1.1\r\nHost: x" + tail,
	} {
		t.Run(name, func(t *testing.T) {
			before := s.keys.count()
			conn := s.secured(s.RESTAddr().String(), "http/1.1")
			defer conn.Close()
			must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			_, err := io.WriteString(conn, request)
			must(t, err)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusNotImplemented {
				t.Errorf("answered %s", resp.Status)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the connection goes on: %v", err)
			}
			if s.keys.count() != before {
				t.Error("keys were reached")
			}
		})
	}
}

// TestPathsOfTwoMeanings asks for paths that are cleaned, decoded or folded into others
// elsewhere. Here they are refused, or are the name that they spell.
func TestPathsOfTwoMeanings(t *testing.T) {
	s := start(t, nil)
	for name, path := range map[string]string{
		"up out of aliases":          "/v1/alias/../keys/" + keyID,
		"up within aliases":          "/v1/alias/a/../payroll",
		"escaped up":                 "/v1/alias/%2e%2e/keys/" + keyID,
		"twice escaped up":           "/v1/alias/%252e%252e/keys",
		"up to whoami":               "/v1/keys/../whoami",
		"dot":                        "/v1/./whoami",
		"double slash":               "/v1//whoami",
		"trailing slash":             "/v1/whoami/",
		"slash after a verb":         "/v1/keys/" + keyID + ":enable/",
		"backslash":                  "/v1\\whoami",
		"parameter":                  "/v1/whoami;as=root",
		"zero byte":                  "/v1/whoami%00",
		"overlong slash":             "/v1%c0%afwhoami",
		"other letters":              "/v1/WHOAMI",
		"other letters in keys":      "/v1/Keys/" + keyID,
		"ARN of another Region":      "/v1/keys/arn:aws:kms:us-east-1:111122223333:key/" + keyID,
		"empty key ID":               "/v1/keys//policy",
		"two verbs":                  "/v1/keys/" + keyID + ":enable:disable",
		"escaped verb":               "/v1/keys/" + keyID + "%3Aenable",
		"verb after an alias's path": "/v1/alias",
		"fragment":                   "/v1/whoami%23",
		"fullwidth letters escaped":  "/v1/%EF%BD%97hoami",
		"newline":                    "/v1/whoami%0d%0aX-Principal:%20root",
	} {
		t.Run(name, func(t *testing.T) {
			before := s.keys.count()
			got := s.get(path)
			if got.code == http.StatusOK || got.code >= http.StatusInternalServerError {
				t.Errorf("answered %d %s", got.code, got.body)
			}
			if s.keys.count() != before {
				t.Errorf("reached %+v", s.keys.last())
			}
		})
	}
}
