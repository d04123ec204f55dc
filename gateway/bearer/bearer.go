// Package bearer verifies the JSON Web Tokens (RFC 7519) that an identity provider issues.
//
// It says whether a token is the issuer's, for this audience and in force, and what it
// claims; whom the claims name is decided elsewhere. Tokens are hostile until their signature
// is verified under a key of the configured set: the key is chosen by the key ID alone, the
// algorithm by the key, and nothing that a token says of keys (jku, x5u, x5c, jwk) is read.
// The issuer's key set comes from a file or an https URL that the operator names; the
// provider is trusted to say who its users are, and a URL's answer is bounded all the same.
//
// A Verifier serves any number of calls at once and keeps nothing durable. Neither errors nor
// logs hold a token or a claim.
package bearer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Why a token is refused. Each text is for its bearer.
var (
	// ErrForm: not one signed JWT in the compact form, or too large.
	ErrForm = errors.New("the bearer token is not one signed JSON Web Token")
	// ErrAlgorithm: signed by an algorithm that is not taken, or not the key's.
	ErrAlgorithm = errors.New("the bearer token is signed by an algorithm that is not taken here")
	// ErrUnknownKey: it names no key of the issuer's set.
	ErrUnknownKey = errors.New("the bearer token names no key of its issuer")
	// ErrSignature: the signature is not that of the key.
	ErrSignature = errors.New("the bearer token's signature is wrong")
	// ErrIssuer: another issuer's.
	ErrIssuer = errors.New("the bearer token is of another issuer")
	// ErrAudience: meant for another service.
	ErrAudience = errors.New("the bearer token is for another audience")
	// ErrExpired: its time is over, or it does not say when that is.
	ErrExpired = errors.New("the bearer token has expired, or does not say when it will")
	// ErrNotYet: its time has not come.
	ErrNotYet = errors.New("the bearer token is not valid yet")
	// ErrNoKeys: the issuer's keys cannot be had now, so no token can be judged.
	ErrNoKeys = errors.New("the keys of the bearer tokens' issuer cannot be had now")
)

// Algorithms are all that can be taken: signatures by key pairs. What none and HS256 lack is
// that only the issuer can sign.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}

const (
	// maxToken bounds a token in bytes. Providers keep theirs below, for headers' sake.
	maxToken = 8 << 10

	defaultSkew = time.Minute
	// MaxSkew is the largest clock skew that can be configured: what a token is in force
	// beyond its end.
	MaxSkew = 5 * time.Minute
)

// Config says whose tokens are taken. A zero value in a field that names a default means
// that default.
type Config struct {
	// Issuer is what the token's iss must be. Required.
	Issuer string
	// Audience is what must be among the token's aud. Required.
	Audience string
	// KeysFile is a JWK set (RFC 7517). Exactly one of KeysFile and KeysURL is set.
	KeysFile string
	// KeysURL is where the issuer publishes its JWK set; https, without user information.
	KeysURL string
	// KeysCAFile holds the authorities of the URL's server, PEM. Default: the system's.
	KeysCAFile string
	// Algorithms are those taken. Default: all of the package's Algorithms.
	Algorithms []string
	// ClockSkew is how far the issuer's clock may be from this one. Default: 60 s. At most 5 min.
	ClockSkew time.Duration
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Verifier verifies tokens of one issuer.
type Verifier struct {
	config     Config
	algorithms []jose.SignatureAlgorithm
	keys       *keySet
}

// New checks the configuration and reads the key file. Keys at a URL are fetched when the
// first token comes, or at the first Refresh: the daemon must start without its provider.
func New(config Config) (*Verifier, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.ClockSkew == 0 {
		config.ClockSkew = defaultSkew
	}
	if len(config.Algorithms) == 0 {
		config.Algorithms = Algorithms
	}
	if err := config.check(); err != nil {
		return nil, err
	}
	v := &Verifier{config: config}
	for _, a := range config.Algorithms {
		v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(a))
	}
	var err error
	v.keys, err = newKeySet(config)
	return v, err
}

func (c Config) check() error {
	if c.Issuer == "" || c.Audience == "" {
		return errors.New("bearer: issuer and audience are required")
	}
	if (c.KeysFile == "") == (c.KeysURL == "") {
		return errors.New("bearer: want exactly one of a key file and a key URL")
	}
	if c.ClockSkew < 0 || c.ClockSkew > MaxSkew {
		return fmt.Errorf("bearer: clock skew %v: want 0 to %v", c.ClockSkew, MaxSkew)
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(Algorithms, a) {
			return fmt.Errorf("bearer: algorithm %q: want some of %s", a, strings.Join(Algorithms, ", "))
		}
	}
	return nil
}

