package mrk_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func TestMergeRefuses(t *testing.T) {
	w := withReplicas(t)
	state, member := *w.nodes[regionA].set.State(), *w.nodes[regionB].set.Own()
	signState := func(by regionName, edit func(*mrk.State)) mrk.Facts {
		s := state
		s.Seq++
		s.Materials = append([]mrk.Listed{}, state.Materials...)
		s.Members = append([]mrk.Entry{}, state.Members...)
		edit(&s)
		signed, err := mrk.SignState(ctx(), testSigner(by), s)
		w.must(err)
		return mrk.Facts{Key: testKey, State: signed}
	}
	signMember := func(by regionName, edit func(*mrk.Member)) mrk.Facts {
		m := member
		m.Counter++
		edit(&m)
		signed, err := mrk.SignMember(ctx(), testSigner(by), m)
		w.must(err)
		return mrk.Facts{Key: testKey, Members: []*mrk.Member{signed}}
	}
	other := state.Epoch
	other.Nonce[0]++
	tests := []struct {
		name  string
		facts mrk.Facts
		want  error // nil: taken
	}{
		{"a newer state", signState(regionA, func(*mrk.State) {}), nil},
		{"a state written by a replica", signState(regionB, func(*mrk.State) {}), statement.ErrSignature},
		{"a state of an epoch without certificate", signState(regionA, func(s *mrk.State) { s.Epoch = other }), mrk.ErrGap},
		{"a state with another key spec", signState(regionA, func(s *mrk.State) { s.Spec = "HMAC_256" }), mrk.ErrProperties},
		{"a state with another account", signState(regionA, func(s *mrk.State) { s.Account = "999999999999" }), mrk.ErrProperties},
		{"a newer member fact", signMember(regionB, func(*mrk.Member) {}), nil},
		{"a member fact written by another Region", signMember(regionA, func(*mrk.Member) {}), statement.ErrSignature},
		{"a member fact of another instance", signMember(regionB, func(m *mrk.Member) { m.Instance = "kfi-000000000000" }), errAny},
		{"a forged member fact in C's name", signMember(regionB, func(m *mrk.Member) { m.Region = regionC; m.Instance = testInstance(regionC); m.Deleted = true }), statement.ErrSignature},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := w.nodes[regionC].set.Clone()
			before := set.Hash()
			res, err := set.Merge(pins{}, tt.facts)
			w.must(err)
			if tt.want == nil {
				if len(res.Refused) != 0 || !res.Changed {
					t.Fatalf("refused: %v", res.Refused)
				}
				return
			}
			if len(res.Refused) != 1 || tt.want != errAny && !errors.Is(res.Refused[0].Err, tt.want) {
				t.Fatalf("got %+v, want %v", res, tt.want)
			}
			if set.Hash() != before {
				t.Error("the refused fact was taken")
			}
			if got := res.Gap; got != errors.Is(tt.want, mrk.ErrGap) {
				t.Errorf("gap %v", got)
			}
		})
	}
}

var errAny = errors.New("any error")

func TestMergeRefusesFactsOfAnotherKey(t *testing.T) {
	w := newWorld(t)
	if _, err := w.nodes[regionA].set.Merge(pins{}, mrk.Facts{Key: "mrk-ff112233445566778899aabbccddeeff"}); !errors.Is(err, mrk.ErrForeign) {
		t.Errorf("got %v", err)
	}
}

func TestJoinRefuses(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	a := w.nodes[regionA].set
	facts := a.Facts(mrk.Hash{})
	good, _ := a.Request(regionB)
	self := mrk.Self{Region: regionB, Instance: testInstance(regionB)}
	sign := func(by regionName, edit func(*mrk.CreateRequest)) mrk.CreateRequest {
		r := good
		edit(&r)
		r, err := mrk.SignRequest(ctx(), testSigner(by), r)
		w.must(err)
		return r
	}
	noChain := facts
	noChain.Certificates = nil
	noState := facts
	noState.State = nil
	tests := []struct {
		name  string
		facts mrk.Facts
		req   mrk.CreateRequest
		want  error
	}{
		{"as it should be", facts, good, nil},
		{"for another Region", facts, sign(regionA, func(r *mrk.CreateRequest) { r.Destination = regionC }), mrk.ErrForeign},
		{"for another instance", facts, sign(regionA, func(r *mrk.CreateRequest) { r.ToInstance = testInstance(regionC) }), mrk.ErrForeign},
		{"from another Region", facts, sign(regionC, func(r *mrk.CreateRequest) { r.Source = regionC; r.Instance = testInstance(regionC) }), mrk.ErrRequest},
		{"signed by another Region", facts, sign(regionC, func(*mrk.CreateRequest) {}), statement.ErrSignature},
		{"of another incarnation", facts, sign(regionA, func(r *mrk.CreateRequest) { r.Incarnation = 2 }), mrk.ErrRequest},
		{"without certificates", noChain, good, mrk.ErrGap},
		{"without a state", noState, good, mrk.ErrGap},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, err := mrk.Join(self, pins{}, tt.facts, tt.req)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err == nil && set.Incarnation() != 1 {
				t.Errorf("incarnation %d", set.Incarnation())
			}
			if err == nil {
				if err := set.Admit(pins{}, tt.req); !errors.Is(err, mrk.ErrRequest) {
					t.Errorf("admitted twice: %v", err)
				}
			}
		})
	}
}

