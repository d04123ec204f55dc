package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/softhsm"
)

func (p place) end() transport.End {
	p.t.Helper()
	d, err := p.dir.LoadOwn()
	if err != nil {
		p.t.Fatal(err)
	}
	return transport.EndOf(d.Descriptor)
}

func (p place) set() transport.Set {
	p.t.Helper()
	s, err := transport.Load(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// Three Regions, all six ordered pairs, then a second epoch and a retirement.
func TestAllPairs(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1", "ap-tokyo-1")
	for _, source := range all {
		for _, destination := range all {
			if source.name != destination.name {
				hold(source, destination)
			}
		}
	}
	for _, p := range all {
		p.must("list")
		if got := len(p.set().All()); got != 4*len(hsm.Classes) {
			t.Errorf("%s has %d transport keys, want one of each class for each of four sets", p.name, got)
		}
		for _, q := range all {
			if p.name == q.name {
				continue
			}
			for _, class := range hsm.Classes {
				wraps, ok1 := p.set().Newest(p.end(), q.end(), class)
				unwraps, ok2 := q.set().Newest(p.end(), q.end(), class)
				if !ok1 || !ok2 || wraps.Role != hsm.RoleTransportSource || unwraps.Role != hsm.RoleTransportDestination {
					t.Errorf("%s to %s, class %s: %+v %v, %+v %v", p.name, q.name, class, wraps, ok1, unwraps, ok2)
				}
			}
		}
	}

	paris, east := all[0], all[1]
	hold(paris, east)
	second, ok := paris.set().Newest(paris.end(), east.end(), hsm.ClassAES)
	if !ok || second.Name.Epoch != 2 {
		t.Fatalf("newest is %+v, want epoch 2", second)
	}

	first := second.Name
	first.Epoch = 1
	paris.refuses("the destination retires first", "retire", "--set", first.String())
	east.must("retire", "--set", first.String())
	there := filepath.Join(east.dir.Transcripts(), transport.Transcript{Event: transport.Retired, Name: first, Role: hsm.RoleTransportDestination}.File())
	wrong := filepath.Join(east.dir.Transcripts(), transport.Transcript{Event: transport.Established, Name: first, Role: hsm.RoleTransportDestination}.File())
	paris.refuses("want the destination's retirement", "retire", "--set", first.String(), "--destination-transcript", wrong)
	paris.must("retire", "--set", first.String(), "--destination-transcript", there)
	for _, p := range all {
		p.must("list")
	}
	if _, ok := paris.set().At(first, hsm.ClassAES); ok {
		t.Error("the retired epoch is still in use at the source")
	}
	east.refuses("exists", "retire", "--set", first.String())
}

// The roster demands two operators, who approve by commands of their own.
func TestApprovals(t *testing.T) {
	t.Parallel()
	all := places(t, 2, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	a := east.startAccept(paris)
	draft := a.offer + ".draft"
	a.awaitFile(draft)
	a.awaitSaid("0 of 2 needed")
	read := a.fingerprint()
	east.refuses("differs from --fingerprint", "approve", draft, "--operator-key", east.operators[0], "--out", a.offer+".approval-0", "--yes", "--fingerprint", strings.Repeat("0", 64))
	east.refuses("no operator's", "approve", draft, "--operator-key", paris.operators[0], "--out", a.offer+".approval-x", "--yes", "--fingerprint", read)
	east.must("approve", draft, "--operator-key", east.operators[0], "--out", a.offer+".approval-0", "--yes", "--fingerprint", read)
	a.awaitSaid("1 of 2 needed")
	if _, err := os.Stat(a.offer); err == nil {
		t.Error("one approval of two made an offer")
	}
	// The draft, which carries no approval, is not an offer for the source.
	paris.refuses("not enough approvals", "establish", draft, "--package", a.answer, "--so-pin-file", paris.token.SOPINFile, "--yes", "--fingerprint", read)
	east.must("approve", draft, "--operator-key", east.operators[1], "--out", a.offer+".approval-1", "--yes", "--fingerprint", read)
	a.awaitFile(a.offer)
	a.establish(paris)
	a.ends(0, "proven")
}

func TestOffersThatAreRefused(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1", "ap-tokyo-1")
	paris, east, tokyo := all[0], all[1], all[2]
	a := east.accept(paris)
	args := func(offer, fingerprint string) []string {
		return []string{"establish", offer, "--package", a.answer, "--so-pin-file", paris.token.SOPINFile, "--yes", "--fingerprint", fingerprint}
	}
	paris.refuses("differs from --fingerprint", args(a.offer, strings.Repeat("0", 64))...)
	tokyo.refuses("offer for source", append(args(a.offer, a.fingerprint())[:5:5], tokyo.token.SOPINFile, "--yes", "--fingerprint", a.fingerprint())...)

	offer, err := os.ReadFile(a.offer)
	if err != nil {
		t.Fatal(err)
	}
	text := string(offer)
	for name, c := range map[string]struct{ change, why string }{
		"another type":     {strings.Replace(text, `"ceremony-offer"`, `"approval"`, 1), "want \"ceremony-offer\""},
		"a changed byte":   {flip(text, `"payload": "`, 1500), "not valid"},
		"another approval": {flip(text, text[strings.Index(text, `"approvals"`):strings.LastIndex(text, `"signature": "`)]+`"signature": "`, 30), "not enough approvals"},
		"twice a field":    {strings.Replace(text, "{\n", "{\n  \"approvals\": [],\n", 1), "not in the form"},
	} {
		if c.change == text {
			t.Fatalf("%s: nothing was changed", name)
		}
		path := filepath.Join(t.TempDir(), "offer.json")
		if err := os.WriteFile(path, []byte(c.change), 0o600); err != nil {
			t.Fatal(err)
		}
		paris.refuses(c.why, args(path, a.fingerprint())...)
	}

	// Pinned or not: an offer by a Region that is not pinned here is refused.
	if err := os.Rename(paris.dir.Peer(east.name), paris.dir.Peer(east.name)+".away"); err != nil {
		t.Fatal(err)
	}
	paris.refuses("is not pinned", args(a.offer, a.fingerprint())...)
	if err := os.Rename(paris.dir.Peer(east.name)+".away", paris.dir.Peer(east.name)); err != nil {
		t.Fatal(err)
	}

	late := east.startAccept(paris, append(east.keyFlags(), "--expiry", "10s")...)
	late.ends(1, "expired")
	paris.refuses("offer expired", args(late.offer, late.fingerprint())...)
	for _, p := range all {
		p.must("list")
		if got := len(p.set().All()); got != 0 {
			t.Errorf("%s has %d transport keys after refusals only", p.name, got)
		}
	}
}

// flip changes one character of base64, n characters after a marker.
func flip(text, marker string, n int) string {
	i := strings.Index(text, marker) + len(marker) + n
	c := byte('A')
	if text[i] == c {
		c = 'B'
	}
	return text[:i] + string(c) + text[i+1:]
}

// A package opens in the process that offered for it, once, and nowhere else.
func TestPackagesThatAreRefused(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	done := hold(paris, east)
	recorded, err := os.ReadFile(done.answer)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, why string }{
		"accepted a second time": {string(recorded), "it answers another offer"},
		"with a changed byte":    {flip(string(recorded), `"payload": "`, 500), "signature not valid"},
		"that is no package":     {"{}\n", "not in the form"},
	} {
		t.Run(name, func(t *testing.T) {
			again := east.accept(paris)
			temporary := again.answer + ".tmp"
			if err := os.WriteFile(temporary, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(temporary, again.answer); err != nil {
				t.Fatal(err)
			}
			again.ends(1, c.why)
			east.must("list")
		})
	}
	if got := len(east.set().All()); got != len(hsm.Classes) {
		t.Errorf("%d transport keys at the destination, want the first set's", got)
	}
}

// Files that are carried arrive piece by piece, and others may lie beside them: the
// establishment key is not forgotten for that.
func TestFilesArriveInPieces(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	a := east.startAccept(paris)
	a.awaitSaid("0 of 1 needed")
	if err := os.WriteFile(a.offer+".approval-noise", []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.awaitSaid("approval-noise\": not an approval")
	carry := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, len(b) / 2, len(b)} {
			if err := os.WriteFile(to, b[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
		}
	}
	elsewhere := t.TempDir()
	approval, answer := filepath.Join(elsewhere, "approval"), filepath.Join(elsewhere, "package.json")
	east.must("approve", a.offer+".draft", "--operator-key", east.operators[0], "--out", approval, "--yes", "--fingerprint", a.fingerprint())
	carry(approval, a.offer+".approval-0")
	a.awaitFile(a.offer)
	paris.must("establish", a.offer, "--package", answer, "--so-pin-file", paris.token.SOPINFile, "--yes", "--fingerprint", a.fingerprint())
	carry(answer, a.answer)
	a.ends(0, "proven")
	east.must("list")
}

// The accept process is killed: what was wrapped for it is lost for everybody, nothing is
// left in the destination's token, and the next ceremony uses another epoch.
func TestAcceptIsKilled(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	a := east.accept(paris)
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = a.cmd.Wait()
	a.establish(paris)
	east.must("list")
	paris.must("list")

	b := east.accept(paris)
	paris.refuses("accept with --epoch 2", b.establishArgs(paris)...)
	if err := b.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	b.ends(1, "")

	c := east.accept(paris, "--epoch", "2")
	c.establish(paris)
	c.ends(0, "proven")
	lost := transport.Name{Source: paris.end(), Destination: east.end(), Epoch: 1}
	paris.must("retire", "--set", lost.String(), "--alone")
	paris.must("list")
}

func TestEstablishFailsWithoutTheSecurityOfficer(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	a := east.accept(paris)
	wrong := filepath.Join(t.TempDir(), "so-pin")
	if err := os.WriteFile(wrong, []byte("00000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := a.establishArgs(paris)
	args[5] = wrong
	paris.refuses("PIN", args...)
	// With the user PIN in the officer's place nothing is made either.
	args[5] = paris.token.PINFile
	paris.refuses("PIN", args...)
	paris.must("list")
	a.establish(paris)
	a.ends(0, "proven")
}

// Whoever can make a wrapping key with the user PIN is reported by every later ceremony.
func TestStrangersAreReported(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	pin, err := os.ReadFile(paris.token.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "softhsm2-util", "--import", randomFile(t, 32), "--aes", "--token", paris.token.Label,
		"--label", "stranger", "--id", "ABCD", "--pin", strings.TrimSpace(string(pin)))
	cmd.Env = append(os.Environ(), softhsm.ConfEnv+"="+paris.token.Conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	paris.refuses(`object abcd, label "stranger", can wrap, can unwrap: no transcript knows it`, "list")
	paris.refuses("no transcript knows it", append(append([]string{"accept", "--from", "us-east-1"}, paris.keyFlags()...), "--offer", filepath.Join(t.TempDir(), "o"), "--package", filepath.Join(t.TempDir(), "p"))...)
	a := east.accept(paris)
	paris.refuses("no transcript knows it", a.establishArgs(paris)...)
	east.must("list")
}

// A transport key without its transcript is an orphan; a transcript without its key is a loss.
func TestTranscriptsAndTokenMustAgree(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	hold(paris, east)
	files, err := filepath.Glob(filepath.Join(east.dir.Transcripts(), "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("transcripts %v, %v", files, err)
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(files[0], away); err != nil {
		t.Fatal(err)
	}
	east.refuses("no transcript knows it", "list")
	east.must("retire", "--orphans")
	east.must("list")
	if err := os.Rename(away, files[0]); err != nil {
		t.Fatal(err)
	}
	east.refuses("is not in the token", "list")
	// The transcript is signed, and is what its name says.
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], []byte(flip(string(b), `"payload": "`, 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	east.refuses("signature not valid", "list")
}

func TestInitIsDoneOnce(t *testing.T) {
	t.Parallel()
	p := places(t, 1, "eu-paris-1")[0]
	again := []string{"init", "--region", "eu-paris-1", "--operators", filepath.Join(filepath.Dir(string(p.dir)), "eu-paris-1.yaml")}
	p.refuses("exists already", again...)
	p.dir = region.Dir(t.TempDir())
	p.refuses("holds a key of role", again...)
	p.dir = region.Dir(t.TempDir())
	if _, err := os.Stat(p.dir.Own()); err == nil {
		t.Error("a descriptor was written")
	}
}

// An init that was killed has left keys and no descriptor. It is repeated only if a person
// says which instance is nobody's.
func TestInitIsKilled(t *testing.T) {
	t.Parallel()
	p := places(t, 1, "eu-paris-1")[0]
	killed := string(p.end().Instance)
	if err := os.Remove(p.dir.Own()); err != nil {
		t.Fatal(err)
	}
	again := []string{"init", "--region", "eu-paris-1", "--operators", filepath.Join(filepath.Dir(string(p.dir)), "eu-paris-1.yaml")}
	p.refuses("for instance "+killed+" already (if an init was killed", again...)
	p.refuses("for instance "+killed+" already", append(again, "--discard", "kfi-0123456789ab")...)
	p.must(append(again, "--discard", killed)...)
	if fresh := string(p.end().Instance); fresh == killed {
		t.Errorf("the instance is %s as before", fresh)
	}
	p.must("list")
	p.refuses("exists already", append(again, "--discard", string(p.end().Instance))...)
	p.dir = region.Dir(t.TempDir())
	p.refuses("for instance ", append(again, "--discard", killed)...)
}

func TestPinComparesTheFingerprint(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	paris, east := all[0], all[1]
	if err := os.Remove(paris.dir.Peer(east.name)); err != nil {
		t.Fatal(err)
	}
	paris.refuses("differs", "pin", east.dir.Own(), "--yes", "--fingerprint", strings.Repeat("0", 64))
	paris.refuses("--yes needs --fingerprint", "pin", east.dir.Own(), "--yes")
	paris.refuses("is this Region", "pin", paris.dir.Own(), "--yes", "--fingerprint", strings.Repeat("0", 64))
	d, err := east.dir.LoadOwn()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		answer string
		code   int
	}{{"no\n", 1}, {"", 1}, {"yes\n", 0}} { // in this order: the last one pins
		answer, code := c.answer, c.code
		cmd := paris.command(t.Context(), "pin", east.dir.Own())
		cmd.Stdin = strings.NewReader(answer)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != code || !strings.Contains(string(out), d.Fingerprint()) {
			t.Errorf("answer %q: exit %d, want %d:\n%s", answer, cmd.ProcessState.ExitCode(), code, out)
		}
		if code == 0 {
			continue
		}
		if _, err := os.Stat(paris.dir.Peer(east.name)); err == nil {
			t.Fatalf("answer %q pinned the peer", answer)
		}
	}

	// Of a peer nothing is history; once it is gone, its words can be.
	former := []string{"pin", "--former", east.dir.Own(), "--yes", "--fingerprint"}
	paris.refuses("is pinned in Region us-east-1", append(former, d.Fingerprint())...)
	if err := os.Remove(paris.dir.Peer(east.name)); err != nil {
		t.Fatal(err)
	}
	paris.refuses("differs", append(former, strings.Repeat("0", 64))...)
	for range 2 {
		paris.must(append(former, d.Fingerprint())...)
	}
	own, err := paris.dir.LoadOwn()
	if err != nil {
		t.Fatal(err)
	}
	if all, err := paris.dir.LoadFormer(own.Descriptor); err != nil || len(all) != 1 || all[0].Instance != d.Instance {
		t.Errorf("former: %+v, %v", all, err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	p := place{t: t, dir: region.Dir(t.TempDir())}
	p.token.Module = "/nowhere"
	for name, args := range map[string][]string{
		"no command's flag":      {"list", "--frobnicate"},
		"an unknown command":     {"frobnicate"},
		"init without a Region":  {"init"},
		"init with a bad Region": {"init", "--region", "Paris"},
		"accept without source":  {"accept"},
		"establish with nothing": {"establish"},
		"retire nothing":         {"retire"},
		"retire too much":        {"retire", "--orphans", "--set", "x"},
		"thief with nothing":     {"thief"},
		"no PIN file":            {"list"},
	} {
		cmd := p.command(t.Context(), args...)
		if name == "no PIN file" {
			cmd.Args = []string{os.Args[0], "list", "--region-dir", "x", "--module", "/m", "--token", "t", "--profile", "softhsm2"}
		}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != 2 {
			t.Errorf("%s: exit %d, want 2:\n%s", name, got, out)
		}
	}
}

// The whole demonstration's thief, on real objects of two Regions after their ceremonies.
func TestThief(t *testing.T) {
	t.Parallel()
	all := places(t, 1, "eu-paris-1", "us-east-1")
	there, back := hold(all[0], all[1]), hold(all[1], all[0])
	work := t.TempDir()
	args := []string{"thief", "--package", there.answer, "--package", back.answer}
	for _, p := range all {
		file := filepath.Join(work, string(p.name))
		p.must("thief", "--record", file)
		args = append(args, "--recorded", file)
	}
	start := time.Now()
	for _, p := range all {
		out := p.must(args...)
		for _, want := range []string{"all refused by the token", "open a recorded ceremony package", "derive a readable key", "transport-source", "transport-destination", "region-signing", "seal"} {
			if !strings.Contains(out, want) {
				t.Errorf("the thief at %s does not say %q:\n%s", p.name, want, out)
			}
		}
		p.must("list")
	}
	t.Logf("two thieves took %s", time.Since(start))
	// Without what was recorded elsewhere, refusals would prove nothing.
	all[0].must("thief", "--record", filepath.Join(work, "again"))
	all[0].refuses("no blob of class", "thief", "--recorded", filepath.Join(work, "again"))
}
