package keyops_test

import (
	"bytes"
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

func rotate(r *keyopstest.Region, ref string) error {
	return second(r.RotateKeyOnDemand(context.Background(), admin(), keyops.RotateKeyOnDemandInput{KeyID: ref}))
}

func status(t *testing.T, r *keyopstest.Region, ref string) keyops.GetKeyRotationStatusOutput {
	t.Helper()
	out, err := r.GetKeyRotationStatus(t.Context(), admin(), keyops.GetKeyRotationStatusInput{KeyID: ref})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out
}

func enableRotation(r *keyopstest.Region, ref string, days int) error {
	return second(r.EnableKeyRotation(context.Background(), admin(), keyops.EnableKeyRotationInput{KeyID: ref, RotationPeriodInDays: days}))
}

// TestRotatedKeyOpensEverything: each rotation encrypts with other material, and what any of
// them encrypted is opened for ever, across restarts, on a token in memory and on a real one.
func TestRotatedKeyOpensEverything(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		kinds(t, func(t *testing.T, multiRegion bool) {
			k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
			seen := map[string]bool{}
			var blobs [][]byte
			for i := range 4 {
				if i > 0 {
					if err := rotate(r, k.ARN); err != nil {
						t.Fatal(explain(err))
					}
				}
				out, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: []byte(strconv.Itoa(i))})
				if err != nil {
					t.Fatal(explain(err))
				}
				if seen[out.KeyMaterialID] || out.KeyMaterialID != describe(t, r, k.ARN).CurrentKeyMaterialID {
					t.Errorf("rotation %d encrypts with material %s, seen %v", i, out.KeyMaterialID, seen)
				}
				seen[out.KeyMaterialID] = true
				blobs = append(blobs, out.CiphertextBlob)
			}
			for range 2 {
				for i, blob := range blobs {
					out, err := r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: blob})
					if err != nil || !bytes.Equal(out.Plaintext, []byte(strconv.Itoa(i))) {
						t.Errorf("what was encrypted before rotation %d: %q, %v", i+1, out.Plaintext, explain(err))
					}
				}
				r.Restart(t)
			}
			if n := rotations(t, r, k.ARN); n != 3 {
				t.Errorf("%d rotations listed, want 3", n)
			}
		})
	})
}

func TestRotationPeriod(t *testing.T) {
	kinds(t, func(t *testing.T, multiRegion bool) {
		r, c := onAClock(t)
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		for _, days := range []int{-1, 1, 89, 2561} {
			want(t, enableRotation(r, k.ARN, days), keyops.ErrValidation, "rotationPeriodInDays")
		}
		if got := status(t, r, k.ARN); got.KeyRotationEnabled || !got.NextRotationDate.IsZero() || got.RotationPeriodInDays != 0 || got.OnDemandRotationsLeft != 25 {
			t.Errorf("a new key: %+v", got)
		}
		for _, days := range []int{90, 2560, 0} {
			expected := days
			if days == 0 {
				expected = 365
			}
			if err := enableRotation(r, k.ARN, days); err != nil {
				t.Fatal(explain(err))
			}
			got := status(t, r, k.ARN)
			if !got.KeyRotationEnabled || got.RotationPeriodInDays != expected || !got.NextRotationDate.Equal(c.now().Add(time.Duration(expected)*aDay)) || got.KeyID != k.ARN {
				t.Errorf("%d days: %+v", days, got)
			}
		}
		// A shorter period counts from when the rotation was switched on.
		c.advance(100 * aDay)
		if err := enableRotation(r, k.ARN, 200); err != nil {
			t.Fatal(explain(err))
		}
		if got := status(t, r, k.ARN); !got.NextRotationDate.Equal(c.now().Add(100 * aDay)) {
			t.Errorf("next rotation %s, want in 100 days", got.NextRotationDate)
		}
		r.Restart(t)
		if got := status(t, r, k.ARN); !got.NextRotationDate.Equal(c.now().Add(100 * aDay)) {
			t.Errorf("after a restart: next rotation %s, want in 100 days", got.NextRotationDate)
		}
		if err := second(r.DisableKeyRotation(t.Context(), admin(), keyops.DisableKeyRotationInput{KeyID: k.ARN})); err != nil {
			t.Fatal(explain(err))
		}
		pass(t, r, c, 400*aDay, 100*aDay)
		if got := status(t, r, k.ARN); got.KeyRotationEnabled || rotations(t, r, k.ARN) != 0 {
			t.Errorf("switched off: %+v, %d rotations", got, rotations(t, r, k.ARN))
		}
	})
}

