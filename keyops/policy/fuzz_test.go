package policy_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/policy"
)

func FuzzParse(f *testing.F) {
	d := mustDecisions(f)
	for _, p := range d.KeyPolicies {
		f.Add([]byte(p))
	}
	for _, p := range d.Identities {
		f.Add([]byte(p))
	}
	for _, members := range lints {
		f.Add([]byte(with(members.members)))
	}
	f.Add([]byte(condition(`"ForAnyValue:StringLikeIfExists": {"kms:EncryptionContextKeys": ["a*", "?"]}, "Null": {"kms:EncryptionContext:a": true}`)))
	f.Add([]byte(condition(`"NumericLessThan": {"kms:RotationPeriodInDays": 1.5}, "DateEquals": {"aws:CurrentTime": 1900000000}, "NotIpAddress": {"aws:SourceIp": "::/0"}`)))
	f.Add([]byte("\xef\xbb\xbf{}"))
	req := policy.Request{
		Principal: "arn:aws:iam::111122223333:user/alice", Action: "kms:Encrypt",
		Resource:          "arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
		EncryptionContext: map[string]string{"a": "b"}, Context: map[string][]string{policy.SourceIP: {"10.0.0.1"}, policy.KeySpec: {"HMAC_256"}},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := policy.Parse(data, policy.KeyPolicy)
		checkError(t, err)
		if err == nil {
			d := policy.Decide(req, key, nil)
			if d.Allowed && !strings.Contains(string(data), "Allow") && !strings.Contains(string(data), `\u`) {
				t.Errorf("got %+v from a document that nowhere says Allow", d)
			}
			if e := policy.Explain(req, key, nil); e.Allowed != d.Allowed || e.String() == "" {
				t.Errorf("explained as %s, decided as %+v", e, d)
			}
			policy.Lint(key)
			if !json.Valid(data) {
				t.Error("accepted what is no JSON")
			}
		}
		identity, err := policy.Parse(data, policy.IdentityPolicy)
		checkError(t, err)
		if err == nil {
			policy.Decide(req, key, []*policy.Policy{identity})
			if key != nil {
				t.Error("one document is both a key policy and an identity policy")
			}
		}
		ids, err := policy.ParseIdentities(data)
		checkError(t, err)
		if err == nil {
			policy.Decide(req, key, ids.For(req.Principal))
			ids.Lint()
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var e *policy.Error
	if err != nil && (!errors.Is(err, policy.ErrMalformed) || !errors.As(err, &e) || e.Problem == "") {
		t.Errorf("got %v, want an *Error that wraps ErrMalformed", err)
	}
}
