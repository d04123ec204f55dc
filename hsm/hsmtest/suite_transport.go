package hsmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/spki"
)

// suiteTransport sends one material of each kind and finds the same key at the other end.
func suiteTransport(t *testing.T, h Harness) {
	all := []hsm.Spec{sharedEC3, shared(hsm.ECP521, hsm.UsageSign), shared(hsm.ECSecp256k1, hsm.UsageSign), shared(hsm.ECP521, hsm.UsageAgree)}
	for _, class := range hsm.Classes {
		all = append(all, sharedSpecs[class])
	}
	for _, spec := range all {
		t.Run(string(spec.Algorithm)+string(spec.Usage), func(t *testing.T) {
			here, spki := generate(t, h.Source, spec)
			keys := h.Transport[classOf(t, spec)]
			wrapped, err := h.Source.Wrap(t.Context(), keys.Source, here)
			if err != nil {
				t.Fatal(err)
			}
			there := hsm.NewID()
			if err := h.Destination.Unwrap(t.Context(), keys.Destination, spec, there, wrapped); err != nil {
				t.Fatal(err)
			}
			destroyAfter(t, h.Destination, there)
			want := hsm.Object{ID: there, Spec: spec, Extractable: true, WrapWithTrusted: true}
			if got, err := h.Destination.Lookup(t.Context(), there); err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
			if err := h.Destination.Rescan(t.Context()); err != nil || !contains(h.Destination, there) {
				t.Errorf("after a rescan it is gone: %v, quarantined %+v", err, h.Destination.Quarantined())
			}
			sameKey(t, h, spec, here, there, spki)
			err = h.Destination.Unwrap(t.Context(), keys.Destination, spec, there, wrapped)
			wantError(t, "unwrapping under a taken ID", err, hsm.ErrExists)
		})
	}
}

func sameKey(t *testing.T, h Harness, spec hsm.Spec, here, there hsm.ID, der []byte) {
	t.Helper()
	ctx := t.Context()
	switch {
	case spec.Algorithm == hsm.AES256:
		iv, sealed, err := h.Source.EncryptGCM(ctx, here, aad, []byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Destination.DecryptGCM(ctx, there, iv, aad, sealed); err != nil || string(got) != "text" {
			t.Errorf("decrypted elsewhere: %q, %v", got, err)
		}
		a, errA := h.Source.EncryptBlocks(ctx, here, make([]byte, 32))
		b, errB := h.Destination.EncryptBlocks(ctx, there, make([]byte, 32))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("blocks %x, %v and %x, %v", a, errA, b, errB)
		}
	case spec.Algorithm.Secret():
		a, errA := h.Source.MAC(ctx, here, []byte("text"))
		b, errB := h.Destination.MAC(ctx, there, []byte("text"))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("MACs %x, %v and %x, %v", a, errA, b, errB)
		}
	case spec.Usage == hsm.UsageAgree:
		point := generator(spec.Algorithm.Curve())
		a, errA := h.Source.Agree(ctx, here, point)
		b, errB := h.Destination.Agree(ctx, there, point)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("secrets %x, %v and %x, %v", a, errA, b, errB)
		}
	case spec.Usage == hsm.UsageDecrypt:
		public, err := spki.Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			sealed, err := rsa.EncryptOAEP(hash.New(), rand.Reader, public.(*rsa.PublicKey), text, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := h.Destination.DecryptOAEP(ctx, there, hash, sealed); err != nil || !bytes.Equal(got, text) {
				t.Errorf("opened elsewhere: %q, %v", got, err)
			}
		}
	default:
		scheme := hsm.RegionScheme
		if spec.Algorithm.ModulusBits() != 0 {
			scheme.Padding = hsm.PSS
		}
		digest := bytes.Repeat([]byte{7}, 48)
		signature, err := h.Destination.Sign(ctx, there, scheme, digest)
		if err != nil || !verifies(t, der, scheme, digest, signature) {
			t.Errorf("signed elsewhere: %v", err)
		}
	}
}

