package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// load reads the files and returns a configuration that demands a client certificate.
func (f TLSFiles) load() (*tls.Config, error) {
	info, err := os.Stat(f.Key)
	if err != nil {
		return nil, fmt.Errorf("reading TLS key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("TLS key %s is open to others: chmod o= it", f.Key)
	}
	cert, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, fmt.Errorf("reading TLS certificate %s: %w", f.Certificate, err)
	}
	authorities, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("reading client authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("reading client authorities %s: %w", f.ClientCA, errors.New("no certificate in it"))
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// Sessions are not resumed, so that every connection shows its certificate again.
		SessionTicketsDisabled: true,
	}, nil
}

// forREST lets a client without a certificate finish the handshake, because liveness probes
// have none; a certificate that is shown is verified. The API itself refuses such a client.
func forREST(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ClientAuth = tls.VerifyClientCertIfGiven
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
}
