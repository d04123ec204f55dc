package keyops_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestLimitsOfLabels tries the limits of what names and describes a key that is there, one
// below, at and one above. What is refused changes nothing.
func TestLimitsOfLabels(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	ctx := t.Context()
	s := func(n int) string { return strings.Repeat("é", n) }
	key := func(tags int) string {
		var list []keyops.Tag
		for i := range tags {
			list = append(list, keyops.Tag{Key: fmt.Sprint("k", i), Value: "v"})
		}
		return create(t, r, keyops.CreateKeyInput{Tags: list}).ARN
	}
	tag := func(had int, tags ...keyops.Tag) func() error {
		k := key(had)
		return func() error {
			return second(r.TagResource(ctx, admin(), keyops.TagResourceInput{KeyID: k, Tags: tags}))
		}
	}
	untag := func(names ...string) func() error {
		k := key(2)
		return func() error {
			return second(r.UntagResource(ctx, admin(), keyops.UntagResourceInput{KeyID: k, TagKeys: names}))
		}
	}
	describe := func(text string) func() error {
		k := key(0)
		return func() error {
			return second(r.UpdateKeyDescription(ctx, admin(), keyops.UpdateKeyDescriptionInput{KeyID: k, Description: text}))
		}
	}
	pages := func(op string, n int) func() error {
		k := key(1)
		return func() error {
			switch op {
			case "tags":
				return second(r.ListResourceTags(ctx, admin(), keyops.ListResourceTagsInput{KeyID: k, Limit: n}))
			case "grants":
				return second(r.ListGrants(ctx, admin(), keyops.ListGrantsInput{KeyID: k, Limit: n}))
			case "retirable":
				return second(r.ListRetirableGrants(ctx, admin(), keyops.ListRetirableGrantsInput{RetiringPrincipal: admin().Principal.String(), Limit: n}))
			case "keys":
				return second(r.ListKeys(ctx, admin(), keyops.ListKeysInput{Limit: n}))
			case "aliases":
				return second(r.ListAliases(ctx, admin(), keyops.ListAliasesInput{Limit: n}))
			}
			return second(r.ListAliases(ctx, admin(), keyops.ListAliasesInput{KeyID: k, Limit: n}))
		}
	}
	names := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprint("k", i))
		}
		return list
	}
	for _, tc := range []struct {
		name   string
		call   func() error
		reason keyops.Reason
		part   string
	}{
		{"the 50th tag", tag(49, keyops.Tag{Key: "new"}), "", ""},
		{"the 51st tag", tag(50, keyops.Tag{Key: "new"}), keyops.ErrTag, "Too many tags"},
		{"another value of the 50th tag", tag(50, keyops.Tag{Key: "k0", Value: "w"}), "", ""},
		{"no tag", tag(0), keyops.ErrValidation, "'tags'"},
		{"tag key 127", tag(0, keyops.Tag{Key: s(127)}), "", ""},
		{"tag key 128", tag(0, keyops.Tag{Key: s(128)}), "", ""},
		{"tag key 129", tag(0, keyops.Tag{Key: s(129)}), keyops.ErrValidation, "'tags.tagKey'"},
		{"tag value 255", tag(0, keyops.Tag{Key: "k", Value: s(255)}), "", ""},
		{"tag value 256", tag(0, keyops.Tag{Key: "k", Value: s(256)}), "", ""},
		{"tag value 257", tag(0, keyops.Tag{Key: "k", Value: s(257)}), keyops.ErrValidation, "'tags.tagValue'"},
		{"tag twice", tag(0, keyops.Tag{Key: "k"}, keyops.Tag{Key: "k"}), keyops.ErrTag, "Duplicate tag keys"},
		{"reserved tag", tag(0, keyops.Tag{Key: "AWS:x"}), keyops.ErrTag, "reserved"},
		{"untag nothing", untag(), keyops.ErrValidation, "'tagKeys'"},
		{"untag 50", untag(names(50)...), "", ""},
		{"untag 51", untag(names(51)...), keyops.ErrValidation, "'tagKeys'"},
		{"untag an empty name", untag(""), keyops.ErrValidation, "'tagKeys'"},
		{"untag a name of 129", untag(s(129)), keyops.ErrValidation, "'tagKeys'"},
		{"description 8191", describe(s(8191)), "", ""},
		{"description 8192", describe(s(8192)), "", ""},
		{"description 8193", describe(s(8193)), keyops.ErrValidation, "'description'"},
		{"description that is not UTF-8", describe("\xff"), keyops.ErrValidation, "'description'"},
		{"tags per page -1", pages("tags", -1), keyops.ErrValidation, "'limit'"},
		{"tags per page 1", pages("tags", 1), "", ""},
		{"tags per page 50", pages("tags", 50), "", ""},
		{"tags per page 51", pages("tags", 51), keyops.ErrValidation, "'limit'"},
		{"grants per page -1", pages("grants", -1), keyops.ErrValidation, "'limit'"},
		{"grants per page 100", pages("grants", 100), "", ""},
		{"grants per page 101", pages("grants", 101), keyops.ErrValidation, "'limit'"},
		{"retirable grants per page 100", pages("retirable", 100), "", ""},
		{"retirable grants per page 101", pages("retirable", 101), keyops.ErrValidation, "'limit'"},
		{"keys per page 1", pages("keys", 1), "", ""},
		{"keys per page 999", pages("keys", 999), "", ""},
		{"aliases per page -1", pages("aliases", -1), keyops.ErrValidation, "'limit'"},
		{"aliases per page 1", pages("aliases", 1), "", ""},
		{"aliases per page 99", pages("aliases", 99), "", ""},
		{"a key's aliases per page 100", pages("", 100), "", ""},
		{"a key's aliases per page 101", pages("", 101), keyops.ErrValidation, "'limit'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			head := r.StoreHead()
			err := tc.call()
			if tc.reason == "" {
				if err != nil {
					t.Error(explain(err))
				}
				return
			}
			want(t, err, tc.reason, tc.part)
			if r.StoreHead() != head {
				t.Error("a refused call changed the store")
			}
		})
	}
}

