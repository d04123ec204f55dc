package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// chaosKey is a key and where it was told to be. A call that got no answer may have been
// carried out all the same.
type chaosKey struct {
	id      string
	kind    *chaosKind
	primary string // where it was when somebody last asked
	members []string
}

// proof is a ciphertext, a MAC or a signature that a Region has answered with: from then on
// every member must take it, for ever.
type proof struct {
	key  *chaosKey
	text []byte
	made []byte
	file string // holds made
}

// chaosKind is what is done with one kind of key.
type chaosKind struct {
	name   string
	create []string
	rotate bool
	use    []string
	check  func(c *chaos, region string, p proof) error
}

// forged is how a Region says that something was never made with the key.
var forged = regexp.MustCompile("InvalidCiphertext|InvalidMac|InvalidSignature")

var errOther = errors.New("it opens to something else")

// chaosKinds has symmetric keys more than once, since those rotate.
var chaosKinds = []*chaosKind{encryption, encryption, encryption, {
	name: "MAC", create: []string{"--spec", "HMAC_256"}, use: []string{"mac"},
	check: func(c *chaos, region string, p proof) error {
		_, err := c.ask(p.text, region, "verify-mac", p.key.id, "--mac", p.file)
		return err
	},
}, signatures("EC signature", "ECC_NIST_P256", "ECDSA_SHA_256"), signatures("RSA signature", "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256")}

var encryption = &chaosKind{name: "ciphertext", rotate: true, use: []string{"encrypt"}, check: func(c *chaos, region string, p proof) error {
	got, err := c.ask(p.made, region, "decrypt")
	if err == nil && !bytes.Equal(got, p.text) {
		return errOther
	}
	return err
}}

// signatures verifies with a key pair, and signs again in the other Region when the algorithm
// has one signature for a message.
func signatures(name, spec, algorithm string) *chaosKind {
	return &chaosKind{
		name: name, create: []string{"--spec", spec, "--usage", "SIGN_VERIFY"}, use: []string{"sign", "--algorithm", algorithm},
		check: func(c *chaos, region string, p proof) error {
			if _, err := c.ask(p.text, region, "verify", p.key.id, "--algorithm", algorithm, "--signature", p.file); err != nil {
				return err
			}
			if !strings.HasPrefix(algorithm, "RSASSA_PKCS1") {
				return nil
			}
			again, err := c.ask(p.text, region, "sign", p.key.id, "--algorithm", algorithm)
			if err == nil && !bytes.Equal(again, p.made) {
				return errOther
			}
			return err
		},
	}
}

type chaosOperation struct {
	name string
	do   func(*chaos, *testing.T) bool
}

// chaosOperations is what the client does between faults. Each says whether it was answered;
// without an answer nothing is concluded.
var chaosOperations = []chaosOperation{
	{"create", (*chaos).create},
	{"replicate", (*chaos).replicate},
	{"replicate", (*chaos).replicate},
	{"use", (*chaos).use},
	{"use", (*chaos).use},
	{"use", (*chaos).use},
	{"take", (*chaos).take},
	{"rotate", (*chaos).rotate},
	{"rotate", (*chaos).rotate},
	{"hand over", (*chaos).handOver},
	{"hand over", (*chaos).handOver},
	{"disable", lifeOperation("disable")},
	{"enable", lifeOperation("enable")},
	{"enable", lifeOperation("enable")},
	{"delete", lifeOperation("delete", "--in", "7d")},
	{"undelete", lifeOperation("undelete")},
}

// begin makes a key of each kind and uses it in every Region before the first fault, so that
// there is something to lose whatever chance does later.
func (c *chaos) begin(t *testing.T) {
	t.Helper()
	for i, kind := range chaosKinds {
		k := &chaosKey{kind: kind, primary: regions[i%len(regions)]}
		k.id = shared.createKey(t, k.primary, kind.create...)
		k.members = append(k.members, k.primary)
		for _, r := range regions {
			if r != k.primary {
				shared.replicate(t, k.id, k.primary, r)
				k.members = append(k.members, r)
			}
			if err := c.prove(t, k, r); err != nil {
				t.Fatalf("before the first fault: %v", err)
			}
		}
		c.keys = append(c.keys, k)
	}
}

func (c *chaos) operate(t *testing.T) {
	for range 2 + c.rng.IntN(7) {
		op := pick(c, chaosOperations)
		if len(c.keys) == 0 {
			op = chaosOperations[0]
		}
		if op.do(c, t) {
			c.done[op.name]++
		}
	}
}

// ask runs a command with little patience: a Region may be down.
func (c *chaos) ask(stdin []byte, region string, args ...string) ([]byte, error) {
	return shared.keyferry(stdin, append(args, "--region", region, "--timeout", "5s")...)
}

