package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops"
)

// answer is what REST answered.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (a answer) status() (s struct {
	Code    int
	Message string
	Details []struct {
		Type   string `json:"@type"`
		Reason string
		Domain string
	}
}) {
	_ = json.Unmarshal([]byte(a.body), &s) // what is no status has no reason
	return s
}

func (a answer) message() string { return a.status().Message }

func (a answer) reason() string {
	for _, d := range a.status().Details {
		if d.Type == "type.googleapis.com/google.rpc.ErrorInfo" && d.Domain == "keyferry" {
			return d.Reason
		}
	}
	return ""
}

// do sends a request as Alice. header replaces the default Content-Type.
func (s *served) do(verb, path, body string, header http.Header) answer {
	s.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(verb, "https://"+s.RESTAddr().String()+"/", reader)
	if err != nil {
		s.t.Fatal(err)
	}
	// Opaque, so that the path goes out as it is written here.
	rawPath, rawQuery, _ := strings.Cut(path, "?")
	req.URL.Opaque = "//" + s.RESTAddr().String() + rawPath
	req.URL.RawQuery = rawQuery
	if header != nil {
		req.Header = header
	} else if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (s *served) get(path string) answer        { return s.do(http.MethodGet, path, "", nil) }
func (s *served) post(path, body string) answer { return s.do(http.MethodPost, path, body, nil) }

func TestRESTCarriesARequestWhole(t *testing.T) {
	s := start(t, nil)
	resp := s.post("/v1/encrypt", `{"keyId":"alias/payroll","plaintext":"AP8=","encryptionContext":{"env":"prod","k":"é"},"dryRun":true}`)
	want := keyops.EncryptInput{
		KeyID: "alias/payroll", Plaintext: []byte{0, 255}, DryRun: true,
		EncryptionContext: map[string]string{"env": "prod", "k": "é"},
	}
	if diff := cmp.Diff(want, s.keys.last().Input); diff != "" {
		t.Errorf("keys got (-want +got):\n%s", diff)
	}
	// camelCase, base64 and zero values, in one compact line.
	const body = `{"ciphertextBlob":"c2VhbGVkOgD/","keyId":"` + keyARN + `","encryptionAlgorithm":"","keyMaterialId":""}` + "\n"
	if resp.code != http.StatusOK || resp.body != body {
		t.Errorf("got %d %s, want %s", resp.code, resp.body, body)
	}
	if got := resp.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	if got := resp.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("an answer that may be a plaintext can be cached: %q", got)
	}
}

func TestRESTFieldsByTheirProtoNames(t *testing.T) {
	s := start(t, nil)
	if resp := s.post("/v1/encrypt", `{"key_id":"alias/payroll"}`); resp.code != http.StatusOK {
		t.Fatalf("got %d %s", resp.code, resp.body)
	}
	if got := s.keys.last().Input.(keyops.EncryptInput).KeyID; got != "alias/payroll" {
		t.Errorf("key ID %q", got)
	}
}

func TestRESTShowsFalse(t *testing.T) {
	s := start(t, nil)
	resp := s.get("/v1/keys")
	if !strings.Contains(resp.body, `"truncated":false`) || !strings.Contains(resp.body, `"nextMarker":""`) {
		t.Errorf("got %s", resp.body)
	}
}

