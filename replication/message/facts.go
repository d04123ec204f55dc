package message

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Trouble says why the answering Region did not take all of a message.
type Trouble struct {
	Cause mrk.Cause // empty: no trouble
	Text  string
}

// Facts is what one Region knows of a key, in a message and in its answer.
type Facts struct {
	Key     arn.KeyID
	Facts   mrk.Facts
	Head    mrk.Hash // newest certificate known to the sender; the other end sends what follows it
	Hash    mrk.Hash // of all facts that the sender knows; zero if it does not know the key
	Request *mrk.CreateRequest
	Blobs   []mrk.Blob // in messages only
	Epochs  []uint64   // in answers only: of the transport keys under which the answering Region can be sent materials
	Trouble Trouble    // in answers only
	Roster  RosterNeed // in answers only: whose operators have to be known before all of the message is believed
}

// Marshal returns the one encoding of it.
func (f Facts) Marshal() []byte {
	var w wire.Writer
	w.String(string(f.Key))
	w.Bytes(f.Facts.Marshal())
	w.Bytes(f.Head[:])
	w.Bytes(f.Hash[:])
	if f.Request == nil {
		w.Bytes(nil)
	} else {
		w.Bytes(f.Request.Signed().Marshal())
	}
	w.Count(len(f.Blobs))
	for _, b := range f.Blobs {
		w.Bytes(b.Marshal())
	}
	w.Count(len(f.Epochs))
	for _, e := range f.Epochs {
		w.Uint(e)
	}
	w.String(string(f.Trouble.Cause))
	w.String(f.Trouble.Text)
	f.Roster.encode(&w)
	return w.Out()
}

// ParseFacts reads what Marshal wrote, and nothing else.
func ParseFacts(p []byte) (Facts, error) {
	r := wire.NewReader(p)
	f := Facts{Key: decodeKey(r)}
	facts := r.Bytes(maxBody)
	r.Fixed(f.Head[:])
	r.Fixed(f.Hash[:])
	request := r.Bytes(statement.MaxPayload)
	var blobs [][]byte
	for range r.Count(MaxBlobs) {
		blobs = append(blobs, r.Bytes(maxBlob))
	}
	for range r.Count(MaxEpochs) {
		f.Epochs = append(f.Epochs, r.Uint())
	}
	f.Trouble = Trouble{Cause: mrk.Cause(r.String(MaxKind)), Text: r.String(MaxText)}
	f.Roster = decodeRosterNeed(r)
	if err := r.Done(); err != nil {
		return f, fmt.Errorf("parsing facts message: %w", err)
	}
	return f, f.parseParts(facts, request, blobs)
}

func (f *Facts) parseParts(facts, request []byte, blobs [][]byte) (err error) {
	if f.Facts, err = mrk.ParseFacts(facts); err != nil {
		return err
	}
	if f.Facts.Key != f.Key {
		return fmt.Errorf("parsing facts message: %w: facts of another key", wire.ErrMalformed)
	}
	if len(request) > 0 {
		signed, err := statement.Parse(request)
		if err != nil {
			return err
		}
		req, err := mrk.ParseCreateRequest(signed)
		if err != nil {
			return err
		}
		f.Request = &req
	}
	for _, p := range blobs {
		b, err := mrk.ParseBlob(p)
		if err != nil {
			return err
		}
		f.Blobs = append(f.Blobs, b)
	}
	return nil
}
