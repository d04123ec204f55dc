package dev

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
)

// MaxRegions bounds a deployment: each Region has a transport key set to and from each other.
const MaxRegions = 5

// Account is the account that a deployment serves.
const Account arn.Account = "111122223333"

const partition = "aws"

// Plan is what a deployment was made with. It is decided once, by the first Up.
type Plan struct {
	Regions []RegionPlan `json:"regions"`
}

// RegionPlan is one Region's name and its ports on 127.0.0.1.
type RegionPlan struct {
	Name region.Name `json:"name"`
	GRPC int         `json:"grpc_port"`
	REST int         `json:"rest_port"`
	Peer int         `json:"peer_port"`
	// Metrics is 0 in deployments that were made before there were any.
	Metrics int `json:"metrics_port"`
}

// Deployment is a deployment in a directory.
type Deployment struct {
	dir  string // absolute
	bin  Binaries
	plan Plan
	out  io.Writer // progress, for people
}

// ErrNone is returned where there is no deployment.
var ErrNone = errors.New("no deployment here: make one with keyferry-dev up")

// Open opens the deployment in dir. Progress is written to out.
func Open(dir string, bin Binaries, out io.Writer) (*Deployment, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	d := &Deployment{dir: abs, bin: bin, out: out}
	err = readJSON(d.path("deployment.json"), &d.plan)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	return d, err
}

// OpenOrCreate opens the deployment in dir, or plans one with these Regions. The ports of a
// new one start at basePort, or are free ones if it is 0. An existing deployment keeps its
// plan; asking it for other Regions is an error.
func OpenOrCreate(dir string, bin Binaries, out io.Writer, names []region.Name, basePort int) (*Deployment, error) {
	d, err := Open(dir, bin, out)
	switch {
	case err == nil:
		if len(names) > 0 && !slices.Equal(names, d.Regions()) {
			return nil, fmt.Errorf("%s has the Regions %s: leave --regions out, or remove it with keyferry-dev down --purge",
				dir, join(d.Regions()))
		}
		return d, nil
	case !errors.Is(err, ErrNone):
		return nil, err
	}
	if len(names) == 0 {
		names = []region.Name{"eu-paris-1", "us-east-1", "ap-tokyo-1"}
	}
	plan, err := newPlan(names, basePort)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	d = &Deployment{dir: abs, bin: bin, out: out, plan: plan}
	return d, writeJSON(d.path("deployment.json"), plan)
}

func newPlan(names []region.Name, basePort int) (Plan, error) {
	if len(names) > MaxRegions {
		return Plan{}, fmt.Errorf("%d Regions: want 1 to %d", len(names), MaxRegions)
	}
	var plan Plan
	for i, n := range names {
		if _, err := region.ParseName(string(n)); err != nil {
			return Plan{}, err
		}
		if slices.Index(names, n) < i {
			return Plan{}, fmt.Errorf("region %s is given twice", n)
		}
		plan.Regions = append(plan.Regions, RegionPlan{Name: n})
	}
	err := plan.choosePorts(basePort)
	return plan, err
}

// Regions lists the Regions' names, in the order in which they were given.
func (d *Deployment) Regions() []region.Name {
	names := make([]region.Name, len(d.plan.Regions))
	for i, r := range d.plan.Regions {
		names[i] = r.Name
	}
	return names
}

func (d *Deployment) region(name region.Name) (RegionPlan, error) {
	i := slices.Index(d.Regions(), name)
	if i < 0 {
		return RegionPlan{}, fmt.Errorf("region %q is not in this deployment, which has %s", name, join(d.Regions()))
	}
	return d.plan.Regions[i], nil
}

func (d *Deployment) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// in is a path in the directory of one Region.
func (d *Deployment) in(r region.Name, elem ...string) string {
	return d.path(append([]string{"regions", string(r)}, elem...)...)
}

func (d *Deployment) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// Purge removes the deployment's directory. The daemons must be down.
func (d *Deployment) Purge() error {
	for _, r := range d.Regions() {
		if p, running := d.process(r); running {
			return fmt.Errorf("%s still runs as process %d: stop it first", r, p.PID)
		}
	}
	return os.RemoveAll(d.dir)
}

func join[T ~string](names []T) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}
