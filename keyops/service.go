package keyops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/transport"
)

// Config is what a Service is made of.
type Config struct {
	Self      region.SignedDescriptor // this Region; its statement's fingerprint is shown by DescribeRegion
	Accounts  []arn.Account           // the accounts that are served; at least one
	Token     Token
	Boundary  hsm.Boundary   // what the self-test found; empty = none
	Signing   hsm.ID         // the Region signing key, whose public half is in Self
	Seal      hsm.ID         // the seal key
	Transport *transport.Set // nil in a deployment of one Region

	Store store.Store // whose writer lease the caller holds and keeps
	Audit *audit.Log

	Identities func() *policy.Identities // asked for every call; nil = nobody has an identity policy
	Peers      Peers                     // nil in a deployment of one Region

	// Files is what the Region's directory shows, to be compared with what it has shown before.
	// The zero value compares nothing.
	Files RegionFiles
	// Quorum says which operations take the approvals of operators; the zero value: all.
	Quorum approval.Quorum

	KeyQuota          int // keys per account; 0 = 100,000
	PrincipalKeyQuota int // keys that one principal has made; 0 = as many as its account may have
	// UnboundedEncryption lets a material of a symmetric key encrypt more than 2^32 times,
	// with which equal IVs become likely.
	UnboundedEncryption bool
	Clock               func() time.Time // nil = time.Now
	Freshness           time.Duration    // how old the last exchange with a primary Region may be before an unknown material is taken for late; 0 = 60 s
	// Elapsed measures time that passes, whoever sets the clock; nil = by the monotonic
	// reading of what Clock returns, if that has one.
	Elapsed func() time.Duration
	Log     logrus.FieldLogger // nil = discard
	// Step, if not nil, is called after each point of the write order with its name. Tests
	// crash there.
	Step func(name string)
}

// Peers is what this package needs of the other Regions.
type Peers interface {
	// Peer returns the descriptor of a Region that this one is configured with.
	Peer(region.Name) (region.Descriptor, bool)
	// Verify returns nil if that instance, of a peer or of this Region, has
	// signed a statement that is kept. The error wraps statement.ErrSignature if it is known here
	// and has not.
	Verify(region.Name, region.InstanceID, statement.Signed) error
	// Authority returns what that Region may do here and what it may be sent; the zero value
	// for one that this Region is not configured with.
	Authority(region.Name) Authority
	// CheckReplica asks another Region now whether it would take the replica. The error is
	// that Region's refusal, or wraps ErrPeerUnreachable.
	CheckReplica(ctx context.Context, to region.Name, claim ReplicaClaim) error
	// CheckPrimary asks another Region now whether it would take the primary key over, with
	// errors as CheckReplica's.
	CheckPrimary(ctx context.Context, to region.Name, claim PrimaryClaim) error
	// Associate asks another Region now whether its instance would be this one's replica
	// instance, or to write down that it is, with errors as CheckReplica's.
	Associate(ctx context.Context, to region.Name, claim AssociationClaim) error
	// Disassociate asks another Region now whether its instance would be severed from this one
	// and frozen, or to be, with errors as CheckReplica's. It returns that Region's signature, if
	// the claim was to be carried out.
	Disassociate(ctx context.Context, to region.Name, claim DisassociationClaim) (statement.Signed, error)
	// RefreshRoster asks another Region now for the changes of its operators' roster that are not
	// known here, if it can be reached.
	RefreshRoster(ctx context.Context, to region.Name)
	// Confirm asks another Region now what it is to a key and what it holds of it, and what
	// time it is there. The error wraps ErrPeerUnreachable if there is no answer.
	Confirm(ctx context.Context, to region.Name, q mrk.Question) (mrk.Confirmation, time.Time, error)
	// Contact returns whom this Region has heard about a key.
	Contact(arn.KeyID) mrk.Contact
}

// Contacts is an ability that Peers may have.
type Contacts interface {
	// LastContact returns when the last exchange with a Region ended, or the zero time.
	LastContact(region.Name) time.Time
}

