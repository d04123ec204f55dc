package keyops_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// listed returns a list of keys as a Region knows them.
func listed(t *testing.T, r *keyopstest.Region, ids ...arn.KeyID) mrk.KeyList {
	t.Helper()
	var keys []mrk.ListedKey
	for _, id := range ids {
		k, err := r.SharedKey(id)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, mrk.ListedKey{Key: id, Head: k.Set.Head()})
	}
	list, err := mrk.NewKeyList(keys)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func placeOf(t *testing.T, list mrk.KeyList, id arn.KeyID) keyops.KeyPlace {
	t.Helper()
	proof, found := list.Prove(id)
	if !found {
		t.Fatalf("%s is not on the list", id)
	}
	return keyopstest.Place(proof)
}

// TestMembersByList: operators approve once that many keys go on without a Region, and later
// that it is evicted from them. The approval counts once for each key of the list, for one
// operation and one Region, and for no other key.
func TestMembersByList(t *testing.T) {
	w := guarded(t, nil)
	ids := []arn.KeyID{w.shared(t), w.shared(t), w.shared(t)}
	list := listed(t, w.paris, ids[:2]...)
	suspend := func(id arn.KeyID, place keyops.KeyPlace, a keyops.Approvals) ([]byte, error) {
		out, err := w.paris.SuspendReplica(t.Context(), admin(), keyops.SuspendReplicaInput{KeyID: string(id), ReplicaRegion: "ap-tokyo-1", KeyPlace: place, Approvals: a})
		return out.ApprovalRequest, err
	}
	evict := func(id arn.KeyID, place keyops.KeyPlace, a keyops.Approvals) ([]byte, error) {
		out, err := w.paris.EvictReplica(t.Context(), admin(), keyops.EvictReplicaInput{KeyID: string(id), ReplicaRegion: "ap-tokyo-1", KeyPlace: place, Approvals: a})
		return out.ApprovalRequest, err
	}
	file, err := suspend(ids[0], placeOf(t, list, ids[0]), keyops.Approvals{Request: true})
	if err != nil {
		t.Fatal(explain(err))
	}
	q := requestIn(t, file)
	want2 := []approval.Detail{
		{Name: "keys", Text: "2"}, {Name: mrk.DetailKeys, Text: list.Root().String()},
		{Name: "Region", Text: "ap-tokyo-1"}, {Name: "instance", Text: string(w.tokyo.Descriptor.Instance)},
	}
	if q.Operation != approval.SuspendRegion || len(q.Object) != len(want2) {
		t.Fatalf("request %+v", q)
	}
	for i, d := range want2 {
		if q.Object[i] != d {
			t.Errorf("the request says %+v, want %+v", q.Object[i], d)
		}
	}
	files := keyops.Approvals{Files: approved(t, w.paris, q, 2)}

	outside := listed(t, w.paris, ids...)
	for name, tt := range map[string]struct {
		id     arn.KeyID
		place  keyops.KeyPlace
		reason keyops.Reason
		why    string
	}{
		"no place":                {ids[0], keyops.KeyPlace{}, keyops.ErrAccessDenied, "its object differs"},
		"a key outside":           {ids[2], placeOf(t, list, ids[0]), keyops.ErrAccessDenied, `differs at "list of keys"`},
		"in another's place":      {ids[0], placeOf(t, list, ids[1]), keyops.ErrAccessDenied, `differs at "list of keys"`},
		"on a longer list":        {ids[2], placeOf(t, outside, ids[2]), keyops.ErrAccessDenied, `its object differs at "keys"`},
		"a path without list":     {ids[0], keyops.KeyPlace{Path: placeOf(t, list, ids[0]).Path}, keyops.ErrValidation, "keyCount"},
		"a path that is short":    {ids[0], keyops.KeyPlace{KeyCount: 2}, keyops.ErrValidation, "as many hashes"},
		"a place that is no":      {ids[0], keyops.KeyPlace{KeyCount: 2, KeyIndex: 2}, keyops.ErrValidation, "keyIndex"},
		"a list that is too long": {ids[0], keyops.KeyPlace{KeyCount: mrk.MaxListed + 1}, keyops.ErrValidation, "at most 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := suspend(tt.id, tt.place, files)
			want(t, err, tt.reason, tt.why)
			if s := statusIn(t, w.paris, tt.id, "ap-tokyo-1"); s != mrk.Active {
				t.Errorf("the replica is %s", s)
			}
		})
	}
	_, err = evict(ids[0], placeOf(t, list, ids[0]), files)
	want(t, err, keyops.ErrAccessDenied, "its operation differs")

	for _, id := range ids[:2] {
		if _, err := suspend(id, placeOf(t, list, id), files); err != nil {
			t.Fatal(explain(err))
		}
		if s := statusIn(t, w.paris, id, "ap-tokyo-1"); s != mrk.Suspended {
			t.Errorf("the replica is %s", s)
		}
	}
	w.sync(t, ids[0]) // the Region comes back by itself, and its approval is spent
	_, err = suspend(ids[0], placeOf(t, list, ids[0]), files)
	want(t, err, keyops.ErrAccessDenied, "used before")

	// Nobody can be asked about a Region that a key of the list does not have.
	lonely := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true}).KeyID
	alone := listed(t, w.paris, lonely)
	_, err = evict(lonely, placeOf(t, alone, lonely), keyops.Approvals{Request: true})
	want(t, err, keyops.ErrNotFound, "no replica in Region ap-tokyo-1")

	file, err = evict(ids[2], placeOf(t, outside, ids[2]), keyops.Approvals{Request: true})
	if err != nil {
		t.Fatal(explain(err))
	}
	files.Files = approved(t, w.paris, requestIn(t, file), 2)
	for _, id := range ids {
		if _, err := evict(id, placeOf(t, outside, id), files); err != nil {
			t.Error(id, explain(err))
		}
	}
}
