package keyopstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/transport"
)

// Connect establishes transport keys of epoch 1 for every ordered pair of Regions, all on
// fake tokens, as ceremonies would, pins their descriptors, and starts the Regions again so
// that they read the transcripts.
func Connect(t testing.TB, regions ...*Region) {
	t.Helper()
	for _, source := range regions {
		for _, destination := range regions {
			if source == destination {
				continue
			}
			if err := establish(t.Context(), source, destination, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range regions {
		r.Restart(t)
	}
}

// establish makes one transport key set and leaves both transcripts.
func establish(ctx context.Context, source, destination *Region, epoch uint64) error {
	name := SetName(source, destination, epoch)
	return Transcribe(ctx, source, destination, name, hsmtest.Establish(source.Fake, destination.Fake, name.String()))
}

// SetName names the transport key set from one Region to another.
func SetName(source, destination *Region, epoch uint64) transport.Name {
	return transport.Name{
		Source:      transport.EndOf(source.Descriptor.Descriptor),
		Destination: transport.EndOf(destination.Descriptor.Descriptor),
		Epoch:       epoch,
	}
}

// Transcribe writes the transcripts of a transport key set that exists at both ends.
func Transcribe(ctx context.Context, source, destination *Region, name transport.Name, made map[hsm.Class]hsmtest.Transport) error {
	var atSource, atDestination []transport.Key
	for _, class := range hsm.Classes {
		atSource = append(atSource, transport.Key{Name: name, Role: hsm.RoleTransportSource, Class: class, ID: made[class].Source})
		atDestination = append(atDestination, transport.Key{Name: name, Role: hsm.RoleTransportDestination, Class: class, ID: made[class].Destination})
	}
	if err := source.transcribe(ctx, destination, name, atSource); err != nil {
		return err
	}
	return destination.transcribe(ctx, source, name, atDestination)
}

// transcribe writes the transcript of this Region's end.
func (r *Region) transcribe(ctx context.Context, peer *Region, name transport.Name, keys []transport.Key) error {
	t := transport.Transcript{
		Event: transport.Established, Name: name, Role: keys[0].Role, TokenSerial: r.Token.Info().Serial,
		Keys: keys, Offer: bytes.Repeat([]byte{1}, 48), Package: bytes.Repeat([]byte{2}, 48),
		Peer: peer.Descriptor, At: time.Now().UTC().Truncate(time.Second),
	}
	f, err := t.Sign(ctx, r.Descriptor.Descriptor, r.StatementSigner())
	if err != nil {
		return err
	}
	return statement.WriteJSON(filepath.Join(r.Dir.Transcripts(), t.File()), f)
}

// Network is a keyops.Peers that asks other test Regions directly. Regions can be made
// unreachable.
type Network struct {
	mu      sync.Mutex
	regions map[region.Name]*Region
	dark    map[region.Name]bool
	contact map[region.Name]time.Time
	bounds  map[region.Name]keyops.Authority
}

var (
	_ keyops.Peers    = (*Network)(nil)
	_ keyops.Contacts = (*Network)(nil)
)

// NewNetwork returns a network without Regions.
func NewNetwork() *Network {
	return &Network{regions: map[region.Name]*Region{}, dark: map[region.Name]bool{}, contact: map[region.Name]time.Time{}, bounds: map[region.Name]keyops.Authority{}}
}

// Add makes Regions known to each other.
func (n *Network) Add(regions ...*Region) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range regions {
		n.regions[r.Options.Name] = r
	}
}

// SetDark makes a Region unreachable, or reachable again.
func (n *Network) SetDark(name region.Name, dark bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dark[name] = dark
}

// SetContact says when the last exchange with a Region ended.
func (n *Network) SetContact(name region.Name, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.contact[name] = at
}

// LastContact returns what SetContact said.
func (n *Network) LastContact(name region.Name) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.contact[name]
}

func (n *Network) find(name region.Name) (r *Region, dark bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.regions[name], n.dark[name]
}

// Peer returns a Region's descriptor.
func (n *Network) Peer(name region.Name) (region.Descriptor, bool) {
	r, _ := n.find(name)
	if r == nil {
		return region.Descriptor{}, false
	}
	return r.Descriptor.Descriptor, true
}

// Everything is the Authority of a peer that a configuration does not bound.
func Everything(accounts ...arn.Account) keyops.Authority {
	return keyops.Authority{Accept: keyops.Accept{Accounts: accounts}, Send: accounts}
}

// Authority returns what SetAuthority said, and without it everything that concerns the
// accounts of that Region.
func (n *Network) Authority(name region.Name) keyops.Authority {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.bounds[name]; ok {
		return a
	}
	if r := n.regions[name]; r != nil {
		return Everything(r.Options.Accounts...)
	}
	return keyops.Authority{}
}

// SetAuthority bounds what a Region may do at all others, and what it is sent.
func (n *Network) SetAuthority(name region.Name, a keyops.Authority) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bounds[name] = a
}

