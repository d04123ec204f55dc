package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// sectionOf returns the text of one section of a page.
func sectionOf(t *testing.T, page, heading string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(data), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", page, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// typist types the commands of a page, in the order in which something happens.
type typist struct {
	d     deployment
	t     *testing.T
	page  map[string]int // its commands, and how often each was typed
	codes map[string]int // the exit codes that they promise
}

func newTypist(t *testing.T, d deployment, page string) *typist {
	y := &typist{d: d, t: t, page: map[string]int{}, codes: map[string]int{}}
	for _, c := range commandsOf(t, page) {
		y.page[c.line], y.codes[c.line] = 0, c.code
	}
	return y
}

// typed runs a command of the page in a Region. with says what stands for what in it.
func (y *typist) typed(region, line string, with ...string) string {
	y.t.Helper()
	y.mark(line)
	command := strings.NewReplacer(with...).Replace(line)
	code, out, err := y.d.at(y.t.Context(), region, y.d.shims(region, 0)+command)
	if err != nil || code != y.codes[line] {
		y.t.Fatalf("%s: %s: exit code %d, want %d, %v\n%s", region, command, code, y.codes[line], err, out)
	}
	return out
}

// mark notes a command that is typed by other means.
func (y *typist) mark(line string) {
	y.t.Helper()
	if _, ok := y.page[line]; !ok {
		y.t.Fatalf("the page has no command %q", line)
	}
	y.page[line]++
}

// refused runs a command that must fail, and say why.
func (y *typist) refused(region, command, why string) {
	y.t.Helper()
	code, out, err := y.d.at(y.t.Context(), region, y.d.shims(region, 0)+command)
	if err != nil || code == 0 || !strings.Contains(out, why) {
		y.t.Errorf("%s: %s: exit code %d, %v, want a refusal with %q:\n%s", region, command, code, err, why, out)
	}
}

// untyped lists the commands of the page that nobody has typed.
func (y *typist) untyped() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for line, n := range y.page {
			if n == 0 && !yield(line) {
				return
			}
		}
	})
}

// link makes a file visible in the directory of a Region, by the name that the page has.
func (y *typist) link(in, from, to string) {
	y.t.Helper()
	if err := os.MkdirAll(filepath.Dir(y.d.in(in, to)), 0o700); err != nil {
		y.t.Fatal(err)
	}
	if err := os.Symlink(from, y.d.in(in, to)); err != nil && !os.IsExist(err) {
		y.t.Fatal(err)
	}
}

// TestTaskPages types what pages say about the use of keys in several Regions, section by
// section and in one shell each, as somebody does who reads them for the first time. What a
// reader has before stands in front of it, and behind it what must be true then.
func TestTaskPages(t *testing.T) {
	softhsmtest.Used(t)
	// A wrapping key of 4096 bits takes a token seconds to make, and shows nothing more.
	smaller := strings.NewReplacer("RSA_4096", "RSA_2048")
	for _, tc := range []struct {
		page, heading, before, after string
		want                         []string
	}{
		{
			page: "multi-region-keys.md", heading: "Make one, and replicate it",
			after: "keyferry encrypt payroll -c env=prod --region eu-paris-1 < salaries.csv | keyferry decrypt -c env=prod --region us-east-1\n" +
				"keyferry alias delete payroll --region eu-paris-1; keyferry alias delete payroll --region us-east-1",
			want: []string{"us-east-1: SYNCHRONIZED, Enabled", "anna,100"},
		},
		{
			page: "multi-region-keys.md", heading: "From a single-Region key",
			before: "old=$(keyferry key create --alias payroll); keyferry encrypt payroll -c env=prod < salaries.csv > salaries.kf",
			after:  "keyferry decrypt payroll -c env=prod < salaries.new; keyferry alias delete payroll",
			want:   []string{" ReEncrypt ", "anna,100"},
		},
		{page: "use-everywhere.md", heading: "Write in every Region (active-active)", want: []string{"us-east-1: SYNCHRONIZED, Enabled", "anna,100"}},
		{page: "use-everywhere.md", heading: "Sign in every Region", want: []string{"Verified OK", "signature valid, made by arn:aws:kms:eu-paris-1:"}},
		{
			page: "import.md", heading: "In several Regions",
			after: `keyferry encrypt "$key" --region eu-paris-1 < salaries.csv | keyferry decrypt "$key" --region us-east-1`,
			want:  []string{"us-east-1: SYNCHRONIZED, PendingImport", "PENDING_MULTI_REGION_IMPORT_AND_ROTATION", "eu-paris-1: encrypts with ", `"keyMaterialId"`, "anna,100"},
		},
	} {
		t.Run(tc.heading, func(t *testing.T) {
			softhsmtest.Used(t)
			script := patient + "set -eu\neval \"$(keyferry-dev --dir " + shared.dir + " env)\"\nprintf 'anna,100' > salaries.csv\nprintf release > release.tar\n" + tc.before + "\n"
			for _, block := range shellBlock.FindAllStringSubmatch(sectionOf(t, tc.page, tc.heading), -1) {
				script += smaller.Replace(block[1])
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", script+tc.after)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("the commands of the page: %v\n%s", err, out)
			}
			for _, want := range tc.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("they do not print %q:\n%s", want, out)
				}
			}
		})
	}
}
