package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/keyferry/keyferry/gateway"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func TestSlots(t *testing.T) {
	alice, bob := user("111122223333", "alice"), user("111122223333", "bob")
	s := gateway.NewSlots(gateway.Limits{MaxCalls: 3, MaxCallsPerPrincipal: 2, MaxConnections: 1})
	for i, want := range []bool{true, true, true, false} {
		if got := s.Take(false) == nil; got != want {
			t.Errorf("call %d is let in: %v", i+1, got)
		}
	}
	if s.Take(true) != nil || s.Take(true) == nil {
		t.Error("streams that stay have one place of their own")
	}
	s.Give(false)
	if s.Take(false) != nil {
		t.Error("a place that was given back is not free")
	}
	var give []func()
	for i, want := range []bool{true, true, false} {
		g, err := s.TakeShare(alice)
		if (err == nil) != want {
			t.Errorf("call %d of a principal: %v", i+1, err)
		}
		if err == nil {
			give = append(give, g)
		}
	}
	if g, err := s.TakeShare(bob); err != nil {
		t.Errorf("another principal: %v", err)
	} else {
		give = append(give, g)
	}
	for _, g := range give {
		g()
	}
	if n := s.Principals(); n != 0 {
		t.Errorf("%d principals are remembered that have no call", n)
	}
}

// holding makes every Encrypt wait until release is closed.
func holding(s *served) (entered, release chan struct{}) {
	entered, release = make(chan struct{}, 100), make(chan struct{})
	s.keys.failWith(func(ctx context.Context, operation string) error {
		if operation != "Encrypt" {
			return nil
		}
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return entered, release
}

func await(t *testing.T, entered chan struct{}, n int) {
	t.Helper()
	for range n {
		select {
		case <-entered:
		case <-time.After(time.Minute):
			t.Fatal("a call does not arrive")
		}
	}
}

// TestCallsInFlight fills a Region with calls that wait for the token.
func TestCallsInFlight(t *testing.T) {
	s := start(t, func(c *gateway.Config) {
		c.Limits.MaxCalls, c.Limits.MaxCallsPerPrincipal, c.Limits.MaxConnections = 4, 3, 100
	})
	entered, release := holding(s)
	var all sync.WaitGroup
	encrypt := func(conn *grpc.ClientConn) error {
		_, err := kmsv1.NewCryptoServiceClient(conn).Encrypt(context.Background(), &kmsv1.EncryptRequest{})
		return err
	}
	hold := func(conn *grpc.ClientConn, n int) {
		for range n {
			all.Go(func() {
				if err := encrypt(conn); err != nil {
					t.Errorf("a call that was let in: %v", err)
				}
			})
		}
		await(t, entered, n)
	}
	bob := s.dial(s.ca.trusting(s.ca.issue(strings.ReplaceAll(aliceURI, "alice", "bob"), nil)))
	hold(s.grpc, 3)
	if m := wantStatus(t, encrypt(s.grpc), codes.ResourceExhausted, "ThrottlingException"); !strings.Contains(m, "this principal has 3 calls in flight") {
		t.Errorf("above a principal's share: %q", m)
	}
	hold(bob, 1)
	if m := wantStatus(t, encrypt(bob), codes.ResourceExhausted, "ThrottlingException"); !strings.Contains(m, "serves 4 calls at once") {
		t.Errorf("above what the Region serves: %q", m)
	}
	if resp := s.post("/v1/encrypt", `{}`); resp.code != http.StatusTooManyRequests || resp.reason() != "ThrottlingException" || resp.header.Get("Retry-After") != "1" {
		t.Errorf("REST: %d %s, Retry-After %q", resp.code, resp.body, resp.header.Get("Retry-After"))
	}
	// Who asks whether the Region lives is answered all the same.
	if _, err := grpc_health_v1.NewHealthClient(bob).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("a probe: %v", err)
	}
	if code := s.get("/healthz").code; code != http.StatusOK {
		t.Errorf("a probe by REST: %d", code)
	}
	close(release)
	all.Wait()
	if err := encrypt(bob); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	for range 6000 {
		if calls, _ := s.InFlight(); calls == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	calls, _ := s.InFlight()
	t.Errorf("%d calls hold places, and none is in flight", calls)
}

// TestStreamsThatStayAreBounded watches the health of a Region more often than it allows.
func TestStreamsThatStayAreBounded(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Limits.MaxConnections, c.Limits.MaxConnectionsPerAddress = 3, 3 })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i := range 4 {
		w, err := grpc_health_v1.NewHealthClient(s.grpc).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		must(t, err)
		_, err = w.Recv()
		if i < 3 {
			must(t, err)
			continue
		}
		wantStatus(t, err, codes.ResourceExhausted, "ThrottlingException")
	}
	if _, err := whoami(ctx, s, s.ca.trusting(s.ca.issue(aliceURI, nil))); err != nil {
		t.Errorf("a call beside them: %v", err)
	}
}

// TestRESTIsNotOneConnection has more REST clients at once than a connection may have calls.
func TestRESTIsNotOneConnection(t *testing.T) {
	const clients = 20
	s := start(t, func(c *gateway.Config) { c.Limits.MaxConcurrentStreams = 2 })
	entered, release := holding(s)
	var all sync.WaitGroup
	for range clients {
		one := s.client(s.ca.trusting(s.ca.issue(aliceURI, nil)))
		all.Go(func() {
			resp, err := one.Post("https://"+s.RESTAddr().String()+"/v1/encrypt", "application/json", strings.NewReader(`{}`))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	await(t, entered, clients) // all of them are inside at once
	close(release)
	all.Wait()
}
