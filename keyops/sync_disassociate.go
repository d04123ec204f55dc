package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// DisassociationClaim is what a primary instance says when it ends an association.
type DisassociationClaim struct {
	Source   region.Name
	Instance region.InstanceID // the primary instance: the one that sent the claim
	// Severed is the severance; it is signed if it is to be carried out, and else only decided.
	Severed       synchronization.Severed
	Approvals     []statement.File // of the replica instance's operators
	CorrelationID string
}

// Commit reports whether the claim is to be carried out.
func (c DisassociationClaim) Commit() bool { return c.Severed.Ended.Purpose != "" }

// DisassociateReplicaInstance ends an association, for good: the two can never be associated
// again, and the replica instance is frozen. It takes the approvals of the replica instance's
// operators, who are the ones that lose. Once the severance is durable here, the rest follows
// from it, however often one of the ends starts again.
func (s *Service) DisassociateReplicaInstance(ctx context.Context, caller Caller, in DisassociateReplicaInstanceInput) (DisassociateReplicaInstanceOutput, error) {
	t := target{details: map[string]string{"synchronization": clip(in.SynchronizationID), "replicaInstance": clip(in.ReplicaInstance)}}
	p := newConsent(approval.Disassociate, in.Approvals, &t)
	return do(ctx, s, caller, "DisassociateReplicaInstance", t, func(ctx context.Context, c *call) (DisassociateReplicaInstanceOutput, error) {
		var none DisassociateReplicaInstanceOutput
		own, err := s.ownSynchronization(c, in.SynchronizationID)
		if err != nil {
			return none, err
		}
		a, err := s.associationNamed(own, in.ReplicaInstance)
		if err != nil {
			return none, err
		}
		c.record.detail("replicaInstance", string(a.Instance))
		if in.ConfirmInstanceID != string(a.Instance) {
			return none, refuse(ErrValidation,
				"This cannot be undone: %s will never be associated with this instance again, and changes nothing any more. To confirm it, repeat the replica instance's ID, which is %s.", a.Region, a.Instance)
		}
		sev := synchronization.Severance{
			ID: own.ID, Account: own.Account, Primary: s.end(), Replica: synchronization.End{Region: a.Region, Instance: a.Instance},
			Principal: c.asker.arn, At: s.now().Truncate(time.Second),
		}
		if known, apart := s.syncs.apart(sev.Primary, sev.Replica); apart {
			if known.Frozen() {
				return none, refuse(ErrInvalidState, "Instance %s is disassociated already.", a.Instance)
			}
			sev = known.Severance // once more, with other approvals
		}
		if err := s.severable(sev); err != nil {
			return none, err
		}
		if err := p.checkSeverance(ctx, s, c, sev); err != nil || p.request != nil {
			return DisassociateReplicaInstanceOutput{Synchronization: s.describeSynchronization(own), ApprovalRequest: p.request}, err
		}
		claim := s.disassociationClaim(synchronization.Severed{Severance: sev}, p.files, c.caller.correlation())
		if _, err := s.peers.Disassociate(ctx, a.Region, claim); err != nil && !errors.Is(err, ErrPeerUnreachable) {
			return none, refusedBy(a.Region, err)
		}
		if err := s.sever(ctx, sev, in.Approvals.Files); err != nil {
			return none, err
		}
		if err := s.endPairs(ctx); err != nil {
			s.log.WithError(err).WithField("replicaInstance", a.Instance).Warn("a disassociation is not complete, and goes on by itself")
		}
		return DisassociateReplicaInstanceOutput{Synchronization: s.describeSynchronization(s.syncs.own.Load())}, nil
	})
}

// severable refuses, as far as this Region knows, to sever an instance that keys would lose
// their primary Region with.
func (s *Service) severable(sev synchronization.Severance) error {
	if s.peers == nil {
		return refuse(ErrUnsupportedOperation, "Region %s is configured without peers.", s.self.Region)
	}
	return s.noPrimaryKeys(sev.Replica)
}