func pick[T any](c *chaos, from []T) T { return from[c.rng.IntN(len(from))] }

// shownKey is what keyferry key show --json says of a key.
type shownKey struct {
	KeyState                 string
	CurrentKeyMaterialID     string
	MultiRegionConfiguration struct{ PrimaryKey struct{ Region string } }
}

func (c *chaos) show(region string, k *chaosKey) (shownKey, error) {
	out, err := c.ask(nil, region, "key", "show", k.id, "--json")
	if err != nil {
		return shownKey{}, err
	}
	var answer struct{ KeyMetadata shownKey }
	err = json.Unmarshal(out, &answer)
	return answer.KeyMetadata, err
}

// lead asks any member where the primary key is, since a hand-over may have moved it.
func (c *chaos) lead(k *chaosKey) string {
	if m, err := c.show(pick(c, k.members), k); err == nil {
		k.primary = m.MultiRegionConfiguration.PrimaryKey.Region
	}
	return k.primary
}

func (c *chaos) create(t *testing.T) bool {
	region, kind := pick(c, regions), pick(c, chaosKinds)
	out, err := c.ask(nil, region, append([]string{"key", "create", "--multi-region"}, kind.create...)...)
	if err != nil {
		return false
	}
	c.keys = append(c.keys, &chaosKey{id: strings.TrimSpace(string(out)), kind: kind, primary: region, members: []string{region}})
	return true
}

func (c *chaos) replicate(t *testing.T) bool {
	if len(c.keys) == 0 {
		return false
	}
	k, to := pick(c, c.keys), pick(c, regions)
	if slices.Contains(k.members, to) {
		return false
	}
	if _, err := c.ask(nil, c.lead(k), "key", "replicate", k.id, "--to", to); err != nil {
		return false
	}
	k.members = append(k.members, to)
	return true
}

func (c *chaos) use(t *testing.T) bool {
	if len(c.keys) == 0 {
		return false
	}
	k := pick(c, c.keys)
	return c.prove(t, k, pick(c, k.members)) == nil
}

// prove makes a ciphertext, a MAC or a signature in a Region and keeps it.
func (c *chaos) prove(t *testing.T, k *chaosKey, region string) error {
	p := proof{key: k, text: fmt.Appendf(nil, "secret %d", len(c.proofs)), file: filepath.Join(c.dir, fmt.Sprint(len(c.proofs)))}
	var err error
	if p.made, err = c.ask(p.text, region, append([]string{k.kind.use[0], k.id}, k.kind.use[1:]...)...); err != nil {
		return err
	}
	if err := os.WriteFile(p.file, p.made, 0o600); err != nil {
		t.Fatal(err)
	}
	c.proofs = append(c.proofs, p)
	return nil
}

// take hands a proof to some member. A Region may be unable to look, but not see another
// text, nor deny that a key made what it has made, unless it has yet to get that key.
func (c *chaos) take(t *testing.T) bool {
	if len(c.proofs) == 0 {
		return false
	}
	p := pick(c, c.proofs)
	region := pick(c, p.key.members)
	if m, err := c.show(region, p.key); err != nil || m.KeyState != "Enabled" {
		return false
	}
	err := p.key.kind.check(c, region, p)
	if errors.Is(err, errOther) || err != nil && forged.MatchString(err.Error()) {
		t.Errorf("%s of %s in %s: %v", p.key.kind.name, p.key.id, region, err)
	}
	return err == nil
}

func (c *chaos) rotate(t *testing.T) bool {
	return c.manage(func(k *chaosKey) (region string, args []string) {
		if !k.kind.rotate {
			return "", nil
		}
		return c.lead(k), []string{"rotate", k.id}
	})
}

func (c *chaos) handOver(t *testing.T) bool {
	return c.manage(func(k *chaosKey) (region string, args []string) {
		from, to := c.lead(k), pick(c, k.members)
		if from == to {
			return "", nil
		}
		return from, []string{"promote", k.id, "--to", to}
	})
}

func lifeOperation(verb string, args ...string) func(*chaos, *testing.T) bool {
	return func(c *chaos, _ *testing.T) bool {
		return c.manage(func(k *chaosKey) (string, []string) {
			return pick(c, k.members), append([]string{verb, k.id}, args...)
		})
	}
}

// manage does something with a key, or nothing if no Region is named.
func (c *chaos) manage(command func(*chaosKey) (region string, args []string)) bool {
	if len(c.keys) == 0 {
		return false
	}
	region, args := command(pick(c, c.keys))
	if region == "" {
		return false
	}
	_, err := c.ask(nil, region, append([]string{"key"}, args...)...)
	return err == nil
}