// CheckReplica asks the Region's service.
func (n *Network) CheckReplica(ctx context.Context, to region.Name, claim keyops.ReplicaClaim) error {
	r, dark := n.find(to)
	if r == nil || dark || r.Service == nil {
		return fmt.Errorf("Region %s: %w", to, keyops.ErrPeerUnreachable)
	}
	return r.CheckReplica(ctx, claim)
}

// Verify makes a Network an mrk.Verifier that has pinned all its Regions.
func (n *Network) Verify(name region.Name, instance region.InstanceID, s statement.Signed) error {
	r, _ := n.find(name)
	if r == nil || r.Descriptor.Instance != instance {
		return fmt.Errorf("instance %s of Region %s is not pinned", instance, name)
	}
	return r.Descriptor.Verify(s)
}

// Roster makes a Network mrk.Electors that know every Region's first operators.
func (n *Network) Roster(name region.Name, instance region.InstanceID, version uint64) (approval.Roster, uint64, error) {
	r, _ := n.find(name)
	if r == nil || r.Descriptor.Instance != instance || version != r.Descriptor.Operators.Version {
		return approval.Roster{}, 0, fmt.Errorf("%w: version %d of Region %s", mrk.ErrRosterUnknown, version, name)
	}
	return r.Descriptor.Operators, version, nil
}

// CheckPrimary asks the Region's service.
func (n *Network) CheckPrimary(ctx context.Context, to region.Name, claim keyops.PrimaryClaim) error {
	r, dark := n.find(to)
	if r == nil || dark || r.Service == nil {
		return fmt.Errorf("Region %s: %w", to, keyops.ErrPeerUnreachable)
	}
	return r.CheckPrimary(ctx, claim)
}

// Associate asks the Region's service.
func (n *Network) Associate(ctx context.Context, to region.Name, claim keyops.AssociationClaim) error {
	r, dark := n.find(to)
	if r == nil || dark || r.Service == nil {
		return fmt.Errorf("Region %s: %w", to, keyops.ErrPeerUnreachable)
	}
	return r.Associate(ctx, claim)
}

// Disassociate asks the Region's service.
func (n *Network) Disassociate(ctx context.Context, to region.Name, claim keyops.DisassociationClaim) (statement.Signed, error) {
	r, dark := n.find(to)
	if r == nil || dark || r.Service == nil {
		return statement.Signed{}, fmt.Errorf("Region %s: %w", to, keyops.ErrPeerUnreachable)
	}
	return r.Disassociate(ctx, claim)
}

// RefreshRoster does nothing: a Network's Regions keep their first operators.
func (n *Network) RefreshRoster(context.Context, region.Name) {}

// Confirm asks the Region's service.
func (n *Network) Confirm(_ context.Context, to region.Name, q mrk.Question) (mrk.Confirmation, time.Time, error) {
	r, dark := n.find(to)
	if r == nil || dark || r.Service == nil {
		return mrk.Confirmation{}, time.Time{}, fmt.Errorf("Region %s: %w", to, keyops.ErrPeerUnreachable)
	}
	now := time.Now()
	if r.Options.Clock != nil {
		now = r.Options.Clock()
	}
	k, err := r.SharedKey(q.Key)
	if errors.Is(err, keyops.ErrNotFound) {
		return mrk.Confirmation{From: to, Nonce: q.Nonce}, now, nil
	}
	if err != nil {
		return mrk.Confirmation{}, time.Time{}, err
	}
	return k.Set.Confirm(q), now, nil
}

// Contact has heard every Region that can be reached.
func (n *Network) Contact(arn.KeyID) mrk.Contact {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := mrk.Contact{Nonce: func() (mrk.Nonce, error) { return mrk.NewNonce(rand.Reader) }, Now: func() int64 { return time.Now().Unix() }}
	for name := range n.regions {
		c.Regions = append(c.Regions, name)
	}
	slices.Sort(c.Regions)
	c.Heard = func(name region.Name) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.regions[name] != nil && !n.dark[name]
	}
	return c
}
