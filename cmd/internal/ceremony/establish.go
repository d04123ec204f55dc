package ceremony

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/transport"
)

// EstablishOptions says which offer a source answers.
type EstablishOptions struct {
	Offer   string // the approved offer
	Package string // where the answer is written
	// Adopt takes trusted keys of a vendor's own tool, labelled ADOPT-CLASS.
	Adopt string
	// Agree is asked for the fingerprint of the whole offer.
	Agree Agree
}

// Establish runs the source's side. Everything about the offer is checked, and a person
// has agreed, before the token is opened.
func (t Tool) Establish(ctx context.Context, opt EstablishOptions) error {
	own, set, err := t.load()
	if err != nil {
		return err
	}
	var f OfferFile
	if err := statement.ReadJSON(opt.Offer, &f); err != nil {
		return err
	}
	o, signed, err := openOffer(f, own, t.Dir.LoadPeer, t.Now())
	if err != nil {
		return err
	}
	if err := checkEpoch(o.Epoch, set.NextEpoch(o.Name().Source, o.Name().Destination)); err != nil {
		return err
	}
	if o.OAEP != t.Token.Profile.OAEP {
		return fmt.Errorf("offer demands RSA-OAEP with %q, this token's profile has %q", o.OAEP, t.Token.Profile.OAEP)
	}
	t.say("offer of transport keys %s, expires %s\nestablishment key fingerprint %s",
		o.Name(), o.Expires.Format(time.RFC3339), statement.Fingerprint(o.Establishment))
	if err := opt.Agree("offer", fingerprint(signed)); err != nil {
		return err
	}
	if _, err := t.Dir.KeepRosters(o.Destination.Descriptor, f.Rosters); err != nil {
		return err
	}
	cfg := hsm.CeremonyConfig{Config: t.Token, SOPINFile: t.SOPINFile, Adopt: opt.Adopt}
	for _, class := range o.Classes {
		cfg.Trusted = append(cfg.Trusted, o.Name().Spec(hsm.RoleTransportSource, class))
	}
	c, err := hsm.OpenCeremony(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if opt.Adopt == "" { // keys to adopt are strangers until they are copied
		if err := compare(c, set); err != nil {
			return err
		}
	}
	sgn, err := signer(c, own.Descriptor)
	if err != nil {
		return err
	}
	return t.answer(ctx, c, o, signed, sgn, opt.Package)
}

// maxSkipped is how many epochs an offer may leave out. The destination is ahead only if this
// end has lost transcripts; one that used up the numbers would leave none after itself, and
// what is newest wraps.
const maxSkipped = 100

func checkEpoch(offered, next uint64) error {
	switch {
	case offered < next:
		return fmt.Errorf("epoch %d was used before at this end: accept with --epoch %d", offered, next)
	case offered-next > maxSkipped:
		return fmt.Errorf("epoch %d skips more than %d epochs, the next at this end is %d", offered, maxSkipped, next)
	}
	return nil
}

// answer makes the package, or leaves nothing. The transcript comes before the package: a
// package without a transcript would be a key that the destination holds and the source
// has forgotten.
func (t Tool) answer(ctx context.Context, c *hsm.Ceremony, o Offer, signed statement.Signed, sgn statement.Signer, path string) (err error) {
	tr := transport.Transcript{
		Event: transport.Established, Name: o.Name(), Role: hsm.RoleTransportSource, TokenSerial: c.Info().Serial,
		Offer: signed.Hash(), Peer: o.Destination, At: t.Now().Truncate(time.Second).UTC(),
	}
	p := Package{Offer: signed.Hash()}
	var ids []hsm.ID
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(ctx, c, ids))
		}
	}()
	for _, class := range o.Classes {
		key := transport.Key{Name: tr.Name, Role: tr.Role, Class: class, ID: hsm.NewID()}
		k := PackedKey{Class: class}
		if k.Wrapped, err = c.WrapTrusted(class, o.Establishment); err != nil {
			return err
		}
		ids = append(ids, key.ID)
		if err = c.KeepTrusted(ctx, key.Spec(), key.ID); err != nil {
			return err
		}
		if k.Proof, err = c.MakeProof(class, key.ID); err != nil {
			return err
		}
		t.say("transport key of class %s, object %s", class, key.ID)
		tr.Keys, p.Keys = append(tr.Keys, key), append(p.Keys, k)
	}
	answer, err := statement.Sign(ctx, sgn, statement.CeremonyPackage, p.payload())
	if err != nil {
		return err
	}
	if err := o.Source.Verify(answer); err != nil {
		return err
	}
	pub, err := o.Source.PublicKey()
	if err != nil {
		return err
	}
	file, err := statement.NewFile(answer, pub)
	if err != nil {
		return err
	}
	tr.Package = answer.Hash()
	if err := t.record(ctx, tr, o.Source.Descriptor, sgn); err != nil {
		return err
	}
	ids = nil // the transcript owns them now
	if err := statement.WriteJSON(path, file); err != nil {
		return fmt.Errorf("writing package, after the transcript; retire epoch %d before another ceremony: %w", o.Epoch, err)
	}
	t.say("package %s", path)
	return t.report(c)
}

