package hsm

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/sirupsen/logrus"
)

// eventually waits for something that a goroutine of the package does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within a minute", what)
}

func TestOverrunQuarantinesSession(t *testing.T) {
	k, f := openFaulty(t, 2)
	id := material(t, k, testAES)
	release := make(chan struct{})
	f.set(func(function string) error {
		if function == "C_Encrypt" {
			<-release
		}
		return nil
	})
	before := k.Calls()
	deadline := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, _, err := k.EncryptGCM(ctx, id, []byte("aad"), []byte("text"))
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("the caller waited %v for its deadline of 50 ms", took)
		}
		return err
	}
	var wg sync.WaitGroup
	for range 5 { // two are inside the module, three wait for a session
		wg.Go(func() {
			if err := deadline(); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("got %v, want the deadline and nothing about outcomes", err)
			}
		})
	}
	wg.Wait()
	// Both sessions are in quarantine: nobody else gets one, even now.
	if err := deadline(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with every session in quarantine: %v", err)
	}
	if opened := k.Calls()["C_OpenSession"] - before["C_OpenSession"]; opened != 0 {
		t.Errorf("%d sessions were opened while the module was stuck; it would never end", opened)
	}
	close(release)
	f.set(nil)
	for range 10 {
		if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), []byte("text")); err != nil {
			t.Fatalf("after the module came back: %v", err)
		}
	}
	eventually(t, "both sessions replaced", func() bool {
		now := k.Calls()
		return now["C_OpenSession"]-before["C_OpenSession"] == 2 && now["C_CloseSession"]-before["C_CloseSession"] == 2
	})
}

// TestDeadlinesUnderLoad lets callers leave at every moment of a call, which retires and
// closes sessions all the time, and expects the token to be as good as new.
func TestDeadlinesUnderLoad(t *testing.T) {
	k, _ := openFaulty(t, 3)
	id := material(t, k, testAES)
	var wg sync.WaitGroup
	var done, left atomic.Int64
	for i := range 6 {
		wg.Go(func() {
			for j := range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i*300+j)%150)*time.Microsecond)
				_, _, err := k.EncryptGCM(ctx, id, []byte("aad"), []byte("text"))
				cancel()
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					left.Add(1)
				default:
					t.Errorf("got %v, want a result or the deadline", err)
				}
			}
		})
	}
	wg.Wait()
	if left.Load() == 0 {
		t.Error("no caller left early, so nothing was tested")
	}
	eventually(t, "all sessions back", func() bool { return len(k.conn.Load().pool.idle) == 3 })
	for range 10 {
		if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), []byte("text")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOverrunWriteHasUnknownOutcome(t *testing.T) {
	k, f := openFaulty(t, 3)
	release := make(chan struct{})
	f.set(func(function string) error {
		if function == "C_GenerateKey" {
			<-release
		}
		return nil
	})
	first, second := NewID(), NewID()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := k.Generate(ctx, testAES, first); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("the write under way: got %v, want deadline and unknown outcome", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := k.Generate(ctx, testAES, second); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("the write behind it: got %v, want deadline and no doubt", err)
	}
	close(release)
	eventually(t, "the first write in the index", func() bool { _, err := k.Lookup(t.Context(), first); return err == nil })
	if _, err := k.Lookup(t.Context(), second); !errors.Is(err, ErrNotFound) {
		t.Errorf("the second write: %v, want %v", err, ErrNotFound)
	}
	if err := k.Destroy(t.Context(), first); err != nil {
		t.Fatal(err)
	}
}

// TestDeadSessions closes the pool's sessions in the token, which is what a network HSM does
// to idle ones.
func TestDeadSessions(t *testing.T) {
	k, _ := openFaulty(t, 2)
	id := material(t, k, testAES)
	for _, s := range k.conn.Load().pool.stack {
		if err := k.module.ctx.CloseSession(s); err != nil {
			t.Fatal(err)
		}
	}
	before := k.Calls()["C_OpenSession"]
	for range 4 {
		if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), []byte("text")); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.Calls()["C_OpenSession"] - before; got != 1 { // last in, first out: one is enough
		t.Errorf("%d sessions opened, want 1", got)
	}
}

// TestActiveOperation leaves an operation unfinished, as a bad call does in SoftHSM 2.6.1.
func TestActiveOperation(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	s := k.conn.Load().pool.stack[0]
	e, _ := k.index.get(id)
	params := pkcs11.NewGCMParams(make([]byte, 12), []byte("aad"), 128)
	defer params.Free()
	if err := k.module.ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, e.handle); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), []byte("text")); err != nil {
		t.Fatal(err)
	}
	if got := k.conn.Load().pool.stack[0]; got == s {
		t.Error("the session with the active operation is still in the pool")
	}
}

