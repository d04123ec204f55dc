package hsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
)

// Config says which token to open and how.
type Config struct {
	// Module is the absolute path of the PKCS#11 library.
	Module string
	// TokenLabel or TokenSerial, exactly one, chooses the token. Slots are never used, since
	// they change.
	TokenLabel  string
	TokenSerial string
	// PINFile holds the user PIN. Mode 0400 or 0600; with PINGroupReadable also 0440 or 0640.
	// It is read at every login and the PIN is not kept.
	PINFile          string
	PINGroupReadable bool
	// Profile is the vendor's; see LoadProfile.
	Profile Profile
	// Sessions is the size of the pool; 0 means the profile's.
	Sessions int
	// KnownTransport reports whether the ceremony's transcripts name this object as a
	// transport key; those that it does not know are quarantined. Nil means that there are no
	// transcripts to ask, which is right for ceremonies only.
	KnownTransport func(ID) bool
	// Observe is told of every operation that has ended, with the time that its caller waited;
	// nil: nobody is. It must return at once.
	Observe func(operation string, took time.Duration, err error)
	// Log receives alarms; nil discards them.
	Log logrus.FieldLogger
}

// Token is an open, logged-in token. All methods may be called at once. When a method
// returns the context's error, the token may still be reading its arguments: do not reuse
// their memory.
type Token struct {
	cfg    Config
	sel    selector
	log    logrus.FieldLogger
	module *module
	driver driver
	counts *counts
	info   Info
	known  Capabilities // without the boundary
	// hardware is what the token's slot says of itself. A software token that is not
	// SoftHSM says no as well.
	hardware bool

	boundary  atomic.Pointer[Boundary]
	index     *index
	writing   chan struct{} // holds one element while an object is written
	misses    *rate.Limiter // look-ups of objects that the index lacks
	suspicion *rate.Limiter // looks at the token after vague errors on clients' data

	conn   atomic.Pointer[connection] // nil while the token is away
	failed atomic.Pointer[error]      // why reconnection was given up

	mu     sync.Mutex // guards closed against reconnection
	closed bool
	stop   chan struct{}
}

// connection is one login at the token. It is replaced as a whole when the token went away.
type connection struct {
	slot       uint
	serial     string
	generation uint64               // of the library; handles of another generation are void
	login      pkcs11.SessionHandle // holds the login; no operation uses it once the connection is made
	pool       *pool
	signers    *crypto11.Context
}

// Limits of the look-ups that are not on the fast path.
const (
	missesPerSecond = 1
	missBurst       = 64
	suspicionEvery  = time.Second
)

// Open loads the module, logs in to the token and enumerates its objects once. A token
// that is missing and a PIN that is refused are errors here, so that a daemon does not
// start without its token.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	if err := cfg.Profile.Check(); err != nil {
		return nil, fmt.Errorf("profile %q: %w", cfg.Profile.Name, err)
	}
	if cfg.Log == nil {
		discard := logrus.New()
		discard.SetOutput(io.Discard)
		cfg.Log = discard
	}
	if cfg.Sessions == 0 {
		cfg.Sessions = cfg.Profile.Sessions
	}
	if cfg.Sessions < 1 || cfg.Sessions > maxSessions {
		return nil, fmt.Errorf("%d sessions, want 1 to %d, or 0 for the profile's: %w", cfg.Sessions, maxSessions, ErrCaller)
	}
	sel := selector{label: cfg.TokenLabel, serial: cfg.TokenSerial}
	m, signers, err := openModule(cfg.Module, sel)
	if err != nil {
		return nil, err
	}
	library, err := m.libraryInfo()
	if err != nil {
		return nil, err
	}
	if err := cfg.Profile.checkModule(library.ManufacturerID, library.LibraryDescription); err != nil {
		return nil, err
	}
	counts := newCounts()
	t := &Token{
		cfg: cfg, sel: sel, module: m, counts: counts,
		driver:    cryptoki{ctx: m.ctx, list: m.list, counts: counts},
		log:       cfg.Log,
		index:     newIndex(),
		writing:   make(chan struct{}, 1),
		misses:    rate.NewLimiter(missesPerSecond, missBurst),
		suspicion: rate.NewLimiter(rate.Every(suspicionEvery), 1),
		stop:      make(chan struct{}),
	}
	if !m.gate.enter() {
		return nil, fmt.Errorf("library is being initialised: %w", ErrUnavailable)
	}
	defer m.gate.leave()
	c, err := t.connect(ctx, signers)
	if err != nil {
		return nil, err
	}
	if err := t.describe(c, library); err != nil {
		return nil, err
	}
	if cfg.Profile.Layout == LayoutTwoTokens {
		t.log.WithField("profile", cfg.Profile.Name).Warn("profile wants single-Region and multi-Region material in two tokens, and this one holds both")
	}
	t.conn.Store(c)
	m.add(t)
	return t, nil
}

