package cliconfig

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sound = `default_region: eu-paris-1
regions:
  eu-paris-1: {grpc: "127.0.0.1:7101", rest: "https://127.0.0.1:7201", ca: ca.crt, cert: /c/admin.crt, key: admin.key}
  us-east-1: {grpc: "127.0.0.1:7102", ca: ca.crt, token_file: alice.jwt}
`

func load(t *testing.T, text string) (*Config, string, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	return c, name, err
}

func TestLoad(t *testing.T) {
	c, name, err := load(t, sound)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(name)
	want := Region{GRPC: "127.0.0.1:7101", REST: "https://127.0.0.1:7201",
		CA: dir + "/ca.crt", Cert: "/c/admin.crt", Key: dir + "/admin.key"}
	r, got, err := c.Choose("")
	if diff := cmp.Diff(want, got); diff != "" || err != nil || r != "eu-paris-1" {
		t.Errorf("default Region %s, %v (-want +got):\n%s", r, err, diff)
	}
	want = Region{GRPC: "127.0.0.1:7102", CA: dir + "/ca.crt", TokenFile: dir + "/alice.jwt"}
	r, got, err = c.Choose("us-east-1")
	if diff := cmp.Diff(want, got); diff != "" || err != nil || r != "us-east-1" {
		t.Errorf("us-east-1 is %s, %v (-want +got):\n%s", r, err, diff)
	}
	if _, _, err := c.Choose("ap-tokyo-1"); err == nil || err.Error() !=
		`region "ap-tokyo-1" is not in the configuration, which has eu-paris-1, us-east-1` {
		t.Errorf("unknown Region: %v", err)
	}
	c.DefaultRegion = ""
	if _, _, err := c.Choose(""); !errors.Is(err, ErrNoRegion) {
		t.Errorf("no Region named: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	_, name, err := load(t, `default_region: us-west-2
regions:
  eu-paris-1: {grpc: localhost, rest: "http://127.0.0.1:7201", ca: ca.crt, cert: admin.crt}
  Paris: {grpc: "127.0.0.1:7102", ca: ca.crt, cert: admin.crt, key: admin.key, token: x}
  us-west-1: {grpc: "127.0.0.1:7103", ca: ca.crt, cert: admin.crt, token_file: alice.jwt}
  us-west-3: {grpc: "127.0.0.1:7103", token_file: alice.jwt}
`)
	want := name + `:1: default_region: "us-west-2" is not among regions: Paris, eu-paris-1, us-west-1, us-west-3
` + name + `:3: regions.eu-paris-1.grpc: "localhost": want host:port, such as 127.0.0.1:7100
` + name + `:3: regions.eu-paris-1.rest: "http://127.0.0.1:7201": want a URL such as https://127.0.0.1:7200
` + name + `:3: regions.eu-paris-1.key: missing: give the path of a PEM file
` + name + `:4: regions.Paris.token: unknown key: the keys here are grpc, rest, ca, cert, key, token_file
` + name + `:4: regions.Paris: region name "Paris": want two or three lower-case words and a number, such as eu-paris-1
` + name + `:5: regions.us-west-1.token_file: two credentials: give cert and key, or token_file
` + name + `:6: regions.us-west-3.ca: missing: give the path of a PEM file`
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
}

func TestPath(t *testing.T) {
	t.Setenv("KEYFERRY_CONFIG", "/x/y.yaml")
	if p, err := Path(); p != "/x/y.yaml" || err != nil {
		t.Errorf("Path() = %s, %v", p, err)
	}
	t.Setenv("KEYFERRY_CONFIG", "")
	t.Setenv("XDG_CONFIG_HOME", "/x/.config")
	if p, err := Path(); p != "/x/.config/keyferry/config.yaml" || err != nil {
		t.Errorf("Path() = %s, %v", p, err)
	}
}
