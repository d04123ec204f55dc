package hsm

import (
	"fmt"
	"strings"
)

// A label is six words with one space between them:
//
//	keyferry-1 ROLE ALGORITHM USAGE CLASS NAME
//
// An empty word is written "-". Of an import wrapping key the fifth word is its purpose. The first word is the format's version: a label of another
// version is not ours, and its object is quarantined rather than guessed at.
const (
	labelFormat = "keyferry-1"
	absent      = "-"
)

// Label returns the CKA_LABEL of an object made to this spec, which must pass Check.
func (s Spec) Label() string {
	words := []string{labelFormat, string(s.Role), string(s.Algorithm), string(s.Usage), string(s.Class) + s.Import.word(), s.Name}
	for i, w := range words {
		if w == "" {
			words[i] = absent
		}
	}
	return strings.Join(words, " ")
}

// ParseLabel reads a label back. It accepts exactly what Label writes for a valid spec.
func ParseLabel(label string) (Spec, error) {
	words := strings.Split(label, " ")
	if len(words) != 6 || words[0] != labelFormat {
		return Spec{}, fmt.Errorf("label is not of the form %s: %w", labelFormat, ErrCaller)
	}
	for i, w := range words {
		switch w {
		case "":
			return Spec{}, fmt.Errorf("label with an empty word: %w", ErrCaller)
		case absent:
			words[i] = ""
		}
	}
	s := Spec{
		Role:      Role(words[1]),
		Algorithm: Algorithm(words[2]),
		Usage:     Usage(words[3]),
		Class:     Class(words[4]),
		Name:      words[5],
	}
	if s.Role == RoleImportWrapping {
		var err error
		if s.Import, err = parsePurpose(words[4]); err != nil {
			return Spec{}, fmt.Errorf("label: %w", err)
		}
		s.Class = ""
	}
	if err := s.Check(); err != nil {
		return Spec{}, fmt.Errorf("label: %w", err)
	}
	return s, nil
}
