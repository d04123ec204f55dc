package keyops_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

const aDay = 24 * time.Hour

// onAClock makes a Region whose clock the test moves.
func onAClock(t *testing.T) (*keyopstest.Region, *fakeClock) {
	t.Helper()
	c := newClock()
	return keyopstest.New(t, keyopstest.Options{Clock: c.now, Elapsed: c.passed}), c
}

func schedule(t *testing.T, r *keyopstest.Region, k keyops.KeyMetadata, days int) keyops.ScheduleKeyDeletionOutput {
	t.Helper()
	out, err := r.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: k.ARN, PendingWindowInDays: days})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out
}

func work(t *testing.T, r *keyopstest.Region) {
	t.Helper()
	if err := r.Work(t.Context()); err != nil {
		t.Fatal(explain(err))
	}
}

// pass lets time pass in steps that the worker sees.
func pass(t *testing.T, r *keyopstest.Region, c *fakeClock, d, step time.Duration) {
	t.Helper()
	for ; d > 0; d -= step {
		c.advance(min(d, step))
		work(t, r)
	}
}

// exists reports whether the key can be described.
func exists(t *testing.T, r *keyopstest.Region, k keyops.KeyMetadata) bool {
	t.Helper()
	_, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	if err != nil && !errors.Is(err, keyops.ErrNotFound) {
		t.Fatal(explain(err))
	}
	return err == nil
}

// TestDeletionWindow tries each end of the waiting period, and deletes at its date and not
// a moment before.
func TestDeletionWindow(t *testing.T) {
	kinds(t, func(t *testing.T, multiRegion bool) {
		r, clock := onAClock(t)
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		for _, days := range []int{-1, 1, 6, 31, 365} {
			_, err := r.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: k.ARN, PendingWindowInDays: days})
			want(t, err, keyops.ErrValidation, "pendingWindowInDays")
		}
		if md := describe(t, r, k.ARN); md.KeyState != "Enabled" || !md.DeletionDate.IsZero() {
			t.Errorf("a refused request had an effect: %+v", md)
		}
		for days, expected := range map[int]int{0: 30, 7: 7, 8: 8, 29: 29, 30: 30} {
			out := schedule(t, r, k, days)
			due := clock.now().Add(time.Duration(expected) * aDay)
			if out.KeyID != k.ARN || out.KeyState != "PendingDeletion" || out.PendingWindowInDays != expected || !out.DeletionDate.Equal(due) {
				t.Errorf("%d days: %+v", days, out)
			}
			if md := describe(t, r, k.ARN); md.KeyState != "PendingDeletion" || md.Enabled || !md.DeletionDate.Equal(due) || md.PendingDeletionWindowInDays != 0 {
				t.Errorf("%d days: %+v", days, md)
			}
			_, err := r.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: k.ARN})
			want(t, err, keyops.ErrInvalidState, k.ARN+" is pending deletion.")
			got, err := r.CancelKeyDeletion(t.Context(), admin(), keyops.CancelKeyDeletionInput{KeyID: k.ARN})
			if err != nil || got.KeyID != k.ARN {
				t.Fatalf("%+v, %v", got, explain(err))
			}
			if md := describe(t, r, k.ARN); md.KeyState != "Disabled" || !md.DeletionDate.IsZero() {
				t.Errorf("cancelled: %+v", md)
			}
			_, err = r.CancelKeyDeletion(t.Context(), admin(), keyops.CancelKeyDeletionInput{KeyID: k.ARN})
			want(t, err, keyops.ErrInvalidState, k.ARN+" is not pending deletion.")
		}
		schedule(t, r, k, 7)
		pass(t, r, clock, 7*aDay-time.Second, time.Hour)
		if !exists(t, r, k) {
			t.Fatal("deleted a second early")
		}
		pass(t, r, clock, time.Second, time.Second)
		if exists(t, r, k) {
			t.Error("not deleted at its date")
		}
	})
}

func describe(t *testing.T, r *keyopstest.Region, ref string) keyops.KeyMetadata {
	t.Helper()
	out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: ref})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out.KeyMetadata
}

