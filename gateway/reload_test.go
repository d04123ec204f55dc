package gateway_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/gateway/alarm"
	"github.com/keyferry/keyferry/gateway/reload"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// watched is a server whose files a test replaces.
type watched struct {
	*served
	files  gateway.TLSFiles
	alarms *alarm.Set
	watch  *reload.Watcher
	ahead  atomic.Int64 // nanoseconds that the clock has moved
}

func startWatched(t *testing.T, change func(ca *authority, c *gateway.Config)) *watched {
	t.Helper()
	t.Parallel()
	w := &watched{}
	s := &served{t: t, keys: &fakeKeys{t: t}}
	w.served = s.start(s.keys, func(c *gateway.Config) {
		w.alarms = alarm.New(c.Log)
		w.watch = reload.NewWatcher(c.Log, w.alarms)
		c.Files = w.watch
		c.Now = func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
		if change != nil {
			change(s.ca, c)
		}
		w.files = c.TLS
	})
	return w
}

// look has the server look at its files, and demands how one alarm then stands.
func (w *watched) look(name string, stands bool) {
	w.t.Helper()
	w.watch.Check(context.Background(), false)
	for _, a := range w.alarms.All() {
		if a.Name == name {
			if (a.Cause != nil) != stands {
				w.t.Errorf("alarm %s stands because of %v, want %v", name, a.Cause, stands)
			}
			return
		}
	}
	if stands {
		w.t.Errorf("alarm %s was not raised", name)
	}
}

