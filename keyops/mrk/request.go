package mrk

import (
	"fmt"
	"unicode/utf8"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Tag is one tag of a replica.
type Tag struct{ Key, Value string }

// CreateRequest is what a replica is made with, beside the facts. Nothing of it comes from
// the primary key. The primary Region signs it and keeps it until the replica is Active.
type CreateRequest struct {
	Key           arn.KeyID
	Source        region.Name
	Instance      region.InstanceID // of Source
	Destination   region.Name
	ToInstance    region.InstanceID
	Incarnation   uint64
	Principal     string // the acting principal's ARN: a claim, which the destination bounds
	CorrelationID string
	Description   string
	Policy        []byte
	Tags          []Tag

	signed statement.Signed
}

// Signed returns the request as its source signed it.
func (c CreateRequest) Signed() statement.Signed { return c.signed }

func (c CreateRequest) payload() []byte {
	var w wire.Writer
	w.Uint(formatVersion)
	w.String(string(c.Key))
	w.String(string(c.Source))
	w.String(string(c.Instance))
	w.String(string(c.Destination))
	w.String(string(c.ToInstance))
	w.Uint(c.Incarnation)
	w.String(c.Principal)
	w.String(c.CorrelationID)
	w.String(c.Description)
	w.Bytes(c.Policy)
	w.Count(len(c.Tags))
	for _, t := range c.Tags {
		w.String(t.Key)
		w.String(t.Value)
	}
	return w.Out()
}

// ParseCreateRequest reads a signed request. It verifies nothing: Admit does.
func ParseCreateRequest(signed statement.Signed) (CreateRequest, error) {
	if signed.Purpose != statement.CreateReplica {
		return CreateRequest{}, fmt.Errorf("%w: %s where a create request belongs", wire.ErrMalformed, signed.Purpose)
	}
	r := wire.NewReader(signed.Payload)
	decodeVersion(r)
	c := CreateRequest{
		Key: decodeKeyID(r), Source: decodeRegion(r), Instance: decodeInstance(r),
		Destination: decodeRegion(r), ToInstance: decodeInstance(r), Incarnation: decodeNumber(r),
		Principal: r.String(maxPrincipal), CorrelationID: r.String(maxID), Description: r.String(maxDescription),
		Policy: r.Bytes(maxPolicy), signed: signed,
	}
	for range r.Count(MaxTags) {
		c.Tags = append(c.Tags, Tag{r.String(maxTagKey), r.String(maxTagValue)})
	}
	if r.Err() == nil && (!utf8.ValidString(c.Description) || !utf8.ValidString(c.CorrelationID)) {
		r.Fail("text that is not UTF-8")
	}
	if err := r.Done(); err != nil {
		return CreateRequest{}, fmt.Errorf("parsing create request: %w", err)
	}
	return c, nil
}
