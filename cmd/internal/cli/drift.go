package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/keyops/arn"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// errDrift means that related keys differ, which is an answer and not a failure; a pipeline
// tells the two apart by the exit code.
var errDrift = errors.New("related keys differ between Regions")

func (a *app) drift(use string) *cobra.Command {
	var regions, ignore []string
	c := &cobra.Command{
		Use: use, Short: "Compare related keys between Regions; exit code 6 if they differ",
		Long: `Compare the properties of related multi-Region keys that every Region has for itself:
presence, state, description, aliases, tags and policy. Replication never moves them.

Without KEY, all multi-Region keys that you may see are compared. Exit code 0 means that
everything was compared and is equal, 6 that something differs, and 1 that nothing was
found to differ but not everything could be compared.`,
		RunE: func(c *cobra.Command, args []string) error {
			for _, p := range ignore {
				if !slices.Contains(driftProperties, p) {
					return usagef("--ignore %q: want one of %s", p, strings.Join(driftProperties, ", "))
				}
			}
			report, err := a.findDrift(c.Context(), regions, args, ignore)
			if err != nil {
				return err
			}
			if err := a.writeDrift(report); err != nil {
				return err
			}
			switch {
			case len(report.Differences) > 0:
				return errDrift
			case len(report.NotCompared) > 0:
				return errors.New("not everything could be compared, see above")
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&regions, "regions", nil, "`REGIONS` to compare, at least two (default all in the configuration)")
	c.Flags().StringSliceVar(&ignore, "ignore", nil, "`PROPERTIES` that may differ")
	return c
}

func (a *app) findDrift(ctx context.Context, regions, keys, ignore []string) (driftReport, error) {
	names, err := a.regionsOf(regions)
	if err != nil {
		return driftReport{}, err
	}
	if len(names) < 2 {
		return driftReport{}, usagef("one Region cannot differ from itself: give two or more")
	}
	var mu sync.Mutex
	found, unread := map[string]map[string]relatedKey{}, map[string]string{}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			in := *a
			in.region = name
			var known map[string]relatedKey
			err := in.with(ctx, func(ctx context.Context, cl *client) (err error) {
				known, err = cl.relatedKeys(ctx, keys)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				unread[name] = words(err)
				return
			}
			found[name] = known
		})
	}
	wg.Wait()
	if len(found) == 0 {
		first := slices.Min(slices.Collect(maps.Keys(unread)))
		return driftReport{}, fmt.Errorf("no Region could be read; %s: %s", first, unread[first])
	}
	report := compareRegions(found, unread, ignore)
	if len(regions) > 0 { // the other Regions were left out on purpose
		report.NotCompared = slices.DeleteFunc(report.NotCompared, func(b blindSpot) bool { return b.Reason == notConfigured })
	}
	return report, nil
}

// relatedKeys reads the multi-Region keys of one Region: those named, or all.
func (c *client) relatedKeys(ctx context.Context, refs []string) (map[string]relatedKey, error) {
	ids, err := c.multiRegionKeys(ctx, refs)
	if err != nil {
		return nil, err
	}
	aliases, err := c.aliasesByKey(ctx)
	if err != nil && status.Code(err) != codes.PermissionDenied {
		return nil, err
	}
	keys := map[string]relatedKey{}
	for _, id := range ids {
		k, err := c.relatedKey(ctx, id)
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading key %s: %w", id, err)
		}
		if aliases == nil {
			k.denied[driftAliases] = "kms:ListAliases is denied"
		} else {
			k.values[driftAliases] = comparableList(aliases[id])
		}
		keys[id] = k
	}
	return keys, nil
}