// TestDeletionTakesEverything: with the key go its aliases, its grants, its place in the
// quota and in every list, and what it encrypted is lost.
func TestDeletionTakesEverything(t *testing.T) {
	c := newClock()
	r := keyopstest.New(t, keyopstest.Options{Clock: c.now, Elapsed: c.passed, KeyQuota: 2})
	k, other := create(t, r, keyops.CreateKeyInput{Description: "doomed"}), create(t, r, keyops.CreateKeyInput{})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: k.ARN}); err != nil {
		t.Fatal(explain(err))
	}
	g := grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, RetiringPrincipal: helper, Operations: []string{"Decrypt"}})
	blob, err := encryptWith(r, k)
	if err != nil {
		t.Fatal(explain(err))
	}
	schedule(t, r, k, 7)
	pass(t, r, c, 8*aDay, 12*time.Hour)
	for range 2 { // and after a restart
		_, err = r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
		want(t, err, keyops.ErrNotFound, "does not exist")
		_, err = r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: "alias/a"})
		want(t, err, keyops.ErrNotFound, "alias/a")
		want(t, decryptWith(r, blob), keyops.ErrInvalidCiphertext, "")
		_, err = r.RetireGrant(t.Context(), admin(), keyops.RetireGrantInput{GrantToken: g.GrantToken})
		want(t, err, keyops.ErrInvalidGrantToken, "")
		list, err := r.ListAliases(t.Context(), admin(), keyops.ListAliasesInput{})
		if err != nil || len(list.Aliases) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		keys, err := r.ListKeys(t.Context(), admin(), keyops.ListKeysInput{})
		if err != nil || len(keys.Keys) != 1 || keys.Keys[0].KeyID != other.KeyID {
			t.Errorf("%+v, %v", keys, err)
		}
		for _, o := range r.Token.Objects() {
			if strings.HasPrefix(o.Spec.Name, string(k.KeyID)) {
				t.Errorf("the token has %+v", o)
			}
		}
		r.Restart(t)
	}
	// The name and the place are free.
	again := create(t, r, keyops.CreateKeyInput{})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: again.ARN}); err != nil {
		t.Error(explain(err))
	}
}

// TestDeletionOnAToken: the objects are gone from the token itself: the search of a new
// session finds none, and there are fewer files.
func TestDeletionOnAToken(t *testing.T) {
	c := newClock()
	r := newReal(t, paris, keyopstest.Options{Clock: c.now, Elapsed: c.passed})
	dir := filepath.Dir(token(paris.label).Conf)
	for _, in := range []keyops.CreateKeyInput{
		{}, {MultiRegion: true}, {KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}, {KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify},
	} {
		before := objectFiles(t, dir)
		k := create(t, r, in)
		if in.KeySpec == "" {
			if _, err := r.RotateKeyOnDemand(t.Context(), admin(), keyops.RotateKeyOnDemandInput{KeyID: k.ARN}); err != nil {
				t.Fatal(explain(err))
			}
		}
		made := objectFiles(t, dir)
		if made <= before {
			t.Fatalf("%d object files before, %d after: the test counts the wrong files", before, made)
		}
		schedule(t, r, k, 7)
		pass(t, r, c, 8*aDay, 12*time.Hour)
		if exists(t, r, k) {
			t.Fatalf("%s key not deleted", k.KeySpec)
		}
		if n := objectFiles(t, dir); n != before {
			t.Errorf("%d object files before the %s key, %d after its deletion", before, k.KeySpec, n)
		}
		fresh := openToken(t, paris.label) // with sessions, and an enumeration, of its own
		for _, o := range fresh.Objects() {
			if strings.HasPrefix(o.Spec.Name, string(k.KeyID)) {
				t.Errorf("a new session finds %+v", o)
			}
		}
	}
	r.Restart(t)
	if o := r.Reconciliation(); len(o.Destroyed)+len(o.Lost)+len(o.Undone) != 0 {
		t.Errorf("the start found %+v", o)
	}
}

func objectFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".object") {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDeletionAcrossRestarts: the date holds across restarts. A Region that was down for
// longer than an hour waits another day: nobody knows how its clock came to be where it is.
func TestDeletionAcrossRestarts(t *testing.T) {
	r, c := onAClock(t)
	k := create(t, r, keyops.CreateKeyInput{})
	schedule(t, r, k, 7)
	for range 7*24 - 1 {
		pass(t, r, c, 30*time.Minute, 15*time.Minute)
		c.advance(30 * time.Minute) // while it is down
		r.Restart(t)
	}
	if !exists(t, r, k) {
		t.Fatal("deleted early")
	}
	pass(t, r, c, time.Hour, time.Hour)
	if exists(t, r, k) {
		t.Error("short restarts put the deletion off")
	}

	k = create(t, r, keyops.CreateKeyInput{})
	schedule(t, r, k, 7)
	work(t, r)
	r.Stop()
	c.advance(30 * aDay)
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	pass(t, r, c, 12*time.Hour, time.Hour)
	r.Restart(t) // what is left of the wait outlives a restart
	pass(t, r, c, 12*time.Hour-20*time.Minute, 10*time.Minute)
	if !exists(t, r, k) {
		t.Fatal("deleted within a day after a start at a later date")
	}
	pass(t, r, c, time.Hour, 10*time.Minute)
	if exists(t, r, k) {
		t.Error("not deleted a day after the start")
	}
}

// TestCE19DeletionAndAClockThatJumps: a clock that is set by more than an hour, either way,
// destroys nothing for a day; one that is set by less changes nothing.
func TestCE19DeletionAndAClockThatJumps(t *testing.T) {
	for name, tc := range map[string]struct {
		by   time.Duration
		held bool
	}{
		"a month ahead":      {30 * aDay, true},
		"an hour ahead":      {time.Hour, false},
		"a second more":      {time.Hour + time.Second, true},
		"an hour back":       {-time.Hour, false},
		"a second more back": {-time.Hour - time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, c := onAClock(t)
			k := create(t, r, keyops.CreateKeyInput{})
			schedule(t, r, k, 7)
			pass(t, r, c, 7*aDay-30*time.Minute, 30*time.Minute)
			c.set(tc.by)
			work(t, r)
			// The date has come by now, whichever way the clock was set.
			pass(t, r, c, 2*time.Hour, time.Hour)
			if got := exists(t, r, k); got != tc.held {
				t.Fatalf("two hours later: the key exists: %v, want %v", got, tc.held)
			}
			if !tc.held {
				return
			}
			pass(t, r, c, 21*time.Hour, time.Hour)
			if !exists(t, r, k) {
				t.Fatal("deleted within a day")
			}
			pass(t, r, c, 2*time.Hour, time.Hour)
			if exists(t, r, k) {
				t.Error("not deleted after a day")
			}
		})
	}
	t.Run("set ahead and put right again", func(t *testing.T) {
		r, c := onAClock(t)
		k := create(t, r, keyops.CreateKeyInput{})
		schedule(t, r, k, 30)
		work(t, r)
		c.set(60 * aDay)
		pass(t, r, c, 20*time.Hour, time.Hour)
		c.set(-60 * aDay)
		pass(t, r, c, 48*time.Hour, time.Hour)
		if !exists(t, r, k) {
			t.Error("a clock that was wrong for less than a day destroyed a key")
		}
	})
}

