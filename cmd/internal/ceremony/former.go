package ceremony

import (
	"context"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// PinFormer accepts the descriptor of an instance that is no more, after its fingerprint was
// compared: what that instance has signed of keys is believed as history from then on. The
// token signs that, since the daemon has no other way to know who has put the file there.
func (t Tool) PinFormer(ctx context.Context, path string, agree Agree) error {
	own, err := t.Dir.LoadOwn()
	if err != nil {
		return err
	}
	gone, err := region.Load(path)
	if err != nil {
		return err
	}
	peers, err := t.Dir.LoadPeers()
	if err != nil {
		return err
	}
	for _, p := range append(peers, own) {
		if p.Instance == gone.Instance {
			return fmt.Errorf("instance %s is pinned in Region %s: of an instance that is there nothing is history", p.Instance, p.Region)
		}
	}
	t.say("Region %s, instance %s, is no more; what it has signed of keys is history", gone.Region, gone.Instance)
	if err := agree("descriptor", gone.Fingerprint()); err != nil {
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
	if err := t.keepFormer(ctx, own, gone, sgn); err != nil {
		return err
	}
	return t.report(c)
}

func (t Tool) keepFormer(ctx context.Context, own, gone region.SignedDescriptor, s statement.Signer) error {
	f, err := region.Former{SignedDescriptor: gone, At: t.Now().Truncate(time.Second).UTC()}.Sign(ctx, own.Descriptor, s)
	if err != nil {
		return err
	}
	if err := t.Dir.KeepFormer(gone.Descriptor, f); err != nil {
		return err
	}
	t.say("kept %s", t.Dir.Former(gone.Descriptor))
	return nil
}
