package gateway_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"testing"

	"github.com/keyferry/keyferry/gateway"
)

func leaf(commonName string, units []string, uris ...string) *x509.Certificate {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: commonName, OrganizationalUnit: units}}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return c
}

func TestRules(t *testing.T) {
	rules := []gateway.Rule{
		{SPIFFE: "spiffe://corp.example/kms/admin", Principal: "arn:aws:iam::111122223333:root"},
		{SPIFFE: "spiffe://corp.example/kms/*", Principal: "arn:aws:iam::111122223333:user/*"},
		{CommonName: "*", OrganizationalUnit: "payroll", Principal: "arn:aws:iam::111122223333:role/payroll"},
		{CommonName: "ci.corp.example", Principal: "arn:aws:iam::444455556666:role/ci"},
	}
	for _, test := range []struct {
		name string
		leaf *x509.Certificate
		want string // empty: nobody
	}{
		{"first rule that fits decides", leaf("", nil, "spiffe://corp.example/kms/admin"), "arn:aws:iam::111122223333:root"},
		{"name is carried over", leaf("", nil, "spiffe://corp.example/kms/alice"), "arn:aws:iam::111122223333:user/alice"},
		{"name does not reach over a slash", leaf("", nil, "spiffe://corp.example/kms/alice/x"), ""},
		{"name is not empty", leaf("", nil, "spiffe://corp.example/kms/"), ""},
		{"dot is no wildcard", leaf("", nil, "spiffe://corpXexample/kms/alice"), ""},
		{"pattern fits the whole name", leaf("", nil, "xspiffe://corp.example/kms/alice"), ""},
		{"newline does not end the name", leaf("", nil, "spiffe://corp.example/kms/alice%0Aroot"), ""},
		{"escape is no name", leaf("", nil, "spiffe://corp.example/kms/%61lice"), ""},
		{"two URI names are ambiguous", leaf("", nil, "spiffe://corp.example/kms/alice", "spiffe://corp.example/kms/bob"), ""},
		{"unit is demanded", leaf("bob", []string{"payroll", "oslo"}), "arn:aws:iam::111122223333:role/payroll"},
		{"unit is exact", leaf("bob", []string{"payroll-it"}), ""},
		{"common name is exact", leaf("ci.corp.example", nil), "arn:aws:iam::444455556666:role/ci"},
		{"common name is not a prefix", leaf("ci.corp.example.evil", nil), ""},
		{"nothing fits", leaf("mallory", nil), ""},
		{"empty subject", leaf("", []string{"payroll"}), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, ok, err := gateway.Map(rules, test.leaf)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if ok {
				got = p.String()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestRuleMistakes(t *testing.T) {
	for name, rule := range map[string]gateway.Rule{
		"no pattern":            {Principal: "arn:aws:iam::111122223333:root"},
		"both patterns":         {SPIFFE: "spiffe://a/b", CommonName: "b", Principal: "arn:aws:iam::111122223333:root"},
		"unit with SPIFFE":      {SPIFFE: "spiffe://a/b", OrganizationalUnit: "c", Principal: "arn:aws:iam::111122223333:root"},
		"other scheme":          {SPIFFE: "https://a/b", Principal: "arn:aws:iam::111122223333:root"},
		"two stars":             {SPIFFE: "spiffe://a/*/*", Principal: "arn:aws:iam::111122223333:user/*"},
		"star without pattern":  {SPIFFE: "spiffe://a/b", Principal: "arn:aws:iam::111122223333:user/*"},
		"principal is no ARN":   {SPIFFE: "spiffe://a/b", Principal: "alice"},
		"principal is a key":    {SPIFFE: "spiffe://a/b", Principal: keyARN},
		"star in the account":   {SPIFFE: "spiffe://a/*", Principal: "arn:aws:iam::*:root"},
		"star in the partition": {SPIFFE: "spiffe://a/*", Principal: "arn:*:iam::111122223333:root"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := gateway.Map([]gateway.Rule{rule}, leaf("", nil)); err == nil {
				t.Errorf("rule %+v was taken", rule)
			}
		})
	}
}
