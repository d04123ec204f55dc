package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// client calls a Region at several addresses as admin.
func (d deployment) client(t *testing.T, addresses ...string) kmsv1.CryptoServiceClient {
	t.Helper()
	return kmsv1.NewCryptoServiceClient(d.connect(t, addresses...))
}

func (d deployment) connect(t *testing.T, addresses ...string) *grpc.ClientConn {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(d.dir, "clients", "admin", "client.crt"), filepath.Join(d.dir, "clients", "admin", "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(d.dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	r := manual.NewBuilderWithScheme("keyferry")
	var state resolver.State
	for _, a := range addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: a})
	}
	r.InitialState(state)
	conn, err := grpc.NewClient("keyferry:///region", grpc.WithResolvers(r),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "127.0.0.1",
		})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// load encrypts and decrypts in several goroutines until it is stopped.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	calls  int
	failed []error
	last   time.Time
	gap    time.Duration // the longest time without an answer
}

const callers = 4

func startLoad(t *testing.T, client kmsv1.CryptoServiceClient, key string) *load {
	return startCalls(t, client, key, callers, 0)
}

// startCalls is a load of so many callers, each of whom waits between two calls.
func startCalls(t *testing.T, client kmsv1.CryptoServiceClient, key string, callers int, pause time.Duration) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, last: time.Now()}
	for range callers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.call(client, key)
				time.Sleep(pause)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) call(client kmsv1.CryptoServiceClient, key string) {
	// Not the context that ends the load: a call that has begun is to have an answer.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sealed, err := client.Encrypt(ctx, &kmsv1.EncryptRequest{KeyId: key, Plaintext: []byte("x")})
	if err == nil {
		var opened *kmsv1.DecryptResponse
		opened, err = client.Decrypt(ctx, &kmsv1.DecryptRequest{CiphertextBlob: sealed.GetCiphertextBlob()})
		if err == nil && string(opened.GetPlaintext()) != "x" {
			err = fmt.Errorf("decrypted to %q", opened.GetPlaintext())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if err != nil {
		l.failed = append(l.failed, err)
		return
	}
	l.gap, l.last = max(l.gap, time.Since(l.last)), time.Now()
}

func (l *load) stop() { l.cancel(); l.wg.Wait() }

// answered waits for more answers than there are by now.
func (l *load) answered(t *testing.T) {
	t.Helper()
	count := func() int { l.mu.Lock(); defer l.mu.Unlock(); return l.calls - len(l.failed) }
	before := count()
	eventually(t, patience, func() (string, bool) { return "no answers", count() > before+2*callers })
}

// freePort is one that nobody listens on. It is neither of those that keyferry-dev chooses nor
// of those that the kernel gives to connections, so that nobody takes it before it is used.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// TestStandby kills the daemon that serves, and later stops the one that took over, while
// clients with both addresses keep calling.
func TestStandby(t *testing.T) {
	softhsmtest.Used(t)
	d := shared
	key := d.createKey(t, paris)
	first := d.status(t)[paris]
	second := freePort(t)
	elsewhere := changed(t, paris, `^    grpc: .*`, "    grpc: "+second)
	t.Cleanup(func() { d.mustDev(t, "up") })
	l := startLoad(t, d.client(t, first.GRPC, second), key)

	standby := d.start(t, paris, elsewhere, "--standby")
	standby.await(t, "another daemon serves, waiting as a standby")
	later := d.createKey(t, paris) // an object of the token that the standby has not seen
	l.answered(t)
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	standby.await(t, "taking over")
	standby.await(t, "serving")
	l.answered(t)
	l.stop()
	t.Logf("killed: %d of %d calls failed, longest time without an answer %v", len(l.failed), l.calls, l.gap)
	// What was in flight is lost with the process that had it. Nothing else is.
	if len(l.failed) > callers {
		t.Errorf("%d calls failed, and %d were in flight: %v", len(l.failed), callers, l.failed)
	}
	if l.gap > time.Minute {
		t.Errorf("%v without an answer", l.gap)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := d.client(t, second).Encrypt(ctx, &kmsv1.EncryptRequest{KeyId: later, Plaintext: []byte("x")}); err != nil {
		t.Errorf("a key that was made while the standby waited: %v", err)
	}

	// Orderly, as in an upgrade, with the configuration that the first daemon had.
	next := d.start(t, paris, d.in(paris, "keyferryd.yaml"), "--standby")
	next.await(t, "another daemon serves, waiting as a standby")
	l = startLoad(t, d.client(t, first.GRPC, second), key)
	l.answered(t)
	standby.stop(t)
	next.await(t, "serving")
	l.answered(t)
	l.stop()
	t.Logf("stopped: %d of %d calls failed, longest time without an answer %v", len(l.failed), l.calls, l.gap)
	if len(l.failed) > 0 {
		t.Errorf("calls failed while a daemon handed over in order: %v", l.failed)
	}

	// One that waits is told to stop.
	waits := d.start(t, paris, elsewhere, "--standby")
	waits.await(t, "another daemon serves, waiting as a standby")
	waits.stop(t)
	next.stop(t)

	// So is one that has not begun to serve.
	for range 3 {
		begins := d.start(t, paris, elsewhere)
		begins.await(t, "replication boundary")
		begins.stop(t)
	}
}
