package region

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Former is a Region's word that an instance is no more and that what it has signed of keys
// is believed as history. The instance is of a peer that was retired or initialised again, of
// a Region that was gone before this one was there, or this Region's own one before.
type Former struct {
	SignedDescriptor
	At time.Time // to the second
}

// formerForm is the version of the payload.
const formerForm = 1

// Former is the path of the word about an instance that is no more.
func (d Dir) Former(of Descriptor) string {
	return filepath.Join(string(d), "former", string(of.Region)+"@"+string(of.Instance)+".json")
}

// Sign makes the statement in the name of the Region own.
func (f Former) Sign(ctx context.Context, own Descriptor, s statement.Signer) (statement.File, error) {
	if f.Instance == own.Instance || f.Partition != own.Partition {
		return statement.File{}, fmt.Errorf("instance %s: this one, or of another partition: %w", f.Instance, ErrDescriptor)
	}
	var w wire.Writer
	w.Uint(formerForm)
	w.Bytes(f.Statement.Marshal())
	w.Uint(uint64(f.At.Unix()))
	return signWord(ctx, own, s, statement.FormerInstance, w.Out())
}

// KeepFormer writes down that an instance is no more. It is no error if that was written down
// before.
func (d Dir) KeepFormer(of Descriptor, f statement.File) error {
	return keepWord(d.Former(of), f)
}

// LoadFormer reads which instances are no more, by name.
func (d Dir) LoadFormer(own Descriptor) ([]Former, error) {
	files, err := filepath.Glob(filepath.Join(string(d), "former", "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []Former
	for _, path := range files {
		f, err := loadFormer(path, own)
		if err == nil && d.Former(f.Descriptor) != path {
			err = fmt.Errorf("it is of instance %s of %s", f.Instance, f.Region)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, f)
	}
	return all, nil
}

func loadFormer(path string, own Descriptor) (Former, error) {
	in, err := loadWord(path, own, statement.FormerInstance)
	if err != nil {
		return Former{}, err
	}
	if v := in.Uint(); in.Err() == nil && v != formerForm {
		in.Fail("former instance of form %d", v)
	}
	raw, at := in.Bytes(statement.MaxPayload), decodeTime(in)
	if err := in.Done(); err != nil {
		return Former{}, err
	}
	signed, err := statement.Parse(raw)
	if err != nil {
		return Former{}, err
	}
	f := Former{At: at}
	f.SignedDescriptor, err = Open(signed)
	return f, err
}
