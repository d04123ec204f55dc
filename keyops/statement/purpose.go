package statement

import "fmt"

// Purpose says what a statement is. It is signed with the payload.
type Purpose string

// Purposes. The list is closed: a statement of another purpose is neither signed nor parsed.
const (
	Descriptor      Purpose = "descriptor"       // a Region about itself: name, instance, signing key, operators
	CeremonyOffer   Purpose = "ceremony-offer"   // a destination Region: wrap transport keys for this establishment key
	CeremonyPackage Purpose = "ceremony-package" // a source Region: transport keys wrapped for one offer
	Transcript      Purpose = "transcript"       // a Region about its own end of a transport key set
	Approval        Purpose = "approval"         // one operator, over one operation on one object
	Certificate     Purpose = "certificate"      // which Region is a key's primary Region in which epoch
	State           Purpose = "state"            // the primary Region about a key's shared properties
	Member          Purpose = "member"           // a Region about what it holds of a key
	CreateReplica   Purpose = "create-replica"   // a source Region asks a destination for a replica key
	ConfirmHeld     Purpose = "confirm-held"     // a Region confirms, freshly, which materials it holds
	Exchange        Purpose = "exchange"         // the envelope of one message between peers
	Checkpoint      Purpose = "checkpoint"       // the audit chain's number and hash
	PeerTLS         Purpose = "peer-tls"         // a Region certifies its TLS key of the day
	Succession      Purpose = "succession"       // a Region, by its old signing key, names the descriptor with the new one
	Backup          Purpose = "backup"           // a Region about the files of a backup of itself
	Severed         Purpose = "severed"          // a primary instance: this replica instance is disassociated, for good
	Frozen          Purpose = "frozen"           // a replica instance: it is, and changes nothing any more
	RetiredRegion   Purpose = "retired-region"   // a Region about a peer that is gone for good
	FormerInstance  Purpose = "former-instance"  // a Region about an instance that is no more, and whose words are history
)

var purposes = map[Purpose]bool{
	Descriptor: true, CeremonyOffer: true, CeremonyPackage: true, Transcript: true, Approval: true,
	Certificate: true, State: true, Member: true, CreateReplica: true, ConfirmHeld: true,
	Exchange: true, Checkpoint: true, PeerTLS: true, Succession: true, Backup: true,
	Severed: true, Frozen: true, RetiredRegion: true, FormerInstance: true,
}

// Known reports whether this version knows the purpose.
func (p Purpose) Known() bool { return purposes[p] }

// UnknownPurposeError names a purpose that this version does not know.
type UnknownPurposeError struct{ Name string }

// Error names the purpose.
func (e *UnknownPurposeError) Error() string {
	return fmt.Sprintf("unknown statement purpose %q", e.Name)
}
