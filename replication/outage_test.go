package replication_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// The outbox survives: a peer that is down when ReplicateKey is called gets its replica
// after the source was restarted and the peer has come, with no second call.
func TestPeerDown(t *testing.T) {
	sites := prepare(t, paris, east)
	source, destination := sites[0], sites[1]
	source.start()
	destination.region.Stop()
	id := source.createSymmetric()
	source.mustReplicate(id, destination)
	if row := source.status(id, destination); row.Status != replication.StatusPending && row.Status != replication.StatusFailed || row.KeyState != "Creating" {
		t.Fatalf("just accepted: %+v", row)
	}
	failed := func(atLeast int) {
		t.Helper()
		eventually(t, "the failure shows", func() (bool, string) {
			row := source.status(id, destination)
			return row.Status == replication.StatusFailed && row.Cause == string(mrk.CausePeerUnreachable) && row.Attempts >= atLeast &&
				!row.NextTry.IsZero() && row.Text != "" && row.LagFacts > 0, fmt.Sprintf("%+v", row)
		})
	}
	failed(1)
	failed(3)
	before := source.status(id, destination).Attempts
	source.restart()
	failed(before + 1)
	wraps := source.region.Fake.Calls()["C_WrapKey"]
	if wraps != 0 {
		t.Errorf("%d C_WrapKey for a peer that was never reached", wraps)
	}
	destination.start()
	source.synchronized(id, destination)
	encryptHereDecryptThere(t, id, source, destination)
	if got := source.region.Fake.Calls()["C_WrapKey"]; got != 1 {
		t.Errorf("%d C_WrapKey, want 1", got)
	}
	if got := destination.region.Fake.Calls()["C_UnwrapKey"]; got != 1 {
		t.Errorf("%d C_UnwrapKey, want 1", got)
	}
	row := source.status(id, destination)
	if row.LagFacts != 0 || row.Lag != 0 || row.Cause != "" || row.Attempts != 0 || row.LastSynchronized.IsZero() || len(row.Held) != 1 {
		t.Errorf("synchronized, but %+v", row)
	}
	eventually(t, "the outbox is empty", func() (bool, string) {
		m := append(source.region.Marks(), destination.region.Marks()...)
		return len(m) == 0, fmt.Sprint(m)
	})
}

// Either end may be restarted at any moment of making a replica.
func TestRestartsWhileReplicating(t *testing.T) {
	sites := deploy(t, paris, east)
	for i := range 6 {
		id := sites[0].createSymmetric()
		sites[0].mustReplicate(id, sites[1])
		sites[i%2].restart()
		sites[0].synchronized(id, sites[1])
		encryptHereDecryptThere(t, id, sites[0], sites[1])
		encryptHereDecryptThere(t, id, sites[1], sites[0])
	}
}

// While a peer is up its answer is waited for, and a refusal is the caller's at once.
func TestDestinationRefuses(t *testing.T) {
	sites := prepare(t, paris, east)
	sites[1].region.Options.Identities = nobody
	for _, s := range sites {
		s.start()
	}
	eventually(t, "the peer is connected", func() (bool, string) { return sites[0].repl.Heard(east), "not heard" })
	id := sites[0].createSymmetric()
	err := sites[0].replicate(id, sites[1])
	if !errors.Is(err, keyops.ErrAccessDenied) {
		t.Fatalf("got %v, want the destination's refusal", err)
	}
	if rows := sites[0].repl.Status(id); len(rows) != 1 {
		t.Errorf("the refused Region is listed: %+v", rows)
	}
}

// A destination that could not be asked decides when it hears, and its word shows. When its
// operators change their mind, nobody has to ask again.
func TestDestinationRefusesLater(t *testing.T) {
	sites := prepare(t, paris, east)
	sites[1].region.Options.Identities = nobody
	sites[0].start()
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[1].start()
	eventually(t, "the refusal shows", func() (bool, string) {
		row := sites[0].status(id, sites[1])
		return row.Status == replication.StatusFailed && row.Cause == string(mrk.CauseAccessDenied) && row.Attempts > 0, fmt.Sprintf("%+v", row)
	})
	if got := sites[0].region.Fake.Calls()["C_WrapKey"]; got != 0 {
		t.Errorf("%d C_WrapKey for a Region that refused", got)
	}
	sites[1].region.Options.Identities = keyopstest.AdminIdentities
	sites[1].restart()
	sites[0].synchronized(id, sites[1])
}

