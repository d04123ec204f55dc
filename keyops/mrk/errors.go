package mrk

import "errors"

var (
	// ErrNotPrimary means that this Region does not act as the key's primary Region.
	ErrNotPrimary = errors.New("not the acting primary Region")
	// ErrFrozen means that conflicting facts are known, and only automatic repair or
	// operators may go on.
	ErrFrozen = errors.New("frozen by conflicting facts")
	// ErrMember means that the Region is, or may be, a member already.
	ErrMember = errors.New("already a member")
	// ErrNotMember means that the Region is no member.
	ErrNotMember = errors.New("no member")
	// ErrFull means that the set has as many members, materials or certificates as it may.
	ErrFull = errors.New("at the limit of the set")
	// ErrPending means that a rotation is under way.
	ErrPending = errors.New("a material is pending")
	// ErrMaterial means that a material cannot be listed: it is listed already, or its ID
	// begins like that of another one.
	ErrMaterial = errors.New("material cannot be listed")
	// ErrForeign means that a fact, request or blob is about another key or for another
	// Region, instance or incarnation.
	ErrForeign = errors.New("addressed elsewhere")
	// ErrUnlisted means that no state under a valid certificate lists the material.
	ErrUnlisted = errors.New("material that no state lists")
	// ErrGap means that a certificate's parent, or a state's certificate, is not known here.
	// The sender has to start further back.
	ErrGap = errors.New("certificate chain has a gap")
	// ErrCertificate means that a certificate does not follow from its parent.
	ErrCertificate = errors.New("certificate does not follow from its parent")
	// ErrEpochFork means that a certificate already has another successor here.
	ErrEpochFork = errors.New("second successor of one epoch")
	// ErrEquivocation means that a writer signed two different facts with one number.
	ErrEquivocation = errors.New("two different facts with one number")
	// ErrFormer means that an instance of a Region which is no more would say something new.
	ErrFormer = errors.New("said by an instance that is no more, and by nobody who is there")
	// ErrProperties means that a state changes what cannot change.
	ErrProperties = errors.New("fixed property changed")
	// ErrOffered means that the key was offered to another Region, which has not answered.
	ErrOffered = errors.New("a hand-over is on offer")
	// ErrNotEnabled means that the key in this Region is not Enabled.
	ErrNotEnabled = errors.New("key not enabled here")
	// ErrNotHeard means that a Region which may have acted was not heard since this start.
	ErrNotHeard = errors.New("not all Regions heard since the start")
	// ErrNotActive means that a Region is not an active member.
	ErrNotActive = errors.New("not an active member")
	// ErrAlone means that a material would be released while this Region's token alone holds
	// it, although the key has other members.
	ErrAlone = errors.New("material would exist in one token only")
	// ErrAwaited means that members are awaited which do not hold the pending material.
	ErrAwaited = errors.New("members are awaited")
	// ErrNothing means that there is nothing pending, or nothing on offer.
	ErrNothing = errors.New("nothing to decide")
	// ErrLacking means that this Region does not hold every listed material yet.
	ErrLacking = errors.New("materials are missing here")
	// ErrLost means that a listed material is in no Region's token any more.
	ErrLost = errors.New("a listed material is held by no Region")
	// ErrOffer means an offer that does not follow from what is known here.
	ErrOffer = errors.New("offer does not follow")
	// ErrWithdrawn means that the Region which made an offer does not know of it any more, or
	// that its instance is no more.
	ErrWithdrawn = errors.New("offer is forgotten where it was made")
	// ErrRequest means that a create request does not fit the set.
	ErrRequest = errors.New("create request does not fit")
)

// Cause says why a (key, Region) pair is not synchronized. It is part of the API.
type Cause string

// Causes.
const (
	CausePeerUnreachable        Cause = "PEER_UNREACHABLE"
	CauseTransportKeyMissing    Cause = "TRANSPORT_KEY_MISSING"
	CauseMechanismUnsupported   Cause = "MECHANISM_UNSUPPORTED"
	CauseTokenUnavailable       Cause = "TOKEN_UNAVAILABLE"
	CauseTokenFull              Cause = "TOKEN_FULL"
	CauseMaterialMismatch       Cause = "MATERIAL_MISMATCH"
	CauseMaterialLost           Cause = "MATERIAL_LOST"
	CauseSignatureInvalid       Cause = "SIGNATURE_INVALID"
	CauseEpochFork              Cause = "EPOCH_FORK"
	CauseEquivocation           Cause = "EQUIVOCATION"
	CauseQuotaExceeded          Cause = "QUOTA_EXCEEDED"
	CauseAlreadyExists          Cause = "ALREADY_EXISTS"
	CauseCreateRequestMissing   Cause = "CREATE_REQUEST_MISSING"
	CauseWaitingForConfirmation Cause = "WAITING_FOR_CONFIRMATION"
	CausePolicyLost             Cause = "POLICY_LOST"
	CauseReplicaFrozen          Cause = "REPLICA_FROZEN"
	CauseAccessDenied           Cause = "ACCESS_DENIED"
	CauseNotPrimary             Cause = "NOT_PRIMARY"
	CauseSingleRegionKey        Cause = "SINGLE_REGION_KEY"
)
