package mrk

import (
	"bytes"
	"regexp"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Bounds of a set. A decoder refuses what is larger, so that a hostile peer can make no
// Region keep more than this for a key, and all facts of a key fit into one statement.
const (
	MaxMembers      = 16
	MaxMaterials    = 256
	MaxCertificates = 512
	MaxTags         = 50

	maxName        = 64
	maxSPKI        = 2048
	maxPolicy      = 32 << 10
	maxDescription = 4 * 8192 // 8192 characters of up to four bytes
	maxTagKey      = 4 * 128
	maxTagValue    = 4 * 256
	maxPrincipal   = 512
	maxID          = 128 // correlation and request IDs
	maxText        = 1024
	maxWrapped     = 16 << 10
	maxSignature   = 256
	maxStatement   = 512 << 10
	maxFacts       = statement.MaxPayload
)

// formatVersion is the first field of every payload of this package. A payload of another
// version is refused as a whole: what it would mean is not known here.
const formatVersion = 1

var (
	upperWord = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`) // SYMMETRIC_DEFAULT, EPOCH_FORK
	stateWord = regexp.MustCompile(`^[A-Z][A-Za-z]{0,31}$`)  // PendingDeletion
)

func decodeVersion(r *wire.Reader) {
	if v := r.Uint(); r.Err() == nil && v != formatVersion {
		r.Fail("format version %d, only %d is known", v, formatVersion)
	}
}

// maxNumber bounds what writers count: incarnations, counters, sequence numbers, epochs. An
// honest writer never gets there; a hostile one must not bring others to count over the end.
const maxNumber = 1 << 62

func decodeNumber(r *wire.Reader) uint64 {
	n := r.Uint()
	if n > maxNumber {
		r.Fail("number %d, at most %d is counted", n, uint64(maxNumber))
	}
	return n
}

func decodeRegion(r *wire.Reader) region.Name {
	s := r.String(maxName)
	n, err := region.ParseName(s)
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return n
}

func decodeInstance(r *wire.Reader) region.InstanceID {
	s := r.String(maxName)
	id, err := region.ParseInstanceID(s)
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return id
}

func decodeKeyID(r *wire.Reader) arn.KeyID {
	s := r.String(maxName)
	id, err := arn.ParseKeyID(s)
	if r.Err() == nil && (err != nil || !id.MultiRegion()) {
		r.Fail("%q is no multi-Region key ID", s)
	}
	return id
}

func decodeWord(r *wire.Reader, pattern *regexp.Regexp, what string) string {
	s := r.String(maxName)
	if r.Err() == nil && !pattern.MatchString(s) {
		r.Fail("%s %q", what, s)
	}
	return s
}

func decodeMaterialID(r *wire.Reader) material.ID {
	var id material.ID
	r.Fixed(id[:])
	if r.Err() == nil && id.IsZero() {
		r.Fail("material ID of zeros")
	}
	return id
}

// decodeOptionalMaterial reads an empty field as no material.
func decodeOptionalMaterial(r *wire.Reader) material.ID {
	b := r.Bytes(len(material.ID{}))
	var id material.ID
	switch {
	case r.Err() != nil, len(b) == 0:
	case len(b) != len(id):
		r.Fail("material ID of %d bytes", len(b))
	default:
		copy(id[:], b)
		if id.IsZero() {
			r.Fail("material ID of zeros")
		}
	}
	return id
}

func encodeOptionalMaterial(w *wire.Writer, id material.ID) {
	if id.IsZero() {
		w.Bytes(nil)
		return
	}
	w.Bytes(id[:])
}

// idSet is a sorted list of distinct material IDs: the one form in which a set of them is
// encoded.
type idSet []material.ID

func compareIDs(a, b material.ID) int { return bytes.Compare(a[:], b[:]) }

func newIDSet(ids []material.ID) idSet {
	s := slices.Clone(ids)
	slices.SortFunc(s, compareIDs)
	return slices.Compact(s)
}

func (s idSet) has(id material.ID) bool {
	_, ok := slices.BinarySearchFunc(s, id, compareIDs)
	return ok
}

// within reports whether every ID of s is in o.
func (s idSet) within(o idSet) bool {
	for _, id := range s {
		if !o.has(id) {
			return false
		}
	}
	return true
}

// without returns s less one ID.
func (s idSet) without(id material.ID) idSet {
	return slices.DeleteFunc(slices.Clone(s), func(x material.ID) bool { return x == id })
}

func (s idSet) encode(w *wire.Writer) {
	w.Count(len(s))
	for _, id := range s {
		w.Bytes(id[:])
	}
}

func decodeIDSet(r *wire.Reader) idSet {
	n := r.Count(MaxMaterials)
	var s idSet
	for range n {
		id := decodeMaterialID(r)
		if r.Err() != nil {
			return nil
		}
		if len(s) > 0 && compareIDs(s[len(s)-1], id) >= 0 {
			r.Fail("material IDs out of order")
			return nil
		}
		s = append(s, id)
	}
	return s
}
