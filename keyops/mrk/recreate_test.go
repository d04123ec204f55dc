package mrk_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// A Region whose store does not know the key is believed to have had it by its own word only.
func TestRecreate(t *testing.T) {
	self := mrk.Self{Region: regionB, Instance: testInstance(regionB)}
	without := func(r regionName) func(*world, *mrk.Facts) {
		return func(_ *world, f *mrk.Facts) {
			f.Members = slices.DeleteFunc(f.Members, func(m *mrk.Member) bool { return m.Region == r })
		}
	}
	tests := []struct {
		name string
		edit func(*world, *mrk.Facts)
		want error // nil: made again
	}{
		{"as it was", func(*world, *mrk.Facts) {}, nil},
		{"without another member's fact", without(regionC), nil},
		{"without its own fact", without(regionB), mrk.ErrRequest},
		{"with nobody's", func(_ *world, f *mrk.Facts) { f.Members = nil }, mrk.ErrRequest},
		{"without a state", func(_ *world, f *mrk.Facts) { f.State = nil }, mrk.ErrGap},
		{"deleted", func(w *world, f *mrk.Facts) { w.delete(regionB); *f = w.nodes[regionB].set.Facts(mrk.Hash{}) }, mrk.ErrRequest},
		{"evicted", func(w *world, f *mrk.Facts) {
			a := w.nodes[regionA]
			w.must(a.set.Evict(t.Context(), testSigner(regionA), regionB, false))
			*f = a.set.Facts(mrk.Hash{})
		}, mrk.ErrRequest},
		{"asked for again after its eviction", func(w *world, f *mrk.Facts) {
			a := w.nodes[regionA]
			w.must(a.set.Evict(t.Context(), testSigner(regionA), regionB, false))
			w.must(a.set.AddMember(t.Context(), testSigner(regionA), regionB, testInstance(regionB), mrk.CreateRequest{
				Principal: "arn:aws:iam::111122223333:user/alice", CorrelationID: "c", Policy: []byte("{}"),
			}))
			*f = a.set.Facts(mrk.Hash{})
		}, mrk.ErrRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := withReplicas(t)
			before := w.nodes[regionB].set
			f := w.nodes[regionA].set.Facts(mrk.Hash{})
			tt.edit(w, &f)
			set, used, err := mrk.Recreate(self, pins{}, f)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Recreate: %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			if set.Acting() || set.Incarnation() != before.Incarnation() || !slices.Equal(used, before.Own().Used) {
				t.Errorf("made again in incarnation %d, having used %d materials", set.Incarnation(), len(used))
			}
			if _, err := set.Reissue(t.Context(), testSigner(regionB), mrk.OwnFacts{Used: used, KeyState: "Disabled"}); err != nil || set.Own().Compare(before.Own()) <= 0 {
				t.Errorf("its next word does not count above its last one: %v", err)
			}
		})
	}
}