// connect finds the token, logs in, opens the sessions and enumerates the objects. The
// caller is inside the module's gate.
func (t *Token) connect(ctx context.Context, signers *crypto11.Context) (*connection, error) {
	slot, info, err := t.module.findSlot(t.sel)
	if err != nil {
		return nil, err
	}
	if t.info.Serial != "" && info.SerialNumber != t.info.Serial {
		// Whoever puts another token in its place would get the PIN, and what the self-test
		// found is not true of it.
		return nil, fmt.Errorf("token with %s has serial %q, not %q as at start: %w", t.sel, info.SerialNumber, t.info.Serial, ErrUnavailable)
	}
	c := &connection{slot: slot, serial: info.SerialNumber, generation: t.module.generation.Load(), signers: signers}
	var opened []pkcs11.SessionHandle
	defer func() {
		if c.pool == nil { // not made: leave no sessions behind
			t.closeAll(opened)
		}
	}()
	for range t.cfg.Sessions + 1 {
		s, err := t.driver.OpenSession(slot)
		if err != nil {
			return nil, fmt.Errorf("session %d of %d: %w", len(opened)+1, t.cfg.Sessions+1, err)
		}
		opened = append(opened, s)
		if len(opened) == 1 {
			if err := t.login(s); err != nil {
				return nil, err
			}
		}
	}
	found, err := t.enumerate(ctx, opened[0])
	if err != nil {
		return nil, err
	}
	if _, err := t.driver.TokenInfo(slot); err != nil { // else an empty enumeration proves nothing
		return nil, err
	}
	t.index.replace(found)
	c.login, c.pool = opened[0], newPool(opened[1:])
	return c, nil
}

func (t *Token) closeAll(sessions []pkcs11.SessionHandle) {
	for _, s := range sessions {
		_ = t.driver.CloseSession(s)
	}
}

// users maps logins to PKCS#11 user types.
var users = map[Login]uint{LoginUser: pkcs11.CKU_USER, LoginCryptoUser: crypto11.CryptoUser}

// login reads the PIN and spends it once.
func (t *Token) login(s pkcs11.SessionHandle) error {
	p, err := readPIN(t.cfg.PINFile, t.cfg.PINGroupReadable)
	if err != nil {
		return err
	}
	defer p.wipe()
	err = t.driver.Login(s, users[t.cfg.Profile.Login], p)
	if codeOf(err) == pkcs11.CKR_USER_ALREADY_LOGGED_IN {
		return nil // by another session of this process; the PIN was not looked at
	}
	return err
}

// connected returns the connection, or why there is none.
func (t *Token) connected() (*connection, error) {
	if c := t.conn.Load(); c != nil {
		return c, nil
	}
	if err := t.failed.Load(); err != nil {
		return nil, *err
	}
	return nil, ErrUnavailable
}

var errClosed = fmt.Errorf("token closed: %w", ErrUnavailable)

// Close ends the use of the token. Sessions and the login stay until the process ends:
// closing SoftHSM's sessions has crashed it, and C_Finalize would end every other token.
func (t *Token) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	close(t.stop)
	t.failed.Store(&errClosed)
	t.conn.Store(nil)
	t.module.remove(t)
}

// Info says which token this is.
func (t *Token) Info() Info { return t.info }

// Calls returns how often each PKCS#11 function was called since Open, leaving out those
// that were not. A function that takes two calls (C_EncryptInit, C_Encrypt) is one.
func (t *Token) Calls() map[string]uint64 { return t.counts.snapshot() }

// Sessions returns how many sessions of the pool are working, and how many there are; none
// while the token is away.
func (t *Token) Sessions() (inUse, total int) {
	c := t.conn.Load()
	if c == nil {
		return 0, 0
	}
	return cap(c.pool.idle) - len(c.pool.idle), cap(c.pool.idle)
}

func (t *Token) describe(c *connection, library pkcs11.Info) error {
	i, err := t.driver.TokenInfo(c.slot)
	if err != nil {
		return err
	}
	version := func(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
	t.info = Info{
		Label: i.Label, Serial: i.SerialNumber, Manufacturer: i.ManufacturerID, Model: i.Model,
		Firmware: version(i.FirmwareVersion), LibraryVersion: version(library.LibraryVersion), Profile: t.cfg.Profile.Name, Backup: t.cfg.Profile.Backup,
	}
	slot, err := t.module.ctx.GetSlotInfo(c.slot)
	if err != nil {
		return wrapError("C_GetSlotInfo", err)
	}
	t.hardware = slot.Flags&pkcs11.CKF_HW_SLOT != 0
	offers, err := t.module.offers(c.slot)
	if err != nil {
		return err
	}
	t.known = capabilities(t.cfg.Profile, offers)
	return nil
}

// Random returns 1 to MaxRandom bytes of the token's random number generator.
func (t *Token) Random(ctx context.Context, n int) ([]byte, error) {
	if n < 1 || n > MaxRandom {
		return nil, fmt.Errorf("%d random bytes, want 1 to %d: %w", n, MaxRandom, ErrCaller)
	}
	return do(ctx, t, call{op: "Random"}, func(_ *connection, s pkcs11.SessionHandle) ([]byte, error) {
		b, err := t.driver.GenerateRandom(s, n)
		if err == nil && len(b) != n {
			return nil, fmt.Errorf("%d random bytes instead of %d: %w", len(b), n, ErrModuleBroken)
		}
		return b, err
	})
}

// Health uses the token: it computes with an object of the index, or asks for a random
// number if there is none, and then asks the token who it is.
func (t *Token) Health(ctx context.Context) error {
	var err error
	if id, ok := t.index.one(UseMAC); ok {
		_, err = t.MAC(ctx, id, []byte("keyferry/health/v1"))
	} else if id, ok := t.index.one(UseBlocks); ok {
		_, err = t.EncryptBlocks(ctx, id, make([]byte, checkBlocks))
	}
	// One that was destroyed meanwhile is no fault of the token, nor is one without its value,
	// as a process leaves that was killed while the token wrote.
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCaller) && !errors.Is(err, ErrNotSupported) {
		return err
	}
	_, err = do(ctx, t, call{op: "Health"}, func(c *connection, s pkcs11.SessionHandle) (any, error) {
		if _, err := t.driver.GenerateRandom(s, 16); err != nil {
			return nil, err
		}
		return nil, t.probe(c)
	})
	return err
}
