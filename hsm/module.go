package hsm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// module is the one PKCS#11 library of this process. PKCS#11 keeps its state per process
// and library, so there is one however many tokens are open.
type module struct {
	path string
	ctx  *pkcs11.Ctx
	list functionList
	gate gate
	// generation counts C_Initialize. Handles of one generation mean nothing in the next.
	generation atomic.Uint64

	mu     sync.Mutex
	tokens []*Token // every open token, told when the library is initialised anew
}

var process struct {
	mu     sync.Mutex
	module *module
}

// selector chooses a token by exactly one of label and serial number.
type selector struct{ label, serial string }

func (s selector) check() error {
	if (s.label == "") == (s.serial == "") {
		return fmt.Errorf("token label %q and serial %q: want exactly one: %w", s.label, s.serial, ErrCaller)
	}
	return nil
}

func (s selector) String() string {
	if s.label != "" {
		return fmt.Sprintf("label %q", s.label)
	}
	return fmt.Sprintf("serial %q", s.serial)
}

func (s selector) matches(info pkcs11.TokenInfo) bool {
	if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
		return false
	}
	return s.label != "" && info.Label == s.label || s.serial != "" && info.SerialNumber == s.serial
}

// openModule loads the library, or returns it if this process has it, with a crypto11
// context for the token.
//
// crypto11 goes first, because it takes CKR_CRYPTOKI_ALREADY_INITIALIZED for a failure,
// while the raw context need not. It is told that the token takes no login: the login state
// belongs to the process, so the login of the raw context serves both, and crypto11 neither
// sees the PIN nor, on a wrong one, calls C_Finalize beneath the tokens that are open.
func openModule(path string, sel selector) (*module, *crypto11.Context, error) {
	if err := sel.check(); err != nil {
		return nil, nil, err
	}
	if !filepath.IsAbs(path) {
		return nil, nil, fmt.Errorf("module %q: want an absolute path: %w", path, ErrCaller)
	}
	// One library under two names would be two entries in crypto11's table and fail there.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, nil, fmt.Errorf("finding module %q: %w: %w", path, ErrCaller, err)
	}
	path = real
	process.mu.Lock()
	defer process.mu.Unlock()
	if m := process.module; m != nil && m.path != path {
		return nil, nil, fmt.Errorf("module %q: this process has %q open, and has one module only: %w", path, m.path, ErrCaller)
	}
	signers, err := openCrypto11(path, sel)
	if err != nil {
		return nil, nil, err
	}
	if process.module != nil {
		return process.module, signers, nil
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, nil, fmt.Errorf("loading module %q: %w", path, ErrModuleBroken)
	}
	if err := initialise(ctx); err != nil {
		return nil, nil, err
	}
	list, err := loadedModule(path)
	if err != nil {
		return nil, nil, err
	}
	process.module = &module{path: path, ctx: ctx, list: list}
	return process.module, signers, nil
}

// openCrypto11 gives crypto11 two sessions: one that it holds and one that it signs with.
func openCrypto11(path string, sel selector) (signers *crypto11.Context, err error) {
	defer recovered("crypto11.Configure", &err)
	signers, err = crypto11.Configure(&crypto11.Config{
		Path: path, TokenLabel: sel.label, TokenSerial: sel.serial,
		LoginNotSupported: true, MaxSessions: 2, PoolWaitTimeout: signerWait,
	})
	if err != nil {
		return nil, fmt.Errorf("finding token with %s through %q: %w: %w", sel, path, ErrUnavailable, err)
	}
	return signers, nil
}

func initialise(ctx *pkcs11.Ctx) error {
	err := ctx.Initialize()
	var code pkcs11.Error
	if errors.As(err, &code) && code == pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED {
		return nil
	}
	return wrapError("C_Initialize", err)
}

// findSlot returns the one slot that holds the token. SoftHSM's slot numbers follow from
// serial numbers and change when a token is made anew, so they are looked up each time.
func (m *module) findSlot(sel selector) (slot uint, info pkcs11.TokenInfo, err error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return 0, info, wrapError("C_GetSlotList", err)
	}
	found := 0
	for _, s := range slots {
		i, err := m.ctx.GetTokenInfo(s)
		if err == nil && sel.matches(i) {
			slot, info, found = s, i, found+1
		}
	}
	switch found {
	case 0:
		return 0, info, fmt.Errorf("token with %s: %w", sel, ErrUnavailable)
	case 1:
		return slot, info, nil
	default:
		return 0, info, fmt.Errorf("%d tokens with %s: name one by its serial number: %w", found, sel, ErrCaller)
	}
}

// libraryInfo describes the library.
func (m *module) libraryInfo() (pkcs11.Info, error) {
	i, err := m.ctx.GetInfo()
	return i, wrapError("C_GetInfo", err)
}

// softHSM reports whether the library is SoftHSM, whatever the profile claims.
func (m *module) softHSM() bool {
	i, err := m.libraryInfo()
	return err == nil && (strings.Contains(i.ManufacturerID, "SoftHSM") || strings.Contains(i.LibraryDescription, "SoftHSM"))
}

// reinitialise finalises the library and initialises it again. It is the one place that
// calls C_Finalize, and needed: SoftHSM never again believes in a token whose directory was
// missing once, and network clients cache a lost connection. It is safe because the gate
// first refuses new calls on every token and then waits until none is running; a module
// that never returns from a call is not finalised.
//
// Session handles start over, so an old handle may soon name another token's session.
// Every token's connection is therefore dropped before the gate opens.
func (m *module) reinitialise(ctx context.Context) error {
	if err := m.gate.close(ctx); err != nil {
		return fmt.Errorf("waiting for running calls: %w", err)
	}
	defer m.gate.open()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tokens {
		t.drop(errReinitialised)
	}
	m.generation.Add(1)
	_ = m.ctx.Finalize() // CKR_CRYPTOKI_NOT_INITIALIZED after an earlier, failed C_Initialize
	return initialise(m.ctx)
}

// serves reports whether a token other than this one is there and in use.
func (m *module) serves(except *Token) bool {
	if !m.gate.enter() {
		return true // another token is initialising the library at this moment
	}
	defer m.gate.leave()
	m.mu.Lock()
	tokens := slices.Clone(m.tokens)
	m.mu.Unlock()
	for _, t := range tokens {
		if c := t.conn.Load(); t != except && c != nil && t.probe(c) == nil {
			return true
		}
	}
	return false
}

var errReinitialised = errors.New("library initialised anew")

func (m *module) add(t *Token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens = append(m.tokens, t)
}

func (m *module) remove(t *Token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens = slices.DeleteFunc(m.tokens, func(x *Token) bool { return x == t })
}
