package hsmtest

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
)

// Call is one operation that the fake is about to do, as a [Hook] sees it. Op is the name
// of the Token method.
type Call struct {
	Op string
	ID hsm.ID // the object made, used or destroyed; for Wrap and Unwrap the material
}

// Fault says what goes wrong with a call. The zero Fault is none.
type Fault struct {
	// Block delays the call until the channel is closed, or ends it with the context's error
	// and without effect.
	Block <-chan struct{}
	// Before is returned without applying the call.
	Before error
	// After is returned although the call was applied. For writes it should wrap
	// hsm.ErrOutcomeUnknown, which is what a real token's caller sees.
	After error
}

// Hook decides each call's fault. It is called without any lock of the fake.
type Hook func(Call) Fault

// Failure is an error that hooks return to stand for a failure of a real token.
type Failure struct {
	text  string
	kinds []error
}

// Error says where the failure was injected.
func (f *Failure) Error() string { return f.text }

// Unwrap returns the sentinels of package hsm that the failure is.
func (f *Failure) Unwrap() []error { return f.kinds }

// Failures of the two kinds that each durable step is tested with.
var (
	// FailedNotApplied is a write that the token refused without effect.
	FailedNotApplied = &Failure{"injected before the call", []error{hsm.ErrUnavailable}}
	// FailedButApplied is a write that took effect although its caller saw it fail.
	FailedButApplied = &Failure{"injected after the call", []error{hsm.ErrUnavailable, hsm.ErrOutcomeUnknown}}
)

// SetHook installs the hook; nil removes it.
func (f *Fake) SetHook(h Hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = h
}

// SetAvailable takes the token away and brings it back. While away, every call fails with
// hsm.ErrUnavailable.
func (f *Fake) SetAvailable(available bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = !available
}

// call counts one PKCS#11 function, applies the hook's fault around do, and refuses when
// the token is away or the context has ended. do runs under the fake's lock.
func call[T any](ctx context.Context, f *Fake, op, function string, id hsm.ID, do func() (T, error)) (T, error) {
	var zero T
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	var fault Fault
	if hook != nil {
		fault = hook(Call{Op: op, ID: id})
	}
	if fault.Block != nil {
		select {
		case <-fault.Block:
		case <-ctx.Done():
			return zero, fmt.Errorf("%s: %w", op, ctx.Err())
		}
	}
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("%s: %w", op, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		f.violated("%s after Close", op)
	}
	if f.away {
		return zero, fmt.Errorf("%s: %w", op, hsm.ErrUnavailable)
	}
	if fault.Before != nil {
		return zero, fmt.Errorf("%s: %w", op, fault.Before)
	}
	v, err := do()
	if err != nil {
		return zero, fmt.Errorf("%s: %w", op, err)
	}
	f.calls[function]++
	if fault.After != nil {
		return zero, fmt.Errorf("%s: %w", op, fault.After)
	}
	return v, nil
}
