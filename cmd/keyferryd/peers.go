package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"

	"golang.org/x/net/netutil"

	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/replication"
)

// peerConnections bounds the connections to the peers' port, so that whoever reaches it can
// keep peers out but cannot use up the files that the clients' ports and the store need.
const peerConnections = 256

// openPeers takes the peers' port. Nobody is answered there before startPeers, since package
// keyops comes in between: it needs to know the peers, and they need the keys.
func (d *daemon) openPeers(context.Context) error {
	if d.config.Peers.Listen == "" {
		return nil
	}
	listener, err := listenPeers(d.config.Peers.Listen)
	if err != nil {
		return err
	}
	c := replication.Config{Self: d.self.Descriptor, Listener: listener, Log: d.log}
	for _, name := range slices.Sorted(maps.Keys(d.peers)) {
		c.Peers = append(c.Peers, replication.Peer{
			Descriptor: d.peers[name].Descriptor, Fingerprint: d.peers[name].Fingerprint(), Address: d.config.Peers.Addresses[name],
			Authority: authorityOf(d.config.Peers.Permissions[name]),
		})
	}
	for _, f := range d.former {
		c.Former = append(c.Former, f.Descriptor)
	}
	if d.replicator, err = replication.New(c); err != nil {
		listener.Close()
		return err
	}
	d.closing("stopping replication", func(context.Context) error { d.replicator.Close(); return nil })
	return nil
}

// listenPeers takes an address for so many connections and no more; others wait.
func listenPeers(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	return netutil.LimitListener(listener, peerConnections), nil
}

func authorityOf(p config.Permissions) keyops.Authority {
	return keyops.Authority{Accept: keyops.Accept(p.Accept), Send: p.Send.Accounts}
}

// startPeers begins to send to peers and to answer them.
func (d *daemon) startPeers(ctx context.Context) error {
	if d.replicator == nil {
		return nil
	}
	return d.replicator.Start(ctx, d.keys)
}

// peersOf returns what package keyops needs of the peers, nil in a deployment of one Region.
func (d *daemon) peersOf() keyops.Peers {
	if d.replicator == nil {
		return nil
	}
	return d.replicator
}

// replicationOf returns what clients may see of replication, nil in a deployment of one Region.
func (d *daemon) replicationOf() gateway.Replication {
	if d.replicator == nil {
		return nil
	}
	return progress{d.replicator}
}

// progress tells the gateway, in its own words, how replication stands.
type progress struct{ replicator *replication.Replicator }

func (p progress) Status(id arn.KeyID) []gateway.ReplicaStatus {
	var rows []gateway.ReplicaStatus
	for _, s := range p.replicator.Status(id) {
		rows = append(rows, gateway.ReplicaStatus(s))
	}
	return rows
}

func (p progress) Peers() []gateway.PeerStatus {
	var rows []gateway.PeerStatus
	for _, s := range p.replicator.Peers() {
		rows = append(rows, gateway.PeerStatus(s))
	}
	return rows
}