// noPrimaryKeys lists the keys of which an instance has the primary key.
func (s *Service) noPrimaryKeys(of synchronization.End) error {
	const most = 20
	var ids []string
	for _, k := range s.view.facts() {
		if k.Set != nil && !k.Gone() && k.Set.Primary() == of.Region {
			ids = append(ids, string(k.ID))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	names := strings.Join(ids[:min(len(ids), most)], ", ")
	if len(ids) > most {
		names += fmt.Sprintf(" and %d more", len(ids)-most)
	}
	return refuse(ErrInvalidState,
		"Region %s has the primary key of %d keys, which nobody could manage any more: %s. Hand them over first (keyferry key promote), or if that Region is lost, promote them elsewhere with approvals.", of.Region, len(ids), names)
}

// checkSeverance is consent.check for an operation that another Region's operators approve,
// since theirs is the instance that is frozen. That Region looks at the approvals again, when it
// hears of them.
func (p *consent) checkSeverance(ctx context.Context, s *Service, c *call, sev synchronization.Severance) error {
	d, known := s.descriptorOf(sev.Replica)
	if !known {
		return refuse(ErrInvalidArn, "Region %s is not known here with instance %s.", sev.Replica.Region, sev.Replica.Instance)
	}
	if p.in.Request {
		s.peers.RefreshRoster(ctx, sev.Replica.Region) // the newest one that is known has to do otherwise
	}
	roster := newestOf(d, s.RosterChanges(d))
	q := severanceRequest(sev, roster, p.asked)
	switch {
	case p.in.Request:
		if err := p.ask(s, q); !errors.Is(err, ErrUnchanged) {
			return err
		}
		return nil
	case len(p.files) == 0 && !s.quorum.Needs(p.what):
		return nil // the replica instance has a say of its own
	case len(p.files) == 0:
		return refuse(ErrAccessDenied,
			"%s takes the approvals of %d of the %d operators (roster version %d) of Region %s beside your permission. Ask for the request (keyferry: --request FILE), have them approve it (keyferry approve FILE --key KEY), and repeat the call with their approvals (--approval FILE...).",
			p.what, roster.Threshold, len(roster.Operators), roster.Version, sev.Replica.Region)
	}
	if err := s.clocksAgree(); err != nil {
		return disapproved(err)
	}
	if err := roster.Check(q, s.now(), p.files); err != nil {
		return disapproved(err)
	}
	c.approvedBy(roster, q, p.files)
	return nil
}

// severanceRequest is what the operators of a replica instance are asked to approve. Both ends
// make it; serial and expiry are read from what was approved.
func severanceRequest(sev synchronization.Severance, roster approval.Roster, asked approval.Request) approval.Request {
	return approval.Request{
		Operation: approval.Disassociate, Region: string(sev.Replica.Region), Instance: string(sev.Replica.Instance),
		Roster: roster.Version, Serial: asked.Serial, Expires: asked.Expires,
		Object: []approval.Detail{
			{Name: "synchronization", Text: string(sev.ID) + " of account " + string(sev.Account)},
			{Name: "primary instance", Text: sev.Primary.String()},
			{Name: "replica instance", Text: sev.Replica.String()},
			{Name: "then", Text: "it changes no multi-Region key and makes no key any more, keeps those that it has, and goes on using them"},
		},
	}
}

func (s *Service) disassociationClaim(f synchronization.Severed, files []statement.File, correlation string) DisassociationClaim {
	return DisassociationClaim{Source: s.self.Region, Instance: s.self.Instance, Severed: f, Approvals: files, CorrelationID: correlation}
}

// sever makes the severance durable, and ends the association, in one transaction.
func (s *Service) sever(ctx context.Context, sev synchronization.Severance, approvals [][]byte) error {
	f, err := synchronization.Sever(ctx, s.Signer(), sev)
	if err != nil {
		return err
	}
	var now *synchronization.Synchronization
	_, err = s.keepSevered(ctx, severedPair{Severed: f, approvals: approvals}, func(tx *seal.Tx) error {
		if now = s.syncs.own.Load(); now == nil || now.Find(sev.Replica.Instance) == nil {
			now = nil
			return nil
		}
		// Asked again where nobody can come between: a key may have been handed over meanwhile.
		if err := s.noPrimaryKeys(sev.Replica); err != nil {
			return err
		}
		now = now.Clone()
		now.Drop(sev.Replica.Instance)
		return tx.Put(kindSynchronization, ownSynchronization, now.Encode())
	}, func() {
		if now != nil {
			s.syncs.own.Store(now)
		}
	})
	return err
}
