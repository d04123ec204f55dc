package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cmd/internal/operator"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/transport"
)

// poll is how often a waiting accept looks for a file.
const poll = 100 * time.Millisecond

// AcceptOptions says what a destination accepts.
type AcceptOptions struct {
	From region.Name // the source; its descriptor must be pinned
	// Offer is where the approved offer is written. Before that it is at Offer.draft, and
	// what operators approve of it at Offer.request; their approvals are expected at
	// Offer.approval-*.
	Offer string
	// Package is where the source's answer will appear.
	Package string
	// Operators are keys of operators who approve in this process.
	Operators []operator.Key
	// Expiry is how long the offer lives, at most a day; 0 means an hour.
	Expiry time.Duration
	// Epoch is the least epoch to use: the source refuses one that it has used in a ceremony
	// that this side did not finish.
	Epoch uint64
}

// Accept runs the destination's side as one process, because the establishment key exists
// in it only: once the process has ended, nobody opens the package, not even with the PIN.
func (t Tool) Accept(ctx context.Context, opt AcceptOptions) error {
	if opt.Expiry == 0 {
		opt.Expiry = DefaultExpiry
	}
	if opt.Expiry < time.Second || opt.Expiry > maxExpiry {
		return fmt.Errorf("expiry of %s: want at most %s", opt.Expiry, maxExpiry)
	}
	own, set, err := t.load()
	if err != nil {
		return err
	}
	source, err := t.Dir.LoadPeer(opt.From)
	if err != nil {
		return err
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := compare(c, set); err != nil {
		return err
	}
	now := t.Now().Truncate(time.Second).UTC()
	o := Offer{
		Source: source, Destination: own, Classes: hsm.Classes, Created: now, Expires: now.Add(opt.Expiry), OAEP: t.Token.Profile.OAEP,
		Epoch: max(opt.Epoch, set.NextEpoch(transport.EndOf(source.Descriptor), transport.EndOf(own.Descriptor))),
	}
	if o.Establishment, err = c.NewEstablishment(o.Name().String()); err != nil {
		return fmt.Errorf("making establishment key: %w", err)
	}
	t.say("transport keys %s\nestablishment key, in this process only, fingerprint %s", o.Name(), statement.Fingerprint(o.Establishment))
	sgn, err := signer(c, own.Descriptor)
	if err != nil {
		return err
	}
	signed, err := statement.Sign(ctx, sgn, statement.CeremonyOffer, o.payload())
	if err != nil {
		return err
	}
	if err := own.Verify(signed); err != nil {
		return err
	}
	ctx, cancel := context.WithDeadlineCause(ctx, o.Expires, fmt.Errorf("offer expired at %s", o.Expires.Format(time.RFC3339)))
	defer cancel()
	if err := t.publish(ctx, opt, o, signed); err != nil {
		return err
	}
	t.say("waiting for %s until %s", opt.Package, o.Expires.Format(time.RFC3339))
	var f statement.File
	if err := await(ctx, func() (bool, error) { return read(opt.Package, &f) }); err != nil {
		return fmt.Errorf("waiting for package: %w", err)
	}
	return t.take(ctx, c, o, signed, sgn, f)
}

// publish collects approvals and writes the offer.
func (t Tool) publish(ctx context.Context, opt AcceptOptions, o Offer, signed statement.Signed) error {
	pub, err := o.Destination.PublicKey()
	if err != nil {
		return err
	}
	roster, changes, err := t.Dir.LoadRosters(o.Destination.Descriptor)
	if err != nil {
		return err
	}
	f, request := OfferFile{Rosters: changes, Approvals: []statement.File{}}, requestOf(o, signed, roster.Version)
	if f.Offer, err = statement.NewFile(signed, pub); err != nil {
		return err
	}
	if err := statement.WriteJSON(opt.Offer+".draft", f); err != nil {
		return err
	}
	if err := statement.WriteJSON(opt.Offer+".request", request); err != nil {
		return err
	}
	t.say("draft of the offer %s\noffer fingerprint %s", opt.Offer+".draft", fingerprint(signed))
	for _, k := range opt.Operators {
		a, err := k.Approve(ctx, request)
		if err != nil {
			return err
		}
		f.Approvals = append(f.Approvals, a)
	}
	own := len(f.Approvals)
	said := ""
	err = await(ctx, func() (bool, error) {
		arrived, bad, err := approvals(opt.Offer + ".approval-")
		if err != nil {
			return false, err
		}
		f.Approvals = append(f.Approvals[:own], arrived...)
		missing := roster.Check(request, t.Now(), f.Approvals)
		if missing == nil {
			return true, nil
		}
		if missing = errors.Join(missing, bad); missing.Error() != said {
			said = missing.Error()
			t.say("waiting for approvals at %s.approval-*: %s", opt.Offer, said)
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for approvals: %w", err)
	}
	if err := statement.WriteJSON(opt.Offer, f); err != nil {
		return err
	}
	t.say("offer %s, approved; read its fingerprint out to the source:\n%s", opt.Offer, fingerprint(signed))
	return nil
}

var errNoApproval = errors.New("not an approval")

// approvals reads the files whose paths begin with prefix. What is no approval is reported in
// bad and does not end the ceremony, or anybody who can write there could.
func approvals(prefix string) (arrived []statement.File, bad, err error) {
	entries, err := os.ReadDir(filepath.Dir(prefix))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(prefix)) || strings.HasSuffix(e.Name(), statement.PartSuffix) {
			continue
		}
		var a statement.File
		ok, err := read(filepath.Join(filepath.Dir(prefix), e.Name()), &a)
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("%q: %w", e.Name(), errNoApproval)) // the cause would print the name as it is
		}
		if ok {
			arrived = append(arrived, a)
		}
	}
	return arrived, bad, nil
}

