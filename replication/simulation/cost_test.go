package simulation

import (
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
)

// A rotation over three Regions costs the primary Region two messages to each replica: the
// material with what lists it, and the release. The replicas tell each other nothing that the
// primary Region tells both, but for one message that shows it.
func TestMessagesOfARotation(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	for _, n := range w.nodes { // digests are not due again for a while
		for _, peer := range w.nodes {
			if n != peer {
				n.run.repl.Round(t.Context(), peer.name)
			}
		}
	}
	old := a.key(id).Current
	if _, err := a.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id)}); err != nil {
		t.Fatal(err)
	}
	sent := func(from, to *node) int {
		w.tap = &[]parcel{}
		defer func() { w.tap = nil }()
		from.run.repl.Round(t.Context(), to.name)
		return len(*w.tap)
	}
	toB, toC := sent(a, b), sent(a, c)
	toB += sent(a, b)
	for _, n := range w.nodes {
		if n.key(id).Current == old {
			t.Errorf("%s encrypts with the old material after %d and %d messages", n.name, toB, toC)
		}
	}
	if toB > 3 || toC > 3 { // one of them may show that both ends know the same
		t.Errorf("%d and %d messages to the replicas", toB, toC)
	}
	if n := sent(b, c) + sent(c, b) + sent(b, a) + sent(c, a); n != 0 {
		t.Errorf("%d messages of what everybody is about to know", n)
	}
	w.now = w.now.Add(time.Second)
	if n := sent(b, c) + sent(c, b) + sent(b, a) + sent(c, a) + sent(a, b) + sent(a, c); n > 4 {
		t.Errorf("%d messages until everybody has shown what it knows", n)
	}
	if marks := len(a.marks()) + len(b.marks()) + len(c.marks()); marks != 0 {
		t.Errorf("%d marks are left", marks)
	}
	w.heal()
}
