package region

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Dir is a Region's directory, which the ceremony tool writes and the daemon reads:
//
//	region.json                  this Region's descriptor
//	peers/REGION.json            the descriptors of pinned peers
//	transcripts/*.json           transport keys of this token, one file per event
//	rosters/REGION@INSTANCE/     how the rosters of this Region and of peers were changed
//	retired/REGION.json          peers that are gone for good
//	former/REGION@INSTANCE.json  instances that are no more, whose words are history
//
// It holds public values only. What it says is signed, but whoever can replace region.json
// can replace all of it: the daemon compares it with the token's own Region signing key.
type Dir string

// ours are the directories below a Dir; their files, and those of their own directories, are
// written by the ceremony tool alone.
var ours = []string{"peers", "transcripts", "rosters", "replacements", "retired", "former"}

// Ours reports whether a file, by its path below a Dir with slashes, is one that the ceremony
// tool writes there; of a directory, with a slash at its end, whether such files are in it.
func Ours(name string) bool {
	top, below, nested := strings.Cut(name, "/")
	if !nested {
		return name == "region.json" || name == "rekey.json"
	}
	return slices.Contains(ours, top) && (strings.HasSuffix(below, ".json") || below == "" || strings.HasSuffix(below, "/"))
}

// Own returns the path of the own descriptor.
func (d Dir) Own() string { return filepath.Join(string(d), "region.json") }

// Peer returns the path of a peer's pinned descriptor.
func (d Dir) Peer(n Name) string { return filepath.Join(string(d), "peers", string(n)+".json") }

// Transcripts returns the directory of transcripts.
func (d Dir) Transcripts() string { return filepath.Join(string(d), "transcripts") }

// Make creates the directory and those below it. It is no error if they exist.
func (d Dir) Make() error {
	for _, p := range []string{string(d), filepath.Join(string(d), "peers"), d.Transcripts()} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// LoadOwn reads the own descriptor.
func (d Dir) LoadOwn() (SignedDescriptor, error) { return Load(d.Own()) }

// LoadPeer reads the pinned descriptor of a peer and checks that it is in the same partition.
func (d Dir) LoadPeer(n Name) (SignedDescriptor, error) {
	own, err := d.LoadOwn()
	if err != nil {
		return SignedDescriptor{}, err
	}
	peer, err := Load(d.Peer(n))
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.CheckRetired(own.Descriptor, Descriptor{Region: n}); err != nil {
			return SignedDescriptor{}, err
		}
		return SignedDescriptor{}, fmt.Errorf("peer Region %s is not pinned: %w", n, err)
	}
	if err != nil {
		return SignedDescriptor{}, err
	}
	if err := own.Accepts(n, peer); err != nil {
		return peer, err
	}
	return peer, d.CheckRetired(own.Descriptor, peer.Descriptor)
}

// Accepts reports whether peer may be a peer of this Region under the name n.
func (d Descriptor) Accepts(n Name, peer SignedDescriptor) error {
	switch {
	case peer.Region != n:
		return fmt.Errorf("descriptor of Region %s found under the name %s: %w", peer.Region, n, ErrDescriptor)
	case peer.Region == d.Region || peer.Instance == d.Instance:
		return fmt.Errorf("peer %s is this Region: %w", n, ErrDescriptor)
	case peer.Partition != d.Partition:
		return fmt.Errorf("peer %s is in partition %s, this Region in %s: %w", n, peer.Partition, d.Partition, ErrDescriptor)
	}
	return nil
}

// LoadPeers reads every pinned descriptor.
func (d Dir) LoadPeers() ([]SignedDescriptor, error) {
	files, err := filepath.Glob(d.Peer("*"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	var peers []SignedDescriptor
	for _, f := range files {
		n, err := ParseName(strings.TrimSuffix(filepath.Base(f), ".json"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		p, err := d.LoadPeer(n)
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}
