package hsm_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/softhsm"
)

// own returns the token of a child process's store.
func own(t *testing.T, label string) softhsm.Token {
	t.Helper()
	tok, err := softhsm.Open(t.Context(), filepath.Dir(os.Getenv(softhsm.ConfEnv)), label)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestOpenBySerial(t *testing.T) {
	if !child(t, "one", "two") {
		return
	}
	want := own(t, "two")
	cfg := config(want)
	cfg.TokenLabel, cfg.TokenSerial = "", want.Serial
	tok := openWith(t, cfg)
	if got := tok.Info(); got.Label != "two" || got.Serial != want.Serial {
		t.Errorf("opened %+v, want serial %q", got, want.Serial)
	}
}

func TestOpenRefuses(t *testing.T) {
	if !child(t, "one") {
		return
	}
	good := config(own(t, "one"))
	for _, c := range []struct {
		name   string
		change func(*hsm.Config)
		want   error
		says   string
	}{
		{"label and serial", func(c *hsm.Config) { c.TokenSerial = "1" }, hsm.ErrCaller, "exactly one"},
		{"neither", func(c *hsm.Config) { c.TokenLabel = "" }, hsm.ErrCaller, "exactly one"},
		{"relative module", func(c *hsm.Config) { c.Module = "libsofthsm2.so" }, hsm.ErrCaller, "absolute"},
		{"missing module", func(c *hsm.Config) { c.Module = "/nowhere/lib.so" }, hsm.ErrCaller, "/nowhere/lib.so"},
		{"missing token", func(c *hsm.Config) { c.TokenLabel = "elsewhere" }, hsm.ErrUnavailable, `label "elsewhere"`},
		{"no profile", func(c *hsm.Config) { c.Profile = hsm.Profile{} }, hsm.ErrCaller, "profile"},
		{"a profile that SoftHSM breaks", func(c *hsm.Config) {
			c.Profile.GCM.IV, c.Profile.GCM.IVBytes = hsm.IVAppended, 16
		}, hsm.ErrCaller, "makes no IVs"},
		{"negative sessions", func(c *hsm.Config) { c.Sessions = -1 }, hsm.ErrCaller, "-1 sessions"},
		{"no PIN file", func(c *hsm.Config) { c.PINFile = "/nowhere/pin" }, hsm.ErrPIN, "/nowhere/pin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			tok, err := hsm.Open(t.Context(), cfg)
			if err == nil {
				tok.Close()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.want, c.says)
			}
		})
	}
	openWith(t, good) // none of that spoils the module for the right configuration
}

// TestTwoTokensWithOneLabel makes a choice by label impossible.
func TestTwoTokensWithOneLabel(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	cmd := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", "one", "--pin", "123456", "--so-pin", "123456")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, err := hsm.Open(t.Context(), config(tok))
	if !errors.Is(err, hsm.ErrCaller) || !strings.Contains(err.Error(), "2 tokens") || !strings.Contains(err.Error(), "serial") {
		t.Errorf("got %v, want a refusal that says what to do", err)
	}
	cfg := config(tok)
	cfg.TokenLabel, cfg.TokenSerial = "", tok.Serial
	openWith(t, cfg)
}