func TestRESTStrictness(t *testing.T) {
	s := start(t, nil)
	json64k := func(n int) string {
		const frame = `{"keyId":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("k", n-len(frame))+`"`, 1)
	}
	for _, test := range []struct {
		name, verb, path, body string
		header                 http.Header
		code                   int
		says                   string
	}{
		{"misspelt field", "POST", "/v1/encrypt", `{"keyId":"k","encryptionContex":{"a":"b"}}`, nil, 400, `"encryptionContex" is unknown`},
		{"field of another case", "POST", "/v1/encrypt", `{"KeyId":"k"}`, nil, 400, `"KeyId" is unknown`},
		{"field twice", "POST", "/v1/encrypt", `{"keyId":"a","keyId":"b"}`, nil, 400, `"keyId" is there twice`},
		{"field under both names", "POST", "/v1/encrypt", `{"keyId":"a","key_id":"b"}`, nil, 400, `"keyId" is there twice`},
		{"escaped field twice", "POST", "/v1/encrypt", `{"keyId":"a","\u006beyId":"b"}`, nil, 400, `"keyId" is there twice`},
		{"context pair twice", "POST", "/v1/encrypt", `{"encryptionContext":{"a":"b","a":"c"}}`, nil, 400, `"encryptionContext" is not`},
		{"context value no string", "POST", "/v1/encrypt", `{"encryptionContext":{"a":1}}`, nil, 400, `"encryptionContext" is not`},
		{"bytes after the object", "POST", "/v1/encrypt", `{"keyId":"a"}{"keyId":"b"}`, nil, 400, "after the JSON object"},
		{"garbage after the object", "POST", "/v1/encrypt", `{"keyId":"a"} x`, nil, 400, "after the JSON object"},
		{"no object", "POST", "/v1/encrypt", `["keyId"]`, nil, 400, "one JSON object"},
		{"null", "POST", "/v1/encrypt", `null`, nil, 400, "one JSON object"},
		{"cut short", "POST", "/v1/encrypt", `{"keyId":"a"`, nil, 400, "one JSON object"},
		{"no base64", "POST", "/v1/encrypt", `{"plaintext":"my secret!"}`, nil, 400, `"plaintext" is not base64`},
		{"number for text", "POST", "/v1/encrypt", `{"keyId":7}`, nil, 400, `"keyId" is not a string`},
		{"invalid UTF-8", "POST", "/v1/encrypt", "{\"encryptionContext\":{\"a\":\"\xff\"}}", nil, 400, `"encryptionContext" is not`},
		{"lone surrogate", "POST", "/v1/encrypt", `{"keyId":"\ud800"}`, nil, 400, `"keyId" is not`},
		{"negative number", "POST", "/v1/generate-random", `{"numberOfBytes":-1}`, nil, 400, `"numberOfBytes" is not a number in its range`},
		{"fraction", "POST", "/v1/generate-random", `{"numberOfBytes":1.5}`, nil, 400, `"numberOfBytes" is not a number in its range`},
		{"key ID in path and body", "POST", "/v1/keys/" + keyID + ":enable", `{"keyId":"` + keyID + `"}`, nil, 400, "in the path"},
		{"alias in path and body", "POST", "/v1/alias/payroll", `{"alias_name":"alias/x","targetKeyId":"k"}`, nil, 400, "in the path"},
		{"key ID in path and query", "GET", "/v1/keys/" + keyID + "?keyId=x", "", nil, 400, "in the path"},
		{"unknown query parameter", "GET", "/v1/keys?limits=5", "", nil, 400, `"limits" is unknown`},
		{"unknown query parameter where none is known", "GET", "/v1/whoami?as=root", "", nil, 400, `"as" is unknown`},
		{"query parameter twice", "GET", "/v1/keys?limit=5&limit=6", "", nil, 400, "there twice"},
		{"query parameter under both names", "GET", "/v1/keys/" + keyID + "/policy?policyName=a&policy_name=b", "", nil, 400, "there twice"},
		{"query parameter no number", "GET", "/v1/keys?limit=many", "", nil, 400, "limit"},
		{"query of a body request", "POST", "/v1/encrypt?keyId=k", `{"plaintext":"AA=="}`, nil, 400, "no query parameters"},
		{"semicolon in the query", "GET", "/v1/keys?limit=5;marker=x", "", nil, 400, "could not be read"},
		{"body of a query request", "GET", "/v1/keys", `{"limit":5}`, nil, 400, "takes no body"},
		{"body of a deletion", "DELETE", "/v1/alias/payroll", `{}`, nil, 400, "takes no body"},
		{"escape in the path", "GET", "/v1/keys/mrk%2D0", "", nil, 400, "escapes"},
		{"escaped slash in an alias", "DELETE", "/v1/alias/a%2Fb", "", nil, 400, "escapes"},
		{"ARN in the path", "GET", "/v1/keys/" + keyARN, "", nil, 404, "nothing at this path"},
		{"wrong media type", "POST", "/v1/encrypt", `{}`, http.Header{"Content-Type": {"text/plain"}}, 415, "application/json"},
		{"form", "POST", "/v1/encrypt", `keyId=k`, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415, "application/json"},
		{"no media type", "POST", "/v1/encrypt", `{}`, http.Header{}, 415, "application/json"},
		{"compressed", "POST", "/v1/encrypt", `{}`, http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, 415, "content encoding"},
		{"body at the limit", "POST", "/v1/encrypt", json64k(64 << 10), nil, 200, ""},
		{"body over the limit", "POST", "/v1/encrypt", json64k(64<<10 + 1), nil, 413, "larger than 65536"},
		{"unknown path", "GET", "/v1/secrets", "", nil, 404, "nothing at this path"},
		{"unknown verb", "POST", "/v1/keys/" + keyID + ":explode", "", nil, 405, "takes GET"},
		{"double slash", "GET", "//v1/keys", "", nil, 404, "nothing at this path"},
		{"dots", "GET", "/v1/x/../keys", "", nil, 404, "nothing at this path"},
		{"method of no use", "BREW", "/v1/keys", "", nil, 501, "not known"},
		{"method override", "POST", "/v1/alias/payroll", `{"targetKeyId":"k"}`,
			http.Header{"Content-Type": {"application/json"}, "X-Http-Method-Override": {"DELETE"}}, 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := s.keys.count()
			resp := s.do(test.verb, test.path, test.body, test.header)
			if resp.code != test.code || !strings.Contains(resp.message(), test.says) {
				t.Fatalf("got %d %s, want %d %q", resp.code, resp.body, test.code, test.says)
			}
			if resp.code == http.StatusOK {
				return
			}
			if resp.reason() == "" {
				t.Errorf("no reason in %s", resp.body)
			}
			if strings.Contains(resp.body, "my secret") {
				t.Errorf("the answer repeats a value: %s", resp.body)
			}
			if s.keys.count() != before {
				t.Error("keys were reached")
			}
		})
	}
	if got := s.keys.last().Operation; got != "CreateAlias" {
		t.Errorf("the overridden method reached %s", got)
	}
}

