package operator_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cmd/internal/operator"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func newKey(t *testing.T) (string, operator.Key) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "anna.key")
	if _, err := operator.Generate(path); err != nil {
		t.Fatal(err)
	}
	k, err := operator.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, k
}

func promotion(epoch uint64, target string) approval.Request {
	return approval.Request{
		Operation: approval.ForcePromotion, Region: target, Instance: "kfi-0123456789ab",
		Series: "promotions", Epoch: epoch, Target: target,
		Serial: approval.NewSerial(), Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Object: []approval.Detail{{Name: "key", Text: "mrk-1"}},
	}
}

// TestMemory: a key gives a number of a series to one target, and no lower one to another,
// also after it was loaded again.
func TestMemory(t *testing.T) {
	path, _ := newKey(t)
	plain := promotion(0, "")
	plain.Series, plain.Region = "", "eu-paris-1"
	other := promotion(1, "us-east-1")
	other.Series = "another series"
	for i, step := range []struct {
		q  approval.Request
		ok bool
	}{
		{promotion(3, "eu-paris-1"), true},
		{promotion(3, "us-east-1"), false}, // equal, for another
		{promotion(2, "us-east-1"), false}, // lower, for another
		{promotion(3, "eu-paris-1"), true}, // again, because the first one expired
		{promotion(2, "eu-paris-1"), true},
		{promotion(3, "us-east-1"), false}, // what was lower is no way around
		{promotion(4, "us-east-1"), true},
		{promotion(4, "eu-paris-1"), false},
		{other, true},
		{plain, true}, // nothing is numbered
	} {
		k, err := operator.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := k.Approve(t.Context(), step.q)
		if step.ok && err != nil {
			t.Errorf("step %d: %v", i, err)
		}
		if !step.ok && (!errors.Is(err, operator.ErrContradiction) || len(f.Signature) != 0) {
			t.Errorf("step %d: got %v, signature %x; want ErrContradiction", i, err, f.Signature)
		}
	}
}

func TestDamagedMemoryIsNotForgotten(t *testing.T) {
	path, k := newKey(t)
	if _, err := k.Approve(t.Context(), promotion(3, "eu-paris-1")); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path + operator.MemorySuffix)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty": "", "cut short": string(good[:len(good)-3]), "with more in it": strings.Replace(string(good), `"epoch"`, `"x": 1, "epoch"`, 1),
	} {
		if err := os.WriteFile(path+operator.MemorySuffix, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Approve(t.Context(), promotion(9, "eu-paris-1")); err == nil {
			t.Errorf("approved with a memory that is %s", name)
		}
	}
	// What a process left that died between writing and renaming is no obstacle.
	if err := errors.Join(os.WriteFile(path+operator.MemorySuffix, good, 0o600), os.WriteFile(path+operator.MemorySuffix+".1"+statement.PartSuffix, []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Approve(t.Context(), promotion(9, "eu-paris-1")); err != nil {
		t.Error(err)
	}
}

// TestManyAtOnce: of many that ask at once for one number, one target gets it.
func TestManyAtOnce(t *testing.T) {
	path, _ := newKey(t)
	var mu sync.Mutex
	got := map[string]bool{}
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			k, err := operator.Load(path)
			if err != nil {
				t.Error(err)
				return
			}
			target := []string{"eu-paris-1", "us-east-1"}[i%2]
			if _, err := k.Approve(t.Context(), promotion(1, target)); err == nil {
				mu.Lock()
				got[target] = true
				mu.Unlock()
			} else if !errors.Is(err, operator.ErrContradiction) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(got) != 1 {
		t.Errorf("one number was given to %v", got)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	path, _ := newKey(t)
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text []byte
		mode os.FileMode
	}{
		"open to others":  {private, 0o644},
		"the public half": {public, 0o600},
		"no PEM":          {[]byte("key"), 0o600},
		"not PKCS #8":     {[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600},
	} {
		p := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := errors.Join(os.WriteFile(p, c.text, c.mode), os.Chmod(p, c.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := operator.Load(p); err == nil || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := operator.Load(dir); err == nil {
		t.Error("a directory was loaded")
	}
	if _, err := operator.Generate(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key was made over another: %v", err)
	}
}