// TestMarkersAreBound: a marker is of the operation that returned it, and of no other.
func TestMarkersAreBound(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	var k keyops.KeyMetadata
	for i := range 2 {
		k = create(t, r, keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: "a"}, {Key: "b"}}})
		for j := range 2 {
			if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: fmt.Sprintf("alias/%d-%d", i, j), TargetKeyID: k.ARN}); err != nil {
				t.Fatal(explain(err))
			}
			grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, RetiringPrincipal: helper, Operations: []string{"Decrypt"}, Name: fmt.Sprint(j)})
			if err := rotate(r, k.ARN); err != nil {
				t.Fatal(explain(err))
			}
		}
	}
	lists := map[string]func(marker string) (string, error){
		"ListKeys": func(m string) (string, error) {
			out, err := r.ListKeys(t.Context(), admin(), keyops.ListKeysInput{Limit: 1, Marker: m})
			return out.NextMarker, err
		},
		"ListAliases": func(m string) (string, error) {
			out, err := r.ListAliases(t.Context(), admin(), keyops.ListAliasesInput{Limit: 1, Marker: m})
			return out.NextMarker, err
		},
		"ListResourceTags": func(m string) (string, error) {
			out, err := r.ListResourceTags(t.Context(), admin(), keyops.ListResourceTagsInput{KeyID: k.ARN, Limit: 1, Marker: m})
			return out.NextMarker, err
		},
		"ListGrants": func(m string) (string, error) {
			out, err := r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: k.ARN, Limit: 1, Marker: m})
			return out.NextMarker, err
		},
		"ListKeyRotations": func(m string) (string, error) {
			out, err := r.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: k.ARN, Limit: 1, Marker: m})
			return out.NextMarker, err
		},
	}
	markers := map[string]string{}
	for name, list := range lists {
		m, err := list("")
		if err != nil || m == "" {
			t.Fatalf("%s: marker %q, %v", name, m, explain(err))
		}
		markers[name] = m
	}
	for name, list := range lists {
		for of, m := range markers {
			_, err := list(m)
			if of == name {
				if err != nil {
					t.Errorf("%s refuses its own marker: %v", name, explain(err))
				}
				continue
			}
			want(t, err, keyops.ErrInvalidMarker, name)
		}
		for _, bad := range []string{"x", markers[name] + "A", "AAAA", strings.Repeat("A", 1024)} {
			if _, err := list(bad); err == nil {
				t.Errorf("%s takes the marker %.10s", name, bad)
			}
		}
		_, err := list(strings.Repeat("A", 1025))
		want(t, err, keyops.ErrValidation, "'marker'")
	}
}
