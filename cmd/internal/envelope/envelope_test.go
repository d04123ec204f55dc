package envelope_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"

	"github.com/keyferry/keyferry/cmd/internal/envelope"
)

const keyARN = "arn:aws:kms:eu-paris-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef"

// vault is a Region that keeps file keys instead of encrypting them.
type vault map[string][]byte

var errRefused = errors.New("refused by the Region")

func (v vault) wrap(fileKey []byte) (string, []byte, error) {
	blob := make([]byte, 200)
	rand.Read(blob)
	v[string(blob)] = bytes.Clone(fileKey)
	return keyARN, blob, nil
}

func (v vault) unwrap(blob []byte) (string, []byte, error) {
	if k, ok := v[string(blob)]; ok {
		return keyARN, bytes.Clone(k), nil
	}
	return "", nil, errRefused
}

func (v vault) seal(t *testing.T, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := envelope.Seal(&b, bytes.NewReader(plain), v.wrap); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const chunk = 64 << 10

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestSealAndOpen(t *testing.T) {
	v := vault{}
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 17} {
		plain := random(size)
		sealed := v.seal(t, plain)
		if size >= 16 && bytes.Contains(sealed, plain[:16]) {
			t.Error("the plaintext is in the envelope")
		}
		for name, src := range map[string]io.Reader{"whole": bytes.NewReader(sealed), "byte by byte": iotest.OneByteReader(bytes.NewReader(sealed))} {
			var out bytes.Buffer
			key, err := envelope.Open(&out, src, v.unwrap)
			if err != nil || key != keyARN || !bytes.Equal(out.Bytes(), plain) {
				t.Errorf("%d bytes %s: key %q, %v, %d bytes back", size, name, key, err, out.Len())
			}
		}
	}
}

// TestChanged changes an envelope in every way that an attacker has, and demands that what
// is written before the refusal is a true beginning of the plaintext.
func TestChanged(t *testing.T) {
	v := vault{}
	plain := random(3*chunk + 1000)
	sealed := v.seal(t, plain)
	other := v.seal(t, plain)
	head := bytes.Index(sealed, []byte("\n---")) + 1
	body := head + bytes.IndexByte(sealed[head:], '\n') + 1 + 16 // after the nonce
	at := func(n int) int { return body + n*(chunk+16) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	flip := func(i int) []byte {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		return b
	}
	cases := map[string][]byte{
		"empty": nil, "not age": []byte("plain words\n"), "nothing after the header": sealed[:body-16],
		"no chunk": sealed[:body], "cut at a chunk": sealed[:at(1)], "cut at the last chunk": sealed[:at(3)], "cut within one": sealed[:at(1)+100], "one byte short": sealed[:len(sealed)-1],
		"swapped chunks":  join(sealed[:at(0)], sealed[at(1):at(2)], sealed[at(0):at(1)], sealed[at(2):]),
		"repeated chunk":  join(sealed[:at(1)], sealed[at(0):]),
		"missing chunk":   join(sealed[:at(1)], sealed[at(2):]),
		"bytes after":     join(sealed, []byte{0}),
		"another's body":  join(sealed[:body], other[body:]),
		"another's nonce": join(sealed[:body-16], other[body-16:body], sealed[body:]),
		"another's header": join(other[:bytes.Index(other, []byte("\n---"))+1],
			sealed[head:]),
		"two in a row":      join(sealed, other),
		"changed nonce":     flip(body - 1),
		"changed chunk":     flip(at(1) + 5),
		"changed last byte": flip(len(sealed) - 1),
		"changed ARN":       bytes.Replace(sealed, []byte("eu-paris-1"), []byte("us-paris-1"), 1),
		"changed version":   bytes.Replace(sealed, []byte("age-encryption.org/v1"), []byte("age-encryption.org/v2"), 1),
		"changed MAC":       flip(head + 10),
		"stanza twice":      join(sealed[:bytes.Index(sealed, []byte("->"))], sealed[bytes.Index(sealed, []byte("->")):head], sealed[bytes.Index(sealed, []byte("->")):]),
		"stanza of another": bytes.Replace(sealed, []byte("-> "+envelope.Type), []byte("-> another/v1"), 1),
		"more arguments":    bytes.Replace(sealed, []byte("-> "+envelope.Type), []byte("-> "+envelope.Type+" x"), 1),
		"endless header":    []byte("age-encryption.org/v1\n-> " + strings.Repeat("x", 1<<20)),
		"endless stanzas":   []byte("age-encryption.org/v1\n" + strings.Repeat("-> x y\n\n", 1<<17)),
	}
	for name, b := range cases {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(b, sealed) {
				t.Fatal("nothing is changed")
			}
			var out bytes.Buffer
			key, err := envelope.Open(&out, bytes.NewReader(b), v.unwrap)
			if !errors.Is(err, envelope.ErrInvalid) || key != "" {
				t.Errorf("key %q, %v; want ErrInvalid", key, err)
			}
			if !bytes.HasPrefix(plain, out.Bytes()) || out.Len() == len(plain) && name != "bytes after" && name != "two in a row" {
				t.Errorf("%d bytes were written, not a beginning of the plaintext", out.Len())
			}
		})
	}
	t.Run("every byte of the header", func(t *testing.T) {
		for i := range body {
			if err := open(flip(i), v.unwrap); err == nil {
				t.Errorf("byte %d can be changed", i)
			}
		}
	})
}