// put replaces a file as operators should: by renaming.
func (w *watched) put(path string, data []byte) {
	w.t.Helper()
	if err := os.WriteFile(path+".next", data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		w.t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func pemOf(kind string, ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return out
}

// shows returns the serial number of the certificate that a listener shows.
func (w *watched) shows(address string) string {
	w.t.Helper()
	c := w.ca.trusting(w.ca.issue(aliceURI, nil))
	c.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestServerCertificateIsReplaced(t *testing.T) {
	w := startWatched(t, nil)
	addresses := []string{w.GRPCAddr().String(), w.RESTAddr().String()}
	first := w.shows(addresses[0])
	pair := func(files gateway.TLSFiles) (string, []byte, []byte) {
		cert := read(t, files.Certificate)
		block, _ := pem.Decode(cert)
		leaf, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		return leaf.SerialNumber.String(), cert, read(t, files.Key)
	}
	second, cert, key := pair(w.ca.files())

	// Between the two renames the pair does not fit.
	w.put(w.files.Certificate, cert)
	w.look("server certificate", true)
	for _, a := range addresses {
		if got := w.shows(a); got != first {
			t.Errorf("%s shows %s with half of a pair, want %s", a, got, first)
		}
	}
	w.put(w.files.Key, key)
	w.look("server certificate", false)
	for _, a := range addresses {
		if got := w.shows(a); got != second {
			t.Errorf("%s shows %s, want %s", a, got, second)
		}
	}

	for name, spoil := range map[string]func(){
		"garbage": func() { w.put(w.files.Certificate, []byte("garbage")) },
		"missing": func() { must(t, os.Remove(w.files.Certificate)) },
		"open key": func() {
			w.put(w.files.Certificate, cert)
			must(t, os.Chmod(w.files.Key, 0o604))
		},
		"expired": func() {
			must(t, os.Chmod(w.files.Key, 0o600))
			old := w.ca.issue("", func(c *x509.Certificate) {
				serverCertificate(c)
				c.NotAfter = time.Now().Add(-time.Minute)
			})
			der, err := x509.MarshalPKCS8PrivateKey(old.PrivateKey)
			must(t, err)
			w.put(w.files.Certificate, pemOf("CERTIFICATE", old.Certificate[0]))
			w.put(w.files.Key, pemOf("PRIVATE KEY", der))
		},
	} {
		spoil()
		w.look("server certificate", true)
		if got := w.shows(addresses[0]); got != second {
			t.Errorf("%s: the old certificate is not in force", name)
		}
	}
}

func TestClientAuthoritiesAreReplaced(t *testing.T) {
	w := startWatched(t, nil)
	next := newAuthority(t)
	bob := next.issue("spiffe://test.example/user/bob", nil)
	if _, err := whoami(context.Background(), w.served, w.ca.trusting(bob)); err == nil {
		t.Fatal("a certificate of an authority yet unknown was taken")
	}
	old := read(t, w.files.ClientCA)

	w.put(w.files.ClientCA, append(old, pemOf("CERTIFICATE", next.cert.Raw)...))
	w.look("client authorities", false)
	if _, err := whoami(context.Background(), w.served, w.ca.trusting(bob)); err != nil {
		t.Errorf("the new authority's certificate: %v", err)
	}
	if w.get("/v1/whoami").code != http.StatusOK {
		t.Error("the old authority's certificate is refused")
	}

	w.put(w.files.ClientCA, []byte("-----BEGIN"))
	w.look("client authorities", true)
	if w.get("/v1/whoami").code != http.StatusOK {
		t.Error("a broken file has put the old authorities out of force")
	}

	// Alice's connections are open, and her authority goes.
	client := kmsv1.NewRegionServiceClient(w.grpc)
	_, err := client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
	must(t, err)
	w.put(w.files.ClientCA, pemOf("CERTIFICATE", next.cert.Raw))
	w.look("client authorities", false)
	_, err = client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
	if message := wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException"); !strings.Contains(message, "no longer trusted") {
		t.Errorf("refused with %q", message)
	}
	if answer := w.get("/v1/whoami"); answer.code != http.StatusUnauthorized {
		t.Errorf("REST: %d %s", answer.code, answer.body)
	}
}

// revoke makes a revocation list.
func (a *authority) revoke(number int64, change func(*x509.RevocationList), revoked ...tls.Certificate) []byte {
	a.t.Helper()
	l := &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
	}
	for _, c := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	if change != nil {
		change(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func startWithCRL(t *testing.T, grace time.Duration) (w *watched, path string) {
	path = filepath.Join(t.TempDir(), "clients.crl")
	w = startWatched(t, func(ca *authority, c *gateway.Config) {
		must(t, os.WriteFile(path, ca.revoke(1, nil), 0o600))
		c.TLS.CRLs, c.TLS.CRLGrace = []string{path}, grace
	})
	return w, path
}

func TestRevokedCertificates(t *testing.T) {
	w, path := startWithCRL(t, 0)
	carol := w.ca.issue("spiffe://test.example/user/carol", nil)
	bob := w.ca.issue("spiffe://test.example/user/bob", nil)
	conn, rest := w.dial(w.ca.trusting(carol)), w.client(w.ca.trusting(carol))
	client := kmsv1.NewRegionServiceClient(conn)
	_, err := client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
	must(t, err)
	ask := func() (int, string) {
		resp, err := rest.Get("https://" + w.RESTAddr().String() + "/v1/whoami")
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		return resp.StatusCode, ""
	}
	if code, text := ask(); code != http.StatusOK {
		t.Fatal(code, text)
	}

	w.put(path, pemOf("X509 CRL", w.ca.revoke(2, nil, carol)))
	w.look("client authorities", false)
	before := w.keys.count()
	_, err = client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
	if message := wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException"); !strings.Contains(message, "revoked") {
		t.Errorf("on an open connection: %q", message)
	}
	if code, text := ask(); code != http.StatusUnauthorized {
		t.Errorf("by REST on an open connection: %d %s", code, text)
	}
	if _, err := whoami(context.Background(), w.served, w.ca.trusting(carol)); err == nil {
		t.Error("on a new connection: taken")
	}
	if _, err := w.client(w.ca.trusting(carol)).Get("https://" + w.RESTAddr().String() + "/healthz"); err == nil {
		t.Error("by REST on a new connection: the handshake was finished")
	}
	if w.keys.count() != before {
		t.Error("keys were reached")
	}
	if _, err := whoami(context.Background(), w.served, w.ca.trusting(bob)); err != nil {
		t.Errorf("another's certificate: %v", err)
	}
}

func TestRevocationListsThatAreRefused(t *testing.T) {
	w, path := startWithCRL(t, 0)
	stranger := newAuthority(t)
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	alice := w.ca.issue(aliceURI, nil)
	good := w.ca.revoke(2, nil)
	for name, list := range map[string][]byte{
		"empty":                  nil,
		"garbage":                []byte("garbage"),
		"of another authority":   stranger.revoke(2, nil, alice),
		"changed":                append(good[:len(good)-1:len(good)-1], good[len(good)-1]^1),
		"of the future":          w.ca.revoke(2, func(l *x509.RevocationList) { l.ThisUpdate = time.Now().Add(30 * time.Minute) }, alice),
		"a change to another":    w.ca.revoke(2, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical} }, alice),
		"two of one authority":   append(pemOf("X509 CRL", good), pemOf("X509 CRL", good)...),
		"one of many and broken": append(pemOf("X509 CRL", good), pemOf("X509 CRL", []byte("x"))...),
		"entry of another issuer": w.ca.revoke(2, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: alice.Leaf.SerialNumber, RevocationTime: time.Now(),
				ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}}}
		}),
	} {
		w.put(path, list)
		w.look("client authorities", true)
		if code := w.get("/v1/whoami").code; code != http.StatusOK {
			t.Errorf("%s: the old list is not in force: %d", name, code)
		}
	}
}

