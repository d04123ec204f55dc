package ceremony

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// InitOptions says which Region to initialise.
type InitOptions struct {
	Region    region.Name
	Partition string
	Operators approval.Roster
	// Discard, if not empty, is an instance whose keys to destroy first: an init that was
	// killed has left them, and no descriptor names them. A person says so, since from the
	// token alone the keys of a Region in service look the same.
	Discard region.InstanceID
}

// Init makes a Region's signing key, seal key and instance ID, and writes its descriptor.
// It is done once; a Region that is initialised again is another instance.
func (t Tool) Init(ctx context.Context, opt InitOptions) (err error) {
	if _, err := os.Lstat(t.Dir.Own()); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s exists already: this Region is initialised", t.Dir.Own())
	}
	if err := t.Dir.Make(); err != nil {
		return err
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := t.clean(ctx, c, opt.Discard); err != nil {
		return err
	}
	d := region.Descriptor{
		Region: opt.Region, Instance: region.NewInstanceID(), Partition: opt.Partition,
		Operators: opt.Operators, Created: t.Now().Truncate(time.Second).UTC(), Version: 1,
	}
	t.say("Region %s, instance %s, partition %s, token serial %s", d.Region, d.Instance, d.Partition, c.Info().Serial)
	signing, seal := hsm.NewID(), hsm.NewID()
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(ctx, c, []hsm.ID{signing, seal}))
		}
	}()
	d.SigningKey, err = c.Generate(ctx, hsm.Spec{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: string(d.Instance)}, signing)
	if err != nil {
		return fmt.Errorf("making Region signing key: %w", err)
	}
	t.say("Region signing key, object %s, fingerprint %s", signing, statement.Fingerprint(d.SigningKey))
	if _, err := c.Generate(ctx, hsm.Spec{Role: hsm.RoleSeal, Algorithm: hsm.HMACSHA256, Name: string(d.Instance)}, seal); err != nil {
		return fmt.Errorf("making seal key: %w", err)
	}
	t.say("seal key, object %s", seal)
	signed, err := d.Sign(ctx, sign(c, signing))
	if err != nil {
		return err
	}
	if err := signed.Save(t.Dir.Own()); err != nil {
		return err
	}
	t.say("descriptor %s\ndescriptor fingerprint %s", t.Dir.Own(), signed.Fingerprint())
	return t.report(c)
}

// clean refuses a token that holds a Region's keys. Those of discard are destroyed, if they
// are the only ones.
func (t Tool) clean(ctx context.Context, c *hsm.Ceremony, discard region.InstanceID) error {
	var left []hsm.Object
	for _, o := range c.Objects() {
		if o.Spec.Role != hsm.RoleRegionSigning && o.Spec.Role != hsm.RoleSeal {
			continue
		}
		if discard == "" || o.Spec.Name != string(discard) {
			return fmt.Errorf("token %s holds a key of role %q for instance %s already (if an init was killed and no descriptor of that instance exists: --discard)",
				c.Info().Serial, o.Spec.Role, o.Spec.Name)
		}
		left = append(left, o)
	}
	if discard != "" && len(left) == 0 {
		return fmt.Errorf("token %s holds no key of instance %s", c.Info().Serial, discard)
	}
	for _, o := range left {
		if err := c.Destroy(ctx, o.ID); err != nil {
			return err
		}
		t.say("destroyed key of role %s, object %s, of instance %s", o.Spec.Role, o.ID, discard)
	}
	return nil
}

// Pin accepts another Region's descriptor as a peer's, after its fingerprint was compared.
func (t Tool) Pin(path string, agree Agree) error {
	own, err := t.Dir.LoadOwn()
	if err != nil {
		return err
	}
	peer, err := region.Load(path)
	if err != nil {
		return err
	}
	if err := own.Accepts(peer.Region, peer); err != nil {
		return err
	}
	if err := t.Dir.CheckRetired(own.Descriptor, peer.Descriptor); err != nil {
		return err
	}
	t.say("Region %s, instance %s, partition %s, created %s", peer.Region, peer.Instance, peer.Partition, peer.Created.Format(time.RFC3339))
	for _, o := range peer.Operators.Operators {
		t.say("operator %q, key %s", o.Name, statement.Fingerprint(o.Key))
	}
	t.say("approvals needed: %d of %d", peer.Operators.Threshold, len(peer.Operators.Operators))
	if err := agree("descriptor", peer.Fingerprint()); err != nil {
		return err
	}
	if err := peer.Save(t.Dir.Peer(peer.Region)); err != nil {
		return err
	}
	t.say("pinned %s", t.Dir.Peer(peer.Region))
	return nil
}

// Agree asks a person whether a fingerprint is the one that the other side reads out. An
// error means no.
type Agree func(what, fingerprint string) error

// report ends a ceremony: it compares the token with the transcripts.
func (t Tool) report(c *hsm.Ceremony) error {
	_, set, err := t.load()
	if err != nil {
		return err
	}
	if err := compare(c, set); err != nil {
		return err
	}
	t.say("no wrapping, unwrapping or trusted object is unknown")
	return nil
}
