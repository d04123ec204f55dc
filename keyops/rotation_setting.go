package keyops

import (
	"context"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
)

// Periods of automatic rotation, in days.
const (
	minPeriod     = 90
	maxPeriod     = 2560
	defaultPeriod = 365
)

// rotation returns the setting of automatic rotation, of which a multi-Region key has one.
func (k *Key) rotation() Rotation {
	if k.Set == nil {
		return k.Rotation
	}
	st := k.Set.State()
	if st == nil {
		return Rotation{}
	}
	r := Rotation{Enabled: st.Rotation.Enabled, Days: int(st.Rotation.Days)}
	if st.Rotation.Last != 0 {
		r.Last = time.Unix(st.Rotation.Last, 0).UTC()
	}
	if r.Enabled {
		r.Next = r.Last.Add(time.Duration(r.Days) * day)
	}
	for i, m := range st.Materials {
		if m.Reason == mrk.ReasonOnDemand || i > 0 && m.Reason == mrk.ReasonImport && m.Released != 0 {
			r.OnDemand++
		}
	}
	return r
}

// setRotation replaces the setting.
func (s *Service) setRotation(ctx context.Context, k *Key, r Rotation) error {
	if k.Set == nil {
		k.Rotation = r
		return nil
	}
	setting := mrk.Rotation{Enabled: r.Enabled, Days: uint64(r.Days)}
	if !r.Last.IsZero() {
		setting.Last = r.Last.Unix()
	}
	if err := k.Set.SetRotation(ctx, s.Signer(), setting); err != nil {
		return s.unmanaged(k, err)
	}
	return nil
}

// EnableKeyRotation switches automatic rotation on, or changes its period.
func (s *Service) EnableKeyRotation(ctx context.Context, caller Caller, in EnableKeyRotationInput) (EnableKeyRotationOutput, error) {
	if in.RotationPeriodInDays == 0 {
		in.RotationPeriodInDays = defaultPeriod
	}
	days := strconv.Itoa(in.RotationPeriodInDays)
	t := target{
		ref: in.KeyID, says: []say{{policy.RotationPeriodInDays, days}},
		details: map[string]string{"rotationPeriodInDays": days},
	}
	if in.RotationPeriodInDays < minPeriod || in.RotationPeriodInDays > maxPeriod {
		t.invalid = invalid("rotationPeriodInDays", "have value between %d and %d", minPeriod, maxPeriod)
	}
	return do(ctx, s, caller, "EnableKeyRotation", t, func(ctx context.Context, c *call) (EnableKeyRotationOutput, error) {
		return EnableKeyRotationOutput{}, s.changeRotation(ctx, c, func(r *Rotation) {
			now, period := s.now(), time.Duration(in.RotationPeriodInDays)*day
			if !r.Enabled {
				r.Last = now.Truncate(time.Second) // as facts have it
			}
			r.Enabled, r.Days = true, in.RotationPeriodInDays
			r.Next = earlier(r.Last.Add(period), now.Add(period))
		})
	})
}

// DisableKeyRotation switches automatic rotation off.
func (s *Service) DisableKeyRotation(ctx context.Context, caller Caller, in DisableKeyRotationInput) (DisableKeyRotationOutput, error) {
	return do(ctx, s, caller, "DisableKeyRotation", target{ref: in.KeyID}, func(ctx context.Context, c *call) (DisableKeyRotationOutput, error) {
		return DisableKeyRotationOutput{}, s.changeRotation(ctx, c, func(r *Rotation) {
			r.Enabled, r.Next = false, time.Time{}
		})
	})
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *Service) changeRotation(ctx context.Context, c *call, fn func(*Rotation)) error {
	_, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		if err := s.rotatable(k); err != nil {
			return err
		}
		if err := s.manages(k); err != nil {
			return err
		}
		r := k.rotation()
		before := r
		if fn(&r); r == before {
			return ErrUnchanged
		}
		return s.setRotation(ctx, k, r)
	}, nil)
	return err
}

// retime brings dates of rotation back that a clock which was ahead has put too far off:
// the next rotation is never further away than one period.
func (s *Service) retime(ctx context.Context) error {
	now := s.now()
	for _, k := range s.view.all() {
		r := k.rotation()
		if k.nextRotation().IsZero() || !r.Next.After(now.Add(time.Duration(r.Days)*day)) {
			continue
		}
		_, err := s.change(ctx, k.ID, func(k *Key) error {
			r := k.rotation()
			if !r.Enabled {
				return ErrUnchanged
			}
			r.Last = earlier(r.Last, now.Truncate(time.Second))
			r.Next = earlier(r.Next, now.Add(time.Duration(r.Days)*day))
			return s.setRotation(ctx, k, r)
		}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// GetKeyRotationStatus returns the setting of automatic rotation, and which Regions a
// rotation that is under way waits for.
func (s *Service) GetKeyRotationStatus(ctx context.Context, caller Caller, in GetKeyRotationStatusInput) (GetKeyRotationStatusOutput, error) {
	return do(ctx, s, caller, "GetKeyRotationStatus", target{ref: in.KeyID}, func(_ context.Context, c *call) (GetKeyRotationStatusOutput, error) {
		if err := s.rotatable(c.key); err != nil {
			return GetKeyRotationStatusOutput{}, err
		}
		r := c.key.rotation()
		out := GetKeyRotationStatusOutput{KeyID: c.key.arn, OnDemandRotationsLeft: max(0, maxOnDemand-r.OnDemand)}
		leaving := c.key.State == keystate.PendingDeletion || c.key.State == keystate.PendingReplicaDeletion
		if r.Enabled && !leaving {
			out.KeyRotationEnabled, out.RotationPeriodInDays = true, r.Days
			out.NextRotationDate = earlier(r.Next, s.now().Add(time.Duration(r.Days)*day))
		}
		if out.Progress = progress(c.key); out.Progress != nil && out.Progress.Type == RotationOnDemand {
			out.OnDemandRotationStartDate = out.Progress.Started
		}
		return out, nil
	})
}

// progress says how far the rotation of a multi-Region key is, or nil if none is under way.
func progress(k *Key) *RotationProgress {
	if k.Set == nil || k.Set.Pending().IsZero() {
		return nil
	}
	now, _ := k.Set.Progress()
	p := &RotationProgress{
		KeyMaterialID: now.Pending.String(), Type: RotationAutomatic,
		Holding: names(now.Holding), Awaited: names(now.Awaited), Out: names(now.Out), Alone: now.Alone,
	}
	if m, ok := k.Set.Known(now.Pending); ok {
		p.Started = time.Unix(m.Created, 0).UTC()
		if m.Reason == mrk.ReasonOnDemand {
			p.Type = RotationOnDemand
		}
	}
	return p
}

func names(regions []region.Name) []string {
	list := make([]string, len(regions))
	for i, r := range regions {
		list[i] = string(r)
	}
	return list
}
