package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/gateway/bearer"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// provider issues bearer tokens for one test.
type provider struct {
	t   testing.TB
	key *ecdsa.PrivateKey
}

// config has the provider's keys in a file, and three rules.
func (p *provider) config() *gateway.Bearer {
	p.t.Helper()
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "one", Use: "sig"}}})
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return &gateway.Bearer{
		Config: bearer.Config{Issuer: "https://id.example.org", Audience: "keyferry-eu-paris-1", KeysFile: file},
		Principals: []gateway.ClaimRule{
			{Claim: "groups", Pattern: "kms-operators", Principal: "arn:aws:iam::111122223333:role/operator"},
			{Claim: "email", Pattern: "*@example.org", Principal: "arn:aws:iam::111122223333:user/*"},
			{Claim: "name", Pattern: "*", Principal: "arn:aws:iam::111122223333:user/*"},
		},
	}
}

// token signs claims; those that every token needs are added.
func (p *provider) token(claims map[string]any) string {
	p.t.Helper()
	all := map[string]any{"iss": "https://id.example.org", "aud": "keyferry-eu-paris-1", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	payload, err := json.Marshal(all)
	if err != nil {
		p.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", "one"))
	if err != nil {
		p.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		p.t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

type withTokens struct {
	*served
	provider *provider
	ahead    atomic.Int64 // nanoseconds that the clock has moved
}

func startWithTokens(t *testing.T) *withTokens {
	t.Helper()
	w := &withTokens{provider: &provider{t, mustKey(t)}}
	w.served = start(t, func(c *gateway.Config) {
		c.Bearer = w.provider.config()
		c.Now = func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	})
	return w
}

// bare is a connection without a certificate.
func (w *withTokens) bare() *grpc.ClientConn { return w.dial(w.ca.trusting()) }

// asks shows values of authorization by both doors, without a certificate.
func (w *withTokens) asks(values ...string) (*kmsv1.GetCallerIdentityResponse, answer, error) {
	w.t.Helper()
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.MD{"authorization": values})
	resp, err := kmsv1.NewRegionServiceClient(w.bare()).GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
	old := w.http
	defer func() { w.http = old }()
	w.http = w.client(w.ca.trusting())
	return resp, w.do(http.MethodGet, "/v1/whoami", "", http.Header{"Authorization": values}), err
}

func TestTokensNamePrincipals(t *testing.T) {
	w := startWithTokens(t)
	for name, test := range map[string]struct {
		claims map[string]any
		want   string // empty: nobody
		rule   uint32
	}{
		"list":                         {map[string]any{"groups": []string{"staff", "kms-operators"}}, "role/operator", 1},
		"first rule decides":           {map[string]any{"groups": []string{"kms-operators"}, "email": "alice@example.org"}, "role/operator", 1},
		"name is carried over":         {map[string]any{"email": "alice@example.org"}, "user/alice", 2},
		"single text":                  {map[string]any{"groups": "kms-operators"}, "role/operator", 1},
		"part of a text":               {map[string]any{"groups": "not-kms-operators"}, "", 0},
		"other domain":                 {map[string]any{"email": "alice@example.org.evil"}, "", 0},
		"domain in the name":           {map[string]any{"email": "alice@example.org@example.org"}, "user/alice@example.org", 2},
		"name with a slash":            {map[string]any{"name": "x/../root"}, "", 0},
		"name with a newline":          {map[string]any{"name": "alice\n"}, "", 0},
		"name in other letters":        {map[string]any{"name": "аlice"}, "", 0},
		"list for a name":              {map[string]any{"name": []string{"alice", "root"}}, "", 0},
		"number":                       {map[string]any{"name": 7}, "", 0},
		"object":                       {map[string]any{"name": map[string]any{"name": "alice"}}, "", 0},
		"principal's name is too long": {map[string]any{"name": strings.Repeat("x", 600)}, "", 0},
		"nothing":                      {nil, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			token := w.provider.token(test.claims)
			resp, rest, err := w.asks("Bearer " + token)
			if test.want == "" {
				wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException")
				if rest.code != http.StatusUnauthorized {
					t.Errorf("REST: %d %s", rest.code, rest.body)
				}
				return
			}
			must(t, err)
			arn := "arn:aws:iam::111122223333:" + test.want
			if resp.GetArn() != arn || resp.GetPrincipalRule() != test.rule || resp.GetCredentialType() != kmsv1.CredentialType_CREDENTIAL_TYPE_BEARER_TOKEN {
				t.Errorf("gRPC takes the bearer for %v", resp)
			}
			if rest.code != http.StatusOK || !strings.Contains(rest.body, `"`+arn+`"`) || !strings.Contains(rest.body, `"CREDENTIAL_TYPE_BEARER_TOKEN"`) {
				t.Errorf("REST: %d %s", rest.code, rest.body)
			}
		})
	}
}

func TestAuthorizationsThatAreRefused(t *testing.T) {
	w := startWithTokens(t)
	alice := map[string]any{"email": "alice@example.org"}
	good := w.provider.token(alice)
	stranger := &provider{t, mustKey(t)}
	claim := func(name string, value any) string {
		c := maps.Clone(alice)
		c[name] = value
		return "Bearer " + w.provider.token(c)
	}
	for name, test := range map[string]struct {
		values []string
		reason string
		says   string
	}{
		"none":               {nil, "MissingAuthenticationTokenException", "no verified client certificate"},
		"empty":              {[]string{""}, "MissingAuthenticationTokenException", "not one bearer token"},
		"another scheme":     {[]string{"Basic cm9vdDpyb290"}, "MissingAuthenticationTokenException", "not one bearer token"},
		"no scheme":          {[]string{good}, "MissingAuthenticationTokenException", "not one bearer token"},
		"no token":           {[]string{"Bearer "}, "MissingAuthenticationTokenException", "not one bearer token"},
		"two":                {[]string{"Bearer " + good, "Bearer " + good}, "MissingAuthenticationTokenException", "not one bearer token"},
		"two in one":         {[]string{"Bearer " + good + ", Bearer " + good}, "UnrecognizedClientException", "not one signed"},
		"huge":               {[]string{claim("pad", strings.Repeat("x", 9<<10))}, "UnrecognizedClientException", "not one signed"},
		"unsigned":           {[]string{"Bearer eyJhbGciOiJub25lIiwia2lkIjoib25lIn0.e30."}, "UnrecognizedClientException", "algorithm"},
		"wrong key":          {[]string{"Bearer " + stranger.token(alice)}, "UnrecognizedClientException", "signature"},
		"another Region's":   {[]string{claim("aud", "keyferry-us-east-1")}, "UnrecognizedClientException", "audience"},
		"expired":            {[]string{claim("exp", time.Now().Add(-2*time.Minute).Unix())}, "UnrecognizedClientException", "expired"},
		"nobody that counts": {[]string{"Bearer " + w.provider.token(nil)}, "UnrecognizedClientException", "no principal rule"},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.keys.count()
			_, rest, err := w.asks(test.values...)
			if message := wantStatus(t, err, codes.Unauthenticated, test.reason); !strings.Contains(message, test.says) {
				t.Errorf("gRPC: %q", message)
			}
			if rest.code != http.StatusUnauthorized || rest.reason() != test.reason || !strings.Contains(rest.message(), test.says) {
				t.Errorf("REST: %d %s", rest.code, rest.body)
			}
			if w.keys.count() != before {
				t.Error("keys were reached")
			}
		})
	}
}