func TestSessionDeadTwice(t *testing.T) {
	k, f := openFaulty(t, 1)
	id := material(t, k, testAES)
	f.failing("C_Encrypt", pkcs11.CKR_SESSION_HANDLE_INVALID, 2)
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); !errors.Is(err, ErrSessionDead) {
		t.Errorf("got %v, want %v", err, ErrSessionDead)
	}
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestGarbageCausesNoChurn sends what clients can send for nothing. SoftHSM answers with
// CKR_GENERAL_ERROR, which must cost neither sessions nor logins nor many looks at the token.
func TestGarbageCausesNoChurn(t *testing.T) {
	k, _ := openFaulty(t, 2)
	id := material(t, k, testAES)
	conn, before, start := k.conn.Load(), k.Calls(), time.Now()
	const n = 2000
	for range n {
		if _, err := k.DecryptGCM(t.Context(), id, make([]byte, 12), []byte("aad"), make([]byte, 64)); !errors.Is(err, ErrDataInvalid) || errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v, want %v", err, ErrDataInvalid)
		}
	}
	after := k.Calls()
	for _, function := range []string{"C_OpenSession", "C_CloseSession", "C_Login", "C_FindObjects"} {
		if got := after[function] - before[function]; got != 0 {
			t.Errorf("%s was called %d times", function, got)
		}
	}
	if got, most := after["C_GetTokenInfo"]-before["C_GetTokenInfo"], uint64(time.Since(start)/suspicionEvery)+2; got > most {
		t.Errorf("%d looks at the token in %v, want at most %d", got, time.Since(start), most)
	}
	if k.conn.Load() != conn {
		t.Error("the connection was given up")
	}
}

func TestPanicBecomesError(t *testing.T) {
	k, f := openFaulty(t, 1)
	var log bytes.Buffer
	logger := logrus.New()
	logger.SetOutput(&log)
	k.log = logger
	id := material(t, k, testAES)
	f.set(func(function string) error {
		if function == "C_Encrypt" {
			panic("secret of the panic")
		}
		return nil
	})
	_, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil)
	if !errors.Is(err, ErrModuleBroken) {
		t.Errorf("got %v, want %v", err, ErrModuleBroken)
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(log.String(), "secret of the panic") {
		t.Error("the panic's value was told")
	}
	if !strings.Contains(log.String(), "goroutine") {
		t.Error("the log has no stack")
	}
	f.set(nil)
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestFailedWrites checks what a caller is told when a write fails in the token.
func TestFailedWrites(t *testing.T) {
	for _, c := range []struct {
		name     string
		function string
		code     uint
		want     error
		unknown  bool
	}{
		{"full", "C_GenerateKey", pkcs11.CKR_DEVICE_MEMORY, ErrTokenFull, true},
		{"refused", "C_GenerateKey", pkcs11.CKR_TEMPLATE_INCONSISTENT, ErrCaller, false},
		{"vague", "C_GenerateKey", pkcs11.CKR_GENERAL_ERROR, ErrModuleBroken, true},
		{"no such mechanism", "C_GenerateKey", pkcs11.CKR_MECHANISM_INVALID, ErrNotSupported, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, f := openFaulty(t, 1)
			f.failing(c.function, c.code, 1)
			id := NewID()
			_, err := k.Generate(t.Context(), testAES, id)
			if !errors.Is(err, c.want) || errors.Is(err, ErrOutcomeUnknown) != c.unknown {
				t.Errorf("got %v, want %v, outcome unknown: %v", err, c.want, c.unknown)
			}
			if _, err := k.Lookup(t.Context(), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("afterwards: %v, want %v", err, ErrNotFound)
			}
		})
	}
}

// TestReadBackFailureUndoes makes a key whose attributes cannot be read back.
func TestReadBackFailureUndoes(t *testing.T) {
	for _, spec := range []Spec{testAES, testEC} {
		k, f := openFaulty(t, 1)
		f.failing("C_GetAttributeValue", pkcs11.CKR_FUNCTION_FAILED, 1)
		id := NewID()
		if _, err := k.Generate(t.Context(), spec, id); !errors.Is(err, ErrModuleBroken) || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: got %v, want %v and the object undone", spec.Algorithm, err, ErrModuleBroken)
		}
		f.set(nil)
		if err := k.Rescan(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Lookup(t.Context(), id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: the object is there: %v", spec.Algorithm, err)
		}
	}
}

// TestStaleHandle gives the index a handle that the token does not know.
func TestStaleHandle(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	e, _ := k.index.get(id)
	e.handle = 0xDEAD
	k.index.put(e)
	before := k.Calls()["C_FindObjects"]
	for range 3 {
		if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.Calls()["C_FindObjects"] - before; got != 1 {
		t.Errorf("the token was searched %d times, want 1", got)
	}
}

func TestGate(t *testing.T) {
	var g gate
	if !g.enter() {
		t.Fatal("an open gate refuses")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closing with somebody inside: %v, want the deadline", err)
	}
	if !g.enter() {
		t.Error("after a close that failed the gate must be open")
	}
	done := make(chan error)
	go func() { done <- g.close(t.Context()) }()
	eventually(t, "closing", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.closed })
	if g.enter() {
		t.Error("a closing gate lets somebody in")
	}
	if err := g.close(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("closing twice: %v", err)
	}
	g.leave()
	select {
	case err := <-done:
		t.Fatalf("closed with one still inside: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	g.leave()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	g.open()
	if !g.enter() {
		t.Error("the gate is not open again")
	}
}
