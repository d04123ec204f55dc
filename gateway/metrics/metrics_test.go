package metrics_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/gateway/alarm"
	"github.com/keyferry/keyferry/gateway/metrics"
)

// full is metrics with something of everything.
func full() *metrics.Metrics {
	m := metrics.New(metrics.Build{Version: "v1", Region: "eu-paris-1"})
	m.Began()
	m.Began()
	m.Ended("keyferry.kms.v1.CryptoService/Encrypt", "OK", 3*time.Millisecond)
	m.Throttled("crypto", "principal")
	m.Token("EncryptGCM", time.Millisecond, nil)
	m.Token("DecryptGCM", time.Millisecond, errors.New("no"))
	m.Watch(metrics.Sources{
		Boundary: "api-only",
		Alarms: func() []alarm.Alarm {
			return []alarm.Alarm{{Name: "audit log", Count: 2, Cause: errors.New("full")}, {Name: "token"}}
		},
		Sessions:    func() (int, int) { return 1, 4 },
		PKCS11:      func() map[string]uint64 { return map[string]uint64{"C_Encrypt": 7} },
		Quarantined: func() int { return 3 },
		Queue:       func() (int, int) { return 5, 16384 },
		Findings:    func() int { return 6 },
		Keys:        func() int { return 8 },
		Connections: func() map[string]int { return map[string]int{"grpc": 9, "rest": 0} },
		Peers: func() []metrics.Peer {
			return []metrics.Peer{
				{Region: "us-east-1", Connected: true, LastExchange: time.Unix(1_800_000_000, 0), Unconfirmed: 2, Failed: 1, Lag: 90 * time.Second},
				{Region: "ap-tokyo-1"},
			}
		},
	})
	return m
}

// serve shows m and returns what a reader gets.
func serve(t *testing.T, m *metrics.Metrics) (address string) {
	t.Helper()
	s, err := metrics.Listen("127.0.0.1:0", m)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String()
}

func read(t *testing.T, address string) []string {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	return strings.Split(string(body), "\n")
}

func TestValues(t *testing.T) {
	lines := read(t, serve(t, full()))
	for _, want := range []string{
		`keyferry_build_info{region="eu-paris-1",version="v1"} 1`,
		`keyferry_boundary{boundary="api-only"} 1`,
		`keyferry_calls_total{code="OK",method="keyferry.kms.v1.CryptoService/Encrypt"} 1`,
		`keyferry_call_duration_seconds_bucket{method="keyferry.kms.v1.CryptoService/Encrypt",le="0.0025"} 0`,
		`keyferry_call_duration_seconds_bucket{method="keyferry.kms.v1.CryptoService/Encrypt",le="0.005"} 1`,
		`keyferry_calls_in_flight 1`,
		`keyferry_calls_throttled_total{class="crypto",limit="principal"} 1`,
		`keyferry_token_duration_seconds_count{operation="EncryptGCM"} 1`,
		`keyferry_token_failures_total{operation="DecryptGCM"} 1`,
		`keyferry_token_sessions_in_use 1`,
		`keyferry_token_sessions 4`,
		`keyferry_token_quarantined_objects 3`,
		`keyferry_pkcs11_calls_total{function="C_Encrypt"} 7`,
		`keyferry_audit_queue_records 5`,
		`keyferry_audit_queue_limit 16384`,
		`keyferry_store_findings 6`,
		`keyferry_keys 8`,
		`keyferry_connections{listener="grpc"} 9`,
		`keyferry_connections{listener="rest"} 0`,
		`keyferry_peer_connected{peer="us-east-1"} 1`,
		`keyferry_peer_connected{peer="ap-tokyo-1"} 0`,
		`keyferry_peer_last_exchange_timestamp_seconds{peer="us-east-1"} 1.8e+09`,
		`keyferry_peer_unconfirmed_keys{peer="us-east-1"} 2`,
		`keyferry_peer_failed_keys{peer="us-east-1"} 1`,
		`keyferry_peer_lag_seconds{peer="us-east-1"} 90`,
		`keyferry_peer_lag_seconds{peer="ap-tokyo-1"} 0`,
		`keyferry_alarms_total{alarm="audit log"} 2`,
		`keyferry_alarm{alarm="audit log"} 1`,
		`keyferry_alarm{alarm="token"} 0`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("not shown: %s", want)
		}
	}
	for _, l := range lines {
		if strings.HasPrefix(l, `keyferry_peer_last_exchange_timestamp_seconds{peer="ap-tokyo-1"}`) {
			t.Errorf("a peer that was never heard has %s", l)
		}
		if strings.HasPrefix(l, `keyferry_token_failures_total{operation="EncryptGCM"}`) {
			t.Errorf("what went well failed: %s", l)
		}
	}
}

// metric is a row of the page, or what the registry says of it.
type metric struct{ Kind, Labels string }

// TestPageListsEveryMetric compares docs/metrics.md with what is shown, labels included, so
// that no label is added without a thought for who reads it.
func TestPageListsEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]metric{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(keyferry_\\w+)` \\| (\\w+) \\|([^|]*)\\|").FindAllStringSubmatch(string(page), -1) {
		var labels []string
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		want[m[1]] = metric{m[2], strings.Join(labels, " ")}
	}
	got := map[string]metric{}
	label := regexp.MustCompile(`(\w+)="`)
	kinds := map[string]string{}
	for _, line := range read(t, serve(t, full())) {
		if rest, ok := strings.CutPrefix(line, "# TYPE keyferry_"); ok {
			name, kind, _ := strings.Cut(rest, " ")
			kinds["keyferry_"+name] = kind
			continue
		}
		name, _, _ := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{")
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			base := strings.TrimSuffix(name, suffix)
			kind, ok := kinds[base]
			if !ok || (suffix != "" && kind != "histogram") {
				continue
			}
			var names []string
			for _, l := range label.FindAllStringSubmatch(line[:strings.LastIndex(line, " ")], -1) {
				if l[1] != "le" {
					names = append(names, l[1])
				}
			}
			slices.Sort(names)
			got[base] = metric{kind, strings.Join(names, " ")}
			break
		}
	}
	if len(got) < 20 {
		t.Fatalf("only %d metrics are shown", len(got))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the page (-) and what is shown (+):\n%s", diff)
	}
}

func TestListenerShowsMetricsAndNothingElse(t *testing.T) {
	address := serve(t, full())
	for _, tt := range []struct {
		verb, path string
		want       int
	}{
		{"GET", "/metrics", 200}, {"HEAD", "/metrics", 200}, {"POST", "/metrics", 405},
		{"GET", "/", 404}, {"GET", "/metrics/x", 404}, {"GET", "/debug/pprof/", 404},
	} {
		req, err := http.NewRequest(tt.verb, "http://"+address+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.verb, tt.path, resp.StatusCode, tt.want)
		}
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// net/http adds 4 KiB of slop to its bound.
	fmt.Fprintf(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 16<<10))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("16 KiB of headers: %d", resp.StatusCode)
	}
}

func TestAddressInUse(t *testing.T) {
	address := serve(t, full())
	if _, err := metrics.Listen(address, full()); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("a second listener: %v", err)
	}
}
