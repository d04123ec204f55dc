package gateway

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"slices"
	"time"
)

// CertificateDates says until when one of the files that this Server serves with is good.
type CertificateDates struct {
	Name     string // "server", or the name of a client authority
	NotAfter time.Time
}

// Certificates returns the server's certificate, or of its chain what expires first, and each
// client authority.
func (s *Server) Certificates() []CertificateDates {
	pair := s.certificate.Get()
	server := CertificateDates{"server", pair.Leaf.NotAfter}
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil && c.NotAfter.Before(server.NotAfter) {
			server.NotAfter = c.NotAfter
		}
	}
	all := []CertificateDates{server}
	for der := range s.clients.Get().trusted {
		if c, err := x509.ParseCertificate(bytes.Clone([]byte(der))); err == nil {
			all = append(all, CertificateDates{"client authority " + c.Subject.String(), c.NotAfter})
		}
	}
	slices.SortFunc(all[1:], func(a, b CertificateDates) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
