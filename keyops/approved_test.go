package keyops_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// guarded is two Regions with three operators each, of whom two must approve everything.
func guarded(t *testing.T, clock func() time.Time) two {
	t.Helper()
	net := keyopstest.NewNetwork()
	return guardedOn(t, net, net, clock)
}

// guardedOn is guarded, with Regions that see the network as peers.
func guardedOn(t *testing.T, net *keyopstest.Network, peers keyops.Peers, clock func() time.Time) two {
	t.Helper()
	all := approval.Optional()
	w := two{
		net:   net,
		paris: keyopstest.New(t, keyopstest.Options{Name: "eu-paris-1", Peers: peers, Operators: 3, Quorum: all, Clock: clock}),
		tokyo: keyopstest.New(t, keyopstest.Options{Name: "ap-tokyo-1", Peers: peers, Operators: 3, Quorum: all, Clock: clock}),
	}
	net.Add(w.paris, w.tokyo)
	keyopstest.Connect(t, w.paris, w.tokyo)
	return w
}

// shared makes a key with an active replica in Tokyo.
func (w two) shared(t *testing.T) arn.KeyID {
	t.Helper()
	id := w.replicate(t, keyops.CreateKeyInput{}).KeyID
	w.sync(t, id)
	return id
}

// suspend is one call, in the form that the tests of approvals need.
func (w two) suspend(t *testing.T, id arn.KeyID, a keyops.Approvals) ([]byte, error) {
	out, err := w.paris.SuspendReplica(t.Context(), admin(), keyops.SuspendReplicaInput{KeyID: string(id), ReplicaRegion: "ap-tokyo-1", Approvals: a})
	return out.ApprovalRequest, err
}

// requestIn reads a request that a Region has answered with.
func requestIn(t *testing.T, file []byte) approval.Request {
	t.Helper()
	var q approval.Request
	if err := statement.UnmarshalJSON(file, &q); err != nil {
		t.Fatalf("request %s: %v", file, err)
	}
	return q
}

