package ci

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDirectModules demands that go.mod calls exactly those modules direct that we import.
// It is what can be known of go mod tidy without a network.
func TestDirectModules(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{} // module → imported
	for _, imp := range imported(t) {
		best := ""
		for _, r := range file.Require {
			if within(imp, []string{r.Path, r.Path + "/"}) && len(r.Path) > len(best) {
				best = r.Path
			}
		}
		if best == "" {
			t.Errorf("%s is imported, and no module of go.mod has it", imp)
		}
		direct[best] = true
	}
	for _, r := range file.Require {
		switch {
		case direct[r.Path] && r.Indirect:
			t.Errorf("go.mod calls %s indirect, and we import it: run go mod tidy", r.Path)
		case !direct[r.Path] && !r.Indirect:
			t.Errorf("go.mod calls %s direct, and nothing imports it: run go mod tidy", r.Path)
		}
	}
}

// imported lists what code and tests import from other modules.
func imported(t *testing.T) []string {
	var all []string
	for _, p := range list(t) {
		all = append(all, slices.Concat(p.Imports, p.TestImports, p.XTestImports)...)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(path string) bool {
		host, _, _ := strings.Cut(path, "/")
		return !strings.Contains(host, ".") || strings.HasPrefix(path, module)
	})
}
