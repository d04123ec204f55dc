package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// replicas answers for one key in two Regions.
type replicas struct{}

func (replicas) Status(arn.KeyID) []gateway.ReplicaStatus {
	return []gateway.ReplicaStatus{
		{Region: "eu-paris-1", Status: "SYNCHRONIZED"},
		{
			Region: "us-east-1", KeyState: "Creating", Status: "FAILED", Cause: "PEER_UNREACHABLE", Attempts: 3, LagFacts: 2, Lag: 90 * time.Second,
			NextTry: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), LastSynchronized: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC),
		},
	}
}

func (replicas) Peers() []gateway.PeerStatus {
	return []gateway.PeerStatus{{Region: "us-east-1", Connected: time.Unix(1, 0)}, {Region: "ap-tokyo-1", LastError: "refused"}}
}

func TestPeers(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Replication = replicas{} })
	resp, err := kmsv1.NewRegionServiceClient(s.grpc).ListPeers(context.Background(), &kmsv1.ListPeersRequest{})
	must(t, err)
	if len(resp.GetPeers()) != 2 || !resp.GetPeers()[0].GetConnected() || resp.GetPeers()[1].GetConnected() {
		t.Errorf("got %v", resp)
	}
}

// held blocks Encrypt in keys until release is closed or its context ends.
func held(s *served) (entered chan struct{}, release chan struct{}) {
	entered, release = make(chan struct{}, 2), make(chan struct{})
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

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	s := start(t, nil)
	entered, release := held(s)
	outcome := make(chan error, 2)
	go func() {
		_, err := kmsv1.NewCryptoServiceClient(s.grpc).Encrypt(context.Background(), &kmsv1.EncryptRequest{})
		outcome <- err
	}()
	go func() {
		resp := s.post("/v1/encrypt", `{}`)
		if resp.code != http.StatusOK {
			outcome <- fmt.Errorf("REST answered %d %s", resp.code, resp.body)
			return
		}
		outcome <- nil
	}()
	<-entered
	<-entered
	s.stop()
	// New connections are refused while the calls are still running.
	for refused := false; !refused; {
		conn, err := dialTLS(s, 5*time.Second)
		if refused = err != nil; !refused {
			conn.Close()
			time.Sleep(5 * time.Millisecond)
		}
	}
	select {
	case <-s.done:
		t.Fatalf("stopped with calls in flight: %v", s.err)
	case err := <-outcome:
		t.Fatalf("a call was cut off: %v", err)
	default:
	}
	close(release)
	for range 2 {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
	if err := s.halt(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.DrainTimeout = 50 * time.Millisecond })
	entered, _ := held(s)
	outcome := make(chan error, 1)
	go func() {
		_, err := kmsv1.NewCryptoServiceClient(s.grpc).Encrypt(context.Background(), &kmsv1.EncryptRequest{})
		outcome <- err
	}()
	<-entered
	began := time.Now()
	if err := s.halt(); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Serve returned %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if err := <-outcome; err == nil {
		t.Error("the call succeeded")
	}
}

func TestOversizedMessages(t *testing.T) {
	s := start(t, nil)
	client := kmsv1.NewCryptoServiceClient(s.grpc)
	if _, err := client.Encrypt(context.Background(), &kmsv1.EncryptRequest{Plaintext: make([]byte, 64<<10-16)}); err != nil {
		t.Errorf("just under the limit: %v", err)
	}
	before := s.keys.count()
	_, err := client.Encrypt(context.Background(), &kmsv1.EncryptRequest{Plaintext: make([]byte, 64<<10)})
	if status.Code(err) != codes.ResourceExhausted || s.keys.count() != before {
		t.Errorf("over the limit: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-large", strings.Repeat("h", 32<<10))
	if _, err := client.Encrypt(ctx, &kmsv1.EncryptRequest{}); err == nil || s.keys.count() != before {
		t.Errorf("over the header limit: %v", err)
	}
}

func TestFieldsOfALaterVersionAreRefused(t *testing.T) {
	s := start(t, nil)
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1)
	encrypt := &kmsv1.EncryptRequest{}
	encrypt.ProtoReflect().SetUnknown(unknown)
	_, err := kmsv1.NewCryptoServiceClient(s.grpc).Encrypt(context.Background(), encrypt)
	wantStatus(t, err, codes.InvalidArgument, "ValidationException")

	keys := kmsv1.NewKeyServiceClient(s.grpc)
	tag := &kmsv1.Tag{TagKey: "a"} // in a list
	tag.ProtoReflect().SetUnknown(unknown)
	_, err = keys.CreateKey(context.Background(), &kmsv1.CreateKeyRequest{Tags: []*kmsv1.Tag{{TagKey: "b"}, tag}})
	wantStatus(t, err, codes.InvalidArgument, "ValidationException")
	constraints := &kmsv1.GrantConstraints{} // one that narrows a grant must not be overlooked
	constraints.ProtoReflect().SetUnknown(unknown)
	_, err = keys.CreateGrant(context.Background(), &kmsv1.CreateGrantRequest{KeyId: keyID, Constraints: constraints})
	wantStatus(t, err, codes.InvalidArgument, "ValidationException")
	if s.keys.count() != 0 {
		t.Error("keys were reached")
	}
}

