package gateway_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/gateway"
)

var block = regexp.MustCompile("(?s)```(sh|json)\n(.*?)```")

// TestIdentityPageWorks runs the commands of docs/identity.md in order, on a server that is
// configured as the page says, and compares their answers. Between two commands the server
// looks at its files, as a daemon does every five seconds.
func TestIdentityPageWorks(t *testing.T) {
	page, err := os.ReadFile("../docs/identity.md")
	must(t, err)
	dir := t.TempDir()
	p := &provider{t, mustKey(t)}
	list := filepath.Join(dir, "clients-ca.crl")
	w := startWatched(t, func(ca *authority, c *gateway.Config) {
		// Rules as the page has them, but for the trust domain of the tests.
		c.Principals = []gateway.Rule{{SPIFFE: "spiffe://test.example/user/*", Principal: "arn:aws:iam::111122223333:user/*"}}
		c.Bearer = p.config()
		must(t, os.WriteFile(list, ca.revoke(1, nil), 0o600))
		c.TLS.CRLs = []string{list}
	})
	w.ca.writeFor(aliceURI, dir)
	must(t, os.WriteFile(filepath.Join(dir, "alice.jwt"), []byte(p.token(map[string]any{"email": "alice@example.org"})), 0o600))

	commands, answers, printed := 0, 0, ""
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		if m[1] == "sh" {
			printed = w.shell(dir, m[2])
			w.watch.Check(context.Background(), false)
			commands++
			continue
		}
		if answers++; printed != m[2] {
			t.Errorf("answer %d is %s, the page says %s", answers, printed, m[2])
		}
	}
	if commands < 6 || answers < 4 {
		t.Errorf("the page has %d commands and %d answers", commands, answers)
	}
	for _, a := range w.alarms.All() {
		if a.Count > 0 {
			t.Errorf("alarm %s was raised: %v", a.Name, a.Cause)
		}
	}
}

// TestIdentityPageListsRefusals compares the table of messages with those that there are.
func TestIdentityPageListsRefusals(t *testing.T) {
	page, err := os.ReadFile("../docs/identity.md")
	must(t, err)
	for _, message := range gateway.IdentityRefusals() {
		if !strings.Contains(string(page), "| "+message+" |") {
			t.Errorf("the page does not explain %q", message)
		}
	}
}
