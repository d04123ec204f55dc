package hsm

import (
	"context"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// faulty is a real token's driver that fails, blocks or panics when hook says so. It also
// checks that no session is ever used by two calls at once.
type faulty struct {
	driver
	t *testing.T

	mu   sync.Mutex
	hook func(function string) error
	busy map[pkcs11.SessionHandle]bool
}

// openFaulty opens the source token of TestMain behind a faulty driver.
func openFaulty(t *testing.T, sessions int) (*Token, *faulty) {
	t.Helper()
	tok := softhsmtest.Named("source")
	k, err := Open(context.Background(), Config{
		Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, Profile: SoftHSM2(), Sessions: sessions,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	f := &faulty{driver: k.driver, t: t, busy: map[pkcs11.SessionHandle]bool{}}
	k.driver = f
	return k, f
}

func (f *faulty) set(hook func(function string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// failing answers one function with a code, as often as told; -1 is for ever.
func (f *faulty) failing(function string, code uint, times int) {
	var mu sync.Mutex
	f.set(func(called string) error {
		mu.Lock()
		defer mu.Unlock()
		if called != function || times == 0 {
			return nil
		}
		times--
		return wrapError(function, pkcs11.Error(code))
	})
}

// enter marks the session as in use and asks the hook.
func (f *faulty) enter(function string, s pkcs11.SessionHandle) error {
	f.mu.Lock()
	hook := f.hook
	if f.busy[s] {
		f.t.Errorf("%s on session %d, which another call is using", function, s)
	}
	f.busy[s] = true
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(function)
}

func (f *faulty) leave(s pkcs11.SessionHandle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.busy, s)
}

func (f *faulty) ask(function string) error {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(function)
}

func (f *faulty) OpenSession(slot uint) (pkcs11.SessionHandle, error) {
	if err := f.ask("C_OpenSession"); err != nil {
		return 0, err
	}
	return f.driver.OpenSession(slot)
}

func (f *faulty) Login(s pkcs11.SessionHandle, user uint, p pin) error {
	if err := f.ask("C_Login"); err != nil {
		return err
	}
	return f.driver.Login(s, user, p)
}

func (f *faulty) TokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	if err := f.ask("C_GetTokenInfo"); err != nil {
		return pkcs11.TokenInfo{}, err
	}
	return f.driver.TokenInfo(slot)
}

func (f *faulty) GenerateKey(s pkcs11.SessionHandle, mechanism uint, t []Attribute) (pkcs11.ObjectHandle, error) {
	defer f.leave(s)
	if err := f.enter("C_GenerateKey", s); err != nil {
		return 0, err
	}
	return f.driver.GenerateKey(s, mechanism, t)
}

func (f *faulty) GenerateKeyPair(s pkcs11.SessionHandle, mechanism uint, public, private []Attribute) (pub, priv pkcs11.ObjectHandle, err error) {
	defer f.leave(s)
	if err := f.enter("C_GenerateKeyPair", s); err != nil {
		return 0, 0, err
	}
	return f.driver.GenerateKeyPair(s, mechanism, public, private)
}

func (f *faulty) DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	defer f.leave(s)
	if err := f.enter("C_DestroyObject", s); err != nil {
		return err
	}
	return f.driver.DestroyObject(s, o)
}

func (f *faulty) Attributes(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, types []uint) (map[uint][]byte, error) {
	defer f.leave(s)
	if err := f.enter("C_GetAttributeValue", s); err != nil {
		return nil, err
	}
	return f.driver.Attributes(s, o, types)
}

func (f *faulty) Encrypt(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	defer f.leave(s)
	if err := f.enter("C_Encrypt", s); err != nil {
		return nil, err
	}
	return f.driver.Encrypt(s, m, key, data)
}

func (f *faulty) Decrypt(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	defer f.leave(s)
	if err := f.enter("C_Decrypt", s); err != nil {
		return nil, err
	}
	return f.driver.Decrypt(s, m, key, data)
}

func (f *faulty) GenerateRandom(s pkcs11.SessionHandle, n int) ([]byte, error) {
	defer f.leave(s)
	if err := f.enter("C_GenerateRandom", s); err != nil {
		return nil, err
	}
	return f.driver.GenerateRandom(s, n)
}

// material makes an object for the duration of the test.
func material(t *testing.T, k *Token, spec Spec) ID {
	t.Helper()
	id := NewID()
	if _, err := k.Generate(t.Context(), spec, id); err != nil {
		t.Fatalf("generating %+v: %v", spec, err)
	}
	t.Cleanup(func() {
		if err := k.Destroy(context.Background(), id); err != nil {
			t.Errorf("destroying %s: %v", id, err)
		}
	})
	return id
}

var (
	testAES = Spec{Role: RoleMaterial, Algorithm: AES256, Name: "test"}
	testMAC = Spec{Role: RoleMaterial, Algorithm: HMACSHA256, Name: "test"}
	testEC  = Spec{Role: RoleMaterial, Algorithm: ECP256, Usage: UsageSign, Name: "test"}
)