// Progress is an ability that Peers may have.
type Progress interface {
	// Progress returns how far a Region has confirmed what is known here of a key that has,
	// or is to have, a replica there, in the words of package replication.
	Progress(arn.KeyID, region.Name) (status, cause, text string)
}

// Service is the one door to a Region's keys.
type Service struct {
	self           region.Descriptor
	fingerprint    string
	partition      string
	accounts       []arn.Account
	token          Token
	boundary       hsm.Boundary
	signing        hsm.ID
	sealing        hsm.ID
	transport      atomic.Pointer[transport.Set]
	store          store.Store
	book           *seal.Book
	audit          *audit.Log
	identities     func() *policy.Identities
	peers          Peers
	dir            region.Dir // empty if nobody is to look there
	quorum         approval.Quorum
	quota          int
	principalQuota int
	unbounded      bool // encryption
	clock          func() time.Time
	elapsed        func() time.Duration
	freshness      time.Duration
	log            logrus.FieldLogger
	onStep         func(string)

	unsound   int  // rows that did not hold at the start
	decoy     *Key // that nobody has; decided on where there is no key
	view      *view
	marks     *marks
	wrappings *wrappings
	found     Reconciliation
	pairs     chan struct{} // room for those who make RSA key pairs
	commits   sync.Mutex    // held from the beginning of a key's transaction to its publication

	worker    worker
	guard     clockGuard
	grave     grave
	leftovers leftovers
	usages    usages
	rosters   rosters
	syncs     *synchronizations

	failOnce sync.Once
	failed   chan struct{}
	failure  error // set before failed is closed
}

var _ Operations = (*Service)(nil)

const (
	defaultKeyQuota  = 100_000
	defaultFreshness = 60 * time.Second
)

