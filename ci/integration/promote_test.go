package integration

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

var generations uint64

// nextGeneration numbers the forced promotions of the shared deployment: its operator's key
// approves no number for two Regions.
func nextGeneration() string {
	generations++
	return strconv.FormatUint(generations, 10)
}

// TestLoseARegion types docs/lose-a-region.md on real daemons: a replica Region is killed,
// suspended, comes back, is evicted and made again; then the primary Region is killed, its keys
// are promoted elsewhere by approvals, and it comes back and gets them handed over again.
func TestLoseARegion(t *testing.T) {
	softhsmtest.Used(t)
	y := newTypist(t, shared, "lose-a-region.md")
	y.link(paris, filepath.Join(shared.dir, "operators", "dev.key"), "anna.key")
	keys := []string{shared.createKey(t, paris), shared.createKey(t, paris)}
	for _, to := range []string{virginia, tokyo} {
		shared.replicate(t, keys[0], paris, to)
	}
	shared.replicate(t, keys[1], paris, virginia)
	o := outage{typist: y, keys: keys, blobs: map[string][]byte{}}
	o.encrypt("before", keys[0], paris)
	o.loseReplica()
	o.losePrimary()
	if left := y.untyped(); len(left) > 0 {
		t.Errorf("commands of the page that nobody has typed: %q", left)
	}
}

// outage is what TestLoseARegion lives through.
type outage struct {
	*typist
	keys  []string
	blobs map[string][]byte // by what they open to
}

func (o *outage) encrypt(text, key, region string) {
	o.t.Helper()
	o.blobs[text] = o.d.must(o.t, []byte(text), "encrypt", key, "--region", region)
}

// opens demands that a Region opens everything.
func (o *outage) opens(region string) {
	o.t.Helper()
	for text, blob := range o.blobs {
		eventually(o.t, patience, func() (string, bool) {
			got, err := o.d.keyferry(blob, "decrypt", "--region", region)
			return fmt.Sprintf("%s opens %q, want %q: %v", region, got, text, err), string(got) == text
		})
	}
}

// dark kills a Region until back is called.
func (o *outage) dark(region string) (back func()) {
	o.d.mustDev(o.t, "stop", region, "--kill")
	back = sync.OnceFunc(func() { o.d.mustDev(o.t, "start", region) })
	o.t.Cleanup(back)
	return back
}

// approved types a request, its approval and what they are for.
func (o *outage) approved(request, carryOut string, with ...string) {
	o.t.Helper()
	_, file, _ := strings.Cut(request, "--request ")
	name := strings.TrimSuffix(file, ".request")
	o.typed(paris, request, with...)
	o.typed(paris, "keyferry approve "+file+" --key anna.key --out "+name+".approval-anna")
	o.typed(paris, carryOut+" --approval "+name+".approval-anna", with...)
}

func (o *outage) loseReplica() {
	o.t.Helper()
	back := o.dark(virginia)
	old := o.d.material(o.t, o.keys[0], paris)
	o.d.must(o.t, nil, "key", "rotate", o.keys[0], "--region", paris)
	if shown := string(o.d.must(o.t, nil, "key", "rotation", "show", o.keys[0], "--region", paris)); !regexp.MustCompile(`(?m)^awaited in +(ap-tokyo-1, )?us-east-1$`).MatchString(shown) {
		o.t.Errorf("the rotation does not say for whom it waits:\n%s", shown)
	}
	o.approved("keyferry key suspend KEY --replica us-east-1 --request suspend.request", "keyferry key suspend KEY --replica us-east-1", "KEY", o.keys[0])
	eventually(o.t, patience, func() (string, bool) {
		return "the rotation goes on waiting", o.d.material(o.t, o.keys[0], paris) != old
	})
	o.encrypt("without it", o.keys[0], tokyo)

	o.approved("keyferry key suspend --all-of us-east-1 --request suspend-all.request", "keyferry key suspend --request suspend-all.request")
	o.refused(paris, "keyferry key rotate "+o.keys[1], "--accept-alone")
	if out := o.typed(paris, "keyferry key rotate KEY --accept-alone --wait", "KEY", o.keys[1]); !strings.Contains(out, "encrypts with ") {
		o.t.Errorf("it does not say what it encrypts with:\n%s", out)
	}
	o.encrypt("alone", o.keys[1], paris)

	back()
	for _, key := range o.keys {
		if out := o.typed(paris, "keyferry key replicas KEY --wait --timeout 10m", "KEY", key); !strings.Contains(out, "us-east-1 SYNCHRONIZED") {
			o.t.Errorf("a Region that has come back:\n%s", out)
		}
	}
	o.opens(virginia)

	o.approved("keyferry key evict KEY --replica us-east-1 --request evict.request", "keyferry key evict KEY --replica us-east-1", "KEY", o.keys[1])
	eventually(o.t, patience, func() (string, bool) {
		shown := string(o.d.must(o.t, nil, "key", "show", o.keys[1], "--region", virginia))
		return "in the Region that was evicted:\n" + shown, regexp.MustCompile(`(?m)^state +Disabled$`).MatchString(shown)
	})
	o.typed(paris, "keyferry key replicate KEY --to us-east-1 --wait", "KEY", o.keys[1])
	o.opens(virginia)
}

