package hsm

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
)

// TestReconnectWithoutFinalize loses the token in a way that new sessions cure.
func TestReconnectWithoutFinalize(t *testing.T) {
	k, f := openFaulty(t, 2)
	id := material(t, k, testAES)
	generation, before := k.module.generation.Load(), k.Calls()
	f.failing("C_Encrypt", pkcs11.CKR_DEVICE_REMOVED, 1)
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v, want %v", err, ErrUnavailable)
	}
	eventually(t, "the token to be back", func() bool {
		_, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil)
		return err == nil
	})
	if k.module.generation.Load() != generation {
		t.Error("the library was finalised")
	}
	after := k.Calls()
	opened, closed := after["C_OpenSession"]-before["C_OpenSession"], after["C_CloseSession"]-before["C_CloseSession"]
	if opened != 3 || closed != 3 {
		t.Errorf("%d sessions opened and %d closed, want the login's and two of each", opened, closed)
	}
}

// TestRefusedLoginIsNotRepeated answers the login of a reconnection with a wrong PIN.
func TestRefusedLoginIsNotRepeated(t *testing.T) {
	k, f := openFaulty(t, 1)
	id := NewID()
	if _, err := k.Generate(t.Context(), testAES, id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		again, _ := openFaulty(t, 1)
		if err := again.Destroy(t.Context(), id); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
	})
	generation := k.module.generation.Load()
	var logins atomic.Int64
	f.set(func(function string) error {
		switch function {
		case "C_Encrypt":
			return wrapError(function, pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED))
		case "C_Login":
			logins.Add(1)
			return wrapError(function, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT))
		}
		return nil
	})
	use := func() error { _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); return err }
	if err := use(); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v, want %v", err, ErrUnavailable)
	}
	eventually(t, "the refusal", func() bool { return errors.Is(use(), ErrPIN) })
	time.Sleep(5 * reconnectFirst)
	if got := logins.Load(); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	if k.module.generation.Load() != generation {
		t.Error("the library was finalised for a wrong PIN")
	}
}

// TestReinitialiseDropsConnections looks at what makes it safe: no handle of the old
// generation survives, since numbers start over.
func TestReinitialiseDropsConnections(t *testing.T) {
	a, _ := openFaulty(t, 1)
	b, _ := openFaulty(t, 1)
	id := material(t, a, testAES)
	oldA, oldB := a.conn.Load(), b.conn.Load()
	closed := a.Calls()["C_CloseSession"] + b.Calls()["C_CloseSession"]
	if err := a.module.reinitialise(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.conn.Load() == oldA || b.conn.Load() == oldB {
		t.Error("a connection outlived the library's state")
	}
	for _, k := range []*Token{a, b} {
		eventually(t, "the token to be back", func() bool {
			_, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil)
			return err == nil
		})
	}
	if got := a.Calls()["C_CloseSession"] + b.Calls()["C_CloseSession"] - closed; got != 0 {
		t.Errorf("%d sessions closed by numbers that are somebody else's by now", got)
	}
}

func TestSignerDistrustsTheToken(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id, other := NewID(), NewID()
	spki := map[ID][]byte{}
	for _, i := range []ID{id, other} {
		var err error
		if spki[i], err = k.Generate(t.Context(), testEC, i); err != nil {
			t.Fatal(err)
		}
		defer k.Destroy(t.Context(), i)
	}
	signer, err := k.Signer(t.Context(), id, spki[other])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(nil, make([]byte, 32), nil); !errors.Is(err, ErrModuleBroken) {
		t.Errorf("a signature of another key: %v, want %v", err, ErrModuleBroken)
	}
}
