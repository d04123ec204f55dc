package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/policy"
)

const (
	staff  = "arn:aws:iam::111122223333:group/staff"
	nights = "arn:aws:iam::111122223333:group/night/shift"
)

// TestGroups attaches statements to a user, two groups and the account.
func TestGroups(t *testing.T) {
	const app, carol = "arn:aws:iam::111122223333:role/app", "arn:aws:iam::111122223333:user/carol"
	ids := mustIdentities(t, []byte(`{"Version": "2012-10-17",
		"Statement": [
			{"Effect": "Allow", "Principal": {"AWS": "`+staff+`"}, "Action": "kms:ListKeys", "Resource": "*"},
			{"Effect": "Allow", "Principal": {"AWS": ["`+nights+`", "`+alice+`"]}, "Action": "kms:CreateKey", "Resource": "*"},
			{"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "kms:GenerateRandom", "Resource": "*"}
		],
		"Groups": {"`+staff+`": ["`+alice+`", "`+app+`"], "`+nights+`": "`+app+`", "arn:aws:iam::111122223333:group/empty": []}}`))
	for who, want := range map[string]struct {
		actions string
		groups  []string
	}{
		alice: {"ListKeys CreateKey GenerateRandom", []string{staff}},
		app:   {"ListKeys CreateKey GenerateRandom", []string{nights, staff}},
		carol: {"GenerateRandom", nil},
		"arn:aws-cn:iam::111122223333:user/alice": {"GenerateRandom", nil}, // another partition's alice
		"arn:aws:iam::444455556666:user/alice":    {"", nil},
		staff:                                     {"", nil}, // a group calls nobody
	} {
		var got []string
		for _, action := range []string{"ListKeys", "CreateKey", "GenerateRandom"} {
			if policy.Decide(policy.Request{Principal: who, Action: "kms:" + action, Resource: "*"}, nil, ids.For(who)).Allowed {
				got = append(got, action)
			}
		}
		if diff := cmp.Diff(want.actions, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s may (-want +got):\n%s", who, diff)
		}
		if !slices.Equal(ids.Groups(who), want.groups) {
			t.Errorf("%s is in %v, want %v", who, ids.Groups(who), want.groups)
		}
	}
	var zero policy.Identities
	if zero.For(alice) != nil || zero.Groups(alice) != nil || zero.Lint() != nil {
		t.Error("the zero value has something for alice")
	}
}

func TestGroupsRefused(t *testing.T) {
	group := func(members string) string { return `"` + staff + `": ` + members }
	for _, test := range []struct{ name, groups, principal, path, problem string }{
		{"as a list", `[]`, alice, "Groups", "a list; want an object"},
		{"no ARN", `{"staff": []}`, alice, "Groups.staff", "want arn:<partition>:iam::<account>:group/<name>"},
		{"a user as group", `{"` + alice + `": []}`, alice, "Groups." + alice, "group/<name>"},
		{"a name with spaces", `{"arn:aws:iam::111122223333:group/a b": []}`, alice, "Groups.arn:aws:iam::111122223333:group/a b", "group/<name>"},
		{"members as number", `{` + group(`1`) + `}`, alice, "Groups." + staff, "a number; want a string"},
		{"root in a group", `{` + group(`"arn:aws:iam::111122223333:root"`) + `}`, alice, "Groups." + staff, "user/<name> or role/<name>"},
		{"a group in a group", `{` + group(`["`+nights+`"]`) + `}`, alice, "Groups." + staff + "[0]", "user/<name> or role/<name>"},
		{"everybody in a group", `{` + group(`["*"]`) + `}`, alice, "Groups." + staff + "[0]", "user/<name> or role/<name>"},
		{"another account", `{` + group(`["`+alice+`", "arn:aws:iam::444455556666:user/mallory"]`) + `}`, alice, "Groups." + staff + "[1]", "another account"},
		{"another partition", `{` + group(`["arn:aws-cn:iam::111122223333:user/alice"]`) + `}`, alice, "Groups." + staff + "[0]", "another account"},
		{"a member twice", `{` + group(`["`+alice+`", "`+alice+`"]`) + `}`, alice, "Groups." + staff + "[1]", "given twice"},
		{"a group twice", `{` + group(`[]`) + `, ` + group(`["`+alice+`"]`) + `}`, alice, "Groups." + staff, "given twice"},
		{"a group that is not there", `{` + group(`[]`) + `}`, nights, "Statement.Principal.AWS", "is not in Groups"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := policy.ParseIdentities([]byte(`{"Version": "2012-10-17", "Groups": ` + test.groups + `,
				"Statement": {"Effect": "Allow", "Principal": {"AWS": "` + test.principal + `"}, ` + action + ", " + resource + `}}`))
			var e *policy.Error
			if !errors.As(err, &e) || !strings.Contains(e.Problem, test.problem) {
				t.Fatalf("got %v, want %q", err, test.problem)
			}
			if len(test.path) <= 64 && e.Path != test.path {
				t.Errorf("got path %q, want %q", e.Path, test.path)
			}
		})
	}
	for name, text := range map[string]string{
		"Groups in a key policy":           `{"Version": "2012-10-17", "Groups": {}, "Statement": {` + who + ", " + rest + `}}`,
		"a group in a key policy":          with(`"Principal": {"AWS": "`+staff+`"}`, rest),
		"a group in a key policy's Groups": with(`"Groups": {"`+staff+`": []}`, who, rest),
	} {
		if _, err := policy.Parse([]byte(text), policy.KeyPolicy); !errors.Is(err, policy.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	_, err := policy.ParseIdentities([]byte(with(`"NotPrincipal": {"AWS": "`+alice+`"}`, `"Effect": "Deny"`, action, resource)))
	if err == nil || !strings.Contains(err.Error(), "attached by name") {
		t.Errorf("NotPrincipal in an identities file: got %v", err)
	}
}
