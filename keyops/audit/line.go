package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

const (
	lineVersion = 1
	// maxLine bounds a line: each byte of a record takes at most six when it is escaped.
	maxLine    = 6*maxRecord + 4096
	timeFormat = "2006-01-02T15:04:05.000000000Z"
)

type hash = [sha256.Size]byte

// hexHash is a hash in JSON.
type hexHash hash

// MarshalText implements encoding.TextMarshaler.
func (h hexHash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *hexHash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("hash of %d digits, want %d", len(text), 2*len(h))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// line is one line of the log. The order of its fields is the order in the file.
type line struct {
	V                 int               `json:"v"`
	Seq               uint64            `json:"seq"`
	Prev              hexHash           `json:"prev"`
	Time              string            `json:"time"`
	Type              Type              `json:"type"`
	Event             string            `json:"event,omitempty"`
	Region            string            `json:"region"`
	Instance          string            `json:"instance"`
	Principal         string            `json:"principal,omitempty"`
	Account           string            `json:"account,omitempty"`
	SourceAddress     string            `json:"sourceAddress,omitempty"`
	Resources         []Resource        `json:"resources,omitempty"`
	Outcome           Outcome           `json:"outcome,omitempty"`
	Error             string            `json:"error,omitempty"`
	ReadOnly          bool              `json:"readOnly,omitempty"`
	RequestID         string            `json:"requestId,omitempty"`
	CorrelationID     string            `json:"correlationId,omitempty"`
	EncryptionContext map[string]string `json:"encryptionContext,omitempty"`
	Details           map[string]string `json:"details,omitempty"`
	Checkpoint        *checkpointField  `json:"checkpoint,omitempty"`
}

// checkpointField is what a line of type Checkpoint has besides; with the line's region,
// instance and time it is a Checkpoint and its signature.
type checkpointField struct {
	Number       uint64  `json:"number"`
	Seq          uint64  `json:"seq"`
	Hash         hexHash `json:"hash"`
	StoreVersion uint64  `json:"storeVersion"`
	StoreHash    hexHash `json:"storeHash"`
	Signature    []byte  `json:"signature"`
}

// recordLine fills in what a record says; the caller adds its place in the chain.
func recordLine(r *Record) line {
	return line{
		V:                 lineVersion,
		Time:              r.Time.UTC().Format(timeFormat),
		Type:              r.Type,
		Event:             valid(r.Event),
		Principal:         valid(r.Principal),
		Account:           valid(r.Account),
		SourceAddress:     valid(r.SourceAddress),
		Resources:         validResources(r.Resources),
		Outcome:           r.Outcome,
		Error:             valid(r.Error),
		ReadOnly:          r.ReadOnly,
		RequestID:         valid(r.RequestID),
		CorrelationID:     valid(r.CorrelationID),
		EncryptionContext: validMap(r.EncryptionContext),
		Details:           validMap(r.Details),
	}
}

// encoder turns lines into bytes. It is used by one goroutine.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
}

func newEncoder() *encoder {
	e := &encoder{}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}

// encode returns the line and its line break, valid until the next call.
func (e *encoder) encode(l *line) ([]byte, error) {
	e.buf.Reset()
	if err := e.json.Encode(l); err != nil {
		return nil, err
	}
	return escape(e.buf.Bytes()), nil
}

// unsafeRunes are characters that JSON leaves as they are and that terminals obey: DEL and
// the C1 controls, and those that change the direction of text. A log that is shown must
// read as it was written. (JSON itself escapes the C0 controls.)
func unsafeRune(r rune) bool {
	return r >= 0x7f && r <= 0x9f || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func escape(b []byte) []byte {
	// Nearly every line is ASCII.
	if slices.IndexFunc(b, func(c byte) bool { return c >= 0x7f }) < 0 || bytes.IndexFunc(b, unsafeRune) < 0 {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		if unsafeRune(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
			continue
		}
		out = append(out, string(r)...)
	}
	return out
}

var errForm = errors.New("not in the form in which lines are written")

// parseLine reads one line without its line break. It accepts only the bytes that encode
// would write, so that every byte of a line means something.
func (e *encoder) parseLine(b []byte) (line, error) {
	var l line
	if err := json.Unmarshal(b, &l); err != nil { // unknown fields are lost here, and missed below
		return line{}, fmt.Errorf("%w: %v", errForm, err)
	}
	if l.V != lineVersion {
		return line{}, fmt.Errorf("line of version %d, this program reads %d", l.V, lineVersion)
	}
	canonical := l
	if c, ok := l.checkpoint(); ok { // nothing may be beside what is signed
		canonical = c.line()
		canonical.Seq, canonical.Prev = l.Seq, l.Prev
	}
	again, err := e.encode(&canonical)
	if err != nil || !bytes.Equal(again[:len(again)-1], b) {
		return line{}, errForm
	}
	if t, err := time.Parse(timeFormat, l.Time); err != nil || t.Format(timeFormat) != l.Time {
		return line{}, fmt.Errorf("%w: time %.40q", errForm, l.Time)
	}
	if (l.Type == checkpointType) != (l.Checkpoint != nil) {
		return line{}, fmt.Errorf("%w: type %.40q", errForm, l.Type)
	}
	return l, nil
}

// follows says what is wrong with the line's place after the one with this sequence number
// and hash, or nothing.
func (l *line) follows(seq uint64, prev hash) error {
	if l.Seq != seq+1 {
		return fmt.Errorf("sequence number %d, want %d", l.Seq, seq+1)
	}
	if hash(l.Prev) != prev {
		return errors.New("the line before is not the one that was there when this one was written")
	}
	return nil
}

// lineReader reads lines up to maxLine.
type lineReader struct {
	r   io.Reader
	buf []byte
	pos int
	eof bool
}

// next returns the next line without its break. whole is false for bytes after the last
// break. At the end the error is io.EOF.
func (lr *lineReader) next() (b []byte, whole bool, err error) {
	for {
		if i := bytes.IndexByte(lr.buf[lr.pos:], '\n'); i >= 0 {
			b = lr.buf[lr.pos : lr.pos+i]
			lr.pos += i + 1
			return b, true, nil
		}
		if lr.eof {
			b = lr.buf[lr.pos:]
			lr.pos = len(lr.buf)
			if len(b) == 0 {
				return nil, false, io.EOF
			}
			return b, false, nil
		}
		if len(lr.buf)-lr.pos > maxLine {
			return nil, false, fmt.Errorf("%w: longer than %d bytes", errForm, maxLine)
		}
		// What was returned before is not needed any more.
		rest := append(make([]byte, 0, len(lr.buf)-lr.pos+64<<10), lr.buf[lr.pos:]...)
		n, err := lr.r.Read(rest[len(rest):cap(rest)])
		lr.buf, lr.pos = rest[:len(rest)+n], 0
		if errors.Is(err, io.EOF) {
			lr.eof = true
		} else if err != nil {
			return nil, false, err
		}
	}
}
