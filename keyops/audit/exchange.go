package audit

import "github.com/keyferry/keyferry/keyops/region"

// Exchange is something that two Regions do together and both record: it joins their logs.
type Exchange struct {
	Kind          ExchangeKind `json:"kind"`
	KeyID         string       `json:"keyId"`
	Source        region.Name  `json:"source"`
	Destination   region.Name  `json:"destination"`
	CorrelationID string       `json:"correlationId,omitempty"`
	MaterialID    string       `json:"materialId,omitempty"`
}

// ExchangeKind tells exchanges apart.
type ExchangeKind string

const (
	// ReplicaMade is a ReplicateKey in the source, a CreateKey in the destination.
	ReplicaMade ExchangeKind = "replica"
	// MaterialSent is a SynchronizeMultiRegionKey in both: wrapped in the source, installed
	// in the destination.
	MaterialSent ExchangeKind = "material"
)

// Events of which both Regions record their part.
const (
	eventReplicate   = "ReplicateKey"
	eventCreate      = "CreateKey"
	eventSynchronize = "SynchronizeMultiRegionKey"
)

// exchange returns the exchange that a line is about, and whether it speaks for the source;
// false if it is about none. A source that has not said where to leaves the destination out.
func (l *line) exchange() (x Exchange, atSource, ok bool) {
	if len(l.Resources) == 0 || l.Resources[0].KeyID == "" {
		return x, false, false
	}
	x.KeyID = l.Resources[0].KeyID
	here, peer := region.Name(l.Region), region.Name(l.Details["peer"])
	switch {
	case l.Type == APICall && l.Event == eventReplicate && l.Outcome != Denied:
		x.Kind, x.CorrelationID = ReplicaMade, l.CorrelationID
		x.Source, x.Destination = here, region.Name(l.Details["replicaRegion"])
		return x, true, true
	case l.Type == ServiceEvent && l.Event == eventCreate && peer != "":
		x.Kind, x.CorrelationID = ReplicaMade, l.CorrelationID
		x.Source, x.Destination = peer, here
		return x, false, true
	case l.Type != ServiceEvent || l.Event != eventSynchronize || peer == "":
		return x, false, false
	}
	x.Kind = MaterialSent
	if id := l.Details["wrappedMaterialId"]; id != "" {
		x.Source, x.Destination, x.MaterialID = here, peer, id
		return x, true, true
	}
	x.Source, x.Destination, x.MaterialID = peer, here, l.Details["installedMaterialId"]
	return x, false, x.MaterialID != ""
}
