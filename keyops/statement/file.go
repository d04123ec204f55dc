package statement

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyferry/keyferry/keyops/wire"
)

// MaxFile bounds what is read of a statement file: base64 adds a third to the payload.
const MaxFile = 2 << 20

// PartSuffix ends the name of a file that is being written. One that a crash left behind
// was never read by anybody.
const PartSuffix = ".part"

// File is the JSON form of a statement, for files that people carry. Key is the
// fingerprint of the signing key's SPKI; it selects a key among known ones and is
// believed in nothing else.
type File struct {
	Type      string `json:"type"`
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
	Key       string `json:"key"`
}

// NewFile returns the file form of a statement that pub signed.
func NewFile(s Signed, pub crypto.PublicKey) (File, error) {
	fp, err := KeyFingerprint(pub)
	if err != nil {
		return File{}, err
	}
	return File{Type: string(s.Purpose), Payload: s.Payload, Signature: s.Signature, Key: fp}, nil
}

// Signed returns the statement, if it is of purpose want.
func (f File) Signed(want Purpose) (Signed, error) {
	s, err := Parse(Signed{Purpose: Purpose(f.Type), Payload: f.Payload, Signature: f.Signature}.Marshal())
	if err != nil {
		return Signed{}, err
	}
	if s.Purpose != want {
		return Signed{}, fmt.Errorf("statement of type %q, want %q", s.Purpose, want)
	}
	return s, nil
}

// Bounds of a file that is decoded, beside those of a statement.
const (
	maxFileKey     = 128
	maxFilePayload = 512 << 10 // a request of as many and as long details as it can have
)

// Encode writes the file in the form in which it is stored and sent.
func (f File) Encode(w *wire.Writer) {
	w.String(f.Type)
	w.Bytes(f.Payload)
	w.Bytes(f.Signature)
	w.String(f.Key)
}

// DecodeFile reads what Encode wrote of an approval. It verifies nothing.
func DecodeFile(r *wire.Reader) File {
	return File{Type: r.String(MaxPurpose), Payload: r.Bytes(maxFilePayload), Signature: r.Bytes(MaxSignature), Key: r.String(maxFileKey)}
}

// ReadJSON reads the file at path into v, which must have been written by WriteJSON: the
// bytes must be the one encoding of their value, so that no field can be unknown, repeated
// or hidden.
func ReadJSON(path string, v any) error {
	b, err := readBounded(path)
	if err != nil {
		return err
	}
	if err := UnmarshalJSON(b, v); err != nil {
		return fmt.Errorf("parsing %s: %w", path, err)
	}
	return nil
}

// UnmarshalJSON is ReadJSON for bytes.
func UnmarshalJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	again, err := MarshalJSON(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, again) {
		return errors.New("not in the form in which it was written (repeated fields, another order or other space)")
	}
	return nil
}

// MarshalJSON returns the one file encoding of v.
func MarshalJSON(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// WriteJSON writes v to a new file and makes it durable. A file that exists is an error:
// what a ceremony wrote is evidence. The content appears under its name whole or not at
// all, because others wait for it.
func WriteJSON(path string, v any) error {
	b, err := MarshalJSON(v)
	if err != nil {
		return err
	}
	return WriteNew(path, b, 0o644)
}

// WriteNew writes b to a file that must not exist, whole or not at all, and makes it durable.
func WriteNew(path string, b []byte, mode os.FileMode) error {
	return write(path, b, mode, os.Link) // unlike rename, link never replaces
}

// Replace writes b in the place of what a file held, whole or not at all, and makes it durable.
func Replace(path string, b []byte, mode os.FileMode) error {
	return write(path, b, mode, os.Rename)
}

func write(path string, b []byte, mode os.FileMode, put func(part, path string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+PartSuffix)
	if err != nil {
		return err
	}
	part := f.Name()
	defer func() {
		if left := os.Remove(part); !errors.Is(left, fs.ErrNotExist) {
			err = errors.Join(err, left)
		}
	}()
	if err = f.Chmod(mode); err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := put(part, path); err != nil {
		return err
	}
	return syncDir(path)
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > MaxFile {
		return nil, fmt.Errorf("%s: want a regular file of at most %d bytes", path, MaxFile)
	}
	return io.ReadAll(io.LimitReader(f, MaxFile))
}

// KeyFingerprint returns the fingerprint of a public key's SPKI.
func KeyFingerprint(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encoding public key: %w", err)
	}
	return Fingerprint(der), nil
}
