package hsm_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
)

// The PIN is nowhere in the process's memory once the token is open, neither Go's nor C's:
// core dumps and swap would keep it.
func TestPINIsNotInMemory(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	needle := masked(t, tok.PINFile)
	needle = needle[len(needle)/2:] // malloc's own notes overwrite the first half of what is freed
	openWith(t, config(tok))
	if n := find(t, needle); n != 0 {
		t.Errorf("half of the PIN is %d times in memory", n)
	}
	pin := mustPIN(t, tok.PINFile) // were it not found now, the search would prove nothing
	if find(t, needle) == 0 {
		t.Error("the search misses a PIN that is there")
	}
	runtime.KeepAlive(pin)
}

const mask = 0x5A

// masked reads a PIN byte by byte, so that it is not in memory as it is.
func masked(t *testing.T, file string) (needle []byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := []byte{0}; ; needle = append(needle, b[0]^mask) {
		if _, err := f.Read(b); err == io.EOF || b[0] == '\n' {
			return needle
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// find counts a masked needle in the writable memory of this process.
func find(t *testing.T, needle []byte) (n int) {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	buf := make([]byte, 1<<16)
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var access string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &access); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(access, "rw") {
			continue
		}
		for at := from; at < to; at += uint64(len(buf) - len(needle)) { // pieces overlap
			got, err := mem.ReadAt(buf[:min(uint64(len(buf)), to-at)], int64(at))
			if err != nil {
				break // guard pages and the like hold nothing
			}
			n += count(buf[:got], needle)
		}
	}
	return n
}

func count(b, needle []byte) (n int) {
	for {
		i := bytes.IndexByte(b, needle[0]^mask)
		if i < 0 || len(b)-i < len(needle) {
			return n
		}
		b = b[i:]
		same := true
		for j, x := range needle {
			same = same && b[j]^mask == x
		}
		if same {
			n++
		}
		b = b[1:]
	}
}
