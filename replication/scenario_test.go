package replication_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// vault keeps ciphertexts, all of which have to open in the end.
type vault struct {
	t      testing.TB
	sealed [][]byte
}

func (v *vault) put(s *site, id arn.KeyID) keyops.EncryptOutput {
	v.t.Helper()
	out, err := s.region.Encrypt(context.Background(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: v.text(len(v.sealed))})
	if err != nil {
		v.t.Fatalf("%s does not encrypt: %v", s.name(), err)
	}
	v.sealed = append(v.sealed, out.CiphertextBlob)
	return out
}

func (v *vault) text(n int) []byte { return fmt.Appendf(nil, "record %d", n) }

// open decrypts all that was put, from a number on.
func (v *vault) open(s *site, from int) {
	v.t.Helper()
	for i, c := range v.sealed[from:] {
		out, err := s.region.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: c})
		if err != nil || !bytes.Equal(out.Plaintext, v.text(from+i)) {
			v.t.Errorf("%s opens record %d to %q: %v", s.name(), from+i, out.Plaintext, err)
		}
	}
}

func (s *site) rotateOnDemand(id arn.KeyID) error {
	_, err := s.region.RotateKeyOnDemand(context.Background(), keyopstest.Admin(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
	return err
}

func (s *site) progress(id arn.KeyID) *keyops.RotationProgress {
	s.t.Helper()
	out, err := s.region.GetKeyRotationStatus(context.Background(), keyopstest.Admin(), keyops.GetKeyRotationStatusInput{KeyID: string(id)})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.Progress
}

// rotated waits until every Region encrypts with one material, which is another than before.
func rotated(t testing.TB, id arn.KeyID, before string, sites ...*site) {
	t.Helper()
	eventually(t, "new material everywhere", func() (bool, string) {
		said, ok := "", true
		for _, s := range sites {
			now := s.describe(id).CurrentKeyMaterialID
			said += fmt.Sprintf("%s: %.8s; ", s.name(), now)
			ok = ok && now != before && now == sites[0].describe(id).CurrentKeyMaterialID
		}
		return ok, said
	})
}

// The primary Region is dark: the backup Region goes on working with every kind of key. What
// only the primary Region decides waits. When it is back, what was made meanwhile holds there.
func TestPrimaryRegionDark(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	primary, backup := sites[0], sites[1]
	v := vault{t: t}
	ids := map[keyops.KeySpec]arn.KeyID{}
	for _, kind := range kinds {
		id := primary.create(kind.spec, kind.usage)
		primary.mustReplicate(id, sites[1:]...)
		primary.synchronized(id, sites[1:]...)
		ids[kind.spec] = id
	}
	id := ids[keyops.SymmetricDefault]
	v.put(primary, id)
	primary.stop()

	v.open(backup, 0)
	for range 20 {
		v.put(backup, id)
		v.put(sites[2], id)
	}
	for _, kind := range kinds {
		kind.use(t, ids[kind.spec], backup, sites[2])
	}
	if err := backup.rotateOnDemand(id); !errors.Is(err, keyops.ErrUnsupportedOperation) || !contains(err.Error(), string(paris)) {
		t.Errorf("rotating a replica key: %v", err)
	}
	if err := backup.promote(id, tokyo); !errors.Is(err, keyops.ErrUnsupportedOperation) || !contains(err.Error(), string(paris)) {
		t.Errorf("handing a replica key over: %v", err)
	}
	// The backup Region may be restarted in the middle of it.
	backup.restart()
	v.put(backup, id)
	v.open(backup, 0)

	primary.start()
	v.open(primary, 0)
	primary.synchronized(id, sites[1:]...)
	before := primary.describe(id).CurrentKeyMaterialID
	eventually(t, "a rotation after the outage", func() (bool, string) { err := primary.rotateOnDemand(id); return err == nil, fmt.Sprint(err) })
	rotated(t, id, before, sites...)
	for _, kind := range kinds {
		kind.use(t, ids[kind.spec], backup, primary)
	}
	for _, s := range sites {
		v.open(s, 0)
		s.noAlarms()
	}
}

// Two Regions write and read each other's records for an hour, through a rotation.
func TestBothRegionsWrite(t *testing.T) {
	var c clock
	sites := deployWith(t, &c, 2)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	v := vault{t: t}
	materials := map[string]int{}
	for minute := range 60 {
		for i, s := range sites {
			materials[v.put(s, id).KeyMaterialID]++
			v.open(sites[1-i], len(v.sealed)-1)
		}
		if minute == 20 {
			before := sites[0].describe(id).CurrentKeyMaterialID
			if err := sites[0].rotateOnDemand(id); err != nil {
				t.Fatal(err)
			}
			// Both go on while the rotation is on its way.
			for i, s := range sites {
				v.put(s, id)
				v.open(sites[1-i], len(v.sealed)-1)
			}
			rotated(t, id, before, sites...)
		}
		c.advance(time.Minute)
	}
	if len(materials) != 2 {
		t.Errorf("written with %v", materials)
	}
	for _, s := range sites {
		v.open(s, 0)
		s.noAlarms()
	}
}

// One RSA key signs in every Region. A PKCS #1 v1.5 signature of a message is the same
// wherever it is made, so nobody can tell, or has to know, where; it is made with the primary
// Region dark, and verified with the public key alone.
func TestDistributedSigning(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	id := sites[0].create(keyops.RSA2048, keyops.SignVerify)
	sites[0].mustReplicate(id, sites[1:]...)
	sites[0].synchronized(id, sites[1:]...)
	message := []byte("release 1.0")
	var first, public []byte
	for i, s := range sites {
		out, err := s.region.Sign(context.Background(), keyopstest.Admin(), keyops.SignInput{KeyID: string(id), Message: message, SigningAlgorithm: keyops.AlgorithmPKCS1SHA256})
		if err != nil {
			t.Fatal(err)
		}
		key, err := s.region.GetPublicKey(context.Background(), keyopstest.Admin(), keyops.GetPublicKeyInput{KeyID: string(id)})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first, public = out.Signature, key.PublicKey
			sites[0].stop()
		}
		if !bytes.Equal(out.Signature, first) || !bytes.Equal(key.PublicKey, public) {
			t.Errorf("%s makes another signature, or has another public key", s.name())
		}
	}
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(message)
	if err := rsa.VerifyPKCS1v15(parsed.(*rsa.PublicKey), crypto.SHA256, hash[:], first); err != nil {
		t.Error(err)
	}
}

// A replica key works whatever becomes of the primary key.
func TestReplicaIsIndependent(t *testing.T) {
	sites := deploy(t, paris, east)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	a.mustReplicate(id, b)
	a.synchronized(id, b)
	ctx := context.Background()
	enable := func(t *testing.T) {
		if _, err := a.region.EnableKey(ctx, keyopstest.Admin(), keyops.EnableKeyInput{KeyID: string(id)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name      string
		down, up  func(*testing.T)
		wantState string // of the primary key meanwhile; empty if nobody can ask
	}{
		{"disabled", func(t *testing.T) {
			if _, err := a.region.DisableKey(ctx, keyopstest.Admin(), keyops.DisableKeyInput{KeyID: string(id)}); err != nil {
				t.Fatal(err)
			}
		}, enable, "Disabled"},
		{"pending deletion", func(*testing.T) { a.schedule(id, 7) }, func(t *testing.T) {
			if _, err := a.region.CancelKeyDeletion(ctx, keyopstest.Admin(), keyops.CancelKeyDeletionInput{KeyID: string(id)}); err != nil {
				t.Fatal(err)
			}
			enable(t)
		}, "PendingReplicaDeletion"},
		{"dark", func(*testing.T) { a.stop() }, func(*testing.T) { a.start() }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, s := range sites {
				s.t = t
			}
			v := vault{t: t}
			v.put(a, id)
			tc.down(t)
			if tc.wantState != "" {
				if got := a.describe(id).KeyState; got != tc.wantState {
					t.Errorf("the primary key is %s, want %s", got, tc.wantState)
				}
				if _, err := a.region.Encrypt(ctx, keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("p")}); err == nil {
					t.Error("the primary key encrypts all the same")
				}
				eventually(t, "the replica's Region hears of it", func() (bool, string) {
					row := b.status(id, a)
					return row.KeyState == tc.wantState, fmt.Sprintf("%+v", row)
				})
			}
			for range 10 {
				v.put(b, id)
			}
			v.open(b, 0)
			tc.up(t)
			v.open(a, 0)
			a.synchronized(id, b)
		})
	}
}

// silence is a Region that hears everything and of which nobody hears anything.
type silence struct{ on atomic.Bool }

type silencedLink struct {
	replication.Link
	silence   *silence
	delivered bool // what is said arrives, and its answer does not
}

func (l silencedLink) Exchange(ctx context.Context, message []byte) ([]byte, error) {
	if l.silence.on.Load() && !l.delivered {
		return nil, keyops.ErrPeerUnreachable
	}
	answer, err := l.Link.Exchange(ctx, message)
	if l.silence.on.Load() {
		return nil, keyops.ErrPeerUnreachable
	}
	return answer, err
}

// silencedKeys falls silent when new material arrives, before it can be acknowledged.
type silencedKeys struct {
	replication.Keys
	silence *silence
	armed   *atomic.Bool
}

func (k silencedKeys) InstallMaterial(ctx context.Context, id arn.KeyID, b mrk.Blob) error {
	if k.armed.Load() {
		k.silence.on.Store(true)
	}
	return k.Keys.InstallMaterial(ctx, id, b)
}

// One acknowledgement never comes, although Tokyo holds the new material: no Region encrypts
// with it, the rotation says for whom it waits, and ends when Tokyo is heard.
func TestOneAcknowledgementHeldBack(t *testing.T) {
	sites := prepare(t, paris, east, tokyo)
	var silent silence
	var armed atomic.Bool
	for _, s := range sites {
		s.links = func(to region.Name, l replication.Link) replication.Link {
			switch tokyo {
			case s.name():
				return silencedLink{l, &silent, false}
			case to:
				return silencedLink{l, &silent, true}
			}
			return l
		}
		if s.name() == tokyo {
			s.keys = func(k replication.Keys) replication.Keys { return silencedKeys{k, &silent, &armed} }
		}
		s.start()
	}
	a, held := sites[0], sites[2]
	id := a.createSymmetric()
	a.mustReplicate(id, sites[1:]...)
	a.synchronized(id, sites[1:]...)
	before := a.describe(id).CurrentKeyMaterialID
	armed.Store(true)
	if err := a.rotateOnDemand(id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everybody but the silent Region is heard", func() (bool, string) {
		p := a.progress(id)
		k, err := held.region.SharedKey(id)
		return p != nil && slices.Equal(p.Holding, []string{string(paris), string(east)}) && slices.Equal(p.Awaited, []string{string(tokyo)}) &&
			err == nil && len(k.Held()) == 2, fmt.Sprintf("%+v, %v", p, err)
	})
	v := vault{t: t}
	for i := range 1000 {
		s := sites[i%len(sites)]
		if got := v.put(s, id).KeyMaterialID; got != before {
			t.Fatalf("call %d: %s encrypts with %s, which the rotation has not released", i, s.name(), got)
		}
	}
	p := a.progress(id)
	if p == nil || !slices.Equal(p.Awaited, []string{string(tokyo)}) || p.Started.IsZero() || p.KeyMaterialID == before {
		t.Errorf("after 1000 calls the rotation says %+v", p)
	}
	if err := a.rotateOnDemand(id); !errors.Is(err, keyops.ErrConflict) {
		t.Errorf("another rotation meanwhile: %v", err)
	}
	if row := a.status(id, held); row.Status == replication.StatusSynchronized || row.Cause != string(mrk.CausePeerUnreachable) {
		t.Errorf("the silent Region is shown as %+v", row)
	}
	silent.on.Store(false)
	armed.Store(false)
	rotated(t, id, before, sites...)
	if p := a.progress(id); p != nil {
		t.Errorf("after its end the rotation says %+v", p)
	}
	for _, s := range sites {
		v.open(s, 0)
		s.noAlarms()
	}
}
