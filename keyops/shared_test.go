package keyops_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
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

func TestReplicateEveryKind(t *testing.T) {
	for name, make := range map[string]func(*testing.T) two{"fake": newTwo, "softhsm": newRealTwo} {
		t.Run(name, func(t *testing.T) {
			w := make(t)
			t.Run("symmetric", func(t *testing.T) { w.replicateSymmetric(t) })
			t.Run("mac", func(t *testing.T) { w.replicateMac(t) })
			t.Run("sign", func(t *testing.T) { w.replicateSign(t) })
		})
	}
}

func (w two) replicateSymmetric(t *testing.T) {
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.tell(t, k.KeyID, w.paris, w.tokyo)
	_, err := w.tokyo.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(k.KeyID), Plaintext: x})
	want(t, err, keyops.ErrInvalidState, "is creating.")
	before, unwrapped := calls(w.paris)["C_WrapKey"], calls(w.tokyo)["C_UnwrapKey"]
	objects := len(w.tokyo.Token.Objects())
	w.sync(t, k.KeyID)
	if n := calls(w.paris)["C_WrapKey"] - before; n != 1 {
		t.Errorf("%d C_WrapKey at the source, want 1", n)
	}
	if n := calls(w.tokyo)["C_UnwrapKey"] - unwrapped; n != 1 {
		t.Errorf("%d C_UnwrapKey at the destination, want 1", n)
	}
	if n := len(w.tokyo.Token.Objects()) - objects; n != 1 {
		t.Errorf("%d objects more in the destination's token, want 1", n)
	}
	there, err := w.tokyo.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: string(k.KeyID)})
	if err != nil {
		t.Fatal(explain(err))
	}
	here, err := w.paris.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: string(k.KeyID)})
	if err != nil {
		t.Fatal(explain(err))
	}
	if md := there.KeyMetadata; md.KeyState != "Enabled" || md.CurrentKeyMaterialID != k.CurrentKeyMaterialID ||
		md.Exportability != keyops.ExportTransportOnly || md.Description != "replica" {
		t.Errorf("replica %+v", md)
	}
	conf := *here.KeyMetadata.MultiRegionConfiguration
	if len(conf.ReplicaKeys) != 1 || conf.MultiRegionKeyType != keyops.Primary {
		t.Errorf("primary key's view %+v", conf)
	}
	conf.MultiRegionKeyType = keyops.Replica
	if diff := cmp.Diff(conf, *there.KeyMetadata.MultiRegionConfiguration); diff != "" {
		t.Errorf("the Regions see different sets:\n%s", diff)
	}
	for _, pair := range [][2]*keyopstest.Region{{w.paris, w.tokyo}, {w.tokyo, w.paris}} {
		enc, err := pair[0].Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(k.KeyID), Plaintext: []byte("over there"), EncryptionContext: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(explain(err))
		}
		pair[1].Restart(t)
		dec, err := pair[1].Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob, EncryptionContext: map[string]string{"a": "b"}})
		if err != nil || string(dec.Plaintext) != "over there" {
			t.Errorf("decrypting elsewhere: %q, %v", dec.Plaintext, explain(err))
		}
		if dec.KeyID != "arn:aws:kms:"+string(pair[1].Options.Name)+":111122223333:key/"+string(k.KeyID) {
			t.Errorf("answered by %s", dec.KeyID)
		}
	}
	// A foreign Region's ARN is refused, never forwarded.
	_, err = w.tokyo.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	want(t, err, keyops.ErrNotFound, "Invalid arn eu-paris-1")
}

func calls(r *keyopstest.Region) map[string]uint64 {
	return r.Token.(interface{ Calls() map[string]uint64 }).Calls()
}

func (w two) replicateMac(t *testing.T) {
	k := w.replicate(t, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac})
	w.sync(t, k.KeyID)
	in := keyops.GenerateMacInput{KeyID: string(k.KeyID), Message: x, MacAlgorithm: keyops.AlgorithmHMACSHA256}
	a, err := w.paris.GenerateMac(t.Context(), admin(), in)
	if err != nil {
		t.Fatal(explain(err))
	}
	b, err := w.tokyo.GenerateMac(t.Context(), admin(), in)
	if err != nil || !bytes.Equal(a.Mac, b.Mac) {
		t.Errorf("MACs differ between Regions: %x, %x, %v", a.Mac, b.Mac, explain(err))
	}
}