func TestCertificateAndTokenTogetherAreRefused(t *testing.T) {
	w := startWithTokens(t)
	token := "Bearer " + w.provider.token(map[string]any{"email": "bob@example.org"})
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", token)
	_, err := whoami(ctx, w.served, w.ca.trusting(w.ca.issue(aliceURI, nil)))
	wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException")
	for _, path := range []string{"/v1/whoami", "/v1/openapi.json"} {
		if got := w.do(http.MethodGet, path, "", http.Header{"Authorization": {token}}); got.code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
	if w.keys.count() != 0 {
		t.Error("keys were reached")
	}
}

func TestWithoutAProviderTokensAreRefused(t *testing.T) {
	s := start(t, nil)
	token := "Bearer " + (&provider{t, mustKey(t)}).token(map[string]any{"email": "alice@example.org"})
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", token)
	_, err := whoami(ctx, s, s.ca.trusting(s.ca.issue(aliceURI, nil)))
	wantStatus(t, err, codes.Unauthenticated, "MissingAuthenticationTokenException")
	if _, err := whoami(ctx, s, s.ca.trusting()); err == nil {
		t.Error("gRPC let a client in without a certificate")
	}
	if got := s.do(http.MethodGet, "/v1/whoami", "", http.Header{"Authorization": {token}}); got.code != http.StatusUnauthorized {
		t.Errorf("REST: %d %s", got.code, got.body)
	}
}

func TestATokenExpiresOnAnOpenConnection(t *testing.T) {
	w := startWithTokens(t)
	client := kmsv1.NewRegionServiceClient(w.bare())
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+w.provider.token(map[string]any{"email": "alice@example.org"}))
	_, err := client.GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
	must(t, err)
	w.ahead.Store(int64(time.Hour + 2*time.Minute))
	_, err = client.GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
	wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException")
}