func TestDeadlines(t *testing.T) {
	s := start(t, nil)
	lefts := make(chan time.Duration, 1)
	s.keys.failWith(func(ctx context.Context, _ string) error {
		deadline, _ := ctx.Deadline()
		lefts <- time.Until(deadline)
		return nil
	})
	client := kmsv1.NewCryptoServiceClient(s.grpc)
	_, err := client.Encrypt(context.Background(), &kmsv1.EncryptRequest{})
	must(t, err)
	if left := <-lefts; left <= 0 || left > 10*time.Second {
		t.Errorf("without a deadline of its own, a call has %v", left)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Second)
	defer cancel()
	_, err = client.Encrypt(ctx, &kmsv1.EncryptRequest{})
	must(t, err)
	if left := <-lefts; left <= 0 || left > 8980*time.Millisecond {
		t.Errorf("with nine seconds of its own, a call has %v", left)
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	s := start(t, nil)
	s.keys.failWith(func(context.Context, string) error { panic("plaintext 4711") })
	_, err := kmsv1.NewCryptoServiceClient(s.grpc).Encrypt(context.Background(), &kmsv1.EncryptRequest{})
	message := wantStatus(t, err, codes.Internal, "KMSInternalException")
	if strings.Contains(message, "4711") {
		t.Errorf("the client hears %q", message)
	}
	s.keys.failWith(nil)
	if _, err := kmsv1.NewCryptoServiceClient(s.grpc).Encrypt(context.Background(), &kmsv1.EncryptRequest{}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestLogsHoldNoPayload(t *testing.T) {
	s := start(t, nil)
	const secret = "correct horse battery staple"
	ctx := context.Background()
	client := kmsv1.NewCryptoServiceClient(s.grpc)
	_, err := client.Encrypt(ctx, &kmsv1.EncryptRequest{Plaintext: []byte(secret), EncryptionContext: map[string]string{"k": secret}})
	must(t, err)
	s.post("/v1/encrypt", `{"plaintext":"`+secret+`","keyId":"`+secret+`"}`)
	s.keys.failWith(func(context.Context, string) error { panic(secret) })
	_, _ = client.Encrypt(ctx, &kmsv1.EncryptRequest{Plaintext: []byte(secret)})
	s.keys.failWith(func(context.Context, string) error {
		return &keyops.Error{Reason: keyops.ErrValidation, Message: secret}
	})
	_, _ = client.Encrypt(ctx, &kmsv1.EncryptRequest{Plaintext: []byte(secret)})

	entries := s.logs.AllEntries()
	if len(entries) < 4 {
		t.Fatalf("%d log entries", len(entries))
	}
	for _, e := range entries {
		line, err := e.Bytes()
		must(t, err)
		if bytes.Contains(line, []byte(secret)) {
			t.Errorf("the log says %s", line)
		}
	}
}

func TestHealth(t *testing.T) {
	var ahead atomic.Int64
	began := time.Now()
	s := start(t, func(c *gateway.Config) {
		c.Now = func() time.Time { return began.Add(time.Duration(ahead.Load())) }
	})
	// A probe needs a certificate of the authority, but no principal.
	client := grpc_health_v1.NewHealthClient(s.dial(s.ca.trusting(s.ca.issue("", nil))))
	check := func() (grpc_health_v1.HealthCheckResponse_ServingStatus, int) {
		resp, err := client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		must(t, err)
		return resp.GetStatus(), s.get("/readyz").code
	}
	if word, ready := check(); word != grpc_health_v1.HealthCheckResponse_SERVING || ready != http.StatusOK {
		t.Errorf("well: %v, %d", word, ready)
	}
	watch, err := client.Watch(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	must(t, err)
	if first, err := watch.Recv(); err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("watch begins with %v, %v", first, err)
	}
	s.ill.Store(true)
	if word, _ := check(); word != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("the token is asked more than once a second")
	}
	ahead.Store(int64(2 * time.Second))
	if second, err := watch.Recv(); err != nil || second.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("watch goes on with %v, %v", second, err)
	}
	if word, ready := check(); word != grpc_health_v1.HealthCheckResponse_NOT_SERVING || ready != http.StatusServiceUnavailable {
		t.Errorf("ill: %v, %d", word, ready)
	}
	if _, err := client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{Service: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown service: %v", err)
	}
	list, err := client.List(context.Background(), &grpc_health_v1.HealthListRequest{})
	if err != nil || len(list.GetStatuses()) != 5 {
		t.Errorf("list: %v, %v", list, err)
	}
	// Liveness needs neither a well token nor a certificate.
	resp, err := s.client(s.ca.trusting()).Get("https://" + s.RESTAddr().String() + "/healthz")
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("alive: %s", resp.Status)
	}
	// A probe's certificate opens nothing else.
	_, err = kmsv1.NewRegionServiceClient(s.dial(s.ca.trusting(s.ca.issue("", nil)))).GetCallerIdentity(context.Background(), &kmsv1.GetCallerIdentityRequest{})
	wantStatus(t, err, codes.Unauthenticated, "UnrecognizedClientException")
}

