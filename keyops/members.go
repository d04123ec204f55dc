package keyops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// What operators decide about the members and the materials of a multi-Region key, at the
// Region of its primary key.

// SuspendReplica stops waiting for a Region that is dark (rule 10). Rotations go on without
// it. It is waited for again, by itself, once it has proven to hold what was used meanwhile
// (rule 5).
func (s *Service) SuspendReplica(ctx context.Context, caller Caller, in SuspendReplicaInput) (SuspendReplicaOutput, error) {
	request, err := s.changeMember(ctx, caller, "SuspendReplica", approval.SuspendRegion, in.KeyID, in.ReplicaRegion, in.KeyPlace, in.Approvals,
		func(ctx context.Context, k *Key, r region.Name) error {
			if k.Set.Entry(r).Status == mrk.Suspended {
				return refuse(ErrInvalidState, "The replica of %s in Region %s is suspended already; it is waited for again once that Region has caught up.", k.ID, r)
			}
			return k.Set.Suspend(ctx, s.Signer(), r)
		})
	return SuspendReplicaOutput{ApprovalRequest: request}, err
}

// EvictReplica ends the membership of a Region (rule 25). Its key is Disabled when it hears
// of that, and keeps its material until it is deleted there. The key can be replicated to
// the Region again.
func (s *Service) EvictReplica(ctx context.Context, caller Caller, in EvictReplicaInput) (EvictReplicaOutput, error) {
	request, err := s.changeMember(ctx, caller, "EvictReplica", approval.EvictReplica, in.KeyID, in.ReplicaRegion, in.KeyPlace, in.Approvals,
		func(ctx context.Context, k *Key, r region.Name) error {
			return k.Set.Evict(ctx, s.Signer(), r, false)
		})
	return EvictReplicaOutput{ApprovalRequest: request}, err
}

func (s *Service) changeMember(ctx context.Context, caller Caller, name string, what approval.Operation, key, replica string, place KeyPlace, in Approvals,
	fn func(context.Context, *Key, region.Name) error) ([]byte, error) {
	t := target{ref: key, details: map[string]string{"replicaRegion": clip(replica)}}
	r, err := memberNamed(replica, "replicaRegion")
	proof, badPlace := place.proof()
	t.invalid = cmp.Or(err, badPlace)
	p := newConsent(what, in, &t)
	return do(ctx, s, caller, name, t, func(ctx context.Context, c *call) ([]byte, error) {
		_, err := p.change(ctx, s, c, func(k *Key) ([]approval.Detail, error) {
			m, err := s.memberOf(k, r)
			switch {
			case err != nil:
				return nil, err
			case place.KeyCount > 0:
				return listedMember(k, m, proof)
			}
			return append(inSet(k),
				approval.Detail{Name: "Region", Text: fmt.Sprintf("%s, instance %s, replica %d", r, m.Instance, m.Incarnation)}), nil
		}, func(k *Key) error { return fn(ctx, k, r) })
		if err == nil {
			s.marks.wake()
		}
		return p.request, s.unmanaged(c.key, err)
	})
}

// listedMember is what operators read about one Region's part in many keys. Which those are is
// in the list; that this key is one of them its place proves.
func listedMember(k *Key, m mrk.Entry, proof mrk.ListProof) ([]approval.Detail, error) {
	root, err := rootOf(proof, k)
	if err != nil {
		return nil, err
	}
	return []approval.Detail{
		{Name: "keys", Text: strconv.FormatUint(proof.Count, 10)},
		{Name: mrk.DetailKeys, Text: root.String()},
		{Name: "Region", Text: string(m.Region)},
		{Name: "instance", Text: string(m.Instance)},
	}, nil
}

// memberOf returns one member, if there is such a member and this Region decides about it.
func (s *Service) memberOf(k *Key, r region.Name) (mrk.Entry, error) {
	var none mrk.Entry
	if err := s.acting(k); err != nil {
		return none, err
	}
	if r == s.self.Region {
		return none, refuse(ErrUnsupportedOperation, "%s is the multi-Region primary key itself, and no replica.", k.arn)
	}
	for _, m := range k.Set.Members() {
		if m.Region == r {
			return m.Entry, nil
		}
	}
	return none, refuse(ErrNotFound, "Key %s has no replica in Region %s.", k.ID, r)
}

// acting refuses what only the acting primary Region may write.
func (s *Service) acting(k *Key) error {
	if err := s.isPrimary(k); err != nil {
		return err
	}
	if !k.Set.Acting() {
		if _, offered := k.Set.Offered(); offered {
			return s.unmanaged(k, mrk.ErrOffered)
		}
		return s.unmanaged(k, mrk.ErrNotPrimary)
	}
	return nil
}

// WriteOffKeyMaterial gives up a material that is in no token any more, so that Regions which
// once used it are waited for and counted again. What was encrypted with it is lost. If it is
// found in a token after all, it is taken back.
func (s *Service) WriteOffKeyMaterial(ctx context.Context, caller Caller, in WriteOffKeyMaterialInput) (WriteOffKeyMaterialOutput, error) {
	t := target{ref: in.KeyID, details: map[string]string{"keyMaterialId": clip(in.KeyMaterialID)}}
	id, err := material.Parse(in.KeyMaterialID)
	if err != nil {
		t.invalid = invalid("keyMaterialId", "satisfy regular expression pattern: ^[a-f0-9]{64}$")
	}
	p := newConsent(approval.WriteOffMaterial, in.Approvals, &t)
	return do(ctx, s, caller, "WriteOffKeyMaterial", t, func(ctx context.Context, c *call) (WriteOffKeyMaterialOutput, error) {
		_, err := p.change(ctx, s, c, func(k *Key) ([]approval.Detail, error) {
			if err := s.acting(k); err != nil {
				return nil, err
			}
			if m, known := k.Set.Known(id); known && m.WrittenOff {
				return nil, refuse(ErrInvalidState, "Key material %s of %s is written off already.", id, k.arn)
			}
			// Tried on a copy, so that nobody is asked to approve what cannot be.
			if err := k.Set.Clone().WriteOff(ctx, mrk.Unsigned{}, id, s.contact(k)); err != nil {
				return nil, notWrittenOff(k, id, err)
			}
			return append(inSet(k), approval.Detail{Name: "key material", Text: id.String()}), nil
		}, func(k *Key) error {
			return k.Set.WriteOff(ctx, s.Signer(), id, s.contact(k))
		})
		if err == nil {
			s.marks.wake()
		}
		return WriteOffKeyMaterialOutput{ApprovalRequest: p.request}, s.unmanaged(c.key, err)
	})
}

func notWrittenOff(k *Key, id material.ID, err error) error {
	switch {
	case errors.Is(err, mrk.ErrUnlisted) || id.IsZero():
		return refuse(ErrNotFound, "Key %s has no key material %s.", k.ID, id)
	case errors.Is(err, mrk.ErrMaterial):
		return &Error{Reason: ErrInvalidState, cause: err, Message: fmt.Sprintf(
			"Key material %s of %s is not lost: it is in use, or a Region says that it holds it.", id, k.arn)}
	}
	return err
}