func (w two) replicateSign(t *testing.T) {
	k := w.replicate(t, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify})
	w.sync(t, k.KeyID)
	sig, err := w.tokyo.Sign(t.Context(), admin(), keyops.SignInput{KeyID: string(k.KeyID), Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
	if err != nil {
		t.Fatal(explain(err))
	}
	if _, err := w.paris.Verify(t.Context(), admin(), keyops.VerifyInput{KeyID: k.ARN, Message: x, Signature: sig.Signature, SigningAlgorithm: keyops.AlgorithmECDSASHA256}); err != nil {
		t.Error(explain(err))
	}
	a, err := w.paris.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: string(k.KeyID)})
	if err != nil {
		t.Fatal(explain(err))
	}
	b, err := w.tokyo.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: string(k.KeyID)})
	if err != nil || !bytes.Equal(a.PublicKey, b.PublicKey) {
		t.Errorf("public keys differ: %v", explain(err))
	}
	openssl(t, b.PublicKey, x, sig.Signature)
}

func TestReplicateKeyRefusals(t *testing.T) {
	w := newTwo(t)
	single := create(t, w.paris, keyops.CreateKeyInput{})
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	disabled := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	if _, err := w.paris.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: disabled.ARN}); err != nil {
		t.Fatal(err)
	}
	fresh := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	replicate := func(r *keyopstest.Region, id arn.KeyID, to string) error {
		return second(r.ReplicateKey(t.Context(), admin(), keyops.ReplicateKeyInput{KeyID: string(id), ReplicaRegion: to}))
	}
	want(t, replicate(w.paris, single.KeyID, "ap-tokyo-1"), keyops.ErrUnsupportedOperation, single.ARN+" is not a multi-region primary key.")
	want(t, replicate(w.tokyo, k.KeyID, "eu-paris-1"), keyops.ErrUnsupportedOperation, "is not a multi-region primary key. The primary key is in Region eu-paris-1.")
	want(t, replicate(w.paris, k.KeyID, "ap-tokyo-1"), keyops.ErrAlreadyExists, "")
	want(t, replicate(w.paris, k.KeyID, "eu-paris-1"), keyops.ErrAlreadyExists, "")
	want(t, replicate(w.paris, k.KeyID, "us-east-1"), keyops.ErrInvalidArn, "Region us-east-1 is not known here.")
	want(t, replicate(w.paris, k.KeyID, "Moon"), keyops.ErrValidation, "'replicaRegion'")
	want(t, replicate(w.paris, disabled.KeyID, "ap-tokyo-1"), keyops.ErrDisabled, "is disabled.")

	w.tokyo.Options.KeyQuota = 1
	w.tokyo.Restart(t)
	want(t, replicate(w.paris, fresh.KeyID, "ap-tokyo-1"), keyops.ErrLimitExceeded, "Region ap-tokyo-1 refuses the replica: ")
	w.tokyo.Options.KeyQuota = 0
	w.tokyo.Options.Identities = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/other"},"Action":"kms:*","Resource":"*"}]}`
	w.tokyo.Restart(t)
	want(t, replicate(w.paris, fresh.KeyID, "ap-tokyo-1"), keyops.ErrAccessDenied, "Region ap-tokyo-1 refuses the replica: ")

	// In the dark the call is accepted, once, and the mark says who has to hear of it.
	w.net.SetDark("ap-tokyo-1", true)
	if err := replicate(w.paris, fresh.KeyID, "ap-tokyo-1"); err != nil {
		t.Fatal(explain(err))
	}
	want(t, replicate(w.paris, fresh.KeyID, "ap-tokyo-1"), keyops.ErrAlreadyExists, "")
	if m, ok := w.paris.Mark(fresh.KeyID, "ap-tokyo-1"); !ok || m.Since.IsZero() {
		t.Errorf("mark %+v, %v", m, ok)
	}
}

