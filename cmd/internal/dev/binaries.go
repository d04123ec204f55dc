package dev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Binaries are the paths of the programs that a deployment runs.
type Binaries struct {
	Daemon   string
	Ceremony string
}

// FindBinaries finds the programs in dir; or, if dir is empty, beside this program or in PATH.
func FindBinaries(dir string) (Binaries, error) {
	var b Binaries
	for name, path := range map[string]*string{"keyferryd": &b.Daemon, "keyferry-ceremony": &b.Ceremony} {
		found, err := findBinary(dir, name)
		if err != nil {
			return Binaries{}, err
		}
		*path = found
	}
	return b, nil
}

func findBinary(dir, name string) (string, error) {
	places := []string{dir}
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		places = []string{filepath.Dir(self), os.Getenv("PATH")}
	}
	for _, place := range places {
		for _, d := range filepath.SplitList(place) {
			abs, err := filepath.Abs(filepath.Join(d, name))
			if err != nil {
				return "", err
			}
			// The daemon runs in its own directory, so a relative path would not be found there.
			if found, err := exec.LookPath(abs); err == nil {
				return found, nil
			}
		}
	}
	if dir != "" {
		return "", fmt.Errorf("%s is not in %s: build it there with go build", name, dir)
	}
	return "", fmt.Errorf("%s is neither beside keyferry-dev nor in PATH: %w", name, errors.New("build it, or give --bin"))
}
