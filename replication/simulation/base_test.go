// Package simulation runs the real replication and key operations of three to five Regions
// in one goroutine, over a network, clocks, stores and tokens that fail as a seed says.
//
// Nothing that decides is simulated: keyops.Service, replication.Replicator, the seals, the
// audit log and the rules are those of the daemon. Simulated are the way of a message, the
// time, the disk and the token, each behind the interface that production uses. A seed
// decides everything, so a failing one replays to the byte.
package simulation

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/transport"
)

// names are the Regions of a simulated deployment, the first ones of which take part.
var names = []region.Name{"eu-paris-1", "us-east-1", "ap-tokyo-1", "sa-lima-1", "af-lagos-1"}

// plant is what one Region has before any schedule begins: what its ceremonies left. It is
// made once, since every schedule begins the same, and never changed.
type plant struct {
	descriptor region.SignedDescriptor
	operators  []crypto.Signer
	signing    hsm.ID
	seal       hsm.ID
	token      hsmtest.Snapshot
	transport  transport.Set
}

// generations is how many instances a Region can have in one schedule, one after the other.
const generations = 2

var plants = sync.OnceValues(func() (map[region.Name][]plant, error) {
	dir, err := os.MkdirTemp("", "keyferry-simulation-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return makePlants(context.Background(), dir)
})

// noTest receives what no correct caller of a token does while the plants are made.
type noTest struct{}

func (noTest) Helper()                           {}
func (noTest) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func makePlants(ctx context.Context, dir string) (map[region.Name][]plant, error) {
	var regions []*keyopstest.Region
	for i := range generations * len(names) {
		name := names[i%len(names)]
		d := filepath.Join(dir, fmt.Sprint(name, i))
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
		r, err := keyopstest.Make(ctx, d, noTest{}, keyopstest.Options{Name: name, Operators: 3})
		if err != nil {
			return nil, err
		}
		regions = append(regions, r)
	}
	for _, source := range regions {
		for _, destination := range regions {
			if source.Options.Name == destination.Options.Name {
				continue
			}
			name := keyopstest.SetName(source, destination, 1)
			made := hsmtest.Establish(source.Fake, destination.Fake, name.String())
			if err := keyopstest.Transcribe(ctx, source, destination, name, made); err != nil {
				return nil, err
			}
		}
	}
	if err := warm(ctx); err != nil {
		return nil, err
	}
	all := map[region.Name][]plant{}
	for _, r := range regions {
		set, err := transport.Load(r.Dir)
		if err != nil {
			return nil, err
		}
		all[r.Options.Name] = append(all[r.Options.Name], plant{
			descriptor: r.Descriptor, operators: r.Operators, signing: r.Signing, seal: r.SealKey,
			token: r.Fake.Snapshot(), transport: set,
		})
	}
	return all, nil
}

// warm makes the RSA keys that every fake token uses, so that no schedule makes them.
func warm(ctx context.Context) error {
	f := hsmtest.NewFake(noTest{}, hsmtest.Options{})
	spec := hsm.Spec{Role: hsm.RoleImportWrapping, Algorithm: hsm.RSA2048, Import: hsm.ImportFor{
		Scheme: hsm.OAEPSHA256Import, Role: hsm.RoleMaterial, Algorithm: hsm.AES256,
	}}
	for range 2 {
		if _, err := f.GenerateImportKey(ctx, spec, hsm.NewID()); err != nil {
			return err
		}
	}
	return nil
}

// A signature costs a hundred times what everything else in a step does. Here a Region's
// word is an HMAC under a key that only its token and the verifier below use.

func shortSign(i region.InstanceID, digest []byte) []byte {
	h := hmac.New(sha512.New384, []byte(i))
	h.Write(digest)
	return h.Sum(nil)
}

// shortVerifier stands where production has the pinned descriptors, and those of instances
// that are no more.
type shortVerifier struct {
	pinned map[region.Name]region.Descriptor
	former map[region.InstanceID]region.Descriptor
}

var _ mrk.Historian = shortVerifier{}

func (v shortVerifier) Verify(r region.Name, instance region.InstanceID, s statement.Signed) error {
	historic := s.Purpose == statement.Certificate || s.Purpose == statement.State || s.Purpose == statement.Member || s.Purpose == statement.CreateReplica
	if v.pinned[r].Instance != instance && (!historic || !v.Former(r, instance)) {
		return fmt.Errorf("instance %s of %s is not pinned", instance, r)
	}
	if !hmac.Equal(shortSign(instance, statement.Digest(s.Purpose, s.Payload)), s.Signature) {
		return statement.ErrSignature
	}
	return nil
}

// Former reports whether operators have said that the instance is no more.
func (v shortVerifier) Former(r region.Name, instance region.InstanceID) bool {
	return v.former[instance].Region == r
}

// token is a Region's token in one run of its daemon.
type token struct {
	*hsmtest.Fake
	of      region.InstanceID
	signing hsm.ID
}

var _ keyops.Token = token{}

// Sign signs in the Region's name at no cost, and otherwise as the fake does.
func (t token) Sign(ctx context.Context, id hsm.ID, scheme hsm.SignScheme, digest []byte) ([]byte, error) {
	if id != t.signing {
		return t.Fake.Sign(ctx, id, scheme, digest)
	}
	if err := t.Fake.Health(ctx); err != nil { // counted, and failing, like any call
		return nil, err
	}
	return shortSign(t.of, digest), nil
}

// approve lets a Region's operators approve a request.
func (p plant) approve(ctx context.Context, q approval.Request) ([]statement.File, error) {
	var files []statement.File
	for _, k := range p.operators {
		f, err := approval.Sign(ctx, k, q)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}
