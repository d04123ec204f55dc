package keyops

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// TagResource gives a key tags, or other values to tags that it has.
func (s *Service) TagResource(ctx context.Context, caller Caller, in TagResourceInput) (TagResourceOutput, error) {
	tags, err := checkTags(in.Tags)
	if err == nil && len(tags) == 0 {
		err = invalid("tags", "have length greater than or equal to 1")
	}
	t := target{ref: in.KeyID, invalid: err}
	if err == nil {
		t.details = tagKeys(slices.Sorted(maps.Keys(tags)))
	}
	return do(ctx, s, caller, "TagResource", t, func(ctx context.Context, c *call) (TagResourceOutput, error) {
		return TagResourceOutput{}, s.describeAs(ctx, c, func(k *Key) error {
			if k.Tags == nil {
				k.Tags = map[string]string{}
			}
			before := maps.Clone(k.Tags)
			maps.Copy(k.Tags, tags)
			switch {
			case len(k.Tags) > maxTags:
				return refuse(ErrTag, "Too many tags")
			case maps.Equal(before, k.Tags):
				return ErrUnchanged
			}
			return nil
		})
	})
}

// UntagResource takes tags from a key.
func (s *Service) UntagResource(ctx context.Context, caller Caller, in UntagResourceInput) (UntagResourceOutput, error) {
	t := target{ref: in.KeyID}
	if len(in.TagKeys) == 0 || len(in.TagKeys) > maxTags {
		t.invalid = invalid("tagKeys", "have length between 1 and %d", maxTags)
	}
	for _, name := range in.TagKeys {
		if !isTagKey(name) {
			t.invalid = invalid("tagKeys", "have members of length between 1 and %d", maxTagKey)
		}
	}
	if t.invalid == nil {
		t.details = tagKeys(in.TagKeys)
	}
	return do(ctx, s, caller, "UntagResource", t, func(ctx context.Context, c *call) (UntagResourceOutput, error) {
		return UntagResourceOutput{}, s.describeAs(ctx, c, func(k *Key) error {
			before := len(k.Tags)
			for _, name := range in.TagKeys {
				delete(k.Tags, name)
			}
			if len(k.Tags) == before {
				return ErrUnchanged
			}
			return nil
		})
	})
}

// tagKeys names in the audit record which tags are changed, not to what. The names may hold
// any separator, so they are a list of JSON.
func tagKeys(names []string) map[string]string {
	list, err := json.Marshal(names)
	if err != nil {
		return nil // strings can always be marshalled
	}
	return map[string]string{"tagKeys": string(list)}
}

// ListResourceTags lists a key's tags, ordered by name.
func (s *Service) ListResourceTags(ctx context.Context, caller Caller, in ListResourceTagsInput) (ListResourceTagsOutput, error) {
	return do(ctx, s, caller, "ListResourceTags", target{ref: in.KeyID}, func(_ context.Context, c *call) (ListResourceTagsOutput, error) {
		n, err := limit(in.Limit, maxTags, maxTags)
		if err != nil {
			return ListResourceTagsOutput{}, err
		}
		after, err := parseMarker(c.name, in.Marker)
		if err != nil {
			return ListResourceTagsOutput{}, err
		}
		names, more := page(slices.Sorted(maps.Keys(c.key.Tags)), after, n)
		out := ListResourceTagsOutput{Truncated: more}
		for _, name := range names {
			out.Tags = append(out.Tags, Tag{Key: name, Value: c.key.Tags[name]})
		}
		if more {
			out.NextMarker = marker(c.name, names[len(names)-1])
		}
		return out, nil
	})
}

// UpdateKeyDescription replaces a key's description in this Region.
func (s *Service) UpdateKeyDescription(ctx context.Context, caller Caller, in UpdateKeyDescriptionInput) (UpdateKeyDescriptionOutput, error) {
	t := target{ref: in.KeyID, invalid: checkDescription(in.Description)}
	return do(ctx, s, caller, "UpdateKeyDescription", t, func(ctx context.Context, c *call) (UpdateKeyDescriptionOutput, error) {
		return UpdateKeyDescriptionOutput{}, s.describeAs(ctx, c, func(k *Key) error {
			if k.Description == in.Description {
				return ErrUnchanged
			}
			k.Description = in.Description
			return nil
		})
	})
}

// describeAs changes what describes a key and decides nothing.
func (s *Service) describeAs(ctx context.Context, c *call, fn func(*Key) error) error {
	_, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		return fn(k)
	}, nil)
	return err
}

func checkDescription(text string) error {
	if !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxDescription {
		return invalid("description", "have length less than or equal to %d", maxDescription)
	}
	return nil
}

func isTagKey(name string) bool {
	n := utf8.RuneCountInString(name)
	return n >= 1 && n <= maxTagKey && utf8.ValidString(name)
}

func checkTags(tags []Tag) (map[string]string, error) {
	if len(tags) > maxTags {
		return nil, refuse(ErrTag, "Too many tags")
	}
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		switch {
		case !isTagKey(t.Key):
			return nil, invalid("tags.tagKey", "have length between 1 and %d", maxTagKey)
		case utf8.RuneCountInString(t.Value) > maxTagValue || !utf8.ValidString(t.Value):
			return nil, invalid("tags.tagValue", "have length less than or equal to %d", maxTagValue)
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
			return nil, refuse(ErrTag, "Tags beginning with aws: are reserved")
		}
		if _, twice := m[t.Key]; twice {
			return nil, refuse(ErrTag, "Duplicate tag keys")
		}
		m[t.Key] = t.Value
	}
	return m, nil
}
