package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyferry": func() {
		os.Exit(Run(context.Background(), os.Args[1:], Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}})
}

// TestScripts runs the command as users do, each script against a Region of its own: a
// gateway before keyops on a token in memory. The caller is user/admin, by a certificate;
// $TOKEN_CONFIG is a configuration that shows alice.jwt instead.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			t := e.T().(testing.TB)
			s := serve(t, filepath.Join(e.WorkDir, ".region"), keyopstest.New(t, keyopstest.Options{}))
			e.Setenv("KEYFERRY_CONFIG", s.config("admin.yaml", "cert: admin.crt, key: admin.key"))
			e.Setenv("TOKEN_CONFIG", s.config("alice.yaml", "token_file: "+filepath.Join(e.WorkDir, "alice.jwt")))
			e.Setenv("BOTH_CONFIG", s.config("both.yaml", "cert: admin.crt, key: admin.key, token_file: alice.jwt"))
			e.Setenv("ALICE_JWT", s.token("alice"))
			e.Setenv("ADMIN_JWT", s.token("admin"))
			return nil
		},
	})
}

// site is a Region that serves, and the files of its clients.
type site struct {
	testing.TB
	dir    string
	server *gateway.Server
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey // of the authority and of the issuer of tokens
}

// TestMemberScripts is TestScripts in a Region that has a peer, ap-tokyo-1, and three
// operators, two of whom approve; $OPERATORS has their keys.
func TestMemberScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/members",
		Setup: func(e *testscript.Env) error {
			t := e.T().(testing.TB)
			net := keyopstest.NewNetwork()
			here := keyopstest.New(t, keyopstest.Options{Peers: net, Operators: 3, Quorum: approval.Optional()})
			there := keyopstest.New(t, keyopstest.Options{Name: "ap-tokyo-1", Peers: net})
			net.Add(here, there)
			keyopstest.Connect(t, here, there)
			s := serve(t, filepath.Join(e.WorkDir, ".region"), here)
			for i, k := range here.Operators {
				private, err := x509.MarshalPKCS8PrivateKey(k)
				s.check(err)
				s.check(os.WriteFile(s.path(fmt.Sprintf("operator-%d.key", i+1)), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
			}
			e.Setenv("OPERATORS", s.dir)
			e.Setenv("KEYFERRY_CONFIG", s.config("admin.yaml", "cert: admin.crt, key: admin.key"))
			return nil
		},
	})
}

// serve serves a Region on loopback until the test ends.
func serve(t testing.TB, dir string, region *keyopstest.Region) *site {
	t.Helper()
	s := &site{TB: t, dir: dir}
	s.check(os.Mkdir(dir, 0o700))
	var err error
	s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.check(err)
	s.issue("ca", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	s.issue("server", func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	s.issue("admin", func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "test.example", Path: "/user/admin"}}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: "one", Use: "sig"}}})
	s.check(err)
	s.check(os.WriteFile(s.path("jwks.json"), keys, 0o600))

	log, _ := logtest.NewNullLogger()
	log.SetLevel(logrus.ErrorLevel)
	s.server, err = gateway.New(gateway.Config{
		GRPCAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0",
		TLS:        gateway.TLSFiles{Certificate: s.path("server.crt"), Key: s.path("server.key"), ClientCA: s.path("ca.crt")},
		Principals: []gateway.Rule{{SPIFFE: "spiffe://test.example/user/*", Principal: "arn:aws:iam::111122223333:user/*"}},
		Bearer: &gateway.Bearer{
			Config:     bearer.Config{Issuer: "https://id.example.org", Audience: "keyferry", KeysFile: s.path("jwks.json")},
			Principals: []gateway.ClaimRule{{Claim: "sub", Pattern: "*", Principal: "arn:aws:iam::111122223333:user/*"}},
		},
		Region: "eu-paris-1", Keys: region.Service, Log: log, DrainTimeout: time.Second,
		Health: func(context.Context) error { return nil },
	})
	s.check(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		s.check(<-done)
	})
	return s
}

func (s *site) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// issue writes name.crt and name.key. The first certificate is the authority's.
func (s *site) issue(name string, change func(*x509.Certificate)) {
	s.Helper()
	key, template := s.key, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	change(template)
	parent := s.ca
	if parent == nil {
		parent = template
	} else {
		var err error
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.check(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), s.key)
	s.check(err)
	if s.ca == nil {
		s.ca, err = x509.ParseCertificate(der)
		s.check(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	s.check(err)
	s.check(os.WriteFile(s.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	s.check(os.WriteFile(s.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	_, err = tls.LoadX509KeyPair(s.path(name+".crt"), s.path(name+".key"))
	s.check(err)
}

// config writes a configuration of the command with one credential.
func (s *site) config(name, credential string) string {
	s.Helper()
	text := fmt.Sprintf("default_region: eu-paris-1\nregions:\n  eu-paris-1: {grpc: %q, ca: ca.crt, %s}\n", s.server.GRPCAddr(), credential)
	s.check(os.WriteFile(s.path(name), []byte(text), 0o600))
	return s.path(name)
}

// token is a bearer token of a user, for an hour.
func (s *site) token(user string) string {
	s.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", "one"))
	s.check(err)
	claims, err := json.Marshal(map[string]any{"iss": "https://id.example.org", "aud": "keyferry", "sub": user, "exp": time.Now().Add(time.Hour).Unix()})
	s.check(err)
	signed, err := signer.Sign(claims)
	s.check(err)
	text, err := signed.CompactSerialize()
	s.check(err)
	return text
}