// TestInstallRefusals: what no state lists, is addressed elsewhere, or is another material
// than it says, leaves nothing behind in the token.
func TestInstallRefusals(t *testing.T) {
	w := newTwo(t)
	a, b := w.replicate(t, keyops.CreateKeyInput{}), w.replicate(t, keyops.CreateKeyInput{})
	for _, k := range []keyops.KeyMetadata{a, b} {
		w.tell(t, k.KeyID, w.paris, w.tokyo)
		w.tell(t, k.KeyID, w.tokyo, w.paris)
	}
	wrap := func(k keyops.KeyMetadata) mrk.Blob {
		id, err := material.Parse(k.CurrentKeyMaterialID)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := w.paris.WrapMaterial(t.Context(), k.KeyID, id, w.tokyo.Descriptor.Descriptor)
		if err != nil {
			t.Fatal(explain(err))
		}
		return blob
	}
	good, other := wrap(a), wrap(b)
	objects := len(w.tokyo.Fake.Objects())
	for _, tc := range []struct {
		name   string
		change func(*mrk.Blob)
		want   error
	}{
		{"another key's material", func(m *mrk.Blob) { m.Wrapped = other.Wrapped }, keyops.ErrMaterialMismatch},
		{"a material that no state lists", func(m *mrk.Blob) { m.Material[0] ^= 1 }, mrk.ErrUnlisted},
		{"another destination", func(m *mrk.Blob) { m.Destination = "us-east-1" }, mrk.ErrForeign},
		{"another instance", func(m *mrk.Blob) { m.ToInstance = "kfi-000000000000" }, mrk.ErrForeign},
		{"another incarnation", func(m *mrk.Blob) { m.Incarnation++ }, mrk.ErrForeign},
		{"another transport epoch", func(m *mrk.Blob) { m.Epoch = 2 }, keyops.ErrNoTransportKey},
		{"another class", func(m *mrk.Blob) { m.Class = "mac" }, keyops.ErrMaterialMismatch},
		{"another algorithm", func(m *mrk.Blob) { m.Algorithm = "AES_CBC" }, keyops.ErrMaterialMismatch},
		{"a changed blob", func(m *mrk.Blob) { m.Wrapped = bytes.Clone(m.Wrapped); m.Wrapped[0] ^= 1 }, keyops.ErrMaterialMismatch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			blob := good
			tc.change(&blob)
			err := w.tokyo.InstallMaterial(t.Context(), a.KeyID, blob)
			if !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if n := len(w.tokyo.Fake.Objects()); n != objects {
				t.Errorf("%d objects in the token, want %d", n, objects)
			}
		})
	}
	for range 2 { // the second delivery is none
		if err := w.tokyo.InstallMaterial(t.Context(), a.KeyID, good); err != nil {
			t.Fatal(explain(err))
		}
	}
	if n := len(w.tokyo.Fake.Objects()); n != objects+1 {
		t.Errorf("%d objects in the token, want %d", n, objects+1)
	}
	// The other direction has no business there.
	if _, err := w.tokyo.WrapMaterial(t.Context(), b.KeyID, other.Material, w.paris.Descriptor.Descriptor); !errors.Is(err, keyops.ErrNotHeld) {
		t.Errorf("wrapping what is not held: %v", err)
	}
	alone := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	id, err := material.Parse(alone.CurrentKeyMaterialID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.paris.WrapMaterial(t.Context(), alone.KeyID, id, w.tokyo.Descriptor.Descriptor); !errors.Is(err, mrk.ErrNotMember) {
		t.Errorf("wrapping for a Region that is no member: %v", err)
	}
	unknown := w.tokyo.Descriptor.Descriptor
	unknown.Instance = "kfi-000000000000"
	if _, err := w.paris.WrapMaterial(t.Context(), a.KeyID, good.Material, unknown); !errors.Is(err, keyops.ErrNoTransportKey) {
		t.Errorf("wrapping for an unknown instance: %v", err)
	}
}