// filesOf returns approvals as the API takes them.
func filesOf(t *testing.T, list []statement.File) [][]byte {
	t.Helper()
	var out [][]byte
	for _, f := range list {
		b, err := statement.MarshalJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func approved(t *testing.T, r *keyopstest.Region, q approval.Request, n int) [][]byte {
	t.Helper()
	return filesOf(t, r.Approve(t, q, n))
}

func statusIn(t *testing.T, r *keyopstest.Region, id arn.KeyID, of string) mrk.Status {
	t.Helper()
	k, err := r.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range k.Set.State().Members {
		if string(m.Region) == of {
			return m.Status
		}
	}
	return mrk.Removed
}

// TestApprovals: what counts, what does not, and that it counts once.
func TestApprovals(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	w := guarded(t, func() time.Time { return now })
	id, other := w.shared(t), w.shared(t)

	_, err := w.suspend(t, id, keyops.Approvals{})
	want(t, err, keyops.ErrAccessDenied, "2 of its 3 operators")
	want(t, err, keyops.ErrAccessDenied, "keyferry approve")

	ask := func(id arn.KeyID) approval.Request {
		t.Helper()
		file, err := w.suspend(t, id, keyops.Approvals{Request: true})
		if err != nil {
			t.Fatal(explain(err))
		}
		return requestIn(t, file)
	}
	q := ask(id)
	if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Active {
		t.Fatalf("asking has made the replica %s", s)
	}
	k, _ := w.paris.SharedKey(id)
	tokyo := w.tokyo.Descriptor.Instance
	wantObject := []approval.Detail{
		{Name: "key", Text: "arn:aws:kms:eu-paris-1:111122223333:key/" + string(id)},
		{Name: "primary Region", Text: "eu-paris-1, generation 0, number 0"},
		{Name: "newest certificate", Text: k.Set.Head().String()},
		{Name: "Region", Text: "ap-tokyo-1, instance " + string(tokyo) + ", replica 1"},
	}
	if diff := cmp.Diff(wantObject, q.Object); diff != "" || q.Operation != approval.SuspendRegion || !q.Expires.Equal(now.Add(24*time.Hour)) {
		t.Errorf("request %+v (-want +got):\n%s", q, diff)
	}

	good := approved(t, w.paris, q, 2)
	forKey := approved(t, w.paris, ask(other), 2)
	byTokyo := approved(t, w.tokyo, q, 2) // operators of another Region
	changed := q
	changed.Object = slices.Clone(q.Object)
	changed.Object[1].Text = "eu-paris-1, generation 0, number 1" // another epoch
	long := q
	long.Expires = now.Add(approval.MaxLife + time.Second)
	evict := q
	evict.Operation = approval.EvictReplica
	roster := q
	roster.Roster++
	for name, tt := range map[string]struct {
		files [][]byte
		at    time.Duration
		why   string
	}{
		"one of two":                 {good[:1], 0, "1 of 2 needed"},
		"the same one twice":         {[][]byte{good[0], good[0]}, 0, "counts once"},
		"of another key":             {forKey, 0, "its object differs at \"key\""},
		"of another epoch":           {approved(t, w.paris, changed, 2), 0, "its object differs at \"primary Region\""},
		"of another operation":       {approved(t, w.paris, evict, 2), 0, "its operation differs"},
		"of another roster":          {approved(t, w.paris, roster, 2), 0, "its roster version differs"},
		"of operators of another":    {byTokyo, 0, "no operator's on the roster"},
		"the second it expires":      {good, 24 * time.Hour, "expired at"},
		"that live longer than they": {approved(t, w.paris, long, 2), 0, "none may live longer"},
	} {
		t.Run(name, func(t *testing.T) {
			before := now
			defer func() { now = before }()
			now = now.Add(tt.at)
			_, err := w.suspend(t, id, keyops.Approvals{Files: tt.files})
			want(t, err, keyops.ErrAccessDenied, tt.why)
			if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Active {
				t.Errorf("the replica is %s", s)
			}
		})
	}
	for name, a := range map[string]keyops.Approvals{
		"no file":             {Files: [][]byte{[]byte("{}")}},
		"another encoding":    {Files: [][]byte{append([]byte(" "), good[0]...)}},
		"too many":            {Files: slices.Repeat(good[:1], approval.MaxOperators+1)},
		"given and asked for": {Files: good, Request: true},
		"too long a life":     {Request: true, Life: approval.MaxLife + time.Second},
		"half a second":       {Request: true, Life: time.Second / 2},
	} {
		_, err := w.suspend(t, id, a)
		if !errors.Is(err, keyops.ErrValidation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.suspend(t, id, keyops.Approvals{Request: true, Life: approval.MaxLife}); err != nil {
		t.Errorf("a request that lives as long as any may: %v", explain(err))
	}

	now = now.Add(24*time.Hour - time.Second) // the last second
	by := admin()
	in := keyops.SuspendReplicaInput{KeyID: string(id), ReplicaRegion: "ap-tokyo-1", Approvals: keyops.Approvals{Files: good}}
	if _, err := w.paris.SuspendReplica(t.Context(), by, in); err != nil {
		t.Fatal(explain(err))
	}
	if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Suspended {
		t.Fatalf("the replica is %s", s)
	}
	lines := auditLines(t, w.paris, by.RequestID)
	last := lines[len(lines)-1]
	if last.Outcome != string(audit.Success) || last.Details["request"] != q.ID() || last.Details["approvedBy"] != "operator-1, operator-2" || last.Details["replicaRegion"] != "ap-tokyo-1" {
		t.Errorf("recorded as %+v", last)
	}

	// Tokyo comes back by itself (rule 5), and the approvals are spent, over a restart, too.
	w.sync(t, id)
	if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Active {
		t.Fatalf("once it has caught up the replica is %s", s)
	}
	w.paris.Restart(t)
	_, err = w.suspend(t, id, keyops.Approvals{Files: good})
	want(t, err, keyops.ErrAccessDenied, "used before")
	if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Active {
		t.Errorf("by approvals that were used the replica is %s", s)
	}
}

// A configuration can do without approvals, but for promotions, which other Regions check.
func TestWithoutApprovals(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	_, err := w.suspend(t, id, keyops.Approvals{Request: true})
	want(t, err, keyops.ErrValidation, "without approvals")
	if _, err := w.suspend(t, id, keyops.Approvals{}); err != nil {
		t.Fatal(explain(err))
	}
	_, err = w.suspend(t, id, keyops.Approvals{})
	want(t, err, keyops.ErrInvalidState, "suspended already")
	_, err = w.tokyo.PromoteKey(t.Context(), admin(), keyops.PromoteKeyInput{KeyID: string(id)})
	want(t, err, keyops.ErrAccessDenied, "1 of its 1 operators")
	out, err := w.paris.DescribeRegion(t.Context(), admin(), keyops.DescribeRegionInput{})
	if err != nil || !slices.Equal(out.ApprovedOperations, []string{"force-promotion"}) || out.Operators != 1 || out.ApprovalsNeeded != 1 {
		t.Errorf("the Region says %v, %d of %d: %v", out.ApprovedOperations, out.ApprovalsNeeded, out.Operators, err)
	}
}

func TestMembersRefused(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	single := create(t, w.paris, keyops.CreateKeyInput{})
	for _, tt := range []struct {
		name string
		at   *keyopstest.Region
		key  arn.KeyID
		of   string
		want error
		why  string
	}{
		{"a single-Region key", w.paris, single.KeyID, "ap-tokyo-1", keyops.ErrUnsupportedOperation, "not a multi-region primary key"},
		{"at a replica", w.tokyo, id, "eu-paris-1", keyops.ErrUnsupportedOperation, "eu-paris-1"},
		{"the primary key", w.paris, id, "eu-paris-1", keyops.ErrUnsupportedOperation, "no replica"},
		{"a Region without replica", w.paris, id, "us-east-1", keyops.ErrNotFound, "no replica in Region us-east-1"},
		{"no Region", w.paris, id, "Tokyo", keyops.ErrValidation, "replicaRegion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.at.SuspendReplica(t.Context(), admin(), keyops.SuspendReplicaInput{KeyID: string(tt.key), ReplicaRegion: tt.of})
			want(t, err, tt.want.(keyops.Reason), tt.why)
			_, err = tt.at.EvictReplica(t.Context(), admin(), keyops.EvictReplicaInput{KeyID: string(tt.key), ReplicaRegion: tt.of})
			want(t, err, tt.want.(keyops.Reason), tt.why)
		})
	}
}

// An evicted Region's key is Disabled and stays so; the Region gets a replica again.
func TestEvictReplica(t *testing.T) {
	w := guarded(t, nil)
	id := w.shared(t)
	in := keyops.EvictReplicaInput{KeyID: string(id), ReplicaRegion: "ap-tokyo-1", Approvals: keyops.Approvals{Request: true}}
	out, err := w.paris.EvictReplica(t.Context(), admin(), in)
	if err != nil {
		t.Fatal(explain(err))
	}
	in.Approvals = keyops.Approvals{Files: approved(t, w.paris, requestIn(t, out.ApprovalRequest), 2)}
	if _, err := w.paris.EvictReplica(t.Context(), admin(), in); err != nil {
		t.Fatal(explain(err))
	}
	w.tell(t, id, w.paris, w.tokyo)
	if k, _ := w.tokyo.SharedKey(id); k.State != "Disabled" {
		t.Errorf("an evicted Region's key is %s", k.State)
	}
	_, err = w.tokyo.EnableKey(t.Context(), admin(), keyops.EnableKeyInput{KeyID: string(id)})
	want(t, err, keyops.ErrInvalidState, "evicted")
	_, err = w.paris.EvictReplica(t.Context(), admin(), in)
	want(t, err, keyops.ErrNotFound, "no replica")
	// The primary key can be deleted without it, which takes approvals of its own.
	del := keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7}
	_, err = w.paris.ScheduleKeyDeletion(t.Context(), admin(), del)
	want(t, err, keyops.ErrAccessDenied, "delete-primary-key")
	del.Approvals.Request = true
	asked, err := w.paris.ScheduleKeyDeletion(t.Context(), admin(), del)
	if err != nil || asked.KeyState != "Enabled" {
		t.Fatalf("asked: %+v, %v", asked, explain(err))
	}
	q := requestIn(t, asked.ApprovalRequest)
	del.Approvals = keyops.Approvals{Files: approved(t, w.paris, q, 2)}
	del.PendingWindowInDays = 8
	_, err = w.paris.ScheduleKeyDeletion(t.Context(), admin(), del)
	want(t, err, keyops.ErrAccessDenied, "waiting period in days")
	del.PendingWindowInDays = 7
	if got, err := w.paris.ScheduleKeyDeletion(t.Context(), admin(), del); err != nil || got.KeyState != "PendingDeletion" {
		t.Fatalf("approved: %+v, %v", got, explain(err))
	}
	if _, err := w.paris.CancelKeyDeletion(t.Context(), admin(), keyops.CancelKeyDeletionInput{KeyID: string(id)}); err != nil {
		t.Fatal(explain(err))
	}
	_, err = w.paris.ScheduleKeyDeletion(t.Context(), admin(), del)
	want(t, err, keyops.ErrAccessDenied, "used before")
	// A replica key, and a single-Region key, are deleted without.
	single := create(t, w.paris, keyops.CreateKeyInput{})
	if _, err := w.paris.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: single.ARN}); err != nil {
		t.Error(explain(err))
	}
	_, err = w.tokyo.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), Approvals: keyops.Approvals{Request: true}})
	want(t, err, keyops.ErrValidation, "without approvals")
	if _, err := w.tokyo.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id)}); err != nil {
		t.Error(explain(err))
	}
}