func TestOverdueRevocationLists(t *testing.T) {
	w, path := startWithCRL(t, time.Hour)
	due := func(d time.Duration) []byte {
		return w.ca.revoke(2, func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(d)
		})
	}
	long := w.ca.issue(aliceURI, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * time.Hour) })
	client := kmsv1.NewRegionServiceClient(w.dial(w.ca.trusting(long)))
	call := func() error {
		_, err := client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
		return err
	}
	w.look("revocation lists", false)
	w.ahead.Store(int64(90 * time.Minute)) // the list was due after 60, and has 60 more
	w.look("revocation lists", true)
	if err := call(); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	w.put(path, due(100*time.Minute))
	w.look("revocation lists", false)

	w.put(path, due(20*time.Minute))
	w.look("revocation lists", true)
	if message := wantStatus(t, call(), codes.Unauthenticated, "UnrecognizedClientException"); !strings.Contains(message, "out of date") {
		t.Errorf("beyond the grace: %q", message)
	}
	if _, err := whoami(context.Background(), w.served, w.ca.trusting(long)); err == nil {
		t.Error("beyond the grace a new connection is taken")
	}
}

func TestAlarmsAreLogged(t *testing.T) {
	w := startWatched(t, nil)
	w.put(w.files.ClientCA, []byte("garbage"))
	w.look("client authorities", true)
	for _, e := range w.logs.AllEntries() {
		if e.Level == logrus.ErrorLevel && e.Message == "alarm raised" && e.Data["alarm"] == "client authorities" && e.Data["count"] == uint64(1) {
			return
		}
	}
	t.Error("no entry of the alarm")
}

// TestChainsOfAuthorities has an authority below the trusted one, and revokes it.
func TestChainsOfAuthorities(t *testing.T) {
	w, path := startWithCRL(t, 0)
	below := newAuthority(t)
	sub := w.ca.sign(&x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "below"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, below.key)
	below.cert = sub
	leaf := below.issue(aliceURI, nil)
	leaf.Certificate = append(leaf.Certificate, sub.Raw)
	if _, err := whoami(context.Background(), w.served, w.ca.trusting(leaf)); err != nil {
		t.Fatalf("before: %v", err)
	}
	w.put(path, w.ca.revoke(2, nil, tls.Certificate{Leaf: sub}))
	w.look("client authorities", false)
	if _, err := whoami(context.Background(), w.served, w.ca.trusting(leaf)); status.Code(err) == codes.OK {
		t.Error("taken although the authority between is revoked")
	}
}
