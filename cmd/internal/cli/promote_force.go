package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// forcedPromotion makes the called Region the primary Region of keys, by the approvals of its
// operators. All of it is in two files: the request, and beside it the list of keys whose
// root the request names.
type forcedPromotion struct {
	suspend    []string
	allOf      string
	generation uint64 // that is asked for; 0 = the lowest that the keys allow
	consent    consent
}

// asks reports whether anything is given that belongs into a request.
func (p *forcedPromotion) asks() bool {
	return p.allOf != "" || len(p.suspend) > 0 || p.generation != 0
}

// ask writes both files.
func (p *forcedPromotion) ask(ctx context.Context, a *app, cl *client, names []string) error {
	ids, err := p.chosen(ctx, a, cl, names)
	if err != nil {
		return err
	}
	generation := uint64(1)
	var keys []mrk.ListedKey
	for _, id := range ids {
		out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: id})
		if err != nil {
			return err
		}
		m := out.GetKeyMetadata()
		set := m.GetMultiRegionConfiguration()
		if set == nil {
			return fmt.Errorf("%s is not a multi-Region key", id)
		}
		if s := m.GetKeyState(); s != "Enabled" && s != "Updating" {
			return fmt.Errorf("%s is %s in %s, and only an enabled key can be promoted", id, s, cl.region)
		}
		k, err := listedKey(m)
		if err != nil {
			return err
		}
		keys = append(keys, k)
		generation = max(generation, set.GetGeneration()+1)
	}
	switch {
	case p.generation == 0:
	case p.generation < generation:
		return usagef("--generation %d: the keys need %d or more", p.generation, generation)
	default:
		generation = p.generation
	}
	list, err := mrk.NewKeyList(keys)
	if err != nil {
		return err
	}
	here, err := cl.info.DescribeRegion(ctx, &kmsv1.DescribeRegionRequest{})
	if err != nil {
		return err
	}
	dark, err := regionsNamed(p.suspend)
	if err != nil {
		return err
	}
	q := mrk.Promotion{
		Target: region.Name(here.GetRegion()), Instance: region.InstanceID(here.GetInstanceId()), Generation: generation,
		Suspend: dark, Keys: uint64(len(list)), Root: list.Root(), Roster: here.GetRosterVersion(),
		Serial: approval.NewSerial(), Expires: time.Now().Add(p.consent.life).UTC().Truncate(time.Second),
	}.Request()
	if err := q.Validate(); err != nil {
		return err
	}
	return a.writeListRequest(ctx, cl, p.consent.request, q, list)
}

// chosen returns the IDs of the keys that are named, or of all whose primary key is in the
// dark Region.
func (p *forcedPromotion) chosen(ctx context.Context, a *app, cl *client, names []string) ([]string, error) {
	var ids []string
	for _, name := range names {
		id, err := cl.keyID(ctx, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if p.allOf == "" {
		return ids, nil
	}
	err := cl.eachShared(ctx, func(m *kmsv1.KeyMetadata) error {
		if m.GetMultiRegionConfiguration().GetPrimaryKey().GetRegion() != p.allOf {
			return nil
		}
		if s := m.GetKeyState(); s != "Enabled" && s != "Updating" {
			a.say("left out: %s is %s in %s, and only an enabled key can be promoted", m.GetKeyId(), s, cl.region)
			return nil
		}
		ids = append(ids, m.GetKeyId())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s has no enabled key whose primary key is in %s", cl.region, p.allOf)
	}
	return ids, nil
}

// carryOut promotes the keys of the list one by one. What was done stays done when one key
// is refused, so the command can be repeated.
func (p *forcedPromotion) carryOut(ctx context.Context, a *app, cl *client) error {
	q, list, approvals, err := p.consent.approvedList()
	if err != nil {
		return err
	}
	var failed []error
	for _, k := range list {
		out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: string(k.Key)})
		set := out.GetKeyMetadata().GetMultiRegionConfiguration()
		if err == nil && set.GetPrimaryKey().GetRegion() == q.Region && set.GetGeneration() == q.Epoch {
			a.say("%s: the primary key is in %s already", k.Key, q.Region)
			continue
		}
		proof, _ := list.Prove(k.Key)
		req := &kmsv1.PromoteKeyRequest{
			KeyId: string(k.Key), SuspendRegions: darkIn(q), KeyCount: proof.Count, KeyIndex: proof.Index, Path: pathOf(proof), Approvals: approvals,
		}
		if _, err := cl.keys.PromoteKey(ctx, req); err != nil {
			if len(list) == 1 {
				return err
			}
			failed = append(failed, fmt.Errorf("%s: %w", k.Key, err))
			continue
		}
		a.say("%s: the primary key is in %s now", k.Key, q.Region)
	}
	return notAll("promoted", failed, len(list))
}

func darkIn(q approval.Request) []string {
	if text := detail(q, mrk.DetailSuspended); text != "none" {
		return strings.Split(text, ", ")
	}
	return nil
}

func regionsNamed(names []string) (list []region.Name, err error) {
	for _, n := range names {
		r, err := region.ParseName(n)
		if err != nil {
			return nil, usagef("%w", err)
		}
		list = append(list, r)
	}
	return list, nil
}
