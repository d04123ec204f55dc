package approval

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Limits of a request.
const (
	MaxLife    = 7 * 24 * time.Hour // how far ahead a request may expire
	maxDetails = 256
	maxName    = 64
	maxText    = 1024
)

// Request is what operators approve. Its words are all there is to it: the target computes
// the same request from what it is about to do, and nothing but equal bytes counts. So what
// an operator reads is what an operator signs.
type Request struct {
	Operation Operation `json:"operation"`
	// Region and Instance carry the operation out. Their operators approve it.
	Region   string `json:"region"`
	Instance string `json:"instance"`
	// Roster is the version of the roster whose operators approve.
	Roster uint64 `json:"roster"`
	// Epoch is the number of this request in Series, where order matters; else 0 and "". An
	// operator gives a number of a series to one Target, and after it no lower one to another.
	Series string `json:"series"`
	Epoch  uint64 `json:"epoch"`
	Target string `json:"target"`
	// Serial makes two requests for the same different, so that each can be carried out once.
	Serial string `json:"serial"`
	// Expires is checked by the target at the time of use, and by nobody later.
	Expires time.Time `json:"expires"`
	// Object is what exactly the operation acts on.
	Object []Detail `json:"object"`
}

// Detail is one line of what is approved.
type Detail struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// NewSerial makes a serial number that no other request has.
func NewSerial() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var serialPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Validate reports the first field that is wrong.
func (q Request) Validate() error {
	switch {
	case !q.Operation.Known():
		return fmt.Errorf("request for %.64q: this version knows no such operation", q.Operation)
	case !serialPattern.MatchString(q.Serial):
		return fmt.Errorf("request with serial %.64q: want 32 hexadecimal digits", q.Serial)
	case (q.Series == "") != (q.Epoch == 0 && q.Target == ""):
		return fmt.Errorf("request with series %.64q, epoch %d, target %.64q: want all or none", q.Series, q.Epoch, q.Target)
	case q.Expires.Nanosecond() != 0 || q.Expires.Location() != time.UTC || q.Expires.Unix() < 0 || q.Expires.Unix() > 1<<40:
		return fmt.Errorf("request with expiry %s: want whole seconds in UTC", q.Expires)
	case len(q.Object) < 1 || len(q.Object) > maxDetails:
		return fmt.Errorf("request with %d details, want 1 to %d", len(q.Object), maxDetails)
	}
	for _, f := range []struct {
		text  string
		least int
	}{{q.Region, 1}, {q.Instance, 1}, {q.Series, 0}, {q.Target, 0}} {
		if err := readable(f.text, f.least, maxName*2); err != nil {
			return fmt.Errorf("request with a %w", err)
		}
	}
	for _, d := range q.Object {
		if err := readable(d.Name, 1, maxName); err != nil {
			return fmt.Errorf("request with a %w", err)
		}
		if err := readable(d.Text, 1, maxText); err != nil {
			return fmt.Errorf("request with a %w", err)
		}
	}
	return nil
}

// readable refuses text that could show an operator something else than it says: terminal
// sequences, line breaks, marks that turn the direction of writing.
func readable(s string, least, most int) error {
	if len(s) < least || len(s) > most {
		return fmt.Errorf("text of %d bytes, want %d to %d", len(s), least, most)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("text %.80q, which cannot be shown as it is", s)
	}
	return nil
}

// ID names the request.
func (q Request) ID() string {
	h := sha256.Sum256(q.payload())
	return hex.EncodeToString(h[:])
}

// Fingerprint is what operators compare with each other before they approve.
func (q Request) Fingerprint() string { return statement.Fingerprint(q.payload()) }

const requestForm = 1

func (q Request) payload() []byte {
	var w wire.Writer
	w.Uint(requestForm)
	w.String(string(q.Operation))
	w.String(q.Region)
	w.String(q.Instance)
	w.Uint(q.Roster)
	w.String(q.Series)
	w.Uint(q.Epoch)
	w.String(q.Target)
	w.String(q.Serial)
	w.Uint(uint64(q.Expires.Unix()))
	w.Count(len(q.Object))
	for _, d := range q.Object {
		w.String(d.Name)
		w.String(d.Text)
	}
	return w.Out()
}

func parseRequest(b []byte) (Request, error) {
	r := wire.NewReader(b)
	if v := r.Uint(); v != requestForm {
		r.Fail("request of form %d", v)
	}
	q := Request{
		Operation: Operation(r.String(64)), Region: r.String(2 * maxName), Instance: r.String(2 * maxName), Roster: r.Uint(),
		Series: r.String(2 * maxName), Epoch: r.Uint(), Target: r.String(2 * maxName), Serial: r.String(32),
	}
	sec := r.Uint()
	if sec > 1<<40 {
		r.Fail("expiry %d is beyond any calendar", sec)
		sec = 0
	}
	q.Expires = time.Unix(int64(sec), 0).UTC()
	for range r.Count(maxDetails) {
		q.Object = append(q.Object, Detail{Name: r.String(maxName), Text: r.String(maxText)})
	}
	err := r.Done()
	if err == nil {
		err = q.Validate()
	}
	if err != nil {
		return Request{}, fmt.Errorf("parsing request: %w", err)
	}
	return q, nil
}

// same compares requests by what is signed of them.
func (q Request) same(o Request) bool { return bytes.Equal(q.payload(), o.payload()) }
