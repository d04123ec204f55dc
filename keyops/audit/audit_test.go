package audit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/statement"
)

const (
	testRegion   = "eu-paris-1"
	testInstance = "kfi-0123456789ab"
)

// testKey is on P-256, because TestEveryByteCounts verifies it some ten thousand times.
var testKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
})

func keys() []crypto.PublicKey { return []crypto.PublicKey{testKey().Public()} }

// fixture is one log directory. Checkpoints come when the test asks.
type fixture struct {
	*testing.T
	cfg  Config
	head StoreHead
}

func newFixture(t *testing.T) *fixture {
	return &fixture{T: t, cfg: Config{
		Dir: filepath.Join(t.TempDir(), "audit"), Region: testRegion, Instance: testInstance,
		Signer: statement.HostKey(testKey()), Keys: keys(), Flush: time.Hour, CheckpointEvery: time.Hour,
	}}
}

func (f *fixture) open() *Log {
	f.Helper()
	l, err := Open(context.Background(), f.cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	return l
}

// cover allows checkpoints, and makes none.
func (f *fixture) cover(l *Log) {
	l.store.Store(new(func() StoreHead { return f.head }))
}

func (f *fixture) close(l *Log) {
	f.Helper()
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) append(l *Log, events ...string) {
	f.Helper()
	for _, e := range events {
		if err := l.Append(context.Background(), record(e)); err != nil {
			f.Fatal(err)
		}
	}
}

func (f *fixture) checkpoint(l *Log) SignedCheckpoint {
	f.Helper()
	c, err := l.Checkpoint(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	return c
}

func (f *fixture) path() string { return filepath.Join(f.cfg.Dir, fileName(1)) }

func (f *fixture) read() []byte {
	f.Helper()
	b, err := os.ReadFile(f.path())
	if err != nil {
		f.Fatal(err)
	}
	return b
}

func (f *fixture) verify() Report {
	f.Helper()
	r, err := Verify(os.DirFS(f.cfg.Dir), keys())
	if err != nil {
		f.Fatal(err)
	}
	return r
}

// lines parses every line of the log.
func (f *fixture) lines() (lines []line) {
	f.Helper()
	for text := range bytes.Lines(f.read()) {
		l, err := newEncoder().parseLine(bytes.TrimSuffix(text, []byte("\n")))
		if err != nil {
			f.Fatalf("line %q: %v", text, err)
		}
		lines = append(lines, l)
	}
	return lines
}

func events(lines []line) (names []string) {
	for _, l := range lines {
		name := l.Event
		if l.Checkpoint != nil {
			name = fmt.Sprintf("checkpoint %d of %d", l.Checkpoint.Number, l.Checkpoint.Seq)
		}
		names = append(names, name)
	}
	return names
}

func (f *fixture) wantEvents(want ...string) {
	f.Helper()
	if diff := cmp.Diff(want, events(f.lines())); diff != "" {
		f.Errorf("events (-want +got):\n%s", diff)
	}
}

// small is a record of few fields, for logs that are checked byte by byte.
func (f *fixture) small(l *Log, events ...string) {
	f.Helper()
	for _, e := range events {
		if err := l.Append(context.Background(), Record{Type: ServiceEvent, Event: e, Outcome: Success}); err != nil {
			f.Fatal(err)
		}
	}
}

func record(event string) Record {
	return Record{
		Time: time.Unix(1_800_000_000, 123), Type: APICall, Event: event,
		Principal: "arn:aws:iam::111122223333:user/ana", Account: "111122223333", SourceAddress: "192.0.2.7:50112",
		Resources: []Resource{{ARN: "arn:aws:kms:eu-paris-1:111122223333:key/mrk-00", KeyID: "mrk-00"}},
		Outcome:   Success, ReadOnly: true, RequestID: "req-1", CorrelationID: "cor-1",
		EncryptionContext: map[string]string{"b": "2", "a": "1"}, Details: map[string]string{"materialId": "00ff"},
	}
}

func TestFields(t *testing.T) {
	f := newFixture(t)
	f.cfg.Now = func() time.Time { return time.Unix(1_800_000_001, 0) }
	l := f.open()
	f.append(l, "Encrypt")
	if err := l.Append(context.Background(), Record{Type: ServiceEvent, Event: "RotateKey", Outcome: Error, Error: "PEER_UNREACHABLE"}); err != nil {
		t.Fatal(err)
	}
	f.close(l)
	got := strings.Split(string(f.read()), "\n")
	prev := got[1][strings.Index(got[1], `"prev":"`)+8:][:64]
	want := `{"v":1,"seq":2,"prev":"` + prev + `","time":"2027-01-15T08:00:00.000000123Z","type":"ApiCall","event":"Encrypt",` +
		`"region":"eu-paris-1","instance":"kfi-0123456789ab","principal":"arn:aws:iam::111122223333:user/ana","account":"111122223333",` +
		`"sourceAddress":"192.0.2.7:50112","resources":[{"arn":"arn:aws:kms:eu-paris-1:111122223333:key/mrk-00","keyId":"mrk-00"}],` +
		`"outcome":"Success","readOnly":true,"requestId":"req-1","correlationId":"cor-1","encryptionContext":{"a":"1","b":"2"},"details":{"materialId":"00ff"}}`
	if diff := cmp.Diff(want, got[1]); diff != "" {
		t.Errorf("full record (-want +got):\n%s", diff)
	}
	if want := `"time":"2027-01-15T08:00:01.000000000Z","type":"ServiceEvent","event":"RotateKey","region":"eu-paris-1","instance":"kfi-0123456789ab","outcome":"Error","error":"PEER_UNREACHABLE"}`; !strings.HasSuffix(got[2], want) {
		t.Errorf("short record: got %s, want it to end %s", got[2], want)
	}
	f.wantEvents(AuditStart, "Encrypt", "RotateKey", AuditStop)
	f.verify()
}

func TestInvalidRecords(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	for name, change := range map[string]func(*Record){
		"no event":              func(r *Record) { r.Event = "" },
		"no type":               func(r *Record) { r.Type = "" },
		"type of a checkpoint":  func(r *Record) { r.Type = checkpointType },
		"no outcome":            func(r *Record) { r.Outcome = "" },
		"unknown outcome":       func(r *Record) { r.Outcome = "Maybe" },
		"too large in a map":    func(r *Record) { r.Details["x"] = strings.Repeat("x", maxRecord) },
		"too large in resource": func(r *Record) { r.Resources = make([]Resource, maxRecord/32+1) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, give := range []func(context.Context, Record) error{l.Append, l.Queue} {
				r := record("Encrypt")
				change(&r)
				if err := give(context.Background(), r); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnavailable) {
					t.Errorf("got %v, want %v", err, ErrInvalid)
				}
			}
		})
	}
	f.append(l, "Encrypt")
	f.close(l)
	f.wantEvents(AuditStart, "Encrypt", AuditStop)
}

