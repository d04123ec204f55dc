package keyops_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/storetest"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// synced is two Regions, of which Tokyo is the replica instance of Paris for all keys, with
// one key that both have.
type synced struct {
	two
	id  string
	key arn.KeyID
}

func newSynced(t *testing.T) synced { return newSyncedAt(t, nil) }

func newSyncedAt(t *testing.T, clock func() time.Time) synced {
	t.Helper()
	w := synced{two: guarded(t, clock)}
	w.id = synchronizationIn(t, w.paris)
	if err := associate(w.paris, t, w.id, "ap-tokyo-1"); err != nil {
		t.Fatal(explain(err))
	}
	w.key = w.supply(t)
	return w
}

// supply makes a key, and waits until Tokyo has it.
func (w synced) supply(t *testing.T) arn.KeyID {
	t.Helper()
	id := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true}).KeyID
	if err := w.paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sync(t, id)
	return id
}

func (w synced) input(a keyops.Approvals) keyops.DisassociateReplicaInstanceInput {
	return keyops.DisassociateReplicaInstanceInput{
		SynchronizationID: w.id, ReplicaInstance: "ap-tokyo-1", ConfirmInstanceID: string(w.tokyo.Descriptor.Instance), Approvals: a,
	}
}

// approvals returns those of Tokyo's operators.
func (w synced) approvals(t *testing.T, n int) keyops.Approvals {
	t.Helper()
	out, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), w.input(keyops.Approvals{Request: true}))
	if err != nil {
		t.Fatal(explain(err))
	}
	return keyops.Approvals{Files: approved(t, w.tokyo, requestIn(t, out.ApprovalRequest), n)}
}

// deletion returns the approvals of Tokyo's operators for the deletion of a key in a week.
func (w synced) deletion(t *testing.T, id arn.KeyID) keyops.Approvals {
	t.Helper()
	in := keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7, Approvals: keyops.Approvals{Request: true}}
	out, err := w.tokyo.ScheduleKeyDeletion(t.Context(), admin(), in)
	if err != nil {
		t.Fatal(explain(err))
	}
	return keyops.Approvals{Files: approved(t, w.tokyo, requestIn(t, out.ApprovalRequest), 2)}
}

func (w synced) end(t *testing.T) {
	t.Helper()
	if _, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), w.input(w.approvals(t, 2))); err != nil {
		t.Fatal(explain(err))
	}
}

// stages returns the stage of the association by the word of each end.
func (w synced) stages(t *testing.T) (paris, tokyo synchronization.Stage) {
	t.Helper()
	var got []synchronization.Stage
	for _, r := range []*keyopstest.Region{w.paris, w.tokyo} {
		out, err := r.GetSynchronization(t.Context(), admin(), keyops.GetSynchronizationInput{SynchronizationID: w.id})
		if err != nil {
			t.Fatal(explain(err))
		}
		if n := len(out.Synchronization.Replicas); n != 1 {
			t.Fatalf("%d replica instances", n)
		}
		got = append(got, out.Synchronization.Replicas[0].Stage)
	}
	return got[0], got[1]
}

// transportObjects counts the transport keys in a Region's token.
func transportObjects(r *keyopstest.Region) int {
	n := 0
	for _, o := range r.Token.Objects() {
		if o.Spec.Role == hsm.RoleTransportSource || o.Spec.Role == hsm.RoleTransportDestination {
			n++
		}
	}
	return n
}

