package ceremony

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/statement"
)

// List prints this end's transport keys and fails if the token and the transcripts disagree.
func (t Tool) List(ctx context.Context) error {
	own, set, err := t.load()
	if err != nil {
		return err
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	t.say("Region %s, instance %s, token serial %s", own.Region, own.Instance, c.Info().Serial)
	for _, k := range set.All() {
		t.say("%s\t%s\tclass %s\tobject %s", k.Name, end(k.Role), k.Class, k.ID)
	}
	for _, q := range c.Quarantined() {
		t.say("not ours: object %s, label %q: %s", q.ID, q.Label, q.Reason)
	}
	if _, err := signer(c, own.Descriptor); err != nil {
		return err
	}
	return t.report(c)
}

func end(r hsm.Role) string {
	if r == hsm.RoleTransportSource {
		return "source, wraps"
	}
	return "destination, unwraps"
}

// SelfTest attacks stand-ins and prints what the token answered.
func (t Tool) SelfTest(ctx context.Context) error {
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.SelfTest(ctx)
	if err != nil {
		return err
	}
	t.say("boundary %s: %d attacks on stand-ins in %s", r.Boundary, len(r.Attempts), r.Took.Round(1e6))
	return r.Err()
}

// Recording is what a thief takes along from one Region to another: blobs wrapped under
// its source transport keys.
type Recording struct {
	Blobs []RecordedBlob `json:"blobs"`
}

// RecordedBlob is one wrapped material.
type RecordedBlob struct {
	Set   string    `json:"set"`
	Class hsm.Class `json:"class"`
	Blob  []byte    `json:"blob"`
}

// Record writes what somebody with the user PIN can wrap, after making one multi-Region
// key of each class for it to wrap.
func (t Tool) Record(ctx context.Context, out string) error {
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := t.makeVictims(ctx, c); err != nil {
		return err
	}
	blobs, err := c.Record(ctx)
	if err != nil {
		return err
	}
	var r Recording
	for _, k := range slices.SortedFunc(maps.Keys(blobs), func(a, b hsm.BlobKey) int {
		return strings.Compare(a.Set+string(a.Class), b.Set+string(b.Class))
	}) {
		r.Blobs = append(r.Blobs, RecordedBlob{Set: k.Set, Class: k.Class, Blob: blobs[k]})
		t.say("recorded a blob of class %s under %s", k.Class, k.Set)
	}
	return statement.WriteJSON(out, r)
}

// victimName is the name of the keys that Record makes and Thief destroys.
const victimName = "thief-demonstration"

func (t Tool) makeVictims(ctx context.Context, c *hsm.Ceremony) error {
	specs := []hsm.Spec{{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: victimName}}
	for _, class := range hsm.Classes {
		spec := class.Material()
		spec.Name = victimName
		specs = append(specs, spec)
	}
	for _, spec := range specs {
		if _, err := c.Generate(ctx, spec, hsm.NewID()); err != nil {
			return err
		}
	}
	return nil
}

// ThiefOptions says what the thief has besides the user PIN.
type ThiefOptions struct {
	Recordings []string // of every Region that has a transport key pair with this one, this one included
	Packages   []string // of past ceremonies
	Keep       bool     // do not destroy the keys that Record made
	All        bool     // print every attempt, not one line per attack and victim
}

// errBoundary means that the token let something through.
var errBoundary = errors.New("the token did not refuse everything")

// Thief makes every attack on the token's own objects and prints the answers in plain
// words. It fails unless the token refused all of it.
func (t Tool) Thief(ctx context.Context, opt ThiefOptions) error {
	blobs := hsm.Blobs{}
	for _, path := range opt.Recordings {
		var r Recording
		if err := statement.ReadJSON(path, &r); err != nil {
			return err
		}
		for _, b := range r.Blobs {
			blobs[hsm.BlobKey{Set: b.Set, Class: b.Class}] = b.Blob
		}
	}
	packages, err := readPackages(opt.Packages)
	if err != nil {
		return err
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	t.say("A thief has the user PIN of token %s, loads %s and tries to take its keys.", c.Info().Serial, t.Token.Module)
	attempts, err := c.Attack(ctx, blobs, packages)
	if err != nil {
		return err
	}
	t.tell(attempts, opt.All)
	if broken := hsm.Broken(attempts); len(broken) > 0 {
		return fmt.Errorf("%w: %d of %d attempts", errBoundary, len(broken), len(attempts))
	}
	t.say("%d attempts, all refused by the token.", len(attempts))
	if opt.Keep {
		return nil
	}
	for _, o := range c.Objects() {
		if o.Spec.Name == victimName {
			if err := c.Destroy(ctx, o.ID); err != nil {
				return err
			}
		}
	}
	t.say("Not refused, since the PIN is for that: the thief destroyed the demonstration's keys.")
	return nil
}

// tell prints the attempts: all of them, or the distinct answers of each attack.
func (t Tool) tell(attempts []hsm.Attempt, all bool) {
	type line struct{ attack, victim, answer string }
	count, order := map[line]int{}, []line{}
	for _, a := range attempts {
		switch {
		case !a.Refused:
			t.say("NOT REFUSED  %s: %s: %s answered %s", a.Victim, a.Words, a.Function, a.Answer)
		case all:
			t.say("refused  %s: %s: %s answered %s", a.Victim, a.Words, a.Function, a.Answer)
		default:
			l := line{a.Attack, a.Victim, a.Function + " answered " + a.Answer}
			if count[l] == 0 {
				order = append(order, l)
			}
			count[l]++
		}
	}
	last := ""
	for _, l := range order {
		if l.attack != last {
			t.say("\nThe thief tries to %s:", hsm.AttackWords(l.attack))
			last = l.attack
		}
		t.say("  refused %4d times  %s: %s", count[l], l.victim, l.answer)
	}
	t.say("")
}

// readPackages takes the wrapped transport keys out of package files.
func readPackages(paths []string) ([][]byte, error) {
	var all [][]byte
	for _, path := range paths {
		var f statement.File
		if err := statement.ReadJSON(path, &f); err != nil {
			return nil, err
		}
		s, err := f.Signed(statement.CeremonyPackage)
		if err != nil {
			return nil, err
		}
		p, err := parsePackage(s.Payload)
		if err != nil {
			return nil, err
		}
		for _, k := range p.Keys {
			all = append(all, k.Wrapped)
		}
	}
	return all, nil
}
