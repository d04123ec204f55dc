// Package cliconfig reads the file that tells the keyferry command where the Regions are.
//
// The file is ~/.config/keyferry/config.yaml, or what KEYFERRY_CONFIG names. keyferry-dev
// writes one for its deployment. It holds addresses and paths, no secrets. It is read
// strictly; relative paths are relative to its directory.
//
// A Region is called with one credential, a client certificate or a bearer token, as the
// daemon takes no more than one.
package cliconfig

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cmd/internal/strictyaml"
	"github.com/keyferry/keyferry/keyops/region"
)

// Config is the whole file.
type Config struct {
	// DefaultRegion is the Region used when neither --region nor KEYFERRY_REGION names one.
	DefaultRegion region.Name `yaml:"default_region,omitempty"`
	// Regions holds one entry for each Region that can be called.
	Regions map[region.Name]Region `yaml:"regions"`
}

// Region says how one Region is reached, and as whom.
type Region struct {
	// GRPC is host:port of the gRPC listener.
	GRPC string `yaml:"grpc"`
	// REST is the https:// URL of the REST listener. The command itself does not use it.
	REST string `yaml:"rest,omitempty"`
	// CA is a file with the authorities of the Region's server certificate, PEM.
	CA string `yaml:"ca"`
	// Cert is the client's certificate chain, PEM. Empty with TokenFile.
	Cert string `yaml:"cert,omitempty"`
	// Key is the client's private key, PEM. Empty with TokenFile.
	Key string `yaml:"key,omitempty"`
	// TokenFile is a file with a bearer token, which is shown instead of a certificate. It
	// is read at every call, since tokens live for minutes.
	TokenFile string `yaml:"token_file,omitempty"`
}

// ErrNoRegion is returned when no Region is named and the file has no default.
var ErrNoRegion = errors.New("no Region named: give --region, set KEYFERRY_REGION, or set default_region in the file")

// Path returns the file's path: KEYFERRY_CONFIG, or config.yaml in the user's configuration
// directory.
func Path() (string, error) {
	if p := os.Getenv("KEYFERRY_CONFIG"); p != "" {
		return p, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the configuration directory: %w", err)
	}
	return filepath.Join(dir, "keyferry", "config.yaml"), nil
}

// Load reads and checks the file. The error lists every mistake in it.
func Load(name string) (*Config, error) {
	c := new(Config)
	doc, err := strictyaml.Load(name, c)
	if err != nil {
		return nil, err
	}
	c.check(doc)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	dir := filepath.Dir(name)
	for r, e := range c.Regions {
		for _, p := range []*string{&e.CA, &e.Cert, &e.Key, &e.TokenFile} {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p)
			}
		}
		c.Regions[r] = e
	}
	return c, nil
}

func (c *Config) check(doc *strictyaml.Document) {
	if len(c.Regions) == 0 {
		doc.Report("regions", "missing: give at least one Region with grpc, ca, and cert and key or token_file")
	}
	for _, name := range c.names() {
		e, at := c.Regions[name], "regions."+string(name)
		if _, err := region.ParseName(string(name)); err != nil {
			doc.Report(at, "%v", err)
		}
		if _, _, err := net.SplitHostPort(e.GRPC); err != nil {
			doc.Report(at+".grpc", "%q: want host:port, such as 127.0.0.1:7100", e.GRPC)
		}
		if u, err := url.Parse(e.REST); err != nil || e.REST != "" && (u.Scheme != "https" || u.Host == "") {
			doc.Report(at+".rest", "%q: want a URL such as https://127.0.0.1:7200", e.REST)
		}
		pems := []struct{ key, value string }{{".ca", e.CA}, {".cert", e.Cert}, {".key", e.Key}}
		if e.TokenFile != "" {
			pems = pems[:1]
			if e.Cert != "" || e.Key != "" {
				doc.Report(at+".token_file", "two credentials: give cert and key, or token_file")
			}
		}
		for _, p := range pems {
			if p.value == "" {
				doc.Report(at+p.key, "missing: give the path of a PEM file")
			}
		}
	}
	if _, ok := c.Regions[c.DefaultRegion]; c.DefaultRegion != "" && !ok {
		doc.Report("default_region", "%q is not among regions: %s", c.DefaultRegion, c.list())
	}
}

// Choose returns the entry of the named Region, or of the default one if name is empty.
func (c *Config) Choose(name string) (region.Name, Region, error) {
	if name == "" {
		name = string(c.DefaultRegion)
	}
	if name == "" {
		return "", Region{}, ErrNoRegion
	}
	e, ok := c.Regions[region.Name(name)]
	if !ok {
		return "", Region{}, fmt.Errorf("region %q is not in the configuration, which has %s", name, c.list())
	}
	return region.Name(name), e, nil
}

func (c *Config) names() []region.Name { return slices.Sorted(maps.Keys(c.Regions)) }

func (c *Config) list() string {
	names := make([]string, 0, len(c.Regions))
	for _, n := range c.names() {
		names = append(names, string(n))
	}
	return strings.Join(names, ", ")
}
