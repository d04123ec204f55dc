package keyops_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/softhsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// Children of TestKill are told their job and the directory to do it in.
const (
	killEnv    = "KEYFERRY_KEYOPS_KILL"
	killDirEnv = "KEYFERRY_KEYOPS_KILL_DIR"
)

// TestKill kills a process, with SIGKILL, at every point of the write order, on real tokens
// and a real store, and then looks at what the next process finds.
func TestKill(t *testing.T) {
	if job := os.Getenv(killEnv); job != "" {
		killJob(t, job, os.Getenv(killDirEnv))
		return
	}
	softhsmtest.Used(t)
	dir := t.TempDir()
	tokens, err := softhsm.Provision(t.Context(), dir, paris.label, tokyo.label)
	if err != nil {
		t.Fatal(err)
	}
	child := func(t *testing.T, job string) error {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), softhsm.ConfEnv+"="+tokens[0].Conf, killEnv+"="+job, killDirEnv+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	if err := child(t, "make"); err != nil {
		t.Fatal(err)
	}
	for _, step := range keyops.Steps() {
		t.Run(step, func(t *testing.T) {
			err := child(t, "kill "+step)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			if err := child(t, "check "+step); err != nil {
				t.Error(err)
			}
		})
	}
	for _, spec := range []keyops.KeySpec{keyops.SymmetricDefault, keyops.HMAC256, keyops.ECCNISTP256} {
		t.Run("half-written "+string(spec), func(t *testing.T) {
			softhsmtest.TakeValue(t, softhsmtest.Made(t, tokens[1], func() {
				var exit *exec.ExitError
				if err := child(t, "kill install.token "+string(spec)); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the child was not killed: %v", err)
				}
			}))
			if err := child(t, "check half-written"); err != nil {
				t.Error(err)
			}
		})
	}
}

