package synchronization_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/wire"
)

// hand signs with a key on the host.
type hand struct{ key *ecdsa.PrivateKey }

func newHand(t *testing.T) hand {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return hand{k}
}

func (h hand) Sign(ctx context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	return statement.Sign(ctx, statement.HostKey(h.key), p, payload)
}

func severance() synchronization.Severance {
	return synchronization.Severance{
		ID: "sync-0123456789ab", Account: "111122223333", Principal: "arn:aws:iam::111122223333:user/admin", At: time.Unix(1_900_000_000, 0).UTC(),
		Primary: synchronization.End{Region: "eu-paris-1", Instance: instance(1)}, Replica: synchronization.End{Region: "us-east-1", Instance: instance(2)},
	}
}

// Whom a severance keeps apart, and what it forbids.
func TestSeveranceIsOfTwo(t *testing.T) {
	s := severance()
	other := func(e synchronization.End, change func(*synchronization.End)) synchronization.End {
		change(&e)
		return e
	}
	again := func(e *synchronization.End) { e.Instance = instance(9) } // initialised again
	moved := func(e *synchronization.End) { e.Region = "eu-oslo-1" }
	stranger := func(e *synchronization.End) { e.Region, e.Instance = "eu-oslo-1", instance(9) }
	for name, tt := range map[string]struct {
		primary, replica synchronization.End
		between, forbids bool
	}{
		"the pair":                   {s.Primary, s.Replica, true, true},
		"the other way round":        {s.Replica, s.Primary, true, true},
		"another replica instance":   {s.Primary, other(s.Replica, again), false, true},
		"another primary instance":   {other(s.Primary, again), s.Replica, false, true},
		"both initialised again":     {other(s.Primary, again), other(s.Replica, func(e *synchronization.End) { e.Instance = instance(8) }), false, true},
		"the instance, another name": {s.Primary, other(s.Replica, moved), false, true},
		"another primary Region":     {other(s.Primary, stranger), s.Replica, false, false},
		"another replica Region":     {s.Primary, other(s.Replica, stranger), false, false},
	} {
		if got := s.Between(tt.primary, tt.replica); got != tt.between {
			t.Errorf("%s: between %v", name, got)
		}
		if got := s.Forbids(tt.primary, tt.replica); got != tt.forbids {
			t.Errorf("%s: forbids %v", name, got)
		}
	}
}

// A severance has one form, and keeps the signatures that it was given.
func TestSeveredEncoding(t *testing.T) {
	paris, east := newHand(t), newHand(t)
	ended, err := synchronization.Sever(t.Context(), paris, severance())
	if err != nil {
		t.Fatal(err)
	}
	frozen, err := ended.Accept(t.Context(), east)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]synchronization.Severed{"ended": ended, "accepted": frozen} {
		got, err := synchronization.DecodeSevered(s.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if err := errors.Join(frozen.Ended.Verify(paris.key.Public()), frozen.Accepted.Verify(east.key.Public())); err != nil {
		t.Error(err)
	}
	swapped := frozen
	swapped.Ended, swapped.Accepted = frozen.Accepted, frozen.Ended
	mixed := frozen
	mixed.Accepted.Payload = bytes.Replace(frozen.Accepted.Payload, []byte("eu-paris-1"), []byte("eu-paris-2"), 1)
	itself := severance()
	itself.Replica.Region = itself.Primary.Region
	alone, err := synchronization.Sever(t.Context(), paris, itself)
	if err != nil {
		t.Fatal(err)
	}
	good := frozen.Encode()
	for name, b := range map[string][]byte{
		"swapped signatures": swapped.Encode(), "another accepted": mixed.Encode(), "from itself": alone.Encode(),
		"cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "empty": nil,
	} {
		if _, err := synchronization.DecodeSevered(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of two severances of a pair all Regions keep the same one, in whatever order they come.
func TestNewerIsAnOrder(t *testing.T) {
	h := newHand(t)
	var all []synchronization.Severed
	for _, at := range []int64{1_900_000_001, 1_900_000_002} {
		s := severance()
		s.At = time.Unix(at, 0).UTC()
		ended, err := synchronization.Sever(t.Context(), h, s)
		if err != nil {
			t.Fatal(err)
		}
		frozen, err := ended.Accept(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ended, frozen)
	}
	for i, a := range all {
		for j, b := range all {
			if a.Newer(b) && b.Newer(a) || i != j && !a.Newer(b) && !b.Newer(a) || i == j && a.Newer(b) {
				t.Errorf("%d and %d are in no order", i, j)
			}
			if a.Frozen() && !b.Frozen() && !a.Newer(b) {
				t.Errorf("%d, which is accepted, does not outrank %d", i, j)
			}
		}
	}
}