// TestDisassociate: the pair is severed for good, keys and cryptography stay, and nothing
// brings the pair back.
func TestDisassociate(t *testing.T) {
	w := newSynced(t)
	sealed, err := w.tokyo.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(w.key), Plaintext: x})
	if err != nil {
		t.Fatal(explain(err))
	}
	by := admin()
	in := w.input(w.approvals(t, 2))
	if p, r := w.stages(t); p != synchronization.Associated || r != p {
		t.Fatalf("asking has made the association %s, %s", p, r)
	}
	out, err := w.paris.DisassociateReplicaInstance(t.Context(), by, in)
	if err != nil {
		t.Fatal(explain(err))
	}
	if got := out.Synchronization.Replicas; len(got) != 1 || got[0].Stage != synchronization.Ended {
		t.Errorf("the answer has %+v", got)
	}
	again := func(when string) {
		t.Helper()
		if p, r := w.stages(t); p != synchronization.Ended || r != p {
			t.Errorf("%s the association is %s, %s", when, p, r)
		}
		for _, name := range []string{"ap-tokyo-1", string(w.tokyo.Descriptor.Instance)} {
			want(t, associate(w.paris, t, w.id, name), keyops.ErrUnsupportedOperation, "never be associated again")
		}
		_, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), in)
		want(t, err, keyops.ErrInvalidState, "disassociated already")
		_, err = w.paris.ReplicateKey(t.Context(), admin(), keyops.ReplicateKeyInput{KeyID: string(w.key), ReplicaRegion: "ap-tokyo-1"})
		want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
		_, err = w.tokyo.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
		want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
		opened, err := w.tokyo.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
		if err != nil || !bytes.Equal(opened.Plaintext, x) {
			t.Errorf("%s Tokyo opens %q: %v", when, opened.Plaintext, explain(err))
		}
	}
	w.tell(t, w.key, w.paris, w.tokyo)
	if s := statusIn(t, w.paris, w.key, "ap-tokyo-1"); s != mrk.Retained {
		t.Errorf("Tokyo is %s", s)
	}
	if k, _ := w.tokyo.SharedKey(w.key); k.State != "Enabled" {
		t.Errorf("Tokyo's key is %s", k.State)
	}
	if err := errors.Join(w.tokyo.Synchronize(t.Context()), w.paris.Synchronize(t.Context())); err != nil {
		t.Error(err)
	}
	if p, r := transportObjects(w.paris), transportObjects(w.tokyo); p != 0 || r != 0 {
		t.Errorf("%d and %d transport keys are left", p, r)
	}
	again("at once")
	w.paris.Restart(t)
	w.tokyo.Restart(t)
	again("after a restart")

	// Keys go on without Tokyo, which is waited for no more, and new ones are not sent there.
	if _, err := w.paris.RotateKeyOnDemand(t.Context(), admin(), keyops.RotateKeyOnDemandInput{KeyID: string(w.key)}); err != nil {
		t.Error(explain(err))
	}
	later := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	if err := w.paris.Synchronize(t.Context()); err != nil {
		t.Error(err)
	}
	if s := statusIn(t, w.paris, later.KeyID, "ap-tokyo-1"); s != mrk.Removed {
		t.Errorf("of a later key Tokyo is %s", s)
	}
	if _, err := w.tokyo.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(w.key), Plaintext: x}); err != nil {
		t.Error(explain(err))
	}
	names := map[arn.KeyID]string{w.key: "old", later.KeyID: "new"}
	if diff := cmp.Diff([]string{"old ap-tokyo-1 SUSPENDED REPLICA_FROZEN"}, rows(t, w.paris, w.id, names, keyops.ResourceFilter{})); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}

	var recorded []string
	for _, l := range auditLines(t, w.paris, by.RequestID) {
		recorded = append(recorded, l.Outcome+" "+l.Details["approvedBy"])
	}
	if got := recorded[len(recorded)-1]; got != "Success operator-1, operator-2" {
		t.Errorf("Paris recorded %v", recorded)
	}
	if text := auditText(t, w.tokyo); strings.Count(text, `"event":"DisassociateReplicaInstance"`) != 1 ||
		!strings.Contains(text, `"approvedBy":"operator-1, operator-2"`) || !strings.Contains(text, `"claimedPrincipal":"arn:aws:iam::111122223333:user/admin"`) {
		t.Errorf("Tokyo recorded %s", text)
	}
}

