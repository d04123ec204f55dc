// Package ceremony makes a Region's keys and the transport keys between Regions.
//
// A ceremony is a process of its own beside the token. It takes place between people: at
// the source a security officer, at the destination an operator who reads a fingerprint
// out. What passes between the two Regions is two files, the offer and the package, both
// signed; nothing secret is in either. Files are never overwritten, and every public value
// is printed as it is made.
//
// A ceremony that fails destroys what it made. One that was killed leaves objects that no
// transcript names, which every later ceremony reports and refuses to pass over.
package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/transport"
)

// ErrStrangers means that the token holds an object that can wrap, unwrap or be trusted
// and that no transcript knows, or lacks one that a transcript names.
var ErrStrangers = errors.New("the token and the transcripts disagree")

// Tool is what every ceremony needs.
type Tool struct {
	Dir region.Dir
	// Token chooses the token and its user PIN.
	Token hsm.Config
	// SOPINFile is needed by Establish only.
	SOPINFile string
	// Out receives public values as they are made, and what people must know.
	Out io.Writer
	// Now is the clock.
	Now func() time.Time
}

// say prints what people must know. Nothing that comes from a file or a peer reaches the
// terminal as a control sequence: it could rewrite the fingerprint that a person compares.
func (t Tool) say(format string, args ...any) {
	fmt.Fprintln(t.Out, strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...)))
}

// open opens the token as the user.
func (t Tool) open(ctx context.Context) (*hsm.Ceremony, error) {
	return hsm.OpenCeremony(ctx, hsm.CeremonyConfig{Config: t.Token})
}

// load reads the own descriptor and transcripts.
func (t Tool) load() (region.SignedDescriptor, transport.Set, error) {
	own, err := t.Dir.LoadOwn()
	if err != nil {
		return own, transport.Set{}, err
	}
	set, err := transport.Load(t.Dir)
	return own, set, err
}

// RegionKey returns the Region signing key or the seal key of a descriptor. It must have
// been made in this token: with the user PIN anybody can create a key of known bytes
// under the same name.
func RegionKey(objects []hsm.Object, role hsm.Role, d region.Descriptor) (hsm.ID, error) {
	var found []hsm.ID
	for _, o := range objects {
		if o.Spec.Role == role && o.Spec.Name == d.KeyName() && o.Local && o.AlwaysSensitive {
			found = append(found, o.ID)
		}
	}
	if len(found) != 1 {
		return hsm.ID{}, fmt.Errorf("%d objects of role %q for %s, want one: %w", len(found), role, d.KeyName(), hsm.ErrNotFound)
	}
	return found[0], nil
}

// signer signs in the Region's name with the token's Region signing key.
func signer(c *hsm.Ceremony, own region.Descriptor) (statement.Signer, error) {
	id, err := RegionKey(c.Objects(), hsm.RoleRegionSigning, own)
	if err != nil {
		return nil, err
	}
	return sign(c, id), nil
}

func sign(c *hsm.Ceremony, id hsm.ID) statement.Signer {
	return statement.SignerFunc(func(ctx context.Context, digest []byte) ([]byte, error) {
		return c.Sign(ctx, id, hsm.RegionScheme, digest)
	})
}

// compare reports every difference between the token's powerful objects and the transcripts.
func compare(c *hsm.Ceremony, set transport.Set) error {
	powers, err := c.Powers()
	if err != nil {
		return err
	}
	known := map[string]transport.Key{}
	for _, k := range set.All() {
		known[k.ID.String()] = k
	}
	imports := map[string]bool{} // they unwrap what customers bring, under an unwrap template of their own
	for _, o := range c.Objects() {
		if o.Spec.Role == hsm.RoleImportWrapping {
			imports[o.ID.String()] = true
		}
	}
	var wrong []string
	seen := map[string]bool{}
	for _, p := range powers {
		switch k, ok := known[p.ID]; {
		case ok && seen[p.ID]:
			wrong = append(wrong, fmt.Sprintf("object %s is there twice", p.ID))
		case ok && !isKey(c, k):
			wrong = append(wrong, fmt.Sprintf("object %s is not the transport key that its transcript says: label %q", p.ID, p.Label))
		case !ok && !imports[p.ID]:
			wrong = append(wrong, fmt.Sprintf("object %s, label %q, %s: no transcript knows it", p.ID, p.Label, abilities(p)))
		}
		seen[p.ID] = true
	}
	for id, k := range known {
		if !seen[id] {
			wrong = append(wrong, fmt.Sprintf("transport key %s of %s, class %s, is not in the token", id, k.Name, k.Class))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return fmt.Errorf("%w:\n  %s", ErrStrangers, strings.Join(wrong, "\n  "))
}

// isKey reports whether the index, which compares every attribute with the role's
// template, holds the key.
func isKey(c *hsm.Ceremony, k transport.Key) bool {
	return slices.ContainsFunc(c.Objects(), func(o hsm.Object) bool { return o.ID == k.ID && o.Spec == k.Spec() })
}

func abilities(p hsm.Power) string {
	var can []string
	for _, a := range []struct {
		yes  bool
		word string
	}{{p.Wrap, "can wrap"}, {p.Unwrap, "can unwrap"}, {p.Trusted, "is trusted"}} {
		if a.yes {
			can = append(can, a.word)
		}
	}
	return strings.Join(can, ", ")
}

// discard destroys what a failed ceremony made, even after its context has ended.
func discard(ctx context.Context, c *hsm.Ceremony, ids []hsm.ID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	var errs []error
	for _, id := range ids {
		errs = append(errs, c.Destroy(ctx, id))
	}
	return errors.Join(errs...)
}