// TestDeletionTriesAgain: what the token refuses to destroy it is asked again, and meanwhile
// the key is gone.
func TestDeletionTriesAgain(t *testing.T) {
	r, c := onAClock(t)
	k := create(t, r, keyops.CreateKeyInput{})
	object := materialObject(t, r, k.KeyID)
	schedule(t, r, k, 7)
	refused := 0
	r.Fake.SetHook(func(call hsmtest.Call) hsmtest.Fault {
		if call.Op == "Destroy" && refused < 3 {
			refused++
			return hsmtest.Fault{Before: hsmtest.FailedNotApplied}
		}
		return hsmtest.Fault{}
	})
	c.advance(8 * aDay)
	if err := r.Work(t.Context()); err == nil {
		t.Error("a refusal of the token is not reported")
	}
	if exists(t, r, k) {
		t.Error("the key is there although its tombstone is written")
	}
	work(t, r) // too soon to try again
	if refused != 1 {
		t.Errorf("tried %d times at once", refused)
	}
	for range 10 {
		c.advance(10 * time.Minute)
		_ = r.Work(t.Context())
	}
	r.Fake.SetHook(nil)
	if _, err := r.Fake.Lookup(t.Context(), object.ID); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("the object: %v", err)
	}
	records := events(t, r, "DeleteKey")
	if len(records) != 2 || records[0].Outcome != "Begun" || records[1].Outcome != "Success" {
		t.Errorf("audited as %+v", records)
	}
}

// TestDeletedKeyStaysDeleted: a token that is restored from before has the object again; the
// next start destroys it, and says so.
func TestDeletedKeyStaysDeleted(t *testing.T) {
	r, c := onAClock(t)
	k := create(t, r, keyops.CreateKeyInput{})
	backup := r.Fake.Snapshot()
	schedule(t, r, k, 7)
	pass(t, r, c, 8*aDay, 12*time.Hour)
	r.Fake.Restore(backup)
	r.Restart(t)
	if o := r.Reconciliation(); len(o.Destroyed) != 1 || len(o.TakenBack) != 0 {
		t.Errorf("the start found %+v", o)
	}
	if exists(t, r, k) {
		t.Error("the key is back")
	}
	if records := events(t, r, "DeleteKey"); len(records) != 3 || records[2].Details["at"] != "start" {
		t.Errorf("audited as %+v", records)
	}
}

// TestDeletionBesideUse: calls that were let in before a deletion end in a refusal, and
// never bring the row back.
func TestDeletionBesideUse(t *testing.T) {
	r, c := onAClock(t)
	for range 5 {
		k := create(t, r, keyops.CreateKeyInput{})
		schedule(t, r, k, 7)
		c.advance(8 * aDay)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, _ = r.UpdateKeyDescription(context.Background(), admin(), keyops.UpdateKeyDescriptionInput{KeyID: k.ARN, Description: "x"})
				_, _ = r.CreateAlias(context.Background(), admin(), keyops.CreateAliasInput{AliasName: "alias/" + string(k.KeyID), TargetKeyID: k.ARN})
				_, _ = r.PutKeyPolicy(context.Background(), admin(), keyops.PutKeyPolicyInput{KeyID: k.ARN, Policy: openPolicy})
				_, _ = r.CancelKeyDeletion(context.Background(), admin(), keyops.CancelKeyDeletionInput{KeyID: k.ARN})
			})
		}
		wg.Go(func() { _ = r.Work(context.Background()) })
		wg.Wait()
		there := exists(t, r, k)
		r.Stop()
		row, tombstone := hasRow(t, r, "key", string(k.KeyID)), hasRow(t, r, "tombstone", string(k.KeyID))
		if row != there || tombstone == there {
			t.Errorf("the key is visible: %v; it has a row: %v, and a tombstone: %v", there, row, tombstone)
		}
		if err := startErr(r); err != nil {
			t.Fatal(err)
		}
		if exists(t, r, k) != there {
			t.Error("a restart changed whether the key is there")
		}
	}
}

const openPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}`

// hasRow reports whether the store of a stopped Region has a row.
func hasRow(t *testing.T, r *keyopstest.Region, kind store.Kind, id string) bool {
	t.Helper()
	db, err := sqlite.Open(context.Background(), sqlite.Config{Path: r.StorePath})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(context.Background(), func(tx store.Tx) error {
		_, err := tx.Get(kind, id)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// events returns what the audit log says of what the service did by itself.
func events(t *testing.T, r *keyopstest.Region, name string) []line {
	t.Helper()
	return slices.DeleteFunc(auditLines(t, r, ""), func(l line) bool { return l.Event != name })
}
