package hsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadPIN(t *testing.T) {
	for _, c := range []struct {
		name    string
		content string
		mode    os.FileMode
		group   bool
		want    string
		refused string
	}{
		{name: "plain", content: "1234", mode: 0o600, want: "1234"},
		{name: "newline", content: "1234\n", mode: 0o400, want: "1234"},
		{name: "spaces are part of it", content: " 1234 \n", mode: 0o400, want: " 1234 "},
		{name: "longest", content: strings.Repeat("9", 256), mode: 0o600, want: strings.Repeat("9", 256)},
		{name: "two newlines", content: "1234\n\n", mode: 0o600, refused: "line end inside"},
		{name: "carriage return", content: "1234\r\n", mode: 0o600, refused: "line end inside"},
		{name: "NUL", content: "12\x0034", mode: 0o600, refused: "NUL"},
		{name: "empty", content: "", mode: 0o600, refused: "empty"},
		{name: "only a newline", content: "\n", mode: 0o600, refused: "empty"},
		{name: "too long", content: strings.Repeat("9", 257), mode: 0o600, refused: "more than 256"},
		{name: "a big file", content: strings.Repeat("9", 1<<20), mode: 0o600, refused: "more than 256"},
		{name: "group, not allowed", content: "1234", mode: 0o640, refused: "mode 0640"},
		{name: "group, allowed", content: "1234", mode: 0o440, group: true, want: "1234"},
		{name: "group may write", content: "1234", mode: 0o660, group: true, refused: "mode 0660"},
		{name: "others", content: "1234", mode: 0o604, group: true, refused: "mode 0604"},
		{name: "executable", content: "1234", mode: 0o700, refused: "mode 0700"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pin")
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, c.mode); err != nil {
				t.Fatal(err)
			}
			got, err := readPIN(file, c.group)
			if c.refused == "" {
				if err != nil || string(got) != c.want {
					t.Errorf("got %q, %v; want %q", string(got), err, c.want)
				}
				return
			}
			if !errors.Is(err, ErrPIN) || !strings.Contains(err.Error(), c.refused) || got != nil {
				t.Errorf("got %v, want a refusal about %q", err, c.refused)
			}
			if len(c.content) > 3 && strings.Contains(err.Error(), c.content) {
				t.Errorf("the error tells the PIN: %v", err)
			}
		})
	}
}

func TestReadPINNotAFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, "/dev/null", filepath.Join(dir, "missing")} {
		if _, err := readPIN(path, false); !errors.Is(err, ErrPIN) {
			t.Errorf("%s: got %v, want %v", path, err, ErrPIN)
		}
	}
}

// TestReadPINOwner gives the file to somebody else, which root can test.
func TestReadPINOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the owner cannot be changed, so only the own file is tested")
		return
	}
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 65534, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := readPIN(file, false); !errors.Is(err, ErrPIN) || !strings.Contains(err.Error(), "owned by user 65534") {
		t.Errorf("got %v", err)
	}
}

func TestPINHidesAndWipes(t *testing.T) {
	p := pin("1234")
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if got := fmt.Sprintf(format, p); strings.Contains(got, "1234") || strings.Contains(got, "0x31") {
			t.Errorf("%s prints %s", format, got)
		}
	}
	p.wipe()
	if string(p) != "\x00\x00\x00\x00" {
		t.Error("wiping left the bytes")
	}
}