func TestReflection(t *testing.T) {
	s := start(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // or the stream would keep the server from stopping
	ask := func(conn *grpc.ClientConn) (*reflectionv1.ServerReflectionResponse, error) {
		stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		must(t, err)
		must(t, stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}))
		return stream.Recv()
	}
	resp, err := ask(s.grpc)
	must(t, err)
	if !strings.Contains(resp.String(), "keyferry.kms.v1.CryptoService") {
		t.Errorf("got %v", resp)
	}
	if _, err := ask(s.dial(s.ca.trusting(s.ca.issue("", nil)))); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a principal: %v", err)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Limits.MaxConnections, c.Limits.MaxConnectionsPerAddress = 2, 2 })
	first, err := dialTLS(s, time.Minute)
	must(t, err)
	defer first.Close()
	second, err := dialTLS(s, time.Minute)
	must(t, err)
	if third, err := dialTLS(s, 200*time.Millisecond); err == nil {
		third.Close()
		t.Error("a third connection was served")
	}
	second.Close()
	for range 12 {
		if third, err := dialTLS(s, 5*time.Second); err == nil {
			third.Close()
			return
		}
	}
	t.Error("a place that came free was not given to anybody")
}

func TestConfigNeedsItsFields(t *testing.T) {
	_, err := gateway.New(gateway.Config{DrainTimeout: -1, Limits: gateway.Limits{MaxConnections: -1, IdleTimeout: -1, Rates: gateway.Rates{Read: gateway.Rate{Account: -1}}}})
	for _, field := range []string{
		"GRPCAddress", "TLS.Certificate", "TLS.Key", "TLS.ClientCA", "Region", "Keys", "Health",
		"DrainTimeout", "Limits.MaxConnections", "Limits.IdleTimeout", "Limits.Rates",
	} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
}

// A server that is told to stop before it has begun, as by a supervisor that changes its mind,
// has stopped in order.
func TestStopBeforeServing(t *testing.T) {
	t.Parallel()
	for range 100 { // which of its parts has begun is for the scheduler to choose
		s := &served{t: t, keys: &fakeKeys{t: t}}
		s.start(s.keys, nil)
		if err := s.halt(); err != nil {
			t.Fatalf("Serve returned %v", err)
		}
	}
}
