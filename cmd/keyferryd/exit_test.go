package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/store"
)

func TestExitCodesAndAdvice(t *testing.T) {
	held := &store.HeldError{Owner: "host process 7"}
	tests := []struct {
		name   string
		code   int
		err    error
		want   int
		advice string
	}{
		{"token", exitToken, &hsm.Error{Op: "C_Login", Kind: hsm.ErrPIN}, 3, "not tried again"},
		{"store", exitStore, fmt.Errorf("store: %w", held), 4, `by "host process 7"`},
		{"lease", exitStore, held, 4, "stop it first"},
		{"newer store", exitStore, store.ErrNewerSchema, 4, "newer one"},
		{"full disk", exitStore, store.ErrFull, 4, "make space"},
		{"port in another step", exitOther, fmt.Errorf("listening: %w", syscall.EADDRINUSE), 5, "another program listens there"},
		{"address", exitOther, syscall.EADDRNOTAVAIL, 1, "no such address"},
		{"permission", exitRegionDir, fs.ErrPermission, 6, "daemon's user"},
		{"nothing known", exitOther, errors.New("odd"), 1, "odd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// As serve returns it: advised, coded, joined with what closing said.
			err := errors.Join(fail(tt.code, advise(tt.err)), nil)
			if got := exitCode(err); got != tt.want || !strings.Contains(err.Error(), tt.advice) || !errors.Is(err, tt.err) {
				t.Errorf("exit code %d, text %q; want %d, with %q", got, err, tt.want, tt.advice)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
	if err := fail(exitStore, nil); err != nil {
		t.Errorf("fail of nil = %v", err)
	}
}

func TestClosingIsTheReverse(t *testing.T) {
	var order []string
	d := &daemon{}
	for _, what := range []string{"store", "lease", "audit"} {
		d.closing("closing "+what, func(context.Context) error {
			order = append(order, what)
			if what == "lease" {
				return errors.New("stuck")
			}
			return nil
		})
	}
	err := d.close(t.Context())
	if !slices.Equal(order, []string{"audit", "lease", "store"}) {
		t.Errorf("closed in the order %v", order)
	}
	if err == nil || err.Error() != "closing lease: stuck" {
		t.Errorf("error = %v", err)
	}
}
