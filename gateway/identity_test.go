package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/gateway"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func whoami(ctx context.Context, s *served, c *tls.Config) (string, error) {
	resp, err := kmsv1.NewRegionServiceClient(s.dial(c)).GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
	return resp.GetArn(), err
}

func TestAliceIsAliceByBothDoors(t *testing.T) {
	s := start(t, nil)
	const alice = "arn:aws:iam::111122223333:user/alice"
	got, err := whoami(context.Background(), s, s.ca.trusting(s.ca.issue(aliceURI, nil)))
	if err != nil || got != alice {
		t.Errorf("gRPC takes Alice for %q: %v", got, err)
	}
	if ip := s.keys.last().Caller.SourceIP; ip != "127.0.0.1" {
		t.Errorf("gRPC calls come from %q", ip)
	}
	resp := s.get("/v1/whoami")
	if !strings.Contains(resp.body, alice) {
		t.Errorf("REST takes Alice for %s", resp.body)
	}
	if ip := s.keys.last().Caller.SourceIP; ip != "127.0.0.1" {
		t.Errorf("REST calls come from %q", ip)
	}
}

// peerCertificate is one as package replication makes for peers: signed by itself, with a
// statement that only peers read.
func peerCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	self := newAuthority(t)
	return self.issue("keyferry://us-east-1/kfi-0123456789ab", func(c *x509.Certificate) {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 25, 1801812326, 1}, Value: []byte("statement")}}
	})
}