// What does not disassociate leaves everything as it was, at both ends.
func TestDisassociateRefused(t *testing.T) {
	w := newSynced(t)
	good := w.approvals(t, 2)
	file, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), w.input(keyops.Approvals{Request: true}))
	if err != nil {
		t.Fatal(explain(err))
	}
	q := requestIn(t, file.ApprovalRequest)
	tokyo := w.tokyo.Descriptor.Instance
	wantObject := []approval.Detail{
		{Name: "synchronization", Text: w.id + " of account 111122223333"},
		{Name: "primary instance", Text: "eu-paris-1, instance " + string(w.paris.Descriptor.Instance)},
		{Name: "replica instance", Text: "ap-tokyo-1, instance " + string(tokyo)},
		{Name: "then", Text: "it changes no multi-Region key and makes no key any more, keeps those that it has, and goes on using them"},
	}
	if diff := cmp.Diff(wantObject, q.Object); diff != "" || q.Region != "ap-tokyo-1" || q.Instance != string(tokyo) {
		t.Errorf("request %+v (-want +got):\n%s", q, diff)
	}
	other := q
	other.Object = slices.Clone(q.Object)
	other.Object[0].Text = noSync + " of account 111122223333"
	for name, tt := range map[string]struct {
		change func(*keyops.DisassociateReplicaInstanceInput)
		want   keyops.Reason
		why    string
	}{
		"not confirmed":             {func(in *keyops.DisassociateReplicaInstanceInput) { in.ConfirmInstanceID = "" }, keyops.ErrValidation, string(tokyo)},
		"confirmed by Region":       {func(in *keyops.DisassociateReplicaInstanceInput) { in.ConfirmInstanceID = "ap-tokyo-1" }, keyops.ErrValidation, "cannot be undone"},
		"confirmed another":         {func(in *keyops.DisassociateReplicaInstanceInput) { in.ConfirmInstanceID = "kfi-000000000000" }, keyops.ErrValidation, "cannot be undone"},
		"another synchronization":   {func(in *keyops.DisassociateReplicaInstanceInput) { in.SynchronizationID = noSync }, keyops.ErrNotFound, "does not exist"},
		"an instance not in it":     {func(in *keyops.DisassociateReplicaInstanceInput) { in.ReplicaInstance = "us-east-1" }, keyops.ErrNotFound, "not associated"},
		"the primary instance":      {func(in *keyops.DisassociateReplicaInstanceInput) { in.ReplicaInstance = "eu-paris-1" }, keyops.ErrNotFound, "not associated"},
		"without approvals":         {func(in *keyops.DisassociateReplicaInstanceInput) { in.Approvals.Files = nil }, keyops.ErrAccessDenied, "2 of the 3 operators (roster version 0) of Region ap-tokyo-1"},
		"one of two":                {func(in *keyops.DisassociateReplicaInstanceInput) { in.Approvals.Files = good.Files[:1] }, keyops.ErrAccessDenied, "1 of 2 needed"},
		"of the primary's own":      {func(in *keyops.DisassociateReplicaInstanceInput) { in.Approvals.Files = approved(t, w.paris, q, 2) }, keyops.ErrAccessDenied, "no operator's on the roster"},
		"of another":                {func(in *keyops.DisassociateReplicaInstanceInput) { in.Approvals.Files = approved(t, w.tokyo, other, 2) }, keyops.ErrAccessDenied, "differs at \"synchronization\""},
		"no approvals, but a novel": {func(in *keyops.DisassociateReplicaInstanceInput) { in.Approvals.Files = [][]byte{x} }, keyops.ErrValidation, "Approval 1"},
	} {
		t.Run(name, func(t *testing.T) {
			in := w.input(good)
			tt.change(&in)
			_, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), in)
			want(t, err, tt.want, tt.why)
		})
	}
	_, err = w.tokyo.DisassociateReplicaInstance(t.Context(), admin(), w.input(good))
	want(t, err, keyops.ErrUnsupportedOperation, "eu-paris-1")

	// Tokyo has the primary key of a key of its own, of which Paris knows nothing.
	own := create(t, w.tokyo, keyops.CreateKeyInput{MultiRegion: true})
	_, err = w.paris.DisassociateReplicaInstance(t.Context(), admin(), w.input(good))
	want(t, err, keyops.ErrInvalidState, string(own.KeyID))
	// And Tokyo's say does not rest on what Paris has checked.
	sev := synchronization.Severance{
		ID: synchronization.ID(w.id), Account: keyopstest.Account, Principal: admin().Principal.String(), At: time.Unix(1_900_000_000, 0),
		Primary: synchronization.EndOf(w.paris.Descriptor.Descriptor), Replica: synchronization.EndOf(w.tokyo.Descriptor.Descriptor),
	}
	claim := keyops.DisassociationClaim{Source: "eu-paris-1", Instance: w.paris.Descriptor.Instance, Severed: synchronization.Severed{Severance: sev}}
	_, err = w.tokyo.Disassociate(t.Context(), claim)
	want(t, err, keyops.ErrInvalidState, string(own.KeyID))
	claim.Severed, err = synchronization.Sever(t.Context(), w.tokyo.Signer(), sev) // its own hand, under another's name
	if err != nil {
		t.Fatal(err)
	}
	if err := w.tokyo.KeepSevered(t.Context(), []synchronization.Severed{claim.Severed}); !errors.Is(err, statement.ErrSignature) {
		t.Error("a severance was believed that the primary instance has not signed")
	}
	if p, r := w.stages(t); p != synchronization.Associated || r != p {
		t.Errorf("after refusals the association is %s, %s", p, r)
	}
	for _, r := range []*keyopstest.Region{w.paris, w.tokyo} {
		if got := r.Severed(); len(got) != 0 {
			t.Errorf("severed: %v", got)
		}
	}
	create(t, w.tokyo, keyops.CreateKeyInput{})
}

