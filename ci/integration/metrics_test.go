package integration

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// metrics returns what a Region's daemon shows.
func (d deployment) metrics(t *testing.T, region string) string {
	t.Helper()
	config, err := os.ReadFile(d.in(region, "keyferryd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`metrics:\n\s+listen: (\S+)`).FindSubmatch(config)
	if m == nil {
		t.Fatalf("no metrics are configured:\n%s", config)
	}
	resp, err := http.Get("http://" + string(m[1]) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %v", resp.StatusCode, err)
	}
	return string(body)
}

// TestMetricsSayWhatHappened calls a Region and finds the calls, and no trace of who called
// for which key, in its metrics.
func TestMetricsSayWhatHappened(t *testing.T) {
	key := shared.createKey(t, paris)
	shared.replicate(t, key, paris, virginia)
	sealed := shared.must(t, []byte("secret"), "encrypt", key, "--region", paris)
	shared.must(t, sealed, "decrypt", "--region", paris)
	shown := shared.metrics(t, paris)
	for _, want := range []string{
		`keyferry_build_info\{region="eu-paris-1",version="[^"]+"\} 1`,
		`keyferry_boundary\{boundary="api-only"\} 1`,
		`keyferry_calls_total\{code="OK",method="keyferry.kms.v1.CryptoService/Encrypt"\} [1-9]`,
		`keyferry_calls_total\{code="OK",method="keyferry.kms.v1.KeyService/CreateKey"\} [1-9]`,
		`keyferry_call_duration_seconds_count\{method="keyferry.kms.v1.CryptoService/Decrypt"\} [1-9]`,
		`keyferry_token_duration_seconds_count\{operation="EncryptGCM"\} [1-9]`,
		`keyferry_token_sessions [1-9]`,
		`keyferry_pkcs11_calls_total\{function="C_Encrypt"\} [1-9]`,
		`keyferry_audit_queue_limit 16384`,
		`keyferry_store_findings 0`,
		`keyferry_keys [1-9]`,
		`keyferry_connections\{listener="grpc"\} \d`,
		`keyferry_peer_connected\{peer="us-east-1"\} 1`,
		`keyferry_peer_lag_seconds\{peer="us-east-1"\} \d`,
		`keyferry_peer_last_exchange_timestamp_seconds\{peer="us-east-1"\} 1\.\d+e\+09`,
	} {
		if !regexp.MustCompile("(?m)^" + want).MatchString(shown) {
			t.Errorf("not shown: %s", want)
		}
	}
	for _, secret := range []string{key, strings.TrimPrefix(key, "mrk-"), "111122223333", "user/admin", "127.0.0.1"} {
		if strings.Contains(shown, secret) {
			t.Errorf("the metrics contain %q", secret)
		}
	}
}