// A material that is in no token any more is given up, and nothing else is.
func TestWriteOffKeyMaterial(t *testing.T) {
	w := guarded(t, nil)
	id := w.shared(t)
	first := materialOf(t, w.paris, id)
	rotate := func() {
		t.Helper()
		if _, err := w.paris.RotateKeyOnDemand(t.Context(), admin(), keyops.RotateKeyOnDemandInput{KeyID: string(id)}); err != nil {
			t.Fatal(explain(err))
		}
		w.sync(t, id)
	}
	rotate()
	in := func(m string, a keyops.Approvals) keyops.WriteOffKeyMaterialInput {
		return keyops.WriteOffKeyMaterialInput{KeyID: string(id), KeyMaterialID: m, Approvals: a}
	}
	ask := keyops.Approvals{Request: true}
	for m, why := range map[string]struct {
		reason keyops.Reason
		words  string
	}{
		"":                                  {keyops.ErrValidation, "keyMaterialId"},
		strings.Repeat("0", 64):             {keyops.ErrNotFound, "no key material"},
		first.String():                      {keyops.ErrInvalidState, "not lost"},
		materialOf(t, w.paris, id).String(): {keyops.ErrInvalidState, "not lost"},
	} {
		_, err := w.paris.WriteOffKeyMaterial(t.Context(), admin(), in(m, ask))
		want(t, err, why.reason, why.words)
	}
	for _, r := range []*keyopstest.Region{w.paris, w.tokyo} { // both tokens lose it
		err := r.UpdateShared(t.Context(), id, cause, func(k *keyops.Key) error {
			k.Material(first).Lost = true
			return nil
		})
		if err != nil {
			t.Fatal(explain(err))
		}
	}
	w.sync(t, id)
	w.net.SetDark("ap-tokyo-1", true)
	_, err := w.paris.WriteOffKeyMaterial(t.Context(), admin(), in(first.String(), ask))
	want(t, err, keyops.ErrInvalidState, "has not heard")
	w.net.SetDark("ap-tokyo-1", false)
	out, err := w.paris.WriteOffKeyMaterial(t.Context(), admin(), in(first.String(), ask))
	if err != nil {
		t.Fatal(explain(err))
	}
	files := approved(t, w.paris, requestIn(t, out.ApprovalRequest), 2)
	if _, err := w.paris.WriteOffKeyMaterial(t.Context(), admin(), in(first.String(), keyops.Approvals{Files: files})); err != nil {
		t.Fatal(explain(err))
	}
	w.sync(t, id)
	list, err := w.paris.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: string(id), IncludeKeyMaterial: keyops.AllKeyMaterial})
	if err != nil || len(list.Rotations) != 2 || !list.Rotations[0].WrittenOff || list.Rotations[1].WrittenOff || list.Rotations[1].Holders != 2 {
		t.Errorf("materials %+v, %v", list.Rotations, err)
	}
	rotate() // the key goes on
	_, err = w.paris.WriteOffKeyMaterial(t.Context(), admin(), in(first.String(), ask))
	want(t, err, keyops.ErrInvalidState, "written off already")
}

