package keyops_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/storetest"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// Restores do not bring a pair back: each end's word is at the other one.
func TestSeveredOutlivesRestores(t *testing.T) {
	for _, name := range []string{"the primary instance", "the replica instance"} {
		t.Run(name, func(t *testing.T) {
			w := newSynced(t)
			r, other := w.paris, w.tokyo
			if name != "the primary instance" {
				r, other = other, r
			}
			backup := filepath.Join(t.TempDir(), "backup")
			r.Stop()
			copyStore(t, r.StorePath, backup)
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.end(t)
			r.Stop()
			copyStore(t, backup, r.StorePath)
			r.Believe(t)
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(r.Severed()) != 0 {
				t.Fatal("the store is not of before")
			}
			if err := r.KeepSevered(t.Context(), other.Severed()); err != nil {
				t.Fatal(err)
			}
			w.tell(t, w.key, other, r) // a store from before has to hear the others before it acts
			if err := r.Synchronize(t.Context()); err != nil {
				t.Error(err)
			}
			if p, q := w.stages(t); p != synchronization.Ended || q != p {
				t.Errorf("after its restore the association is %s, %s", p, q)
			}
			want(t, associate(w.paris, t, w.id, "ap-tokyo-1"), keyops.ErrUnsupportedOperation, "never be associated again")
			_, err := w.tokyo.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
			want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
		})
	}
}

// A Region that was initialised again is another instance, and still the same Region.
func TestSeveredOutlivesInitialisation(t *testing.T) {
	w := newSynced(t)
	w.end(t)
	w.tokyo.Stop()
	again := keyopstest.New(t, keyopstest.Options{Name: "ap-tokyo-1", Peers: w.net, Operators: 3})
	w.net.Add(again)
	for _, name := range []string{"ap-tokyo-1", string(again.Descriptor.Instance)} {
		want(t, associate(w.paris, t, w.id, name), keyops.ErrUnsupportedOperation, "never be associated again")
	}
	// It hears of it from Paris, and then refuses by itself. It is not frozen: it is another one.
	if err := again.KeepSevered(t.Context(), w.paris.Severed()); err != nil {
		t.Fatal(err)
	}
	claim := keyops.AssociationClaim{
		Source: "eu-paris-1", Instance: w.paris.Descriptor.Instance, Synchronization: synchronization.ID(w.id),
		Account: keyopstest.Account, Principal: admin().Principal, KeyQuota: 1,
	}
	want(t, again.Associate(t.Context(), claim), keyops.ErrUnsupportedOperation, "never be associated again")
	create(t, again, keyops.CreateKeyInput{})
}

// A peer cannot make others remember any number of pairs.
func TestSeveredIsBounded(t *testing.T) {
	w := newTwo(t)
	sever := func(n int) error {
		f, err := synchronization.Sever(t.Context(), w.tokyo.Signer(), synchronization.Severance{
			ID: "sync-0123456789ab", Account: keyopstest.Account, Principal: "arn:aws:iam::111122223333:user/admin", At: time.Unix(1_900_000_000, 0),
			Primary: synchronization.EndOf(w.tokyo.Descriptor.Descriptor),
			Replica: synchronization.End{Region: "eu-oslo-1", Instance: region.InstanceID(fmt.Sprintf("kfi-%012x", n))},
		})
		if err != nil {
			t.Fatal(err)
		}
		return w.paris.KeepSevered(t.Context(), []synchronization.Severed{f})
	}
	for n := range 64 {
		if err := sever(n); err != nil {
			t.Fatalf("pair %d: %v", n+1, err)
		}
	}
	if err := sever(64); !errors.Is(err, keyops.ErrLimitExceeded) || len(w.paris.Severed()) != 64 {
		t.Errorf("pair 65: %v", err)
	}
	if err := sever(0); err != nil || len(w.paris.Severed()) != 64 {
		t.Errorf("a pair that is known: %v", err)
	}
}

// A replica instance signs that it has accepted to be severed from instances of which nobody
// has heard. Each is believed, since that binds nobody else, and the number is bounded, too.
func TestAcceptedSeverancesAreBounded(t *testing.T) {
	w := newTwo(t)
	accept := func(n int) error {
		f, err := synchronization.Sever(t.Context(), w.tokyo.Signer(), synchronization.Severance{
			ID: "sync-0123456789ab", Account: keyopstest.Account, Principal: "arn:aws:iam::111122223333:user/admin", At: time.Unix(1_900_000_000, 0),
			Primary: synchronization.End{Region: "eu-oslo-1", Instance: region.InstanceID(fmt.Sprintf("kfi-%012x", n))},
			Replica: synchronization.EndOf(w.tokyo.Descriptor.Descriptor),
		})
		if err == nil {
			f, err = f.Accept(t.Context(), w.tokyo.Signer())
		}
		if err != nil {
			t.Fatal(err)
		}
		return w.paris.KeepSevered(t.Context(), []synchronization.Severed{f})
	}
	for n := range 64 {
		if err := accept(n); err != nil {
			t.Fatalf("pair %d: %v", n+1, err)
		}
	}
	if err := accept(64); !errors.Is(err, keyops.ErrLimitExceeded) || len(w.paris.Severed()) != 64 {
		t.Errorf("pair 65: %v", err)
	}
}