// TestWrongPIN is in a process of its own, because in one that is logged in SoftHSM accepts
// any PIN.
func TestWrongPIN(t *testing.T) {
	if !child(t, "one") {
		return
	}
	cfg := config(own(t, "one"))
	pin, err := os.ReadFile(cfg.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg.PINFile = filepath.Join(t.TempDir(), "pin")
	const wrong = "000000-wrong"
	if err := os.WriteFile(cfg.PINFile, []byte(wrong+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = hsm.Open(t.Context(), cfg)
	if !errors.Is(err, hsm.ErrPIN) {
		t.Fatalf("got %v, want %v", err, hsm.ErrPIN)
	}
	if strings.Contains(err.Error(), wrong) {
		t.Errorf("the error tells the PIN: %v", err)
	}
	if err := os.WriteFile(cfg.PINFile, pin, 0o600); err != nil {
		t.Fatal(err)
	}
	openWith(t, cfg)
}

// TestTokenGoesAwayAndComesBack moves the token's files. SoftHSM believes in such a token
// again only after C_Finalize, so this is the whole way of reconnection.
func TestTokenGoesAwayAndComesBack(t *testing.T) {
	if !child(t, "one", "two") {
		return
	}
	tok, other := openWith(t, config(own(t, "one"))), openWith(t, config(own(t, "two")))
	id, _ := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "test"})
	key, spki := generate(t, tok, hsm.Spec{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: "test"})
	signer, err := tok.Signer(t.Context(), key, spki)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := generate(t, other, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.HMACSHA256, Name: "test"})
	ctx := t.Context()
	iv, sealed, err := tok.EncryptGCM(ctx, id, []byte("aad"), []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	objects := len(tok.Objects())

	store := filepath.Join(filepath.Dir(os.Getenv(softhsm.ConfEnv)), "tokens")
	away := store + "-away"
	if err := os.Rename(store, away); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"EncryptGCM": func() error { _, _, err := tok.EncryptGCM(ctx, id, []byte("aad"), []byte("x")); return err },
		"Health":     func() error { return tok.Health(ctx) },
		"Rescan":     func() error { return tok.Rescan(ctx) },
		"Generate": func() error {
			_, err := tok.Generate(ctx, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256}, hsm.NewID())
			return err
		},
		"Destroy": func() error { return tok.Destroy(ctx, id) },
		"unknown": func() error { _, err := tok.Lookup(ctx, hsm.NewID()); return err },
		"Signer":  func() error { _, err := signer.Sign(nil, make([]byte, 48), nil); return err },
	}
	for range 3 {
		for name, call := range calls {
			start := time.Now()
			if err := call(); !errors.Is(err, hsm.ErrUnavailable) {
				t.Errorf("%s while the token is away: %v, want %v", name, err, hsm.ErrUnavailable)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%s took %v to fail", name, took)
			}
		}
	}
	if got := len(tok.Objects()); got != objects {
		t.Errorf("%d objects listed while the token is away, want %d as before", got, objects)
	}
	time.Sleep(300 * time.Millisecond) // some attempts fail
	if err := os.Rename(away, store); err != nil {
		t.Fatal(err)
	}
	wait(t, "the token to be used again", func() bool {
		got, err := tok.DecryptGCM(ctx, id, iv, []byte("aad"), sealed)
		return err == nil && string(got) == "text"
	})
	if _, err := signer.Sign(nil, make([]byte, 48), nil); err != nil {
		t.Errorf("signer made before: %v", err)
	}
	wait(t, "the other token of the module to be used again", func() bool {
		_, err := other.MAC(ctx, elsewhere, []byte("x"))
		return err == nil
	})
	if err := tok.Health(ctx); err != nil {
		t.Error(err)
	}
	if got := len(tok.Objects()); got != objects || len(tok.Quarantined()) != 0 {
		t.Errorf("%d objects and %+v in quarantine, want %d and none", got, tok.Quarantined(), objects)
	}
}

// TestAnotherTokenTakesItsPlace puts a token of the same label and PIN where one was. It does
// not get the PIN, and what is known of the first is not believed of it.
func TestAnotherTokenTakesItsPlace(t *testing.T) {
	if !child(t, "one") {
		return
	}
	mine := own(t, "one")
	tok := openWith(t, config(mine))
	id, _ := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.HMACSHA256, Name: "test"})
	use := func() error { _, err := tok.MAC(t.Context(), id, []byte("x")); return err }
	store := filepath.Join(filepath.Dir(os.Getenv(softhsm.ConfEnv)), "tokens")
	away := store + "-away"
	if err := os.Rename(store, away); err != nil {
		t.Fatal(err)
	}
	if err := use(); !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatalf("got %v, want %v", err, hsm.ErrUnavailable)
	}
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", "one", "--pin", mustPIN(t, mine.PINFile), "--so-pin", "123456")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := use(); !errors.Is(err, hsm.ErrUnavailable) {
			t.Fatalf("with another token in its place: %v, want %v", err, hsm.ErrUnavailable)
		}
	}
	if n := tok.Calls()["C_Login"]; n != 1 {
		t.Errorf("the PIN was spent %d times, want once, on the first token", n)
	}
	if err := errors.Join(os.RemoveAll(store), os.Rename(away, store)); err != nil {
		t.Fatal(err)
	}
	wait(t, "the first token to be used again", func() bool { return use() == nil })
}

