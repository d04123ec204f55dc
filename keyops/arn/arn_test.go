package arn_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops/arn"
	_ "github.com/keyferry/keyferry/keyops/keyopstest/seededtest"
)

const (
	single = "0f8fad5b-d9cb-469f-a165-70867728950e"
	multi  = "mrk-1234abcd12ab34cd56ef1234567890ab"
)

// check tests that a parser accepts exactly what it should, and prints it back.
func check(t *testing.T, s string, ok bool, printed string, err error) {
	t.Helper()
	switch {
	case ok && err != nil:
		t.Errorf("%q: got %v, want no error", s, err)
	case ok && printed != s:
		t.Errorf("%q: prints as %q", s, printed)
	case !ok && err == nil:
		t.Errorf("%q: got %q, want an error", s, printed)
	case !ok && !errors.Is(err, arn.ErrInvalid):
		t.Errorf("%q: got %v, want ErrInvalid", s, err)
	case !ok && len(err.Error()) > 480: // 80 bytes, each escaped, and the words
		t.Errorf("%.20q...: the error has %d bytes", s, len(err.Error()))
	}
}

func TestParseAccount(t *testing.T) {
	for s, ok := range map[string]bool{
		"111122223333": true, "000000000000": true,
		"": false, "11112222333": false, "1111222233334": false, "11112222333a": false, "111122223333\n": false,
		" 11122223333": false, "-11122223333": false, "１１１１２２２２３３３３": false, "*": false,
	} {
		got, err := arn.ParseAccount(s)
		check(t, s, ok, string(got), err)
	}
}

func TestParsePartition(t *testing.T) {
	for s, ok := range map[string]bool{
		"aws": true, "aws-cn": true, "k": true, "on-prem1": true, strings.Repeat("a", 32): true,
		"": false, "AWS": false, "1a": false, "-a": false, "a_b": false, "a:b": false, "aws\n": false, strings.Repeat("a", 33): false,
	} {
		got, err := arn.ParsePartition(s)
		check(t, s, ok, got, err)
	}
}

func TestParseKeyID(t *testing.T) {
	for s, ok := range map[string]bool{
		single: true, multi: true, "00000000-0000-0000-0000-000000000000": true,
		"": false, "mrk-": false, multi[:35]: false, multi + "0": false, strings.ToUpper(multi): false,
		"MRK-" + multi[4:]: false, "mrk-" + single: false, multi[4:]: false,
		strings.ToUpper(single): false, strings.ReplaceAll(single, "-", ""): false, single + "\n": false,
		"{" + single + "}": false, "urn:uuid:" + single: false, "alias/payroll": false,
	} {
		got, err := arn.ParseKeyID(s)
		check(t, s, ok, string(got), err)
		if ok && got.MultiRegion() != strings.HasPrefix(s, "mrk-") {
			t.Errorf("%q: MultiRegion is %t", s, got.MultiRegion())
		}
	}
}

func TestNewKeyID(t *testing.T) {
	seen := map[arn.KeyID]bool{}
	for range 100 {
		for _, multiRegion := range []bool{false, true} {
			id := arn.NewKeyID(multiRegion)
			if parsed, err := arn.ParseKeyID(string(id)); parsed != id || err != nil {
				t.Fatalf("NewKeyID(%t) made %q: %v", multiRegion, id, err)
			}
			if id.MultiRegion() != multiRegion || seen[id] {
				t.Fatalf("NewKeyID(%t) made %q, known %t", multiRegion, id, seen[id])
			}
			seen[id] = true
		}
	}
}

func TestKeyIDBytes(t *testing.T) {
	want := [16]byte{0x12, 0x34, 0xab, 0xcd, 0x12, 0xab, 0x34, 0xcd, 0x56, 0xef, 0x12, 0x34, 0x56, 0x78, 0x90, 0xab}
	if diff := cmp.Diff(want, arn.KeyID(multi).Bytes()); diff != "" {
		t.Errorf("Bytes (-want +got):\n%s", diff)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))
		multiRegion := rapid.Bool().Draw(t, "multi-Region")
		id := arn.KeyIDFromBytes(b, multiRegion)
		if parsed, err := arn.ParseKeyID(string(id)); parsed != id || err != nil {
			t.Fatalf("%x makes %q: %v", b, id, err)
		}
		if id.Bytes() != b || id.MultiRegion() != multiRegion {
			t.Fatalf("%x makes %q, which has %x", b, id, id.Bytes())
		}
	})
}

func TestParseAliasName(t *testing.T) {
	for s, ok := range map[string]bool{
		"alias/payroll": true, "alias/a/b:c_d-E9": true, "alias/awsome": true, "alias/AWS/x": true, "alias//": true,
		"alias/" + strings.Repeat("a", 250): true,
		"":                                  false, "alias/": false, "payroll": false, "Alias/payroll": false, "alias/aws/s3": false,
		"alias/a b": false, "alias/é": false, "alias/a\n": false, "alias/*": false, "alias/${x}": false,
		"alias/" + strings.Repeat("a", 251): false,
	} {
		got, err := arn.ParseAliasName(s)
		check(t, s, ok, got, err)
	}
}

// printed prints the part of a resource that is set, and fails if not exactly one is.
func printed(t testing.TB, r arn.Resource) string {
	t.Helper()
	switch {
	case r.Key != nil && r.Alias == nil:
		return r.Key.String()
	case r.Alias != nil && r.Key == nil:
		return r.Alias.String()
	case r.Key == nil && r.Alias == nil:
		return ""
	}
	t.Error("both a key and an alias")
	return ""
}

