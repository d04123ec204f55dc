package gateway

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/gateway/reload"
)

const (
	maxAuthorities = 1 << 20
	maxList        = 16 << 20
	// maxEarly is how far in the future a revocation list may have been issued: clocks differ.
	maxEarly = 5 * time.Minute
)

// authorities are whose client certificates are taken, and which of these no longer are.
// Lists are read together with the authorities, since an authority's key verifies its list.
type authorities struct {
	pool    *x509.CertPool
	trusted map[string]bool     // DER
	lists   map[authority]*list // of the authorities that have one
}

// authority is a name and a key. Certificates of one authority may differ, as after renewal.
type authority struct{ subject, key string }

func authorityOf(c *x509.Certificate) authority {
	return authority{string(c.RawSubject), string(c.RawSubjectPublicKeyInfo)}
}

// list is a certificate revocation list (RFC 5280, section 5).
type list struct {
	path       string
	nextUpdate time.Time
	goodUntil  time.Time // nextUpdate and the configured grace
	revoked    map[string]bool
}

// loadAuthorities reads the authorities and their revocation lists.
func (f TLSFiles) loadAuthorities(now time.Time) (*authorities, error) {
	text, err := reload.ReadFile(f.ClientCA, maxAuthorities)
	if err != nil {
		return nil, fmt.Errorf("reading client authorities: %w", err)
	}
	a := &authorities{pool: x509.NewCertPool(), trusted: map[string]bool{}, lists: map[authority]*list{}}
	var all []*x509.Certificate
	for _, der := range pemBlocks(text, "CERTIFICATE") {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading client authorities %s: %w", f.ClientCA, err)
		}
		all = append(all, cert)
		a.pool.AddCert(cert)
		a.trusted[string(cert.Raw)] = true
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("reading client authorities %s: %w", f.ClientCA, errors.New("no certificate in it"))
	}
	for _, path := range f.CRLs {
		if err := a.addLists(path, all, f.CRLGrace, now); err != nil {
			return nil, fmt.Errorf("reading revocation list %s: %w", path, err)
		}
	}
	return a, nil
}

// addLists reads a file with one list in DER or any number in PEM.
func (a *authorities) addLists(path string, all []*x509.Certificate, grace time.Duration, now time.Time) error {
	text, err := reload.ReadFile(path, maxList)
	if err != nil {
		return err
	}
	lists := pemBlocks(text, "X509 CRL")
	if len(lists) == 0 {
		lists = [][]byte{text}
	}
	for _, der := range lists {
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		issuer, err := issuerOf(crl, all)
		if err != nil {
			return err
		}
		if a.lists[authorityOf(issuer)] != nil {
			return fmt.Errorf("a second list of %s", issuer.Subject)
		}
		l, err := newList(crl, now)
		if err != nil {
			return err
		}
		l.path, l.goodUntil = path, l.nextUpdate.Add(grace)
		a.lists[authorityOf(issuer)] = l
	}
	return nil
}

// issuerOf finds the authority whose key has signed a list.
func issuerOf(crl *x509.RevocationList, all []*x509.Certificate) (*x509.Certificate, error) {
	err := fmt.Errorf("%s is not among the client authorities", crl.Issuer)
	for _, candidate := range all {
		if !bytes.Equal(candidate.RawSubject, crl.RawIssuer) {
			continue
		}
		if err = crl.CheckSignatureFrom(candidate); err == nil {
			return candidate, nil
		}
	}
	return nil, err
}

// newList refuses a list that says less than which certificates of its issuer are revoked:
// the critical extensions make it a part of one, a change to one, or one of many issuers.
func newList(crl *x509.RevocationList, now time.Time) (*list, error) {
	for _, e := range crl.Extensions {
		if e.Critical {
			return nil, fmt.Errorf("critical extension %s: want a complete list of one authority", e.Id)
		}
	}
	if crl.NextUpdate.IsZero() {
		return nil, errors.New("it does not say when the next update is due")
	}
	if crl.ThisUpdate.Sub(now) > maxEarly {
		return nil, errors.New("it is of the future")
	}
	l := &list{nextUpdate: crl.NextUpdate, revoked: make(map[string]bool, len(crl.RevokedCertificateEntries))}
	for _, entry := range crl.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("critical extension %s of an entry: want a list of one authority", e.Id)
			}
		}
		l.revoked[entry.SerialNumber.String()] = true
	}
	return l, nil
}

// leaf returns the certificate that a client has shown, if a chain that was verified during
// the handshake is still good: connections outlive dates, lists and authorities. Without a
// chain there is neither a certificate nor an error.
func (a *authorities) leaf(chains [][]*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	var first error
	for _, chain := range chains {
		err := a.check(chain, now)
		if err == nil {
			return chain[0], nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (a *authorities) check(chain []*x509.Certificate, now time.Time) error {
	if !a.trusted[string(chain[len(chain)-1].Raw)] {
		return errDistrusted
	}
	for i, cert := range chain {
		if now.After(cert.NotAfter) {
			return errExpired
		}
		if i == len(chain)-1 {
			return nil // what is trusted is trusted by the file, not by an issuer
		}
		l := a.lists[authorityOf(chain[i+1])]
		switch {
		case l == nil:
		case l.revoked[cert.SerialNumber.String()]:
			return errRevoked
		case now.After(l.goodUntil):
			return errStaleList
		}
	}
	return nil
}

// checkLists finds lists that are overdue, before and after certificates are refused for it.
func (s *Server) checkLists(context.Context, bool) (bool, error) {
	var overdue []error
	for _, l := range s.clients.Get().lists {
		if s.config.Now().After(l.nextUpdate) {
			overdue = append(overdue, fmt.Errorf("revocation list %s: the next update was due at %s", l.path, l.nextUpdate.UTC().Format(time.RFC3339)))
		}
	}
	return false, errors.Join(overdue...)
}

// pemBlocks returns the contents of all blocks of a kind.
func pemBlocks(text []byte, kind string) (out [][]byte) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		if block.Type == kind {
			out = append(out, block.Bytes)
		}
	}
}
