package envelope

import (
	"fmt"

	"filippo.io/age"
)

// recipient is a Region's key, to age. It keeps its error as it was, since age adds words.
type recipient struct {
	wrap Wrap
	err  error
}

// Wrap implements age.Recipient.
func (r *recipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	key, blob, err := r.wrap(fileKey)
	if err != nil {
		r.err = err
		return nil, err
	}
	return []*age.Stanza{{Type: Type, Args: []string{key}, Body: blob}}, nil
}

// identity is what a Region can open, to age.
type identity struct {
	unwrap Unwrap
	key    string
	err    error
}

// Unwrap implements age.Identity. A file has one stanza of ours: a header with more could
// make us ask the Region for each.
func (i *identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	var ours *age.Stanza
	for _, s := range stanzas {
		switch {
		case s.Type != Type:
		case ours != nil:
			return nil, fmt.Errorf("it has several %s stanzas", Type)
		default:
			ours = s
		}
	}
	if ours == nil {
		return nil, fmt.Errorf("it has no %s stanza: %w", Type, age.ErrIncorrectIdentity)
	}
	if len(ours.Args) != 1 || len(ours.Body) == 0 {
		return nil, fmt.Errorf("its %s stanza is malformed", Type)
	}
	key, fileKey, err := i.unwrap(ours.Body)
	if err != nil {
		i.err = err
		return nil, err
	}
	// age derives keys from it without a look at its length.
	if len(fileKey) != fileKeySize {
		return nil, fmt.Errorf("its %s stanza holds no file key", Type)
	}
	i.key = key
	return fileKey, nil
}