func (c *client) multiRegionKeys(ctx context.Context, refs []string) ([]string, error) {
	var ids []string
	for _, ref := range refs {
		if r, err := arn.ParseResource(ref); err == nil && r.Key != nil {
			ref = string(r.Key.ID) // an ARN is of one Region, related keys share the ID
		}
		id, err := c.keyID(ctx, ref)
		if status.Code(err) == codes.NotFound {
			continue // an alias that only other Regions have
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	for marker := ""; len(refs) == 0; {
		out, err := c.keys.ListKeys(ctx, &kmsv1.ListKeysRequest{Marker: marker})
		if err != nil {
			return nil, err
		}
		for _, k := range out.GetKeys() {
			if arn.KeyID(k.GetKeyId()).MultiRegion() {
				ids = append(ids, k.GetKeyId())
			}
		}
		if !out.GetTruncated() {
			break
		}
		marker = out.GetNextMarker()
	}
	return ids, nil
}

func (c *client) aliasesByKey(ctx context.Context) (map[string][]string, error) {
	aliases := map[string][]string{}
	for marker := ""; ; {
		out, err := c.keys.ListAliases(ctx, &kmsv1.ListAliasesRequest{Marker: marker})
		if err != nil {
			return nil, err
		}
		for _, alias := range out.GetAliases() {
			aliases[alias.GetTargetKeyId()] = append(aliases[alias.GetTargetKeyId()], alias.GetAliasName())
		}
		if !out.GetTruncated() {
			return aliases, nil
		}
		marker = out.GetNextMarker()
	}
}

func (c *client) relatedKey(ctx context.Context, id string) (relatedKey, error) {
	k := relatedKey{values: map[string]string{}, denied: map[string]string{}}
	out, err := c.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: id})
	if err != nil {
		return k, err
	}
	m := out.GetKeyMetadata()
	k.values[driftState], k.values[driftDescription] = m.GetKeyState(), m.GetDescription()
	if set := m.GetMultiRegionConfiguration(); set != nil {
		for _, member := range append(slices.Clone(set.GetReplicaKeys()), set.GetPrimaryKey()) {
			if member.GetRegion() != "" {
				k.members = append(k.members, member.GetRegion())
			}
		}
	}
	read := func(property string, get func() (string, error)) error {
		value, err := get()
		if status.Code(err) == codes.PermissionDenied {
			k.denied[property] = words(err)
			return nil
		}
		k.values[property] = value
		return err
	}
	if err := read(driftTags, func() (string, error) { return c.tagsOf(ctx, id) }); err != nil {
		return k, err
	}
	return k, read(driftPolicy, func() (string, error) {
		out, err := c.keys.GetKeyPolicy(ctx, &kmsv1.GetKeyPolicyRequest{KeyId: id})
		return comparablePolicy(out.GetPolicy(), c.region), err
	})
}

func (c *client) tagsOf(ctx context.Context, id string) (string, error) {
	var tags []string
	for marker := ""; ; {
		out, err := c.keys.ListResourceTags(ctx, &kmsv1.ListResourceTagsRequest{KeyId: id, Marker: marker})
		if err != nil {
			return "", err
		}
		for _, t := range out.GetTags() {
			tags = append(tags, t.GetTagKey()+"="+t.GetTagValue())
		}
		if !out.GetTruncated() {
			return comparableList(tags), nil
		}
		marker = out.GetNextMarker()
	}
}

func (a *app) writeDrift(r driftReport) error {
	if a.json {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		return a.write(append(b, '\n'))
	}
	var b strings.Builder
	for _, d := range r.Differences {
		fmt.Fprintf(&b, "%s: %s not the same everywhere\n", d.KeyID, d.Property)
		for _, region := range slices.Sorted(maps.Keys(d.Values)) {
			value := d.Values[region]
			if value == "" {
				value = "(none)"
			}
			fmt.Fprintf(&b, "  %s: %s\n", region, value)
		}
	}
	for _, n := range r.NotCompared {
		what := strings.TrimSpace(n.KeyID + " " + n.Property)
		if what == "" {
			what = "all keys"
		}
		fmt.Fprintf(&b, "%s in %s: not compared: %s\n", what, n.Region, n.Reason)
	}
	if err := a.write([]byte(b.String())); err != nil {
		return err
	}
	a.say("related keys compared in %s: %d; differences: %d", strings.Join(r.Regions, ", "), r.Keys, len(r.Differences))
	return nil
}