func open(sealed []byte, unwrap envelope.Unwrap) error {
	_, err := envelope.Open(io.Discard, bytes.NewReader(sealed), unwrap)
	return err
}

// TestErrors tells a file that does not hold from a Region, a disk or a pipe that fails.
func TestErrors(t *testing.T) {
	v := vault{}
	sealed := v.seal(t, random(2*chunk))
	broken := errors.New("broken")
	cut := func(n int64) io.Reader {
		return io.MultiReader(io.LimitReader(bytes.NewReader(sealed), n), iotest.ErrReader(broken))
	}
	t.Run("refused", func(t *testing.T) {
		if err := open(sealed, vault{}.unwrap); !errors.Is(err, errRefused) || errors.Is(err, envelope.ErrInvalid) {
			t.Error(err)
		}
		if err := envelope.Seal(io.Discard, strings.NewReader("x"), func([]byte) (string, []byte, error) { return "", nil, errRefused }); err != errRefused {
			t.Error(err)
		}
	})
	for _, n := range []int64{0, 50, chunk, int64(len(sealed)) - 1} {
		if _, err := envelope.Open(io.Discard, cut(n), v.unwrap); !errors.Is(err, broken) || errors.Is(err, envelope.ErrInvalid) {
			t.Errorf("source broken after %d bytes: %v", n, err)
		}
	}
	full := writer{broken}
	if _, err := envelope.Open(full, bytes.NewReader(sealed), v.unwrap); !errors.Is(err, broken) || errors.Is(err, envelope.ErrInvalid) {
		t.Errorf("full destination: %v", err)
	}
	if err := envelope.Seal(full, strings.NewReader("x"), v.wrap); !errors.Is(err, broken) {
		t.Errorf("full destination: %v", err)
	}
	if err := envelope.Seal(io.Discard, iotest.ErrReader(broken), v.wrap); !errors.Is(err, broken) {
		t.Errorf("broken source: %v", err)
	}
	for _, n := range []int{0, 15, 17, 32} {
		err := open(sealed, func([]byte) (string, []byte, error) { return keyARN, make([]byte, n), nil })
		if !errors.Is(err, envelope.ErrInvalid) {
			t.Errorf("file key of %d bytes: %v", n, err)
		}
	}
}

type writer struct{ err error }

func (w writer) Write([]byte) (int, error) { return 0, w.err }

// TestAge opens with age what we sealed, and the other way round, in one file with a second
// recipient of age's own.
func TestAge(t *testing.T) {
	v := vault{}
	plain := random(chunk + 5)
	r, err := age.Decrypt(bytes.NewReader(v.seal(t, plain)), envelope.NewIdentity(v.unwrap))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("age reads %d bytes, %v", len(got), err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var both bytes.Buffer
	w, err := age.Encrypt(&both, id.Recipient(), envelope.NewRecipient(v.wrap))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := envelope.Open(&out, bytes.NewReader(both.Bytes()), v.unwrap); err != nil || !bytes.Equal(out.Bytes(), plain) {
		t.Errorf("we read %d bytes of age's, %v", out.Len(), err)
	}
	r, err = age.Decrypt(bytes.NewReader(both.Bytes()), id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("age reads %d bytes of its own, %v", len(got), err)
	}
}

// TestMemory seals and opens 100 MB through a pipe, and watches the heap.
func TestMemory(t *testing.T) {
	const size, most = 100 << 20, 24 << 20
	v := vault{}
	in, want := &zeros{left: size}, sha256.New()
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(envelope.Seal(pw, io.TeeReader(in, want), v.wrap)) }()
	runtime.GC()
	got := &watched{Hash: sha256.New()}
	if _, err := envelope.Open(got, pr, v.unwrap); err != nil {
		t.Fatal(err)
	}
	if got.n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes came back, or others", got.n)
	}
	if got.heap > most {
		t.Errorf("the heap grew to %d bytes, want at most %d", got.heap, most)
	}
}

type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	clear(p[:n])
	z.left -= n
	return n, nil
}

type watched struct {
	hash.Hash
	n    int
	heap uint64
}

func (w *watched) Write(p []byte) (int, error) {
	if w.n>>20 != (w.n+len(p))>>20 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.heap = max(w.heap, m.HeapAlloc)
	}
	w.n += len(p)
	return w.Hash.Write(p)
}
