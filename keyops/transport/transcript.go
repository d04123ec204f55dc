package transport

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Event is what a transcript records.
type Event string

// Events of a transport key set at one end. Retired is final.
const (
	Established Event = "established"
	Retired     Event = "retired"
)

// Transcript records, at one end, what a ceremony made or destroyed.
type Transcript struct {
	Event       Event
	Name        Name
	Role        hsm.Role // which end wrote this
	TokenSerial string
	Keys        []Key // one per class, in the order of hsm.Classes; the same when retired
	// Offer and Package are the SHA-384 of the two signed messages that made the set.
	Offer, Package []byte
	// Peer is the other end's signed descriptor as it was at the ceremony.
	Peer region.SignedDescriptor
	At   time.Time // to the second
}

// File returns the file name of a transcript: one per set, end and event.
func (t Transcript) File() string {
	return fmt.Sprintf("%s_%s_%d_%s_%s.json", t.Name.Source, t.Name.Destination, t.Name.Epoch, t.Role, t.Event)
}

// Validate reports the first thing wrong with the transcript of the Region own.
func (t Transcript) Validate(own region.Descriptor) error {
	if err := t.Name.Validate(); err != nil {
		return err
	}
	self, peer := t.Name.Source, t.Name.Destination
	switch t.Role {
	case hsm.RoleTransportSource:
	case hsm.RoleTransportDestination:
		self, peer = peer, self
	default:
		return fmt.Errorf("transcript of role %q", t.Role)
	}
	switch {
	case t.Event != Established && t.Event != Retired:
		return fmt.Errorf("transcript of event %q", t.Event)
	case self != EndOf(own):
		return fmt.Errorf("transcript of %s, this is %s", self, EndOf(own))
	case peer != EndOf(t.Peer.Descriptor):
		return fmt.Errorf("transcript with peer %s, which holds the descriptor of %s", peer, EndOf(t.Peer.Descriptor))
	case t.TokenSerial == "" || len(t.TokenSerial) > 32:
		return fmt.Errorf("transcript with a token serial of %d bytes", len(t.TokenSerial))
	case len(t.Offer) != 48 || len(t.Package) != 48:
		return fmt.Errorf("transcript without the hashes of its offer and package")
	case len(t.Keys) == 0:
		return fmt.Errorf("transcript without keys")
	}
	for i, k := range t.Keys {
		switch {
		case !slices.Contains(hsm.Classes, k.Class):
			return fmt.Errorf("transcript with class %q", k.Class)
		case slices.ContainsFunc(t.Keys[:i], func(o Key) bool { return o.Class == k.Class || o.ID == k.ID }):
			return fmt.Errorf("transcript with two keys of class %q or ID %s", k.Class, k.ID)
		case k.Name != t.Name || k.Role != t.Role:
			return fmt.Errorf("transcript with a key of another set")
		}
	}
	return nil
}

func (t Transcript) payload() []byte {
	var w wire.Writer
	w.String(string(t.Event))
	w.String(t.Name.String())
	w.String(string(t.Role))
	w.String(t.TokenSerial)
	w.Count(len(t.Keys))
	for _, k := range t.Keys {
		w.String(string(k.Class))
		w.Bytes(k.ID[:])
	}
	w.Bytes(t.Offer)
	w.Bytes(t.Package)
	w.Bytes(t.Peer.Statement.Marshal())
	w.Uint(uint64(t.At.Unix()))
	return w.Out()
}

func parseTranscript(b []byte) (Transcript, error) {
	r := wire.NewReader(b)
	t := Transcript{Event: Event(r.String(32))}
	name := r.String(160)
	t.Role = hsm.Role(r.String(64))
	t.TokenSerial = r.String(32)
	if r.Err() == nil {
		var err error
		if t.Name, err = ParseName(name); err != nil {
			r.Fail("%v", err)
		}
	}
	for range r.Count(len(hsm.Classes)) {
		k := Key{Name: t.Name, Role: t.Role, Class: hsm.Class(r.String(32))}
		r.Fixed(k.ID[:])
		t.Keys = append(t.Keys, k)
	}
	t.Offer, t.Package = r.Bytes(48), r.Bytes(48)
	peer := r.Bytes(statement.MaxPayload)
	at := r.Uint()
	if at > 1<<40 {
		r.Fail("time %d is beyond any calendar", at)
	}
	t.At = time.Unix(int64(at), 0).UTC()
	if err := r.Done(); err != nil {
		return Transcript{}, err
	}
	s, err := statement.Parse(peer)
	if err != nil {
		return Transcript{}, err
	}
	t.Peer, err = region.Open(s)
	return t, err
}

// Sign makes the statement of a transcript in the name of the Region own.
func (t Transcript) Sign(ctx context.Context, own region.Descriptor, s statement.Signer) (statement.File, error) {
	if err := t.Validate(own); err != nil {
		return statement.File{}, err
	}
	signed, err := statement.Sign(ctx, s, statement.Transcript, t.payload())
	if err != nil {
		return statement.File{}, err
	}
	if err := own.Verify(signed); err != nil {
		return statement.File{}, err
	}
	pub, err := own.PublicKey()
	if err != nil {
		return statement.File{}, err
	}
	return statement.NewFile(signed, pub)
}

// Open verifies that own signed the transcript, and then reads it.
func Open(f statement.File, own region.Descriptor) (Transcript, error) {
	s, err := f.Signed(statement.Transcript)
	if err != nil {
		return Transcript{}, err
	}
	if err := own.Verify(s); err != nil {
		return Transcript{}, err
	}
	t, err := parseTranscript(s.Payload)
	if err != nil {
		return Transcript{}, fmt.Errorf("parsing transcript: %w", err)
	}
	return t, t.Validate(own)
}