// TestTokensAreNotLogged shows good and bad tokens by both doors and looks for any part of
// them in the log and in the answers.
func TestTokensAreNotLogged(t *testing.T) {
	w := startWithTokens(t)
	tokens := []string{
		w.provider.token(map[string]any{"email": "alice@example.org", "secret": "s3cr3t"}),
		w.provider.token(map[string]any{"secret": "s3cr3t"}),
		(&provider{t, mustKey(t)}).token(map[string]any{"email": "alice@example.org"}),
		"not.a.token-at-all",
	}
	for _, token := range tokens {
		_, rest, err := w.asks("Bearer " + token)
		texts := rest.body
		if err != nil {
			texts += err.Error()
		}
		for _, e := range w.logs.AllEntries() {
			text, err := e.String()
			must(t, err)
			texts += text
		}
		for _, part := range append(strings.Split(token, "."), "s3cr3t", "example.org") {
			if len(part) > 3 && strings.Contains(texts, part) {
				t.Errorf("a part of a token, %q, is in the log or in an answer", part)
			}
		}
	}
	if len(w.logs.AllEntries()) == 0 {
		t.Error("nothing was logged at all")
	}
}

func TestAnonymousClientsGetNothing(t *testing.T) {
	w := startWithTokens(t)
	conn := w.bare()
	for name := range gateway.MethodRows() {
		err := conn.Invoke(context.Background(), name, &kmsv1.GetCallerIdentityRequest{}, &kmsv1.GetCallerIdentityResponse{})
		if err == nil {
			t.Errorf("%s answers a client that has shown nothing", name)
		}
	}
	if w.keys.count() != 0 {
		t.Error("keys were reached")
	}
}

func TestClaimRuleMistakes(t *testing.T) {
	for name, rule := range map[string]gateway.ClaimRule{
		"no claim":             {Pattern: "alice", Principal: "arn:aws:iam::111122223333:root"},
		"no pattern":           {Claim: "sub", Principal: "arn:aws:iam::111122223333:root"},
		"two stars":            {Claim: "sub", Pattern: "*@*", Principal: "arn:aws:iam::111122223333:user/*"},
		"star without pattern": {Claim: "sub", Pattern: "alice", Principal: "arn:aws:iam::111122223333:user/*"},
		"star in the account":  {Claim: "sub", Pattern: "*", Principal: "arn:aws:iam::*:root"},
		"principal is no ARN":  {Claim: "sub", Pattern: "*", Principal: "alice"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := gateway.CompileClaimRule(rule); err == nil {
				t.Error("taken")
			}
		})
	}
}
