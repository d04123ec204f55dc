package simulation

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// network carries messages, or does not.
type network struct {
	cut  map[[2]region.Name]bool // ordered pairs that do not reach each other
	late []parcel                // messages that are still on their way, perhaps for long
}

type parcel struct {
	from, to region.Name
	message  []byte
}

const maxLate = 40

func newNetwork() network { return network{cut: map[[2]region.Name]bool{}} }

func (n *network) heal() { clear(n.cut) }

// join lets two Regions reach each other again.
func (n *network) join(a, b *node) {
	delete(n.cut, [2]region.Name{a.name, b.name})
	delete(n.cut, [2]region.Name{b.name, a.name})
}

// link is the way from one Region to another, in one run of the first one's daemon.
type link struct {
	w    *world
	from *run
	to   region.Name
}

var _ replication.Link = link{}

// Reconnect does nothing: each message makes its own way.
func (link) Reconnect() {}

// Close does nothing.
func (link) Close() error { return nil }

var errLost = fmt.Errorf("%w: lost on the way", keyops.ErrPeerUnreachable)

// Exchange carries a message and its answer. On the way anything can happen, at either end
// too; what the receiver's daemon does is done within the call, which nobody can tell from
// doing it meanwhile.
func (l link) Exchange(ctx context.Context, message []byte) ([]byte, error) {
	w, from := l.w, l.from.node.name
	if l.from.dead {
		return nil, errLost
	}
	if w.tap != nil {
		*w.tap = append(*w.tap, parcel{from, l.to, message})
	}
	w.check() // what is true must be true between any two messages
	w.overhear(parcel{from, l.to, message})
	w.meanwhile(6)
	if l.from.dead || w.net.cut[[2]region.Name{from, l.to}] {
		return nil, errLost
	}
	fate := 100
	if w.faults {
		fate = w.rng.IntN(100)
	}
	switch {
	case fate < 3:
		w.note("%s to %s: lost", from, l.to)
		return nil, errLost
	case fate < 7:
		w.note("%s to %s: late", from, l.to)
		w.net.keep(parcel{from, l.to, message}, w)
		return nil, errLost
	case fate < 10:
		w.note("%s to %s: comes twice", from, l.to)
		w.net.keep(parcel{from, l.to, message}, w)
	}
	answer, err := w.receive(from, l.to, message)
	if err != nil {
		return nil, err
	}
	if l.from.dead || fate >= 10 && fate < 13 || w.net.cut[[2]region.Name{l.to, from}] {
		w.note("%s to %s: answer lost", from, l.to)
		return nil, errLost
	}
	return answer, nil
}

func (n *network) keep(p parcel, w *world) {
	if len(n.late) < maxLate {
		n.late = append(n.late, p)
		return
	}
	n.late[w.rng.IntN(maxLate)] = p
}

// overhear keeps some messages for a thief to repeat.
func (w *world) overhear(p parcel) {
	if !w.robbed {
		return
	}
	if len(w.overheard) < maxLate {
		w.overheard = append(w.overheard, p)
	} else if w.chance(30) {
		w.overheard[w.rng.IntN(maxLate)] = p
	}
}

// receive hands a message to the daemon at its destination.
func (w *world) receive(from, to region.Name, message []byte) ([]byte, error) {
	n := w.node(to)
	if !n.running() {
		return nil, errLost
	}
	if n.lies != nil {
		if answer, lied := n.lies(from, message); lied {
			return answer, nil
		}
	}
	r := n.run
	answer, err := r.repl.Receive(context.Background(), from, message)
	if r.dead {
		return nil, errLost
	}
	w.testimony.hears(n) // before it answers
	if err != nil {
		// What a gRPC server would say of it, to the same effect.
		return nil, fmt.Errorf("%w: refused: %w", keyops.ErrPeerUnreachable, err)
	}
	return answer, nil
}

// deliver brings a message that was late, to whoever now has the address.
func (w *world) deliver() {
	if len(w.net.late) == 0 {
		return
	}
	i := w.rng.IntN(len(w.net.late))
	p := w.net.late[i]
	if !w.chance(30) { // some come again and again
		w.net.late = append(w.net.late[:i:i], w.net.late[i+1:]...)
	}
	_, err := w.receive(p.from, p.to, p.message)
	w.note("%s to %s: arrives late: %t", p.from, p.to, err == nil)
}