func classOf(t *testing.T, spec hsm.Spec) hsm.Class {
	t.Helper()
	class, err := hsm.ClassOf(spec.Algorithm, spec.Usage)
	if err != nil {
		t.Fatal(err)
	}
	return class
}

// suiteTransportRefuses tries every wrong pairing of keys.
func suiteTransportRefuses(t *testing.T, h Harness) {
	ctx := t.Context()
	specs := sharedSpecs
	ids := map[hsm.Class]hsm.ID{}
	for class, spec := range specs {
		ids[class], _ = generate(t, h.Source, spec)
	}
	local, _ := generate(t, h.Source, localAES)
	there, _ := generate(t, h.Destination, sharedAES)
	for class, keys := range h.Transport {
		for other, id := range ids {
			if other != class {
				_, err := h.Source.Wrap(ctx, keys.Source, id)
				wantError(t, fmt.Sprintf("wrapping class %s under class %s", other, class), err, hsm.ErrCaller)
			}
		}
		for name, id := range map[string]hsm.ID{"single-Region material": local, "a transport key": keys.Source} {
			_, err := h.Source.Wrap(ctx, keys.Source, id)
			wantError(t, "wrapping "+name, err, hsm.ErrCaller)
		}
		_, err := h.Source.Wrap(ctx, ids[hsm.ClassAES], ids[class])
		wantError(t, "wrapping under material", err, hsm.ErrCaller)
		_, err = h.Destination.Wrap(ctx, keys.Destination, there)
		wantError(t, "wrapping under a destination key", err, hsm.ErrCaller)
		_, err = h.Source.Wrap(ctx, hsm.NewID(), ids[class])
		wantError(t, "wrapping under nothing", err, hsm.ErrNotFound)

		wrapped, err := h.Source.Wrap(ctx, keys.Source, ids[class])
		if err != nil {
			t.Fatal(err)
		}
		refused := func(name string, tok Token, key hsm.ID, spec hsm.Spec, want error) {
			id := hsm.NewID()
			wantError(t, name, tok.Unwrap(ctx, key, spec, id, wrapped), want)
			if contains(tok, id) {
				t.Errorf("%s: refused, and yet made", name)
			}
		}
		for other, spec := range specs {
			if other != class {
				refused(fmt.Sprintf("class %s as %s", class, other), h.Destination, keys.Destination, spec, hsm.ErrCaller)
				// The blob of one class under the key of another fails in the token.
				want := hsm.ErrDataInvalid
				refused(fmt.Sprintf("class %s under the key of %s", class, other), h.Destination, h.Transport[other].Destination, spec, want)
			}
		}
		spec := specs[class]
		refused("unwrapping with a source key", h.Source, keys.Source, spec, hsm.ErrCaller)
		refused("unwrapping with material", h.Destination, there, spec, hsm.ErrCaller)
		spec.Role = hsm.RoleMaterial
		refused("as single-Region material", h.Destination, keys.Destination, spec, hsm.ErrCaller)
	}
}

// suiteTransportDamaged changes blobs and expects that nothing is left behind.
func suiteTransportDamaged(t *testing.T, h Harness) {
	ctx := t.Context()
	for _, spec := range []hsm.Spec{sharedAES, sharedMAC, sharedEC} {
		id, _ := generate(t, h.Source, spec)
		keys := h.Transport[classOf(t, spec)]
		wrapped, err := h.Source.Wrap(ctx, keys.Source, id)
		if err != nil {
			t.Fatal(err)
		}
		before := len(h.Destination.Objects())
		damaged := [][]byte{nil, {}, wrapped[:8], wrapped[:len(wrapped)-8], append(bytes.Clone(wrapped), make([]byte, 8)...), wrapped[1:], make([]byte, 8192)}
		for i := range wrapped {
			b := bytes.Clone(wrapped)
			b[i] ^= 0x80
			damaged = append(damaged, b)
		}
		for i, b := range damaged {
			err := h.Destination.Unwrap(ctx, keys.Destination, spec, hsm.NewID(), b)
			wantError(t, fmt.Sprintf("%s damaged in way %d", spec.Algorithm, i), err, hsm.ErrDataInvalid)
		}
		if err := h.Destination.Rescan(ctx); err != nil {
			t.Fatal(err)
		}
		if after := len(h.Destination.Objects()); after != before {
			t.Errorf("%d objects after damaged blobs, %d before", after, before)
		}
	}
}

