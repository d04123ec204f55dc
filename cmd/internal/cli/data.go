package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Limits of the API on one call (bytes).
const (
	maxPlaintext  = 4096
	maxMessage    = 4096
	maxCiphertext = 6144
	maxPolicy     = 32 << 10
	maxPublicKey  = 12 << 10 // in PEM, which is longer than the API's 8192 bytes of DER
)

// readAll reads at most limit bytes and refuses more, with a word on what to do instead.
func readAll(r io.Reader, limit int, what, instead string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	if len(b) > limit {
		return nil, usagef("the %s is longer than %d bytes%s", what, limit, instead)
	}
	return b, nil
}

func (a *app) readFile(name string, limit int, what string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usagef("reading the %s: %w", what, err)
	}
	defer f.Close()
	return readAll(f, limit, what, "")
}

// parseContext reads key=value pairs of an encryption context.
func parseContext(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usagef("context %q: want KEY=VALUE", p)
		}
		if _, twice := m[k]; twice {
			return nil, usagef("context key %q is given twice", k)
		}
		m[k] = v
	}
	return m, nil
}

// write puts data on standard output as it is.
func (a *app) write(b []byte) error {
	n, err := a.Out.Write(b)
	if err == nil && n != len(b) {
		err = errors.New("short write")
	}
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

func (a *app) say(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }
