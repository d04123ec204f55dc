package keyops_test

import (
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// clockPeers are peers of whom nothing but a clock is known.
type clockPeers struct {
	keyops.Peers
	apart time.Duration
}

func (p *clockPeers) ClocksApart() (region.Name, time.Duration) { return "us-east-1", p.apart }

func (p *clockPeers) Peer(region.Name) (region.Descriptor, bool) { return region.Descriptor{}, false }

func (p *clockPeers) Authority(region.Name) keyops.Authority { return keyops.Authority{} }

// TestClocksApart: what is due by a clock that a peer contradicts by a minute or more is
// destroyed once the clocks agree, and not before.
func TestClocksApart(t *testing.T) {
	c, peers := newClock(), &clockPeers{apart: keyops.MaxApart}
	r := keyopstest.New(t, keyopstest.Options{Clock: c.now, Elapsed: c.passed, Peers: peers})
	k := create(t, r, keyops.CreateKeyInput{})
	schedule(t, r, k, 7)
	pass(t, r, c, 8*aDay, time.Hour)
	if !exists(t, r, k) {
		t.Fatal("a key was destroyed while two clocks were a minute apart")
	}
	peers.apart = keyops.MaxApart - time.Second
	pass(t, r, c, time.Minute, time.Minute)
	if exists(t, r, k) {
		t.Error("the key is due, the clocks are less than a minute apart, and it is still there")
	}
}

// skewed is a network whose clocks differ.
type skewed struct {
	*keyopstest.Network
	apart time.Duration
}

func (p *skewed) ClocksApart() (region.Name, time.Duration) { return "us-east-1", p.apart }

// TestApprovalsNeedAClock: who cannot know what time it is cannot know whether an approval
// has expired, counts none, and has spent none when the clocks agree again.
func TestApprovalsNeedAClock(t *testing.T) {
	peers := &skewed{Network: keyopstest.NewNetwork()}
	w := guardedOn(t, peers.Network, peers, nil)
	id := w.shared(t)
	request, err := w.suspend(t, id, keyops.Approvals{Request: true})
	if err != nil {
		t.Fatal(explain(err))
	}
	suspension := keyops.Approvals{Files: approved(t, w.paris, requestIn(t, request), 2)}
	p, list := w.tokyo.Promotion(t, []region.Name{"eu-paris-1"}, id)
	promotion := keyopstest.PromoteInput(t, p, list, id, w.tokyo.Approve(t, p.Request(), 2))

	peers.apart = time.Minute
	_, err = w.suspend(t, id, suspension)
	want(t, err, keyops.ErrAccessDenied, "us-east-1 differs by 1m0s")
	_, err = w.tokyo.PromoteKey(t.Context(), admin(), promotion)
	want(t, err, keyops.ErrAccessDenied, "The approvals are not spent")
	if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Active {
		t.Errorf("the replica is %s", s)
	}
	if k, _ := w.tokyo.SharedKey(id); k.Set.Acting() {
		t.Error("promoted")
	}

	peers.apart = 59 * time.Second
	if _, err := w.suspend(t, id, suspension); err != nil {
		t.Error("suspending: ", explain(err))
	}
	if _, err := w.tokyo.PromoteKey(t.Context(), admin(), promotion); err != nil {
		t.Error("promoting: ", explain(err))
	}
}

// TestNothingBacksUp: who makes a key on a token that nothing is known to back up is told.
func TestNothingBacksUp(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{}) // on a fake token, whose profile says none
	for multiRegion, want := range map[bool]string{
		false: "Nothing is known to back this Region's token up, and single-Region keys are in no other: the key is lost with the token.",
		true:  "Nothing is known to back this Region's token up: replicate the key, or it is lost with the token.",
	} {
		out, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{MultiRegion: multiRegion})
		if err != nil {
			t.Fatal(explain(err))
		}
		if len(out.Warnings) != 1 || out.Warnings[0] != want {
			t.Errorf("multi-Region %v: warnings %q, want %q", multiRegion, out.Warnings, want)
		}
	}
	out, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{Origin: keyops.OriginExternal})
	if err != nil {
		t.Fatal(explain(err))
	}
	if len(out.Warnings) != 0 {
		t.Errorf("a key whose owner has the material: warnings %q", out.Warnings)
	}
}

// TestGrowth counts what the token holds, and not what it is to hold.
func TestGrowth(t *testing.T) {
	r, c := onAClock(t)
	create(t, r, keyops.CreateKeyInput{})
	c.advance(40 * aDay)
	for range 3 {
		create(t, r, keyops.CreateKeyInput{})
	}
	create(t, r, keyops.CreateKeyInput{Origin: keyops.OriginExternal})
	g := r.Growth()
	want := keyops.Growth{Keys: 5, Materials: 4, New: 3, Over: 30 * aDay, Fullest: 5, Quota: g.Quota}
	if g != want || g.Quota == 0 {
		t.Errorf("growth %+v, want %+v", g, want)
	}
	if got := g.PerDay(); got != 0.1 {
		t.Errorf("%v materials a day, want 0.1", got)
	}
}
