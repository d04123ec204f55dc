package replication_test

import (
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// meet establishes transport keys in both directions between a new instance and others.
func meet(t *testing.T, newcomer *site, others ...*site) {
	t.Helper()
	for _, o := range others {
		for _, pair := range [][2]*keyopstest.Region{{newcomer.region, o.region}, {o.region, newcomer.region}} {
			name := keyopstest.SetName(pair[0], pair[1], 1)
			made := hsmtest.Establish(pair[0].Fake, pair[1].Fake, name.String())
			if err := keyopstest.Transcribe(t.Context(), pair[0], pair[1], name, made); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A Region whose keys were made elsewhere is initialised again. Who was dark meanwhile, who is
// new, and that Region itself learn what the instance before has signed, once operators have
// said that it is history.
func TestInitialisedAgain(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	old, b, c := sites[0], sites[1], sites[2]
	id := old.createSymmetric()
	old.mustReplicate(id, b, c)
	old.synchronized(id, b, c)
	sealed, err := old.region.Encrypt(t.Context(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("payroll")})
	if err != nil {
		t.Fatal(err)
	}
	c.stop()
	if err := old.promote(id, east); err != nil {
		t.Fatal(err)
	}
	b.primaryAt(id, b)
	old.stop()
	b.stop()

	again := newSite(t, keyopstest.New(t, keyopstest.Options{Name: paris}))
	lima := newSite(t, keyopstest.New(t, keyopstest.Options{Name: "sa-lima-1"}))
	meet(t, again, b, c)
	meet(t, lima, again, b, c)
	all := []*site{again, b, c, lima}
	for _, s := range all {
		s.all = all
		if s == c {
			continue
		}
		s.config = func(cfg *replication.Config) { cfg.Former = []region.Descriptor{old.region.Descriptor.Descriptor} }
		s.start()
	}
	c.start()
	eventually(t, "who does not know the instance does not believe it", func() (bool, string) {
		row := b.status(id, c)
		return row.Status == replication.StatusFailed && row.Cause != "", row.Text
	})
	if k, err := c.region.SharedKey(id); err != nil || k.Set.Primary() != paris {
		t.Fatalf("it follows %s, %v", k.Set.Primary(), err)
	}
	c.stop()
	c.config = again.config
	c.start()
	if _, err := b.region.EvictReplica(t.Context(), keyopstest.Admin(), keyops.EvictReplicaInput{KeyID: string(id), ReplicaRegion: string(paris)}); err != nil {
		t.Fatal(err)
	}
	b.mustReplicate(id, again, lima)
	b.synchronized(id, all...)
	for _, s := range all {
		out, err := s.region.Decrypt(t.Context(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
		if err != nil || string(out.Plaintext) != "payroll" {
			t.Errorf("%s: %q, %v", s.name(), out.Plaintext, err)
		}
		encryptHereDecryptThere(t, id, s, b)
	}
}

// An instance that is no more is nobody's peer, and no peer is an instance that is no more.
func TestFormerInstanceIsNoPeer(t *testing.T) {
	sites := prepare(t, paris, east)
	for name, former := range map[string]region.Descriptor{
		"a peer": sites[1].region.Descriptor.Descriptor, "this Region": sites[0].region.Descriptor.Descriptor, "nobody": {},
	} {
		cfg := replication.Config{Self: sites[0].region.Descriptor.Descriptor, Peers: sites[0].peers(), Log: sites[0].log, Former: []region.Descriptor{former}}
		if _, err := replication.New(cfg); err == nil {
			t.Errorf("%s is taken for an instance that is no more", name)
		}
	}
}
