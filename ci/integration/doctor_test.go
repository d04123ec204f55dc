package integration

import (
	"encoding/json"
	"errors"
	"math"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// diagnosis is what keyferry doctor --json says of a Region.
type diagnosis struct {
	Region, Level string
	Checks        []struct {
		Name, Subject, Level, Summary string
		Values                        map[string]float64
	}
}

// doctor returns what the command says, and its exit code.
func (d deployment) doctor(t *testing.T, args ...string) (map[string]diagnosis, int) {
	t.Helper()
	out, err := d.keyferry(nil, append([]string{"doctor", "--json"}, args...)...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	var all []diagnosis
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("keyferry doctor: %v\n%s", err, out)
	}
	byName := map[string]diagnosis{}
	for _, e := range all {
		byName[e.Region] = e
	}
	return byName, code
}

// TestDoctor: three sound Regions have no problem, and one that is down is told by itself and
// by the others.
func TestDoctor(t *testing.T) {
	softhsmtest.Used(t)
	d := shared
	eventually(t, patience, func() (string, bool) { // all have exchanged something
		all, code := d.doctor(t)
		text, _ := json.Marshal(all)
		return string(text), code == 0 && !strings.Contains(string(text), "not measured")
	})
	all, code := d.doctor(t, "--strict")
	if code != 7 { // SoftHSM keeps keys at its interface only
		t.Errorf("exit code %d with a warning and --strict", code)
	}
	count := map[string]int{}
	for _, c := range all[paris].Checks {
		count[c.Name]++
		if c.Name == "clock" && math.Abs(c.Values["offsetSeconds"]) > 1+c.Values["errorSeconds"] {
			t.Errorf("two clocks of one host differ: %+v", c)
		}
		if c.Name == "link-key" && (c.Values["hoursLeft"] < 10 || c.Values["hoursLeft"] > 24) {
			t.Errorf("a TLS key for peers: %+v", c)
		}
		if c.Name == "transport" && (c.Values["epochTo"] < 1 || c.Values["epochFrom"] < 1) {
			t.Errorf("transport keys: %+v", c)
		}
	}
	for name, want := range map[string]int{
		"token": 1, "boundary": 1, "capacity": 1, "quota": 1, "backup": 1, "peer": 2, "clock": 2, "transport": 2, "link-key": 3, "certificate": 2,
		"disk": 2, "store": 1, "seals": 1, "audit": 1, "credential": 1, "alarm": 0,
	} {
		if count[name] != want {
			t.Errorf("%d checks of the %s, want %d", count[name], name, want)
		}
	}

	d.mustDev(t, "stop", tokyo)
	t.Cleanup(func() { d.mustDev(t, "up") })
	eventually(t, patience, func() (string, bool) {
		all, code := d.doctor(t)
		told := false
		for _, c := range all[paris].Checks {
			told = told || c.Name == "peer" && c.Subject == tokyo && c.Level == "problem"
		}
		text, _ := json.Marshal(all)
		return string(text), code == 7 && told && all[tokyo].Level == "problem"
	})
}
