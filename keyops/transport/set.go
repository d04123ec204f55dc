package transport

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// Set is what this Region's transcripts say about its token.
type Set struct {
	live        []Key // newest epoch first within a pair
	retired     []Key
	transcripts []Transcript
}

// Load reads every transcript in dir. One that does not verify, contradicts another or is
// not the file that its content says fails the whole, because a set that silently lacks a
// retirement would use a retired key. So does a pinned peer that is not the one of the
// transcripts.
func Load(dir region.Dir) (Set, error) {
	own, err := dir.LoadOwn()
	if err != nil {
		return Set{}, err
	}
	return LoadOf(dir, own)
}

// LoadOf is Load by a descriptor that was compared with the token: whatever stands in the
// directory by now, it is this Region's transcripts that count.
func LoadOf(dir region.Dir, own region.SignedDescriptor) (Set, error) {
	names, err := Files(dir)
	if err != nil {
		return Set{}, err
	}
	var all []Transcript
	for _, name := range names {
		t, err := LoadTranscript(filepath.Join(dir.Transcripts(), name), own.Descriptor)
		if err != nil {
			return Set{}, err
		}
		if name != t.File() {
			return Set{}, fmt.Errorf("transcript %s: its content is that of %s", name, t.File())
		}
		all = append(all, t)
	}
	peers, err := dir.LoadPeers()
	if err != nil {
		return Set{}, err
	}
	for _, p := range peers {
		if err := checkPin(dir, p, all); err != nil {
			return Set{}, err
		}
	}
	return newSet(all)
}

// Files lists the names of the transcripts in dir, in order.
func Files(dir region.Dir) ([]string, error) {
	entries, err := os.ReadDir(dir.Transcripts())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), statement.PartSuffix) { // a write that a crash cut short was never a transcript
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// checkPin compares a pin with the ceremonies that were held with the peer. Nobody signs a
// pin, so that whoever can write the directory could put a signing key of their own under
// the peer's name; transcripts are signed. An instance's next signing key is one that its
// operators have put in the place of the one before, which the directory has to show.
func checkPin(dir region.Dir, p region.SignedDescriptor, all []Transcript) error {
	for _, t := range all {
		if EndOf(t.Peer.Descriptor) != EndOf(p.Descriptor) || bytes.Equal(t.Peer.SigningKey, p.SigningKey) {
			continue
		}
		if err := dir.Follows(t.Peer, p); err != nil {
			return fmt.Errorf("pinned descriptor of %s has another signing key than at the ceremony of %s: find out who replaced it: %w: %w",
				EndOf(p.Descriptor), t.Name, region.ErrDescriptor, err)
		}
	}
	return nil
}

// LoadTranscript reads one transcript file of the Region own.
func LoadTranscript(path string, own region.Descriptor) (Transcript, error) {
	var f statement.File
	if err := statement.ReadJSON(path, &f); err != nil {
		return Transcript{}, err
	}
	t, err := Open(f, own)
	if err != nil {
		return Transcript{}, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func newSet(all []Transcript) (Set, error) {
	s := Set{transcripts: all}
	retired := map[string]Transcript{} // file names say set, end and event, so each occurs once
	for _, t := range all {
		if t.Event == Retired {
			retired[t.Name.String()+string(t.Role)] = t
		}
	}
	ids := map[hsm.ID]Name{}
	for _, t := range all {
		if t.Event != Established {
			continue
		}
		for _, k := range t.Keys {
			if other, ok := ids[k.ID]; ok {
				return Set{}, fmt.Errorf("object %s is claimed by transport key sets %s and %s", k.ID, other, t.Name)
			}
			ids[k.ID] = t.Name
		}
		r, gone := retired[t.Name.String()+string(t.Role)]
		switch {
		case !gone:
			s.live = append(s.live, t.Keys...)
		case !slices.Equal(r.Keys, t.Keys):
			return Set{}, fmt.Errorf("transport key set %s: retired with other keys than it was established with", t.Name)
		default:
			s.retired = append(s.retired, t.Keys...)
			delete(retired, t.Name.String()+string(t.Role))
		}
	}
	for _, r := range retired {
		return Set{}, fmt.Errorf("transport key set %s: retired but never established", r.Name)
	}
	slices.SortStableFunc(s.live, func(a, b Key) int {
		if c := strings.Compare(a.Name.Source.String()+a.Name.Destination.String(), b.Name.Source.String()+b.Name.Destination.String()); c != 0 {
			return c
		}
		switch {
		case a.Name.Epoch > b.Name.Epoch:
			return -1
		case a.Name.Epoch < b.Name.Epoch:
			return 1
		}
		return 0
	})
	return s, nil
}

// All returns every transport key in use, the newest epoch of each pair first.
func (s Set) All() []Key { return slices.Clone(s.live) }

// Retired returns the keys that were retired; an object with such an ID must not exist.
func (s Set) Retired() []Key { return slices.Clone(s.retired) }

// Transcripts returns what was read.
func (s Set) Transcripts() []Transcript { return slices.Clone(s.transcripts) }

// Newest returns this token's key of one class with the highest epoch for the ordered pair.
// A destination may hold an epoch that its source does not and the reverse; the two agree
// by Epochs.
func (s Set) Newest(source, destination End, c hsm.Class) (Key, bool) {
	for _, k := range s.live {
		if k.Name.Source == source && k.Name.Destination == destination && k.Class == c {
			return k, true
		}
	}
	return Key{}, false
}

// At returns this token's key of one class for the ordered pair and epoch.
func (s Set) At(n Name, c hsm.Class) (Key, bool) {
	for _, k := range s.live {
		if k.Name == n && k.Class == c {
			return k, true
		}
	}
	return Key{}, false
}

// Epochs returns the epochs in use for the ordered pair and class, newest first.
func (s Set) Epochs(source, destination End, c hsm.Class) []uint64 {
	var epochs []uint64
	for _, k := range s.live {
		if k.Name.Source == source && k.Name.Destination == destination && k.Class == c {
			epochs = append(epochs, k.Name.Epoch)
		}
	}
	return epochs
}

// NextEpoch returns the epoch after every one that was ever established for the pair, so
// that no epoch is used twice, not even after its retirement.
func (s Set) NextEpoch(source, destination End) uint64 {
	next := uint64(1)
	for _, t := range s.transcripts {
		if t.Name.Source == source && t.Name.Destination == destination && t.Name.Epoch >= next {
			next = t.Name.Epoch + 1
		}
	}
	return next
}
