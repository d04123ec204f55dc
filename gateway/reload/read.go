package reload

import (
	"fmt"
	"io"
	"os"
)

// ReadFile reads a file of at most limit bytes. A larger one is probably another file, and is
// not read into memory at every look.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("reading %s: larger than %d bytes, so it is probably another file", path, limit)
	}
	return data, nil
}
