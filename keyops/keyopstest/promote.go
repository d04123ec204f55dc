package keyopstest

import (
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// Promotion returns what operators of the Region are asked to approve so that it becomes the
// primary Region of some keys, and the list of them, as "keyferry key promote --force" does.
func (r *Region) Promotion(t testing.TB, suspend []region.Name, ids ...arn.KeyID) (mrk.Promotion, mrk.KeyList) {
	t.Helper()
	var keys []mrk.ListedKey
	generation := uint64(1)
	for _, id := range ids {
		k, err := r.SharedKey(id)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, mrk.ListedKey{Key: id, Head: k.Set.Head()})
		generation = max(generation, k.Set.NextGeneration())
	}
	list, err := mrk.NewKeyList(keys)
	if err != nil {
		t.Fatal(err)
	}
	roster, _, err := r.Dir.LoadRosters(r.Descriptor.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	return mrk.Promotion{
		Target: r.Options.Name, Instance: r.Descriptor.Instance, Generation: generation, Suspend: suspend,
		Keys: uint64(len(list)), Root: list.Root(), Roster: roster.Version,
		Serial: approval.NewSerial(), Expires: r.now().Add(time.Hour).Truncate(time.Second).UTC(),
	}, list
}

// PromoteInput is the call that promotes one key of an approved list.
func PromoteInput(t testing.TB, p mrk.Promotion, list mrk.KeyList, id arn.KeyID, approvals []statement.File) keyops.PromoteKeyInput {
	t.Helper()
	proof, ok := list.Prove(id)
	if !ok {
		t.Fatalf("%s is not on the list", id)
	}
	in := keyops.PromoteKeyInput{KeyID: string(id), KeyPlace: Place(proof)}
	for _, r := range p.Suspend {
		in.SuspendRegions = append(in.SuspendRegions, string(r))
	}
	for _, f := range approvals {
		b, err := statement.MarshalJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		in.Approvals = append(in.Approvals, b)
	}
	return in
}

// Place is a proof as callers of the service give it.
func Place(proof mrk.ListProof) keyops.KeyPlace {
	p := keyops.KeyPlace{KeyCount: proof.Count, KeyIndex: proof.Index}
	for _, h := range proof.Path {
		p.Path = append(p.Path, h[:])
	}
	return p
}

// Promote makes the Region the primary Region of some keys, approved by all its operators.
func (r *Region) Promote(t testing.TB, suspend []region.Name, ids ...arn.KeyID) {
	t.Helper()
	p, list := r.Promotion(t, suspend, ids...)
	files := r.Approve(t, p.Request(), len(r.Operators))
	for _, id := range ids {
		if _, err := r.PromoteKey(t.Context(), Admin(), PromoteInput(t, p, list, id, files)); err != nil {
			t.Fatal(err)
		}
	}
}
