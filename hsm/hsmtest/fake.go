package hsmtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/keyferry/keyferry/hsm"
)

// Reporter receives broken invariants; testing.TB is one.
type Reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// Options are a fake's settings. The zero value is a token labelled "fake".
type Options struct {
	Label  string
	Serial string
	// Rand makes key bytes and IVs; nil is crypto/rand. A seeded reader makes a run
	// repeatable to the byte, signatures included, but for RSA keys and PSS.
	Rand io.Reader
	// Algorithms restricts what the token can do; nil means all.
	Algorithms []hsm.Algorithm
	// ImportSchemes restricts what can be imported; nil means all schemes.
	ImportSchemes []hsm.ImportScheme
}

// Fake is a token in memory. It answers as a real one does, checks the caller's conduct
// and reports to the test what no correct caller does:
//
//   - a write under an ID that was destroyed before;
//   - a second use of one IV with one key;
//   - any call after Close.
//
// It is safe for concurrent use.
type Fake struct {
	report Reporter
	opts   Options

	mu        sync.Mutex
	objects   map[hsm.ID]*object
	destroyed map[hsm.ID]bool
	ivs       map[ivUse]bool
	calls     map[string]uint64
	hook      Hook
	boundary  hsm.Boundary
	away      bool
	closed    bool
}

// object is immutable once made, so that snapshots can share it.
type object struct {
	hsm.Object
	secret  []byte   // secret keys
	private *private // private keys
}

type ivUse struct {
	id hsm.ID
	iv string
}

// NewFake returns an empty token that reports broken invariants to r.
func NewFake(r Reporter, opts Options) *Fake {
	if opts.Label == "" {
		opts.Label = "fake"
	}
	if opts.Serial == "" {
		opts.Serial = "fake-" + opts.Label
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	if opts.Algorithms == nil {
		opts.Algorithms = allAlgorithms
	}
	if opts.ImportSchemes == nil {
		opts.ImportSchemes = hsm.ImportSchemes
	}
	return &Fake{
		report:    r,
		opts:      opts,
		objects:   map[hsm.ID]*object{},
		destroyed: map[hsm.ID]bool{},
		ivs:       map[ivUse]bool{},
		calls:     map[string]uint64{},
		boundary:  hsm.BoundaryNone,
	}
}

var allAlgorithms = []hsm.Algorithm{
	hsm.AES256, hsm.HMACSHA224, hsm.HMACSHA256, hsm.HMACSHA384, hsm.HMACSHA512,
	hsm.ECP256, hsm.ECP384, hsm.ECP521, hsm.ECSecp256k1, hsm.RSA2048, hsm.RSA3072, hsm.RSA4096,
}

// violated reports a broken invariant.
func (f *Fake) violated(format string, args ...any) {
	f.report.Helper()
	f.report.Errorf("token %s: %s", f.opts.Label, fmt.Sprintf(format, args...))
}

// Close ends the use of the fake; any later call is reported.
func (f *Fake) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// Info describes the fake.
func (f *Fake) Info() hsm.Info {
	return hsm.Info{
		Label: f.opts.Label, Serial: f.opts.Serial, Manufacturer: "Keyferry", Model: "fake",
		Firmware: "1.0", LibraryVersion: "1.0", Profile: "fake", Backup: hsm.BackupNone,
	}
}

// Capabilities lists the algorithms of the options. The boundary is none until SelfTest has
// run, as with a real token.
func (f *Fake) Capabilities() hsm.Capabilities {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := hsm.Capabilities{Boundary: f.boundary, ImportSchemes: slices.Clone(f.opts.ImportSchemes)}
	for _, a := range f.opts.Algorithms {
		for _, u := range []hsm.Usage{hsm.UsageNone, hsm.UsageSign, hsm.UsageDecrypt, hsm.UsageAgree} {
			if (hsm.Spec{Role: hsm.RoleMaterial, Algorithm: a, Usage: u}).Check() == nil {
				c.Keys = append(c.Keys, hsm.Capability{Algorithm: a, Usage: u, Generate: true, Use: true, Wrap: true})
			}
		}
		if a.ModulusBits() != 0 {
			c.ImportKeys = append(c.ImportKeys, a)
		}
	}
	return c
}

// Calls returns how often each PKCS#11 function would have been called with success.
func (f *Fake) Calls() map[string]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.calls)
}