// TestAutomaticRotation rotates at each date, not a moment before, and says so.
func TestAutomaticRotation(t *testing.T) {
	kinds(t, func(t *testing.T, multiRegion bool) {
		r, c := onAClock(t)
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		if err := enableRotation(r, k.ARN, 90); err != nil {
			t.Fatal(explain(err))
		}
		pass(t, r, c, 90*aDay-time.Second, 10*aDay)
		if n := rotations(t, r, k.ARN); n != 0 {
			t.Fatal("rotated early")
		}
		for i := 1; i <= 3; i++ {
			pass(t, r, c, time.Second, time.Second)
			if n := rotations(t, r, k.ARN); n != i {
				t.Fatalf("%d rotations at date %d", n, i)
			}
			if got := status(t, r, k.ARN); !got.NextRotationDate.Equal(c.now().Add(90 * aDay)) {
				t.Errorf("next rotation %s, %s after this", got.NextRotationDate, got.NextRotationDate.Sub(c.now()))
			}
			pass(t, r, c, 90*aDay-time.Second, 10*aDay)
		}
		out, err := r.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: k.ARN})
		if err != nil {
			t.Fatal(explain(err))
		}
		for i, e := range out.Rotations {
			if e.RotationType != keyops.RotationAutomatic || e.KeyID != k.ARN || i > 0 && !e.RotationDate.Equal(out.Rotations[i-1].RotationDate.Add(90*aDay)) {
				t.Errorf("rotation %d: %+v", i, e)
			}
		}
		if records := events(t, r, "RotateKey"); len(records) != 3 || records[0].Outcome != "Success" || records[0].Details["keyMaterialId"] != out.Rotations[0].KeyMaterialID {
			t.Errorf("audited as %+v", records)
		}
		if left := status(t, r, k.ARN).OnDemandRotationsLeft; left != 25 {
			t.Errorf("automatic rotations cost %d of those on demand", 25-left)
		}
	})
}

// TestRotationOfAKeyThatIsOff: a disabled key is not rotated; enabled again it is, at once if
// its date has passed. A key that is pending deletion says that rotation is off, and keeps
// the setting.
func TestRotationOfAKeyThatIsOff(t *testing.T) {
	r, c := onAClock(t)
	k := create(t, r, keyops.CreateKeyInput{})
	if err := enableRotation(r, k.ARN, 90); err != nil {
		t.Fatal(explain(err))
	}
	off := func() error {
		return second(r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}))
	}
	on := func() error {
		return second(r.EnableKey(t.Context(), admin(), keyops.EnableKeyInput{KeyID: k.ARN}))
	}
	for _, step := range []struct {
		name    string
		do      func() error
		pass    time.Duration
		rotated int
	}{
		{"disabled before its date", off, 30 * aDay, 0},
		{"enabled before its date", on, 30 * aDay, 0},
		{"disabled until after its date", off, 60 * aDay, 0},
		{"enabled after its date", on, time.Minute, 1},
		{"and a period later", func() error { return nil }, 90 * aDay, 2},
	} {
		if err := step.do(); err != nil {
			t.Fatal(explain(err))
		}
		pass(t, r, c, step.pass, aDay)
		if n := rotations(t, r, k.ARN); n != step.rotated {
			t.Errorf("%s: %d rotations, want %d", step.name, n, step.rotated)
		}
	}
	schedule(t, r, k, 30)
	if got := status(t, r, k.ARN); got.KeyRotationEnabled || !got.NextRotationDate.IsZero() {
		t.Errorf("pending deletion: %+v", got)
	}
	if err := second(r.CancelKeyDeletion(t.Context(), admin(), keyops.CancelKeyDeletionInput{KeyID: k.ARN})); err != nil {
		t.Fatal(explain(err))
	}
	if got := status(t, r, k.ARN); !got.KeyRotationEnabled || got.RotationPeriodInDays != 90 {
		t.Errorf("cancelled: %+v", got)
	}
}

// TestRotationAndAClockThatWasAhead: a key that was rotated while the clock was a year ahead
// is rotated again within a period of the right time.
func TestRotationAndAClockThatWasAhead(t *testing.T) {
	kinds(t, func(t *testing.T, multiRegion bool) {
		r, c := onAClock(t)
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		if err := enableRotation(r, k.ARN, 90); err != nil {
			t.Fatal(explain(err))
		}
		work(t, r)
		c.set(365 * aDay)
		pass(t, r, c, time.Hour, time.Hour)
		if n := rotations(t, r, k.ARN); n != 1 {
			t.Fatalf("%d rotations while the clock is ahead", n)
		}
		c.set(-365 * aDay)
		work(t, r)
		if got := status(t, r, k.ARN); got.NextRotationDate.After(c.now().Add(90 * aDay)) {
			t.Errorf("next rotation %s, now %s", got.NextRotationDate, c.now())
		}
		pass(t, r, c, 90*aDay+time.Minute, aDay)
		if n := rotations(t, r, k.ARN); n != 2 {
			t.Errorf("%d rotations a period after the clock was put right", n)
		}
	})
}

