package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keyferry/keyferry/cmd/internal/cliconfig"
)

// credentialsOf is how a Region is recognised, and what is shown to it.
func credentialsOf(e cliconfig.Region) ([]grpc.DialOption, error) {
	pem, err := os.ReadFile(e.CA)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's certificate: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool()}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the authority's certificate: %s holds no PEM certificate", e.CA)
	}
	if e.TokenFile != "" {
		return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(c)), grpc.WithPerRPCCredentials(tokenFile(e.TokenFile))}, nil
	}
	cert, err := tls.LoadX509KeyPair(e.Cert, e.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the client certificate: %w", err)
	}
	c.Certificates = []tls.Certificate{cert}
	return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(c))}, nil
}

// maxToken bounds a bearer token (bytes). The daemon takes no longer ones.
const maxToken = 8 << 10

// tokenFile is the path of a file with a bearer token. It is read at every call, because
// what renews the token replaces the file while a command polls.
type tokenFile string

// GetRequestMetadata shows the token. An error of its own is the call's, so it names the
// file and what to do, and never the token.
func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("reading the bearer token: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// RequireTransportSecurity keeps the token from every connection without TLS.
func (tokenFile) RequireTransportSecurity() bool { return true }

func (f tokenFile) read() ([]byte, error) {
	// O_NONBLOCK: a FIFO would wait for a writer before it can be refused.
	file, err := os.OpenFile(string(f), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", string(f))
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o, so others can use the token: chmod 600 it", string(f), info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(file, maxToken+2))
	if err != nil {
		return nil, err
	}
	token := bytes.TrimSuffix(b, []byte("\n"))
	switch {
	case len(token) > maxToken:
		return nil, fmt.Errorf("%s is longer than a token can be, %d bytes", string(f), maxToken)
	case len(token) == 0 || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fmt.Errorf("%s does not hold one token and nothing else", string(f))
	}
	return token, nil
}
