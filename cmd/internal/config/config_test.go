package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/cmd/internal/strictyaml"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

const minimal = `region: eu-paris-1
accounts: ["111122223333"]
region_dir: region
token: {module: /lib/p11.so, label: t, pin_file: pin, profile: generic}
store: {path: store.db}
audit: {dir: audit}
clients:
  grpc: 127.0.0.1:7100
  certificate_file: server.crt
  key_file: server.key
  ca_file: ca.crt
  principals:
    - {spiffe: "spiffe://example.org/user/*", principal: "arn:aws:iam::111122223333:user/*"}
`

func TestDefaults(t *testing.T) {
	c, err := Parse("c.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Region: "eu-paris-1", Partition: "aws", Accounts: []arn.Account{"111122223333"}, RegionDir: "region",
		Quorum: Quorum{Operations: approval.Optional()},
		Token:  Token{Module: "/lib/p11.so", Label: "t", PINFile: "pin", Profile: "generic", RequireBoundary: "token"},
		Store:  Store{Path: "store.db"},
		Audit:  Audit{Dir: "audit", FlushInterval: time.Second},
		Clients: Clients{GRPC: "127.0.0.1:7100", CertificateFile: "server.crt", KeyFile: "server.key", CAFile: "ca.crt",
			Principals: []PrincipalRule{{SPIFFE: "spiffe://example.org/user/*", Principal: "arn:aws:iam::111122223333:user/*"}}},
		Limits: Limits{Keys: 100_000, Connections: 1000, ConnectionsPerAddress: 500, Streams: 100, Calls: 2000, CallsPerPrincipal: 1000,
			Rates: Rates{Crypto: Rate{20_000, 10_000}, Read: Rate{2_000, 1_000}, Manage: Rate{200, 100}}},
		Log:          Log{Level: "info", Format: "json"},
		DrainTimeout: 20 * time.Second,
	}
	if diff := cmp.Diff(want, *c); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

// What a peer may do is spelt out for each, so that a daemon needs no defaults; an empty list
// of accounts is a choice.
func TestPermissions(t *testing.T) {
	c, err := Parse("c.yaml", []byte(minimal+`peers:
  listen: 10.0.0.1:7300
  addresses: {us-east-1: "10.0.0.2:7300", ap-tokyo-1: "10.0.0.3:7300"}
  permissions:
    us-east-1: {accept: {accounts: [], max_keys: 7}, send: {accounts: []}}
`))
	if err != nil {
		t.Fatal(err)
	}
	served := []arn.Account{"111122223333"}
	want := map[region.Name]Permissions{
		"us-east-1":  {Accept: Accept{Accounts: []arn.Account{}, MaxKeys: 7, MaxMaterials: 256}, Send: Send{Accounts: []arn.Account{}}},
		"ap-tokyo-1": {Accept: Accept{Accounts: served, MaxMaterials: 256}, Send: Send{Accounts: served}},
	}
	if diff := cmp.Diff(want, c.Peers.Permissions); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
}

func TestZeroFlushIntervalIsAChoice(t *testing.T) {
	c, err := Parse("c.yaml", []byte(strings.Replace(minimal, "{dir: audit}", "{dir: audit, flush_interval: 0s}", 1)))
	if err != nil || c.Audit.FlushInterval != 0 {
		t.Errorf("flush interval = %v, %v; want 0s", c.Audit.FlushInterval, err)
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct {
		name, old, new string
		want           []string // all lines of the error
	}{
		{"unknown key with a near name", "module:", "modul:", []string{
			`c.yaml:4: token.modul: unknown key: did you mean module?`,
			`c.yaml:4: token.module: missing: give a path`}},
		{"unknown key", "region_dir: region\n", "region_dir: region\npeer_list: x\n", []string{
			`c.yaml:4: peer_list: unknown key: the keys here are region, partition, accounts, region_dir, token, store, audit, clients, identity_policies, peers, quorum, limits, metrics, log, drain_timeout`}},
		{"repeated key", "region_dir: region\n", "region_dir: region\nregion_dir: other\n", []string{
			`c.yaml:4: region_dir: given twice, first in line 3: remove one`}},
		{"account without quotes", `["111122223333"]`, `[111122223333]`, []string{
			`c.yaml:2: accounts[0]: want text, not "111122223333": write it in quotes`,
			`c.yaml:2: accounts[0]: invalid name: account "": want twelve digits`}},
		{"account twice", `["111122223333"]`, `["111122223333", "111122223333"]`, []string{
			`c.yaml:2: accounts[1]: account 111122223333 is there twice: remove one`}},
		{"no account", `["111122223333"]`, `[]`, []string{
			`c.yaml:2: accounts: missing: give at least one account, such as ["111122223333"]`}},
		{"region name", "eu-paris-1", "Paris", []string{
			`c.yaml:1: region: region name "Paris": want two or three lower-case words and a number, such as eu-paris-1`}},
		{"no value", "store.db", "", []string{
			`c.yaml:5: store.path: no value: give one, or leave the key out`,
			`c.yaml:5: store.path: missing: give a path`}},
		{"section missing", "store: {path: store.db}\n", "", []string{
			`c.yaml: store.path: missing: give a path`}},
		{"label and serial", "label: t", "label: t, serial: 12", []string{
			`c.yaml:4: token.serial: want text, not "12": write it in quotes`}},
		{"label and quoted serial", "label: t", `label: t, serial: "12"`, []string{
			`c.yaml:4: token.label: give exactly one of label and serial: slots are numbered anew at each start`}},
		{"profile", "profile: generic", "profile: softhsm", []string{
			`c.yaml:4: token.profile: "softhsm": want one of generic, luna7, softhsm2`}},
		{"sessions", "profile: generic", "profile: generic, sessions: 5000", []string{
			`c.yaml:4: token.sessions: 5000: want 1 to 1024`}},
		{"boundary", "profile: generic", "profile: generic, require_boundary: hard", []string{
			`c.yaml:4: token.require_boundary: "hard": want one of token, api-only, none`}},
		{"wrong type", "store: {path: store.db}", "store: store.db", []string{
			`c.yaml:5: store: want keys and values, not "store.db"`,
			`c.yaml:5: store.path: missing: give a path`}},
		{"duration", "{dir: audit}", "{dir: audit, flush_interval: 5}", []string{
			`c.yaml:6: audit.flush_interval: want a duration such as 500ms, 30s or 1h30m, not "5"`}},
		{"negative duration", "{dir: audit}", "{dir: audit, flush_interval: -5s}", []string{
			`c.yaml:6: audit.flush_interval: negative: give 0s to flush each record, or a duration such as 1s`}},
		{"address", "127.0.0.1:7100", "127.0.0.1", []string{
			`c.yaml:8: clients.grpc: "127.0.0.1": want host:port, such as 127.0.0.1:7100`}},
		{"port", "127.0.0.1:7100", "127.0.0.1:70000", []string{
			`c.yaml:8: clients.grpc: "127.0.0.1:70000": want host:port, such as 127.0.0.1:7100`}},
		{"two listeners, one address", "  grpc: 127.0.0.1:7100\n", "  grpc: 127.0.0.1:7100\n  rest: 127.0.0.1:7100\n", []string{
			`c.yaml:9: clients.rest: 127.0.0.1:7100 is the address of clients.grpc already: give each listener its own`}},
		{"rule without pattern", `spiffe: "spiffe://example.org/user/*", `, "", []string{
			`c.yaml:13: clients.principals[0]: give exactly one of spiffe and common_name`,
			`c.yaml:13: clients.principals[0].principal: has a * but the pattern has none that it could stand for`}},
		{"principal", "arn:aws:iam::111122223333:user/*", "user/alice", []string{
			`c.yaml:13: clients.principals[0].principal: invalid name: principal "user/alice": want arn:<partition>:iam::<account>:user/<name>, :role/<name> or :root`}},
		{"foreign partition", "arn:aws:iam::", "arn:aws-cn:iam::", []string{
			`c.yaml:13: clients.principals[0].principal: arn:aws-cn:iam::111122223333:user/* is in partition aws-cn, this daemon in aws`}},
		{"bearer without anything", "  principals:\n", "  bearer: {}\n  principals:\n", []string{
			`c.yaml:12: clients.bearer.issuer: missing: give what the tokens' iss is`,
			`c.yaml:12: clients.bearer.audience: missing: give what is among the tokens' aud, a name for this service alone`,
			`c.yaml:12: clients.bearer: give exactly one of keys_file and keys_url`,
			`c.yaml:12: clients.bearer.principals: missing: give at least one rule, or leave bearer out`}},
		{"bearer that is too lenient", "  principals:\n", `  bearer:
    issuer: i
    audience: a
    keys_url: http://id.example.org/jwks
    algorithms: [none]
    clock_skew: 1h
    principals: [{claim: sub, pattern: alice, principal: "arn:aws:iam::111122223333:user/*"}, {claim: sub, principal: "arn:aws:iam::111122223333:root"}]
  principals:
`, []string{
			`c.yaml:15: clients.bearer.keys_url: want https://<host>/<path>, without user information`,
			`c.yaml:16: clients.bearer.algorithms[0]: "none": want one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA`,
			`c.yaml:17: clients.bearer.clock_skew: 1h0m0s: want at most 5m0s`,
			`c.yaml:18: clients.bearer.principals[0].principal: has a * but the pattern has none that it could stand for`,
			`c.yaml:18: clients.bearer.principals[1]: give a claim and a pattern, such as sub and *`}},
		{"negative grace", "  ca_file: ca.crt\n", "  ca_file: ca.crt\n  crl_grace: -1h\n", []string{
			`c.yaml:12: clients.crl_grace: negative: give a duration such as 24h`}},
		{"rate", "audit: {dir: audit}\n", "audit: {dir: audit}\nlimits: {connections_per_address: 200000, rates: {read: {principal: -1}}}\n", []string{
			`c.yaml:7: limits.connections_per_address: 200000: want 1 to 100000`,
			`c.yaml:7: limits.rates.read.principal: -1: want 1 to 1000000`}},
		{"quorum", "audit: {dir: audit}\n", "audit: {dir: audit}\nquorum: {operations: [suspend-region, erase]}\n", []string{
			`c.yaml:7: quorum.operations: operation "erase": want some of [delete-primary-key disassociate-replica evict-replica suspend-region write-off-material]`}},
		{"calls", "audit: {dir: audit}\n", "audit: {dir: audit}\nlimits: {calls: 100001, calls_per_principal: -1}\n", []string{
			`c.yaml:7: limits.calls: 100001: want 1 to 100000`,
			`c.yaml:7: limits.calls_per_principal: -1: want 1 to 100000`}},
		{"metrics for everybody", "audit: {dir: audit}\n", "audit: {dir: audit}\nmetrics: {listen: 0.0.0.0:7400}\n", []string{
			`c.yaml:7: metrics.listen: "0.0.0.0:7400" can be reached by other machines, and readers need no certificate: give a loopback address, or remote: true`}},
		{"metrics by name", "audit: {dir: audit}\n", "audit: {dir: audit}\nmetrics: {listen: \":7400\"}\n", []string{
			`c.yaml:7: metrics.listen: ":7400" can be reached by other machines, and readers need no certificate: give a loopback address, or remote: true`}},
		{"metrics where clients are", "audit: {dir: audit}\n", "audit: {dir: audit}\nmetrics: {listen: 127.0.0.1:7100}\n", []string{
			`c.yaml:7: metrics.listen: 127.0.0.1:7100 is the address of clients.grpc already: give each listener its own`}},
		{"metrics nowhere", "audit: {dir: audit}\n", "audit: {dir: audit}\nmetrics: {remote: true}\n", []string{
			`c.yaml:7: metrics.remote: goes with metrics.listen only`}},
		{"own Region as a peer", "audit: {dir: audit}\n", "audit: {dir: audit}\npeers: {addresses: {eu-paris-1: 10.0.0.1:7300}}\n", []string{
			`c.yaml:7: peers.listen: missing: give the address at which peers reach this Region, such as 10.0.0.1:7300`,
			`c.yaml:7: peers.addresses.eu-paris-1: is this daemon's own Region: list the others only`}},
		{"permissions", "audit: {dir: audit}\n", `audit: {dir: audit}
peers:
  listen: 10.0.0.1:7300
  addresses: {us-east-1: "10.0.0.2:7300"}
  permissions:
    us-west-1: {send: {accounts: []}}
    us-east-1:
      accept: {accounts: ["999999999999"], principals: ["arn:aws:iam::*:root", "arn:aws:iam::111122223333:user/*"], max_keys: 0, max_materials: 300}
      send: {accounts: ["111122223333", "111122223333"]}
`, []string{
			`c.yaml:11: peers.permissions.us-west-1: is not in peers.addresses: bounds of a Region that is no peer bind nobody`,
			`c.yaml:13: peers.permissions.us-east-1.accept.accounts[0]: account 999999999999 is not served here: want some of accounts`,
			`c.yaml:13: peers.permissions.us-east-1.accept.principals[0]: invalid name: principal "arn:aws:iam::x:root": want arn:<partition>:iam::<account>:user/<name>, :role/<name> or :root: the * goes into the name, as in arn:aws:iam::111122223333:role/replicator-*`,
			`c.yaml:13: peers.permissions.us-east-1.accept.principals[1]: account 111122223333 is not among those accepted`,
			`c.yaml:13: peers.permissions.us-east-1.accept.max_keys: 0: want 1 to 10000000`,
			`c.yaml:13: peers.permissions.us-east-1.accept.max_materials: 300: want 1 to 256`,
			`c.yaml:14: peers.permissions.us-east-1.send.accounts[1]: account 111122223333 is there twice: remove one`}},
		{"nobody's replicas", "audit: {dir: audit}\n", "audit: {dir: audit}\npeers: {listen: \"10.0.0.1:7300\", addresses: {us-east-1: \"10.0.0.2:7300\"}, permissions: {us-east-1: {accept: {principals: [], max_key: 1}}}}\n", []string{
			`c.yaml:7: peers.permissions.us-east-1.accept.max_key: unknown key: did you mean max_keys?`,
			`c.yaml:7: peers.permissions.us-east-1.accept.principals: empty: leave it out for anybody, or give accounts: [] to accept nothing`}},
		{"alias", "region_dir: region", "region_dir: &x region", []string{
			`c.yaml:3: region_dir: anchors and aliases are not supported: write the value out`,
			`c.yaml:3: region_dir: missing: give a path`}},
		{"second document", "audit: {dir: audit}\n", "audit: {dir: audit}\n---\nregion: us-east-1\n", []string{
			`c.yaml: clients.certificate_file: missing: give a path`,
			`c.yaml: clients.key_file: missing: give a path`,
			`c.yaml: clients.ca_file: missing: give a path`,
			`c.yaml: clients.grpc: missing: give host:port, such as 127.0.0.1:7100`,
			`c.yaml: clients.principals: missing: give at least one rule, or nobody can call`,
			`c.yaml:7: a second document after ---: keep one document in the file`}},
		{"tab", "  grpc:", "\tgrpc:", []string{`c.yaml:8: not YAML: found character that cannot start any token`}},
		{"log", "audit: {dir: audit}\n", "audit: {dir: audit}\nlog: {level: loud, format: xml}\n", []string{
			`c.yaml:7: log.level: "loud": want one of debug, info, warning, error`,
			`c.yaml:7: log.format: "xml": want one of json, text`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(minimal, tt.old, tt.new, 1)
			if text == minimal {
				t.Fatal("the test case changes nothing")
			}
			_, err := Parse("c.yaml", []byte(text))
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(strings.Join(tt.want, "\n"), err.Error()); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAllMistakesInOneRun(t *testing.T) {
	_, err := Parse("c.yaml", []byte("regoin: x\ntoken: {label: a, label: b, sessions: many}\nlog: {level: loud}\n"))
	var all *strictyaml.Error
	if !errors.As(err, &all) {
		t.Fatalf("error = %v, want *strictyaml.Error", err)
	}
	for _, at := range []string{"regoin", "token.label", "token.sessions", "log.level", "region", "accounts", "store.path", "clients.grpc"} {
		if !slices.ContainsFunc(all.Problems, func(p strictyaml.Problem) bool { return p.Path == at }) {
			t.Errorf("nothing said about %s:\n%v", at, err)
		}
	}
}

func TestSampleHasEveryField(t *testing.T) {
	c := new(Config)
	doc := strictyaml.Decode("sample.yaml", Sample(), c)
	if _, err := Parse("sample.yaml", Sample()); err != nil {
		t.Fatalf("the sample is not valid:\n%v", err)
	}
	alternatives := map[string]bool{"token.serial": true, "clients.principals[].spiffe": true, "clients.bearer.keys_file": true}
	for _, f := range fields(reflect.TypeFor[Config](), "") {
		at := strings.NewReplacer("[]", "[1]", "<region>", "us-east-1").Replace(f)
		if !doc.Has(at) && !alternatives[f] {
			t.Errorf("the sample lacks %s", f)
		}
	}
}

func TestPageListsEveryField(t *testing.T) {
	page, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		got = append(got, m[1])
	}
	if diff := cmp.Diff(fields(reflect.TypeFor[Config](), ""), got); diff != "" {
		t.Errorf("fields of docs/configuration.md (-want +got):\n%s", diff)
	}
}

// fields lists the dotted names of all leaves, in the struct's order.
func fields(t reflect.Type, path string) []string {
	var out []string
	for i, name := range strictyaml.Fields(t) {
		at := strings.TrimPrefix(path+"."+name, ".")
		ft := t.Field(i).Type
		switch {
		case ft.Kind() == reflect.Struct:
			out = append(out, fields(ft, at)...)
		case ft.Kind() == reflect.Map && ft.Elem().Kind() == reflect.Struct:
			out = append(out, fields(ft.Elem(), at+".<region>")...)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			out = append(out, fields(ft.Elem(), at+"[]")...)
		default:
			out = append(out, at)
		}
	}
	return out
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "c.yaml")
	write(t, name, minimal, 0o600)
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	if c.Token.PINFile != filepath.Join(dir, "pin") || c.Token.Module != "/lib/p11.so" {
		t.Errorf("PIN file %s, module %s", c.Token.PINFile, c.Token.Module)
	}
}

func TestLoadOnHost(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "c.yaml")
	write(t, name, strings.Replace(minimal, "/lib/p11.so", "p11.so", 1), 0o600)
	for _, f := range []string{"p11.so", "pin", "server.crt", "server.key", "ca.crt"} {
		write(t, filepath.Join(dir, f), "x", 0o600)
	}
	if err := os.Mkdir(filepath.Join(dir, "region"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOnHost(name); err != nil {
		t.Fatalf("a sound host: %v", err)
	}
	os.Chmod(filepath.Join(dir, "pin"), 0o640)
	os.Remove(filepath.Join(dir, "ca.crt"))
	os.Remove(filepath.Join(dir, "region"))
	write(t, filepath.Join(dir, "region"), "x", 0o600)
	_, err := LoadOnHost(name)
	want := []string{
		name + ":3: region_dir: " + dir + "/region is a file, and must be a directory",
		name + ":4: token.pin_file: " + dir + "/pin has mode 0640, so others can read a secret: chmod 600 it",
		name + ":11: clients.ca_file: stat " + dir + "/ca.crt: no such file or directory: correct the path, or make it",
	}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("got:\n%v\nwant:\n%s", err, strings.Join(want, "\n"))
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