func (o *outage) losePrimary() {
	o.t.Helper()
	back := o.dark(paris)
	o.refused(paris, "keyferry --region us-east-1 key promote --force "+o.keys[0], "--request")
	generation := nextGeneration()
	const request = "--request promote.request"
	numbered := []string{"--suspend eu-paris-1 " + request, "--suspend eu-paris-1 --generation " + generation + " " + request}
	o.approved("keyferry --region us-east-1 key promote --force --all-of eu-paris-1 --suspend eu-paris-1 "+request, "keyferry --region us-east-1 key promote --force "+request, numbered...)
	again := o.typed(paris, "keyferry --region us-east-1 key promote --force "+request+" --approval promote.approval-anna")
	for _, key := range o.keys {
		if !strings.Contains(again, key) {
			o.t.Errorf("%s was not promoted:\n%s", key, again)
		}
	}
	// Another key, for another Region: under a number that is taken the operator refuses.
	other := o.d.createKey(o.t, tokyo)
	ask := "keyferry key promote --force " + other + " --region ap-tokyo-1 --generation "
	o.refused(paris, ask+generation+" --request taken.request && keyferry approve taken.request --key anna.key", "approved for another target before")
	if code, out, err := o.d.at(o.t.Context(), paris, o.d.shims(paris, 0)+ask+nextGeneration()+" --request free.request && keyferry approve free.request --key anna.key"); err != nil || code != 0 {
		o.t.Errorf("approving a higher number: %d, %v\n%s", code, err, out)
	}

	// Work goes on, management too: the rotation does not wait for the Region that is dark.
	o.encrypt("meanwhile", o.keys[0], tokyo)
	eventually(o.t, patience, func() (string, bool) {
		_, err := o.d.keyferry(nil, "key", "rotate", o.keys[0], "--wait", "--region", virginia)
		return errString(err), err == nil
	})
	o.encrypt("rotated", o.keys[0], virginia)

	back()
	eventually(o.t, patience, func() (string, bool) {
		now, err := o.d.keyferry(nil, "key", "show", o.keys[0], "--json", "--region", paris)
		return fmt.Sprintf("the old primary Region was not fenced: %s, %v", now, err), bytes.Contains(now, []byte(`"generation": "`+generation+`"`))
	})
	if _, err := o.d.keyferry(nil, "key", "rotate", o.keys[0], "--region", paris); err == nil || !strings.Contains(err.Error(), virginia) {
		o.t.Errorf("rotating at the old primary Region: %v", err)
	}
	for _, key := range o.keys {
		o.typed(paris, "keyferry --region us-east-1 key replicas KEY --wait --timeout 10m", "KEY", key)
	}
	o.opens(paris)
	o.opens(virginia)
	delete(o.blobs, "alone") // by a key that is not in Tokyo
	o.opens(tokyo)
	if out := o.typed(paris, "keyferry --region us-east-1 key promote KEY --to eu-paris-1 --wait", "KEY", o.keys[0]); !strings.Contains(out, "us-east-1: Enabled, primary key in eu-paris-1") {
		o.t.Errorf("handing it back:\n%s", out)
	}
}
