package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/backup"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
)

// Exit codes, listed in docs/configuration.md. Service managers and scripts branch on them.
const (
	exitOther     = 1
	exitUsage     = 2
	exitToken     = 3
	exitStore     = 4
	exitAddress   = 5
	exitRegionDir = 6
	exitFindings  = 7
)

// failure is an error with the exit code of the step that it ended.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(code int, err error) error {
	if err == nil {
		return nil
	}
	return &failure{code: code, err: err}
}

func exitCode(err error) int {
	var f *failure
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return exitAddress
	case errors.As(err, &f):
		return f.code
	default:
		return exitOther
	}
}

const seeFindings = "keyferryd store findings says what is wrong; find out who did it, and see docs/restore.md"

// advise adds to a start-up error what the operator can do about it.
func advise(err error) error {
	for _, a := range []struct {
		is   error
		what string
	}{
		{hsm.ErrPIN, "correct the PIN file; it was tried once and is not tried again, since tokens lock"},
		{store.ErrLeaseHeld, "another daemon serves from this store: stop it first, or wait for it with --standby"},
		{store.ErrNotStore, "store.path names another file: correct it"},
		{store.ErrNewerSchema, "start the release that wrote it, or a newer one"},
		{store.ErrFull, "make space on its disk"},
		{seal.ErrTampered, seeFindings},
		{seal.ErrRolledBack, seeFindings},
		{seal.ErrForked, seeFindings},
		{errReplaced, "start again, on the store that is there now"},
		{backup.ErrInTheWay, "give --replace to move it aside, after you have looked what it is"},
		{backup.ErrServing, "stop it first"},
		{keyops.ErrForgotten, "put region_dir back as it was, or find out who changed it"},
		{syscall.EADDRINUSE, "another program listens there: stop it, or change the address"},
		{syscall.EADDRNOTAVAIL, "this machine has no such address: correct it"},
		{fs.ErrPermission, "let the daemon's user read it"},
	} {
		if errors.Is(err, a.is) {
			return fmt.Errorf("%w (%s)", err, a.what)
		}
	}
	return err
}
