package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
)

// RetireRegion takes a peer that is gone for good out of this Region's directory, so that
// neither its name nor its instance is ever accepted again. The transport keys with it have
// to be retired before.
func (t Tool) RetireRegion(ctx context.Context, name region.Name, agree Agree) error {
	own, set, err := t.load()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(t.Dir.Retired(name)); err == nil { // perhaps by a call that was killed
		return t.removePin(own, name)
	}
	peer, err := t.Dir.LoadPeer(name)
	if err != nil {
		return err
	}
	for _, k := range set.All() {
		if k.Name.Source.Region == name || k.Name.Destination.Region == name {
			return fmt.Errorf("transport keys %s are in use: retire them first", k.Name)
		}
	}
	t.say("Region %s, instance %s, is gone for good: its name and its instance will never be accepted again", peer.Region, peer.Instance)
	if err := agree("descriptor", peer.Fingerprint()); err != nil {
		return err
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	sgn, err := signer(c, own.Descriptor)
	if err != nil {
		return err
	}
	f, err := region.Retirement{
		Region: peer.Region, Instance: peer.Instance, Fingerprint: peer.Fingerprint(), At: t.Now().Truncate(time.Second).UTC(),
	}.Sign(ctx, own.Descriptor, sgn)
	if err != nil {
		return err
	}
	// What it has signed of keys stays part of their history, which others have yet to learn.
	if err := t.keepFormer(ctx, own, peer, sgn); err != nil {
		return err
	}
	if err := t.Dir.KeepRetirement(name, f); err != nil {
		return err
	}
	t.say("retired %s; keep it: a daemon that has seen it does not start without it", t.Dir.Retired(name))
	return t.report(c)
}

func (t Tool) removePin(own region.SignedDescriptor, name region.Name) error {
	if _, err := t.Dir.LoadRetired(own.Descriptor); err != nil {
		return err
	}
	if err := os.Remove(t.Dir.Peer(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.say("%s is retired already", name)
	return nil
}
