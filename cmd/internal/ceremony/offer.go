package ceremony

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Limits of an offer's life. The establishment key lives in one process, so an offer is
// for people who are at work now.
const (
	DefaultExpiry = time.Hour
	maxExpiry     = 24 * time.Hour
	maxSkew       = 5 * time.Minute
)

// Offer is what a destination says: wrap transport keys for this establishment key.
type Offer struct {
	Source, Destination region.SignedDescriptor
	Epoch               uint64
	Classes             []hsm.Class
	Created, Expires    time.Time // to the second
	Establishment       []byte    // SPKI, RSA-3072
	OAEP                hsm.OAEPHash
}

// OfferFile is the offer with its approvals. Rosters are all changes of the destination's
// roster since its descriptor; the newest roster's operators approve.
type OfferFile struct {
	Offer     statement.File    `json:"offer"`
	Rosters   []approval.Change `json:"rosters,omitempty"`
	Approvals []statement.File  `json:"approvals"`
}

// roster verifies the changes, and returns the newest roster of the destination.
func (f OfferFile) roster(destination region.Descriptor) (approval.Roster, error) {
	return destination.Operators.Follow(string(destination.Region), string(destination.Instance), f.Rosters...)
}

// Name names the transport key set that the offer asks for.
func (o Offer) Name() transport.Name {
	return transport.Name{Source: transport.EndOf(o.Source.Descriptor), Destination: transport.EndOf(o.Destination.Descriptor), Epoch: o.Epoch}
}

func (o Offer) payload() []byte {
	var w wire.Writer
	w.Bytes(o.Source.Statement.Marshal())
	w.Bytes(o.Destination.Statement.Marshal())
	w.Uint(o.Epoch)
	w.Count(len(o.Classes))
	for _, c := range o.Classes {
		w.String(string(c))
	}
	w.Uint(uint64(o.Created.Unix()))
	w.Uint(uint64(o.Expires.Unix()))
	w.Bytes(o.Establishment)
	w.String(string(o.OAEP))
	return w.Out()
}

func parseOffer(b []byte) (Offer, error) {
	r := wire.NewReader(b)
	source, destination := r.Bytes(statement.MaxPayload), r.Bytes(statement.MaxPayload)
	o := Offer{Epoch: r.Uint()}
	for range r.Count(len(hsm.Classes)) {
		o.Classes = append(o.Classes, hsm.Class(r.String(32)))
	}
	o.Created, o.Expires = takeTime(r), takeTime(r)
	o.Establishment = r.Bytes(1024)
	o.OAEP = hsm.OAEPHash(r.String(16))
	if err := r.Done(); err != nil {
		return Offer{}, fmt.Errorf("parsing offer: %w", err)
	}
	for _, d := range []struct {
		from []byte
		into *region.SignedDescriptor
	}{{source, &o.Source}, {destination, &o.Destination}} {
		s, err := statement.Parse(d.from)
		if err != nil {
			return Offer{}, fmt.Errorf("parsing offer: %w", err)
		}
		if *d.into, err = region.Open(s); err != nil {
			return Offer{}, fmt.Errorf("parsing offer: %w", err)
		}
	}
	return o, nil
}

func takeTime(r *wire.Reader) time.Time {
	sec := r.Uint()
	if sec > 1<<40 {
		r.Fail("time %d is beyond any calendar", sec)
		return time.Time{}
	}
	return time.Unix(int64(sec), 0).UTC()
}

// requestOf is what the destination's operators of a roster version approve. It follows
// from the signed offer alone, so that source and operators come to the same.
func requestOf(o Offer, signed statement.Signed, roster uint64) approval.Request {
	name, destination := o.Name(), transport.EndOf(o.Destination.Descriptor)
	return approval.Request{
		Operation: approval.Offer, Region: string(o.Destination.Region), Instance: string(o.Destination.Instance),
		Roster: roster,
		Series: fmt.Sprintf("transport keys from %s to %s", name.Source, o.Destination.Region), Epoch: o.Epoch, Target: destination.String(),
		Serial: hex.EncodeToString(signed.Hash()[:16]), Expires: o.Expires,
		Object: []approval.Detail{
			{Name: "transport keys", Text: name.String()},
			{Name: "establishment key", Text: statement.Fingerprint(o.Establishment)},
			{Name: "offer", Text: fingerprint(signed)},
		},
	}
}

// fingerprint covers the whole signed offer, establishment key included. Approvals are
// made over it.
func fingerprint(signed statement.Signed) string { return statement.Fingerprint(signed.Marshal()) }

// openOffer verifies an offer as its source: it must be by the destination as it is pinned
// here, for this Region, in time, and approved by enough of the destination's operators.
func openOffer(f OfferFile, own region.SignedDescriptor, pinned func(region.Name) (region.SignedDescriptor, error), now time.Time) (Offer, statement.Signed, error) {
	signed, err := f.Offer.Signed(statement.CeremonyOffer)
	if err != nil {
		return Offer{}, signed, err
	}
	o, err := parseOffer(signed.Payload) // before verification: it says whose pin verifies it
	if err != nil {
		return o, signed, err
	}
	peer, err := pinned(o.Destination.Region)
	if err != nil {
		return o, signed, err
	}
	if err := peer.Verify(signed); err != nil {
		return o, signed, err
	}
	switch {
	case !bytes.Equal(o.Destination.Statement.Payload, peer.Statement.Payload):
		return o, signed, fmt.Errorf("offer with another descriptor of Region %s than is pinned here", peer.Region)
	case !bytes.Equal(o.Source.Statement.Payload, own.Statement.Payload):
		return o, signed, fmt.Errorf("offer for source %s, this is %s", transport.EndOf(o.Source.Descriptor), transport.EndOf(own.Descriptor))
	case !slices.Equal(o.Classes, hsm.Classes):
		return o, signed, fmt.Errorf("offer for classes %v, want %v", o.Classes, hsm.Classes)
	case o.Created.After(now.Add(maxSkew)), o.Expires.Sub(o.Created) > maxExpiry:
		return o, signed, fmt.Errorf("offer from %s to %s: it is %s here, and no offer lives longer than %s", o.Created.Format(time.RFC3339), o.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339), maxExpiry)
	case !now.Before(o.Expires):
		return o, signed, fmt.Errorf("offer expired at %s", o.Expires.Format(time.RFC3339))
	}
	if err := o.Name().Validate(); err != nil {
		return o, signed, err
	}
	roster, err := f.roster(peer.Descriptor)
	if err != nil {
		return o, signed, err
	}
	if err := roster.Check(requestOf(o, signed, roster.Version), now, f.Approvals); err != nil {
		return o, signed, err
	}
	return o, signed, nil
}
