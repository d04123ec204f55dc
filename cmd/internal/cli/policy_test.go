package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

const (
	soundPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"kms:*","Resource":"*"}]}`
	loosePolicy = `{"Version":"2012-10-17","Statement":[{"Sid":"all","Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}]}`
	misspelt    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:Decryt","Resource":"*"}]}`
	idleGroup   = `{"Version":"2012-10-17","Groups":{"arn:aws:iam::111122223333:group/idle":["arn:aws:iam::111122223333:user/a"]},"Statement":[
	  {"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/a"},"Action":"kms:*","Resource":"*"}]}`
)

// TestPolicyLint checks files without a server and without a configuration.
func TestPolicyLint(t *testing.T) {
	for _, tc := range []struct {
		name, document string
		flags          []string
		code           int
		out, errs      string
	}{
		{"sound", soundPolicy, nil, ExitOK, "", ""},
		{"allows everybody", loosePolicy, nil, ExitFailed, `Statement[0] "all": allows-everybody: `, "see above"},
		{"as JSON", loosePolicy, []string{"--json"}, ExitFailed, `"rule":"allows-everybody"`, "see above"},
		{"malformed", misspelt, nil, ExitFailed, "", "perhaps kms:Decrypt"},
		{"identities", idleGroup, []string{"--identities"}, ExitFailed, "unused-group", "see above"},
		{"identities as a key policy", idleGroup, nil, ExitFailed, "", "malformed policy document"},
		{"too long", soundPolicy + strings.Repeat(" ", 32<<10), nil, ExitUsage, "", "longer than 32768 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy.json")
			if err := os.WriteFile(file, []byte(tc.document), 0o600); err != nil {
				t.Fatal(err)
			}
			code, out, errs := run(t, "", append([]string{"policy", "lint", file}, tc.flags...)...)
			if code != tc.code || !strings.Contains(out, tc.out) || (out == "") != (tc.out == "") || !strings.Contains(errs, tc.errs) || (errs == "") != (tc.errs == "") {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
			}
		})
	}
}

func TestAccessUsageErrors(t *testing.T) {
	for name, args := range map[string][]string{
		"no action":             {"policy", "explain"},
		"condition":             {"policy", "explain", "--action", "Decrypt", "--condition", "aws:SourceIp"},
		"context":               {"policy", "explain", "--action", "Decrypt", "-c", "env"},
		"no policy file":        {"policy", "explain", "--action", "Decrypt", "--policy", "/nonexistent"},
		"put without a file":    {"policy", "put", "k"},
		"grant to nobody":       {"grant", "create", "k", "--operation", "Decrypt"},
		"grant of nothing":      {"grant", "create", "k", "--to", "user/a"},
		"exact without context": {"grant", "create", "k", "--to", "user/a", "--operation", "Decrypt", "--exact"},
		"tag without value":     {"key", "tag", "k", "team"},
		"tag nothing":           {"key", "tag", "k"},
		"three arguments":       {"grant", "retire", "a", "b", "c"},
	} {
		if code, out, errs := run(t, "", args...); code != ExitUsage || out != "" || errs == "" {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", name, code, out, errs)
		}
	}
}

// TestAnswer prints an explanation as the package that has decided does, and fails if the
// call would be refused.
func TestAnswer(t *testing.T) {
	decision := func(region string, allowed bool) *kmsv1.AccessDecision {
		return &kmsv1.AccessDecision{
			Region: region, Principal: "p", Action: "kms:Decrypt", Resource: "r", Allowed: allowed, Reason: "NoAllow", Statement: "s", Advice: []string{"do this"},
			Considered: []*kmsv1.ConsideredStatement{{Statement: "s", Effect: "Allow", Elements: []*kmsv1.StatementElement{{Name: "Action", Why: "has not"}}}},
		}
	}
	const body = "kms:Decrypt on r for p\nreason: NoAllow\ndecided by: s\n\ns (Allow): does not apply\n  x Action: has not\n\nto allow it:\n  - do this\n"
	for _, tc := range []struct {
		name string
		in   *kmsv1.ExplainAccessResponse
		want string
	}{
		{"one", &kmsv1.ExplainAccessResponse{Allowed: true, Decisions: []*kmsv1.AccessDecision{decision("a", true)}}, "allowed: " + body},
		{"two", &kmsv1.ExplainAccessResponse{Decisions: []*kmsv1.AccessDecision{decision("a", true), decision("b", false)}}, "in a: allowed: " + body + "\nin b: refused: " + body},
		{"not told", &kmsv1.ExplainAccessResponse{Decisions: []*kmsv1.AccessDecision{{Action: "kms:Decrypt", Principal: "p", Resource: "r"}}}, "refused: kms:Decrypt on r for p\nreason: not told\n"},
	} {
		var out bytes.Buffer
		err := (&app{Streams: Streams{Out: &out}}).answer(tc.in, "kms:Decrypt")
		if diff := cmp.Diff(tc.want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		if (err == nil) != tc.in.GetAllowed() || err != nil && (exitCode(err) != ExitDenied || status.Code(err) != codes.PermissionDenied) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestConstraintInWords(t *testing.T) {
	pairs := map[string]string{"b": "2", "a": "1 "}
	for want, c := range map[string]*kmsv1.GrantConstraints{
		"-":                       nil,
		`subset "a"="1 " "b"="2"`: {EncryptionContextSubset: pairs},
		`equals "a"="1 " "b"="2"`: {EncryptionContextEquals: pairs},
	} {
		if got := constraint(c); got != want {
			t.Errorf("%v is %q, want %q", c, got, want)
		}
	}
}

// TestMultiRegionPage lints the policy that the page shows.
func TestMultiRegionPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/multi-region-keys.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	document, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page shows no policy")
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := run(t, "", "policy", "lint", "--identities", file); code != ExitOK {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}
