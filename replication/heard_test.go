package replication_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// condemned is a Region that cannot read the row of one key.
type condemned struct {
	replication.Keys
	id arn.KeyID
}

var errRow = errors.New("row fails its seal")

func (c condemned) SharedKeys() []arn.KeyID {
	return slices.DeleteFunc(c.Keys.SharedKeys(), func(id arn.KeyID) bool { return id == c.id })
}

func (c condemned) SharedKey(id arn.KeyID) (*keyops.Key, error) {
	if id == c.id {
		return nil, errRow
	}
	return c.Keys.SharedKey(id)
}

func (c condemned) UpdateShared(ctx context.Context, id arn.KeyID, cause keyops.Cause, fn func(*keyops.Key) error) error {
	if id == c.id {
		return errRow
	}
	return c.Keys.UpdateShared(ctx, id, cause, fn)
}

// A key whose row a peer cannot read is that key's trouble. All others go on.
func TestUnreadableKeyBlocksNoOther(t *testing.T) {
	sites := deploy(t, paris, east)
	bad := sites[0].createSymmetric()
	sites[0].mustReplicate(bad, sites[1])
	sites[0].synchronized(bad, sites[1])
	sites[0].stop()
	sites[1].stop()
	sites[1].keys = func(k replication.Keys) replication.Keys { return condemned{k, bad} }
	sites[1].start()
	sites[0].start()
	eventually(t, "the failure shows", func() (bool, string) {
		row := sites[0].status(bad, sites[1])
		return row.Status == replication.StatusFailed && row.Cause == string(mrk.CauseTokenUnavailable), fmt.Sprintf("%+v", row)
	})
	good := sites[0].createSymmetric()
	sites[0].mustReplicate(good, sites[1])
	sites[0].synchronized(good, sites[1])
	if !sites[0].repl.Heard(east) {
		t.Error("us-east-1 counts as not heard")
	}
}

// An answer to a digest that cannot hold everything is continued behind what it named,
// settled or not: a Region that was heard has been asked about every key.
func TestDigestReachesEveryKey(t *testing.T) {
	sites := prepare(t, paris, east)
	r, err := replication.New(replication.Config{
		Self: sites[0].region.Descriptor.Descriptor, Peers: sites[0].peers(), Listener: closedListener(t), Log: sites[0].log,
	})
	if err != nil {
		t.Fatal(err)
	}
	self := mrk.Self{Region: paris, Instance: sites[0].region.Descriptor.Instance}
	keys := newManyKeys(t, self, sites[1], 10_000)
	named := map[arn.KeyID]int{}
	answers := 0
	for from := 0; from < replication.DigestEnd; answers++ {
		b, err := r.AnswerDigest(keys, east, replication.DigestFrom(from))
		if err != nil {
			t.Fatal(err)
		}
		ids, next, err := replication.ReadDigestAnswer(b)
		if err != nil || next <= from {
			t.Fatalf("asked from bucket %d, next is %d: %v", from, next, err)
		}
		for _, id := range ids {
			named[id]++
		}
		from = next
	}
	if answers < 2 {
		t.Errorf("%d answer, the test needs more keys than one holds", answers)
	}
	for _, id := range keys.ids {
		if named[id] != 1 {
			t.Fatalf("key %s was named %d times", id, named[id])
		}
	}
}

// interrupted is a Region that is stopped while it takes over what a peer says.
type interrupted struct {
	replication.Keys
	reached chan struct{}
}

