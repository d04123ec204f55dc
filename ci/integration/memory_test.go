package integration

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestKeyIsNotInMemory finds out a key's bytes, which takes SoftHSM's files and PIN, and
// looks for them in both daemons. Go memory must not hold them. The module's own memory may:
// SoftHSM computes there.
func TestKeyIsNotInMemory(t *testing.T) {
	softhsmtest.Used(t)
	key := shared.createKey(t, paris)
	blob := shared.must(t, []byte("x"), "encrypt", key, "--region", paris)
	shared.replicate(t, key, paris, virginia)
	for range 20 {
		shared.must(t, blob, "decrypt", "--region", virginia)
	}
	secret := keyBytes(t, virginia, key)
	checkKey(t, secret, key, blob)
	for region, s := range shared.status(t) {
		if region == tokyo {
			continue
		}
		in := scan(t, s.PID, map[string][]byte{"key": secret, "first half": secret[:16], "second half": secret[16:], "key ID": []byte(key)})
		// Were the ID not found either, the scan would prove nothing.
		if in["key ID"].inGo == 0 {
			t.Errorf("%s: the key's ID is not in Go memory, so the scan missed it", region)
		}
		for _, what := range []string{"key", "first half", "second half"} {
			if n := in[what].inGo; n > 0 {
				t.Errorf("%s: %s found %d times in Go memory", region, what, n)
			}
			t.Logf("%s: %s found %d times outside Go memory", region, what, in[what].elsewhere)
		}
	}
}

// checkKey proves that these are the key's bytes: they open its ciphertext, and the material
// ID follows from them.
func checkKey(t *testing.T, secret []byte, keyID string, blob []byte) {
	t.Helper()
	block, err := aes.NewCipher(secret)
	if err != nil {
		t.Fatal(err)
	}
	check := material.AESBlocks(keyID)
	block.Encrypt(check[:16], check[:16])
	block.Encrypt(check[16:], check[16:])
	header, sealed, err := ciphertext.Parse(blob)
	if err != nil {
		t.Fatal(err)
	}
	aad, err := ciphertext.AAD(header, material.Compute("SYMMETRIC_DEFAULT", keyID, check[:]), nil)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	if plaintext, err := gcm.Open(nil, header.IV, sealed, aad); err != nil || string(plaintext) != "x" {
		t.Fatalf("what was read is not the key: %q, %v", plaintext, err)
	}
}

type hits struct{ inGo, elsewhere int }

// scan counts needles in the readable memory of a process.
func scan(t *testing.T, pid int, needles map[string][]byte) map[string]hits {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	found := map[string]hits{}
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		if strings.Contains(lines.Text(), "[v") { // the kernel's own
			continue
		}
		var start, end int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if !strings.HasPrefix(mode, "r") {
			continue
		}
		data := make([]byte, end-start)
		n, _ := mem.ReadAt(data, start) // a mapping may shrink meanwhile
		for name, needle := range needles {
			h, count := found[name], bytes.Count(data[:n], needle)
			if ofGo(start, lines.Text()) {
				h.inGo += count
			} else {
				h.elsewhere += count
			}
			found[name] = h
		}
	}
	return found
}

// ofGo reports whether a mapping belongs to the Go runtime: the program's variables, its heap
// and its stacks. The runtime places its heap, at random, below what the kernel maps for C
// libraries and their threads; C's own heap has a name. What else the runtime maps it labels
// where the kernel can.
func ofGo(start int64, line string) bool {
	named := len(strings.Fields(line)) > 5
	return !named && start < 0x7000_0000_0000 || strings.Contains(line, "[anon: Go") || strings.HasSuffix(line, "/keyferryd")
}

// keyBytes reads a key out of a copy of a Region's token, as whoever has SoftHSM's files
// and the PIN can: in the copy, the flags that protect it are flipped.
func keyBytes(t *testing.T, region, keyID string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "tokens"), os.DirFS(shared.in(region, "softhsm", "tokens"))); err != nil {
		t.Fatal(err)
	}
	const sensitive, extractable = 0x103, 0x162
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".object") {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		setBool(data, sensitive, 0)
		setBool(data, extractable, 1)
		return os.WriteFile(name, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+filepath.Join(dir, "tokens")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	pin, err := os.ReadFile(shared.in(region, "softhsm", region+".pin"))
	if err != nil {
		t.Fatal(err)
	}
	return readValue(t, region, string(bytes.TrimSpace(pin)), keyID)
}

// setBool sets a boolean attribute in an object file: type and kind as eight bytes each,
// big-endian, then one byte.
func setBool(data []byte, attribute uint64, value byte) {
	pattern := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, attribute), 1)
	if i := bytes.Index(data, pattern); i >= 0 {
		data[i+len(pattern)] = value
	}
}

func readValue(t *testing.T, label, pin, keyID string) []byte {
	t.Helper()
	p := pkcs11.New(module(t))
	if p == nil {
		t.Fatal("the module cannot be loaded")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(p.Initialize())
	defer p.Finalize()
	slots, err := p.GetSlotList(true)
	must(err)
	for _, slot := range slots {
		if info, err := p.GetTokenInfo(slot); err != nil || info.Label != label {
			continue
		}
		s, err := p.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
		must(err)
		must(p.Login(s, pkcs11.CKU_USER, pin))
		must(p.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY)}))
		objects, _, err := p.FindObjects(s, 1000)
		must(err)
		must(p.FindObjectsFinal(s))
		for _, o := range objects {
			a, err := p.GetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
			must(err)
			if !bytes.Contains(a[0].Value, []byte(keyID)) {
				continue
			}
			a, err = p.GetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
			must(err)
			if len(a[0].Value) != 32 {
				t.Fatalf("the key has %d bytes", len(a[0].Value))
			}
			return a[0].Value
		}
	}
	t.Fatalf("no object of token %s has %s in its label", label, keyID)
	return nil
}

// module is the library that the deployment uses.
func module(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(shared.in(paris, "keyferryd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "module: "); ok {
			return path
		}
	}
	t.Fatal("the configuration names no module")
	return ""
}
