package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// memberChange is what operators decide about a Region's part in keys: in one that is named,
// or in all at once.
type memberChange struct {
	short string
	done  string                           // of the key, and the Region
	past  string                           // of keys
	over  func(*kmsv1.MultiRegionKey) bool // whether nothing is left to do with a replica key
	call  func(context.Context, *client, memberCall) (request []byte, err error)
}

// memberCall is one call of either operation.
type memberCall struct {
	key, replica string
	proof        mrk.ListProof // of a list; Count 0 = none
	approvals    [][]byte
	ask          bool
	life         *durationpb.Duration
}

func (a *app) keySuspend(use string) *cobra.Command {
	return a.keyMember(use, memberChange{
		short: "Let rotations go on without a Region that is dark; it comes back by itself",
		done:  "%s does not wait for %s; it does again once that Region has caught up",
		past:  "suspended",
		over:  func(k *kmsv1.MultiRegionKey) bool { return k.GetMemberStatus() == "SUSPENDED" },
		call: func(ctx context.Context, cl *client, in memberCall) ([]byte, error) {
			out, err := cl.keys.SuspendReplica(ctx, &kmsv1.SuspendReplicaRequest{
				KeyId: in.key, ReplicaRegion: in.replica, Approvals: in.approvals, RequestApprovals: in.ask, ApprovalLife: in.life,
				KeyCount: in.proof.Count, KeyIndex: in.proof.Index, Path: pathOf(in.proof),
			})
			return out.GetApprovalRequest(), err
		},
	})
}

func (a *app) keyEvict(use string) *cobra.Command {
	return a.keyMember(use, memberChange{
		short: "End a Region's part in a multi-Region key; its replica key is disabled when it hears of that",
		done:  "%s has no replica in %s any more; keyferry key replicate makes a new one",
		past:  "evicted",
		over:  func(*kmsv1.MultiRegionKey) bool { return false },
		call: func(ctx context.Context, cl *client, in memberCall) ([]byte, error) {
			out, err := cl.keys.EvictReplica(ctx, &kmsv1.EvictReplicaRequest{
				KeyId: in.key, ReplicaRegion: in.replica, Approvals: in.approvals, RequestApprovals: in.ask, ApprovalLife: in.life,
				KeyCount: in.proof.Count, KeyIndex: in.proof.Index, Path: pathOf(in.proof),
			})
			return out.GetApprovalRequest(), err
		},
	})
}

func (a *app) keyMember(use string, m memberChange) *cobra.Command {
	p := &consent{}
	var replica, allOf string
	c := &cobra.Command{
		Use: use, Short: m.short, Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			approves := len(p.approvals) > 0
			switch {
			case len(args) == 1 && (replica == "" || allOf != ""):
				return usagef("want KEY and --replica REGION, or no KEY and --all-of REGION")
			case len(args) == 0 && replica != "":
				return usagef("--replica is for one KEY; --all-of REGION is for all keys that have a replica key there")
			case len(args) == 0 && approves && (p.request == "" || allOf != ""):
				return usagef("the request has the Region, and the list of keys is beside it: give only --request and --approval")
			case len(args) == 0 && !approves && allOf == "":
				return usagef("want KEY and --replica REGION, or --all-of REGION")
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				switch {
				case len(args) == 1:
					return m.one(ctx, a, cl, args[0], replica, p)
				case approves:
					return m.carryOut(ctx, a, cl, p)
				}
				return m.all(ctx, a, cl, allOf, p)
			})
		},
	}
	c.Flags().StringVar(&replica, "replica", "", "`REGION` of the replica key")
	c.Flags().StringVar(&allOf, "all-of", "", "all keys whose primary key is here and that have a replica key in this `REGION`, by one approval")
	p.flags(c.Flags())
	return c
}

// one changes one key, by a request that names it.
func (m memberChange) one(ctx context.Context, a *app, cl *client, key, replica string, p *consent) (err error) {
	in := memberCall{replica: replica}
	if in.approvals, in.ask, in.life, err = p.read(); err != nil {
		return err
	}
	if in.key, err = cl.keyID(ctx, key); err != nil {
		return err
	}
	request, err := m.call(ctx, cl, in)
	if err != nil {
		return err
	}
	if in.ask {
		return a.asked(ctx, cl, p.request, request)
	}
	a.say(m.done, in.key, replica)
	return nil
}

// all makes the list of keys, and asks for the approval of it or, where the Region takes none,
// changes them.
func (m memberChange) all(ctx context.Context, a *app, cl *client, replica string, p *consent) error {
	var keys []mrk.ListedKey
	err := cl.eachShared(ctx, func(md *kmsv1.KeyMetadata) error {
		set := md.GetMultiRegionConfiguration()
		if set.GetMultiRegionKeyType() != "PRIMARY" {
			return nil
		}
		for _, r := range set.GetReplicaKeys() {
			if r.GetRegion() != replica || m.over(r) {
				continue
			}
			k, err := listedKey(md)
			if err != nil {
				return err
			}
			keys = append(keys, k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fmt.Errorf("%s has no primary key with a replica key in %s that could be %s", cl.region, replica, m.past)
	}
	list, err := mrk.NewKeyList(keys)
	if err != nil {
		return err
	}
	if p.request == "" {
		return m.each(ctx, a, cl, list, memberCall{replica: replica}, false)
	}
	proof, _ := list.Prove(list[0].Key)
	request, err := m.call(ctx, cl, memberCall{key: string(list[0].Key), replica: replica, proof: proof, ask: true, life: durationpb.New(p.life)})
	if err != nil {
		return err
	}
	var q approval.Request
	if err := statement.UnmarshalJSON(request, &q); err != nil {
		return fmt.Errorf("the request of %s: %w", cl.region, err)
	}
	return a.writeListRequest(ctx, cl, p.request, q, list)
}

// carryOut changes the keys of an approved list.
func (m memberChange) carryOut(ctx context.Context, a *app, cl *client, p *consent) error {
	q, list, approvals, err := p.approvedList()
	if err != nil {
		return err
	}
	return m.each(ctx, a, cl, list, memberCall{replica: detail(q, "Region"), approvals: approvals}, true)
}

// each changes the keys of a list one by one. What was done stays done when one key is
// refused, so the command can be repeated: what is done already is passed over.
func (m memberChange) each(ctx context.Context, a *app, cl *client, list mrk.KeyList, in memberCall, placed bool) error {
	var failed []error
	for _, k := range list {
		in.key = string(k.Key)
		if placed {
			in.proof, _ = list.Prove(k.Key)
		}
		if m.isOver(ctx, cl, in) {
			a.say("%s: nothing is left to do about %s", k.Key, in.replica)
			continue
		}
		if _, err := m.call(ctx, cl, in); err != nil {
			if len(list) == 1 {
				return err
			}
			failed = append(failed, fmt.Errorf("%s: %w", k.Key, err))
			continue
		}
		a.say(m.done, k.Key, in.replica)
	}
	return notAll(m.past, failed, len(list))
}

// isOver reports whether the key has no replica key any more with which anything is left to
// do. If it cannot be described the call itself says why.
func (m memberChange) isOver(ctx context.Context, cl *client, in memberCall) bool {
	out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: in.key})
	if err != nil {
		return false
	}
	for _, r := range out.GetKeyMetadata().GetMultiRegionConfiguration().GetReplicaKeys() {
		if r.GetRegion() == in.replica {
			return m.over(r)
		}
	}
	return true
}