// TestDisassociationDies: either end dies at each of its transactions, as failed and as failed
// but applied. Once both are there again, what was begun durably comes to its end, and what was
// not leaves nothing behind.
func TestDisassociationDies(t *testing.T) {
	for _, name := range []region.Name{"eu-paris-1", "ap-tokyo-1"} {
		for _, stage := range []storetest.Stage{storetest.Within, storetest.After} {
			t.Run(fmt.Sprintf("%s %s", name, stage), func(t *testing.T) {
				deaths := 0
				for dieAt(t, name, stage, deaths+1) {
					deaths++
				}
				if atLeast := map[region.Name]int{"eu-paris-1": 3, "ap-tokyo-1": 1}[name]; deaths < atLeast {
					t.Errorf("%d transactions, want %d or more", deaths, atLeast)
				}
			})
		}
	}
}

// dieAt disassociates while one end dies at its n-th transaction, and reports whether it did.
func dieAt(t *testing.T, name region.Name, stage storetest.Stage, n int) (died bool) {
	w := newSynced(t)
	in := w.input(w.approvals(t, 2))
	r := map[region.Name]*keyopstest.Region{"eu-paris-1": w.paris, "ap-tokyo-1": w.tokyo}[name]
	armed := true
	r.Options.Store = func(s store.Store) store.Store {
		return storetest.NewFaulty(s, func(p storetest.Point) error {
			if !armed || p.Stage != stage || !strings.Contains(strings.Join(p.Wrote, " "), "severed") && !strings.Contains(strings.Join(p.Wrote, " "), "put key") {
				return nil
			}
			if n--; n == 0 {
				died = true
				return storetest.ErrCrash
			}
			return nil
		})
	}
	r.Restart(t)
	_, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), in)
	armed = false
	begun := len(w.paris.Severed()) > 0
	if !died {
		if err != nil {
			t.Fatal(explain(err))
		}
		return false
	}
	r.Restart(t)
	if len(w.paris.Severed()) == 0 {
		if p, q := w.stages(t); begun || err == nil || p != synchronization.Associated || q != p {
			t.Errorf("death %d at transaction of %s: %v, and the association is %s, %s", n, name, err, p, q)
		}
		return true
	}
	w.tell(t, w.key, w.tokyo, w.paris) // one that died has to hear the others before it acts
	if err := errors.Join(w.paris.Synchronize(t.Context()), w.tokyo.Synchronize(t.Context())); err != nil {
		t.Error(err)
	}
	if p, q := w.stages(t); p != synchronization.Ended || q != p {
		t.Errorf("%s died at transaction %d, %s: the association is %s, %s", name, n, stage, p, q)
	}
	if s := statusIn(t, w.paris, w.key, "ap-tokyo-1"); s != mrk.Retained {
		t.Errorf("%s died: Tokyo is %s", name, s)
	}
	if p, q := transportObjects(w.paris), transportObjects(w.tokyo); p != 0 || q != 0 {
		t.Errorf("%s died: %d and %d transport keys are left", name, p, q)
	}
	return true
}

// From the moment at which the pair is severed neither end hands a key to the other one, also
// where memberships have not ended yet.
func TestSeveredHandsNothingOver(t *testing.T) {
	for _, aware := range []string{"eu-paris-1", "ap-tokyo-1"} {
		t.Run(aware, func(t *testing.T) {
			w := newTwo(t)
			id := w.shared(t)
			f, err := synchronization.Sever(t.Context(), w.paris.Signer(), synchronization.Severance{
				ID: "sync-0123456789ab", Account: keyopstest.Account, Principal: "arn:aws:iam::111122223333:user/admin", At: time.Unix(1_900_000_000, 0),
				Primary: synchronization.EndOf(w.paris.Descriptor.Descriptor), Replica: synchronization.EndOf(w.tokyo.Descriptor.Descriptor),
			})
			if err != nil {
				t.Fatal(err)
			}
			r, why := w.paris, "REPLICA_FROZEN"
			if aware != "eu-paris-1" {
				r, why = w.tokyo, "no transport key to Region eu-paris-1"
			}
			if err := r.KeepSevered(t.Context(), []synchronization.Severed{f}); err != nil {
				t.Fatal(err)
			}
			want(t, w.handOver(t, id), keyops.ErrInvalidState, why)
			if k, _ := w.paris.SharedKey(id); k.State != "Enabled" || !k.Set.Acting() {
				t.Errorf("Paris acts %v and its key is %s", k.Set.Acting(), k.State)
			}
		})
	}
}

// A frozen instance whose restored store had forgotten that makes a key. When it hears that it is
// frozen it goes on using the key, and acts no more as its primary Region.
func TestFrozenActsForNoKey(t *testing.T) {
	w := newSynced(t)
	backup := filepath.Join(t.TempDir(), "backup")
	w.tokyo.Stop()
	copyStore(t, w.tokyo.StorePath, backup)
	if err := w.tokyo.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.end(t)
	w.tokyo.Stop()
	copyStore(t, backup, w.tokyo.StorePath)
	w.tokyo.Believe(t)
	if err := w.tokyo.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := create(t, w.tokyo, keyops.CreateKeyInput{MultiRegion: true})
	if k, _ := w.tokyo.SharedKey(made.KeyID); !k.Set.Acting() || w.tokyo.ActsForNone() {
		t.Fatal("Tokyo knows that it is frozen")
	}
	if err := w.tokyo.KeepSevered(t.Context(), w.paris.Severed()); err != nil {
		t.Fatal(err)
	}
	if err := w.tokyo.Synchronize(t.Context()); err != nil {
		t.Error(err)
	}
	if k, _ := w.tokyo.SharedKey(made.KeyID); k.Set.Acting() || k.State != "Enabled" || !w.tokyo.ActsForNone() {
		t.Errorf("Tokyo acts %t, its key is %s", k.Set.Acting(), k.State)
	}
	if _, err := w.tokyo.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: made.ARN, Plaintext: x}); err != nil {
		t.Errorf("encrypting: %v", explain(err))
	}
}
