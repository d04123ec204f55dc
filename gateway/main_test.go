package gateway_test

import (
	"context"
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
	softhsmtest.Used(t)
	opts.Token = token
	return keyopstest.New(t, opts), token
}