// TestRotationsOnDemand: 25 in a key's life, and none beside one that is about to happen.
func TestRotationsOnDemand(t *testing.T) {
	kinds(t, func(t *testing.T, multiRegion bool) {
		r, c := onAClock(t)
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		if err := enableRotation(r, k.ARN, 90); err != nil {
			t.Fatal(explain(err))
		}
		next := status(t, r, k.ARN).NextRotationDate
		for i := range 24 {
			if err := rotate(r, k.ARN); err != nil {
				t.Fatal(explain(err))
			}
			if got := status(t, r, k.ARN); got.OnDemandRotationsLeft != 24-i || !got.NextRotationDate.Equal(next) {
				t.Errorf("after %d: %+v", i+1, got)
			}
		}
		pass(t, r, c, 90*aDay-20*time.Minute, aDay)
		if err := rotate(r, k.ARN); err != nil {
			t.Errorf("20 minutes before an automatic rotation: %v", explain(err))
		}
		c.advance(time.Second)
		want(t, rotate(r, k.ARN), keyops.ErrLimitExceeded, "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: "+k.ARN)
		other := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		if err := enableRotation(r, other.ARN, 90); err != nil {
			t.Fatal(explain(err))
		}
		pass(t, r, c, 90*aDay-20*time.Minute+time.Second, aDay)
		want(t, rotate(r, other.ARN), keyops.ErrConflict, "automatically")
		pass(t, r, c, 20*time.Minute, time.Minute)
		if n := rotations(t, r, k.ARN); n < 26 {
			t.Errorf("%d rotations: those on demand keep automatic ones from happening", n)
		}
	})
}

// TestOneRotationAtATime: of rotations that are asked for at once one happens, and the
// others are told.
func TestOneRotationAtATime(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	stuck, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		var f hsmtest.Fault
		if c.Op == "Generate" {
			once.Do(func() { close(stuck); f.Block = release })
		}
		return f
	})
	done := make(chan error)
	go func() { done <- rotate(r, k.ARN) }()
	<-stuck
	want(t, rotate(r, k.ARN), keyops.ErrConflict, "under way")
	if _, err := encryptWith(r, k); err != nil {
		t.Errorf("a rotation keeps the key from being used: %v", explain(err))
	}
	if err := second(r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN})); err != nil {
		t.Fatal(explain(err))
	}
	objects := len(r.Token.Objects())
	close(release)
	want(t, <-done, keyops.ErrDisabled, "is disabled")
	if len(r.Token.Objects()) != objects || rotations(t, r, k.ARN) != 0 {
		t.Errorf("a rotation that was refused at its end left its material: %d objects, then %d", objects, len(r.Token.Objects()))
	}
}

// TestOnlySymmetricKeysAreRotated: of all four operations.
func TestOnlySymmetricKeysAreRotated(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	for _, in := range []keyops.CreateKeyInput{
		{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}, {KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify},
	} {
		k := create(t, r, in)
		before := r.StoreHead()
		const text = "only symmetric encryption keys are rotated"
		want(t, rotate(r, k.ARN), keyops.ErrUnsupportedOperation, text)
		want(t, enableRotation(r, k.ARN, 90), keyops.ErrUnsupportedOperation, text)
		want(t, second(r.DisableKeyRotation(t.Context(), admin(), keyops.DisableKeyRotationInput{KeyID: k.ARN})), keyops.ErrUnsupportedOperation, text)
		want(t, second(r.GetKeyRotationStatus(t.Context(), admin(), keyops.GetKeyRotationStatusInput{KeyID: k.ARN})), keyops.ErrUnsupportedOperation, text)
		want(t, second(r.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: k.ARN})), keyops.ErrUnsupportedOperation, text)
		if r.StoreHead() != before {
			t.Error("a refusal changed the store")
		}
	}
}