// samples stand in for path variables.
var samples = map[string]string{"key_id": keyID, "alias_name": "alias/team:a/payroll", "grant_id": "0123456789abcdef", "synchronization_id": "sync-0123456789ab", "replica_instance": "us-east-1"}

var pathVariable = regexp.MustCompile(`\{([a-z_]+)(=[^}]*)?\}`)

func samplePath(rt gateway.Route) string {
	return pathVariable.ReplaceAllStringFunc(rt.Pattern, func(v string) string {
		if strings.Contains(v, "=alias/") {
			return samples["alias_name"]
		}
		return samples[pathVariable.FindStringSubmatch(v)[1]]
	})
}

// operationOf is the operation of keyops that an RPC comes down to.
func operationOf(method string) string {
	name := method[strings.LastIndex(method, "/")+1:]
	switch name {
	case "ListReplicas":
		return "DescribeKey"
	case "ListPeers", "GetRegionHealth":
		return "DescribeRegion"
	}
	return name
}

func TestEveryRouteReachesItsOperation(t *testing.T) {
	s := start(t, nil)
	routes, err := gateway.Routes()
	must(t, err)
	reached := map[string]bool{}
	byPath := map[string][]string{}
	for _, rt := range routes {
		path := samplePath(rt)
		byPath[path] = append(byPath[path], rt.Verb)
		t.Run(rt.Verb+" "+rt.Pattern, func(t *testing.T) {
			body := ""
			if rt.Body {
				body = "{}"
			}
			resp := s.do(rt.Verb, path, body, nil)
			if resp.code != http.StatusOK {
				t.Fatalf("got %d %s", resp.code, resp.body)
			}
			got := s.keys.last()
			if got.Operation != operationOf(rt.Method) {
				t.Errorf("reached %s, want %s", got.Operation, rt.Method)
			}
			for _, name := range []string{"KeyID", "AliasName"} {
				if f := reflect.ValueOf(got.Input).FieldByName(name); f.IsValid() && strings.Contains(rt.Pattern, "{") && f.String() != "" && !strings.Contains(path, f.String()) {
					t.Errorf("%s is %q, the path %s", name, f, path)
				}
			}
			reached[rt.Method] = true
		})
	}
	for name := range gateway.MethodRows() {
		if strings.HasPrefix(name, "/keyferry.kms.") && !reached[name] {
			t.Errorf("REST does not offer %s", name)
		}
	}
	for path, has := range byPath {
		for _, verb := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			if slices.Contains(has, verb) {
				continue
			}
			resp := s.do(verb, path, "", nil)
			allow := strings.Split(resp.header.Get("Allow"), ", ")
			slices.Sort(allow)
			slices.Sort(has)
			if resp.code != http.StatusMethodNotAllowed || !slices.Equal(allow, has) {
				t.Errorf("%s %s: got %d, Allow %v, want 405 and %v", verb, path, resp.code, allow, has)
			}
		}
	}
}

