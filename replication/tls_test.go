package replication_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/replication"
)

// ownCertificate is a certificate that anybody can make, as a client's authority would for
// a client.
func ownCertificate(t *testing.T, names []*url.URL, extensions []pkix.Extension) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: names,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, ExtraExtensions: extensions,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// shown returns the certificate that a peer listener shows to whoever connects.
func shown(t *testing.T, s *site) *x509.Certificate {
	t.Helper()
	var cert *x509.Certificate
	conn, err := tls.Dial("tcp", s.address, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"},
		VerifyConnection: func(cs tls.ConnectionState) error { cert = cs.PeerCertificates[0]; return nil },
	})
	if err == nil {
		conn.Close()
	}
	if cert == nil {
		t.Fatal("no certificate was shown")
	}
	return cert
}

// enters reports whether a TLS configuration gets past the handshake of a peer listener.
func enters(s *site, cfg *tls.Config) error {
	cfg.InsecureSkipVerify, cfg.NextProtos = true, []string{"h2"}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", s.address, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	// With TLS 1.3 the server's refusal arrives with the first read.
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestWhoMayEnterThePeerListener(t *testing.T) {
	sites := deploy(t, paris, east)
	certificate := shown(t, sites[1])
	var certified []pkix.Extension
	for _, e := range certificate.Extensions {
		if len(e.Id) > 1 && e.Id[:2].Equal(asn1.ObjectIdentifier{2, 25}) {
			certified = append(certified, e)
		}
	}
	if len(certified) != 1 || len(certificate.URIs) != 1 {
		t.Fatalf("the peer's certificate has %d certifications and %d names", len(certified), len(certificate.URIs))
	}
	tests := []struct {
		name string
		cfg  *tls.Config
	}{
		{"without a certificate", &tls.Config{}},
		{"with a client's certificate", &tls.Config{Certificates: []tls.Certificate{ownCertificate(t, nil, nil)}}},
		{"with a peer's name", &tls.Config{Certificates: []tls.Certificate{ownCertificate(t, certificate.URIs, nil)}}},
		{"with a peer's certification of another key", &tls.Config{Certificates: []tls.Certificate{ownCertificate(t, certificate.URIs, certified)}}},
		{"over TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var alert tls.AlertError
			err := enters(sites[0], tt.cfg)
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("let in (%v)", err)
			}
			if !errors.As(err, &alert) {
				var op *net.OpError
				if !errors.As(err, &op) {
					t.Errorf("refused with %v, want a TLS alert", err)
				}
			}
		})
	}
	eventually(t, "the peer itself is let in", func() (bool, string) { return sites[1].repl.Heard(paris), "" })
}

// To whoever trusts authorities, as the clients' listener does, a peer's certificate is
// nobody's.
func TestPeerCertificateIsWorthNothingElsewhere(t *testing.T) {
	sites := deploy(t, paris, east)
	cert := shown(t, sites[1])
	for name, roots := range map[string]*x509.CertPool{"no authority": x509.NewCertPool(), "another peer": pool(shown(t, sites[0]))} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
			t.Errorf("trusting %s, a peer's certificate is accepted", name)
		}
	}
	if cert.IsCA {
		t.Error("a peer's certificate may certify others")
	}
}

func pool(c *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c)
	return p
}

// A Region that was initialised again is another instance: its peers do not know it.
func TestReinitialisedRegionIsAStranger(t *testing.T) {
	sites := prepare(t, paris, east)
	sites[0].start()
	again := keyopstest.New(t, keyopstest.Options{Name: east})
	impostor := newSite(t, again)
	impostor.address, impostor.all = sites[1].address, sites
	impostor.startWith([]replication.Peer{{Descriptor: sites[0].region.Descriptor.Descriptor, Address: sites[0].address}})
	eventually(t, "Paris has tried", func() (bool, string) {
		rows := sites[0].repl.Peers()
		return rows[0].LastError != "" && rows[0].Connected.IsZero(), ""
	})
	time.Sleep(300 * time.Millisecond)
	if sites[0].repl.Heard(east) || impostor.repl.Heard(paris) {
		t.Error("a Region and one that has not pinned it have talked")
	}
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	time.Sleep(200 * time.Millisecond)
	if _, err := again.SharedKey(id); !errors.Is(err, keyops.ErrNotFound) {
		t.Errorf("the impostor has the key: %v", err)
	}
	if got := sites[0].region.Fake.Calls()["C_WrapKey"]; got != 0 {
		t.Errorf("%d C_WrapKey for an impostor", got)
	}
}

// A TLS key is certified for a day only, by the clocks of both ends.
func TestTLSKeyExpires(t *testing.T) {
	sites := prepare(t, paris, east)
	var ahead atomic.Int64
	sites[0].config = func(c *replication.Config) {
		c.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}
	ahead.Store(int64(30 * time.Minute))
	for _, s := range sites {
		s.start()
	}
	eventually(t, "clocks half an hour apart are no obstacle", func() (bool, string) { return sites[0].repl.Heard(east), "" })
	for _, s := range sites {
		s.stop()
	}
	ahead.Store(int64(26 * time.Hour))
	for _, s := range sites {
		s.start()
	}
	eventually(t, "a key of yesterday is refused", func() (bool, string) {
		row := sites[0].repl.Peers()[0]
		return row.Connected.IsZero() && row.LastError != "", row.LastError
	})
	if sites[0].repl.Heard(east) {
		t.Error("heard over a connection with an expired key")
	}
}
