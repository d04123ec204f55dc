package config

import (
	"fmt"
	"os"
	"path/filepath"
)

// LoadOnHost reads and checks a configuration file as [Load] does, and also reports every
// file that it names and this machine lacks, and every secret that others here can read.
func LoadOnHost(name string) (*Config, error) {
	c, doc, err := load(name)
	if err != nil {
		return nil, err
	}
	for _, p := range c.paths() {
		if *p.value == "" {
			continue
		}
		groupMayRead := c.Token.PINGroupReadable && p.key == "token.pin_file"
		if text := p.problem(groupMayRead); text != "" {
			doc.Report(p.key, "%s", text)
		}
	}
	return c, doc.Err()
}

func (p path) problem(groupMayRead bool) string {
	name, wantDir := *p.value, p.dir
	if p.made {
		if _, err := os.Stat(name); err == nil {
			return "" // what opens it knows best whether it is sound
		}
		name, wantDir = filepath.Dir(name), true
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return fmt.Sprintf("%v: correct the path, or make it", err)
	case wantDir && !info.IsDir():
		return name + " is a file, and must be a directory"
	case !wantDir && !info.Mode().IsRegular():
		return name + " is not a regular file"
	}
	forbidden := os.FileMode(0o077)
	if groupMayRead {
		forbidden = 0o037
	}
	if p.secret && info.Mode().Perm()&forbidden != 0 {
		return fmt.Sprintf("%s has mode %04o, so others can read a secret: chmod 600 it", name, info.Mode().Perm())
	}
	return ""
}