func TestCertificatesThatAreRefused(t *testing.T) {
	s := start(t, nil)
	stranger := newAuthority(t)
	for name, cert := range map[string]tls.Certificate{
		"none":                 {},
		"expired":              s.ca.issue(aliceURI, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"not yet valid":        s.ca.issue(aliceURI, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
		"wrong authority":      stranger.issue(aliceURI, nil),
		"a server's":           s.ca.issue(aliceURI, serverCertificate),
		"a peer Region's":      peerCertificate(t),
		"a peer Region's name": s.ca.issue("keyferry://us-east-1/kfi-0123456789ab", nil),
		"no rule for its name": s.ca.issue("spiffe://test.example/host/alice", nil),
	} {
		t.Run(name, func(t *testing.T) {
			before := s.keys.count()
			config := s.ca.trusting()
			if cert.Certificate != nil {
				config = s.ca.trusting()
				// Shown even to a server that does not want it.
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			}
			_, err := whoami(context.Background(), s, config)
			if code := status.Code(err); code != codes.Unavailable && code != codes.Unauthenticated {
				t.Errorf("gRPC: %v", err)
			}
			resp, err := s.client(config).Get("https://" + s.RESTAddr().String() + "/v1/whoami")
			if err == nil {
				if resp.Body.Close(); resp.StatusCode != http.StatusUnauthorized {
					t.Errorf("REST: %s", resp.Status)
				}
			}
			if s.keys.count() != before {
				t.Error("keys were reached")
			}
		})
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s := start(t, nil)
	for _, address := range []string{s.GRPCAddr().String(), s.RESTAddr().String()} {
		config := s.ca.trusting(s.ca.issue(aliceURI, nil))
		config.MaxVersion = tls.VersionTLS12
		conn, err := tls.Dial("tcp", address, config)
		if err == nil {
			conn.Close()
			t.Errorf("%s speaks TLS 1.2", address)
		}
	}
}

func TestCertificateThatExpiresOnAnOpenConnection(t *testing.T) {
	var ahead atomic.Int64
	s := start(t, func(c *gateway.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	client := kmsv1.NewRegionServiceClient(s.grpc)
	if _, err := client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{}); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(2 * time.Hour))
	_, err := client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
	wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException")
}

func TestForgedIdentity(t *testing.T) {
	s := start(t, nil)
	root := s.ca.issue("spiffe://test.example/user/root", nil)
	forged := gateway.ForwardedIdentity(root.Certificate[0], "10.0.0.1:1", "forged")

	t.Run("from outside by gRPC", func(t *testing.T) {
		ctx := metadata.AppendToOutgoingContext(context.Background(), gateway.ForwardedKey, forged)
		_, err := whoami(ctx, s, s.ca.trusting(s.ca.issue(aliceURI, nil)))
		wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException")
	})
	t.Run("empty, from outside by gRPC", func(t *testing.T) {
		ctx := metadata.AppendToOutgoingContext(context.Background(), gateway.ForwardedKey, "")
		_, err := whoami(ctx, s, s.ca.trusting(s.ca.issue(aliceURI, nil)))
		wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException")
	})
	for _, header := range []string{"Grpc-Metadata-" + gateway.ForwardedKey, gateway.ForwardedKey, "grpcgateway-" + gateway.ForwardedKey} {
		t.Run("by REST in "+header, func(t *testing.T) {
			resp := s.do(http.MethodGet, "/v1/whoami", "", http.Header{
				http.CanonicalHeaderKey(header): {"AAAA"}, "Grpc-Metadata-Authorization": {"Bearer root"}, "X-Forwarded-For": {"10.0.0.1"},
			})
			if resp.code != http.StatusOK || !strings.Contains(resp.body, "user/alice") {
				t.Errorf("got %d %s", resp.code, resp.body)
			}
			if ip := s.keys.last().Caller.SourceIP; ip != "127.0.0.1" {
				t.Errorf("source is taken to be %s", ip)
			}
		})
	}

	inside := kmsv1.NewRegionServiceClient(s.DialInside())
	for name, claims := range map[string][]string{
		"inside without identity":  nil,
		"inside with two":          {forged, forged},
		"inside with no encoding":  {"x"},
		"inside with trailing":     {forged + "x"},
		"inside with no leaf":      {gateway.ForwardedIdentity(nil, "10.0.0.1:1", "r")},
		"inside with leaf garbage": {gateway.ForwardedIdentity([]byte("x"), "10.0.0.1:1", "r")},
	} {
		t.Run(name, func(t *testing.T) {
			before := s.keys.count()
			ctx := metadata.NewOutgoingContext(context.Background(), metadata.MD{gateway.ForwardedKey: claims})
			_, err := inside.GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
			if code := status.Code(err); code != codes.Unauthenticated && code != codes.Internal {
				t.Errorf("got %v", err)
			}
			if s.keys.count() != before {
				t.Error("keys were reached")
			}
		})
	}
}

// disguised is a connection from outside that looks, by its addresses, like one from inside.
type disguised struct{ net.Conn }

type insideAddr struct{}

func (insideAddr) Network() string { return "in-process" }
func (insideAddr) String() string  { return "in-process" }

func (disguised) LocalAddr() net.Addr  { return insideAddr{} }
func (disguised) RemoteAddr() net.Addr { return insideAddr{} }

func TestOnlyItsTypeLetsAConnectionInWithoutTLS(t *testing.T) {
	ca := newAuthority(t)
	creds := gateway.ServerCredentials(&tls.Config{Certificates: []tls.Certificate{ca.issue("", serverCertificate)}})
	handshake := func(wrap func(net.Conn) net.Conn) error {
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			_, _ = client.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) // what a client without TLS says first
			_, _ = io.Copy(io.Discard, client)
		}()
		_, _, err := creds.Clone().ServerHandshake(wrap(server))
		return err
	}
	if err := handshake(gateway.NewInsideConn); err != nil {
		t.Errorf("REST's own connection is refused: %v", err)
	}
	if err := handshake(func(c net.Conn) net.Conn { return disguised{c} }); err == nil {
		t.Error("a connection from outside was let in without TLS")
	}
}

func TestTLSFilesThatAreRefused(t *testing.T) {
	ca := newAuthority(t)
	for name, spoil := range map[string]func(*gateway.TLSFiles){
		"key open to others": func(f *gateway.TLSFiles) { must(t, os.Chmod(f.Key, 0o604)) },
		"no key":             func(f *gateway.TLSFiles) { f.Key += ".missing" },
		"no certificate":     func(f *gateway.TLSFiles) { f.Certificate += ".missing" },
		"no authority":       func(f *gateway.TLSFiles) { f.ClientCA += ".missing" },
		"empty authority":    func(f *gateway.TLSFiles) { must(t, os.WriteFile(f.ClientCA, nil, 0o600)) },
		"key of another":     func(f *gateway.TLSFiles) { f.Key = ca.files().Key },
	} {
		t.Run(name, func(t *testing.T) {
			files := ca.files()
			spoil(&files)
			_, err := gateway.New(gateway.Config{
				GRPCAddress: "127.0.0.1:0", TLS: files, Region: "eu-paris-1", Keys: &fakeKeys{t: t},
				Health: func(context.Context) error { return nil },
			})
			if err == nil {
				t.Error("taken")
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