// TestHostileText shows that no text can end a line, hide in one, or move a terminal's
// cursor, and that what is no UTF-8 does not break the log.
func TestHostileText(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	hostile := "\x00\x1b[2J\r\n{\"v\":1}\x7f\u0085\u009b31m\u2028\u202e\u2066\"\\</script>\xff\xc3"
	r := record("Encrypt")
	r.Principal, r.SourceAddress, r.RequestID = hostile, hostile, hostile
	r.Resources = []Resource{{ARN: hostile, KeyID: hostile}}
	r.EncryptionContext = map[string]string{hostile: hostile, "\xff": "one", "\xfe": "two"}
	r.Details = map[string]string{hostile: hostile}
	if err := l.Append(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	big := record("Encrypt")
	big.Details = map[string]string{"x": strings.Repeat("\x01", maxRecord-1000)}
	if err := l.Append(context.Background(), big); err != nil {
		t.Fatal(err)
	}
	f.close(l)
	for i, b := range string(f.read()) {
		if b != '\n' && (b < 0x20 || unsafeRune(b)) {
			t.Fatalf("byte %d is %q", i, b)
		}
	}
	f.wantEvents(AuditStart, "Encrypt", "Encrypt", AuditStop)
	want := strings.ToValidUTF8(hostile, "\uFFFD")
	if got := f.lines()[1].Principal; got != want {
		t.Errorf("got principal %q, want %q", got, want)
	}
	f.verify()
}

func TestCheckpoints(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	f.append(l, "CreateKey")
	if c, err := l.Checkpoint(context.Background()); !errors.Is(err, errNoStore) {
		t.Fatalf("before there is a store: got %v, error %v, want %v", c, err, errNoStore)
	}
	if _, ok := l.Last(); ok {
		t.Fatal("there is a checkpoint already")
	}
	f.head = StoreHead{Version: 7, Hash: hash{1, 2, 3}}
	f.cover(l)
	first := f.checkpoint(l)
	if again := f.checkpoint(l); again.Number != first.Number {
		t.Errorf("with nothing new: got checkpoint %d, want %d again", again.Number, first.Number)
	}
	if err := l.Queue(context.Background(), record("Encrypt")); err != nil {
		t.Fatal(err)
	}
	second := f.checkpoint(l)
	if last, ok := l.Last(); !ok || last.Number != second.Number || second.Number != first.Number+1 {
		t.Errorf("got last checkpoint %d (%t), want %d, one after %d", last.Number, ok, second.Number, first.Number)
	}
	if err := second.Verify(testKey().Public()); err != nil {
		t.Error(err)
	}
	f.wantEvents(AuditStart, "CreateKey", "checkpoint 1 of 2", "Encrypt", "checkpoint 2 of 4")

	// As a peer takes it.
	s, err := statement.Parse(second.Statement.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(testKey().Public()); err != nil {
		t.Fatal(err)
	}
	got, err := ParseCheckpoint(s)
	if err != nil {
		t.Fatal(err)
	}
	want := Checkpoint{testRegion, testInstance, 2, got.Time, 4, got.Hash, f.head}
	if diff := cmp.Diff(want, got.Checkpoint); diff != "" {
		t.Errorf("checkpoint (-want +got):\n%s", diff)
	}
	s.Purpose = statement.Exchange
	if _, err := ParseCheckpoint(s); err == nil {
		t.Error("a statement of another purpose passed for a checkpoint")
	}

	f.close(l)
	f.wantEvents(AuditStart, "CreateKey", "checkpoint 1 of 2", "Encrypt", "checkpoint 2 of 4", AuditStop, "checkpoint 3 of 6")
	r := f.verify()
	want = Checkpoint{Number: 3, Seq: 6, Store: f.head}
	if r.Covered != 6 || r.Uncovered != 1 || r.Records != 4 || r.Checkpoints != 3 || r.Last.Number != want.Number || r.Last.Store != want.Store {
		t.Errorf("got report %+v", r)
	}
}

// TestCheckpointsByThemselves shows that they come after the interval, and earlier after
// so many records.
func TestCheckpointsByThemselves(t *testing.T) {
	for _, tc := range []struct {
		name    string
		every   time.Duration
		records int
	}{
		{"by time", time.Millisecond, 1 << 30},
		{"by records", time.Hour, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			f.cfg.CheckpointEvery, f.cfg.CheckpointRecords, f.cfg.Flush = tc.every, tc.records, time.Millisecond
			l := f.open()
			l.CoverStore(func() StoreHead { return f.head })
			deadline := time.Now().Add(time.Minute)
			for number := uint64(0); number < 3; {
				for range 11 {
					if err := l.Queue(context.Background(), record("Encrypt")); err != nil {
						t.Fatal(err)
					}
				}
				for number0 := number; number == number0; time.Sleep(time.Millisecond) {
					if c, ok := l.Last(); ok {
						number = c.Number
					}
					if time.Now().After(deadline) {
						t.Fatalf("no checkpoint after %d", number)
					}
				}
			}
			f.close(l)
			f.verify()
		})
	}
}

// TestSignerAway shows that records go on without the token, and are covered once it is back.
func TestSignerAway(t *testing.T) {
	f := newFixture(t)
	away := errors.New("token gone")
	var gone error = away
	good := f.cfg.Signer
	f.cfg.Signer = statement.SignerFunc(func(ctx context.Context, digest []byte) ([]byte, error) {
		if gone != nil {
			return nil, gone
		}
		return good.Sign(ctx, digest)
	})
	l := f.open()
	f.cover(l)
	f.append(l, "CreateKey")
	if _, err := l.Checkpoint(context.Background()); !errors.Is(err, away) {
		t.Fatalf("got %v, want %v", err, away)
	}
	f.append(l, "Encrypt")
	gone = nil
	f.cfg.Signer, good = good, statement.SignerFunc(func(context.Context, []byte) ([]byte, error) { return []byte("not a signature"), nil })
	if _, err := l.Checkpoint(context.Background()); !errors.Is(err, statement.ErrSignature) {
		t.Fatalf("with a token that signs with another key: got %v, want %v", err, statement.ErrSignature)
	}
	good = f.cfg.Signer
	if c := f.checkpoint(l); c.Number != 1 || c.Seq != 3 {
		t.Errorf("got checkpoint %d of %d, want 1 of 3", c.Number, c.Seq)
	}
	f.close(l)
	f.verify()
}

// TestGroupCommit shows that many waiters share an fsync, and that none is answered early.
func TestGroupCommit(t *testing.T) {
	f := newFixture(t)
	disk := &faultyFile{}
	l := f.start(disk)
	const workers, each = 50, 20
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range each {
				event := fmt.Sprintf("E%d-%d", w, i)
				if err := l.Append(context.Background(), record(event)); err != nil {
					t.Error(err)
				}
				if !bytes.Contains(disk.durable(), []byte(`"`+event+`"`)) {
					t.Errorf("%s was answered before it was on disk", event)
				}
			}
		})
	}
	group.Wait()
	if n := disk.count("sync"); n > workers*each/2 {
		t.Errorf("%d fsyncs for %d records", n, workers*each)
	}
	f.close(l)
	f.verifyBytes(disk.durable())
}

