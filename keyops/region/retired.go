package region

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// ErrRetired means that a Region was retired. Facts of keys name Regions for as long as the
// keys exist, so neither its name nor its instance is used again.
var ErrRetired = errors.New("the Region was retired, and its name and its instance are not used again")

// Retirement is a Region's word that a peer is gone for good.
type Retirement struct {
	Region      Name
	Instance    InstanceID // that was pinned last
	Fingerprint string     // of its descriptor
	At          time.Time  // to the second
}

// Retired is the path of the word about a peer that was retired.
func (d Dir) Retired(n Name) string { return filepath.Join(string(d), "retired", string(n)+".json") }

func (r Retirement) payload() []byte {
	var w wire.Writer
	w.Uint(1)
	w.String(string(r.Region))
	w.String(string(r.Instance))
	w.String(r.Fingerprint)
	w.Uint(uint64(r.At.Unix()))
	return w.Out()
}

// Sign makes the statement in the name of the Region own.
func (r Retirement) Sign(ctx context.Context, own Descriptor, s statement.Signer) (statement.File, error) {
	return signWord(ctx, own, s, statement.RetiredRegion, r.payload())
}

// LoadRetired reads which peers the Region own has retired, by name.
func (d Dir) LoadRetired(own Descriptor) ([]Retirement, error) {
	files, err := filepath.Glob(d.Retired("*"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []Retirement
	for _, path := range files {
		r, err := loadRetirement(path, own)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func loadRetirement(path string, own Descriptor) (Retirement, error) {
	in, err := loadWord(path, own, statement.RetiredRegion)
	if err != nil {
		return Retirement{}, err
	}
	if v := in.Uint(); in.Err() == nil && v != 1 {
		in.Fail("retirement of form %d", v)
	}
	r := Retirement{Region: Name(in.String(64)), Instance: InstanceID(in.String(64)), Fingerprint: in.String(128)}
	r.At = decodeTime(in)
	if err := in.Done(); err != nil {
		return Retirement{}, err
	}
	if string(r.Region) != strings.TrimSuffix(filepath.Base(path), ".json") {
		return Retirement{}, fmt.Errorf("it is of Region %s", r.Region)
	}
	return r, nil
}

// CheckRetired refuses a peer whose name or whose instance was retired here.
func (d Dir) CheckRetired(own, peer Descriptor) error {
	all, err := d.LoadRetired(own)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Region == peer.Region || r.Instance == peer.Instance {
			return fmt.Errorf("%w: %s, instance %s, on %s", ErrRetired, r.Region, r.Instance, r.At.Format(time.DateOnly))
		}
	}
	return nil
}

// KeepRetirement writes down that a peer was retired, and takes its pin away.
func (d Dir) KeepRetirement(n Name, f statement.File) error {
	if err := keepWord(d.Retired(n), f); err != nil {
		return err
	}
	if err := os.Remove(d.Peer(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