// TestListKeyRotations: pages, both lists, and markers that are not this operation's.
func TestListKeyRotations(t *testing.T) {
	kinds(t, func(t *testing.T, multiRegion bool) {
		r := keyopstest.New(t, keyopstest.Options{})
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		for range 5 {
			if err := rotate(r, k.ARN); err != nil {
				t.Fatal(explain(err))
			}
		}
		list := func(in keyops.ListKeyRotationsInput) (keyops.ListKeyRotationsOutput, error) {
			in.KeyID = k.ARN
			return r.ListKeyRotations(t.Context(), admin(), in)
		}
		for _, tc := range []struct {
			include keyops.IncludeKeyMaterial
			entries int
		}{{"", 5}, {keyops.RotationsOnly, 5}, {keyops.AllKeyMaterial, 6}} {
			seen := map[string]bool{}
			var all []keyops.RotationsListEntry
			in := keyops.ListKeyRotationsInput{IncludeKeyMaterial: tc.include, Limit: 2}
			for range 4 {
				out, err := list(in)
				if err != nil {
					t.Fatal(explain(err))
				}
				if len(out.Rotations) > 2 || out.Truncated != (out.NextMarker != "") {
					t.Errorf("a page: %+v", out)
				}
				for _, e := range out.Rotations {
					seen[e.KeyMaterialID] = true
				}
				all = append(all, out.Rotations...)
				if in.Marker = out.NextMarker; !out.Truncated {
					break
				}
			}
			if len(all) != tc.entries || len(seen) != tc.entries {
				t.Fatalf("%q: %d entries, %d materials", tc.include, len(all), len(seen))
			}
			for i, e := range all {
				first := tc.include == keyops.AllKeyMaterial && i == 0
				state := keyops.MaterialNonCurrent
				if i == len(all)-1 {
					state = keyops.MaterialCurrent
				}
				if e.KeyMaterialState != state || first != e.RotationDate.IsZero() || first != (e.RotationType == "") || !first && e.RotationType != keyops.RotationOnDemand {
					t.Errorf("%q: entry %d: %+v", tc.include, i, e)
				}
			}
		}
		for _, n := range []int{-1, 1001} {
			_, err := list(keyops.ListKeyRotationsInput{Limit: n})
			want(t, err, keyops.ErrValidation, "limit")
		}
		for _, n := range []int{1, 1000} {
			if _, err := list(keyops.ListKeyRotationsInput{Limit: n}); err != nil {
				t.Error(explain(err))
			}
		}
		_, err := list(keyops.ListKeyRotationsInput{IncludeKeyMaterial: "SOME"})
		want(t, err, keyops.ErrValidation, "includeKeyMaterial")
		keys, err := r.ListKeys(t.Context(), admin(), keyops.ListKeysInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []string{"x", keys.NextMarker + "AAAA"} {
			_, err := list(keyops.ListKeyRotationsInput{Marker: m})
			want(t, err, keyops.ErrInvalidMarker, "")
		}
	})
}

// TestRotationOfRelatedKeys: a replica key's rotation is managed at the primary key. The new
// material is pending, and everybody encrypts with the old, until the replica holds it.
func TestRotationOfRelatedKeys(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	id := string(k.KeyID)
	for _, err := range []error{
		rotate(w.tokyo, id), enableRotation(w.tokyo, id, 90),
		second(w.tokyo.DisableKeyRotation(t.Context(), admin(), keyops.DisableKeyRotationInput{KeyID: id})),
	} {
		want(t, err, keyops.ErrUnsupportedOperation, "The primary key is in Region eu-paris-1")
	}
	if err := enableRotation(w.paris, id, 90); err != nil {
		t.Fatal(explain(err))
	}
	old := describe(t, w.paris, id).CurrentKeyMaterialID
	if err := rotate(w.paris, id); err != nil {
		t.Fatal(explain(err))
	}
	got := status(t, w.paris, id)
	if p := got.Progress; p == nil || len(p.Awaited) != 1 || p.Awaited[0] != "ap-tokyo-1" || len(p.Holding) != 1 || p.Type != keyops.RotationOnDemand || got.OnDemandRotationStartDate.IsZero() {
		t.Errorf("progress: %+v", got.Progress)
	}
	if now := describe(t, w.paris, id).CurrentKeyMaterialID; now != old {
		t.Error("the primary key encrypts with material that the replica lacks")
	}
	want(t, rotate(w.paris, id), keyops.ErrConflict, "under way")
	all, err := w.paris.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: id, IncludeKeyMaterial: keyops.AllKeyMaterial})
	if err != nil || len(all.Rotations) != 2 || all.Rotations[1].KeyMaterialState != keyops.MaterialPendingRotation || rotations(t, w.paris, id) != 0 {
		t.Errorf("%+v, %v", all, explain(err))
	}
	w.sync(t, k.KeyID)
	w.sync(t, k.KeyID)
	for _, r := range []*keyopstest.Region{w.paris, w.tokyo} {
		if now := describe(t, r, id).CurrentKeyMaterialID; now == old {
			t.Errorf("Region %s still encrypts with the old material", r.Options.Name)
		}
		if got := status(t, r, id); got.Progress != nil || !got.KeyRotationEnabled || got.RotationPeriodInDays != 90 {
			t.Errorf("Region %s: %+v", r.Options.Name, got)
		}
		if n := rotations(t, r, id); n != 1 {
			t.Errorf("Region %s lists %d rotations", r.Options.Name, n)
		}
	}
}
