package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops/arn"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// begun is when the clock of a throttle starts.
var begun = time.Unix(1_800_000_000, 0)

func user(account, name string) arn.Principal {
	p, err := arn.ParsePrincipal("arn:aws:iam::" + account + ":user/" + name)
	if err != nil {
		panic(err)
	}
	return p
}

func TestRates(t *testing.T) {
	now := begun
	rates := gateway.Rates{
		Crypto: gateway.Rate{Account: 15, Principal: 10},
		Read:   gateway.Rate{Account: 100, Principal: 2},
		Manage: gateway.Rate{Account: 100, Principal: 100},
	}
	throttle := gateway.NewThrottle(rates, func() time.Time { return now })
	// admitted is how many of n calls are let in at once.
	admitted := func(class string, p arn.Principal, n int) (in int) {
		for range n {
			if throttle.Admit(class, p) == nil {
				in++
			}
		}
		return in
	}
	alice, bob := user("111122223333", "alice"), user("111122223333", "bob")
	carol, root := user("444455556666", "carol"), user("444455556666", "root")
	for _, step := range []struct {
		name  string
		pass  time.Duration
		class string
		who   arn.Principal
		calls int
		want  int
	}{
		{"a principal has its rate at once", 0, "crypto", alice, 30, 10},
		{"another has what its account has left, since what was refused does not count", 0, "crypto", bob, 30, 5},
		{"another account has its own", 0, "crypto", carol, 30, 10},
		{"another class has its own", 0, "read", alice, 30, 2},
		{"a tenth of a second brings a tenth, to the account a tenth of its own", 100 * time.Millisecond, "crypto", bob, 30, 1},
		{"a second brings all, and no more", time.Second, "crypto", alice, 30, 10},
		{"an hour brings no more than a second", time.Hour, "crypto", alice, 30, 10},
		{"probes have no rate", 0, "probe", root, 300, 300},
	} {
		now = now.Add(step.pass)
		if got := admitted(step.class, step.who, step.calls); got != step.want {
			t.Errorf("%s: %d calls are let in, want %d", step.name, got, step.want)
		}
	}
}

// TestManyPrincipals calls under more names than the table has room for.
func TestManyPrincipals(t *testing.T) {
	now := begun
	throttle := gateway.NewThrottle(gateway.Rates{Crypto: gateway.Rate{Account: 1e6, Principal: 1}}, func() time.Time { return now })
	in := 0
	for i := range 2 * gateway.MaxBuckets {
		if throttle.Admit("crypto", user("111122223333", fmt.Sprintf("u%d", i))) == nil {
			in++
		}
	}
	if in != gateway.MaxBuckets-1 || throttle.Buckets() != gateway.MaxBuckets { // one is the account's
		t.Errorf("%d calls let in, %d buckets", in, throttle.Buckets())
	}
	// The flood has not refilled anybody's bucket.
	if throttle.Admit("crypto", user("111122223333", "u0")) == nil {
		t.Error("the first has called twice")
	}
	now = now.Add(time.Second)
	if throttle.Admit("crypto", user("111122223333", "new")) != nil {
		t.Error("a newcomer is refused although nobody has called for a second")
	}
	if n := throttle.Buckets(); n > 2 {
		t.Errorf("%d buckets are kept that are as good as new", n)
	}
}

func TestThrottledCallsSayWhenToComeBack(t *testing.T) {
	var ahead atomic.Int64
	now := time.Now() // the clock stands still, but certificates are of today
	s := start(t, func(c *gateway.Config) {
		c.Limits.Rates.Read.Principal = 2
		c.Now = func() time.Time { return now.Add(time.Duration(ahead.Load())) }
	})
	client := kmsv1.NewRegionServiceClient(s.grpc)
	call := func() error {
		_, err := client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
		return err
	}
	must(t, call())
	must(t, call())
	before := s.keys.count()
	err := call()
	message := wantStatus(t, err, codes.ResourceExhausted, "ThrottlingException")
	if !strings.Contains(message, "2 read calls per second of this principal") {
		t.Errorf("refused with %q", message)
	}
	var wait time.Duration
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			wait = info.GetRetryDelay().AsDuration()
		}
	}
	if wait != 500*time.Millisecond {
		t.Errorf("to come back after %v, want half a second", wait)
	}
	resp := s.get("/v1/whoami")
	if resp.code != http.StatusTooManyRequests || resp.reason() != "ThrottlingException" {
		t.Errorf("REST: %d %s", resp.code, resp.body)
	}
	if seconds, err := strconv.Atoi(resp.header.Get("Retry-After")); err != nil || seconds != 1 {
		t.Errorf("Retry-After is %q", resp.header.Get("Retry-After"))
	}
	if s.keys.count() != before {
		t.Error("keys were reached")
	}
	if code := s.get("/healthz").code; code != http.StatusOK {
		t.Errorf("a probe is refused: %d", code)
	}
	ahead.Store(int64(wait))
	if err := call(); err != nil {
		t.Errorf("after that time: %v", err)
	}
}

// TestEveryClassHasARate compares the table of methods with the rates.
func TestEveryClassHasARate(t *testing.T) {
	throttle := gateway.NewThrottle(gateway.Rates{}, time.Now) // rates of nothing admit nothing
	for name, row := range gateway.MethodRows() {
		if limited := throttle.Admit(row.Class, user("111122223333", "alice")) != nil; limited == (row.Class == "probe") {
			t.Errorf("%s of class %q is limited: %v", name, row.Class, limited)
		}
	}
}
