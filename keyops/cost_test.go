package keyops_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestCostDoesNotGrowWithKeys: a call allocates the same beside ten keys and beside ten
// thousand, finds nothing in the token, and has no IV or key name made there.
func TestCostDoesNotGrowWithKeys(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Flush: time.Hour})
	k := create(t, r, keyops.CreateKeyInput{})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	blob, err := encryptWith(r, k)
	if err != nil {
		t.Fatal(err)
	}
	caller, ctx := admin(), context.Background()
	check := func(err error) {
		if err != nil {
			t.Fatal(explain(err))
		}
	}
	calls := map[string]func(){
		"Encrypt": func() {
			check(second(r.Encrypt(ctx, caller, keyops.EncryptInput{KeyID: k.ARN, Plaintext: x})))
		},
		"Encrypt by alias": func() {
			check(second(r.Encrypt(ctx, caller, keyops.EncryptInput{KeyID: "alias/a", Plaintext: x})))
		},
		"Decrypt":  func() { check(second(r.Decrypt(ctx, caller, keyops.DecryptInput{CiphertextBlob: blob}))) },
		"ListKeys": func() { check(second(r.ListKeys(ctx, caller, keyops.ListKeysInput{Limit: 5}))) },
	}
	measure := func() map[string]float64 {
		got := map[string]float64{}
		for name, call := range calls {
			// What runs beside the call is counted too, so the least of several counts.
			got[name] = testing.AllocsPerRun(50, call)
			for range 9 {
				got[name] = min(got[name], testing.AllocsPerRun(50, call))
			}
		}
		return got
	}
	r.PublishCopies(k.KeyID, 9)
	few := measure()
	r.PublishCopies(k.KeyID, 9990)
	many := measure()
	for name := range calls {
		t.Logf("%s: %v allocations", name, few[name])
		if d := many[name] - few[name]; d > 2 || d < -2 {
			t.Errorf("%s allocates %v times beside 10 keys, %v beside 10,000", name, few[name], many[name])
		}
	}
	if n := r.Fake.Calls()["C_FindObjects"] + r.Fake.Calls()["C_GenerateRandom"]; n != 0 {
		t.Errorf("%d look-ups and random numbers asked of the token", n)
	}
}

// TestNoLockAcrossTokenCalls: while the token is stuck in one call, the others go on, a
// change of the same key among them.
func TestNoLockAcrossTokenCalls(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	blob, err := encryptWith(r, k)
	if err != nil {
		t.Fatal(err)
	}
	stuck, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		var f hsmtest.Fault
		if c.Op == "EncryptGCM" {
			once.Do(func() { close(stuck); f.Block = release })
		}
		return f
	})
	done := make(chan error)
	go func() { _, err := encryptWith(r, k); done <- err }()
	<-stuck
	if err := decryptWith(r, blob); err != nil {
		t.Error(explain(err))
	}
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: k.ARN}); err != nil {
		t.Error(explain(err))
	}
	create(t, r, keyops.CreateKeyInput{})
	close(release)
	if err := <-done; err != nil {
		t.Error(explain(err))
	}
}

// TestConcurrentUse runs everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 10 {
				if blob, err := encryptWith(r, k); err == nil {
					if err := decryptWith(r, blob); err != nil && !isDisabled(err) {
						t.Error(explain(err))
					}
				} else if !isDisabled(err) {
					t.Error(explain(err))
				}
				var err error
				switch i {
				case 0:
					err = second(r.DisableKey(context.Background(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}))
				case 1:
					err = second(r.EnableKey(context.Background(), admin(), keyops.EnableKeyInput{KeyID: k.ARN}))
				case 2:
					err = second(r.CreateKey(context.Background(), admin(), keyops.CreateKeyInput{}))
				case 3:
					err = second(r.ListKeys(context.Background(), admin(), keyops.ListKeysInput{}))
				}
				if err != nil {
					t.Error(explain(err))
				}
			}
		})
	}
	wg.Wait()
	sound(t, r)
}

func isDisabled(err error) bool {
	return err.Error()[:len(keyops.ErrDisabled)] == string(keyops.ErrDisabled)
}

func TestEncryptionsAreCounted(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	head := r.StoreHead()
	for range 3 {
		if _, err := encryptWith(r, k); err != nil {
			t.Fatal(err)
		}
	}
	if n, reserved := r.Encryptions(k.KeyID); n != 3 || reserved != 1<<20 || r.StoreHead() != head {
		t.Errorf("%d encryptions, bound %d", n, reserved)
	}
	// Every count is below the stored bound before it happens, so a crash forgets none.
	r.SetEncryptions(k.KeyID, 1<<20)
	if _, err := encryptWith(r, k); err != nil {
		t.Fatal(explain(err))
	}
	if n, reserved := r.Encryptions(k.KeyID); n != 1<<20+1 || reserved != 1<<21 {
		t.Errorf("%d encryptions, bound %d", n, reserved)
	}
	r.Restart(t)
	if n, _ := r.Encryptions(k.KeyID); n != 1<<21 {
		t.Errorf("after a restart the count goes on at %d, want the bound", n)
	}
	r.SetEncryptions(k.KeyID, 1<<32-1)
	if _, err := encryptWith(r, k); err != nil {
		t.Fatal(explain(err))
	}
	blob, err := encryptWith(r, k)
	want(t, err, keyops.ErrLimitExceeded, "2^32")
	if len(blob) != 0 {
		t.Error("encrypted once too often")
	}
	_, err = r.GenerateDataKey(t.Context(), admin(), keyops.GenerateDataKeyInput{KeyID: k.ARN, NumberOfBytes: 1})
	want(t, err, keyops.ErrLimitExceeded, "2^32")
}

func BenchmarkEncrypt(b *testing.B) {
	r := keyopstest.New(b, keyopstest.Options{Flush: time.Second})
	k := create(b, r, keyops.CreateKeyInput{})
	key, err := r.DescribeKey(context.Background(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	if err != nil {
		b.Fatal(err)
	}
	caller, ctx := admin(), context.Background()
	object := materialObject(b, r, k.KeyID).ID
	start := time.Now()
	const bare = 2000
	for range bare {
		if _, _, err := r.Fake.EncryptGCM(ctx, object, x, x); err != nil {
			b.Fatal(err)
		}
	}
	token := time.Since(start) / bare
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Encrypt(ctx, caller, keyops.EncryptInput{KeyID: key.KeyMetadata.ARN, Plaintext: x}); err != nil {
			b.Fatal(explain(err))
		}
	}
	each := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(each)/float64(token), "x-bare-token")
}
