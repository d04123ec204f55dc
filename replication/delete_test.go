package replication_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/replication"
)

// clock is what the clocks of all Regions say.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time               { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration)      { c.ahead.Add(int64(d)) }
func (c *clock) config(r *replication.Config) { r.Clock = c.now }

// deployWith starts Regions that all go by one clock.
func deployWith(t *testing.T, c *clock, n int) []*site {
	t.Helper()
	sites := prepare(t, paris, east, tokyo)[:n]
	for _, s := range sites {
		s.all = sites
		s.region.Options.Clock = c.now
		s.config = c.config
		s.start()
	}
	return sites
}

func (s *site) schedule(id arn.KeyID, days int) keyops.ScheduleKeyDeletionOutput {
	s.t.Helper()
	out, err := s.region.ScheduleKeyDeletion(context.Background(), keyopstest.Admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: days})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *site) work() error { return s.region.Work(context.Background()) }

// workOn lets a Region try again what failed, which is spaced out.
func (s *site) workOn(c *clock) error {
	err := s.work()
	time.Sleep(20 * time.Millisecond)
	c.advance(2 * time.Minute)
	return err
}

// objects counts the token's objects of a key.
func (s *site) objects(id arn.KeyID) (n int) {
	for _, o := range s.region.Token.Objects() {
		if o.Spec.Role == hsm.RoleSharedMaterial && strings.HasPrefix(o.Spec.Name, string(id)) {
			n++
		}
	}
	return n
}

func (s *site) isGone(id arn.KeyID) bool {
	_, err := s.region.DescribeKey(context.Background(), keyopstest.Admin(), keyops.DescribeKeyInput{KeyID: string(id)})
	return errors.Is(err, keyops.ErrNotFound)
}

// A whole set is deleted: the replica key first, then, after a waiting period that begins
// with that, the primary key.
func TestDeleteSet(t *testing.T) {
	var c clock
	sites := deployWith(t, &c, 3)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	a.mustReplicate(id, b)
	a.synchronized(id, b)

	if out := a.schedule(id, 8); out.KeyState != "PendingReplicaDeletion" || !out.DeletionDate.IsZero() {
		t.Errorf("the primary key is %s, to be deleted at %s", out.KeyState, out.DeletionDate)
	}
	if _, err := b.region.Encrypt(context.Background(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("p")}); err != nil {
		t.Errorf("the replica key does not work any more: %v", err)
	}
	if m := a.describe(id); !m.ExpectedDeletionDate.IsZero() || m.PendingDeletionWindowInDays != 8 {
		t.Errorf("with a replica key that is to stay, the primary key goes at %s", m.ExpectedDeletionDate)
	}
	expected := func(want time.Time) {
		t.Helper()
		eventually(t, "what the primary key's Region expects", func() (bool, string) {
			m := a.describe(id)
			replica := m.MultiRegionConfiguration.ReplicaKeys[0].DeletionDate
			after := want
			if !want.IsZero() {
				after = want.Add(8 * 24 * time.Hour)
			}
			return m.ExpectedDeletionDate.Equal(after) && replica.Equal(want), fmt.Sprintf("the replica key goes at %s, the primary key at %s", replica, m.ExpectedDeletionDate)
		})
	}
	schedule := func() {
		t.Helper()
		out := b.schedule(id, 7)
		if out.KeyState != "PendingDeletion" || out.DeletionDate.IsZero() || !out.Expected.IsZero() {
			t.Errorf("the replica key: %+v", out)
		}
		expected(out.DeletionDate.Truncate(time.Second))
	}
	schedule()
	if _, err := b.region.CancelKeyDeletion(context.Background(), keyopstest.Admin(), keyops.CancelKeyDeletionInput{KeyID: string(id)}); err != nil {
		t.Fatal(err)
	}
	expected(time.Time{})
	schedule()
	c.advance(7*24*time.Hour - time.Minute)
	if err := b.work(); err != nil || b.isGone(id) {
		t.Errorf("a minute before its time the replica key is gone (%v)", err)
	}
	c.advance(2 * time.Minute)
	eventually(t, "the replica key gone", func() (bool, string) {
		err := b.work()
		return b.isGone(id) && b.objects(id) == 0, fmt.Sprintf("%v, %d objects", err, b.objects(id))
	})
	eventually(t, "the waiting period of the primary key", func() (bool, string) {
		m := a.describe(id)
		return m.KeyState == "PendingDeletion" && !m.DeletionDate.Before(c.now().Add(8*24*time.Hour-time.Minute)), fmt.Sprintf("%s %s", m.KeyState, m.DeletionDate)
	})
	c.advance(8*24*time.Hour + time.Minute)
	eventually(t, "the primary key gone", func() (bool, string) {
		err := a.work()
		return a.isGone(id) && a.objects(id) == 0, fmt.Sprintf("%v, %d objects", err, a.objects(id))
	})
	for _, s := range sites[:2] {
		s.restart()
		if !s.isGone(id) || s.objects(id) != 0 {
			t.Errorf("a new start brings the key back in %s", s.name())
		}
	}
	if err := a.replicate(id, b); !errors.Is(err, keyops.ErrNotFound) {
		t.Errorf("replicating a key that is gone: %v", err)
	}
}