func TestLimitsOfASet(t *testing.T) {
	w := newWorld(t)
	set := w.nodes[regionA].set
	for i := 1; i < mrk.MaxMembers; i++ {
		r := regionName("eu-x-" + string(rune('0'+i/10)) + string(rune('0'+i%10)))
		w.must(set.AddMember(ctx(), testSigner(regionA), r, testInstance(r), mrk.CreateRequest{}))
	}
	if err := set.AddMember(ctx(), testSigner(regionA), regionB, testInstance(regionB), mrk.CreateRequest{}); !errors.Is(err, mrk.ErrFull) {
		t.Errorf("member %d: %v", mrk.MaxMembers+1, err)
	}
	twin := testMaterial(0)
	twin[31]++
	if err := set.RotateAlone(ctx(), testSigner(regionA), mrk.Listed{ID: twin}); !errors.Is(err, mrk.ErrMaterial) {
		t.Errorf("a second material with one prefix: %v", err)
	}
	full := *set.State()
	full.Seq++
	for i := len(full.Materials); i < mrk.MaxMaterials; i++ {
		full.Materials = append(full.Materials, mrk.Listed{ID: material.Compute("X", "Y", []byte{byte(i), byte(i >> 8)})})
	}
	signed, err := mrk.SignState(ctx(), testSigner(regionA), full)
	w.must(err)
	if n := len(mrk.Facts{Key: testKey, State: signed}.Marshal()); n > 512<<10 {
		t.Errorf("a full state has %d bytes", n)
	}
	if _, err := set.Merge(pins{}, mrk.Facts{Key: testKey, State: signed}); err != nil {
		t.Fatal(err)
	}
	set.DropPermit()
	if _, err := mrk.Unmarshal(set.Marshal()); err != nil {
		t.Errorf("reading a full set: %v", err)
	}
}

// The largest set that the bounds allow can be sent in one message.
func TestLargestFactsFitIntoOneStatement(t *testing.T) {
	w := newWorld(t)
	set := w.nodes[regionA].set
	for i := 1; i < mrk.MaxMembers; i++ {
		r := regionName("eu-x-" + string(rune('0'+i/10)) + string(rune('0'+i%10)))
		w.must(set.AddMember(ctx(), testSigner(regionA), r, testInstance(r), mrk.CreateRequest{}))
	}
	var ids []material.ID
	state := *set.State()
	state.Seq++
	for i := len(state.Materials); i < mrk.MaxMaterials; i++ {
		state.Materials = append(state.Materials, mrk.Listed{ID: material.Compute("X", "Y", []byte{byte(i), byte(i >> 8)})})
	}
	for _, m := range state.Materials {
		ids = append(ids, m.ID)
	}
	facts := set.Facts(mrk.Hash{})
	for len(facts.Certificates) < mrk.MaxCertificates {
		facts.Certificates = append(facts.Certificates, w.renewal(regionA, facts.Certificates[len(facts.Certificates)-1]))
	}
	var err error
	facts.State, err = mrk.SignState(ctx(), testSigner(regionA), state)
	w.must(err)
	facts.Members = nil
	slices.SortFunc(ids, func(a, b material.ID) int { return bytes.Compare(a[:], b[:]) })
	spent := mrk.Counts{}
	for _, id := range ids {
		spent[id] = 1 << 40
	}
	for _, e := range state.Members {
		m, err := mrk.SignMember(ctx(), testSigner(e.Region), mrk.Member{
			Key: testKey, Region: e.Region, Instance: e.Instance, Incarnation: 1, Counter: 1, Joined: state.Epoch,
			Held: ids, Used: ids, KeyState: "Enabled", Spent: spent, Refused: mrk.Nonce{1}, RefusedFor: strings.Repeat("x", 1024),
		})
		w.must(err)
		facts.Members = append(facts.Members, m)
	}
	b := facts.Marshal()
	const (
		approvals = 8 * (approval.MaxOperators*240 + 1024) // of as many lines as a chain keeps
		beside    = 192 << 10                              // a create request, blobs, an envelope
	)
	if len(b)+approvals+beside > statement.MaxPayload {
		t.Errorf("%d bytes of facts, %d fit", len(b), statement.MaxPayload-approvals-beside)
	}
	if _, err := mrk.ParseFacts(b); err != nil {
		t.Error(err)
	}
}
