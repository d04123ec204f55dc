package bearer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/gateway/bearer"
)

// provider serves a JWK set as an identity provider does.
type provider struct {
	t     *testing.T
	url   string
	ca    string
	serve atomic.Value // http.HandlerFunc
	asked atomic.Int64
	ahead atomic.Int64 // nanoseconds that the clock has moved
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{t: t}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		p.serve.Load().(http.HandlerFunc)(w, r)
	}))
	t.Cleanup(server.Close)
	p.url, p.ca = server.URL+"/jwks", filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(p.ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *provider) publish(set []byte) {
	p.serve.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
}

func (p *provider) fail() {
	p.serve.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
}

func (p *provider) pass(d time.Duration) { p.ahead.Add(int64(d)) }

func (p *provider) verifier() *bearer.Verifier {
	p.t.Helper()
	return mustVerifier(p.t, nil, func(c *bearer.Config) {
		c.KeysFile, c.KeysURL, c.KeysCAFile = "", p.url, p.ca
		c.Now = func() time.Time { return now.Add(time.Duration(p.ahead.Load())) }
	})
}

// lasting are claims that outlive what the tests do to the clock.
func lasting() claims { return with("exp", now.Add(72*time.Hour).Unix()) }

func TestKeysAreFetchedOnceForMany(t *testing.T) {
	i, p := newIssuer(t), newProvider(t)
	p.publish(i.set(nil))
	v := p.verifier()
	if p.asked.Load() != 0 {
		t.Error("the provider was needed to start")
	}
	token := i.token(lasting())
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := v.Verify(context.Background(), token); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := p.asked.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

func TestANewKeyIsFoundAndMadeUpOnesCostLittle(t *testing.T) {
	i, p := newIssuer(t), newProvider(t)
	p.publish(i.set(nil))
	v := p.verifier()
	if _, err := v.Verify(context.Background(), i.token(lasting())); err != nil {
		t.Fatal(err)
	}
	p.pass(11 * time.Second)
	next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.keys["next"] = next
	p.publish(i.set(nil))
	if _, err := v.Verify(context.Background(), i.sign("ES256", "next", next, lasting(), nil)); err != nil {
		t.Errorf("a new key's token: %v", err)
	}
	for range 50 {
		if _, err := v.Verify(context.Background(), i.sign("ES256", "made up", next, lasting(), nil)); !errors.Is(err, bearer.ErrUnknownKey) {
			t.Fatalf("a made-up key's token: %v", err)
		}
	}
	if n := p.asked.Load(); n != 2 {
		t.Errorf("fetched %d times", n)
	}
}

func TestAWithdrawnKeyIsForgotten(t *testing.T) {
	i, p := newIssuer(t), newProvider(t)
	p.publish(i.set(nil))
	v := p.verifier()
	token := i.token(lasting())
	if _, err := v.Verify(context.Background(), token); err != nil {
		t.Fatal(err)
	}
	delete(i.keys, "p256")
	p.publish(i.set(nil))
	if changed, err := v.Refresh(context.Background(), false); changed || err != nil {
		t.Errorf("refreshed before it was due: %v, %v", changed, err)
	}
	p.pass(11 * time.Minute)
	if changed, err := v.Refresh(context.Background(), false); !changed || err != nil {
		t.Errorf("refresh: %v, %v", changed, err)
	}
	if _, err := v.Verify(context.Background(), token); !errors.Is(err, bearer.ErrUnknownKey) {
		t.Errorf("its token: %v", err)
	}
}

func TestKeysOutliveTheirProviderForADay(t *testing.T) {
	i, p := newIssuer(t), newProvider(t)
	p.publish(i.set(nil))
	v := p.verifier()
	token := i.token(lasting())
	if _, err := v.Verify(context.Background(), token); err != nil {
		t.Fatal(err)
	}
	p.fail()
	p.pass(11 * time.Minute)
	if _, err := v.Refresh(context.Background(), false); err == nil {
		t.Error("a provider that fails is no error")
	}
	before := p.asked.Load()
	if _, err := v.Refresh(context.Background(), false); err == nil {
		t.Error("the error does not stand until the next attempt")
	}
	if p.asked.Load() != before {
		t.Error("asked again at once")
	}
	if _, err := v.Verify(context.Background(), token); err != nil {
		t.Errorf("soon after: %v", err)
	}
	p.pass(24 * time.Hour)
	if _, err := v.Verify(context.Background(), token); !errors.Is(err, bearer.ErrNoKeys) {
		t.Errorf("a day after: %v", err)
	}
	p.publish(i.set(nil))
	if _, err := v.Refresh(context.Background(), false); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(context.Background(), token); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestAnswersThatAreRefused(t *testing.T) {
	i := newIssuer(t)
	for name, answer := range map[string]http.HandlerFunc{
		"failure": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write(i.set(nil))
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"a page":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in</html>")) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for range 64 {
				if _, err := w.Write([]byte(strings.Repeat(" ", 64<<10))); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.serve.Store(answer)
			v := p.verifier()
			if _, err := v.Refresh(context.Background(), true); err == nil {
				t.Error("taken")
			}
			if _, err := v.Verify(context.Background(), i.token(lasting())); !errors.Is(err, bearer.ErrNoKeys) {
				t.Errorf("a token: %v", err)
			}
			if p.asked.Load() > 2 {
				t.Errorf("asked %d times", p.asked.Load())
			}
		})
	}
}

func TestAnImpatientCallerDoesNotWaitForTheProvider(t *testing.T) {
	i, p := newIssuer(t), newProvider(t)
	release := make(chan struct{})
	p.serve.Store(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	v := p.verifier()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := v.Verify(ctx, i.token(lasting())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestTheProviderMustProveItself(t *testing.T) {
	i, p := newIssuer(t), newProvider(t)
	p.publish(i.set(nil))
	p.url = strings.Replace(p.url, "127.0.0.1", "localhost", 1) // not a name in its certificate
	if _, err := p.verifier().Refresh(context.Background(), true); err == nil {
		t.Error("keys were taken from a server of another name")
	}
	if p.asked.Load() != 0 {
		t.Error("it was asked")
	}
}

func TestAKeyFileIsReadAgain(t *testing.T) {
	i := newIssuer(t)
	file := filepath.Join(t.TempDir(), "jwks.json")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(i.set(nil))
	v := mustVerifier(t, nil, func(c *bearer.Config) { c.KeysFile = file })
	if changed, err := v.Refresh(context.Background(), false); changed || err != nil {
		t.Errorf("refresh without a change: %v, %v", changed, err)
	}
	write([]byte("{"))
	if _, err := v.Refresh(context.Background(), false); err == nil {
		t.Error("a broken file is no error")
	}
	if _, err := v.Verify(context.Background(), i.token(good())); err != nil {
		t.Errorf("the old keys are not in force: %v", err)
	}
}