// A replica key that was deleted can be made again, with all that was ever encrypted.
func TestReplicateAgain(t *testing.T) {
	var c clock
	sites := deployWith(t, &c, 2)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	for range 2 {
		a.mustReplicate(id, b)
		a.synchronized(id, b)
		sealed, err := b.region.Encrypt(context.Background(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("p")})
		if err != nil {
			t.Fatal(err)
		}
		b.schedule(id, 7)
		c.advance(7*24*time.Hour + time.Minute)
		eventually(t, "the replica key gone", func() (bool, string) { err := b.work(); return b.isGone(id), fmt.Sprint(err) })
		eventually(t, "no replica key", func() (bool, string) {
			m := a.describe(id).MultiRegionConfiguration
			return len(m.ReplicaKeys) == 0, fmt.Sprint(m.ReplicaKeys)
		})
		if _, err := a.region.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}); err != nil {
			t.Errorf("what the replica key encrypted is lost: %v", err)
		}
	}
	a.mustReplicate(id, b)
	a.synchronized(id, b)
	encryptHereDecryptThere(t, id, a, b)
	k, err := b.region.SharedKey(id)
	if err != nil || k.Set.Incarnation() != 3 {
		t.Errorf("incarnation %d of the replica key (%v)", k.Set.Incarnation(), err)
	}
}

// A replica key is not destroyed while nobody says that its material is safe.
func TestDeletionWaitsForThePrimary(t *testing.T) {
	var c clock
	sites := deployWith(t, &c, 2)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	a.mustReplicate(id, b)
	a.synchronized(id, b)
	b.schedule(id, 7)
	a.stop()
	c.advance(8 * 24 * time.Hour)
	if err := b.work(); !errors.Is(err, keyops.ErrPeerUnreachable) || b.isGone(id) || b.objects(id) != 1 {
		t.Errorf("with the primary Region dark: %v, %d objects", err, b.objects(id))
	}
	if _, err := b.region.CancelKeyDeletion(context.Background(), keyopstest.Admin(), keyops.CancelKeyDeletionInput{KeyID: string(id)}); err != nil {
		t.Errorf("a deletion that is due and has not happened cannot be cancelled: %v", err)
	}
	b.schedule(id, 7)
	c.advance(8 * 24 * time.Hour)
	if err := b.work(); !errors.Is(err, keyops.ErrPeerUnreachable) {
		t.Errorf("with the primary Region dark: %v", err)
	}
	a.start()
	b.restart() // its TLS key is older than a day by this clock
	eventually(t, "the replica key gone", func() (bool, string) {
		err := b.workOn(&c)
		return b.isGone(id), fmt.Sprint(err)
	})
}

// The primary key goes last: a Region that may have a replica key has to answer.
func TestPrimaryWaitsForEverybody(t *testing.T) {
	var c clock
	sites := deployWith(t, &c, 3)
	a, dark := sites[0], sites[2]
	id := a.createSymmetric()
	if out := a.schedule(id, 7); out.KeyState != "PendingDeletion" {
		t.Errorf("a primary key without replica keys is %s", out.KeyState)
	}
	dark.stop()
	c.advance(8 * 24 * time.Hour)
	if err := a.work(); !errors.Is(err, keyops.ErrPeerUnreachable) || a.isGone(id) {
		t.Errorf("with a Region dark: %v", err)
	}
	dark.start()
	for _, s := range sites[:2] {
		s.restart()
	}
	eventually(t, "the key gone", func() (bool, string) {
		err := a.workOn(&c)
		return a.isGone(id) && a.objects(id) == 0, fmt.Sprint(err)
	})
}
