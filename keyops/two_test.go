package keyops_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// two is two Regions that know each other, and what package replication does between them,
// by direct calls.
type two struct {
	net          *keyopstest.Network
	paris, tokyo *keyopstest.Region
}

func newTwo(t *testing.T) two {
	net := keyopstest.NewNetwork()
	w := two{
		net:   net,
		paris: keyopstest.New(t, keyopstest.Options{Name: "eu-paris-1", Peers: net}),
		tokyo: keyopstest.New(t, keyopstest.Options{Name: "ap-tokyo-1", Peers: net}),
	}
	net.Add(w.paris, w.tokyo)
	keyopstest.Connect(t, w.paris, w.tokyo)
	return w
}

// newRealTwo is the same on two SoftHSM tokens.
func newRealTwo(t *testing.T) two {
	net := keyopstest.NewNetwork()
	w := two{
		net:   net,
		paris: newReal(t, paris, keyopstest.Options{Peers: net}),
		tokyo: newReal(t, tokyo, keyopstest.Options{Peers: net}),
	}
	if a, b := w.paris.Token.Info().Serial, w.tokyo.Token.Info().Serial; a == b {
		t.Fatalf("both tokens have serial %s", a)
	}
	net.Add(w.paris, w.tokyo)
	for _, pair := range [][2]*keyopstest.Region{{w.paris, w.tokyo}, {w.tokyo, w.paris}} {
		name := keyopstest.SetName(pair[0], pair[1], 1)
		if err := keyopstest.Transcribe(t.Context(), pair[0], pair[1], name, established[name]); err != nil {
			t.Fatal(err)
		}
	}
	w.paris.Restart(t)
	w.tokyo.Restart(t)
	return w
}

var cause = keyops.Cause{Event: "SynchronizeMultiRegionKey", Peer: "test", CorrelationID: "c-1"}

// claimOf is what the destination reads in a create request.
func claimOf(t *testing.T, k *keyops.Key, req mrk.CreateRequest) keyops.ReplicaClaim {
	t.Helper()
	p, err := arn.ParsePrincipal(req.Principal)
	if err != nil {
		t.Fatal(err)
	}
	claim := keyops.ReplicaClaim{
		Source: req.Source, Key: k.ID, Account: k.Account, Principal: p, Spec: k.Spec, Usage: k.Usage, Origin: k.Origin,
		Policy: req.Policy, Description: req.Description, CorrelationID: req.CorrelationID,
	}
	for _, tag := range req.Tags {
		claim.Tags = append(claim.Tags, keyops.Tag(tag))
	}
	return claim
}

// tell brings the facts of one Region to another, and what it owes of materials.
func (w two) tell(t *testing.T, id arn.KeyID, from, to *keyopstest.Region) {
	t.Helper()
	ctx := context.Background()
	k, err := from.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	self := mrk.Self{Region: to.Options.Name, Instance: to.Descriptor.Instance}
	if _, err := to.SharedKey(id); errors.Is(err, keyops.ErrNotFound) {
		req, ok := k.Set.Request(to.Options.Name)
		if !ok {
			t.Fatalf("no create request for %s", to.Options.Name)
		}
		set, err := mrk.Join(self, w.net, k.Set.Facts(mrk.Hash{}), req)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.AdmitReplica(ctx, claimOf(t, k, req), set); err != nil {
			t.Fatal(explain(err))
		}
	}
	contact := mrk.Contact{
		Regions: []region.Name{w.paris.Options.Name, w.tokyo.Options.Name},
		Heard:   func(region.Name) bool { return true },
		Nonce:   func() (mrk.Nonce, error) { return mrk.Nonce{1}, nil },
		Now:     func() int64 { return time.Now().Unix() },
	}
	err = to.UpdateShared(ctx, id, cause, func(c *keyops.Key) error {
		res, err := c.Set.Merge(w.net, k.Set.Facts(c.Set.Head()))
		if err != nil || len(res.Refused) > 0 {
			return errors.Join(err, errors.New("facts refused"))
		}
		stepped, _, err := c.Set.Step(ctx, to.Service.Signer(), contact)
		if err == nil && !res.Changed && !stepped {
			return keyops.ErrUnchanged
		}
		return err
	})
	if err != nil {
		t.Fatal(explain(err))
	}
}

// send brings the materials that one Region owes another.
func (w two) send(t *testing.T, id arn.KeyID, from, to *keyopstest.Region) {
	t.Helper()
	k, err := from.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range k.Set.Owes(to.Options.Name) {
		blob, err := from.WrapMaterial(context.Background(), id, m, to.Descriptor.Descriptor)
		if err != nil {
			t.Fatal(explain(err))
		}
		if err := to.InstallMaterial(context.Background(), id, blob); err != nil {
			t.Fatal(explain(err))
		}
	}
}

// sync exchanges everything, until a replica is Enabled and known to be.
func (w two) sync(t *testing.T, id arn.KeyID) {
	t.Helper()
	for range 3 {
		w.tell(t, id, w.paris, w.tokyo)
		w.tell(t, id, w.tokyo, w.paris)
		w.send(t, id, w.paris, w.tokyo)
	}
}

func (w two) replicate(t *testing.T, in keyops.CreateKeyInput) keyops.KeyMetadata {
	t.Helper()
	in.MultiRegion = true
	k := create(t, w.paris, in)
	out, err := w.paris.ReplicateKey(t.Context(), admin(), keyops.ReplicateKeyInput{
		KeyID: k.ARN, ReplicaRegion: "ap-tokyo-1", Description: "replica", Tags: []keyops.Tag{{Key: "a", Value: "b"}},
	})
	if err != nil {
		t.Fatal(explain(err))
	}
	md := out.ReplicaKeyMetadata
	if md.KeyID != k.KeyID || md.KeyState != "Creating" || md.Enabled || md.Description != "replica" || md.CurrentKeyMaterialID != "" ||
		md.ARN != "arn:aws:kms:ap-tokyo-1:111122223333:key/"+string(k.KeyID) || md.MultiRegionConfiguration.MultiRegionKeyType != keyops.Replica {
		t.Errorf("replica's metadata %+v", md)
	}
	return k
}
