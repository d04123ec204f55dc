package replication

import (
	"fmt"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// pins are the descriptors of the other Regions, which operators have confirmed.
type pins map[region.Name]region.Descriptor

// book is what a Region verifies facts with: the pins, its own descriptor among them, and the
// instances that are no more and that operators have confirmed, too.
type book struct {
	pins   pins
	former map[message.Party]region.Descriptor
}

var _ mrk.Historian = book{}

// Verify implements mrk.Verifier.
func (b book) Verify(r region.Name, instance region.InstanceID, s statement.Signed) error {
	d, ok := b.pins[r]
	if gone, was := b.former[message.Party{Region: r, Instance: instance}]; was {
		if !historic[s.Purpose] {
			return fmt.Errorf("%w: instance %s of Region %s is no more", errNotPinned, instance, r)
		}
		d, ok = gone, true
	}
	if !ok {
		return fmt.Errorf("%w: Region %s", errNotPinned, r)
	}
	if d.Instance != instance {
		return fmt.Errorf("%w: instance %s of Region %s, pinned is %s; if it is no more, pin its descriptor with keyferry-ceremony pin --former",
			errNotPinned, instance, r, d.Instance)
	}
	return d.Verify(s)
}

// Former implements mrk.Historian.
func (b book) Former(r region.Name, instance region.InstanceID) bool {
	_, was := b.former[message.Party{Region: r, Instance: instance}]
	return was
}

// historic are the statements that keys keep of an instance that is no more. That it severs a
// pair is not among them: it could not be undone.
var historic = map[statement.Purpose]bool{
	statement.Certificate: true, statement.State: true, statement.Member: true, statement.CreateReplica: true,
}
