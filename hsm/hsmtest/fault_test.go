package hsmtest_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

var (
	aes = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.AES256, Name: "test"}
	ec  = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.ECP256, Usage: hsm.UsageSign, Name: "test"}
	aad = []byte("aad")
)

// broken collects what a fake reports.
type broken []string

func (b *broken) Helper()                        {}
func (b *broken) Errorf(format string, a ...any) { *b = append(*b, fmt.Sprintf(format, a...)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFaults(t *testing.T) {
	f := hsmtest.NewFake(t, hsmtest.Options{})
	var fault hsmtest.Fault
	var seen []hsmtest.Call
	f.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		seen = append(seen, c)
		return fault
	})
	held := func(id hsm.ID) bool { _, err := f.Lookup(t.Context(), id); return err == nil }

	id := hsm.NewID()
	fault = hsmtest.Fault{Before: hsmtest.FailedNotApplied}
	if _, err := f.Generate(t.Context(), aes, id); !errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, hsm.ErrOutcomeUnknown) || held(id) {
		t.Errorf("failed before: %v, held: %v", err, held(id))
	}
	fault = hsmtest.Fault{After: hsmtest.FailedButApplied}
	if _, err := f.Generate(t.Context(), aes, id); !errors.Is(err, hsm.ErrOutcomeUnknown) || !held(id) {
		t.Errorf("failed after: %v, held: %v", err, held(id))
	}
	if err := f.Destroy(t.Context(), id); !errors.Is(err, hsm.ErrOutcomeUnknown) || held(id) {
		t.Errorf("destroyed with a fault after: %v, held: %v", err, held(id))
	}
	block := make(chan struct{})
	fault = hsmtest.Fault{Block: block}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.Random(ctx, 8); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("blocked: %v", err)
	}
	close(block)
	if _, err := f.Random(t.Context(), 8); err != nil {
		t.Errorf("released: %v", err)
	}
	if want := (hsmtest.Call{Op: "Generate", ID: id}); seen[0] != want {
		t.Errorf("the hook saw %+v first, want %+v", seen[0], want)
	}
	if got := f.Calls()["C_GenerateKey"]; got != 1 {
		t.Errorf("%d keys generated, want 1", got)
	}
}

func TestUnavailable(t *testing.T) {
	f := hsmtest.NewFake(t, hsmtest.Options{})
	id := hsm.NewID()
	_, err := f.Generate(t.Context(), aes, id)
	must(t, err)
	f.SetAvailable(false)
	if _, _, err := f.EncryptGCM(t.Context(), id, aad, nil); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("while away: %v", err)
	}
	if err := f.Health(t.Context()); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("health while away: %v", err)
	}
	if len(f.Objects()) != 1 {
		t.Error("what the token held is forgotten while it is away")
	}
	f.SetAvailable(true)
	if _, _, err := f.EncryptGCM(t.Context(), id, aad, nil); err != nil {
		t.Errorf("back again: %v", err)
	}
}