func TestFlushInterval(t *testing.T) {
	f := newFixture(t)
	disk := &faultyFile{}
	f.cfg.Flush = 30 * time.Millisecond
	l := f.start(disk)
	syncs := disk.count("sync")
	if err := l.Queue(context.Background(), record("Queued")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for !bytes.Contains(disk.durable(), []byte(`"Queued"`)) {
		if time.Now().After(deadline) {
			t.Fatal("a queued record did not reach the disk")
		}
		time.Sleep(time.Millisecond)
	}
	if n := disk.count("sync") - syncs; n != 1 {
		t.Errorf("%d fsyncs for one record", n)
	}

	f.cfg.Flush = 0
	disk = &faultyFile{}
	l = f.start(disk)
	if err := l.Queue(context.Background(), record("Queued")); err != nil || !bytes.Contains(disk.durable(), []byte(`"Queued"`)) {
		t.Errorf("with a flush interval of 0: error %v, on disk %s", err, disk.durable())
	}
}

// start continues the log in a file of a directory that has no other.
func (f *fixture) start(disk *faultyFile) *Log {
	f.Helper()
	return f.startIn(oneFile(disk))
}

func (f *fixture) startIn(d *faultyDir) *Log {
	f.Helper()
	l, err := f.tryStart(d)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	return l
}

func (f *fixture) tryStart(d *faultyDir) (*Log, error) {
	f.Helper()
	cfg, err := f.cfg.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	return start(context.Background(), cfg, d)
}

func (f *fixture) verifyBytes(b []byte) Report {
	f.Helper()
	r, err := Verify(fstest.MapFS{fileName(1): {Data: b}}, keys())
	if err != nil {
		f.Fatal(err)
	}
	return r
}