func TestReplicateKeyRefused(t *testing.T) {
	sites := deploy(t, paris, east)
	ctx := context.Background()
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	single, err := sites[0].region.CreateKey(ctx, keyopstest.Admin(), keyops.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		key  arn.KeyID
		by   *site
		to   string
		want keyops.Reason
	}{
		{"existing replica", id, sites[0], string(east), keyops.ErrAlreadyExists},
		{"own Region", id, sites[0], string(paris), keyops.ErrAlreadyExists},
		{"unknown Region", id, sites[0], "eu-nowhere-9", keyops.ErrInvalidArn},
		{"malformed Region", id, sites[0], "nowhere", keyops.ErrValidation},
		{"a replica's replica", id, sites[1], string(paris), keyops.ErrUnsupportedOperation},
		{"single-Region key", single.KeyMetadata.KeyID, sites[0], string(east), keyops.ErrUnsupportedOperation},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.by.region.ReplicateKey(ctx, keyopstest.Admin(), keyops.ReplicateKeyInput{KeyID: string(tt.key), ReplicaRegion: tt.to})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// A lost mark is found by the digests.
func TestLostOutbox(t *testing.T) {
	sites := prepare(t, paris, east)
	sites[0].start()
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	for _, m := range sites[0].region.Marks() {
		if err := sites[0].region.ClearMark(context.Background(), m.Key, m.Peer, m.SetHash); err != nil {
			t.Fatal(err)
		}
	}
	if len(sites[0].region.Marks()) != 0 {
		t.Fatal("the outbox is not empty")
	}
	sites[1].start()
	sites[0].synchronized(id, sites[1])
}

// A Region that lost its permit acts again when it has heard every other Region, and the
// others follow it into the new epoch.
func TestRenewalWaitsForAllRegions(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	sites[2].stop()
	sites[0].stop()
	sites[0].start()
	err := sites[0].region.UpdateShared(context.Background(), id, keyops.Cause{Event: "Test"}, func(k *keyops.Key) error {
		k.Set.DropPermit()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "Paris hears us-east-1", func() (bool, string) { return sites[0].repl.Heard(east), "" })
	if err := sites[0].replicate(id, sites[2]); !errors.Is(err, keyops.ErrInvalidState) {
		t.Fatalf("managing without a permit: %v", err)
	}
	encryptHereDecryptThere(t, id, sites[0], sites[1])
	sites[2].start()
	eventually(t, "Paris acts again", func() (bool, string) {
		k, err := sites[0].region.SharedKey(id)
		return err == nil && k.Set.Acting() && k.Set.Epoch().Number == 1, fmt.Sprint(err)
	})
	sites[0].synchronized(id, sites[1])
	sites[0].mustReplicate(id, sites[2])
	sites[0].synchronized(id, sites[1], sites[2])
}

// A replica whose token was emptied gets its material back, wrapped once more.
func TestTokenObjectLost(t *testing.T) {
	sites := deploy(t, paris, east)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	k, err := sites[1].region.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := sites[1].region.Fake.Destroy(context.Background(), k.Materials[0].Object); err != nil {
		t.Fatal(err)
	}
	sites[1].restart()
	eventually(t, "the material is back", func() (bool, string) {
		k, err := sites[1].region.SharedKey(id)
		return err == nil && len(k.Held()) == 1, fmt.Sprint(err)
	})
	sites[0].synchronized(id, sites[1])
	encryptHereDecryptThere(t, id, sites[0], sites[1])
}

// One correlation ID follows a replica through both audit logs.
func TestCorrelation(t *testing.T) {
	sites := deploy(t, paris, east)
	id := sites[0].createSymmetric()
	caller := keyopstest.Admin()
	caller.CorrelationID = "correlation-of-one-replica"
	if _, err := sites[0].region.ReplicateKey(context.Background(), caller, keyops.ReplicateKeyInput{KeyID: string(id), ReplicaRegion: string(east)}); err != nil {
		t.Fatal(err)
	}
	sites[0].synchronized(id, sites[1])
	for _, s := range sites {
		lines := auditLines(t, s)
		if !slices.ContainsFunc(lines, func(l string) bool { return contains(l, caller.CorrelationID) }) {
			t.Errorf("the audit log of %s does not name the correlation ID", s.name())
		}
	}
}

// nobody lets only somebody else do anything.
const nobody = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:user/nobody"}, "Action": "kms:CreateKey", "Resource": "*"}]}`

// A Region that only hears what is sent to it has not heard: what arrives may be of any
// age. It has to ask, and be answered.
func TestOnlyAnswersAreHeard(t *testing.T) {
	sites := deploy(t, paris, east)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	sites[0].stop()
	sites[0].config = func(c *replication.Config) { c.Peers[0].Address = freeAddress(t) } // nobody answers there
	sites[0].start()
	err := sites[0].region.UpdateShared(context.Background(), id, keyops.Cause{Event: "Test"}, func(k *keyops.Key) error {
		k.Set.DropPermit()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "us-east-1 reaches Paris", func() (bool, string) {
		row := sites[1].repl.Peers()[0]
		return !row.Connected.IsZero(), row.LastError
	})
	time.Sleep(500 * time.Millisecond) // two digests of us-east-1
	k, err := sites[0].region.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	if sites[0].repl.Heard(east) || k.Set.Acting() {
		t.Error("Paris took what it was sent for an answer")
	}
	sites[0].stop()
	sites[0].config = nil
	sites[0].start()
	eventually(t, "Paris acts again", func() (bool, string) {
		k, err := sites[0].region.SharedKey(id)
		return err == nil && k.Set.Acting(), fmt.Sprint(err)
	})
}
