package keyops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// Rows of synchronizations: the one that this instance is the primary instance of, and the
// one that it is a replica instance of.
const (
	kindSynchronization store.Kind = "synchronization"

	ownSynchronization = "primary"
	roleInOther        = "replica"
)

// synchronizations is what this instance is part of. Snapshots are read without a lock, and
// replaced under Service.commits once they are durable.
type synchronizations struct {
	own  atomic.Pointer[synchronization.Synchronization] // nil: primary instance of none
	role atomic.Pointer[synchronization.Role]            // nil: replica instance of none
	bad  error                                           // a row that does not hold, set at the start

	severed atomic.Pointer[[]severedPair]           // pairs of instances that were disassociated, anywhere
	frozen  atomic.Pointer[synchronization.Severed] // nil: this instance is not frozen

	wake  chan struct{} // work for the worker
	mu    sync.Mutex
	tries map[syncPair]syncTry
}

func newSynchronizations() *synchronizations {
	return &synchronizations{wake: make(chan struct{}, 1), tries: map[syncPair]syncTry{}}
}

func (y *synchronizations) poke() {
	select {
	case y.wake <- struct{}{}:
	default:
	}
}

// openSynchronizations reads the rows. One that does not hold decides nothing: neither can
// this instance become part of another synchronization, nor does anything replicate by itself,
// nor is anything changed that an instance which was disassociated must not change.
func (s *Service) openSynchronizations(ctx context.Context) error {
	read := map[store.Kind]func(store.Row) error{kindSynchronization: s.syncs.read, kindSevered: s.readSevered}
	err := s.book.View(ctx, func(tx *seal.Tx) error {
		for _, kind := range []store.Kind{kindSynchronization, kindSevered} {
			err := tx.Scan(kind, func(row store.Row, bad *seal.Finding) error {
				var err error
				if bad != nil {
					err = bad
				} else {
					err = read[kind](row)
				}
				if err != nil {
					s.refuseRow(kind, row.ID, err)
					s.syncs.bad = err
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading synchronizations: %w", err)
	}
	s.syncs.poke()
	return nil
}

func (y *synchronizations) read(row store.Row) error {
	switch row.ID {
	case ownSynchronization:
		own, err := synchronization.Decode(row.Body)
		if err == nil {
			y.own.Store(own)
		}
		return err
	case roleInOther:
		role, err := synchronization.DecodeRole(row.Body)
		if err == nil {
			y.role.Store(&role)
		}
		return err
	}
	return fmt.Errorf("%w: row %s", store.ErrInvalid, row.ID)
}

// changeOwn changes the synchronization that this is the primary instance of, in one sealed
// transaction. change gets a copy, nil if there is none.
func (s *Service) changeOwn(ctx context.Context, change func(*synchronization.Synchronization) (*synchronization.Synchronization, error)) (*synchronization.Synchronization, error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	if s.syncs.bad != nil {
		return nil, s.syncsUnsound()
	}
	old := s.syncs.own.Load()
	if old != nil {
		old = old.Clone()
	}
	now, err := change(old)
	if errors.Is(err, ErrUnchanged) {
		return s.syncs.own.Load(), nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.update(ctx, func(tx *seal.Tx) error { return tx.Put(kindSynchronization, ownSynchronization, now.Encode()) }); err != nil {
		return nil, fmt.Errorf("storing synchronization %s: %w", now.ID, err)
	}
	s.syncs.own.Store(now)
	s.syncs.poke()
	return now, nil
}

func (s *Service) syncsUnsound() error {
	return &Error{Reason: ErrInternal, Message: "the stored row of this instance's synchronization fails its seal, so nothing is synchronized; its operator has to look at the store", cause: s.syncs.bad}
}

// CreateSynchronization makes this instance the primary instance of a synchronization. Nothing
// replicates before a replica instance is associated.
func (s *Service) CreateSynchronization(ctx context.Context, caller Caller, _ CreateSynchronizationInput) (CreateSynchronizationOutput, error) {
	return do(ctx, s, caller, "CreateSynchronization", target{}, func(ctx context.Context, c *call) (CreateSynchronizationOutput, error) {
		now, err := s.changeOwn(ctx, func(old *synchronization.Synchronization) (*synchronization.Synchronization, error) {
			if old != nil {
				return nil, refuse(ErrAlreadyExists, "Instance %s is the primary instance of a synchronization already. Associate replica instances with that one.", s.self.Instance)
			}
			if role := s.syncs.role.Load(); role != nil {
				return nil, refuse(ErrInvalidState, "Instance %s is a replica instance of %s, and an instance is never both.", s.self.Instance, role.PrimaryInstance)
			}
			return &synchronization.Synchronization{
				ID: synchronization.NewID(), Account: c.caller.Principal.Account, Principal: c.asker.arn, Created: s.clock().UTC(),
			}, nil
		})
		if err != nil {
			return CreateSynchronizationOutput{}, err
		}
		c.record.detail("synchronization", string(now.ID))
		return CreateSynchronizationOutput{s.describeSynchronization(now)}, nil
	})
}

// GetSynchronization returns a synchronization that this instance is part of.
func (s *Service) GetSynchronization(ctx context.Context, caller Caller, in GetSynchronizationInput) (GetSynchronizationOutput, error) {
	t := target{details: map[string]string{"synchronization": clip(in.SynchronizationID)}}
	return do(ctx, s, caller, "GetSynchronization", t, func(_ context.Context, c *call) (GetSynchronizationOutput, error) {
		for _, y := range s.synchronizationsOf(c) {
			if string(y.ID) == in.SynchronizationID {
				return GetSynchronizationOutput{y}, nil
			}
		}
		_, err := s.ownSynchronization(c, in.SynchronizationID)
		return GetSynchronizationOutput{}, err
	})
}

// ListSynchronizations lists the caller's account's synchronizations that this instance is
// part of.
func (s *Service) ListSynchronizations(ctx context.Context, caller Caller, _ ListSynchronizationsInput) (ListSynchronizationsOutput, error) {
	return do(ctx, s, caller, "ListSynchronizations", target{}, func(_ context.Context, c *call) (ListSynchronizationsOutput, error) {
		if s.syncs.bad != nil {
			return ListSynchronizationsOutput{}, s.syncsUnsound()
		}
		return ListSynchronizationsOutput{s.synchronizationsOf(c)}, nil
	})
}

func (s *Service) synchronizationsOf(c *call) []Synchronization {
	list := []Synchronization{}
	if own := s.syncs.own.Load(); own != nil && own.Account == c.caller.Principal.Account {
		list = append(list, s.describeSynchronization(own))
	}
	if role := s.syncs.role.Load(); role != nil && role.Account == c.caller.Principal.Account {
		list = append(list, s.describeRole(*role))
	}
	return list
}

// ownSynchronization returns the synchronization that a call names, if it is the caller's
// account's and this is its primary instance.
func (s *Service) ownSynchronization(c *call, id string) (*synchronization.Synchronization, error) {
	if s.syncs.bad != nil {
		return nil, s.syncsUnsound()
	}
	if _, err := synchronization.ParseID(id); err != nil {
		return nil, invalid("synchronizationId", "satisfy regular expression pattern: ^sync-[0-9a-f]{12}$")
	}
	account := c.caller.Principal.Account
	if own := s.syncs.own.Load(); own != nil && string(own.ID) == id && own.Account == account {
		return own, nil
	}
	if role := s.syncs.role.Load(); role != nil && string(role.ID) == id && role.Account == account {
		return nil, refuse(ErrUnsupportedOperation, "Instance %s is a replica instance of synchronization %s. Call Region %s, where its primary instance is.", s.self.Instance, id, role.PrimaryRegion)
	}
	return nil, refuse(ErrNotFound, "Synchronization %s does not exist", id)
}

func (s *Service) describeSynchronization(y *synchronization.Synchronization) Synchronization {
	out := Synchronization{
		ID: y.ID, AccountID: y.Account, CreationDate: y.Created, Role: Primary,
		PrimaryRegion: s.self.Region, PrimaryInstance: s.self.Instance, Replicas: []ReplicaInstance{},
	}
	for _, a := range s.associations(y) {
		out.Replicas = append(out.Replicas, ReplicaInstance{
			Region: a.Region, Instance: a.Instance, SynchronizationType: a.Type, Resources: a.Selected,
			Stage: a.Stage, Principal: a.Principal, CreationDate: a.Created,
		})
	}
	return out
}

func (s *Service) describeRole(o synchronization.Role) Synchronization {
	stage := synchronization.Associated
	if p, apart := s.syncs.apart(synchronization.End{Region: o.PrimaryRegion, Instance: o.PrimaryInstance}, s.end()); apart {
		stage = p.stage()
	}
	return Synchronization{
		ID: o.ID, AccountID: o.Account, CreationDate: o.Since, Role: Replica,
		PrimaryRegion: o.PrimaryRegion, PrimaryInstance: o.PrimaryInstance,
		Replicas: []ReplicaInstance{{
			Region: s.self.Region, Instance: s.self.Instance, Stage: stage,
			Principal: o.Principal, CreationDate: o.Since,
		}},
	}
}

// peerNamed finds the instance that a call names, by its ID or by its Region.
func (s *Service) peerNamed(name string) (region.Descriptor, error) {
	var none region.Descriptor
	if strings.HasPrefix(name, "kfi-") {
		id, err := region.ParseInstanceID(name)
		if err != nil {
			return none, invalid("replicaInstance", "satisfy regular expression pattern: ^kfi-[0-9a-f]{12}$, or be the name of a Region")
		}
		if id == s.self.Instance {
			return none, s.itself()
		}
		if s.peers != nil {
			for _, r := range s.peers.Contact("").Regions {
				if d, ok := s.peers.Peer(r); ok && d.Instance == id {
					return d, nil
				}
			}
		}
		return none, refuse(ErrInvalidArn, "Instance %s is not known here.", id)
	}
	r, err := region.ParseName(name)
	if err != nil {
		return none, invalid("replicaInstance", "satisfy regular expression pattern: ^kfi-[0-9a-f]{12}$, or be the name of a Region")
	}
	if r == s.self.Region {
		return none, s.itself()
	}
	if s.peers != nil {
		if d, ok := s.peers.Peer(r); ok {
			return d, nil
		}
	}
	return none, refuse(ErrInvalidArn, "Region %s is not known here.", r)
}

func (s *Service) itself() error {
	return refuse(ErrValidation, "Instance %s cannot be a replica instance of itself.", s.self.Instance)
}
