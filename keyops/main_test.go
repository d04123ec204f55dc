package keyops_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/softhsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// The real tokens of this package's tests, each of one Region.
var (
	paris = realRegion{"paris", transport.End{Region: "eu-paris-1", Instance: region.NewInstanceID()}}
	tokyo = realRegion{"tokyo", transport.End{Region: "ap-tokyo-1", Instance: region.NewInstanceID()}}
)

type realRegion struct {
	label string
	end   transport.End
}

// token returns the provisioned token that a label names.
var token = softhsmtest.Named

func TestMain(m *testing.M) {
	if os.Getenv(killEnv) != "" {
		os.Exit(m.Run()) // a child of TestKill, with a token store of its own
	}
	os.Exit(softhsmtest.MainWith(m, establishAll, paris.label, tokyo.label))
}

// established has the transport keys of the real tokens, both ways.
var established = map[transport.Name]map[hsm.Class]hsmtest.Transport{}

// establishAll is a ceremony without its paper: both ends in this process, one key per
// class and direction.
func establishAll() error {
	there, back := setName(paris, tokyo), setName(tokyo, paris)
	a, err := openCeremony(paris, there)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := openCeremony(tokyo, back)
	if err != nil {
		return err
	}
	defer b.Close()
	return errors.Join(carry(a, b, there), carry(b, a, back))
}

func setName(from, to realRegion) transport.Name {
	return transport.Name{Source: from.end, Destination: to.end, Epoch: 1}
}

func openCeremony(r realRegion, name transport.Name) (*hsm.Ceremony, error) {
	var trusted []hsm.Spec
	for _, class := range hsm.Classes {
		trusted = append(trusted, name.Spec(hsm.RoleTransportSource, class))
	}
	return hsm.OpenCeremony(context.Background(), hsm.CeremonyConfig{
		Config: tokenConfig(r.label), SOPINFile: token(r.label).SOPINFile, Trusted: trusted,
	})
}

func carry(source, destination *hsm.Ceremony, name transport.Name) error {
	ctx := context.Background()
	spki, err := destination.NewEstablishment("test")
	if err != nil {
		return err
	}
	established[name] = map[hsm.Class]hsmtest.Transport{}
	for _, class := range hsm.Classes {
		wrapped, err := source.WrapTrusted(class, spki)
		if err != nil {
			return err
		}
		ids := hsmtest.Transport{Source: hsm.NewID(), Destination: hsm.NewID()}
		if err := source.KeepTrusted(ctx, name.Spec(hsm.RoleTransportSource, class), ids.Source); err != nil {
			return err
		}
		if err := destination.OpenTransport(ctx, name.Spec(hsm.RoleTransportDestination, class), ids.Destination, wrapped); err != nil {
			return err
		}
		established[name][class] = ids
	}
	return nil
}

func tokenConfig(label string) hsm.Config { return configOf(token(label)) }

func configOf(tok softhsm.Token) hsm.Config {
	return hsm.Config{Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, Profile: hsm.SoftHSM2()}
}

// openToken opens a real token.
func openToken(t testing.TB, label string) *hsm.Token {
	t.Helper()
	softhsmtest.Used(t)
	tok, err := hsm.Open(context.Background(), tokenConfig(label))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tok.Close)
	return tok
}

// newReal makes a Region on one of the real tokens.
func newReal(t testing.TB, r realRegion, opts keyopstest.Options) *keyopstest.Region {
	t.Helper()
	opts.Name, opts.Instance, opts.Token = r.end.Region, r.end.Instance, openToken(t, r.label)
	return keyopstest.New(t, opts)
}

// onBoth runs a test on a Region with the token in memory and on one with a real token.
func onBoth(t *testing.T, run func(t *testing.T, r *keyopstest.Region)) {
	t.Run("fake", func(t *testing.T) { run(t, keyopstest.New(t, keyopstest.Options{})) })
	t.Run("softhsm", func(t *testing.T) { run(t, newReal(t, paris, keyopstest.Options{})) })
}

var admin = keyopstest.Admin

// create makes a key, or fails the test.
func create(t testing.TB, r *keyopstest.Region, in keyops.CreateKeyInput) keyops.KeyMetadata {
	t.Helper()
	out, err := r.CreateKey(context.Background(), admin(), in)
	if err != nil {
		t.Fatal(explain(err))
	}
	return out.KeyMetadata
}

// explain adds what callers are not told.
func explain(err error) error {
	var e *keyops.Error
	if errors.As(err, &e) && e.Cause() != nil {
		return fmt.Errorf("%w (cause: %w)", err, e.Cause())
	}
	return err
}

// want checks an error's reason and, if given, part of its message.
func want(t testing.TB, err error, reason keyops.Reason, part string) {
	t.Helper()
	var e *keyops.Error
	switch {
	case !errors.As(err, &e):
		t.Errorf("error %v, want %s", err, reason)
	case e.Reason != reason:
		t.Errorf("error %v, want %s", explain(err), reason)
	case !strings.Contains(e.Message, part):
		t.Errorf("message %q, want %q in it", e.Message, part)
	}
}
