package keyops

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// ListKeyRotations lists a key's rotations, or all of its materials, oldest first.
func (s *Service) ListKeyRotations(ctx context.Context, caller Caller, in ListKeyRotationsInput) (ListKeyRotationsOutput, error) {
	t := target{ref: in.KeyID}
	switch in.IncludeKeyMaterial {
	case "", RotationsOnly, AllKeyMaterial:
	default:
		t.invalid = invalid("includeKeyMaterial", "satisfy enum value set: [%s, %s]", RotationsOnly, AllKeyMaterial)
	}
	return do(ctx, s, caller, "ListKeyRotations", t, func(_ context.Context, c *call) (ListKeyRotationsOutput, error) {
		if err := s.rotatable(c.key); err != nil {
			return ListKeyRotationsOutput{}, err
		}
		n, err := limit(in.Limit, 100, 1000)
		if err != nil {
			return ListKeyRotationsOutput{}, err
		}
		after, err := parseMarker(c.name, in.Marker)
		if err != nil {
			return ListKeyRotationsOutput{}, err
		}
		entries := c.key.history(in.IncludeKeyMaterial == AllKeyMaterial)
		begin := 0
		if after != "" {
			// Entries are only ever added at the end, so their numbers stay.
			if begin, err = strconv.Atoi(after); err != nil || begin < 1 || begin > len(entries) {
				return ListKeyRotationsOutput{}, refuse(ErrInvalidMarker, "The marker is not one that %s returned for this key.", c.name)
			}
		}
		end := min(begin+n, len(entries))
		out := ListKeyRotationsOutput{Rotations: slices.Clone(entries[begin:end]), Truncated: end < len(entries)}
		if out.Truncated {
			out.NextMarker = marker(c.name, strconv.Itoa(end))
		}
		return out, nil
	})
}

// history returns the key's rotations; with all, its first and pending materials as well.
func (k *Key) history(all bool) []RotationsListEntry {
	if k.Set != nil {
		return k.sharedHistory(all)
	}
	rotated := map[material.ID]bool{}
	var list []RotationsListEntry
	for _, r := range k.Rotations {
		rotated[r.Material] = true
		e := k.historyOf(r.Material)
		e.RotationDate, e.RotationType = r.Date, r.Type
		list = append(list, e)
	}
	if !all {
		return list
	}
	var first, pending []RotationsListEntry
	for _, m := range k.Materials {
		switch {
		case rotated[m.ID]:
		case slices.Contains(k.Used, m.ID):
			first = append(first, k.historyOf(m.ID))
		default:
			pending = append(pending, k.historyOf(m.ID))
		}
	}
	return slices.Concat(first, list, pending)
}

func (k *Key) historyOf(id material.ID) RotationsListEntry {
	e := RotationsListEntry{KeyID: k.arn, KeyMaterialID: id.String(), KeyMaterialState: MaterialNonCurrent}
	switch {
	case id == k.Current:
		e.KeyMaterialState = MaterialCurrent
	case !slices.Contains(k.Used, id):
		e.KeyMaterialState = MaterialPendingRotation
	}
	if m := k.Material(id); m != nil {
		e.KeyMaterialDescription, e.ImportState, e.ExpirationModel, e.ValidTo = m.Description, m.Import, m.Expiration, m.Expires
	}
	return e
}

// sharedHistory is what the primary key's Region says of a multi-Region key's materials.
func (k *Key) sharedHistory(all bool) []RotationsListEntry {
	var list []RotationsListEntry
	for i, m := range k.Set.Listed() {
		e := k.historyOf(m.ID)
		switch m.ID {
		case k.Set.Current():
			e.KeyMaterialState = MaterialCurrent
		case k.Set.Pending():
			e.KeyMaterialState = MaterialPendingRotation
			if p, ok := k.Set.Progress(); ok && k.Origin == OriginExternal && len(p.Awaited) > 0 {
				e.KeyMaterialState = MaterialPendingMultiRegionImportRotation
			}
		default:
			e.KeyMaterialState = MaterialNonCurrent
		}
		e.Holders, e.WrittenOff = int(m.Holders), m.WrittenOff
		turned := m.Released != 0 && (m.Reason == mrk.ReasonAutomatic || m.Reason == mrk.ReasonOnDemand || i > 0 && m.Reason == mrk.ReasonImport)
		if turned {
			e.RotationDate, e.RotationType = time.Unix(m.Released, 0).UTC(), RotationAutomatic
			if m.Reason != mrk.ReasonAutomatic {
				e.RotationType = RotationOnDemand
			}
		}
		if turned || all {
			list = append(list, e)
		}
	}
	return list
}