// A rotation whose material would be in one token only needs somebody who accepts that.
func TestRotateAlone(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	if _, err := w.suspend(t, id, keyops.Approvals{}); err != nil {
		t.Fatal(explain(err))
	}
	rotate := func(alone bool) error {
		_, err := w.paris.RotateKeyOnDemand(t.Context(), admin(), keyops.RotateKeyOnDemandInput{KeyID: string(id), AcceptAlone: alone})
		return err
	}
	want(t, rotate(false), keyops.ErrInvalidState, "accept")
	if err := rotate(true); err != nil {
		t.Fatal(explain(err))
	}
	w.tell(t, id, w.tokyo, w.paris) // Paris steps
	list, err := w.paris.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: string(id)})
	if err != nil || len(list.Rotations) != 1 || list.Rotations[0].Holders != 1 {
		t.Errorf("rotations %+v, %v", list.Rotations, err)
	}
	w.sync(t, id)

	// One that has begun while somebody was awaited ends by the same word.
	if err := rotate(false); err != nil {
		t.Fatal(explain(err))
	}
	want(t, rotate(true), keyops.ErrConflict, "waits for an acceptance")
	if _, err := w.suspend(t, id, keyops.Approvals{}); err != nil {
		t.Fatal(explain(err))
	}
	status, err := w.paris.GetKeyRotationStatus(t.Context(), admin(), keyops.GetKeyRotationStatusInput{KeyID: string(id)})
	if err != nil || !status.Progress.Alone {
		t.Fatalf("progress %+v, %v", status.Progress, err)
	}
	if err := rotate(true); err != nil {
		t.Fatal(explain(err))
	}
	k, _ := w.paris.SharedKey(id)
	pending := k.Set.Pending()
	w.tell(t, id, w.tokyo, w.paris)
	if k, _ := w.paris.SharedKey(id); k.Current != pending {
		t.Errorf("current is %s, pending was %s", k.Current, pending)
	}
}