// TestFrozenOperations asks a frozen instance for every operation of the table, on a key of
// each kind, and compares the answers with the table.
func TestFrozenOperations(t *testing.T) {
	w := newSynced(t)
	single, spare := create(t, w.tokyo, keyops.CreateKeyInput{}), create(t, w.tokyo, keyops.CreateKeyInput{})
	if _, err := w.tokyo.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/kept", TargetKeyID: string(w.key)}); err != nil {
		t.Fatal(explain(err))
	}
	w.end(t)
	w.tell(t, w.key, w.paris, w.tokyo)
	before, _ := w.tokyo.SharedKey(w.key)
	table := keyops.FrozenOperations()
	tried := map[string]bool{"ExplainAccess": true, "GetCallerIdentity": true} // of nobody's key
	refused := func(name, key string, err error) bool {
		t.Helper()
		var e *keyops.Error
		is := errors.As(err, &e) && strings.HasPrefix(e.Message, "REPLICA_FROZEN: ")
		if is != errors.Is(err, keyops.ErrReplicaFrozen) || is && e.Reason != keyops.ErrInvalidState {
			t.Errorf("%s on %s: %v", name, key, explain(err))
		}
		return is
	}
	for _, op := range onAKey {
		tried[op.name] = true
		for _, key := range []string{string(w.key), single.ARN} {
			kept := table[op.name] == "other" && key == string(w.key)
			if err := op.call(t.Context(), w.tokyo, admin(), key); refused(op.name, key, err) != kept {
				t.Errorf("%s on %s, which the table calls %q: %v", op.name, key, table[op.name], explain(err))
			}
		}
	}
	for _, op := range onNoKey {
		tried[op.name] = true
		if err := op.call(t.Context(), w.tokyo, admin(), ""); refused(op.name, "no key", err) != (table[op.name] == "no") {
			t.Errorf("%s, which the table calls %q: %v", op.name, table[op.name], explain(err))
		}
	}
	for name, word := range table {
		switch {
		case word == "":
			t.Errorf("the table does not say what a frozen instance does with %s", name)
		case !tried[name] && name != "DeleteAlias":
			t.Errorf("%s was not asked for", name)
		}
	}
	// An alias of a kept key is not taken from it, by its name or by another key.
	_, err := w.tokyo.DeleteAlias(t.Context(), admin(), keyops.DeleteAliasInput{AliasName: "alias/kept"})
	want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
	_, err = w.tokyo.UpdateAlias(t.Context(), admin(), keyops.UpdateAliasInput{AliasName: "alias/kept", TargetKeyID: spare.ARN})
	want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
	after, _ := w.tokyo.SharedKey(w.key)
	if after.Version != before.Version || after.State != before.State || !bytes.Equal(after.Policy, before.Policy) || !maps.Equal(after.Tags, before.Tags) {
		t.Errorf("the kept key has changed: version %d, now %d", before.Version, after.Version)
	}
	// A caller without permission hears nothing of the freeze.
	_, err = w.tokyo.CreateKey(t.Context(), keyopstest.User("mallory"), keyops.CreateKeyInput{})
	want(t, err, keyops.ErrAccessDenied, "kms:CreateKey")
}

