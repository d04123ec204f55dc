package keyops_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// TestPromoteKey: a list of keys is approved once and promoted key by key, each once, and by
// nothing less. The Region before is fenced at first contact.
func TestPromoteKey(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	w := guarded(t, func() time.Time { return now })
	ids := []arn.KeyID{w.shared(t), w.shared(t), w.shared(t)}
	outside := ids[2]
	p, list := w.tokyo.Promotion(t, []region.Name{"eu-paris-1"}, ids[:2]...)
	files := w.tokyo.Approve(t, p.Request(), 2)
	one := keyopstest.PromoteInput(t, p, list, ids[0], files)

	changed := func(change func(*keyops.PromoteKeyInput)) keyops.PromoteKeyInput {
		in := one
		in.Path = slices.Clone(one.Path)
		change(&in)
		return in
	}
	again := func(change func(*mrk.Promotion)) keyops.PromoteKeyInput {
		other := p
		change(&other)
		return keyopstest.PromoteInput(t, other, list, ids[0], w.tokyo.Approve(t, other.Request(), 2))
	}
	for _, tt := range []struct {
		name   string
		in     keyops.PromoteKeyInput
		at     time.Duration
		reason keyops.Reason
		why    string
	}{
		{"no approvals", changed(func(in *keyops.PromoteKeyInput) { in.Approvals = nil }), 0, keyops.ErrAccessDenied, "2 of its 3 operators"},
		{"too few", changed(func(in *keyops.PromoteKeyInput) { in.Approvals = in.Approvals[:1] }), 0, keyops.ErrAccessDenied, "1 of 2 needed"},
		{"the same twice", changed(func(in *keyops.PromoteKeyInput) { in.Approvals = [][]byte{in.Approvals[0], in.Approvals[0]} }), 0, keyops.ErrAccessDenied, "counts once"},
		{"by another Region's operators", keyopstest.PromoteInput(t, p, list, ids[0], w.paris.Approve(t, p.Request(), 2)), 0, keyops.ErrAccessDenied, "no operator's"},
		{"expired", one, time.Hour, keyops.ErrAccessDenied, "expired"},
		{"that live longer than any may", again(func(p *mrk.Promotion) { p.Expires = p.Expires.Add(8 * 24 * time.Hour) }), 0, keyops.ErrAccessDenied, "none may live longer"},
		{"a key that is not on the list", changed(func(in *keyops.PromoteKeyInput) { in.KeyID = string(outside) }), 0, keyops.ErrAccessDenied, "list of keys"},
		{"in the place of another", changed(func(in *keyops.PromoteKeyInput) { in.KeyIndex = 1 - in.KeyIndex }), 0, keyops.ErrAccessDenied, "list of keys"},
		{"a place outside", changed(func(in *keyops.PromoteKeyInput) { in.KeyIndex = 2 }), 0, keyops.ErrValidation, "keyIndex"},
		{"no path", changed(func(in *keyops.PromoteKeyInput) { in.Path = nil }), 0, keyops.ErrValidation, "path"},
		{"a short hash", changed(func(in *keyops.PromoteKeyInput) { in.Path[0] = in.Path[0][:31] }), 0, keyops.ErrValidation, "32 bytes"},
		{"too long a path", changed(func(in *keyops.PromoteKeyInput) { in.Path = slices.Repeat(in.Path, mrk.MaxPath+1) }), 0, keyops.ErrValidation, "at most 20"},
		{"other Regions suspended", changed(func(in *keyops.PromoteKeyInput) { in.SuspendRegions = nil }), 0, keyops.ErrAccessDenied, "Regions not waited for"},
		{"no Region", changed(func(in *keyops.PromoteKeyInput) { in.SuspendRegions = []string{"Paris"} }), 0, keyops.ErrValidation, "suspendRegions"},
		{"itself suspended", changed(func(in *keyops.PromoteKeyInput) { in.SuspendRegions = []string{"ap-tokyo-1"} }), 0, keyops.ErrValidation, "cannot be suspended"},
		{"for another Region", again(func(p *mrk.Promotion) { p.Target = "us-east-1" }), 0, keyops.ErrAccessDenied, "its Region differs"},
		{"of a single-Region key", changed(func(in *keyops.PromoteKeyInput) { in.KeyID = create(t, w.tokyo, keyops.CreateKeyInput{}).ARN }), 0, keyops.ErrUnsupportedOperation, "not a multi-region key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := now
			defer func() { now = before }()
			now = now.Add(tt.at)
			_, err := w.tokyo.PromoteKey(t.Context(), admin(), tt.in)
			want(t, err, tt.reason, tt.why)
			if k, _ := w.tokyo.SharedKey(ids[0]); k.Set.Acting() {
				t.Fatal("promoted")
			}
		})
	}
	_, err := w.paris.PromoteKey(t.Context(), admin(), changed(func(in *keyops.PromoteKeyInput) { in.SuspendRegions = nil }))
	want(t, err, keyops.ErrUnsupportedOperation, "primary key already")

	now = now.Add(time.Hour - time.Second) // the last second
	for i, id := range ids[:2] {
		by := admin()
		out, err := w.tokyo.PromoteKey(t.Context(), by, keyopstest.PromoteInput(t, p, list, id, files))
		if err != nil {
			t.Fatal(explain(err))
		}
		if k, _ := w.tokyo.SharedKey(id); !k.Set.Acting() || out.Generation != 1 {
			t.Errorf("key %d: acting %v, generation %d", i, k.Set.Acting(), out.Generation)
		}
		lines := auditLines(t, w.tokyo, by.RequestID)
		last := lines[len(lines)-1]
		if last.Outcome != string(audit.Success) || last.Details["request"] != p.Request().ID() || last.Details["approvedBy"] != "operator-1, operator-2" || last.Details["suspendRegions"] != "eu-paris-1" {
			t.Errorf("recorded as %+v", last)
		}
	}
	now = now.Add(time.Minute) // what has expired since still fences
	md, err := w.tokyo.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: string(ids[0])})
	if err != nil || md.KeyMetadata.MultiRegionConfiguration.MultiRegionKeyType != keyops.Primary ||
		md.KeyMetadata.MultiRegionConfiguration.Epoch.Generation != 1 || md.KeyMetadata.MultiRegionConfiguration.ReplicaKeys[0].Member != "SUSPENDED" {
		t.Errorf("described as %+v, %v", md.KeyMetadata.MultiRegionConfiguration, err)
	}
	w.tell(t, ids[0], w.tokyo, w.paris)
	if k, _ := w.paris.SharedKey(ids[0]); k.Set.Acting() || k.Set.Primary() != "ap-tokyo-1" {
		t.Error("the Region before was not fenced")
	}
	_, err = w.paris.SuspendReplica(t.Context(), admin(), keyops.SuspendReplicaInput{KeyID: string(ids[0]), ReplicaRegion: "ap-tokyo-1"})
	want(t, err, keyops.ErrUnsupportedOperation, "ap-tokyo-1")
}

