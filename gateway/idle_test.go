package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keyferry/keyferry/gateway"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// from dials from one of the addresses of loopback.
func from(host string) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}, Timeout: time.Minute}
	return d.DialContext
}

// TestIdleConnections opens 2,000 connections from one address to each listener and says
// nothing on them. Others are served as if they were not there.
func TestIdleConnections(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Limits.HandshakeTimeout = 5 * time.Minute })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, address := range []string{s.GRPCAddr().String(), s.RESTAddr().String()} {
		var (
			all  sync.WaitGroup
			mu   sync.Mutex
			held []net.Conn
		)
		for range 20 {
			all.Go(func() {
				for range 100 {
					conn, err := from("127.0.0.2")(context.Background(), "tcp", address)
					if err != nil {
						continue // closed before it was complete
					}
					mu.Lock()
					held = append(held, conn)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		defer func() {
			for _, c := range held {
				c.Close()
			}
		}()
		if len(held) < 1500 {
			t.Errorf("%s: %d connections were made, which is no attack", address, len(held))
		}
	}
	open := s.ConnectionsOf("127.0.0.2")
	for range 1200 {
		if open == 1000 {
			break
		}
		time.Sleep(50 * time.Millisecond)
		open = s.ConnectionsOf("127.0.0.2")
	}
	if open != 1000 {
		t.Errorf("%d connections are open, want 500 of each listener", open)
	}

	begun := time.Now()
	if _, err := whoami(context.Background(), s, s.ca.trusting(s.ca.issue(aliceURI, nil))); err != nil {
		t.Errorf("gRPC from another address: %v", err)
	}
	if code := s.get("/v1/whoami").code; code != http.StatusOK {
		t.Errorf("REST from another address: %d", code)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("others wait %v", took)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 128<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
}

// secured finishes a handshake as Alice over a connection.
func (s *served) secured(address, protocol string) *tls.Conn {
	s.t.Helper()
	c := s.ca.trusting(s.ca.issue(aliceURI, nil))
	c.NextProtos = []string{protocol}
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// hungUpOn demands that the server closes a connection within a time.
func hungUpOn(t *testing.T, conn net.Conn, within time.Duration) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(within)))
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection is open after %v", within)
	}
}

// TestSilentClientsAreHungUpOn begins each stage of a connection and does not go on.
func TestSilentClientsAreHungUpOn(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Limits.HandshakeTimeout = 2 * time.Second })
	grpcAddress, restAddress := s.GRPCAddr().String(), s.RESTAddr().String()
	for name, test := range map[string]struct{ address, protocol, says string }{
		"gRPC without a handshake":     {grpcAddress, "", ""},
		"gRPC with half a handshake":   {grpcAddress, "", "\x16\x03\x01\x02\x00"},
		"gRPC without a preface":       {grpcAddress, "h2", ""},
		"gRPC with half a preface":     {grpcAddress, "h2", "PRI * HTTP/2.0\r\n"},
		"REST without a handshake":     {restAddress, "", ""},
		"REST with half a handshake":   {restAddress, "", "\x16\x03\x01\x02\x00"},
		"REST without a request":       {restAddress, "http/1.1", ""},
		"REST with headers for ever":   {restAddress, "http/1.1", "POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nX: "},
		"REST with headers of a tower": {restAddress, "http/1.1", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conn net.Conn
			if test.protocol == "" {
				var err error
				conn, err = net.Dial("tcp", test.address)
				must(t, err)
			} else {
				conn = s.secured(test.address, test.protocol)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, test.says) // the server may hang up in the middle
			hungUpOn(t, conn, time.Minute)
		})
	}
}

// TestMessagesThatNeverEnd sends the headers of a call and no body. The call ends all the
// same, a little after the time that it may take, which is shorter here.
func TestMessagesThatNeverEnd(t *testing.T) {
	t.Parallel()
	s := &served{t: t, keys: &fakeKeys{t: t}, extra: func(g *gateway.Server) { g.Shorten(200 * time.Millisecond) }}
	s.start(s.keys, func(c *gateway.Config) { c.Limits.HandshakeTimeout = 2 * time.Second })
	const patience = time.Minute
	t.Run("gRPC", func(t *testing.T) {
		t.Parallel()
		conn := s.secured(s.GRPCAddr().String(), "h2")
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err := io.WriteString(conn, http2.ClientPreface)
		must(t, err)
		var block strings.Builder
		enc := hpack.NewEncoder(&block)
		for _, h := range [][2]string{
			{":method", "POST"}, {":scheme", "https"}, {":path", kmsv1.CryptoService_Encrypt_FullMethodName},
			{":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"},
		} {
			must(t, enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
		}
		framer := http2.NewFramer(conn, conn)
		must(t, framer.WriteSettings())
		must(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true}))
		must(t, framer.WriteData(1, false, []byte{0, 0, 0, 0, 9, 1})) // one byte of nine
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatalf("the call has no end: %v", err)
			}
			if frame.Header().StreamID == 1 && (frame.Header().Type == http2.FrameHeaders || frame.Header().Type == http2.FrameRSTStream) {
				return
			}
		}
	})
	t.Run("REST", func(t *testing.T) {
		t.Parallel()
		conn := s.secured(s.RESTAddr().String(), "http/1.1")
		defer conn.Close()
		_, err := io.WriteString(conn, "POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
		must(t, err)
		hungUpOn(t, conn, patience)
	})
	if s.keys.count() != 0 {
		t.Error("keys were reached")
	}
}
