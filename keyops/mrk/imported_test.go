package mrk_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// What a member has used and no state lists is listed again by the primary key's Region alone,
// when its owner has imported it there. Nobody else can name anything.
func TestRelist(t *testing.T) {
	w := imported(t)
	w.importInto(regionB, testMaterial(0))
	w.heal()
	a, b, lost := w.nodes[regionA], w.nodes[regionB], mrk.Listed{ID: testMaterial(1), Created: 1700000001, Reason: mrk.ReasonImport}
	if got := a.set.Orphans(); len(got) != 0 {
		t.Fatalf("used and not listed: %v", got)
	}
	b.used[lost.ID] = true // as of an epoch that is over
	w.importInto(regionB, lost.ID)
	w.heal()
	if got := a.set.Orphans(); !slices.Equal(got, []material.ID{lost.ID}) || len(a.set.Listed()) != 1 {
		t.Fatalf("used and not listed: %v; %d are listed on B's word", got, len(a.set.Listed()))
	}
	if err := a.set.Relist(ctx(), testSigner(regionA), mrk.Listed{ID: testMaterial(2)}); !errors.Is(err, mrk.ErrUnlisted) {
		t.Errorf("listing what nobody has used: %v", err)
	}
	if err := b.set.Relist(ctx(), testSigner(regionB), lost); !errors.Is(err, mrk.ErrNotPrimary) {
		t.Errorf("listing it at a replica key: %v", err)
	}
	w.must(a.set.Relist(ctx(), testSigner(regionA), lost))
	w.importInto(regionA, lost.ID)
	w.heal()
	st := b.set.State()
	if got := st.Materials[1]; got.ID != lost.ID || got.Reason != mrk.ReasonTakenBack || got.Created != lost.Created {
		t.Errorf("listed as %+v", got)
	}
	if st.Current != testMaterial(0) || !st.Pending.IsZero() || len(a.set.Orphans()) != 0 {
		t.Errorf("%.8s is current, %.8s is pending", st.Current, st.Pending)
	}
}

// The primary key's Region lists what it has used itself and does not find listed. An import
// that nobody has used is none of that: it was pending and was taken back.
func TestUsedImportsAreTakenBack(t *testing.T) {
	for _, used := range []bool{false, true} {
		w := imported(t)
		a := w.nodes[regionA]
		if used {
			a.used[testMaterial(1)] = true
		}
		w.importInto(regionA, testMaterial(1))
		w.heal()
		if got := len(a.set.Listed()); used != (got == 2) {
			t.Errorf("used %t: %d materials are listed", used, got)
		}
	}
}
