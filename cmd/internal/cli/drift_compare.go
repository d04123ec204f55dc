package cli

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Properties of related multi-Region keys that each Region has for itself. Replication never
// moves them, so only people keep them equal.
const (
	driftPresence    = "presence"
	driftState       = "state"
	driftDescription = "description"
	driftAliases     = "aliases"
	driftTags        = "tags"
	driftPolicy      = "policy"
)

var driftProperties = []string{driftPresence, driftState, driftDescription, driftAliases, driftTags, driftPolicy}

// relatedKey is one multi-Region key as one Region has it.
type relatedKey struct {
	values  map[string]string // by property; one that could not be read is in denied
	denied  map[string]string // property → why it could not be read
	members []string          // Regions that have the key, as this one knows
}

// difference is one property of one key that is not the same everywhere.
type difference struct {
	KeyID    string            `json:"keyId"`
	Property string            `json:"property"`
	Values   map[string]string `json:"values"` // by Region
}

// blindSpot is what could not be compared, and why.
type blindSpot struct {
	KeyID    string `json:"keyId,omitempty"`
	Region   string `json:"region"`
	Property string `json:"property,omitempty"`
	Reason   string `json:"reason"`
}

// driftReport is what keyferry drift prints as JSON.
type driftReport struct {
	Regions     []string     `json:"regions"`
	Keys        int          `json:"keys"` // compared: present or expected in two Regions at least
	Differences []difference `json:"differences"`
	NotCompared []blindSpot  `json:"notCompared"`
}

// notConfigured is why a member Region was not asked.
const notConfigured = "the configuration names no such Region"

// compareRegions compares what Regions say of related keys. unread are the Regions that could
// not be listed: nothing is concluded from a key's absence there.
func compareRegions(found map[string]map[string]relatedKey, unread map[string]string, ignore []string) driftReport {
	r := driftReport{Differences: []difference{}, NotCompared: []blindSpot{}}
	r.Regions = slices.Sorted(maps.Keys(found))
	for _, region := range slices.Sorted(maps.Keys(unread)) {
		r.NotCompared = append(r.NotCompared, blindSpot{Region: region, Reason: unread[region]})
	}
	ids := map[string]bool{}
	for _, keys := range found {
		for id := range keys {
			ids[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		r.compareKey(id, found, unread, ignore)
	}
	return r
}

func (r *driftReport) compareKey(id string, found map[string]map[string]relatedKey, unread map[string]string, ignore []string) {
	presence := map[string]string{}
	for _, region := range r.Regions {
		k, ok := found[region][id]
		if !ok {
			continue
		}
		presence[region] = "present"
		for _, member := range k.members {
			switch {
			case presence[member] != "" || unread[member] != "":
			case found[member] == nil:
				r.NotCompared = append(r.NotCompared, blindSpot{KeyID: id, Region: member, Reason: notConfigured})
				presence[member] = "unknown"
			default:
				presence[member] = "absent"
				if _, ok := found[member][id]; ok {
					presence[member] = "present"
				}
			}
		}
	}
	maps.DeleteFunc(presence, func(_, v string) bool { return v == "unknown" })
	if len(presence) < 2 {
		return
	}
	r.Keys++
	r.differ(id, driftPresence, presence, ignore)
	for _, property := range driftProperties[1:] {
		values := map[string]string{}
		for _, region := range r.Regions {
			k, ok := found[region][id]
			if !ok {
				continue
			}
			if why, ok := k.denied[property]; ok {
				if !slices.Contains(ignore, property) {
					r.NotCompared = append(r.NotCompared, blindSpot{KeyID: id, Region: region, Property: property, Reason: why})
				}
				continue
			}
			values[region] = k.values[property]
		}
		r.differ(id, property, values, ignore)
	}
}

func (r *driftReport) differ(id, property string, values map[string]string, ignore []string) {
	distinct := slices.Compact(slices.Sorted(maps.Values(values)))
	if len(distinct) > 1 && !slices.Contains(ignore, property) {
		r.Differences = append(r.Differences, difference{id, property, values})
	}
}

// comparablePolicy gives equal policies equal texts: white space and the order of fields do not
// count, and the serving Region's name in an ARN counts as any Region's, since a policy that
// names its own key does so with its own Region.
func comparablePolicy(document, region string) string {
	var v any
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		return document
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return document
	}
	return strings.ReplaceAll(strings.TrimSpace(b.String()), ":kms:"+region+":", ":kms:{region}:")
}

// comparableList gives equal sets equal texts.
func comparableList(items []string) string {
	items = slices.Clone(items)
	slices.Sort(items)
	return strings.Join(items, ", ")
}