// Objects lists what the token holds, by ID.
func (f *Fake) Objects() []hsm.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]hsm.Object, 0, len(f.objects))
	for _, o := range f.objects {
		out = append(out, o.Object)
	}
	slices.SortFunc(out, func(a, b hsm.Object) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

// Quarantined is always empty: every object of the fake is made by it.
func (f *Fake) Quarantined() []hsm.Quarantined { return nil }

// Rescan does nothing but fail as faults say.
func (f *Fake) Rescan(ctx context.Context) error {
	_, err := call(ctx, f, "Rescan", "C_FindObjects", hsm.ID{}, func() (any, error) { return nil, nil })
	return err
}

// SelfTest makes no attacks, which are attacks on PKCS#11, and reports the boundary of a
// token in software.
func (f *Fake) SelfTest(ctx context.Context) (hsm.Report, error) {
	return call(ctx, f, "SelfTest", "C_GenerateKey", hsm.ID{}, func() (hsm.Report, error) {
		f.boundary = hsm.BoundaryAPIOnly
		return hsm.Report{Boundary: f.boundary}, nil
	})
}

// Health does nothing but fail as faults say.
func (f *Fake) Health(ctx context.Context) error {
	_, err := call(ctx, f, "Health", "C_GenerateRandom", hsm.ID{}, func() (any, error) { return nil, nil })
	return err
}

// Lookup returns what is known of an object.
func (f *Fake) Lookup(ctx context.Context, id hsm.ID) (hsm.Object, error) {
	if err := ctx.Err(); err != nil {
		return hsm.Object{}, fmt.Errorf("Lookup: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if o, ok := f.objects[id]; ok {
		return o.Object, nil
	}
	return hsm.Object{}, fmt.Errorf("object %s: %w", id, hsm.ErrNotFound)
}

// Present is Lookup that asks the token, and fails as faults say.
func (f *Fake) Present(ctx context.Context, id hsm.ID) (hsm.Object, error) {
	return call(ctx, f, "Present", "C_GetAttributeValue", id, func() (hsm.Object, error) {
		o, err := f.find(id)
		if err != nil {
			return hsm.Object{}, err
		}
		return o.Object, nil
	})
}

// Snapshot is the content of a token at one moment, as a backup holds it.
type Snapshot struct {
	objects   map[hsm.ID]*object
	destroyed map[hsm.ID]bool
}

// Snapshot returns a backup of the token.
func (f *Fake) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Snapshot{objects: maps.Clone(f.objects), destroyed: maps.Clone(f.destroyed)}
}

// Restore puts a backup back: what was made since is gone, what was destroyed since is
// there again. The zero Snapshot empties the token.
func (f *Fake) Restore(s Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects, f.destroyed = map[hsm.ID]*object{}, map[hsm.ID]bool{}
	maps.Copy(f.objects, s.objects)
	maps.Copy(f.destroyed, s.destroyed)
}

// Plant puts a secret key of known bytes into the token, as a thief with the user PIN can:
// right in all but its history, so CKA_LOCAL and CKA_ALWAYS_SENSITIVE are false.
func (f *Fake) Plant(spec hsm.Spec, id hsm.ID, secret []byte) error {
	if err := spec.Check(); err != nil {
		return fmt.Errorf("planting: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects[id] != nil {
		return fmt.Errorf("planting %s: %w", id, hsm.ErrExists)
	}
	shared := spec.Role == hsm.RoleSharedMaterial
	f.objects[id] = &object{
		Object: hsm.Object{ID: id, Spec: spec, Extractable: shared, WrapWithTrusted: shared},
		secret: bytes.Clone(secret),
	}
	return nil
}
