package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/cmd/internal/strictyaml"
	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// check reports every value that cannot be right, whatever the machine.
func (c *Config) check(doc *strictyaml.Document) {
	c.checkNames(doc)
	c.checkToken(doc)
	for _, p := range c.paths() {
		if *p.value == "" && !p.optional {
			doc.Report(p.key, "missing: give a path")
		}
	}
	c.checkClients(doc)
	c.checkPeers(doc)
	c.checkMetrics(doc)
	if _, err := approval.NewQuorum(c.Quorum.Operations); err != nil {
		doc.Report("quorum.operations", "%v", err)
	}
	within(doc, "limits.keys", c.Limits.Keys, 1, 10_000_000)
	within(doc, "limits.keys_per_principal", c.Limits.KeysPerPrincipal, 0, 10_000_000)
	within(doc, "limits.connections", c.Limits.Connections, 1, 100_000)
	within(doc, "limits.connections_per_address", c.Limits.ConnectionsPerAddress, 1, 100_000)
	for _, r := range c.rates() {
		within(doc, "limits.rates."+r.key, *r.value, 1, 1_000_000)
	}
	within(doc, "limits.calls", c.Limits.Calls, 1, 100_000)
	within(doc, "limits.calls_per_principal", c.Limits.CallsPerPrincipal, 1, 100_000)
	within(doc, "limits.streams", c.Limits.Streams, 1, 10_000)
	oneOf(doc, "log.level", c.Log.Level, "debug", "info", "warning", "error")
	oneOf(doc, "log.format", c.Log.Format, "json", "text")
	if c.Audit.FlushInterval < 0 {
		doc.Report("audit.flush_interval", "negative: give 0s to flush each record, or a duration such as 1s")
	}
	if c.DrainTimeout < 0 {
		doc.Report("drain_timeout", "negative: give a duration such as 20s")
	}
}

func (c *Config) checkNames(doc *strictyaml.Document) {
	if c.Region == "" {
		doc.Report("region", "missing: give this daemon's Region, such as eu-paris-1")
	} else {
		valid(doc, "region", string(c.Region), region.ParseName)
	}
	valid(doc, "partition", c.Partition, arn.ParsePartition)
	if len(c.Accounts) == 0 {
		doc.Report("accounts", `missing: give at least one account, such as ["111122223333"]`)
	}
	for i, a := range c.Accounts {
		at := fmt.Sprintf("accounts[%d]", i)
		valid(doc, at, string(a), arn.ParseAccount)
		if slices.Index(c.Accounts, a) < i {
			doc.Report(at, "account %s is there twice: remove one", a)
		}
	}
}

func (c *Config) checkToken(doc *strictyaml.Document) {
	t := &c.Token
	if (t.Label == "") == (t.Serial == "") {
		doc.Report("token.label", "give exactly one of label and serial: slots are numbered anew at each start")
	}
	switch {
	case t.Profile == "":
		doc.Report("token.profile", "missing: give one of %s, or the path of a profile file", strings.Join(hsm.Profiles(), ", "))
	case !strings.Contains(t.Profile, "/"):
		oneOf(doc, "token.profile", t.Profile, hsm.Profiles()...)
	}
	if t.Sessions != 0 {
		within(doc, "token.sessions", t.Sessions, 1, 1024)
	}
	oneOf(doc, "token.require_boundary", t.RequireBoundary, "token", "api-only", "none")
}

func (c *Config) checkClients(doc *strictyaml.Document) {
	address(doc, "clients.grpc", c.Clients.GRPC, "127.0.0.1:7100")
	if c.Clients.REST != "" {
		address(doc, "clients.rest", c.Clients.REST, "127.0.0.1:7200")
	}
	if len(c.Clients.Principals) == 0 {
		doc.Report("clients.principals", "missing: give at least one rule, or nobody can call")
	}
	for i, r := range c.Clients.Principals {
		at := fmt.Sprintf("clients.principals[%d]", i)
		if (r.SPIFFE == "") == (r.CommonName == "") {
			doc.Report(at, "give exactly one of spiffe and common_name")
		}
		if r.OrganizationalUnit != "" && r.CommonName == "" {
			doc.Report(at+".organizational_unit", "goes with common_name only")
		}
		if r.SPIFFE != "" && !strings.HasPrefix(r.SPIFFE, "spiffe://") {
			doc.Report(at+".spiffe", "%q: want a pattern that begins with spiffe://", r.SPIFFE)
		}
		c.checkPrincipal(doc, at, r.SPIFFE+r.CommonName, r.Principal)
	}
	if c.Clients.CRLGrace < 0 {
		doc.Report("clients.crl_grace", "negative: give a duration such as 24h")
	}
	if doc.Has("clients.bearer") {
		c.checkBearer(doc)
	}
}

