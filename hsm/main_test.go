package hsm_test

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/softhsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// childEnv names the one test that a child process runs, on a store of its own.
const childEnv = "KEYFERRY_TEST_CHILD"

// Tokens of this package's tests. Transport keys lead from source to destination.
const (
	source      = "source"
	destination = "destination"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(m.Run())
	}
	os.Exit(softhsmtest.MainWith(m, establish, source, destination))
}

// transport is what establish made.
var transport = map[hsm.Class]hsmtest.Transport{}

// establish is a ceremony without its paper: both ends in this process, one key per class.
func establish() error {
	ctx := context.Background()
	from, to := softhsmtest.Named(source), softhsmtest.Named(destination)
	var sources []hsm.Spec
	for _, class := range hsm.Classes {
		sources = append(sources, hsm.Spec{Role: hsm.RoleTransportSource, Algorithm: hsm.AES256, Class: class, Name: "test"})
	}
	s, err := hsm.OpenCeremony(ctx, hsm.CeremonyConfig{Config: config(from), SOPINFile: from.SOPINFile, Trusted: sources})
	if err != nil {
		return err
	}
	defer s.Close()
	d, err := hsm.OpenCeremony(ctx, hsm.CeremonyConfig{Config: config(to)})
	if err != nil {
		return err
	}
	defer d.Close()
	spki, err := d.NewEstablishment("test")
	if err != nil {
		return err
	}
	for _, spec := range sources {
		wrapped, err := s.WrapTrusted(spec.Class, spki)
		if err != nil {
			return err
		}
		keys := hsmtest.Transport{Source: hsm.NewID(), Destination: hsm.NewID()}
		if err := s.KeepTrusted(ctx, spec, keys.Source); err != nil {
			return err
		}
		spec.Role = hsm.RoleTransportDestination
		if err := d.OpenTransport(ctx, spec, keys.Destination, wrapped); err != nil {
			return err
		}
		transport[spec.Class] = keys
	}
	return nil
}

// child reports whether this process is the test's own; if not, it provisions a store with
// these tokens, runs the test there and takes over its outcome. Login state, the module's
// configuration and C_Finalize belong to a process, so tests of them need one each.
func child(t *testing.T, labels ...string) bool {
	t.Helper()
	if os.Getenv(childEnv) == t.Name() {
		return true
	}
	softhsmtest.Used(t)
	tokens := softhsmtest.Store(t, labels...)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childEnv+"="+t.Name(), softhsm.ConfEnv+"="+tokens[0].Conf)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in its own process: %v\n%s", err, out)
	}
	return false
}

// config is what opens a token.
func config(tok softhsm.Token) hsm.Config {
	return hsm.Config{Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, Profile: hsm.SoftHSM2()}
}

// open opens a token of TestMain.
func open(t testing.TB, label string) *hsm.Token {
	t.Helper()
	return openWith(t, config(softhsmtest.Named(label)))
}

func openWith(t testing.TB, cfg hsm.Config) *hsm.Token {
	t.Helper()
	softhsmtest.Used(t)
	tok, err := hsm.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tok.Close)
	return tok
}

// generate makes an object that is destroyed at the end of the test.
func generate(t testing.TB, tok *hsm.Token, spec hsm.Spec) (hsm.ID, []byte) {
	t.Helper()
	id := hsm.NewID()
	spki, err := tok.Generate(t.Context(), spec, id)
	if err != nil {
		t.Fatalf("generating %+v: %v", spec, err)
	}
	t.Cleanup(func() {
		if err := tok.Destroy(context.Background(), id); err != nil {
			t.Errorf("destroying %s: %v", id, err)
		}
	})
	return id, spki
}

func TestTokenConforms(t *testing.T) {
	hsmtest.Suite(t, func(t *testing.T) hsmtest.Harness {
		return hsmtest.Harness{Source: open(t, source), Destination: open(t, destination), Transport: transport}
	})
}
