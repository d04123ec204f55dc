package main

import (
	"context"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// openAudit continues the audit log, which signs its checkpoints in the token.
func (d *daemon) openAudit(ctx context.Context) error {
	cfg, err := d.auditConfig()
	if err != nil {
		return err
	}
	log, err := audit.Open(ctx, cfg)
	if err != nil {
		return err
	}
	d.audit = log
	d.closing("closing the audit log", func(context.Context) error { return log.Close() })
	return nil
}

func (d *daemon) auditConfig() (audit.Config, error) {
	keys, err := d.self.Keys()
	return audit.Config{
		Dir: d.config.Audit.Dir, Region: d.self.Region, Instance: d.self.Instance,
		Signer: d.signer(),
		Keys:   keys,
		Flush:  d.config.Audit.FlushInterval,
		Logger: d.log,
	}, err
}

// signer signs with the Region signing key.
func (d *daemon) signer() statement.Signer {
	return statement.SignerFunc(func(ctx context.Context, digest []byte) ([]byte, error) {
		return d.token.Sign(ctx, d.signing, hsm.RegionScheme, digest)
	})
}

// openKeys loads the sealed store and reconciles it with the token.
func (d *daemon) openKeys(ctx context.Context) (err error) {
	files, err := d.regionFiles()
	if err != nil {
		return err
	}
	quorum, err := approval.NewQuorum(d.config.Quorum.Operations)
	if err != nil {
		return err
	}
	d.keys, err = keyops.New(ctx, keyops.Config{
		Self: d.self, Accounts: d.config.Accounts,
		Token: d.token, Boundary: d.boundary, Signing: d.signing, Seal: d.seal, Transport: d.transport.Load(),
		Store: d.store, Audit: d.audit,
		Identities:          d.identityPolicies(),
		Peers:               d.peersOf(),
		KeyQuota:            d.config.Limits.Keys,
		PrincipalKeyQuota:   d.config.Limits.KeysPerPrincipal,
		UnboundedEncryption: d.config.Limits.UnboundedEncryption,
		Files:               files,
		Quorum:              quorum,
		Log:                 d.log,
	})
	return err
}

// regionFiles is what region_dir shows of those who may decide, and of peers.
func (d *daemon) regionFiles() (keyops.RegionFiles, error) {
	files := keyops.RegionFiles{Dir: region.Dir(d.config.RegionDir)}
	all := []region.SignedDescriptor{d.self}
	var err error
	if files.Retired, err = files.Dir.LoadRetired(d.self.Descriptor); err != nil {
		return files, err
	}
	for _, name := range slices.Sorted(maps.Keys(d.peers)) {
		files.Pins = append(files.Pins, d.peers[name])
		all = append(all, d.peers[name])
	}
	for _, f := range d.former {
		all = append(all, f.SignedDescriptor)
	}
	for _, of := range all {
		roster, changes, err := files.Dir.LoadRosters(of.Descriptor)
		if err != nil {
			return files, err
		}
		files.Rosters = append(files.Rosters, keyops.RosterSeen{Region: of.Region, Instance: of.Instance, Roster: roster, Changes: changes})
	}
	return files, nil
}

// openGateway takes the clients' ports.
func (d *daemon) openGateway(context.Context) (err error) {
	c := d.config.Clients
	rules := make([]gateway.Rule, len(c.Principals))
	for i, r := range c.Principals {
		rules[i] = gateway.Rule(r)
	}
	d.gateway, err = gateway.New(gateway.Config{
		GRPCAddress: c.GRPC, RESTAddress: c.REST,
		TLS: gateway.TLSFiles{
			Certificate: c.CertificateFile, Key: c.KeyFile,
			ClientCA: c.CAFile, CRLs: c.CRLFiles, CRLGrace: c.CRLGrace,
		},
		Files:      d.files,
		Principals: rules,
		Bearer:     bearerOf(c.Bearer),
		Region:     d.self.Region,
		Keys:       d.keys, Replication: d.replicationOf(), Health: d.token.Health,
		Doctor:   d.doctor,
		Version:  version(),
		Log:      d.log,
		Observer: d.metrics, RecordThrottled: d.keys.RecordThrottled,
		Limits: gateway.Limits{
			MaxConnections:           d.config.Limits.Connections,
			MaxConnectionsPerAddress: d.config.Limits.ConnectionsPerAddress,
			MaxConcurrentStreams:     uint32(d.config.Limits.Streams),
			MaxCalls:                 d.config.Limits.Calls,
			MaxCallsPerPrincipal:     d.config.Limits.CallsPerPrincipal,
			Rates: gateway.Rates{
				Crypto: gateway.Rate(d.config.Limits.Rates.Crypto),
				Read:   gateway.Rate(d.config.Limits.Rates.Read),
				Manage: gateway.Rate(d.config.Limits.Rates.Manage),
			},
		},
		DrainTimeout: d.config.DrainTimeout,
	})
	return err
}

// bearerOf returns whose bearer tokens are taken, nil for nobody's.
func bearerOf(c config.Bearer) *gateway.Bearer {
	if c.Issuer == "" {
		return nil
	}
	b := &gateway.Bearer{Config: bearer.Config{
		Issuer: c.Issuer, Audience: c.Audience,
		KeysFile: c.KeysFile, KeysURL: c.KeysURL, KeysCAFile: c.KeysCAFile,
		Algorithms: c.Algorithms, ClockSkew: c.ClockSkew,
	}}
	for _, r := range c.Principals {
		b.Principals = append(b.Principals, gateway.ClaimRule(r))
	}
	return b
}