func TestInvariants(t *testing.T) {
	t.Run("a destroyed ID is written again", func(t *testing.T) {
		var b broken
		f := hsmtest.NewFake(&b, hsmtest.Options{})
		id := hsm.NewID()
		_, err := f.Generate(t.Context(), aes, id)
		must(t, err)
		must(t, f.Destroy(t.Context(), id))
		if len(b) != 0 {
			t.Fatalf("too early: %v", b)
		}
		_, err = f.Generate(t.Context(), aes, id)
		must(t, err)
		if len(b) != 1 {
			t.Errorf("reported %v, want one", b)
		}
	})
	t.Run("an IV comes twice", func(t *testing.T) {
		var b broken
		f := hsmtest.NewFake(&b, hsmtest.Options{Rand: zeros{}})
		id := hsm.NewID()
		_, err := f.Generate(t.Context(), aes, id)
		must(t, err)
		for range 2 {
			_, _, err := f.EncryptGCM(t.Context(), id, aad, nil)
			must(t, err)
		}
		if len(b) != 1 {
			t.Errorf("reported %v, want one", b)
		}
	})
	t.Run("a call after Close", func(t *testing.T) {
		var b broken
		f := hsmtest.NewFake(&b, hsmtest.Options{})
		f.Close()
		_, err := f.Random(t.Context(), 8)
		must(t, err)
		if len(b) != 1 {
			t.Errorf("reported %v, want one", b)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestSnapshotAndRestore(t *testing.T) {
	f := hsmtest.NewFake(t, hsmtest.Options{})
	kept, gone, later := hsm.NewID(), hsm.NewID(), hsm.NewID()
	for _, id := range []hsm.ID{kept, gone} {
		_, err := f.Generate(t.Context(), aes, id)
		must(t, err)
	}
	iv, sealed, err := f.EncryptGCM(t.Context(), gone, aad, []byte("text"))
	must(t, err)
	backup := f.Snapshot()
	must(t, f.Destroy(t.Context(), gone))
	_, err = f.Generate(t.Context(), aes, later)
	must(t, err)

	f.Restore(backup)
	if got, err := f.DecryptGCM(t.Context(), gone, iv, aad, sealed); err != nil || string(got) != "text" {
		t.Errorf("what was destroyed after the backup: %q, %v", got, err)
	}
	if _, err := f.Lookup(t.Context(), later); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("what was made after the backup: %v", err)
	}
	must(t, f.Destroy(t.Context(), kept)) // does not reach into the backup
	f.Restore(backup)
	if len(f.Objects()) != 2 {
		t.Errorf("%d objects restored, want 2", len(f.Objects()))
	}
	f.Restore(hsmtest.Snapshot{})
	if len(f.Objects()) != 0 {
		t.Error("the empty snapshot left objects")
	}
}

func TestPlant(t *testing.T) {
	f := hsmtest.NewFake(t, hsmtest.Options{})
	id := hsm.NewID()
	must(t, f.Plant(aes, id, make([]byte, 32)))
	o, err := f.Lookup(t.Context(), id)
	must(t, err)
	if o.Local || o.AlwaysSensitive || !o.Extractable {
		t.Errorf("planted %+v: want the history of a known key", o)
	}
	if err := f.Plant(aes, id, nil); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("planted twice: %v", err)
	}
}

// TestSeededRunsAreEqual is what simulations rest on.
func TestSeededRunsAreEqual(t *testing.T) {
	run := func(seed uint64) []byte {
		var trace bytes.Buffer
		source := hsmtest.NewFake(t, hsmtest.Options{Label: "a", Rand: rand.NewChaCha8([32]byte{byte(seed)})})
		destination := hsmtest.NewFake(t, hsmtest.Options{Label: "b", Rand: rand.NewChaCha8([32]byte{byte(seed), 1})})
		keys := hsmtest.Establish(source, destination, "test")
		for i, spec := range []hsm.Spec{aes, ec} {
			id := hsm.ID{byte(i)}
			spki, err := source.Generate(t.Context(), spec, id)
			must(t, err)
			class, err := hsm.ClassOf(spec.Algorithm, spec.Usage)
			must(t, err)
			wrapped, err := source.Wrap(t.Context(), keys[class].Source, id)
			must(t, err)
			must(t, destination.Unwrap(t.Context(), keys[class].Destination, spec, id, wrapped))
			trace.Write(spki)
			trace.Write(wrapped)
		}
		signature, err := destination.Sign(t.Context(), hsm.ID{1}, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA256}, make([]byte, 32))
		must(t, err)
		trace.Write(signature)
		for _, o := range append(source.Objects(), destination.Objects()...) {
			fmt.Fprintln(&trace, o)
		}
		return trace.Bytes()
	}
	if !bytes.Equal(run(1), run(1)) {
		t.Error("one seed, two traces")
	}
	if bytes.Equal(run(1), run(2)) {
		t.Error("two seeds, one trace")
	}
}

func TestAlgorithmsThatTheTokenLacks(t *testing.T) {
	f := hsmtest.NewFake(t, hsmtest.Options{Algorithms: []hsm.Algorithm{hsm.AES256}})
	if _, err := f.Generate(t.Context(), ec, hsm.NewID()); !errors.Is(err, hsm.ErrNotSupported) {
		t.Errorf("got %v, want %v", err, hsm.ErrNotSupported)
	}
	if f.Capabilities().Of(hsm.ECP256, hsm.UsageSign).Generate {
		t.Error("the capabilities claim it")
	}
}
