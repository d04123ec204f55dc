package gateway_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func TestTally(t *testing.T) {
	tally := gateway.NewTally(func() time.Time { return begun })
	call := func(p arn.Principal, n int) {
		for range n {
			tally.Add(keyops.Caller{Principal: p, SourceIP: "192.0.2.1", RequestID: "r"}, "/keyferry.kms.v1.CryptoService/Encrypt")
		}
	}
	for i := range gateway.MaxTallied + 50 {
		call(user("111122223333", fmt.Sprintf("u%d", i)), 2)
	}
	call(user("111122223333", "u0"), 1)
	rows := tally.Take()
	if len(rows) != gateway.MaxTallied+1 {
		t.Errorf("%d records, want one of each of %d principals and one of the others", len(rows), gateway.MaxTallied)
	}
	first := rows[user("111122223333", "u0")]
	if first == nil || first.Count != 3 || first.Operation != "Encrypt" || first.Caller.SourceIP != "192.0.2.1" || !first.Since.Equal(begun) {
		t.Errorf("the first principal's record is %+v", first)
	}
	if others := rows[arn.Principal{}]; others == nil || others.Count != 100 || others.Operation != "" || others.Caller.SourceIP != "" {
		t.Errorf("the record of the others is %+v", others)
	}
	if again := tally.Take(); len(again) != 0 {
		t.Errorf("%d records are made twice", len(again))
	}
}

// seen remembers what an Observer was told.
type seen struct {
	mu        sync.Mutex
	began     int
	ended     map[string]int
	throttled map[string]int
}

func (s *seen) Began() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began++
}

func (s *seen) Ended(method, code string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if took < 0 {
		code = "negative"
	}
	s.ended[method+" "+code]++
}

func (s *seen) Throttled(class, limit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.throttled[class+" "+limit]++
}

// TestThrottledCallsAreRecorded calls too often, and finds one record of it.
func TestThrottledCallsAreRecorded(t *testing.T) {
	watch := &seen{ended: map[string]int{}, throttled: map[string]int{}}
	var (
		mu      sync.Mutex
		records []keyops.ThrottledCalls
	)
	now := time.Now()
	s := start(t, func(c *gateway.Config) {
		c.Limits.Rates.Read.Principal = 1
		c.Now = func() time.Time { return now }
		c.Observer = watch
		c.RecordThrottled = func(_ context.Context, r keyops.ThrottledCalls) error {
			mu.Lock()
			defer mu.Unlock()
			records = append(records, r)
			return nil
		}
	})
	client := kmsv1.NewRegionServiceClient(s.grpc)
	for i := range 5 {
		_, err := client.GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
		if i == 0 {
			must(t, err)
			continue
		}
		wantStatus(t, err, codes.ResourceExhausted, "ThrottlingException")
	}
	must(t, s.halt())
	if len(records) != 1 || records[0].Count != 4 || records[0].Operation != "GetCallerIdentity" || records[0].Caller.Principal.Name == "" || records[0].Caller.SourceIP != "127.0.0.1" {
		t.Errorf("recorded %+v, want four calls in one record", records)
	}
	const method = "keyferry.kms.v1.RegionService/GetCallerIdentity"
	if watch.ended[method+" OK"] != 1 || watch.ended[method+" ResourceExhausted"] != 4 || watch.throttled["read principal"] != 4 {
		t.Errorf("the observer was told %+v %+v", watch.ended, watch.throttled)
	}
	total := 0
	for _, n := range watch.ended {
		total += n
	}
	if watch.began != total {
		t.Errorf("%d calls began and %d ended", watch.began, total)
	}
}
