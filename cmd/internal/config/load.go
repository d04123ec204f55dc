package config

import (
	_ "embed"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cmd/internal/strictyaml"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

//go:embed sample.yaml
var sample []byte

// Sample returns a commented configuration that has every field and is valid.
func Sample() []byte { return sample }

// Load reads and checks a configuration file. The error lists every mistake in the file.
func Load(name string) (*Config, error) {
	c, doc, err := load(name)
	if err != nil {
		return nil, err
	}
	return c, doc.Err()
}

func load(name string) (*Config, *strictyaml.Document, error) {
	c := new(Config)
	doc, err := strictyaml.Load(name, c)
	if err != nil {
		return nil, nil, err
	}
	c.finish(doc, filepath.Dir(name))
	return c, doc, nil
}

// Parse checks a configuration that is not in a file. Relative paths stay as they are.
func Parse(name string, data []byte) (*Config, error) {
	c := new(Config)
	doc := strictyaml.Decode(name, data, c)
	c.finish(doc, "")
	return c, doc.Err()
}

func (c *Config) finish(doc *strictyaml.Document, dir string) {
	c.applyDefaults(doc)
	c.check(doc)
	for _, p := range c.paths() {
		if *p.value != "" && dir != "" && !filepath.IsAbs(*p.value) {
			*p.value = filepath.Join(dir, *p.value)
		}
	}
}

func (c *Config) applyDefaults(doc *strictyaml.Document) {
	orText(&c.Partition, "aws")
	orText(&c.Token.RequireBoundary, "token")
	orText(&c.Log.Level, "info")
	orText(&c.Log.Format, "json")
	orNumber(&c.Limits.Keys, 100_000)
	orNumber(&c.Limits.Connections, 1000)
	orNumber(&c.Limits.ConnectionsPerAddress, max(1, c.Limits.Connections/2))
	orNumber(&c.Limits.Streams, 100)
	orNumber(&c.Limits.Calls, 2000)
	orNumber(&c.Limits.CallsPerPrincipal, max(1, c.Limits.Calls/2))
	for _, r := range c.rates() {
		orNumber(r.value, r.otherwise)
	}
	if doc.Has("clients.bearer") && c.Clients.Bearer.ClockSkew == 0 {
		c.Clients.Bearer.ClockSkew = time.Minute
	}
	if !doc.Has("audit.flush_interval") { // 0s is a choice of its own
		c.Audit.FlushInterval = time.Second
	}
	if !doc.Has("quorum.operations") { // an empty list is a choice of its own
		c.Quorum.Operations = approval.Optional()
	}
	c.completePermissions(doc)
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 20 * time.Second
	}
}

func orText(v *string, otherwise string) {
	if *v == "" {
		*v = otherwise
	}
}

func orNumber(v *int, otherwise int) {
	if *v == 0 {
		*v = otherwise
	}
}

// rateField is one of the rates.
type rateField struct {
	key       string
	value     *int
	otherwise int
}

func (c *Config) rates() []rateField {
	r := &c.Limits.Rates
	return []rateField{
		{"crypto.account", &r.Crypto.Account, 20_000}, {"crypto.principal", &r.Crypto.Principal, 10_000},
		{"read.account", &r.Read.Account, 2_000}, {"read.principal", &r.Read.Principal, 1_000},
		{"manage.account", &r.Manage.Account, 200}, {"manage.principal", &r.Manage.Principal, 100},
	}
}

// path is a field that names a file or directory.
type path struct {
	key    string
	value  *string
	secret bool // others on the host must not read it
	made   bool // the daemon makes it, so only its parent must exist
	dir    bool

	optional bool
}

func (c *Config) paths() []path {
	all := []path{
		{key: "region_dir", value: &c.RegionDir, dir: true},
		{key: "token.module", value: &c.Token.Module},
		{key: "token.pin_file", value: &c.Token.PINFile, secret: true},
		{key: "store.path", value: &c.Store.Path, made: true},
		{key: "audit.dir", value: &c.Audit.Dir, made: true},
		{key: "clients.certificate_file", value: &c.Clients.CertificateFile},
		{key: "clients.key_file", value: &c.Clients.KeyFile, secret: true},
		{key: "clients.ca_file", value: &c.Clients.CAFile},
		{key: "clients.bearer.keys_file", value: &c.Clients.Bearer.KeysFile, optional: true},
		{key: "clients.bearer.keys_ca_file", value: &c.Clients.Bearer.KeysCAFile, optional: true},
		{key: "identity_policies", value: &c.IdentityPolicies, optional: true},
	}
	for i := range c.Clients.CRLFiles {
		all = append(all, path{key: fmt.Sprintf("clients.crl_files[%d]", i), value: &c.Clients.CRLFiles[i]})
	}
	if strings.Contains(c.Token.Profile, "/") {
		all = append(all, path{key: "token.profile", value: &c.Token.Profile})
	}
	return all
}
