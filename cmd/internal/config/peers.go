package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cmd/internal/strictyaml"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Peers configures the link to the other Regions.
type Peers struct {
	// Listen is the address for peers, host:port. It is never one of the clients' addresses.
	Listen string `yaml:"listen,omitempty"`
	// Addresses maps each peer Region to its listen address as seen from here. Who a peer is
	// decides its descriptor in region_dir, not its address.
	Addresses map[region.Name]string `yaml:"addresses,omitempty"`
	// Permissions bounds what peers may do here and what they are sent. Default for a peer
	// that is not there: what policies allow.
	Permissions map[region.Name]Permissions `yaml:"permissions,omitempty"`
}

// Permissions bounds what one peer may do here and what it is sent, within what policies
// allow.
type Permissions struct {
	// Accept bounds the replicas that the peer may have made here.
	Accept Accept `yaml:"accept,omitempty"`
	// Send bounds what leaves this Region for the peer.
	Send Send `yaml:"send,omitempty"`
}

// Accept bounds the replicas that one peer may have made here. What a peer says of who acts
// there is its claim.
type Accept struct {
	// Accounts are those whose keys are accepted; [] accepts none. Default: all served here.
	Accounts []arn.Account `yaml:"accounts,omitempty"`
	// Principals are ARNs of those who may have asked for the replica, with at most one * each,
	// which stands for any text. Default: anybody of these accounts.
	Principals []string `yaml:"principals,omitempty"`
	// MaxKeys is how many keys here the peer may have asked for, 1 to 10000000. Default: as
	// many as limits.keys.
	MaxKeys int `yaml:"max_keys,omitempty"`
	// MaxMaterials is how many materials of a key whose primary key is at the peer are held
	// here, 1 to 256. Default 256.
	MaxMaterials int `yaml:"max_materials,omitempty"`
}

// Send bounds what leaves this Region for one peer.
type Send struct {
	// Accounts are those whose keys may go there; [] lets none go. Default: all served here.
	Accounts []arn.Account `yaml:"accounts,omitempty"`
}

func permissionsOf(name region.Name) string { return "peers.permissions." + string(name) }

// completePermissions gives every peer its permissions, so that nothing after this has to
// know what a missing one means.
func (c *Config) completePermissions(doc *strictyaml.Document) {
	for name := range c.Peers.Addresses {
		p, at := c.Peers.Permissions[name], permissionsOf(name)
		if !doc.Has(at + ".accept.accounts") { // [] is a choice of its own
			p.Accept.Accounts = c.Accounts
		}
		if !doc.Has(at + ".accept.max_materials") {
			p.Accept.MaxMaterials = mrk.MaxMaterials
		}
		if !doc.Has(at + ".send.accounts") {
			p.Send.Accounts = c.Accounts
		}
		if c.Peers.Permissions == nil {
			c.Peers.Permissions = map[region.Name]Permissions{}
		}
		c.Peers.Permissions[name] = p
	}
}

func (c *Config) checkPermissions(doc *strictyaml.Document) {
	for _, name := range slices.Sorted(maps.Keys(c.Peers.Permissions)) {
		p, at := c.Peers.Permissions[name], permissionsOf(name)
		if _, ok := c.Peers.Addresses[name]; !ok {
			doc.Report(at, "is not in peers.addresses: bounds of a Region that is no peer bind nobody")
			continue
		}
		c.checkServed(doc, at+".accept.accounts", p.Accept.Accounts)
		c.checkServed(doc, at+".send.accounts", p.Send.Accounts)
		if doc.Has(at+".accept.principals") && len(p.Accept.Principals) == 0 {
			doc.Report(at+".accept.principals", "empty: leave it out for anybody, or give accounts: [] to accept nothing")
		}
		for i, principal := range p.Accept.Principals {
			c.checkAccepted(doc, fmt.Sprintf("%s.accept.principals[%d]", at, i), principal, p.Accept.Accounts)
		}
		if doc.Has(at + ".accept.max_keys") {
			within(doc, at+".accept.max_keys", p.Accept.MaxKeys, 1, 10_000_000)
		}
		within(doc, at+".accept.max_materials", p.Accept.MaxMaterials, 1, mrk.MaxMaterials)
	}
}

// checkServed checks accounts that are a part of those that this daemon serves.
func (c *Config) checkServed(doc *strictyaml.Document, at string, accounts []arn.Account) {
	if !doc.Has(at) {
		return // a default; what is wrong with accounts has been reported there
	}
	for i, a := range accounts {
		at := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case slices.Index(accounts, a) < i:
			doc.Report(at, "account %s is there twice: remove one", a)
		case !slices.Contains(c.Accounts, a):
			doc.Report(at, "account %s is not served here: want some of accounts", a)
		}
	}
}

// checkAccepted checks the ARN of a principal whose replicas are accepted.
func (c *Config) checkAccepted(doc *strictyaml.Document, at, principal string, accounts []arn.Account) {
	before, after, open := strings.Cut(principal, "*")
	if strings.Contains(after, "*") {
		doc.Report(at, "at most one *")
		return
	}
	if open {
		principal = before + "x" + after
	}
	p, err := arn.ParsePrincipal(principal)
	switch {
	case err != nil && open:
		doc.Report(at, "%v: the * goes into the name, as in arn:%s:iam::111122223333:role/replicator-*", err, c.Partition)
	case err != nil:
		doc.Report(at, "%v", err)
	case p.Partition != c.Partition:
		doc.Report(at, "%s is in partition %s, this daemon in %s", principal, p.Partition, c.Partition)
	case !slices.Contains(accounts, p.Account):
		doc.Report(at, "account %s is not among those accepted", p.Account)
	}
}