// The approvals of a list are spent key by key: after a hand-over back they do not count again.
func TestPromoteKeyOnce(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	p, list := w.tokyo.Promotion(t, nil, id)
	in := keyopstest.PromoteInput(t, p, list, id, w.tokyo.Approve(t, p.Request(), 1))
	if _, err := w.tokyo.PromoteKey(t.Context(), admin(), in); err != nil {
		t.Fatal(explain(err))
	}
	_, err := w.tokyo.PromoteKey(t.Context(), admin(), in)
	want(t, err, keyops.ErrUnsupportedOperation, "primary key already")
	w.tell(t, id, w.tokyo, w.paris)
	w.paris.Promote(t, nil, id) // the Region before, with approvals of its own
	k, _ := w.paris.SharedKey(id)
	if e := k.Set.Epoch(); e.Line.Generation != 2 || !k.Set.Acting() {
		t.Errorf("epoch %v, acting %v", e, k.Set.Acting())
	}
	w.tell(t, id, w.paris, w.tokyo)
	_, err = w.tokyo.PromoteKey(t.Context(), admin(), in)
	want(t, err, keyops.ErrAccessDenied, "needs 3 or more")
}

// A hand-over whose target is lost is ended by promoting the Region that offered it.
func TestPromoteKeyEndsHandOver(t *testing.T) {
	w := newTwo(t)
	id := w.shared(t)
	if _, err := w.paris.UpdatePrimaryRegion(t.Context(), admin(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: "ap-tokyo-1"}); err != nil {
		t.Fatal(explain(err))
	}
	w.net.SetDark("ap-tokyo-1", true)
	if k, _ := w.paris.SharedKey(id); k.State != "Updating" {
		t.Fatalf("state %s", k.State)
	}
	_, err := w.paris.SuspendReplica(t.Context(), admin(), keyops.SuspendReplicaInput{KeyID: string(id), ReplicaRegion: "ap-tokyo-1"})
	want(t, err, keyops.ErrInvalidState, "updating")
	w.paris.Promote(t, []region.Name{"ap-tokyo-1"}, id)
	k, _ := w.paris.SharedKey(id)
	if k.State != "Enabled" || !k.Set.Acting() {
		t.Errorf("state %s, acting %v", k.State, k.Set.Acting())
	}
	if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Suspended {
		t.Errorf("the lost Region is %s", s)
	}
}
