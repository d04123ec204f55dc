package softhsmtest

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Newest returns the file of the newest object of any SoftHSM token below a directory.
func Newest(t testing.TB, dir string) string {
	t.Helper()
	var newest string
	var at time.Time
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".object") || filepath.Base(path) == "token.object" {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(at) {
			newest, at = path, info.ModTime()
		}
		return err
	})
	if err != nil || newest == "" {
		t.Fatalf("no object below %s, or: %v", dir, err)
	}
	return newest
}

// TakeValue empties CKA_VALUE in an object's file: what a process leaves that was killed
// between SoftHSM's two writes, of the object and of its value. No process may have the
// token open.
//
// A file is a generation number and then attributes, each a type, a kind and a value;
// numbers have eight bytes, big-endian, and byte strings begin with their length.
func TakeValue(t testing.TB, name string) { t.Helper(); Take(t, name, 0x11) }

// Take empties any byte string in an object's file, such as CKA_MODULUS.
func Take(t testing.TB, name string, attribute uint64) {
	t.Helper()
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const byteString = 3
	header := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, attribute), byteString)
	start := bytes.Index(file, header)
	if start < 0 || len(file) < start+len(header)+8 {
		t.Fatalf("%s has no attribute 0x%X", name, attribute)
	}
	start += len(header)
	n := binary.BigEndian.Uint64(file[start:])
	end := start + 8 + int(n)
	if n == 0 || n > 4096 || end > len(file) {
		t.Fatalf("%s has an attribute 0x%X of %d bytes", name, attribute, n)
	}
	half := append(file[:start:start], make([]byte, 8)...)
	if err := os.WriteFile(name, append(half, file[end:]...), 0o600); err != nil {
		t.Fatal(err)
	}
}
