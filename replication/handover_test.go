package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

func (s *site) promote(id arn.KeyID, to region.Name) error {
	_, err := s.region.UpdatePrimaryRegion(context.Background(), keyopstest.Admin(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(to)})
	return err
}

func (s *site) describe(id arn.KeyID) keyops.KeyMetadata {
	s.t.Helper()
	out, err := s.region.DescribeKey(context.Background(), keyopstest.Admin(), keyops.DescribeKeyInput{KeyID: string(id)})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.KeyMetadata
}

// led waits until every Region says that the primary key is in one of them, and enabled.
func led(t testing.TB, id arn.KeyID, by *site, sites ...*site) {
	t.Helper()
	eventually(t, "one primary key", func() (bool, string) {
		said := ""
		ok := true
		for _, s := range sites {
			m := s.describe(id)
			said += fmt.Sprintf("%s: %s, %s, primary in %s; ", s.name(), m.KeyState, m.MultiRegionConfiguration.MultiRegionKeyType, m.MultiRegionConfiguration.PrimaryKey.Region)
			ok = ok && m.Enabled && m.MultiRegionConfiguration.PrimaryKey.Region == by.name()
		}
		k, err := by.region.SharedKey(id)
		return ok && err == nil && k.Set.Acting(), said
	})
}

// busy encrypts in every Region and decrypts in the next one until stop is called, which
// returns how often that was done.
func busy(t testing.TB, id arn.KeyID, sites ...*site) (stop func() int64) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	var calls atomic.Int64
	for i, here := range sites {
		there := sites[(i+1)%len(sites)]
		done.Go(func() {
			for ctx.Err() == nil {
				sealed, err := here.region.Encrypt(context.Background(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("p")})
				if err != nil {
					t.Errorf("%s does not encrypt: %v", here.name(), err)
					return
				}
				out, err := there.region.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
				if err != nil || !bytes.Equal(out.Plaintext, []byte("p")) {
					t.Errorf("%s does not decrypt what %s encrypted: %v", there.name(), here.name(), err)
					return
				}
				calls.Add(2)
			}
		})
	}
	return func() int64 {
		cancel()
		done.Wait()
		return calls.Load()
	}
}

