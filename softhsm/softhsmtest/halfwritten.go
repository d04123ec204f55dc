package softhsmtest

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/softhsm"
)

// Made returns the file of the object that comes into a token while something is done. Times
// of files are too coarse to tell which of two is newer.
func Made(t testing.TB, tok softhsm.Token, while func()) string {
	t.Helper()
	before := objects(t, tok)
	while()
	var made []string
	for _, name := range objects(t, tok) {
		if !slices.Contains(before, name) {
			made = append(made, name)
		}
	}
	if len(made) != 1 {
		t.Fatalf("%d new objects in token %s, want one: %v", len(made), tok.Label, made)
	}
	return made[0]
}

// objects lists the files of a token's objects, in the directory whose name ends with the
// serial number.
func objects(t testing.TB, tok softhsm.Token) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(filepath.Dir(tok.Conf), "tokens", "*-"+tok.Serial[:4]+"-"+tok.Serial[4:]))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("directories of token %s: %v, %v", tok.Label, dirs, err)
	}
	names, err := filepath.Glob(filepath.Join(dirs[0], "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return filepath.Base(name) == "token.object" })
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
