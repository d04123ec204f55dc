package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops"
)

// authority issues certificates for one test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := mustKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

func mustKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for a client; change may make it something else.
func (a *authority) issue(uri string, change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key := mustKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "client", OrganizationalUnit: []string{"payroll"}},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	if change != nil {
		change(template)
	}
	leaf := a.sign(template, key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// sign makes a certificate for a key.
func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func serverCertificate(c *x509.Certificate) {
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
}

// files writes what a server reads.
func (a *authority) files() gateway.TLSFiles {
	a.t.Helper()
	dir := a.t.TempDir()
	server := a.issue("", serverCertificate)
	keyDER, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	return gateway.TLSFiles{
		Certificate: write("server.crt", "CERTIFICATE", server.Certificate[0]),
		Key:         write("server.key", "PRIVATE KEY", keyDER),
		ClientCA:    write("ca.crt", "CERTIFICATE", a.cert.Raw),
	}
}

// trusting is the configuration of a client that shows certs.
func (a *authority) trusting(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots, Certificates: certs, MinVersion: tls.VersionTLS12}
}

const aliceURI = "spiffe://test.example/user/alice"

// served is a running server with one client of each kind, both Alice.
type served struct {
	*gateway.Server
	t    testing.TB
	ca   *authority
	keys *fakeKeys
	logs *logtest.Hook
	grpc *grpc.ClientConn
	http *http.Client
	ill  atomic.Bool // makes the health check fail
	stop context.CancelFunc
	done chan struct{} // closed when Serve has returned
	err  error         // what it returned; valid once done is closed

	extra func(*gateway.Server) // changes the server before it serves; may be nil
}

// start serves on loopback with keys that are faked. change may alter the configuration.
func start(t *testing.T, change func(*gateway.Config)) *served {
	t.Helper()
	t.Parallel()
	s := &served{t: t, keys: &fakeKeys{t: t}}
	return s.start(s.keys, change)
}

func (s *served) start(keys keyops.Operations, change func(*gateway.Config)) *served {
	t := s.t
	t.Helper()
	s.ca = newAuthority(t)
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	s.logs = hook
	config := gateway.Config{
		GRPCAddress: "127.0.0.1:0",
		RESTAddress: "127.0.0.1:0",
		TLS:         s.ca.files(),
		Principals:  []gateway.Rule{{SPIFFE: "spiffe://test.example/user/*", Principal: "arn:aws:iam::111122223333:user/*"}},
		Region:      "eu-paris-1",
		Keys:        keys,
		Health: func(context.Context) error {
			if s.ill.Load() {
				return errors.New("token is gone")
			}
			return nil
		},
		Log:          log,
		DrainTimeout: 20 * time.Second,
	}
	if change != nil {
		change(&config)
	}
	var err error
	if s.Server, err = gateway.New(config); err != nil {
		t.Fatal(err)
	}
	if s.extra != nil {
		s.extra(s.Server)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.done = stop, make(chan struct{})
	go func() {
		defer close(s.done)
		s.err = s.Serve(ctx)
	}()
	alice := s.ca.issue(aliceURI, nil)
	s.grpc = s.dial(s.ca.trusting(alice))
	s.http = s.client(s.ca.trusting(alice))
	t.Cleanup(func() { s.halt() })
	return s
}

// startWithService is start with one more gRPC service.
func startWithService(t *testing.T, desc *grpc.ServiceDesc, service any) *served {
	t.Helper()
	s := &served{t: t, keys: &fakeKeys{t: t}, extra: func(g *gateway.Server) { g.GRPC().RegisterService(desc, service) }}
	return s.start(s.keys, nil)
}

// halt stops the server and returns what Serve returned.
func (s *served) halt() error {
	s.stop()
	<-s.done
	return s.err
}

// dial connects a gRPC client.
func (s *served) dial(c *tls.Config) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(s.GRPCAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// client makes a REST client.
func (s *served) client(c *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// dialTLS opens a bare connection to the gRPC listener. One that is not accepted hangs in the
// handshake until patience ends.
func dialTLS(s *served, patience time.Duration) (net.Conn, error) {
	c := s.ca.trusting(s.ca.issue(aliceURI, nil))
	c.NextProtos = []string{"h2"}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", s.GRPCAddr().String(), c)
	if err != nil {
		return nil, err
	}
	return conn, nil
}
