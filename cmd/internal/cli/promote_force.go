package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
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

// keysFile is the list that belongs to a request.
func keysFile(request string) string { return request + ".keys" }

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
		head, err := parseHash(set.GetCertificate())
		if err != nil {
			return err
		}
		keys = append(keys, mrk.ListedKey{Key: arn.KeyID(m.GetKeyId()), Head: head})
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
	if err := statement.WriteNew(keysFile(p.consent.request), list.Text(), 0o644); err != nil {
		return err
	}
	return a.writeRequest(ctx, cl, p.consent.request, q)
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
	req := &kmsv1.ListKeysRequest{Limit: 1000}
	for {
		page, err := cl.keys.ListKeys(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, k := range page.GetKeys() {
			if !strings.HasPrefix(k.GetKeyId(), "mrk-") {
				continue
			}
			out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: k.GetKeyId()})
			if err != nil {
				return nil, err
			}
			m := out.GetKeyMetadata()
			if m.GetMultiRegionConfiguration().GetPrimaryKey().GetRegion() != p.allOf {
				continue
			}
			if s := m.GetKeyState(); s != "Enabled" && s != "Updating" {
				a.say("left out: %s is %s in %s, and only an enabled key can be promoted", k.GetKeyId(), s, cl.region)
				continue
			}
			ids = append(ids, k.GetKeyId())
		}
		if !page.GetTruncated() {
			break
		}
		req.Marker = page.GetNextMarker()
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s has no enabled key whose primary key is in %s", cl.region, p.allOf)
	}
	return ids, nil
}

// carryOut promotes the keys of the list one by one. What was done stays done when one key
// is refused, so the command can be repeated.
func (p *forcedPromotion) carryOut(ctx context.Context, a *app, cl *client) error {
	var q approval.Request
	if err := statement.ReadJSON(p.consent.request, &q); err != nil {
		return usagef("%w", err)
	}
	list, err := readKeys(p.consent.request, q)
	if err != nil {
		return err
	}
	approvals, err := readFiles(p.consent.approvals)
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
		req := &kmsv1.PromoteKeyRequest{KeyId: string(k.Key), SuspendRegions: darkIn(q), KeyCount: proof.Count, KeyIndex: proof.Index, Approvals: approvals}
		for _, h := range proof.Path {
			req.Path = append(req.Path, h[:])
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
	if len(failed) > 0 {
		return errors.Join(append([]error{fmt.Errorf("%d of %d keys were not promoted", len(failed), len(list))}, failed...)...)
	}
	return nil
}

// readKeys reads the list beside a request, which has to be the one that the request names.
func readKeys(request string, q approval.Request) (mrk.KeyList, error) {
	b, err := os.ReadFile(keysFile(request))
	if err != nil {
		return nil, usagef("the list of keys belongs beside the request: %w", err)
	}
	var keys []mrk.ListedKey
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		id, hash, _ := strings.Cut(line, " ")
		head, err := parseHash(hash)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keysFile(request), err)
		}
		keys = append(keys, mrk.ListedKey{Key: arn.KeyID(id), Head: head})
	}
	list, err := mrk.NewKeyList(keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keysFile(request), err)
	}
	if list.Root().String() != detail(q, mrk.DetailKeys) {
		return nil, fmt.Errorf("%s is not the list that the request names: do not approve it", keysFile(request))
	}
	return list, nil
}

func detail(q approval.Request, name string) string {
	for _, d := range q.Object {
		if d.Name == name {
			return d.Text
		}
	}
	return ""
}

func darkIn(q approval.Request) []string {
	if text := detail(q, mrk.DetailSuspended); text != "none" {
		return strings.Split(text, ", ")
	}
	return nil
}

func parseHash(s string) (h mrk.Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("%.80q: want 64 hexadecimal digits", s)
	}
	return mrk.Hash(b), nil
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
