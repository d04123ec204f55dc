package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/wire"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// forwardedKey is the one metadata key in which REST forwards who is calling. It is believed
// on in-process connections, and its presence on any other is an attack.
const forwardedKey = "keyferry-forwarded-bin"

// tokenKey is where gRPC clients show a bearer token; REST clients have a header of that name.
const tokenKey = "authorization"

// forwarded is what REST knows of a call and the gRPC server must hear.
type forwarded struct {
	leaf       []byte // DER of the verified client certificate; empty without one
	token      string // bearer token, not yet verified; empty without one
	remoteAddr string // host and port of the client
	requestID  string
}

func (f forwarded) marshal() string {
	var w wire.Writer
	w.Bytes(f.leaf)
	w.String(f.token)
	w.String(f.remoteAddr)
	w.String(f.requestID)
	return string(w.Out())
}

func unmarshalForwarded(s string) (forwarded, error) {
	r := wire.NewReader([]byte(s))
	f := forwarded{leaf: r.Bytes(64 << 10), token: r.String(maxHeaders), remoteAddr: r.String(256), requestID: r.String(64)}
	if err := r.Done(); err != nil {
		return forwarded{}, fmt.Errorf("reading forwarded identity: %w", err)
	}
	return f, nil
}

func (f forwarded) credential() (credential, error) {
	c := credential{token: f.token, remoteAddr: f.remoteAddr, requestID: f.requestID}
	if len(f.leaf) == 0 {
		return c, nil
	}
	var err error
	if c.leaf, err = x509.ParseCertificate(f.leaf); err != nil {
		return credential{}, fmt.Errorf("reading forwarded certificate: %w", err)
	}
	return c, nil
}

// credential is what a caller has shown, before a rule names its principal.
type credential struct {
	leaf       *x509.Certificate // of a chain that is good now; nil without one
	token      string            // bearer token, not yet verified; empty without one
	remoteAddr string
	requestID  string // given by REST; empty if the call came by gRPC
}

// credentialOf collects what the caller of ctx has shown.
func (s *Server) credentialOf(ctx context.Context) (c credential, err error) {
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
		return f.credential()
	case credentials.TLSInfo:
		if len(claims) != 0 {
			return credential{}, errForged
		}
		c := credential{remoteAddr: p.Addr.String()}
		// Chains, not only certificates: they were verified against the client authorities.
		if c.leaf, err = s.clients.Get().leaf(auth.State.VerifiedChains, s.config.Now()); err != nil {
			return c, err
		}
		c.token, err = s.shownToken(md.Get(tokenKey))
		return c, err
	default:
		return credential{}, errNoCredential
	}
}

// shownToken returns the bearer token of a call. What is there and cannot be one is refused,
// not passed over: the caller means something by it.
func (s *Server) shownToken(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	if s.bearer == nil {
		return "", errNoBearer
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if len(values) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errNoToken
	}
	return token, nil
}

// identity is who calls, and how that is known.
type identity struct {
	principal arn.Principal
	means     kmsv1.CredentialType
	rule      int       // number of the rule that named the principal, from 1
	expires   time.Time // when the credential does
}

// identify names the caller. A certificate and a token together are refused: whichever was
// preferred, a caller could believe that the other counts.
func (s *Server) identify(ctx context.Context, c credential) (identity, error) {
	switch {
	case c.leaf != nil && c.token != "":
		return identity{}, errTwoCredentials
	case c.leaf != nil:
		p, rule, err := s.rules.principal(c.leaf)
		return identity{p, kmsv1.CredentialType_CREDENTIAL_TYPE_CERTIFICATE, rule, c.leaf.NotAfter}, err
	case c.token != "" && s.bearer != nil:
		claims, err := s.bearer.Verify(ctx, c.token)
		if err != nil {
			return identity{}, tokenRefusal(err)
		}
		p, rule, err := s.claimRules.principal(claims)
		return identity{p, kmsv1.CredentialType_CREDENTIAL_TYPE_BEARER_TOKEN, rule, claims.Expires}, err
	}
	return identity{}, errNoCredential
}

// tokenRefusal turns an error of package bearer into what the client sees.
func tokenRefusal(err error) error {
	for _, known := range []error{
		bearer.ErrForm, bearer.ErrAlgorithm, bearer.ErrUnknownKey, bearer.ErrSignature,
		bearer.ErrIssuer, bearer.ErrAudience, bearer.ErrExpired, bearer.ErrNotYet,
	} {
		if errors.Is(err, known) {
			return unauthenticated(reasonNobody, known.Error())
		}
	}
	if errors.Is(err, bearer.ErrNoKeys) {
		return errNoKeys
	}
	return err
}
