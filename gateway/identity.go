package gateway

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/wire"
)

// forwardedKey is the one metadata key in which REST forwards who is calling. It is believed
// on in-process connections, and its presence on any other is an attack.
const forwardedKey = "keyferry-forwarded-bin"

// forwarded is what REST knows of a call and the gRPC server must hear.
type forwarded struct {
	leaf       []byte // DER of the verified client certificate; empty without one
	remoteAddr string // host and port of the client
	requestID  string
}

func (f forwarded) marshal() string {
	var w wire.Writer
	w.Bytes(f.leaf)
	w.String(f.remoteAddr)
	w.String(f.requestID)
	return string(w.Out())
}

func unmarshalForwarded(s string) (forwarded, error) {
	r := wire.NewReader([]byte(s))
	f := forwarded{leaf: r.Bytes(64 << 10), remoteAddr: r.String(256), requestID: r.String(64)}
	if err := r.Done(); err != nil {
		return forwarded{}, fmt.Errorf("reading forwarded identity: %w", err)
	}
	return f, nil
}

// credential is what a caller has shown, before a rule names its principal. A bearer token
// will be another field of it.
type credential struct {
	leaf       *x509.Certificate // verified by TLS; nil without one
	remoteAddr string
	requestID  string // given by REST; empty if the call came by gRPC
}

// credentialOf collects what the caller of ctx has shown.
func credentialOf(ctx context.Context) (credential, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return credential{}, errNoCredential
	}
	md, _ := metadata.FromIncomingContext(ctx)
	claims := md.Get(forwardedKey)

	switch auth := p.AuthInfo.(type) {
	case inProcessAuth:
		if len(claims) != 1 {
			return credential{}, errNoCredential
		}
		f, err := unmarshalForwarded(claims[0])
		if err != nil {
			return credential{}, err
		}
		c := credential{remoteAddr: f.remoteAddr, requestID: f.requestID}
		if len(f.leaf) == 0 {
			return c, nil
		}
		if c.leaf, err = x509.ParseCertificate(f.leaf); err != nil {
			return credential{}, fmt.Errorf("reading forwarded certificate: %w", err)
		}
		return c, nil
	case credentials.TLSInfo:
		if len(claims) != 0 {
			return credential{}, errForged
		}
		c := credential{remoteAddr: p.Addr.String()}
		// A chain, not only a certificate: it was verified against the client authorities.
		if chains := auth.State.VerifiedChains; len(chains) > 0 {
			c.leaf = chains[0][0]
		}
		return c, nil
	default:
		return credential{}, errNoCredential
	}
}

// principal names the caller. now is compared with the certificate's dates again, since a
// connection can outlive its certificate.
func (c credential) principal(rules mapper, now time.Time) (arn.Principal, error) {
	if c.leaf == nil {
		return arn.Principal{}, errNoCredential
	}
	if now.After(c.leaf.NotAfter) {
		return arn.Principal{}, errExpired
	}
	p, ok := rules.principal(c.leaf)
	if !ok {
		return arn.Principal{}, errNoRule
	}
	return p, nil
}

// sourceIP returns the host of the client's address.
func (c credential) sourceIP() string {
	host, _, err := net.SplitHostPort(c.remoteAddr)
	if err != nil {
		return c.remoteAddr
	}
	return host
}
