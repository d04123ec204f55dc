package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/statement"
)

var update = flag.Bool("update", false, "write the sample log in docs/audit.md anew")

const page = "../../docs/audit.md"

func mustReadPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// block returns the one fenced block of this language.
func block(t *testing.T, text, language string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(m) != 1 {
		t.Fatalf("%d blocks of %s in %s, want one", len(m), language, page)
	}
	return m[0][1]
}

// TestDocumentedSample checks the page's log with the page's key, and that every kind of
// record is in it.
func TestDocumentedSample(t *testing.T) {
	if *update {
		writeSample(t)
	}
	text := mustReadPage(t)
	p, _ := pem.Decode([]byte(block(t, text, "pem")))
	if p == nil {
		t.Fatal("no key on the page")
	}
	key, err := x509.ParsePKIXPublicKey(p.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	log := block(t, text, "jsonl")
	r, err := Verify(fstest.MapFS{fileName(1): {Data: []byte(log)}}, []crypto.PublicKey{key})
	if err != nil || r.Uncovered != 1 || r.Torn != 0 {
		t.Errorf("the page's log: %+v, error %v, want all but the last line covered", r, err)
	}
	seen := map[string]bool{}
	for text := range strings.Lines(log) {
		l, err := newEncoder().parseLine([]byte(strings.TrimSuffix(text, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := l.witness(); ok && (w.Region != "us-east-1" || w.Seq != 1184) {
			t.Errorf("the page's witness is of line %d in %s", w.Seq, w.Region)
		} else if ok == (l.Event != WitnessCheckpoint) {
			t.Error("the page's witness cannot be read")
		}
		seen[string(l.Type)], seen[string(l.Outcome)], seen[l.Event] = true, true, true
	}
	for _, want := range []string{
		string(APICall), string(ServiceEvent), string(checkpointType), AuditStart, AuditStop, WitnessCheckpoint,
		eventReplicate, eventCreate, eventSynchronize,
		string(Begun), string(Success), string(Denied), string(Error),
	} {
		if !seen[want] {
			t.Errorf("the page shows no record with %s", want)
		}
	}
}

// TestDocumentedFields compares the page's tables with the code.
func TestDocumentedFields(t *testing.T) {
	text := mustReadPage(t)
	section := func(title string) string {
		_, after, found := strings.Cut(text, title+"\n")
		if !found {
			t.Fatalf("no section %q", title)
		}
		before, _, _ := strings.Cut(after, "\n#")
		return before
	}
	rows := func(section string) (names []string) {
		for row := range strings.Lines(section) {
			if first, _, ok := strings.Cut(strings.TrimPrefix(row, "| "), " |"); ok && strings.HasPrefix(row, "| `") {
				for name := range strings.SplitSeq(first, ", ") {
					names = append(names, strings.Trim(name, "`"))
				}
			}
		}
		return names
	}
	tags := func(v any) (names []string) {
		for i := range reflect.TypeOf(v).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
		return names
	}
	if diff := cmp.Diff(tags(line{}), rows(section("## A record"))); diff != "" {
		t.Errorf("fields of a record (-code +page):\n%s", diff)
	}
	if diff := cmp.Diff(tags(checkpointField{}), rows(section("## A checkpoint"))); diff != "" {
		t.Errorf("fields of a checkpoint (-code +page):\n%s", diff)
	}
	for _, name := range tags(Resource{}) {
		if !strings.Contains(section("## A record"), "`"+name+"`") {
			t.Errorf("the field %s of a resource is not on the page", name)
		}
	}
	documented := map[string]bool{}
	for _, name := range rows(section("### Details of the log's own events")) {
		documented[name] = true
	}
	details := startRecord(tail{}).Details
	maps.Copy(details, WitnessRecord(SignedCheckpoint{}).Details)
	maps.Copy(details, restoredRecord(Checkpoint{}, time.Time{}, nil).Details)
	for name := range details {
		if !documented[name] {
			t.Errorf("the detail %s is not on the page", name)
		}
		delete(documented, name)
	}
	if len(documented) > 0 {
		t.Errorf("details that exist on the page only: %v", documented)
	}
}

// writeSample makes the page's log and key.
func writeSample(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 9, 30, 0, 123456789, time.UTC)
	f := newFixture(t)
	f.cfg.Signer, f.cfg.Keys = statement.HostKey(key), []crypto.PublicKey{key.Public()}
	f.cfg.Now = func() time.Time { now = now.Add(371 * time.Millisecond); return now }
	disk := &faultyFile{}
	l := f.start(disk)
	f.cover(l)
	f.head = StoreHead{Version: 42, Hash: hash{0x5e, 0xa1}}
	const (
		account = "111122223333"
		keyID   = "mrk-1234abcd12ab34cd56ef1234567890ab"
	)
	call := func(event string) Record {
		return Record{
			Type: APICall, Event: event, Principal: "arn:aws:iam::" + account + ":role/payroll", Account: account, SourceAddress: "192.0.2.7:50112",
			Resources: []Resource{{ARN: "arn:aws:kms:" + testRegion + ":" + account + ":key/" + keyID, KeyID: keyID}}, Outcome: Success,
		}
	}
	encrypt := call("Encrypt")
	encrypt.ReadOnly, encrypt.RequestID, encrypt.CorrelationID = true, "1f0c1f6e-6a3c-4b0f-9d57-6a1d3f5f2b11", "1f0c1f6e-6a3c-4b0f-9d57-6a1d3f5f2b11"
	encrypt.EncryptionContext = map[string]string{"department": "payroll", "env": "prod"}
	denied := call("Decrypt")
	denied.Principal, denied.Outcome, denied.Error = "arn:aws:iam::"+account+":user/mallory", Denied, "AccessDeniedException"
	denied.ReadOnly, denied.RequestID, denied.CorrelationID = true, "7a2b0a53-8d0e-4c1e-8f0e-2f2f9f0c7d22", "7a2b0a53-8d0e-4c1e-8f0e-2f2f9f0c7d22"
	denied.Details = map[string]string{"decision": "NoAllow"}
	begun := call("ReplicateKey")
	begun.Outcome, begun.RequestID, begun.CorrelationID = Begun, "c3d7a0a4-3b51-4f8e-b3a1-0d6b8a4c5e33", "c3d7a0a4-3b51-4f8e-b3a1-0d6b8a4c5e33"
	done := begun
	done.Outcome, done.Details = Success, map[string]string{"replicaRegion": "us-east-1"}
	failed := done
	failed.Outcome, failed.Error = Error, "AlreadyExistsException"
	failed.RequestID, failed.CorrelationID = "5d0e0c55-96a5-4dd1-9a53-3f2d0b1a7f10", "5d0e0c55-96a5-4dd1-9a53-3f2d0b1a7f10"
	event := func(name, correlation, peer, detail, value string) Record {
		return Record{
			Type: ServiceEvent, Event: name, Resources: encrypt.Resources, Outcome: Success,
			CorrelationID: correlation, Details: map[string]string{"peer": peer, detail: value},
		}
	}
	const material = "b57a3410854cb63fa20559780f0e37e8d1e0579e89266f129bf29e4f9751c546"
	sent := event("SynchronizeMultiRegionKey", "", "us-east-1", "wrappedMaterialId", material)
	made := event("CreateKey", "9e1f7b60-1c2d-4a3b-8c4d-5e6f7a8b9c44", "ap-tokyo-1", "claimedPrincipal", "arn:aws:iam::"+account+":role/payroll")
	installed := event("SynchronizeMultiRegionKey", "", "ap-tokyo-1", "installedMaterialId", material)
	peer := Checkpoint{Region: "us-east-1", Instance: "kfi-ba9876543210", Number: 310, Time: now, Seq: 1184, Hash: hash{0xc4}, Store: StoreHead{Version: 77, Hash: hash{0x5e}}}
	shown, err := peer.sign(context.Background(), statement.HostKey(key))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{encrypt, denied, begun, done, failed, sent, WitnessRecord(shown), made, installed} {
		if err := l.Append(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	f.close(l)

	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := mustReadPage(t)
	for language, body := range map[string][]byte{
		"pem":   pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"jsonl": disk.durable(),
	} {
		old := []byte("```" + language + "\n" + block(t, text, language) + "```")
		text = string(bytes.Replace([]byte(text), old, []byte("```"+language+"\n"+string(body)+"```"), 1))
	}
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDocumentedTail runs the page's shell loop on a log that rotates under it.
func TestDocumentedTail(t *testing.T) {
	t.Parallel() // it mostly sleeps
	f := newFixture(t)
	f.cfg.MaxFileBytes = 3000
	l := f.open()
	f.cover(l)
	tail := exec.Command("sh", "-c", block(t, mustReadPage(t), "sh"))
	tail.Dir, tail.SysProcAttr = f.cfg.Dir, &syscall.SysProcAttr{Setpgid: true}
	out, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() { _ = syscall.Kill(-tail.Process.Pid, syscall.SIGKILL) } // its children too
	timeout := time.AfterFunc(time.Minute, stop)
	t.Cleanup(func() {
		timeout.Stop()
		stop()
		_ = tail.Wait() // was killed
	})
	go func() {
		for i := range 20 {
			if err := l.Append(context.Background(), record("Encrypt")); err != nil {
				t.Errorf("record %d: %v", i, err)
			}
			if i == 10 {
				time.Sleep(1500 * time.Millisecond) // so that the loop waits in a file, too
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	lines, got := bufio.NewScanner(out), []byte(nil)
	for lines.Scan() {
		got = append(append(got, lines.Bytes()...), '\n')
		l, err := newEncoder().parseLine(lines.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if l.Checkpoint != nil { // the last line of all
			break
		}
	}
	numbers, err := listFiles(os.DirFS(f.cfg.Dir))
	if err != nil || len(numbers) < 4 {
		t.Fatalf("got files %v, error %v, want at least 4", numbers, err)
	}
	var want []byte
	for _, n := range numbers {
		b, err := os.ReadFile(filepath.Join(f.cfg.Dir, fileName(n)))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the loop printed %d bytes, want the %d of all files in order", len(got), len(want))
	}
}
