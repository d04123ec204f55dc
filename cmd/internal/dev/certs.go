package dev

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"regexp"
	"time"
)

// The names in client certificates are under this trust domain.
const trustDomain = "keyferry.dev"

// Certificates last as long as anybody leaves a development deployment alone.
const lifetime = 365 * 24 * time.Hour

// makeAuthority makes the deployment's certificate authority. The certificate is written
// last, so that where it is, the key is too.
func (d *Deployment) makeAuthority() error {
	if exists(d.path("ca.crt")) {
		return nil
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Keyferry development authority"},
		IsCA:    true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return d.issue("ca", template, nil, nil)
}

// makeServerCertificate makes the certificate of one Region's listeners.
func (d *Deployment) makeServerCertificate(r RegionPlan) error {
	name := "regions/" + string(r.Name) + "/server"
	if exists(d.path(name + ".crt")) {
		return nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: string(r.Name)},
		DNSNames:    []string{"localhost", string(r.Name) + ".localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return d.issueSigned(name, template)
}

var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// MakeClient makes a certificate for the principal user/<name>, and a configuration file
// with which the keyferry command uses it, if they are not there yet. It returns the
// configuration file's path.
func (d *Deployment) MakeClient(name string) (string, error) {
	if !clientName.MatchString(name) {
		return "", fmt.Errorf("client name %q: want 1 to 64 letters, digits, or . _ -", name)
	}
	stem := "clients/" + name + "/client"
	if !exists(d.path(stem + ".crt")) {
		template := &x509.Certificate{
			Subject:     pkix.Name{CommonName: name},
			URIs:        []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/user/" + name}},
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		if err := d.issueSigned(stem, template); err != nil {
			return "", err
		}
	}
	return d.writeClientConfig(name)
}

func (d *Deployment) issueSigned(name string, template *x509.Certificate) error {
	pair, err := tls.LoadX509KeyPair(d.path("ca.crt"), d.path("ca.key"))
	if err != nil {
		return fmt.Errorf("loading the development authority: %w", err)
	}
	return d.issue(name, template, pair.Leaf, pair.PrivateKey.(crypto.Signer))
}

// issue writes name.key and then name.crt, signed by the parent or by itself.
func (d *Deployment) issue(name string, template, parent *x509.Certificate, signer crypto.Signer) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // clocks of containers differ
	template.NotAfter = time.Now().Add(lifetime)
	if parent == nil {
		parent, signer = template, key
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("making certificate %s: %w", name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := d.writePEM(name+".key", "PRIVATE KEY", pkcs8); err != nil {
		return err
	}
	return d.writePEM(name+".crt", "CERTIFICATE", cert)
}

func (d *Deployment) writePEM(name, kind string, der []byte) error {
	return writeFile(d.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// clientTLS is the mutual TLS configuration of the named client.
func (d *Deployment) clientTLS(name string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(d.path("ca.crt"))
	if err != nil {
		return nil, err
	}
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca.crt holds no certificate")
	}
	pair, err := tls.LoadX509KeyPair(d.path("clients", name, "client.crt"), d.path("clients", name, "client.key"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}
