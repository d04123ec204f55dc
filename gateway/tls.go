package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keyferry/keyferry/gateway/reload"
)

// loadTLS reads the files, and has the watcher keep what was made of them current. The
// server's pair and the clients' authorities are replaced each as a whole.
func (s *Server) loadTLS(w *reload.Watcher) (err error) {
	f, now := s.config.TLS, s.config.Now
	s.certificate, err = reload.Load(w, "server certificate",
		func() (tls.Certificate, error) { return f.loadPair(now()) }, f.Certificate, f.Key)
	if err != nil {
		return err
	}
	s.clients, err = reload.Load(w, "client authorities",
		func() (*authorities, error) { return f.loadAuthorities(now()) }, append([]string{f.ClientCA}, f.CRLs...)...)
	if err != nil {
		return err
	}
	w.Add("revocation lists", s.checkLists)
	return nil
}

func (f TLSFiles) loadPair(now time.Time) (tls.Certificate, error) {
	info, err := os.Stat(f.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading TLS key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return tls.Certificate{}, fmt.Errorf("TLS key %s is open to others: chmod o= it", f.Key)
	}
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading TLS certificate %s: %w", f.Certificate, err)
	}
	if now.After(pair.Leaf.NotAfter) {
		return tls.Certificate{}, fmt.Errorf("reading TLS certificate %s: %w", f.Certificate, errors.New("it has expired"))
	}
	return pair, nil
}

// tlsConfig is that of a listener. Each handshake sees the certificate, the authorities and
// the revocation lists that are in force when it begins.
func (s *Server) tlsConfig(auth tls.ClientAuthType, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			clients := s.clients.Get()
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				NextProtos:   protocols,
				Certificates: []tls.Certificate{s.certificate.Get()},
				ClientCAs:    clients.pool,
				ClientAuth:   auth,
				// Sessions are not resumed, so that every connection shows its certificate again.
				SessionTicketsDisabled: true,
				VerifyConnection: func(state tls.ConnectionState) error {
					_, err := clients.leaf(state.VerifiedChains, s.config.Now())
					return err
				},
			}, nil
		},
	}
}

// grpcClientAuth demands a certificate unless there is another way to say who one is.
func (s *Server) grpcClientAuth() tls.ClientAuthType {
	if s.bearer != nil {
		return tls.VerifyClientCertIfGiven
	}
	return tls.RequireAndVerifyClientCert
}

// restClientAuth lets a client without a certificate finish the handshake, because liveness
// probes have none; a certificate that is shown is verified. The API itself refuses a client
// that shows nothing.
const restClientAuth = tls.VerifyClientCertIfGiven
