// Package envelope encrypts files of any size under a key that never leaves its token.
//
// A file is in the age format (age-encryption.org/v1), written and read by age's own
// library: a header, and chunks of 64 KiB that are each authenticated, numbered and, for the
// last one, marked as last. The header holds the file's key in a stanza of ours, encrypted
// by a Region. Nothing here trusts a file; memory does not grow with it.
package envelope

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Type is the first word of the stanza that holds a file's key. Its one argument is the ARN
// of the key that encrypted the body, in the Region that did.
const Type = "keyferry/v1"

// ErrInvalid means that a file is not what Seal wrote: changed, cut short, put together from
// parts, or something else altogether.
var ErrInvalid = errors.New("the envelope does not hold")

// maxHeader bounds what is read of a file before anything of it is authenticated (bytes).
const maxHeader = 64 << 10

// fileKeySize is that of age (bytes).
const fileKeySize = 16

// Wrap encrypts a file's key, and says by the ARN of which key it did.
type Wrap func(fileKey []byte) (key string, blob []byte, err error)

// Unwrap decrypts a file's key, and says which key it was encrypted under.
type Unwrap func(blob []byte) (key string, fileKey []byte, err error)

// Seal encrypts src into dst. What it has written when it fails opens nowhere.
func Seal(dst io.Writer, src io.Reader, wrap Wrap) error {
	r := &recipient{wrap: wrap}
	w, err := age.Encrypt(dst, r)
	if r.err != nil {
		return r.err
	}
	if err != nil {
		return fmt.Errorf("writing the header: %w", err)
	}
	if _, err := io.Copy(w, src); err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("writing the last chunk: %w", err)
	}
	return nil
}

// Open decrypts src into dst and returns the ARN of the key that it was sealed under. Each
// chunk is written once it is authenticated, so what dst has when Open fails is the
// beginning of what was sealed, and not known to be more.
func Open(dst io.Writer, src io.Reader, unwrap Unwrap) (key string, err error) {
	in := &source{r: src, header: maxHeader, bounded: true}
	id := &identity{unwrap: unwrap}
	r, err := age.Decrypt(in, id)
	switch {
	case id.err != nil:
		return "", id.err
	case in.err != nil:
		return "", fmt.Errorf("reading the envelope: %w", in.err)
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	in.bounded = false
	out := &sink{w: dst}
	_, err = io.Copy(out, r)
	switch {
	case out.err != nil:
		return "", fmt.Errorf("writing what was sealed: %w", out.err)
	case in.err != nil:
		return "", fmt.Errorf("reading the envelope: %w", in.err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "", fmt.Errorf("%w: it is cut short", ErrInvalid)
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return id.key, nil
}

// source keeps a failure to read apart from a file that does not hold, and bounds the header.
type source struct {
	r       io.Reader
	header  int
	bounded bool
	err     error
}

func (s *source) Read(p []byte) (int, error) {
	if s.bounded {
		if s.header == 0 {
			return 0, fmt.Errorf("the header is longer than %d bytes", maxHeader)
		}
		p = p[:min(len(p), s.header)]
	}
	n, err := s.r.Read(p)
	if s.bounded {
		s.header -= n
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}