// TestEveryCallNoticesThatTheTokenIsAway lets each method be the first to meet a token that
// is away. SoftHSM reports "no such object" or nothing at all, and none of that may reach a
// caller as the loss of a key.
func TestEveryCallNoticesThatTheTokenIsAway(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := openWith(t, config(own(t, "one")))
	ctx := t.Context()
	id, _ := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "test"})
	mac, _ := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.HMACSHA256, Name: "test"})
	store := filepath.Join(filepath.Dir(os.Getenv(softhsm.ConfEnv)), "tokens")
	for name, call := range map[string]func() error{
		"EncryptGCM":         func() error { _, _, err := tok.EncryptGCM(ctx, id, []byte("aad"), nil); return err },
		"MAC":                func() error { _, err := tok.MAC(ctx, mac, nil); return err },
		"Health":             func() error { return tok.Health(ctx) },
		"Rescan":             func() error { return tok.Rescan(ctx) },
		"Destroy":            func() error { return tok.Destroy(ctx, id) },
		"Destroy of nothing": func() error { return tok.Destroy(ctx, hsm.NewID()) },
		"Lookup of nothing":  func() error { _, err := tok.Lookup(ctx, hsm.NewID()); return err },
		"MAC with nothing":   func() error { _, err := tok.MAC(ctx, hsm.NewID(), nil); return err },
		"Generate": func() error {
			_, err := tok.Generate(ctx, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256}, hsm.NewID())
			return err
		},
	} {
		if err := os.Rename(store, store+"-away"); err != nil {
			t.Fatal(err)
		}
		if err := call(); !errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, hsm.ErrCaller) {
			t.Errorf("%s: got %v, want %v", name, err, hsm.ErrUnavailable)
		}
		if err := os.Rename(store+"-away", store); err != nil {
			t.Fatal(err)
		}
		wait(t, "the token after "+name, func() bool { return tok.Health(ctx) == nil })
		if got := len(tok.Objects()); got != 2 {
			t.Fatalf("%d objects after %s, want 2", got, name)
		}
	}
}

// TestOneTokenGoesAway takes one of two tokens away. The other must not notice, although
// SoftHSM needs C_Finalize to believe in the first one again.
func TestOneTokenGoesAway(t *testing.T) {
	if !child(t, "one", "two") {
		return
	}
	tok, other := openWith(t, config(own(t, "one"))), openWith(t, config(own(t, "two")))
	mac := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.HMACSHA256, Name: "test"}
	id, _ := generate(t, tok, mac)
	elsewhere := hsm.NewID()
	if _, err := other.Generate(t.Context(), mac, elsewhere); err != nil {
		t.Fatal(err)
	}
	dir := directoryOf(t, tok.Info().Serial)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	use := func() error { _, err := tok.MAC(t.Context(), id, []byte("x")); return err }
	if err := use(); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("the token that is away: %v", err)
	}
	logins := other.Calls()["C_Login"]
	for start := time.Now(); time.Since(start) < time.Second; {
		if _, err := other.MAC(t.Context(), elsewhere, []byte("x")); err != nil {
			t.Fatalf("the other token: %v", err)
		}
	}
	if got := other.Calls()["C_Login"] - logins; got != 0 {
		t.Errorf("the other token was logged in to again %d times", got)
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	other.Close()
	wait(t, "the token to be used again", func() bool { return use() == nil })
}

// directoryOf finds a token's directory, whose name ends with the serial number.
func directoryOf(t *testing.T, serial string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(filepath.Dir(os.Getenv(softhsm.ConfEnv)), "tokens", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		if strings.HasSuffix(strings.ReplaceAll(dir, "-", ""), serial) {
			return dir
		}
	}
	t.Fatalf("no directory for serial %q in %v", serial, all)
	return ""
}

// TestWrongPINEndsReconnection changes the PIN file while the token is away. One wrong PIN
// is spent; then only a restart tries again.
func TestWrongPINEndsReconnection(t *testing.T) {
	if !child(t, "one") {
		return
	}
	cfg := config(own(t, "one"))
	tok, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	id := hsm.NewID()
	if _, err := tok.Generate(t.Context(), hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256}, id); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(filepath.Dir(os.Getenv(softhsm.ConfEnv)), "tokens")
	if err := os.Rename(store, store+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := tok.Health(t.Context()); !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatalf("while the token is away: %v", err)
	}
	if err := os.WriteFile(cfg.PINFile, []byte("999999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := tok.Calls()["C_Login"]
	if err := os.Rename(store+"-away", store); err != nil {
		t.Fatal(err)
	}
	wait(t, "the wrong PIN to be reported", func() bool { return errors.Is(tok.Health(t.Context()), hsm.ErrPIN) })
	time.Sleep(500 * time.Millisecond)
	if got := tok.Calls()["C_Login"] - before; got != 1 {
		t.Errorf("C_Login was called %d times, want once", got)
	}
}

func TestClosedToken(t *testing.T) {
	tok := open(t, source)
	tok.Close()
	tok.Close()
	if err := tok.Health(context.Background()); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, hsm.ErrUnavailable)
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waiting for %s: a minute was not enough", what)
}
