package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/policy"
)

func TestGrantCheck(t *testing.T) {
	pairs := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint(i)] = strings.Repeat("ä", policy.MaxConstraintValue)
		}
		return m
	}
	decrypt := []string{"Decrypt"}
	for _, test := range []struct {
		name, problem string
		grant         policy.Grant
	}{
		{"one operation", "", policy.Grant{Grantee: alice, Operations: decrypt}},
		{"all operations", "", policy.Grant{Grantee: alice, Operations: policy.GrantableOperations()}},
		{"the largest constraint", "", policy.Grant{Grantee: alice, Operations: []string{"Encrypt", "CreateGrant", "RetireGrant", "DescribeKey"}, EncryptionContextSubset: pairs(8)}},
		{"no grantee", "grantee", policy.Grant{Operations: decrypt}},
		{"everybody", "grantee", policy.Grant{Grantee: "*", Operations: decrypt}},
		{"no operation", "no operations", policy.Grant{Grantee: alice}},
		{"an operation twice", "Decrypt given twice", policy.Grant{Grantee: alice, Operations: []string{"Decrypt", "Decrypt"}}},
		{"a wildcard", `"*" cannot be granted`, policy.Grant{Grantee: alice, Operations: []string{"*"}}},
		{"an action", `"kms:Decrypt" cannot be granted`, policy.Grant{Grantee: alice, Operations: []string{"kms:Decrypt"}}},
		{"management", `"PutKeyPolicy" cannot be granted`, policy.Grant{Grantee: alice, Operations: []string{"PutKeyPolicy"}}},
		{"management that is open to other accounts", `"RevokeGrant" cannot be granted`, policy.Grant{Grantee: alice, Operations: []string{"RevokeGrant"}}},
		{"both constraints", "both", policy.Grant{Grantee: alice, Operations: decrypt, EncryptionContextSubset: pairs(1), EncryptionContextEquals: pairs(1)}},
		{"nine pairs", "9 pairs", policy.Grant{Grantee: alice, Operations: decrypt, EncryptionContextEquals: pairs(9)}},
		{"a long value", "384 characters", policy.Grant{Grantee: alice, Operations: decrypt, EncryptionContextEquals: map[string]string{"a": strings.Repeat("x", 385)}}},
		{"an empty key", "empty key", policy.Grant{Grantee: alice, Operations: decrypt, EncryptionContextSubset: map[string]string{"": "x"}}},
		{"broken UTF-8", "no UTF-8", policy.Grant{Grantee: alice, Operations: decrypt, EncryptionContextSubset: map[string]string{"a": "\xff"}}},
		{"a constraint on Sign", "Sign has no encryption context", policy.Grant{Grantee: alice, Operations: []string{"Sign"}, EncryptionContextSubset: pairs(1)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.grant.Check()
			if test.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, policy.ErrInvalidGrant) || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("got %v, want ErrInvalidGrant with %q", err, test.problem)
			}
		})
	}
	if got := len(policy.GrantableOperations()); got != 17 {
		t.Errorf("got %d grantable operations, want AWS's 17", got)
	}
}

func TestSafeToPut(t *testing.T) {
	all := `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}`
	put := `"Effect": "Allow", "Action": "kms:PutKeyPolicy", "Resource": "*"`
	for _, test := range []struct {
		name, key, identity string
		context             map[string][]string
		safe                bool
	}{
		{"the caller is named", with(`"Principal": {"AWS": "`+alice+`"}`, put), "", nil, true},
		{"the account is named", with(who, put), all, nil, true},
		{"the account is named and the caller may nothing", with(who, put), "", nil, false},
		{"the default key policy", string(policy.DefaultKeyPolicy("aws", "111122223333")), all, nil, true},
		{"another user", with(`"Principal": {"AWS": "arn:aws:iam::111122223333:user/bob"}`, put), all, nil, false},
		{"another action", with(`"Principal": {"AWS": "`+alice+`"}`, rest), all, nil, false},
		{"denied to everybody", `{"Version": "2012-10-17", "Statement": [{` + who + ", " + put + `}, {"Effect": "Deny", "Principal": "*", "Action": "kms:Put*", "Resource": "*"}]}`, all, nil, false},
		{"a condition that holds", with(`"Principal": {"AWS": "`+alice+`"}`, put, `"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}`), "", map[string][]string{policy.SourceIP: {"10.1.1.1"}}, true},
		{"a condition that does not hold", with(`"Principal": {"AWS": "`+alice+`"}`, put, `"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}`), "", map[string][]string{policy.SourceIP: {"192.0.2.1"}}, false},
		{"another key", with(`"Principal": {"AWS": "`+alice+`"}`, `"Effect": "Allow", "Action": "kms:*", "Resource": "arn:aws:kms:*:*:key/x"`), "", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var identity []*policy.Policy
			if test.identity != "" {
				identity = append(identity, mustParse(t, []byte(test.identity), policy.IdentityPolicy))
			}
			req := policy.Request{Principal: alice, Action: "kms:CreateKey", Resource: aKey, Context: test.context}
			err := policy.SafeToPut(mustParse(t, []byte(test.key), policy.KeyPolicy), req, identity)
			if test.safe != (err == nil) || err != nil && !errors.Is(err, policy.ErrLockout) {
				t.Errorf("got %v, want safe %t", err, test.safe)
			}
		})
	}
}