// take opens the package's keys, proves them and writes the transcript, or leaves nothing.
func (t Tool) take(ctx context.Context, c *hsm.Ceremony, o Offer, signed statement.Signed, sgn statement.Signer, f statement.File) (err error) {
	p, answer, err := openPackage(f, o.Source.Descriptor, signed, o.Classes)
	if err != nil {
		return err
	}
	tr := transport.Transcript{
		Event: transport.Established, Name: o.Name(), Role: hsm.RoleTransportDestination, TokenSerial: c.Info().Serial,
		Offer: signed.Hash(), Package: answer.Hash(), Peer: o.Source, At: t.Now().Truncate(time.Second).UTC(),
	}
	var ids []hsm.ID
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(ctx, c, ids))
		}
	}()
	for _, k := range p.Keys {
		key := transport.Key{Name: tr.Name, Role: tr.Role, Class: k.Class, ID: hsm.NewID()}
		ids = append(ids, key.ID)
		if err := c.OpenTransport(ctx, key.Spec(), key.ID, k.Wrapped); err != nil {
			return err
		}
		if err := c.CheckProof(k.Class, key.ID, k.Proof); err != nil {
			return err
		}
		t.say("transport key of class %s, object %s, proven", k.Class, key.ID)
		tr.Keys = append(tr.Keys, key)
	}
	if err := t.record(ctx, tr, o.Destination.Descriptor, sgn); err != nil {
		return err
	}
	ids = nil // the transcript owns them now
	return t.report(c)
}

// record writes a transcript.
func (t Tool) record(ctx context.Context, tr transport.Transcript, own region.Descriptor, sgn statement.Signer) error {
	f, err := tr.Sign(ctx, own, sgn)
	if err != nil {
		return err
	}
	path := filepath.Join(t.Dir.Transcripts(), tr.File())
	if err := statement.WriteJSON(path, f); err != nil {
		return err
	}
	t.say("transcript %s", path)
	return nil
}

// read reads a file that may not be there yet, or not all of it: people carry files with
// tools that write them piece by piece.
func read(path string, v any) (bool, error) {
	err := statement.ReadJSON(path, v)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return err == nil, err
}

// await calls ready until it is true, fails or ctx ends.
func await(ctx context.Context, ready func() (bool, error)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Approve makes one operator's approval of a draft, after the operator agreed to its
// fingerprint, and writes it to out.
func (t Tool) Approve(ctx context.Context, draft, out string, key operator.Key, agree Agree) error {
	var f OfferFile
	if err := statement.ReadJSON(draft, &f); err != nil {
		return err
	}
	signed, err := f.Offer.Signed(statement.CeremonyOffer)
	if err != nil {
		return err
	}
	o, err := parseOffer(signed.Payload)
	if err != nil {
		return err
	}
	if err := o.Destination.Verify(signed); err != nil {
		return err
	}
	fp, err := statement.KeyFingerprint(key.Public())
	if err != nil {
		return err
	}
	roster, err := f.roster(o.Destination.Descriptor)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(roster.Operators, func(op approval.Operator) bool { return statement.Fingerprint(op.Key) == fp }) {
		return fmt.Errorf("key %s is no operator's of Region %s", fp, o.Destination.Region)
	}
	t.say("offer of transport keys %s, expires %s", o.Name(), o.Expires.Format(time.RFC3339))
	if err := agree("offer", fingerprint(signed)); err != nil {
		return err
	}
	a, err := key.Approve(ctx, requestOf(o, signed, roster.Version))
	if err != nil {
		return err
	}
	if err := statement.WriteJSON(out, a); err != nil {
		return err
	}
	t.say("approval %s", out)
	return nil
}
