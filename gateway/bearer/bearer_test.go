package bearer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/keyferry/keyferry/gateway/bearer"
)

var now = time.Unix(1_800_000_000, 0)

// rsaKey is the same for all issuers, since it takes long to make.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// issuer signs tokens for one test.
type issuer struct {
	t    testing.TB
	keys map[string]crypto.Signer
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{t, map[string]crypto.Signer{}}
	var err error
	for id, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384()} {
		if i.keys[id], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if i.keys["rsa"], err = rsaKey(); err != nil {
		t.Fatal(err)
	}
	if _, i.keys["ed"], err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return i
}

// set is the issuer's JWK set; change may spoil a key.
func (i *issuer) set(change func(id string, k *jose.JSONWebKey)) []byte {
	i.t.Helper()
	var set jose.JSONWebKeySet
	for id, key := range i.keys {
		k := jose.JSONWebKey{Key: key.Public(), KeyID: id, Use: "sig"}
		if change != nil {
			change(id, &k)
		}
		set.Keys = append(set.Keys, k)
	}
	text, err := json.Marshal(set)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

type claims = map[string]any

// good are claims that are taken.
func good() claims {
	return claims{"iss": "https://id.example", "aud": "keyferry", "sub": "alice", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix()}
}

func with(name string, value any) claims {
	c := good()
	if value == nil {
		delete(c, name)
		return c
	}
	c[name] = value
	return c
}

// sign makes a token; header is added to what the algorithm needs.
func (i *issuer) sign(algorithm jose.SignatureAlgorithm, kid string, key any, payload any, header map[jose.HeaderKey]any) string {
	i.t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	for k, v := range header {
		options.WithHeader(k, v)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		i.t.Fatal(err)
	}
	text, ok := payload.(string)
	if !ok {
		data, err := json.Marshal(payload)
		if err != nil {
			i.t.Fatal(err)
		}
		text = string(data)
	}
	signed, err := signer.Sign([]byte(text))
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func (i *issuer) token(c claims) string { return i.sign("ES256", "p256", i.keys["p256"], c, nil) }

func newVerifier(t testing.TB, set []byte, change func(*bearer.Config)) (*bearer.Verifier, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	c := bearer.Config{Issuer: "https://id.example", Audience: "keyferry", KeysFile: file, Now: func() time.Time { return now }}
	if change != nil {
		change(&c)
	}
	return bearer.New(c)
}

func mustVerifier(t testing.TB, set []byte, change func(*bearer.Config)) *bearer.Verifier {
	t.Helper()
	v, err := newVerifier(t, set, change)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// unsigned makes a token of which nothing is signed.
func unsigned(header string, c claims, signature string) string {
	payload, _ := json.Marshal(c)
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc(payload) + "." + signature
}

func TestTokens(t *testing.T) {
	i := newIssuer(t)
	v := mustVerifier(t, i.set(nil), nil)
	p256, other := i.keys["p256"], newIssuer(t)
	spki, err := x509.MarshalPKIXPublicKey(i.keys["rsa"].Public())
	if err != nil {
		t.Fatal(err)
	}
	header := func(h map[jose.HeaderKey]any) string { return i.sign("ES256", "p256", p256, good(), h) }
	for _, test := range []struct {
		name  string
		token string
		want  error
	}{
		{"ES256", i.token(good()), nil},
		{"ES384", i.sign("ES384", "p384", i.keys["p384"], good(), nil), nil},
		{"RS256", i.sign("RS256", "rsa", i.keys["rsa"], good(), nil), nil},
		{"PS512", i.sign("PS512", "rsa", i.keys["rsa"], good(), nil), nil},
		{"EdDSA", i.sign("EdDSA", "ed", i.keys["ed"], good(), nil), nil},
		{"one of many audiences", i.token(with("aud", []string{"other", "keyferry"})), nil},
		{"access token", header(map[jose.HeaderKey]any{"typ": "at+JWT"}), nil},
		{"expired within the skew", i.token(with("exp", now.Add(-59*time.Second).Unix())), nil},
		{"not yet within the skew", i.token(with("nbf", now.Add(59*time.Second).Unix())), nil},

		{"empty", "", bearer.ErrForm},
		{"no token", "root", bearer.ErrForm},
		{"huge", i.token(with("pad", strings.Repeat("x", 9<<10))), bearer.ErrForm},
		{"none", unsigned(`{"alg":"none","kid":"p256"}`, good(), ""), bearer.ErrAlgorithm},
		{"none in another case", unsigned(`{"alg":"nOnE","kid":"p256"}`, good(), ""), bearer.ErrAlgorithm},
		{"no algorithm", unsigned(`{"kid":"p256"}`, good(), "AAAA"), bearer.ErrAlgorithm},
		{"no signature", unsigned(`{"alg":"ES256","kid":"p256"}`, good(), ""), bearer.ErrSignature},
		{"HMAC under the public key", i.sign("HS256", "rsa", spki, good(), nil), bearer.ErrAlgorithm},
		{"ES512", unsigned(`{"alg":"ES512","kid":"p256"}`, good(), "AAAA"), bearer.ErrAlgorithm},
		{"algorithm of another key", i.sign("ES256", "rsa", p256, good(), nil), bearer.ErrAlgorithm},
		{"algorithm of another curve", i.sign("ES256", "p384", p256, good(), nil), bearer.ErrAlgorithm},
		{"key of another issuer", i.sign("ES256", "p256", other.keys["p256"], good(), nil), bearer.ErrSignature},
		{"signature cut short", i.token(good())[:len(i.token(good()))-4], bearer.ErrSignature},
		{"key in its own header", i.sign("ES256", "p256", other.keys["p256"], good(),
			map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: other.keys["p256"].Public(), KeyID: "p256"}}), bearer.ErrSignature},
		{"keys at an address of its own", i.sign("ES256", "evil", other.keys["p256"], good(),
			map[jose.HeaderKey]any{"jku": "https://evil.example/jwks.json"}), bearer.ErrUnknownKey},
		{"unknown key", i.sign("ES256", "new", p256, good(), nil), bearer.ErrUnknownKey},
		{"no key named", i.sign("ES256", "", p256, good(), nil), bearer.ErrUnknownKey},
		{"critical header", unsigned(`{"alg":"ES256","kid":"p256","crit":["exp"],"exp":1}`, good(), "AAAA"), bearer.ErrForm},
		{"unencoded payload", unsigned(`{"alg":"ES256","kid":"p256","crit":["b64"],"b64":false}`, good(), "AAAA"), bearer.ErrForm},
		{"logout token", header(map[jose.HeaderKey]any{"typ": "logout+jwt"}), bearer.ErrForm},
		{"nested", i.sign("ES256", "p256", p256, i.token(good()), map[jose.HeaderKey]any{"cty": "JWT"}), bearer.ErrForm},
		{"nested without saying so", i.sign("ES256", "p256", p256, i.token(good()), nil), bearer.ErrForm},
		{"encrypted", "e30.AA.AA.AA.AA", bearer.ErrForm},
		{"no object", i.sign("ES256", "p256", p256, `["alice"]`, nil), bearer.ErrForm},
		{"claim twice", i.sign("ES256", "p256", p256, `{"iss":"https://id.example","iss":"x"}`, nil), bearer.ErrForm},

		{"no issuer", i.token(with("iss", nil)), bearer.ErrIssuer},
		{"another issuer", i.token(with("iss", "https://id.example/")), bearer.ErrIssuer},
		{"issuers", i.token(with("iss", []string{"https://id.example"})), bearer.ErrIssuer},
		{"no audience", i.token(with("aud", nil)), bearer.ErrAudience},
		{"another audience", i.token(with("aud", "keyferry-test")), bearer.ErrAudience},
		{"audience no text", i.token(with("aud", []any{"keyferry", 1})), bearer.ErrAudience},
		{"no expiry", i.token(with("exp", nil)), bearer.ErrExpired},
		{"expired", i.token(with("exp", now.Add(-time.Minute).Unix())), bearer.ErrExpired},
		{"expiry as text", i.token(with("exp", "2000000000")), bearer.ErrExpired},
		{"expiry beyond all dates", i.token(with("exp", 1e300)), bearer.ErrExpired},
		{"expiry before all dates", i.token(with("exp", -1e300)), bearer.ErrExpired},
		{"not yet", i.token(with("nbf", now.Add(2*time.Minute).Unix())), bearer.ErrNotYet},
		{"not yet as text", i.token(with("nbf", "0")), bearer.ErrNotYet},
		{"issued in the future", i.token(with("iat", now.Add(2*time.Minute).Unix())), bearer.ErrNotYet},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := v.Verify(context.Background(), test.token)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			if sub, list := c.Values("sub"); list || len(sub) != 1 || sub[0] != "alice" || c.Expires.IsZero() {
				t.Errorf("claims are %v, expires %v", sub, c.Expires)
			}
		})
	}
}