func TestOpenAPIIsServedAndWhole(t *testing.T) {
	s := start(t, nil)
	resp := s.get("/v1/openapi.json")
	committed, err := os.ReadFile("openapi.swagger.json")
	must(t, err)
	if resp.code != http.StatusOK || resp.body != string(committed) {
		t.Fatalf("got %d and %d bytes", resp.code, len(resp.body))
	}
	var doc struct{ Paths map[string]map[string]any }
	must(t, json.Unmarshal(committed, &doc))
	routes, err := gateway.Routes()
	must(t, err)
	operations := 0
	for _, of := range doc.Paths {
		operations += len(of)
	}
	if operations != len(routes) {
		t.Errorf("the document has %d operations, the API %d", operations, len(routes))
	}
	anonymous, err := s.client(s.ca.trusting()).Get("https://" + s.RESTAddr().String() + "/v1/openapi.json")
	must(t, err)
	anonymous.Body.Close()
	if anonymous.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a certificate: %s", anonymous.Status)
	}
}

// A key is described with its related keys, the described one in its own place, and with what
// AWS does not say: how far each of them is, and why no further.
func TestDescribeKeyOverREST(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Replication = replicas{} })
	resp := s.get("/v1/keys/" + keyID)
	var answer struct {
		KeyMetadata struct {
			MultiRegion              bool
			MultiRegionConfiguration any
		}
	}
	must(t, json.Unmarshal([]byte(resp.body), &answer))
	if !answer.KeyMetadata.MultiRegion {
		t.Errorf("no multi-Region key: %s", resp.body)
	}
	want := map[string]any{
		"multiRegionKeyType": "PRIMARY", "generation": "0", "epochNumber": "0", "certificate": "",
		"primaryKey": map[string]any{
			"arn": keyARN, "region": "eu-paris-1", "memberStatus": "ACTIVE",
			"replicationStatus": "REPLICATION_STATUS_SYNCHRONIZED", "failureCause": "FAILURE_CAUSE_UNSPECIFIED",
		},
		"replicaKeys": []any{map[string]any{
			"arn": "arn:aws:kms:us-east-1:111122223333:key/" + keyID, "region": "us-east-1", "memberStatus": "REJOINING",
			"replicationStatus": "REPLICATION_STATUS_FAILED", "failureCause": "FAILURE_CAUSE_PEER_UNREACHABLE",
			"lag": "90s", "lastSynchronizedTime": "2026-01-02T03:00:00Z", "deletionDate": "2026-01-09T00:00:00Z",
		}},
	}
	if diff := cmp.Diff(want, answer.KeyMetadata.MultiRegionConfiguration); diff != "" {
		t.Errorf("the related keys (-want +got):\n%s", diff)
	}
}

func TestListReplicasOverREST(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Replication = replicas{} })
	resp := s.get("/v1/keys/" + keyID + "/replicas")
	for _, want := range []string{
		`"region":"eu-paris-1"`, `"multiRegionKeyType":"PRIMARY"`, `"status":"REPLICATION_STATUS_SYNCHRONIZED"`,
		`"region":"us-east-1"`, `"failureCause":"FAILURE_CAUSE_PEER_UNREACHABLE"`, `"attempts":3`, `"lag":"90s"`, `"nextAttemptTime":"2026-01-02T03:04:05Z"`, `"deletionDate":"2026-01-09T00:00:00Z"`,
	} {
		if !strings.Contains(resp.body, want) {
			t.Errorf("no %s in %s", want, resp.body)
		}
	}
	s.keys.failWith(func(_ context.Context, operation string) error {
		return &keyops.Error{Reason: keyops.ErrAccessDenied, Message: fmt.Sprint(operation)}
	})
	if resp := s.get("/v1/keys/" + keyID + "/replicas"); resp.code != http.StatusForbidden {
		t.Errorf("keys refused, and REST answered %d %s", resp.code, resp.body)
	}
}