// Refresh reads the key set again if it is due, or always. It reports whether it has
// changed; on an error the old set stays in force.
func (v *Verifier) Refresh(ctx context.Context, always bool) (changed bool, err error) {
	return v.keys.refresh(ctx, always)
}

// Verify returns what a token claims, or one of this package's errors. It may fetch the
// issuer's keys, within bounds of its own.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	if len(token) > maxToken {
		return Claims{}, ErrForm
	}
	// Three parts: of five would be an encrypted token.
	if strings.Count(token, ".") != 2 {
		return Claims{}, ErrForm
	}
	parsed, err := jwt.ParseSigned(token, v.algorithms)
	switch {
	case errors.As(err, new(*jose.ErrUnexpectedSignatureAlgorithm)):
		return Claims{}, ErrAlgorithm
	case err != nil || len(parsed.Headers) != 1 || !plain(parsed.Headers[0]):
		return Claims{}, ErrForm
	}
	header := parsed.Headers[0]
	key, err := v.keys.find(ctx, header.KeyID)
	if err != nil {
		return Claims{}, err
	}
	if !key.signs(header.Algorithm) {
		return Claims{}, ErrAlgorithm
	}
	claims := map[string]any{}
	switch err := parsed.Claims(key.public, &claims); {
	case errors.Is(err, jose.ErrCryptoFailure):
		return Claims{}, ErrSignature
	case err != nil: // no JSON object, as in a nested token
		return Claims{}, ErrForm
	}
	c := Claims{all: claims}
	return c, v.judge(&c)
}

// types are the values of typ that an access token or a plain JWT may have (RFC 8725,
// section 3.11): a logout or proof token of the same issuer grants nothing here.
var types = []string{"", "jwt", "at+jwt", "application/at+jwt"}

// plain reports whether the header has nothing that would change what the token means.
func plain(h jose.Header) bool {
	if _, ok := h.ExtraHeaders["crit"]; ok {
		return false
	}
	if _, ok := h.ExtraHeaders["b64"]; ok {
		return false
	}
	if _, ok := h.ExtraHeaders[jose.HeaderContentType]; ok { // a token within the token
		return false
	}
	typ, ok := h.ExtraHeaders[jose.HeaderType]
	if !ok {
		typ = ""
	}
	text, ok := typ.(string)
	return ok && slices.Contains(types, strings.ToLower(text))
}

// judge checks the claims that every token has.
func (v *Verifier) judge(c *Claims) error {
	if c.all["iss"] != v.config.Issuer {
		return ErrIssuer
	}
	if audience, _ := c.Values("aud"); !slices.Contains(audience, v.config.Audience) {
		return ErrAudience
	}
	now, skew := v.config.Now(), v.config.ClockSkew
	expires, ok := c.date("exp")
	if !ok || !now.Before(expires.Add(skew)) {
		return ErrExpired
	}
	c.Expires = expires
	for _, name := range []string{"nbf", "iat"} {
		if _, given := c.all[name]; !given {
			continue
		}
		if begins, ok := c.date(name); !ok || now.Before(begins.Add(-skew)) {
			return ErrNotYet
		}
	}
	return nil
}

// Claims are what a verified token says.
type Claims struct {
	// Expires is when the token's time is over.
	Expires time.Time
	all     map[string]any
}

// Values returns the texts of a claim: one, or those of a list. A claim of another kind has
// none.
func (c Claims) Values(name string) (values []string, list bool) {
	switch v := c.all[name].(type) {
	case string:
		return []string{v}, false
	case []any:
		for _, e := range v {
			text, ok := e.(string)
			if !ok {
				return nil, true
			}
			values = append(values, text)
		}
		return values, true
	}
	return nil, false
}

// date returns a claim that is a date between the years 1970 and 9999.
func (c Claims) date(name string) (time.Time, bool) {
	seconds, ok := c.all[name].(float64)
	if !ok || !(seconds >= 0 && seconds < 253402300800) {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// publicKey is one key of the issuer.
type publicKey struct {
	public    any
	algorithm string // the only one it is for; empty if the set does not say
}

// signs reports whether an algorithm is the key's. The token's header chooses only among
// those: a public RSA key must never be taken for an HMAC key, nor P-256 for P-384.
func (k publicKey) signs(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		return algorithm == map[int]string{256: "ES256", 384: "ES384"}[public.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return algorithm == string(jose.EdDSA)
	}
	return false
}
