package gateway_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

const tokenLabel = "gateway"

func TestMain(m *testing.M) { os.Exit(softhsmtest.Main(m, tokenLabel)) }

// realRegion is a Region on the real token of this package's tests. One test at a time has
// it; none of them runs in parallel.
func realRegion(t testing.TB, opts keyopstest.Options) (*keyopstest.Region, *hsm.Token) {
	t.Helper()
	named := softhsmtest.Named(tokenLabel)
	token, err := hsm.Open(context.Background(), hsm.Config{
		Module: named.Module, TokenLabel: named.Label, PINFile: named.PINFile, Profile: hsm.SoftHSM2(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(token.Close)
	if name := os.Getenv("KEYFERRY_TOKEN_TESTS"); name != "" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, "gateway."+t.Name())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	opts.Token = token
	return keyopstest.New(t, opts), token
}