// A Region that is dark is frozen when it is back, and whatever dies in between loses nothing.
func TestDisassociateDarkInstance(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	w := newSyncedAt(t, func() time.Time { return now })
	waiting := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true}).KeyID
	if err := w.paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.tell(t, waiting, w.paris, w.tokyo) // Tokyo has heard of it, and has no material
	w.net.SetDark("ap-tokyo-1", true)
	out, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), w.input(w.approvals(t, 2)))
	if err != nil {
		t.Fatal(explain(err))
	}
	if got := out.Synchronization.Replicas[0].Stage; got != synchronization.Ending {
		t.Errorf("of a dark instance the stage is %s", got)
	}
	names := map[arn.KeyID]string{w.key: "old", waiting: "new"}
	if got := rows(t, w.paris, w.id, names, keyops.ResourceFilter{}); fmt.Sprint(got) != "[old ap-tokyo-1 PENDING PEER_UNREACHABLE]" {
		t.Errorf("rows %v", got)
	}
	if a, b := statusIn(t, w.paris, w.key, "ap-tokyo-1"), statusIn(t, w.paris, waiting, "ap-tokyo-1"); a != mrk.Retained || b != mrk.Evicted {
		t.Errorf("Tokyo is %s, and %s of what it had never used", a, b)
	}
	w.paris.Restart(t)
	if err := w.paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, r := w.stages(t); p != synchronization.Ending || r != synchronization.Associated {
		t.Errorf("the association is %s, %s", p, r)
	}
	w.net.SetDark("ap-tokyo-1", false)
	// Meanwhile it has got a primary key, which nobody could manage any more.
	own := create(t, w.tokyo, keyops.CreateKeyInput{MultiRegion: true}).KeyID
	if err := w.paris.Synchronize(t.Context()); err == nil || !strings.Contains(err.Error(), string(own)) {
		t.Errorf("a dark instance that has a primary key: %v", err)
	}
	if p, r := w.stages(t); p != synchronization.Ending || r != synchronization.Associated {
		t.Errorf("the association is %s, %s", p, r)
	}
	if _, err := w.tokyo.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(own), PendingWindowInDays: 7, Approvals: w.deletion(t, own)}); err != nil {
		t.Fatal(explain(err))
	}
	for range 16 {
		now = now.Add(12 * time.Hour)
		if err := w.tokyo.Work(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := w.paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, r := w.stages(t); p != synchronization.Ended || r != p {
		t.Errorf("once it is back the association is %s, %s", p, r)
	}
	// What was never usable is dropped, and the rest stays.
	w.tell(t, waiting, w.paris, w.tokyo)
	w.tell(t, w.key, w.paris, w.tokyo)
	for range 3 { // no key is destroyed in the first day of a Region's clock
		now = now.Add(13 * time.Hour)
		if err := w.tokyo.Work(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if k, _ := w.tokyo.SharedKey(waiting); !k.Gone() {
		t.Errorf("the key that was never finished is %s", k.State)
	}
	if k, _ := w.tokyo.SharedKey(w.key); k.Gone() || k.State != "Enabled" {
		t.Errorf("the other key is %s", k.State)
	}
}

// Restores do not bring a pair back: each end's word is at the other one.
func TestSeveredOutlivesRestores(t *testing.T) {
	for _, name := range []string{"the primary instance", "the replica instance"} {
		t.Run(name, func(t *testing.T) {
			w := newSynced(t)
			r, other := w.paris, w.tokyo
			if name != "the primary instance" {
				r, other = other, r
			}
			backup := filepath.Join(t.TempDir(), "backup")
			r.Stop()
			copyStore(t, r.StorePath, backup)
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.end(t)
			r.Stop()
			copyStore(t, backup, r.StorePath)
			r.Believe(t)
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(r.Severed()) != 0 {
				t.Fatal("the store is not of before")
			}
			if err := r.KeepSevered(t.Context(), other.Severed()); err != nil {
				t.Fatal(err)
			}
			w.tell(t, w.key, other, r) // a store from before has to hear the others before it acts
			if err := r.Synchronize(t.Context()); err != nil {
				t.Error(err)
			}
			if p, q := w.stages(t); p != synchronization.Ended || q != p {
				t.Errorf("after its restore the association is %s, %s", p, q)
			}
			want(t, associate(w.paris, t, w.id, "ap-tokyo-1"), keyops.ErrUnsupportedOperation, "never be associated again")
			_, err := w.tokyo.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
			want(t, err, keyops.ErrInvalidState, "REPLICA_FROZEN")
		})
	}
}

// A Region that was initialised again is another instance, and still the same Region.
func TestSeveredOutlivesInitialisation(t *testing.T) {
	w := newSynced(t)
	w.end(t)
	w.tokyo.Stop()
	again := keyopstest.New(t, keyopstest.Options{Name: "ap-tokyo-1", Peers: w.net, Operators: 3})
	w.net.Add(again)
	for _, name := range []string{"ap-tokyo-1", string(again.Descriptor.Instance)} {
		want(t, associate(w.paris, t, w.id, name), keyops.ErrUnsupportedOperation, "never be associated again")
	}
	// It hears of it from Paris, and then refuses by itself. It is not frozen: it is another one.
	if err := again.KeepSevered(t.Context(), w.paris.Severed()); err != nil {
		t.Fatal(err)
	}
	claim := keyops.AssociationClaim{
		Source: "eu-paris-1", Instance: w.paris.Descriptor.Instance, Synchronization: synchronization.ID(w.id),
		Account: keyopstest.Account, Principal: admin().Principal, KeyQuota: 1,
	}
	want(t, again.Associate(t.Context(), claim), keyops.ErrUnsupportedOperation, "never be associated again")
	create(t, again, keyops.CreateKeyInput{})
}

// A peer cannot make others remember any number of pairs.
func TestSeveredIsBounded(t *testing.T) {
	w := newTwo(t)
	sever := func(n int) error {
		f, err := synchronization.Sever(t.Context(), w.tokyo.Signer(), synchronization.Severance{
			ID: "sync-0123456789ab", Account: keyopstest.Account, Principal: "arn:aws:iam::111122223333:user/admin", At: time.Unix(1_900_000_000, 0),
			Primary: synchronization.EndOf(w.tokyo.Descriptor.Descriptor),
			Replica: synchronization.End{Region: "eu-oslo-1", Instance: region.InstanceID(fmt.Sprintf("kfi-%012x", n))},
		})
		if err != nil {
			t.Fatal(err)
		}
		return w.paris.KeepSevered(t.Context(), []synchronization.Severed{f})
	}
	for n := range 64 {
		if err := sever(n); err != nil {
			t.Fatalf("pair %d: %v", n+1, err)
		}
	}
	if err := sever(64); !errors.Is(err, keyops.ErrLimitExceeded) || len(w.paris.Severed()) != 64 {
		t.Errorf("pair 65: %v", err)
	}
	if err := sever(0); err != nil || len(w.paris.Severed()) != 64 {
		t.Errorf("a pair that is known: %v", err)
	}
}

// TestDisassociationDies: either end dies at each of its transactions, as failed and as failed
// but applied. Once both are there again, what was begun durably comes to its end, and what was
// not leaves nothing behind.
func TestDisassociationDies(t *testing.T) {
	for _, name := range []region.Name{"eu-paris-1", "ap-tokyo-1"} {
		for _, stage := range []storetest.Stage{storetest.Within, storetest.After} {
			t.Run(fmt.Sprintf("%s %s", name, stage), func(t *testing.T) {
				deaths := 0
				for dieAt(t, name, stage, deaths+1) {
					deaths++
				}
				if atLeast := map[region.Name]int{"eu-paris-1": 3, "ap-tokyo-1": 1}[name]; deaths < atLeast {
					t.Errorf("%d transactions, want %d or more", deaths, atLeast)
				}
			})
		}
	}
}

// dieAt disassociates while one end dies at its n-th transaction, and reports whether it did.
func dieAt(t *testing.T, name region.Name, stage storetest.Stage, n int) (died bool) {
	w := newSynced(t)
	in := w.input(w.approvals(t, 2))
	r := map[region.Name]*keyopstest.Region{"eu-paris-1": w.paris, "ap-tokyo-1": w.tokyo}[name]
	armed := true
	r.Options.Store = func(s store.Store) store.Store {
		return storetest.NewFaulty(s, func(p storetest.Point) error {
			if !armed || p.Stage != stage || !strings.Contains(strings.Join(p.Wrote, " "), "severed") && !strings.Contains(strings.Join(p.Wrote, " "), "put key") {
				return nil
			}
			if n--; n == 0 {
				died = true
				return storetest.ErrCrash
			}
			return nil
		})
	}
	r.Restart(t)
	_, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), in)
	armed = false
	begun := len(w.paris.Severed()) > 0
	if !died {
		if err != nil {
			t.Fatal(explain(err))
		}
		return false
	}
	r.Restart(t)
	if len(w.paris.Severed()) == 0 {
		if p, q := w.stages(t); begun || err == nil || p != synchronization.Associated || q != p {
			t.Errorf("death %d at transaction of %s: %v, and the association is %s, %s", n, name, err, p, q)
		}
		return true
	}
	w.tell(t, w.key, w.tokyo, w.paris) // one that died has to hear the others before it acts
	if err := errors.Join(w.paris.Synchronize(t.Context()), w.tokyo.Synchronize(t.Context())); err != nil {
		t.Error(err)
	}
	if p, q := w.stages(t); p != synchronization.Ended || q != p {
		t.Errorf("%s died at transaction %d, %s: the association is %s, %s", name, n, stage, p, q)
	}
	if s := statusIn(t, w.paris, w.key, "ap-tokyo-1"); s != mrk.Retained {
		t.Errorf("%s died: Tokyo is %s", name, s)
	}
	if p, q := transportObjects(w.paris), transportObjects(w.tokyo); p != 0 || q != 0 {
		t.Errorf("%s died: %d and %d transport keys are left", name, p, q)
	}
	return true
}
