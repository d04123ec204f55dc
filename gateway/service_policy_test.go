package gateway_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
)

// TestAccessRequestsArriveWhole: nothing that limits a grant or a question is lost on its way.
func TestAccessRequestsArriveWhole(t *testing.T) {
	s := start(t, nil)
	for _, test := range []struct {
		verb, path, body string
		want             any
	}{
		{http.MethodPost, "/v1/explain-access",
			`{"principal":"p","action":"kms:ReplicateKey","keyId":"k","aliasName":"alias/a","encryptionContext":{"env":"prod"},"replicaRegion":"us-east-1","policy":"{}",
			  "conditions":[{"key":"a","values":["1"]},{"key":"b","values":["2","3"]},{"key":"a","values":["4"]}]}`,
			keyops.ExplainAccessInput{
				Principal: "p", Action: "kms:ReplicateKey", KeyID: "k", AliasName: "alias/a", EncryptionContext: map[string]string{"env": "prod"},
				ReplicaRegion: "us-east-1", Policy: "{}", Conditions: map[string][]string{"a": {"1", "4"}, "b": {"2", "3"}},
			}},
		{http.MethodPost, "/v1/keys/k/grants",
			`{"granteePrincipal":"g","retiringPrincipal":"r","operations":["Encrypt"],"constraints":{"encryptionContextEquals":{"env":"prod"}},"grantTokens":["t"],"name":"n","dryRun":true}`,
			keyops.CreateGrantInput{
				KeyID: "k", GranteePrincipal: "g", RetiringPrincipal: "r", Operations: []string{"Encrypt"}, GrantTokens: []string{"t"}, Name: "n", DryRun: true,
				Constraints: keyops.GrantConstraints{EncryptionContextEquals: map[string]string{"env": "prod"}},
			}},
		{http.MethodPost, "/v1/retire-grant", `{"keyId":"k","grantId":"1","dryRun":true}`, keyops.RetireGrantInput{KeyID: "k", GrantID: "1", DryRun: true}},
		{http.MethodDelete, "/v1/keys/k/grants/1?dryRun=true", "", keyops.RevokeGrantInput{KeyID: "k", GrantID: "1", DryRun: true}},
		{http.MethodGet, "/v1/keys/k/grants?grantId=1&granteePrincipal=g&limit=2&marker=m", "", keyops.ListGrantsInput{KeyID: "k", GrantID: "1", GranteePrincipal: "g", Limit: 2, Marker: "m"}},
		{http.MethodPut, "/v1/keys/k/policy", `{"policy":"{}","policyName":"default","bypassPolicyLockoutSafetyCheck":true}`,
			keyops.PutKeyPolicyInput{KeyID: "k", Policy: "{}", PolicyName: "default", BypassPolicyLockoutSafetyCheck: true}},
		{http.MethodPost, "/v1/keys/k:untag", `{"tagKeys":["a","b"]}`, keyops.UntagResourceInput{KeyID: "k", TagKeys: []string{"a", "b"}}},
		{http.MethodPost, "/v1/sign", `{"keyId":"k","grantTokens":["t","u"]}`, keyops.SignInput{KeyID: "k", GrantTokens: []string{"t", "u"}}},
		{http.MethodGet, "/v1/keys/k?grantTokens=t", "", keyops.DescribeKeyInput{KeyID: "k", GrantTokens: []string{"t"}}},
	} {
		t.Run(test.verb+" "+test.path, func(t *testing.T) {
			resp := s.do(test.verb, test.path, test.body, nil)
			if resp.code != http.StatusOK {
				t.Fatalf("got %d %s", resp.code, resp.body)
			}
			if diff := cmp.Diff(test.want, s.keys.last().Input); diff != "" {
				t.Errorf("keys got (-want +got):\n%s", diff)
			}
		})
	}
}
