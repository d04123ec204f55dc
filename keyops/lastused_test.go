package keyops_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

func lastUsage(t *testing.T, r *keyopstest.Region, k keyops.KeyMetadata) keyops.GetKeyLastUsageOutput {
	t.Helper()
	out, err := r.GetKeyLastUsage(t.Context(), admin(), keyops.GetKeyLastUsageInput{KeyID: k.ARN})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out
}

// TestLastUsage: operations that used the key count, and what failed, was a dry run, or only
// read does not.
func TestLastUsage(t *testing.T) {
	r, c := onAClock(t)
	began := c.now()
	c.advance(time.Hour)
	k := create(t, r, keyops.CreateKeyInput{})
	pair := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify})
	if got := lastUsage(t, r, k); got.KeyLastUsage != nil || !got.TrackingStartDate.Equal(c.now()) || !got.KeyCreationDate.Equal(c.now()) || got.KeyID != k.ARN {
		t.Errorf("a new key: %+v, began %s", got, began)
	}
	blob, err := encryptWith(r, k)
	if err != nil {
		t.Fatal(explain(err))
	}
	c.advance(time.Minute)
	caller := admin()
	caller.RequestID = "the-request"
	if _, err := r.Decrypt(t.Context(), caller, keyops.DecryptInput{CiphertextBlob: blob}); err != nil {
		t.Fatal(explain(err))
	}
	used := keyops.KeyLastUsage{Operation: "Decrypt", Timestamp: c.now(), KmsRequestID: "the-request"}
	c.advance(time.Minute)
	for name, call := range map[string]func() error{
		"DescribeKey": func() error {
			return second(r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN}))
		},
		"dry run": func() error {
			return second(r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x, DryRun: true}))
		},
		"wrong context": func() error {
			return second(r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: blob, EncryptionContext: map[string]string{"a": "b"}}))
		},
		"refused": func() error {
			return second(r.Encrypt(t.Context(), keyopstest.User("mallory"), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x}))
		},
		"of another key": func() error {
			return second(r.Sign(t.Context(), admin(), keyops.SignInput{KeyID: pair.ARN, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256}))
		},
	} {
		_ = call()
		if got := lastUsage(t, r, k); got.KeyLastUsage == nil || *got.KeyLastUsage != used {
			t.Errorf("after %s: %+v, want %+v", name, got.KeyLastUsage, used)
		}
	}
	if got := lastUsage(t, r, pair); got.KeyLastUsage == nil || got.KeyLastUsage.Operation != "Sign" {
		t.Errorf("the key pair: %+v", got.KeyLastUsage)
	}
	c.advance(time.Minute)
	if _, err := r.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: pair.ARN}); err != nil {
		t.Fatal(explain(err))
	}
	if got := lastUsage(t, r, pair); got.KeyLastUsage.Operation != "Sign" {
		t.Errorf("reading the public key counts: %+v", got.KeyLastUsage)
	}
	other := create(t, r, keyops.CreateKeyInput{})
	if _, err := r.ReEncrypt(t.Context(), admin(), keyops.ReEncryptInput{CiphertextBlob: blob, DestinationKeyID: other.ARN}); err != nil {
		t.Fatal(explain(err))
	}
	for _, k := range []keyops.KeyMetadata{k, other} {
		if got := lastUsage(t, r, k); got.KeyLastUsage == nil || got.KeyLastUsage.Operation != "ReEncrypt" {
			t.Errorf("after ReEncrypt: %+v", got.KeyLastUsage)
		}
	}
}

// TestLastUsageIsWrittenDown: every ten minutes and at the end, in no call. A crash forgets
// what is not written down, and the count since when anything is known stays.
func TestLastUsageIsWrittenDown(t *testing.T) {
	r, c := onAClock(t)
	k := create(t, r, keyops.CreateKeyInput{})
	since := lastUsage(t, r, k).TrackingStartDate
	work(t, r) // writes down the clock
	head := r.StoreHead()
	if _, err := encryptWith(r, k); err != nil {
		t.Fatal(explain(err))
	}
	first := c.now()
	work(t, r)
	if r.StoreHead() != head {
		t.Error("a call, or the worker right after it, wrote to the store")
	}
	pass(t, r, c, 11*time.Minute, time.Minute)
	if r.StoreHead() == head {
		t.Error("nothing was written down after ten minutes")
	}
	if _, err := encryptWith(r, k); err != nil {
		t.Fatal(explain(err))
	}
	r.Restart(t) // without the end of Run, as after a crash
	if got := lastUsage(t, r, k); got.KeyLastUsage == nil || !got.KeyLastUsage.Timestamp.Equal(first) || !got.TrackingStartDate.Equal(since) {
		t.Errorf("after a crash: %+v, want %s and %s", got.KeyLastUsage, first, since)
	}
	c.advance(time.Minute)
	if _, err := encryptWith(r, k); err != nil {
		t.Fatal(explain(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	cancel()
	<-done
	last := c.now()
	c.advance(time.Minute)
	r.Restart(t)
	if got := lastUsage(t, r, k); !got.KeyLastUsage.Timestamp.Equal(last) {
		t.Errorf("after a clean end: %s, want %s", got.KeyLastUsage.Timestamp, last)
	}
	// Unused keys are not written again.
	pass(t, r, c, 15*time.Minute, time.Minute) // the clock was written down after eleven
	work(t, r)
	head = r.StoreHead()
	c.advance(time.Minute)
	work(t, r)
	if r.StoreHead() != head {
		t.Error("the worker writes although nothing happened")
	}
}
