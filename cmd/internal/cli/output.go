package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// output is a file that appears under its name when it is whole. Until then it is beside it
// under a name of its own, which nobody can take for the result.
type output struct {
	*os.File
	name string
}

func openInput(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usagef("opening the input: %w", err)
	}
	return f, nil
}

// newOutput refuses a name that is taken: what was there is not ours to replace.
func newOutput(name string) (*output, error) {
	if _, err := os.Lstat(name); err == nil {
		return nil, usagef("%s exists: name a file that does not", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".unfinished-*") // mode 0600
	if err != nil {
		return nil, usagef("making the output: %w", err)
	}
	return &output{f, name}, nil
}

// finish gives the file its name. A link, unlike a rename, replaces nothing; where the file
// system has none, a rename must do.
func (o *output) finish() error {
	if err := o.Sync(); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", o.name, err), o.forget())
	}
	switch err := os.Link(o.Name(), o.name); {
	case err == nil:
		return o.forget()
	case errors.Is(err, fs.ErrExist):
		return errors.Join(usagef("%s exists: name a file that does not", o.name), o.forget())
	}
	if err := errors.Join(o.Close(), os.Rename(o.Name(), o.name)); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", o.name, err), os.Remove(o.Name()))
	}
	return nil
}

// forget removes the unfinished name.
func (o *output) forget() error { return errors.Join(o.Close(), os.Remove(o.Name())) }
