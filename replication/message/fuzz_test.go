package message_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication/message"
)

// again parses bytes, and writes what they say.
type again func([]byte) ([]byte, error)

func of[T interface{ Marshal() []byte }](parse func([]byte) (T, error)) again {
	return func(b []byte) ([]byte, error) {
		m, err := parse(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal(), nil
	}
}

// parsers are those of everything that arrives.
var parsers = map[string]again{
	"envelope":      of(message.Parse),
	"digest":        of(message.ParseDigest),
	"digest answer": of(message.ParseDigestAnswer),
	"facts":         of(message.ParseFacts),
	"check":         of(func(b []byte) (message.Check, error) { return message.ParseCheck(b, "") }),
	"check primary": of(func(b []byte) (message.CheckPrimary, error) { return message.ParseCheckPrimary(b, "") }),
	"decision":      of(message.ParseDecision),
	"confirm":       of(message.ParseConfirm),
	"confirmation": of(func(b []byte) (message.Confirmation, error) {
		c, err := message.ParseConfirmation(b, "")
		return message.Confirmation{Confirmation: c}, err
	}),
	"associate":     of(func(b []byte) (message.Associate, error) { return message.ParseAssociate(b, message.Party{}) }),
	"disassociate":  of(func(b []byte) (message.Disassociate, error) { return message.ParseDisassociate(b, message.Party{}) }),
	"disassociated": of(message.ParseDisassociated),
	"severed":       of(message.ParseSevered),
	"offer":         of(message.ParseOffer),
	"offer answer":  of(message.ParseOfferAnswer),
	"rosters":       of(message.ParseRosters),
}

// FuzzParse looks for a panic, and for bytes that are accepted but are not the one encoding
// of what they say.
func FuzzParse(f *testing.F) {
	const key arn.KeyID = "mrk-00112233445566778899aabbccddeeff"
	names := slices.Sorted(maps.Keys(parsers))
	for i := range names {
		f.Add(byte(i), []byte{0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1})
		f.Add(byte(i), message.Digest{}.Marshal())
		f.Add(byte(i), message.Facts{Key: key, Facts: mrk.Facts{Key: key}, Hash: mrk.Hash{1}}.Marshal())
		f.Add(byte(i), message.Confirm{Question: mrk.Question{Key: key, Nonce: mrk.Nonce{1}}}.Marshal())
		f.Add(byte(i), message.Severed{}.Marshal())
	}
	f.Fuzz(func(t *testing.T, which byte, p []byte) {
		name := names[int(which)%len(names)]
		b, err := parsers[name](p)
		if err == nil && !bytes.Equal(b, p) {
			t.Errorf("%s: accepted bytes that are not what would be written", name)
		}
	})
}