// TestEveryByteCounts changes each character of a token in turn.
func TestEveryByteCounts(t *testing.T) {
	i := newIssuer(t)
	v := mustVerifier(t, i.set(nil), nil)
	token := i.sign("EdDSA", "ed", i.keys["ed"], good(), nil)
	for at := range len(token) - 1 { // the last character has bits that are no part of the signature
		changed := []byte(token)
		if changed[at] == 'A' {
			changed[at] = 'B'
		} else {
			changed[at] = 'A'
		}
		if _, err := v.Verify(context.Background(), string(changed)); err == nil {
			t.Fatalf("taken with character %d changed", at)
		}
	}
}

func TestAlgorithmsCanBeNarrowed(t *testing.T) {
	i := newIssuer(t)
	v := mustVerifier(t, i.set(nil), func(c *bearer.Config) { c.Algorithms = []string{"EdDSA"} })
	if _, err := v.Verify(context.Background(), i.token(good())); !errors.Is(err, bearer.ErrAlgorithm) {
		t.Errorf("ES256: %v", err)
	}
	if _, err := v.Verify(context.Background(), i.sign("EdDSA", "ed", i.keys["ed"], good(), nil)); err != nil {
		t.Errorf("EdDSA: %v", err)
	}
}

func TestAKeyIsForItsOwnAlgorithmAlone(t *testing.T) {
	i := newIssuer(t)
	v := mustVerifier(t, i.set(func(id string, k *jose.JSONWebKey) {
		if id == "rsa" {
			k.Algorithm = "PS256"
		}
	}), nil)
	if _, err := v.Verify(context.Background(), i.sign("RS256", "rsa", i.keys["rsa"], good(), nil)); !errors.Is(err, bearer.ErrAlgorithm) {
		t.Errorf("RS256: %v", err)
	}
	if _, err := v.Verify(context.Background(), i.sign("PS256", "rsa", i.keys["rsa"], good(), nil)); err != nil {
		t.Errorf("PS256: %v", err)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	i := newIssuer(t)
	for name, change := range map[string]func(*bearer.Config){
		"no issuer":     func(c *bearer.Config) { c.Issuer = "" },
		"no audience":   func(c *bearer.Config) { c.Audience = "" },
		"no keys":       func(c *bearer.Config) { c.KeysFile = "" },
		"keys twice":    func(c *bearer.Config) { c.KeysURL = "https://id.example/jwks" },
		"none":          func(c *bearer.Config) { c.Algorithms = []string{"none"} },
		"HMAC":          func(c *bearer.Config) { c.Algorithms = []string{"ES256", "HS256"} },
		"skew":          func(c *bearer.Config) { c.ClockSkew = 6 * time.Minute },
		"negative skew": func(c *bearer.Config) { c.ClockSkew = -1 },
		"plain http":    func(c *bearer.Config) { c.KeysFile, c.KeysURL = "", "http://id.example/jwks" },
		"password":      func(c *bearer.Config) { c.KeysFile, c.KeysURL = "", "https://me:secret@id.example/jwks" },
		"missing file":  func(c *bearer.Config) { c.KeysFile += ".missing" },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newVerifier(t, i.set(nil), change)
			if err == nil {
				t.Fatal("taken")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error repeats a secret: %v", err)
			}
		})
	}
}

func TestKeySetsThatAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	i := newIssuer(t)
	one := func(key any, id, use string) []byte {
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: id, Use: use}}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	p256 := i.keys["p256"]
	var many []json.RawMessage
	for range 101 {
		many = append(many, json.RawMessage(`{}`))
	}
	crowd, _ := json.Marshal(claims{"keys": many})
	for name, set := range map[string][]byte{
		"empty":          nil,
		"no JSON":        []byte("-----BEGIN PUBLIC KEY-----"),
		"no keys":        []byte(`{"keys":[]}`),
		"no objects":     []byte(`{"keys":["a"]}`),
		"symmetric":      one([]byte("0123456789abcdef"), "k", "sig"),
		"private":        one(p256, "k", "sig"),
		"for encryption": one(p256.Public(), "k", "enc"),
		"without ID":     one(p256.Public(), "", "sig"),
		"small RSA":      one(&small.PublicKey, "k", "sig"),
		"too many":       crowd,
		"too large":      append(i.set(nil), []byte(strings.Repeat(" ", 256<<10))...),
		"twice one ID":   i.set(func(_ string, k *jose.JSONWebKey) { k.KeyID = "same" }),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newVerifier(t, set, nil); err == nil {
				t.Error("taken")
			}
		})
	}
}

// TestForeignKeysArePassedOver has a set with keys of kinds that nobody here knows.
func TestForeignKeysArePassedOver(t *testing.T) {
	i := newIssuer(t)
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(i.set(nil), &set); err != nil {
		t.Fatal(err)
	}
	set.Keys = append(set.Keys, json.RawMessage(`{"kty":"AKP","kid":"new","alg":"X"}`), json.RawMessage(`{"kty":"EC","crv":"secp256k1","kid":"k1","x":"AA","y":"AA"}`))
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	v := mustVerifier(t, text, nil)
	if _, err := v.Verify(context.Background(), i.token(good())); err != nil {
		t.Error(err)
	}
}

func TestListsOfClaims(t *testing.T) {
	i := newIssuer(t)
	v := mustVerifier(t, i.set(nil), nil)
	c := good()
	maps.Copy(c, claims{"groups": []string{"a", "b"}, "mixed": []any{"a", 1}, "number": 1, "object": claims{"a": "b"}})
	got, err := v.Verify(context.Background(), i.token(c))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"groups": 2, "mixed": 0, "number": 0, "object": 0, "missing": 0} {
		if values, _ := got.Values(name); len(values) != want {
			t.Errorf("%s has %v", name, values)
		}
	}
}

func FuzzVerify(f *testing.F) {
	i := newIssuer(f)
	v := mustVerifier(f, i.set(nil), nil)
	f.Add(i.token(good()))
	f.Add(unsigned(`{"alg":"none"}`, good(), ""))
	taken := i.token(good())
	payload := func(token string) string { return strings.Split(token, ".")[1] }
	f.Add(taken)
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := v.Verify(context.Background(), token); err == nil && payload(token) != payload(taken) {
			t.Errorf("took %q", token)
		}
	})
}