// The primary key goes round three Regions, with a rotation in each, while every Region
// encrypts and decrypts without one failure.
func TestHandOver(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1], sites[2])
	sites[0].synchronized(id, sites[1:]...)
	stop := busy(t, id, sites...)
	for i := range sites {
		from, to := sites[i], sites[(i+1)%len(sites)]
		if err := from.promote(id, to.name()); err != nil {
			t.Fatal(err)
		}
		led(t, id, to, sites...)
		before := to.describe(id).CurrentKeyMaterialID
		eventually(t, "a rotation by the new primary Region", func() (bool, string) {
			// The members prove themselves in the new epoch first.
			_, err := to.region.RotateKeyOnDemand(context.Background(), keyopstest.Admin(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
			return err == nil, fmt.Sprint(err)
		})
		eventually(t, "new material everywhere", func() (bool, string) {
			said, ok := "", true
			for _, s := range sites {
				now := s.describe(id).CurrentKeyMaterialID
				said += fmt.Sprintf("%s: %.8s; ", s.name(), now)
				ok = ok && now != before && now == to.describe(id).CurrentKeyMaterialID
			}
			return ok, said
		})
	}
	if n := stop(); n < 10 {
		t.Errorf("%d calls meanwhile", n)
	}
	for _, s := range sites {
		s.noAlarms()
	}
	for _, s := range sites[:2] { // both ends record it, under one correlation ID
		if n := bytes.Count(bytes.Join(auditBytes(t, s), nil), []byte(`"UpdatePrimaryRegion"`)); n < 2 {
			t.Errorf("%s has %d records of hand-overs", s.name(), n)
		}
	}
}

func auditBytes(t testing.TB, s *site) (lines [][]byte) {
	for _, l := range auditLines(t, s) {
		lines = append(lines, []byte(l))
	}
	return lines
}

func TestHandOverRefused(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	a.mustReplicate(id, b)
	a.synchronized(id, b)
	single, err := a.region.CreateKey(context.Background(), keyopstest.Admin(), keyops.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		at   *site
		key  arn.KeyID
		to   region.Name
		want error
	}{
		{"a single-Region key", a, single.KeyMetadata.KeyID, east, keyops.ErrUnsupportedOperation},
		{"a replica", b, id, tokyo, keyops.ErrUnsupportedOperation},
		{"to the primary Region itself", a, id, paris, keyops.ErrUnsupportedOperation},
		{"to a Region without a replica", a, id, tokyo, keyops.ErrNotFound},
		{"to a Region that nobody knows", a, id, "sa-lima-1", keyops.ErrNotFound},
		{"to no Region", a, id, "Paris", keyops.ErrValidation},
	} {
		if err := tc.at.promote(tc.key, tc.to); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	// Each Region's own policy decides about the key there.
	deny := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"kms:UpdatePrimaryRegion","Resource":"*"}]}`
	if _, err := b.region.PutKeyPolicy(context.Background(), keyopstest.Admin(), keyops.PutKeyPolicyInput{KeyID: string(id), Policy: deny}); err != nil {
		t.Fatal(err)
	}
	if err := a.promote(id, east); !errors.Is(err, keyops.ErrAccessDenied) {
		t.Errorf("denied at the other end: %v", err)
	}
	b.stop()
	if err := a.promote(id, east); !errors.Is(err, keyops.ErrDependencyTimeout) {
		t.Errorf("to a dark Region: %v", err)
	}
	if m := a.describe(id); !m.Enabled || m.MultiRegionConfiguration.MultiRegionKeyType != keyops.Primary {
		t.Errorf("after refusals the key is %s, %s", m.KeyState, m.MultiRegionConfiguration.MultiRegionKeyType)
	}
}

// careless answers every question of a peer with yes; what it is offered it decides as always.
type careless struct{ replication.Keys }

func (careless) CheckPrimary(context.Context, keyops.PrimaryClaim) error { return nil }

// A Region that changes its mind between the question and the offer refuses the offer, and
// its number is never used.
func TestOfferRefused(t *testing.T) {
	sites := prepare(t, paris, east)
	a, b := sites[0], sites[1]
	b.keys = func(k replication.Keys) replication.Keys { return careless{k} }
	a.start()
	b.start()
	id := a.createSymmetric()
	a.mustReplicate(id, b)
	a.synchronized(id, b)
	if _, err := b.region.DisableKey(context.Background(), keyopstest.Admin(), keyops.DisableKeyInput{KeyID: string(id)}); err != nil {
		t.Fatal(err)
	}
	k, err := a.region.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	before := k.Set.Epoch().Number
	if err := a.promote(id, east); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the primary key back where it was", func() (bool, string) {
		k, err := a.region.SharedKey(id)
		if err != nil {
			return false, err.Error()
		}
		m := a.describe(id)
		return m.Enabled && k.Set.Acting() && k.Set.Epoch().Number == before+2, fmt.Sprintf("%s in epoch %s", m.KeyState, k.Set.Epoch())
	})
	eventually(t, "another try", func() (bool, string) { // the members prove themselves in the new epoch first
		err := a.promote(id, east)
		return err == nil, fmt.Sprint(err)
	})
}

// Either end may die after the offer: it is decided when both are there again.
func TestHandOverSurvivesRestarts(t *testing.T) {
	for _, victim := range []int{0, 1} {
		t.Run([]string{"source", "destination"}[victim], func(t *testing.T) {
			sites := prepare(t, paris, east)
			a, b := sites[0], sites[1]
			gate := &held{open: make(chan struct{})}
			b.keys = func(k replication.Keys) replication.Keys { return gate.around(k) }
			a.start()
			b.start()
			id := a.createSymmetric()
			a.mustReplicate(id, b)
			a.synchronized(id, b)
			if err := a.promote(id, east); err != nil {
				t.Fatal(err)
			}
			if m := a.describe(id); m.KeyState != "Updating" {
				t.Errorf("the key is %s", m.KeyState)
			}
			if err := a.promote(id, east); !errors.Is(err, keyops.ErrInvalidState) {
				t.Errorf("a second hand-over: %v", err)
			}
			close(gate.open)
			sites[victim].restart()
			led(t, id, b, a, b)
		})
	}
}

// held keeps offers undecided until it is opened.
type held struct{ open chan struct{} }

type heldKeys struct {
	replication.Keys
	gate *held
}

func (h *held) around(k replication.Keys) replication.Keys { return heldKeys{k, h} }

var errHeld = errors.New("held back by the test")

func (h heldKeys) DecideOffer(ctx context.Context, source region.Name, o mrk.Offer, v mrk.Verifier, c mrk.Contact) error {
	select {
	case <-h.gate.open:
		return h.Keys.DecideOffer(ctx, source, o, v, c)
	default:
		return errHeld
	}
}
