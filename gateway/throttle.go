package gateway

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
)

// maxBuckets bounds the memory that callers can occupy by calling under many names.
const maxBuckets = 20_000

// bucketFill is how long an empty bucket takes to fill: what a second allows may come at once.
const bucketFill = time.Second

// throttle holds the calls of each principal, and of each account, to the rates of their
// classes. Rates are per Region: Regions do not ask each other before they serve.
type throttle struct {
	rates map[class]Rate
	now   func() time.Time

	mu      sync.Mutex
	buckets map[bucketKey]*bucket // guarded by mu
	swept   time.Time             // guarded by mu
}

type bucketKey struct {
	class class
	who   string // ARN of a principal, or number of an account
}

type bucket struct {
	limiter *rate.Limiter
	used    time.Time
}

func newThrottle(r Rates, now func() time.Time) *throttle {
	return &throttle{
		rates:   map[class]Rate{classCrypto: r.Crypto, classRead: r.Read, classManage: r.Manage},
		now:     now,
		buckets: map[bucketKey]*bucket{},
	}
}

// admit takes one call out of the principal's bucket and one out of its account's, or
// neither: a principal that is refused must not use up what its account has.
func (t *throttle) admit(c class, p arn.Principal) error {
	limit, ok := t.rates[c]
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	var taken []*rate.Reservation
	for _, level := range []struct {
		who, what string
		perSecond int
	}{{p.String(), limitPrincipal, limit.Principal}, {string(p.Account), limitAccount, limit.Account}} {
		wait := bucketFill
		if b := t.bucket(bucketKey{c, level.who}, level.perSecond, now); b != nil {
			r := b.limiter.ReserveN(now, 1)
			taken = append(taken, r)
			wait = r.DelayFrom(now)
		}
		if wait == 0 {
			continue
		}
		for _, r := range taken {
			r.CancelAt(now)
		}
		return &refusal{
			code: codes.ResourceExhausted, reason: string(keyops.ErrThrottling), retry: wait, limit: level.what,
			message: fmt.Sprintf("more than %d %s calls per second of this %s", level.perSecond, c, level.what),
		}
	}
	return nil
}

// bucket returns the bucket of a key, or nil if the table is full of buckets in use.
func (t *throttle) bucket(key bucketKey, perSecond int, now time.Time) *bucket {
	b := t.buckets[key]
	if b == nil {
		if len(t.buckets) >= maxBuckets && !t.sweep(now) {
			return nil
		}
		b = &bucket{limiter: rate.NewLimiter(rate.Limit(perSecond)/rate.Limit(bucketFill.Seconds()), perSecond)}
		t.buckets[key] = b
	}
	b.used = now
	return b
}

// sweep drops the buckets that have had the time to fill. They are as good as new ones, so
// that nothing is forgiven. It reports whether there is room.
func (t *throttle) sweep(now time.Time) bool {
	if now.Sub(t.swept) < bucketFill {
		return false // so that a full table is not walked at every call
	}
	t.swept = now
	for key, b := range t.buckets {
		if now.Sub(b.used) >= bucketFill {
			delete(t.buckets, key)
		}
	}
	return len(t.buckets) < maxBuckets
}