func (i interrupted) UpdateShared(ctx context.Context, _ arn.KeyID, _ keyops.Cause, _ func(*keyops.Key) error) error {
	select {
	case i.reached <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

// A Region that stops in the middle of hearing a peer has not heard it. Calls that it still
// answers may ask.
func TestStoppingIsNotHearing(t *testing.T) {
	sites := deploy(t, paris, east)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	sites[0].stop()
	sites[1].stop()
	sites[1].config = func(c *replication.Config) { c.Peers[0].Address = freeAddress(t) } // it only answers
	sites[1].start()
	if _, err := sites[1].region.DisableKey(context.Background(), keyopstest.Admin(), keyops.DisableKeyInput{KeyID: string(id)}); err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{}, 1)
	sites[0].keys = func(k replication.Keys) replication.Keys { return interrupted{k, reached} }
	sites[0].start()
	<-reached
	repl := sites[0].repl
	repl.Close()
	if repl.Heard(east) {
		t.Error("us-east-1 counts as heard")
	}
}

// A replica that lost its material gets it from another replica when the primary Region
// falls silent, although no fact has changed since the two agreed.
func TestSilentPrimaryIsStoodInFor(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1], sites[2])
	sites[0].synchronized(id, sites[1], sites[2])
	k, err := sites[1].region.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	lost := k.Materials[0].Object
	for _, s := range sites[:2] {
		s.stop()
	}
	// Paris and us-east-1 do not reach each other; Tokyo reaches both.
	apart := func(from, to *site) {
		from.config = func(c *replication.Config) {
			for i := range c.Peers {
				if c.Peers[i].Descriptor.Region == to.name() {
					c.Peers[i].Address = freeAddress(t)
				}
			}
		}
	}
	apart(sites[0], sites[1])
	apart(sites[1], sites[0])
	if err := sites[1].region.Fake.Destroy(context.Background(), lost); err != nil {
		t.Fatal(err)
	}
	sites[0].start()
	sites[1].start()
	eventually(t, "Tokyo knows of the loss, and leaves it to Paris", func() (bool, string) {
		k, err := sites[2].region.SharedKey(id)
		if err != nil {
			return false, err.Error()
		}
		_, marked := sites[2].region.Mark(id, east)
		return len(k.Set.Fact(east).Held) == 0 && !marked, fmt.Sprint(k.Set.Fact(east).Held, marked)
	})
	sites[0].stop()
	eventually(t, "us-east-1 has the material", func() (bool, string) {
		k, err := sites[1].region.SharedKey(id)
		return err == nil && len(k.Held()) == 1, fmt.Sprint(err)
	})
}

// strangers is a Region that also names keys of its own invention.
type strangers struct {
	replication.Keys
	more *manyKeys
}

func (s strangers) SharedKeys() []arn.KeyID { return append(s.Keys.SharedKeys(), s.more.ids...) }

func (s strangers) SharedKey(id arn.KeyID) (*keyops.Key, error) {
	if k := s.more.all[id]; k != nil {
		return k, nil
	}
	return s.Keys.SharedKey(id)
}

// A peer that names ever more keys that nobody can settle takes no memory.
func TestInventedKeysAreForgotten(t *testing.T) {
	sites := prepare(t, paris, east)
	more := newManyKeys(t, mrk.Self{Region: east, Instance: sites[1].region.Descriptor.Instance}, sites[0], 20)
	sites[1].keys = func(k replication.Keys) replication.Keys { return strangers{k, more} }
	for _, s := range sites {
		s.start()
	}
	eventually(t, "Paris has heard us-east-1", func() (bool, string) { return sites[0].repl.Heard(east), "" })
	if n := sites[0].repl.Unsettled(east); n != 0 {
		t.Errorf("%d keys that do not exist here are remembered", n)
	}
}

// The count of tries comes out of a row that is not sealed: any number has a delay.
func TestDelay(t *testing.T) {
	c := replication.Config{RetryMin: time.Second, RetryMax: time.Minute}
	for failures, want := range map[uint64]time.Duration{
		0: time.Second, 1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 100: time.Minute, math.MaxUint64: time.Minute,
	} {
		got := make(chan time.Duration, 1)
		go func() { got <- c.Delay(failures) }()
		select {
		case d := <-got:
			if d != want {
				t.Errorf("after %d failures %s, want %s", failures, d, want)
			}
		case <-time.After(time.Minute):
			t.Errorf("after %d failures there is no end", failures)
		}
	}
}
