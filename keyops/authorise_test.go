package keyops_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestConditions: what conditions ask is what the request and the key say. Each statement
// allows user/app one action under one condition, and the calls differ in that alone.
func TestConditions(t *testing.T) {
	for _, tc := range []struct {
		action, condition string
		yes, no           func(w two, k keyops.KeyMetadata) error
	}{
		{"kms:Encrypt", `{"StringEquals": {"kms:EncryptionContext:env": "prod"}}`, appEncrypts(map[string]string{"env": "prod"}), appEncrypts(map[string]string{"env": "test"})},
		{"kms:Encrypt", `{"StringEquals": {"kms:EncryptionContext:env": "prod"}}`, appEncrypts(map[string]string{"env": "prod", "a": "b"}), appEncrypts(nil)},
		{"kms:Encrypt", `{"StringEquals": {"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}}`, appEncrypts(nil), nil},
		{"kms:Encrypt", `{"Bool": {"kms:MultiRegion": "true"}, "StringEquals": {"kms:MultiRegionKeyType": "PRIMARY", "kms:KeySpec": "SYMMETRIC_DEFAULT", "kms:KeyUsage": "ENCRYPT_DECRYPT", "kms:KeyOrigin": "AWS_KMS", "aws:RequestedRegion": "eu-paris-1"}}`, appEncrypts(nil), nil},
		{"kms:Encrypt", `{"StringEquals": {"kms:MultiRegionKeyType": "REPLICA"}}`, nil, appEncrypts(nil)},
		{"kms:Encrypt", `{"StringEquals": {"aws:RequestedRegion": "ap-tokyo-1"}}`, nil, appEncrypts(nil)},
		{"kms:Encrypt", `{"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}`, appEncrypts(nil), nil},
		{"kms:Encrypt", `{"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}`, nil, appEncrypts(nil)},
		{"kms:Encrypt", `{"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}`, appEncrypts(nil), nil},
		{"kms:Encrypt", `{"StringEquals": {"kms:RequestAlias": "alias/app"}}`, func(w two, _ keyops.KeyMetadata) error {
			return second(w.paris.Encrypt(context.Background(), keyopstest.User("app"), keyops.EncryptInput{KeyID: "alias/app", Plaintext: x}))
		}, appEncrypts(nil)},
		{"kms:Encrypt", `{"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/app"}}`, appEncrypts(nil), nil},
		{"kms:ReplicateKey", `{"StringEquals": {"kms:ReplicaRegion": "ap-tokyo-1"}}`, appReplicates("ap-tokyo-1"), appReplicates("us-east-1")},
	} {
		t.Run(fmt.Sprint(tc.action, " ", tc.condition), func(t *testing.T) {
			for i, call := range []func(two, keyops.KeyMetadata) error{tc.yes, tc.no} {
				if call == nil {
					continue
				}
				w := newTwo(t)
				// At the other end nothing but the account's word counts.
				w.tokyo.Options.Identities = strings.ReplaceAll(keyopstest.AdminIdentities, "user/admin", "user/app")
				w.tokyo.Restart(t)
				k := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true, Policy: `{"Version":"2012-10-17","Statement":[
					{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"},
					{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/app"},"Action":"` + tc.action + `","Resource":"*","Condition":` + tc.condition + `}]}`})
				if _, err := w.paris.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/app", TargetKeyID: k.ARN}); err != nil {
					t.Fatal(err)
				}
				err := call(w, k)
				if i == 0 && err != nil {
					t.Error(explain(err))
				} else if i == 1 {
					want(t, err, keyops.ErrAccessDenied, "")
				}
			}
		})
	}
}

func appEncrypts(with map[string]string) func(two, keyops.KeyMetadata) error {
	return func(w two, k keyops.KeyMetadata) error {
		in := keyops.EncryptInput{KeyID: k.ARN, Plaintext: x, EncryptionContext: with}
		return second(w.paris.Encrypt(context.Background(), keyopstest.User("app"), in))
	}
}

func appReplicates(to string) func(two, keyops.KeyMetadata) error {
	return func(w two, k keyops.KeyMetadata) error {
		in := keyops.ReplicateKeyInput{KeyID: k.ARN, ReplicaRegion: to}
		return second(w.paris.ReplicateKey(context.Background(), keyopstest.User("app"), in))
	}
}

// TestConditionsOfNewKeys: a condition on what is to be made holds before it is made, in
// both Regions.
func TestConditionsOfNewKeys(t *testing.T) {
	identities := func(condition string) string {
		return strings.Replace(keyopstest.AdminIdentities, `"Resource": "*"`, `"Resource": "*", "Condition": `+condition, 1)
	}
	for _, tc := range []struct {
		condition         string
		single, multi, at keyops.Reason // of CreateKey, of CreateKey multi-Region, of a replica in Tokyo
	}{
		{`{"Bool": {"kms:MultiRegion": "false"}}`, "", keyops.ErrAccessDenied, keyops.ErrAccessDenied},
		{`{"StringEquals": {"kms:MultiRegionKeyType": "PRIMARY"}}`, keyops.ErrAccessDenied, "", keyops.ErrAccessDenied},
		{`{"StringEquals": {"kms:MultiRegionKeyType": "REPLICA"}}`, keyops.ErrAccessDenied, keyops.ErrAccessDenied, ""},
		{`{"StringEquals": {"kms:KeySpec": "HMAC_256"}}`, keyops.ErrAccessDenied, keyops.ErrAccessDenied, keyops.ErrAccessDenied},
		{`{"StringEquals": {"kms:KeySpec": "SYMMETRIC_DEFAULT", "kms:KeyUsage": "ENCRYPT_DECRYPT", "kms:KeyOrigin": "AWS_KMS"}}`, "", "", ""},
		{`{"Bool": {"kms:BypassPolicyLockoutSafetyCheck": "false"}}`, "", "", keyops.ErrAccessDenied},
	} {
		t.Run(tc.condition, func(t *testing.T) {
			w := newTwo(t)
			k := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
			for _, r := range []*keyopstest.Region{w.paris, w.tokyo} {
				r.Options.Identities = identities(tc.condition)
				r.Restart(t)
			}
			check := func(what string, reason keyops.Reason, err error) {
				t.Helper()
				if reason == "" && err != nil {
					t.Errorf("%s: %v", what, explain(err))
				} else if reason != "" {
					want(t, err, reason, "")
				}
			}
			check("single-Region", tc.single, second(w.paris.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})))
			check("multi-Region", tc.multi, second(w.paris.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{MultiRegion: true})))
			check("replica", tc.at, w.tokyo.CheckReplica(t.Context(), keyops.ReplicaClaim{
				Source: "eu-paris-1", Key: k.KeyID, Account: keyopstest.Account, Principal: admin().Principal,
				Spec: k.KeySpec, Usage: k.KeyUsage, Origin: k.Origin,
			}))
		})
	}
}