// New opens the sealed store, reconciles it with the token and returns a Service that is
// ready to serve. Keys whose rows do not hold are refused, the others are served.
func New(ctx context.Context, cfg Config) (*Service, error) {
	s := &Service{
		self: cfg.Self.Descriptor, fingerprint: cfg.Self.Fingerprint(), partition: cfg.Self.Partition,
		accounts: slices.Clone(cfg.Accounts), token: cfg.Token, boundary: cfg.Boundary, signing: cfg.Signing, sealing: cfg.Seal,
		store: cfg.Store, audit: cfg.Audit, identities: cfg.Identities, peers: cfg.Peers, dir: cfg.Files.Dir, quorum: cfg.Quorum,
		quota: cfg.KeyQuota, principalQuota: cfg.PrincipalKeyQuota, unbounded: cfg.UnboundedEncryption, clock: cfg.Clock, elapsed: cfg.Elapsed, freshness: cfg.Freshness, log: cfg.Log, onStep: cfg.Step,
		view: newView(), marks: newMarks(), wrappings: newWrappings(), syncs: newSynchronizations(), failed: make(chan struct{}),
		pairs: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	s.transport.Store(cfg.Transport)
	if err := s.complete(); err != nil {
		return nil, err
	}
	if err := s.makeDecoy(); err != nil {
		return nil, err
	}
	book, findings, err := seal.Open(ctx, cfg.Store, sealKey{cfg.Token, cfg.Seal}, s.self.Instance)
	if err != nil {
		return nil, err
	}
	s.book, s.unsound = book, len(findings)
	if bad := findings.Head(); bad != nil {
		return nil, fmt.Errorf("the store as a whole does not hold, so no row of it can be believed: %w", bad)
	}
	for _, f := range findings {
		s.log.WithField("kind", f.Kind).WithField("id", f.ID).WithField("problem", f.Problem).
			Error("ALARM: a row of the store does not hold; what it decides is refused")
	}
	// The audit log is the first witness: it has seen the store at its last checkpoint.
	if last, ok := s.audit.Last(); ok {
		if err := book.Head().Behind(seal.Head(last.Store)); err != nil {
			return nil, fmt.Errorf("the store is not the one that audit checkpoint %d covers: %w", last.Number, err)
		}
	}
	if err := s.remember(ctx, cfg.Files); err != nil {
		return nil, err
	}
	if err := s.openRosters(ctx, cfg.Files); err != nil {
		return nil, err
	}
	if err := s.reconcile(ctx); err != nil {
		return nil, fmt.Errorf("reconciling store and token: %w", err)
	}
	if err := s.openSynchronizations(ctx); err != nil {
		return nil, err
	}
	if err := s.renewAlone(ctx); err != nil {
		return nil, err
	}
	if err := s.openClock(ctx); err != nil {
		return nil, err
	}
	if err := s.openUsage(ctx); err != nil {
		return nil, err
	}
	if err := s.retime(ctx); err != nil {
		return nil, err
	}
	s.audit.CoverStore(func() audit.StoreHead { return audit.StoreHead(book.Head()) })
	return s, nil
}

// complete checks the configuration and fills in defaults.
func (s *Service) complete() error {
	if err := s.self.Validate(); err != nil {
		return fmt.Errorf("own descriptor: %w", err)
	}
	if len(s.accounts) == 0 {
		return errors.New("no account is served")
	}
	for _, a := range s.accounts {
		if _, err := arn.ParseAccount(string(a)); err != nil {
			return err
		}
	}
	if s.quota == 0 {
		s.quota = defaultKeyQuota
	}
	if s.freshness == 0 {
		s.freshness = defaultFreshness
	}
	if s.boundary == "" {
		s.boundary = hsm.BoundaryNone
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.elapsed == nil {
		begun := s.clock()
		s.elapsed = func() time.Duration { return s.clock().Sub(begun) }
	}
	if s.transport.Load() == nil {
		s.transport.Store(&transport.Set{})
	}
	if s.identities == nil {
		nobody := &policy.Identities{}
		s.identities = func() *policy.Identities { return nobody }
	}
	if s.log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		s.log = l
	}
	return nil
}

// makeDecoy makes a key that nobody has. Which account its policy trusts makes no difference
// to the work of deciding.
func (s *Service) makeDecoy() error {
	k := &Key{
		ID: arn.NewKeyID(false), Account: s.accounts[0], Spec: SymmetricDefault, Usage: EncryptDecrypt, Origin: OriginToken,
		Policy: policy.DefaultKeyPolicy(s.partition, string(s.accounts[0])),
	}
	k.arn = s.keyARN(k.Account, k.ID)
	var err error
	if k.policy, err = parsePolicy(k.Policy); err != nil {
		return fmt.Errorf("the default key policy: %w", err)
	}
	s.decoy = k
	return nil
}

// Failed is closed when the service can no longer write: a store transaction's outcome is
// unknown, or the writer lease is lost. Only a new start can go on; until then what is in
// memory still serves. Failure says why.
func (s *Service) Failed() <-chan struct{} { return s.failed }

// Failure returns why Failed was closed, or nil.
func (s *Service) Failure() error {
	select {
	case <-s.failed:
		return s.failure
	default:
		return nil
	}
}

func (s *Service) fail(why error) {
	s.failOnce.Do(func() {
		s.failure = why
		close(s.failed)
		s.log.WithError(why).Error("the store cannot be written any more; the daemon has to start again")
	})
}

// Refused returns how many rows of the store did not hold when it was opened. What they decide
// is refused until operators have the store sealed anew.
func (s *Service) Refused() int { return s.unsound }

// Keys returns how many keys this Region has, with those that wait for deletion.
func (s *Service) Keys() int { return s.view.total() }

// StoreHead returns the head of the sealed store, for audit checkpoints and peers.
func (s *Service) StoreHead() seal.Head { return s.book.Head() }

// me names this Region and instance in facts.
func (s *Service) me() mrk.Self { return mrk.Self{Region: s.self.Region, Instance: s.self.Instance} }

// sealKey computes seals in the token.
type sealKey struct {
	token Token
	id    hsm.ID
}

func (k sealKey) MAC(ctx context.Context, message []byte) ([]byte, error) {
	return k.token.MAC(ctx, k.id, message)
}