func suiteContext(t *testing.T, h Harness) {
	aes, _ := generate(t, h.Source, sharedAES)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id := hsm.NewID()
	for name, call := range map[string]func() error{
		"Generate":   func() error { _, err := h.Source.Generate(ctx, sharedAES, id); return err },
		"Destroy":    func() error { return h.Source.Destroy(ctx, aes) },
		"EncryptGCM": func() error { _, _, err := h.Source.EncryptGCM(ctx, aes, aad, nil); return err },
		"Random":     func() error { _, err := h.Source.Random(ctx, 8); return err },
		"Wrap":       func() error { _, err := h.Source.Wrap(ctx, h.Transport[hsm.ClassAES].Source, aes); return err },
		"Rescan":     func() error { return h.Source.Rescan(ctx) },
		"Health":     func() error { return h.Source.Health(ctx) },
	} {
		err := call()
		wantError(t, name+" with a cancelled context", err, context.Canceled)
		if errors.Is(err, hsm.ErrOutcomeUnknown) {
			t.Errorf("%s: outcome said to be unknown, although nothing was begun", name)
		}
	}
	if contains(h.Source, id) || !contains(h.Source, aes) {
		t.Error("a call with a cancelled context changed the token")
	}
}

// suiteConcurrent mixes readers and writers.
func suiteConcurrent(t *testing.T, h Harness) {
	shared, _ := generate(t, h.Source, sharedAES)
	ctx := t.Context()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 40 {
				text := fmt.Appendf(nil, "text %d", i)
				iv, sealed, err := h.Source.EncryptGCM(ctx, shared, aad, text)
				if err != nil {
					t.Errorf("encrypting: %v", err)
					return
				}
				if got, err := h.Source.DecryptGCM(ctx, shared, iv, aad, sealed); err != nil || !bytes.Equal(got, text) {
					t.Errorf("got %q, %v; want %q", got, err, text)
				}
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			for range 4 {
				id := hsm.NewID()
				if _, err := h.Source.Generate(ctx, sharedMAC, id); err != nil {
					t.Errorf("generating: %v", err)
					return
				}
				if _, err := h.Source.MAC(ctx, id, text); err != nil {
					t.Errorf("using: %v", err)
				}
				if err := h.Source.Destroy(ctx, id); err != nil {
					t.Errorf("destroying: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

var text = []byte("text")

// suiteCalls expects one call of the token for one operation, and no search.
func suiteCalls(t *testing.T, h Harness) {
	ctx := t.Context()
	id, _ := generate(t, h.Source, sharedAES)
	keys := h.Transport[hsm.ClassAES]
	there := hsm.NewID()
	before, beforeThere := h.Source.Calls(), h.Destination.Calls()
	wrapped, err := h.Source.Wrap(ctx, keys.Source, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Destination.Unwrap(ctx, keys.Destination, sharedAES, there, wrapped); err != nil {
		t.Fatal(err)
	}
	destroyAfter(t, h.Destination, there)
	for range 10 {
		if _, _, err := h.Source.EncryptGCM(ctx, id, aad, text); err != nil {
			t.Fatal(err)
		}
	}
	after, afterThere := h.Source.Calls(), h.Destination.Calls()
	for function, want := range map[string]uint64{
		"C_WrapKey": 1, "C_Encrypt": 10, "C_FindObjects": 0, "C_GenerateRandom": 0, "C_OpenSession": 0, "C_GetAttributeValue": 0,
	} {
		if got := after[function] - before[function]; got != want {
			t.Errorf("source: %s was called %d times, want %d", function, got, want)
		}
	}
	for function, want := range map[string]uint64{"C_UnwrapKey": 1, "C_FindObjects": 0} {
		if got := afterThere[function] - beforeThere[function]; got != want {
			t.Errorf("destination: %s was called %d times, want %d", function, got, want)
		}
	}
}
