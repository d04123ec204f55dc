package keyops_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

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
	// The approvals have expired before Tokyo could hear of them. It takes new ones.
	if err := w.paris.Synchronize(t.Context()); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("by approvals of eight days before: %v", err)
	}
	if p, r := w.stages(t); p != synchronization.Ending || r != synchronization.Associated {
		t.Errorf("by approvals of eight days before the association is %s, %s", p, r)
	}
	w.end(t)
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