func (c *Config) checkBearer(doc *strictyaml.Document) {
	const at = "clients.bearer"
	b := &c.Clients.Bearer
	if b.Issuer == "" {
		doc.Report(at+".issuer", "missing: give what the tokens' iss is")
	}
	if b.Audience == "" {
		doc.Report(at+".audience", "missing: give what is among the tokens' aud, a name for this service alone")
	}
	if (b.KeysFile == "") == (b.KeysURL == "") {
		doc.Report(at, "give exactly one of keys_file and keys_url")
	}
	if b.KeysURL != "" {
		if err := bearer.CheckURL(b.KeysURL); err != nil {
			doc.Report(at+".keys_url", "%v", err)
		}
	}
	if b.KeysCAFile != "" && b.KeysURL == "" {
		doc.Report(at+".keys_ca_file", "goes with keys_url only")
	}
	for i, a := range b.Algorithms {
		oneOf(doc, fmt.Sprintf("%s.algorithms[%d]", at, i), a, bearer.Algorithms...)
	}
	if b.ClockSkew < 0 || b.ClockSkew > bearer.MaxSkew {
		doc.Report(at+".clock_skew", "%v: want at most %v", b.ClockSkew, bearer.MaxSkew)
	}
	if len(b.Principals) == 0 {
		doc.Report(at+".principals", "missing: give at least one rule, or leave bearer out")
	}
	for i, r := range b.Principals {
		at := fmt.Sprintf("%s.principals[%d]", at, i)
		if r.Claim == "" || r.Pattern == "" {
			doc.Report(at, "give a claim and a pattern, such as sub and *")
		}
		c.checkPrincipal(doc, at, r.Pattern, r.Principal)
	}
}

// checkPrincipal checks the principal of a rule against its pattern.
func (c *Config) checkPrincipal(doc *strictyaml.Document, at, pattern, principal string) {
	at += ".principal"
	switch inPattern, inPrincipal := strings.Count(pattern, "*"), strings.Count(principal, "*"); {
	case principal == "":
		doc.Report(at, "missing: give an ARN such as arn:%s:iam::111122223333:user/alice", c.Partition)
		return
	case inPattern > 1 || inPrincipal > 1:
		doc.Report(at, "at most one * in the pattern and one in the principal")
		return
	case inPrincipal == 1 && inPattern == 0:
		doc.Report(at, "has a * but the pattern has none that it could stand for")
		return
	}
	p, err := arn.ParsePrincipal(strings.ReplaceAll(principal, "*", "x"))
	switch {
	case err != nil:
		doc.Report(at, "%v", err)
	case p.Partition != c.Partition:
		doc.Report(at, "%s is in partition %s, this daemon in %s", principal, p.Partition, c.Partition)
	case strings.Contains(string(p.Account), "x"):
		doc.Report(at, "the account cannot come from the certificate: write it out")
	}
}

func (c *Config) checkPeers(doc *strictyaml.Document) {
	if c.Peers.Listen == "" && len(c.Peers.Addresses) > 0 {
		doc.Report("peers.listen", "missing: give the address at which peers reach this Region, such as 10.0.0.1:7300")
	}
	listeners := map[string]string{c.Clients.GRPC: "clients.grpc"}
	for _, l := range []struct{ key, value string }{{"clients.rest", c.Clients.REST}, {"peers.listen", c.Peers.Listen}, {"metrics.listen", c.Metrics.Listen}} {
		if l.value == "" {
			continue
		}
		if other, taken := listeners[l.value]; taken && !strings.HasSuffix(l.value, ":0") {
			doc.Report(l.key, "%s is the address of %s already: give each listener its own", l.value, other)
		}
		listeners[l.value] = l.key
	}
	if c.Peers.Listen != "" {
		address(doc, "peers.listen", c.Peers.Listen, "10.0.0.1:7300")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Peers.Addresses)) {
		at := "peers.addresses." + string(name)
		valid(doc, at, string(name), region.ParseName)
		address(doc, at, c.Peers.Addresses[name], "10.0.0.2:7300")
		if name == c.Region {
			doc.Report(at, "is this daemon's own Region: list the others only")
		}
	}
	c.checkPermissions(doc)
}

func (c *Config) checkMetrics(doc *strictyaml.Document) {
	const at = "metrics.listen"
	if c.Metrics.Listen == "" {
		if c.Metrics.Remote {
			doc.Report("metrics.remote", "goes with metrics.listen only")
		}
		return
	}
	address(doc, at, c.Metrics.Listen, "127.0.0.1:7400")
	host, _, err := net.SplitHostPort(c.Metrics.Listen)
	if ip := net.ParseIP(host); err == nil && !c.Metrics.Remote && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		doc.Report(at, "%q can be reached by other machines, and readers need no certificate: give a loopback address, or remote: true", c.Metrics.Listen)
	}
}

func valid[T any](doc *strictyaml.Document, at, value string, parse func(string) (T, error)) {
	if _, err := parse(value); err != nil {
		doc.Report(at, "%v", err)
	}
}

func within(doc *strictyaml.Document, at string, value, least, most int) {
	if value < least || value > most {
		doc.Report(at, "%d: want %d to %d", value, least, most)
	}
}

func oneOf(doc *strictyaml.Document, at, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		doc.Report(at, "%q: want one of %s", value, strings.Join(allowed, ", "))
	}
}

func address(doc *strictyaml.Document, at, value, example string) {
	if value == "" {
		doc.Report(at, "missing: give host:port, such as %s", example)
		return
	}
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		doc.Report(at, "%q: want host:port, such as %s", value, example)
	}
}
