package replication

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"

	"crypto/x509/pkix"
)

// A Region's TLS key lives in memory for a day. Its certificate is signed by itself and
// means nothing to any X.509 verifier, a client listener included; it carries a statement
// in which the Region signing key certifies the TLS key. Peers check that statement against
// the pinned descriptor, and nothing else.

// certificateLife is how long a TLS key is certified; it is replaced at half of it.
const certificateLife = 24 * time.Hour

// clockSkew is how far two Regions' clocks may differ for a connection.
const clockSkew = time.Hour

// statementExtension is the certificate extension that carries the statement: an OID of
// the arc for UUIDs, which needs no registration, "keyf" as a number.
var statementExtension = asn1.ObjectIdentifier{2, 25, 1801812326, 1}

// errNotPinned means that a connection's other end is no peer of this Region.
var errNotPinned = errors.New("not a pinned peer")

// tlsClaim is what the statement says.
type tlsClaim struct {
	message.Party
	spki      []byte
	notBefore int64
	notAfter  int64
}

func (c tlsClaim) payload() []byte {
	var w wire.Writer
	w.Uint(message.Version)
	w.String(string(c.Region))
	w.String(string(c.Instance))
	w.Bytes(c.spki)
	w.Uint(uint64(c.notBefore))
	w.Uint(uint64(c.notAfter))
	return w.Out()
}

func parseTLSClaim(p []byte) (tlsClaim, error) {
	r := wire.NewReader(p)
	if v := r.Uint(); r.Err() == nil && v != message.Version {
		r.Fail("version %d", v)
	}
	c := tlsClaim{Party: message.DecodeParty(r), spki: r.Bytes(1024)}
	from, to := r.Uint(), r.Uint()
	if from > 1<<40 || to > 1<<40 {
		r.Fail("time out of range")
	}
	c.notBefore, c.notAfter = int64(from), int64(to)
	if err := r.Done(); err != nil {
		return c, fmt.Errorf("parsing TLS certification: %w", err)
	}
	return c, nil
}

// holds refuses a claim outside its time, and one for longer than a Region certifies itself:
// whoever had the PIN for a while must not have made a key that is good for years.
func (c tlsClaim) holds(now time.Time) error {
	from, to := time.Unix(c.notBefore, 0).UTC(), time.Unix(c.notAfter, 0).UTC()
	if now.Before(from) || now.After(to) || to.Sub(from) > certificateLife+clockSkew {
		return fmt.Errorf("certified from %s to %s, now is %s; at most %s are taken",
			from.Format(time.RFC3339), to.Format(time.RFC3339), now.UTC().Format(time.RFC3339), certificateLife+clockSkew)
	}
	return nil
}

// identity is this Region's TLS key of the day.
type identity struct {
	self  message.Party
	clock func() time.Time
	now   atomic.Pointer[dayKey]
}

type dayKey struct {
	certificate tls.Certificate
	made        time.Time
}

// due reports whether the key should be replaced.
func (i *identity) due() bool {
	k := i.now.Load()
	age := time.Duration(0)
	if k != nil {
		age = i.clock().Sub(k.made)
	}
	return k == nil || age > certificateLife/2 || age < 0
}

// renew makes a new key and has it certified. The key before stays in use if that fails.
func (i *identity) renew(ctx context.Context, signer mrk.Signer) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generating TLS key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding TLS key: %w", err)
	}
	made := i.clock()
	from, to := made.Add(-clockSkew), made.Add(certificateLife)
	signed, err := signer.Sign(ctx, statement.PeerTLS, tlsClaim{i.self, spki, from.Unix(), to.Unix()}.payload())
	if err != nil {
		return fmt.Errorf("certifying TLS key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("drawing a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: from, NotAfter: to,
		Subject:         pkix.Name{CommonName: string(i.self.Region)},
		URIs:            []*url.URL{i.self.URI()},
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{{Id: statementExtension, Value: signed.Marshal()}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("making TLS certificate: %w", err)
	}
	i.now.Store(&dayKey{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, made})
	return nil
}

// certifiedUntil returns until when this Region's TLS key is certified; zero if none is.
func (i *identity) certifiedUntil() time.Time {
	if k := i.now.Load(); k != nil {
		return k.made.Add(certificateLife)
	}
	return time.Time{}
}

// CertifiedUntil returns until when this Region's TLS key for peers is certified, or the zero
// time. It is replaced at half of its life.
func (r *Replicator) CertifiedUntil() time.Time { return r.identity.certifiedUntil() }

// certified remembers until when the TLS key is certified that a peer has shown last.
func (r *Replicator) certified(c tlsClaim) {
	if p, ok := r.peers[c.Region]; ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.certifiedUntil = time.Unix(c.notAfter, 0).UTC()
	}
}

func (i *identity) certificate() (*tls.Certificate, error) {
	if k := i.now.Load(); k != nil {
		return &k.certificate, nil
	}
	return nil, errors.New("no TLS key is certified yet")
}

// config returns the TLS configuration of one connection's end. verify gets what the other
// end has proven to be.
func (i *identity) config(pins pins, verify func(tlsClaim) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, // every connection shows a certificate of today
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.certificate()
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return i.certificate()
		},
		InsecureSkipVerify: true, // no authority is trusted here; VerifyConnection checks the pin
		VerifyConnection: func(cs tls.ConnectionState) error {
			c, err := pins.verifyTLS(cs, i.clock())
			if err != nil {
				return err
			}
			return verify(c)
		},
	}
}

// verifyTLS returns whose connection it is.
func (ps pins) verifyTLS(cs tls.ConnectionState, now time.Time) (tlsClaim, error) {
	if len(cs.PeerCertificates) != 1 {
		return tlsClaim{}, fmt.Errorf("%w: %d certificates", errNotPinned, len(cs.PeerCertificates))
	}
	cert := cs.PeerCertificates[0]
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(statementExtension) {
			continue
		}
		signed, err := statement.Parse(ext.Value)
		if err != nil || signed.Purpose != statement.PeerTLS {
			return tlsClaim{}, fmt.Errorf("%w: certificate without a certification", errNotPinned)
		}
		return ps.verifyClaim(cert, signed, now)
	}
	return tlsClaim{}, fmt.Errorf("%w: certificate without a certification", errNotPinned)
}

// verifyClaim checks the statement of the one certificate that was shown.
func (ps pins) verifyClaim(cert *x509.Certificate, signed statement.Signed, now time.Time) (tlsClaim, error) {
	var claim tlsClaim
	verified := false
	for _, d := range ps {
		// Whose it says to be is inside; so it is tried under each of the few pinned keys,
		// and parsed after one of them has verified it.
		if d.Verify(signed) != nil {
			continue
		}
		c, err := parseTLSClaim(signed.Payload)
		if err != nil {
			return tlsClaim{}, err
		}
		if c.Region == d.Region && c.Instance == d.Instance {
			claim, verified = c, true
		}
	}
	if !verified {
		return tlsClaim{}, fmt.Errorf("%w: certified by an unknown Region signing key", errNotPinned)
	}
	if string(cert.RawSubjectPublicKeyInfo) != string(claim.spki) {
		return tlsClaim{}, fmt.Errorf("%w: certification of another TLS key", errNotPinned)
	}
	if len(cert.URIs) != 1 || *cert.URIs[0] != *claim.URI() {
		return tlsClaim{}, fmt.Errorf("%w: certificate names another instance", errNotPinned)
	}
	if err := claim.holds(now); err != nil {
		return tlsClaim{}, fmt.Errorf("%w: TLS key of %s %w", errNotPinned, claim.Region, err)
	}
	return claim, nil
}