// killJob is what a child does.
func killJob(t *testing.T, job, dir string) {
	token = func(label string) softhsm.Token {
		tok, err := softhsm.Open(context.Background(), dir, label)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	if job == "make" {
		killMake(t, dir)
		return
	}
	verb, step, _ := strings.Cut(job, " ")
	w := killResume(t, dir)
	if verb == "kill" {
		step, spec, _ := strings.Cut(step, " ")
		killAt(t, w, step, keyops.KeySpec(spec))
		t.Fatalf("still alive after %s", step)
	}
	killCheck(t, w, step)
}

// killMake makes both Regions and their transport keys.
func killMake(t *testing.T, dir string) {
	if err := establishAll(); err != nil {
		t.Fatal(err)
	}
	w := two{net: keyopstest.NewNetwork()}
	for _, r := range []struct {
		real realRegion
		at   **keyopstest.Region
	}{{paris, &w.paris}, {tokyo, &w.tokyo}} {
		home := filepath.Join(dir, r.real.label)
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		made, err := keyopstest.Make(t.Context(), home, t, keyopstest.Options{
			Name: r.real.end.Region, Instance: r.real.end.Instance, Token: openToken(t, r.real.label),
		})
		if err != nil {
			t.Fatal(err)
		}
		*r.at = made
	}
	for _, pair := range [][2]*keyopstest.Region{{w.paris, w.tokyo}, {w.tokyo, w.paris}} {
		name := keyopstest.SetName(pair[0], pair[1], 1)
		if err := keyopstest.Transcribe(t.Context(), pair[0], pair[1], name, established[name]); err != nil {
			t.Fatal(err)
		}
	}
}

func killResume(t *testing.T, dir string) two {
	w := two{net: keyopstest.NewNetwork()}
	open := func(label string) *keyopstest.Region {
		r, err := keyopstest.Resume(filepath.Join(dir, label), keyopstest.Options{Peers: w.net, Token: openToken(t, label)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Stop)
		return r
	}
	w.paris, w.tokyo = open(paris.label), open(tokyo.label)
	w.net.Add(w.paris, w.tokyo)
	return w
}

func start(t *testing.T, r *keyopstest.Region) {
	t.Helper()
	if err := r.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// killAt leads the write to the step, and dies there.
func killAt(t *testing.T, w two, step string, spec keyops.KeySpec) {
	armed := false
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hook := func(name string) {
		if !armed {
			return
		}
		if name == step {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal comes to another thread first
		}
		if strings.Contains(step, ".undo-") && strings.HasSuffix(name, ".token") {
			cancel() // nothing is undone unless something fails
		}
	}
	w.paris.Options.Step, w.tokyo.Options.Step = hook, hook
	var ahead atomic.Int64
	w.paris.Options.Clock = func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
	start(t, w.paris)
	start(t, w.tokyo)
	by, _, _ := strings.Cut(step, ".")
	k := keyops.KeyMetadata{KeyID: "none"}
	single := keyops.KeyMetadata{}
	switch by {
	case "create":
	case "rotate", "delete":
		single = create(t, w.paris, keyops.CreateKeyInput{})
	case "parameters", "import":
		single = external(t, w.paris, keyops.CreateKeyInput{})
	default:
		k = w.replicate(t, keyops.CreateKeyInput{KeySpec: spec, KeyUsage: map[keyops.KeySpec]keyops.KeyUsage{
			keyops.HMAC256: keyops.GenerateVerifyMac, keyops.ECCNISTP256: keyops.SignVerify,
		}[spec]})
		w.tell(t, k.KeyID, w.paris, w.tokyo)
		w.tell(t, k.KeyID, w.tokyo, w.paris)
	}
	note := fmt.Sprintf("%s %d", k.KeyID, keyCount(t, w.paris))
	if err := os.WriteFile(noteFile(w), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	switch by {
	case "create":
		armed = true
		w.paris.CreateKey(ctx, admin(), keyops.CreateKeyInput{MultiRegion: true})
	case "install":
		shared, err := w.paris.SharedKey(k.KeyID)
		if err != nil {
			t.Fatal(explain(err))
		}
		id := shared.Current
		blob, err := w.paris.WrapMaterial(ctx, k.KeyID, id, w.tokyo.Descriptor.Descriptor)
		if err != nil {
			t.Fatal(explain(err))
		}
		armed = true
		w.tokyo.InstallMaterial(ctx, k.KeyID, blob)
	case "rotate":
		armed = true
		w.paris.RotateKeyOnDemand(ctx, admin(), keyops.RotateKeyOnDemandInput{KeyID: single.ARN})
	case "delete":
		if _, err := w.paris.ScheduleKeyDeletion(ctx, admin(), keyops.ScheduleKeyDeletionInput{KeyID: single.ARN, PendingWindowInDays: 7}); err != nil {
			t.Fatal(explain(err))
		}
		ahead.Store(int64(8 * 24 * time.Hour))
		armed = true
		if err := w.paris.Work(ctx); err != nil {
			t.Fatal(err)
		}
	case "parameters", "import":
		killImport(t, ctx, w.paris, single.ARN, by, func() { armed = true })
	case "change":
		armed = true
		w.paris.DisableKey(ctx, admin(), keyops.DisableKeyInput{KeyID: k.ARN})
	}
}

// killImport leads an import, or what comes before it, to its death.
func killImport(t *testing.T, ctx context.Context, r *keyopstest.Region, key, by string, arm func()) {
	get := func(ctx context.Context) (keyops.GetParametersForImportOutput, error) {
		return r.GetParametersForImport(ctx, admin(), keyops.GetParametersForImportInput{
			KeyID: key, WrappingAlgorithm: keyops.WrapOAEPSHA1, WrappingKeySpec: keyops.WrappingRSA2048,
		})
	}
	if by == "parameters" {
		arm()
		get(ctx)
		return
	}
	p, err := get(ctx)
	if err != nil {
		t.Fatal(explain(err))
	}
	blob := wrap(t, keyops.WrapOAEPSHA1, p.PublicKey, random(32))
	arm()
	r.ImportKeyMaterial(ctx, admin(), keyops.ImportKeyMaterialInput{
		KeyID: key, ImportToken: p.ImportToken, EncryptedKeyMaterial: blob, ExpirationModel: keyops.MaterialDoesNotExpire,
	})
}

func noteFile(w two) string { return filepath.Join(filepath.Dir(string(w.paris.Dir)), "note") }

// killCheck says what a death at each step leaves, and demands that all is sound and can go on.
func killCheck(t *testing.T, w two, step string) {
	note, err := os.ReadFile(noteFile(w))
	if err != nil {
		t.Fatal(err)
	}
	var id arn.KeyID
	var before int
	if _, err := fmt.Sscanf(string(note), "%s %d", &id, &before); err != nil {
		t.Fatal(err)
	}
	start(t, w.paris)
	start(t, w.tokyo)
	here, there := w.paris.Reconciliation(), w.tokyo.Reconciliation()
	type finding struct{ finished, undone, destroyed, made int }
	want := map[string]finding{
		"create.intent":          {undone: 1},
		"create.token":           {undone: 1},
		"create.check":           {undone: 1},
		"create.outcome":         {made: 1},
		"create.undo-token":      {undone: 1},
		"create.undo-intent":     {},
		"install.intent":         {undone: 1},
		"install.token":          {finished: 1},
		"install.check":          {finished: 1},
		"install.outcome":        {},
		"install.undo-token":     {undone: 1},
		"install.undo-intent":    {},
		"parameters.intent":      {undone: 1},
		"parameters.token":       {undone: 1},
		"parameters.check":       {undone: 1},
		"parameters.outcome":     {},
		"parameters.undo-token":  {undone: 1},
		"parameters.undo-intent": {},
		"import.intent":          {undone: 1},
		"import.token":           {undone: 1},
		"import.check":           {undone: 1},
		"import.outcome":         {},
		"import.undo-token":      {undone: 1},
		"import.undo-intent":     {},
		"rotate.intent":          {undone: 1},
		"rotate.token":           {undone: 1},
		"rotate.check":           {undone: 1},
		"rotate.outcome":         {},
		"rotate.undo-token":      {undone: 1},
		"rotate.undo-intent":     {},
		"change.outcome":         {},
		"delete.tombstone":       {destroyed: 1, made: -1},
		"delete.token":           {made: -1},
		// SoftHSM makes an object first and gives it its value in a second write.
		"half-written": {undone: 1},
	}[step]
	got := finding{
		len(here.Finished) + len(there.Finished), len(here.Undone) + len(there.Undone), len(here.Destroyed), keyCount(t, w.paris) - before,
	}
	if got != want {
		t.Errorf("after a death at %s: %+v, want %+v (%+v, %+v)", step, got, want, here, there)
	}
	if want.destroyed > 0 {
		w.paris.Restart(t) // which finds nothing any more
	}
	sound(t, w.paris)
	sound(t, w.tokyo)
	if id == "none" {
		return
	}
	// The work goes on where it was cut off.
	w.sync(t, id)
	if step == "change.outcome" {
		out, err := w.paris.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: string(id)})
		if err != nil || out.KeyMetadata.Enabled {
			t.Errorf("the key is enabled, or: %v", err)
		}
		return
	}
	if step == "half-written" {
		out, err := w.tokyo.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: string(id)})
		if err != nil || !out.KeyMetadata.Enabled {
			t.Errorf("the replica is %s, or: %v", out.KeyMetadata.KeyState, err)
		}
		return
	}
	enc, err := w.paris.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: x})
	if err != nil {
		t.Fatal(explain(err))
	}
	if _, err := w.tokyo.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob}); err != nil {
		t.Error(explain(err))
	}
}