func TestParseResource(t *testing.T) {
	for s, ok := range map[string]bool{
		"arn:aws:kms:eu-paris-1:111122223333:key/" + multi:        true,
		"arn:aws:kms:eu-paris-1:111122223333:key/" + single:       true,
		"arn:on-prem:kms:us-gov-east-1:000000000000:key/" + multi: true,
		"arn:aws:kms:eu-paris-1:111122223333:alias/payroll":       true,
		"arn:aws:kms:eu-paris-1:111122223333:alias/a:b/key/c":     true,
		"":                                     false,
		"arn:aws:kms:eu-paris-1:111122223333":  false,
		"arn:aws:kms:eu-paris-1:111122223333:": false,
		"arn:aws:kms:eu-paris-1:111122223333:key":                                false,
		"arn:aws:kms:eu-paris-1:111122223333:key/":                               false,
		"arn:aws:kms:eu-paris-1:111122223333:key/*":                              false,
		"arn:aws:kms:eu-paris-1:111122223333:key/" + multi + ":x":                false,
		"arn:aws:kms:eu-paris-1:111122223333:key/" + multi + "/x":                false,
		"arn:aws:kms:eu-paris-1:111122223333:Key/" + multi:                       false,
		"arn:aws:kms:eu-paris-1:111122223333:alias/aws/s3":                       false,
		"arn:aws:kms:eu-paris-1:111122223333:" + multi:                           false,
		"ARN:aws:kms:eu-paris-1:111122223333:key/" + multi:                       false,
		"arn::kms:eu-paris-1:111122223333:key/" + multi:                          false,
		"arn:aws:s3:eu-paris-1:111122223333:key/" + multi:                        false,
		"arn:aws:kms::111122223333:key/" + multi:                                 false,
		"arn:aws:kms:paris:111122223333:key/" + multi:                            false,
		"arn:aws:kms:eu-paris-1::key/" + multi:                                   false,
		" arn:aws:kms:eu-paris-1:111122223333:key/" + multi:                      false,
		"arn:aws:kms:eu-paris-1:111122223333:key/" + multi + "\n":                false,
		"arn:aws:kms:eu-paris-1:111122223333:alias/" + strings.Repeat("a", 4000): false,
	} {
		got, err := arn.ParseResource(s)
		check(t, s, ok, printed(t, got), err)
	}
	got, err := arn.ParseResource("arn:aws:kms:eu-paris-1:111122223333:key/" + multi)
	want := arn.Resource{Key: &arn.Key{Partition: "aws", Region: "eu-paris-1", Account: "111122223333", ID: multi}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("key, %v (-want +got):\n%s", err, diff)
	}
	got, err = arn.ParseResource("arn:aws:kms:eu-paris-1:111122223333:alias/a:b")
	want = arn.Resource{Alias: &arn.Alias{Partition: "aws", Region: "eu-paris-1", Account: "111122223333", Name: "alias/a:b"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("alias, %v (-want +got):\n%s", err, diff)
	}
}

func TestParsePrincipal(t *testing.T) {
	for s, ok := range map[string]bool{
		"arn:aws:iam::111122223333:root":                                true,
		"arn:aws:iam::111122223333:user/alice":                          true,
		"arn:aws:iam::111122223333:role/app/payroll+a=b,c.d@e_f-g":      true,
		"arn:aws-cn:iam::111122223333:user/" + strings.Repeat("a", 128): true,
		"": false, "*": false, "111122223333": false,
		"arn:aws:iam::111122223333:":                                  false,
		"arn:aws:iam::111122223333:roots":                             false,
		"arn:aws:iam::111122223333:root/x":                            false,
		"arn:aws:iam::111122223333:user":                              false,
		"arn:aws:iam::111122223333:user/":                             false,
		"arn:aws:iam::111122223333:user/*":                            false,
		"arn:aws:iam::111122223333:user/a b":                          false,
		"arn:aws:iam::111122223333:user/a:b":                          false,
		"arn:aws:iam::111122223333:user/é":                            false,
		"arn:aws:iam::111122223333:user/a\n":                          false,
		"arn:aws:iam::111122223333:group/a":                           false,
		"arn:aws:iam::111122223333:User/a":                            false,
		"arn:aws:iam:eu-paris-1:111122223333:root":                    false,
		"arn:aws:sts::111122223333:root":                              false,
		"arn:aws:iam:::root":                                          false,
		"arn::iam::111122223333:root":                                 false,
		"arn:aws:iam::111122223333:user/" + strings.Repeat("a", 129):  false,
		"arn:aws:iam::111122223333:user/" + strings.Repeat("a", 4000): false,
	} {
		got, err := arn.ParsePrincipal(s)
		back := ""
		if err == nil {
			back = got.String()
		}
		check(t, s, ok, back, err)
	}
}

// FuzzParse feeds every parser. What is accepted prints back to the same text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		single, multi, "alias/payroll", "111122223333", "aws",
		"arn:aws:kms:eu-paris-1:111122223333:key/" + multi,
		"arn:aws:kms:eu-paris-1:111122223333:alias/a:b",
		"arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:root",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		same := func(got string, err error) {
			t.Helper()
			check(t, s, err == nil, got, err)
		}
		account, err := arn.ParseAccount(s)
		same(string(account), err)
		same(arn.ParsePartition(s))
		same(arn.ParseAliasName(s))
		id, err := arn.ParseKeyID(s)
		same(string(id), err)
		if err == nil && arn.KeyIDFromBytes(id.Bytes(), id.MultiRegion()) != id {
			t.Errorf("%q does not come back from its bytes", id)
		}
		resource, err := arn.ParseResource(s)
		same(printed(t, resource), err)
		if principal, err := arn.ParsePrincipal(s); err == nil {
			same(principal.String(), nil)
		} else {
			same("", err)
		}
	})
}