// RetireOptions says which transport key set to destroy at this end.
type RetireOptions struct {
	Name transport.Name
	Role hsm.Role // which end this token is
	// Destination is the destination's transcript of its retirement, which a source demands:
	// were the source to retire first, what is on its way would arrive and not open.
	Destination string
	// Alone retires a source without it: the destination never accepted, or is gone.
	Alone bool
}

// Retire destroys one end of a transport key set for good.
func (t Tool) Retire(ctx context.Context, opt RetireOptions) error {
	own, set, err := t.load()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(set.Transcripts(), func(tr transport.Transcript) bool {
		return tr.Name == opt.Name && tr.Role == opt.Role && tr.Event == transport.Established
	})
	if i < 0 {
		return fmt.Errorf("no transcript of transport keys %s at this end", opt.Name)
	}
	tr := set.Transcripts()[i]
	if opt.Role == hsm.RoleTransportSource && !opt.Alone {
		peer := tr.Peer.Descriptor
		if now, err := t.Dir.LoadPeer(peer.Region); err == nil && now.Instance == peer.Instance {
			peer = now.Descriptor // its signing key may have been replaced since
		}
		if err := retiredThere(opt.Destination, tr, peer); err != nil {
			return err
		}
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if serial := c.Info().Serial; serial != tr.TokenSerial {
		return fmt.Errorf("transport keys %s are in token %s, this is %s", opt.Name, tr.TokenSerial, serial)
	}
	sgn, err := signer(c, own.Descriptor)
	if err != nil {
		return err
	}
	for _, k := range tr.Keys {
		if err := c.Destroy(ctx, k.ID); err != nil {
			return fmt.Errorf("destroying transport key of class %s: %w", k.Class, err)
		}
		t.say("destroyed transport key of class %s, object %s", k.Class, k.ID)
	}
	tr.Event, tr.At = transport.Retired, t.Now().Truncate(time.Second).UTC()
	if err := t.record(ctx, tr, own.Descriptor, sgn); err != nil {
		return err
	}
	return t.report(c)
}

// retiredThere reads the destination's transcript of retirement of the same set.
func retiredThere(path string, mine transport.Transcript, peer region.Descriptor) error {
	if path == "" {
		return errors.New("the destination retires first: give its transcript of that, or say that it never accepted or is gone")
	}
	theirs, err := transport.LoadTranscript(path, peer)
	if err != nil {
		return err
	}
	if theirs.Event != transport.Retired || theirs.Name != mine.Name || theirs.Role != hsm.RoleTransportDestination {
		return fmt.Errorf("%s: transcript of %s %s, want the destination's retirement of %s", filepath.Base(path), theirs.Name, theirs.Event, mine.Name)
	}
	return nil
}

// Orphans destroys transport keys of ours that no transcript names: what a ceremony left
// that was killed.
func (t Tool) Orphans(ctx context.Context) error {
	_, set, err := t.load()
	if err != nil {
		return err
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, o := range c.Objects() {
		if o.Spec.Role != hsm.RoleTransportSource && o.Spec.Role != hsm.RoleTransportDestination {
			continue
		}
		if slices.ContainsFunc(set.All(), func(k transport.Key) bool { return k.ID == o.ID }) {
			continue
		}
		if err := c.Destroy(ctx, o.ID); err != nil {
			return err
		}
		t.say("destroyed orphan %s of %s, class %s", o.ID, o.Spec.Name, o.Spec.Class)
	}
	return t.report(c)
}