func TestAdmitReplicaBoundsTheClaim(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	key, err := w.paris.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := key.Set.Request("ap-tokyo-1")
	set, err := mrk.Join(mrk.Self{Region: "ap-tokyo-1", Instance: w.tokyo.Descriptor.Instance}, w.net, key.Set.Facts(mrk.Hash{}), req)
	if err != nil {
		t.Fatal(err)
	}
	good := claimOf(t, key, req)
	for _, tc := range []struct {
		name   string
		change func(*keyops.ReplicaClaim)
		want   error
	}{
		{"account not served", func(c *keyops.ReplicaClaim) { c.Account = "999999999999" }, keyops.ErrAccessDenied},
		{"principal of another account", func(c *keyops.ReplicaClaim) { c.Principal.Account = "999999999999" }, keyops.ErrAccessDenied},
		{"principal without permission", func(c *keyops.ReplicaClaim) { c.Principal.Name = "user/mallory" }, keyops.ErrAccessDenied},
		{"another key", func(c *keyops.ReplicaClaim) { c.Key = arn.NewKeyID(true) }, mrk.ErrRequest},
		{"single-Region key", func(c *keyops.ReplicaClaim) { c.Key = arn.NewKeyID(false) }, keyops.ErrUnsupportedOperation},
		{"another usage", func(c *keyops.ReplicaClaim) { c.Usage = keyops.SignVerify }, keyops.ErrValidation},
		{"another spec", func(c *keyops.ReplicaClaim) { c.Spec, c.Usage = keyops.HMAC256, keyops.GenerateVerifyMac }, mrk.ErrRequest},
		{"malformed policy", func(c *keyops.ReplicaClaim) { c.Policy = []byte("{") }, keyops.ErrMalformedPolicyDocument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			claim := good
			tc.change(&claim)
			if err := w.tokyo.AdmitReplica(t.Context(), claim, set); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
	elsewhere, err := mrk.Join(mrk.Self{Region: "ap-tokyo-1", Instance: w.tokyo.Descriptor.Instance}, w.net, key.Set.Facts(mrk.Hash{}), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.paris.AdmitReplica(t.Context(), good, elsewhere); err == nil {
		t.Error("the primary key's Region admits a replica")
	}
	if err := w.tokyo.AdmitReplica(t.Context(), good, key.Set); !errors.Is(err, mrk.ErrForeign) {
		t.Errorf("admitted with another Region's set: %v", err)
	}
	if len(w.tokyo.SharedKeys()) != 0 {
		t.Error("a refused replica exists")
	}
	if err := w.tokyo.AdmitReplica(t.Context(), good, set); err != nil {
		t.Fatal(explain(err))
	}
	if err := w.tokyo.AdmitReplica(t.Context(), good, set); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("admitted twice: %v", err)
	}
	w.tokyo.Restart(t)
	if ids := w.tokyo.SharedKeys(); len(ids) != 1 || ids[0] != k.KeyID {
		t.Errorf("shared keys after a restart: %v", ids)
	}
}

func TestMarksAreDurable(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	select {
	case <-w.paris.Changed():
	default:
		t.Error("nobody was told of the change")
	}
	w.paris.Restart(t)
	marks := w.paris.Marks()
	if len(marks) != 1 || marks[0].Key != k.KeyID || marks[0].Peer != "ap-tokyo-1" || marks[0].Attempts != 0 {
		t.Fatalf("marks %+v", marks)
	}
	key, err := w.paris.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if marks[0].SetHash != key.Set.Hash() {
		t.Error("the mark is not about the newest facts")
	}
	failed := marks[0]
	failed.Attempts, failed.Cause, failed.Text, failed.NextTry = 3, mrk.CausePeerUnreachable, "no answer", time.Now().UTC()
	if err := w.paris.SaveMark(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	w.paris.Restart(t)
	if diff := cmp.Diff([]keyops.Mark{failed}, w.paris.Marks()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	// What the peer confirms is not the newest any more.
	if _, err := w.paris.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	if err := w.paris.ClearMark(t.Context(), k.KeyID, "ap-tokyo-1", failed.SetHash); err != nil {
		t.Fatal(err)
	}
	m, ok := w.paris.Mark(k.KeyID, "ap-tokyo-1")
	if !ok || m.SetHash == failed.SetHash || m.Attempts != 3 || !m.Since.Equal(failed.Since) {
		t.Errorf("mark %+v, %v", m, ok)
	}
	if err := w.paris.ClearMark(t.Context(), k.KeyID, "ap-tokyo-1", m.SetHash); err != nil {
		t.Fatal(err)
	}
	if err := w.paris.SaveMark(t.Context(), m); err != nil { // a late failure brings nothing back
		t.Fatal(err)
	}
	w.paris.Restart(t)
	if marks := w.paris.Marks(); len(marks) != 0 {
		t.Errorf("cleared marks are back: %+v", marks)
	}
}

func TestUpdateSharedAppliesNothingOnError(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	before, err := w.paris.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	head := w.paris.StoreHead()
	wrong := errors.New("wrong")
	err = w.paris.UpdateShared(t.Context(), k.KeyID, cause, func(c *keyops.Key) error {
		c.Description = "changed"
		c.Set.DropPermit()
		return wrong
	})
	if !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
	err = w.paris.UpdateShared(t.Context(), k.KeyID, cause, func(c *keyops.Key) error { return keyops.ErrUnchanged })
	if err != nil {
		t.Error(err)
	}
	after, _ := w.paris.SharedKey(k.KeyID)
	if after != before || w.paris.StoreHead() != head || !after.Set.Acting() {
		t.Error("an update that failed left something behind")
	}
	if err := w.paris.UpdateShared(t.Context(), arn.NewKeyID(true), cause, func(*keyops.Key) error { return nil }); !errors.Is(err, keyops.ErrNotFound) {
		t.Errorf("unknown key: %v", err)
	}
}

// TestCE21MaterialThatIsNotHere: what the key lists may still come, so the caller is told to
// try again; what nobody lists is no ciphertext, where that can be known.
func TestCE21MaterialThatIsNotHere(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	enc, err := w.paris.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x})
	if err != nil {
		t.Fatal(err)
	}
	key, err := w.tokyo.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	_, reserved := w.tokyo.Encryptions(k.KeyID)
	// The token of the replica loses its object.
	if err := w.tokyo.Fake.Destroy(t.Context(), key.Materials[0].Object); err != nil {
		t.Fatal(err)
	}
	decrypt := func(r *keyopstest.Region, blob []byte) error {
		return second(r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: blob}))
	}
	want(t, decrypt(w.tokyo, enc.CiphertextBlob), keyops.ErrKeyUnavailable, "")
	w.tokyo.Restart(t)
	if lost := w.tokyo.Reconciliation().Lost; len(lost) != 1 {
		t.Errorf("lost: %v", lost)
	}
	want(t, decrypt(w.tokyo, enc.CiphertextBlob), keyops.ErrKeyUnavailable, "can be repeated")
	unknown := bytes.Clone(enc.CiphertextBlob)
	unknown[20] ^= 1
	want(t, decrypt(w.paris, unknown), keyops.ErrInvalidCiphertext, "")
	want(t, decrypt(w.tokyo, unknown), keyops.ErrKeyUnavailable, "") // never in contact
	w.net.SetContact("eu-paris-1", time.Now().Add(-61*time.Second))
	want(t, decrypt(w.tokyo, unknown), keyops.ErrKeyUnavailable, "") // not lately
	w.net.SetContact("eu-paris-1", time.Now())
	want(t, decrypt(w.tokyo, unknown), keyops.ErrInvalidCiphertext, "")

	// The peer hears of it and sends the material again.
	w.tell(t, k.KeyID, w.tokyo, w.paris)
	w.sync(t, k.KeyID)
	if err := decrypt(w.tokyo, enc.CiphertextBlob); err != nil {
		t.Error(explain(err))
	}
	if n, _ := w.tokyo.Encryptions(k.KeyID); n < reserved {
		t.Errorf("the count of encryptions went back to %d from up to %d", n, reserved)
	}
}
