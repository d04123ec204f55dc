package dev

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keyferry/keyferry/cmd/internal/cliconfig"
	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/softhsm"
)

// identities lets the client admin do everything; who else calls is refused until a key's
// policy names it.
const identities = `{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "Administrator",
      "Effect": "Allow",
      "Principal": {"AWS": "arn:` + partition + `:iam::` + string(Account) + `:user/admin"},
      "Action": "kms:*",
      "Resource": "*"
    }
  ]
}
`

// writeDaemonConfig writes the configuration of one Region's daemon, and the identity
// policies if there are none: those are the developer's to change.
func (d *Deployment) writeDaemonConfig(r RegionPlan, token softhsm.Token) error {
	if !exists(d.path("identities.json")) {
		if err := writeFile(d.path("identities.json"), []byte(identities)); err != nil {
			return err
		}
	}
	c := config.Config{
		Region:    r.Name,
		Partition: partition,
		Accounts:  []arn.Account{Account},
		RegionDir: "region",
		Token: config.Token{
			Module: token.Module, Label: token.Label, PINFile: token.PINFile, Profile: profile,
			RequireBoundary: "api-only", // what SoftHSM reaches
		},
		Store: config.Store{Path: "store.db"},
		Audit: config.Audit{Dir: "audit", FlushInterval: time.Second},
		Clients: config.Clients{
			GRPC: loopback(r.GRPC), REST: loopback(r.REST),
			CertificateFile: "server.crt", KeyFile: "server.key", CAFile: d.path("ca.crt"),
			Principals: []config.PrincipalRule{{
				SPIFFE:    "spiffe://" + trustDomain + "/user/*",
				Principal: fmt.Sprintf("arn:%s:iam::%s:user/*", partition, Account),
			}},
		},
		IdentityPolicies: d.path("identities.json"),
		Peers:            config.Peers{Addresses: map[region.Name]string{}},
		Limits:           config.Limits{},
		Log:              config.Log{Level: "info", Format: "json"},
	}
	if r.Metrics != 0 {
		c.Metrics.Listen = loopback(r.Metrics)
	}
	for _, other := range d.plan.Regions {
		if other.Name != r.Name {
			c.Peers.Listen = loopback(r.Peer)
			c.Peers.Addresses[other.Name] = loopback(other.Peer)
		}
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := config.Parse("keyferryd.yaml", data); err != nil {
		return fmt.Errorf("configuration for %s: %w", r.Name, err)
	}
	return writeFile(d.in(r.Name, "keyferryd.yaml"), append([]byte("# Written anew by keyferry-dev whenever it starts this daemon.\n"), data...))
}

// writeClientConfig writes the file with which the keyferry command is the named client.
func (d *Deployment) writeClientConfig(name string) (string, error) {
	c := cliconfig.Config{DefaultRegion: d.plan.Regions[0].Name, Regions: map[region.Name]cliconfig.Region{}}
	for _, r := range d.plan.Regions {
		c.Regions[r.Name] = cliconfig.Region{
			GRPC: loopback(r.GRPC),
			REST: "https://" + loopback(r.REST),
			CA:   d.path("ca.crt"),
			Cert: d.path("clients", name, "client.crt"),
			Key:  d.path("clients", name, "client.key"),
		}
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	file := d.path("clients", name, "config.yaml")
	return file, writeFile(file, data)
}
