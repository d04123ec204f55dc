package mrk_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew; a changed vector is a new format version")

// sample has a distinct value in every field.
func sample() (mrk.Certificate, *mrk.State, *mrk.Member, mrk.CreateRequest, mrk.Blob) {
	epoch := mrk.Epoch{
		Line:   mrk.Line{Generation: 2, Region: regionA, Nonce: mrk.Nonce{1, 2, 3}},
		Number: 7, Region: regionB, Nonce: mrk.Nonce{4, 5, 6},
	}
	c := mrk.Certificate{Key: testKey, Epoch: epoch, Instance: "kfi-0123456789ab", Parent: mrk.Hash{7}, Final: mrk.Hash{8}}
	s := &mrk.State{
		Key: testKey, Epoch: epoch, Seq: 9, Account: "111122223333", Spec: "ECC_NIST_P256", Usage: "SIGN_VERIFY", Origin: "AWS_KMS",
		Created: 1700000000, Current: material.ID{10}, Pending: material.ID{11},
		Rotation: mrk.Rotation{Enabled: true, Days: 365, Last: 1700000001},
		Materials: []mrk.Listed{
			{ID: material.ID{10}, SPKI: []byte("spki"), Birth: mrk.Nonce{12}, Created: 1700000002, Reason: mrk.ReasonOnDemand, Released: 1700000003, Holders: 3},
			{ID: material.ID{11}, Birth: mrk.Nonce{13}, WrittenOff: true},
		},
		Members: []mrk.Entry{
			{Region: regionC, Instance: "kfi-aaaaaaaaaaaa", Incarnation: 1, Status: mrk.Suspended},
			{Region: regionA, Instance: "kfi-bbbbbbbbbbbb", Incarnation: 2, Status: mrk.Rejoining},
			{Region: regionB, Instance: "kfi-0123456789ab", Incarnation: 3, Status: mrk.Active},
		},
	}
	m := &mrk.Member{
		Key: testKey, Region: regionC, Instance: "kfi-aaaaaaaaaaaa", Incarnation: 1, Counter: 14, Joined: epoch, Seq: 9,
		Held: []material.ID{{10}}, Used: []material.ID{{10}, {11}}, Current: material.ID{10}, KeyState: "PendingDeletion",
		Deleting: 1700000004, Deleted: true, Refused: mrk.Nonce{15}, RefusedFor: "not enabled",
		Spent: mrk.Counts{{10}: 1 << 20, {11}: 1},
	}
	r := mrk.CreateRequest{
		Key: testKey, Source: regionB, Instance: "kfi-0123456789ab", Destination: regionC, ToInstance: "kfi-aaaaaaaaaaaa",
		Incarnation: 1, Principal: "arn:aws:iam::111122223333:user/ops", CorrelationID: "c-16", Description: "für die Löhne",
		Policy: []byte(`{"Version":"2012-10-17"}`), Tags: []mrk.Tag{{Key: "env", Value: "prod"}},
	}
	b := mrk.Blob{
		Key: testKey, Material: material.ID{10}, Source: regionB, Instance: "kfi-0123456789ab", Destination: regionC,
		ToInstance: "kfi-aaaaaaaaaaaa", Incarnation: 1, Class: "private", Epoch: 17, Algorithm: "AES_KEY_WRAP_PAD", Length: 18, Wrapped: []byte("wrapped"),
	}
	return c, s, m, r, b
}

// The committed bytes are what Regions of every later version must understand.
func TestVectors(t *testing.T) {
	c, s, m, r, b := sample()
	got := map[string]string{"blob": hex.EncodeToString(b.Marshal())}
	for name, p := range mrk.Payloads(c, s, m, r) {
		got[name] = hex.EncodeToString(p)
	}
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.sync(regionA, regionB)
	w.heal()
	got["facts"] = hex.EncodeToString(w.nodes[regionA].set.Facts(mrk.Hash{}).Marshal())
	got["set"] = hex.EncodeToString(w.nodes[regionA].set.Marshal())
	const file = "testdata/vectors.json"
	if *update {
		out, err := json.MarshalIndent(got, "", "  ")
		w.must(err)
		w.must(os.WriteFile(file, append(out, '\n'), 0o644))
	}
	text, err := os.ReadFile(file)
	w.must(err)
	var want map[string]string
	w.must(json.Unmarshal(text, &want))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("the encoding has changed; Regions of other versions would not understand it:\n" + diff)
	}
}

func TestEveryFieldComesBack(t *testing.T) {
	c, s, m, r, b := sample()
	for purpose, payload := range map[statement.Purpose][]byte{
		statement.Certificate:   mrk.Payloads(c, s, m, r)["certificate"],
		statement.State:         mrk.Payloads(c, s, m, r)["state"],
		statement.Member:        mrk.Payloads(c, s, m, r)["member"],
		statement.CreateReplica: mrk.Payloads(c, s, m, r)["create-replica"],
	} {
		again, err := mrk.ParseStatement(statement.Signed{Purpose: purpose, Payload: payload})
		if err != nil || !bytes.Equal(again, payload) {
			t.Errorf("%s: %v, same bytes %v", purpose, err, bytes.Equal(again, payload))
		}
	}
	got, err := mrk.ParseBlob(b.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, got); diff != "" {
		t.Error(diff)
	}
}

func TestSetComesBack(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	for _, r := range allRegions {
		b := w.nodes[r].set.Marshal()
		s, err := mrk.Unmarshal(b)
		w.must(err)
		if !bytes.Equal(s.Marshal(), b) {
			t.Errorf("the set of %s changes when it is stored", r)
		}
		if s.Acting() != (r == regionA) || s.Hash() != w.nodes[r].set.Hash() {
			t.Errorf("the stored set of %s acts %v", r, s.Acting())
		}
	}
}

func TestStrictDecoding(t *testing.T) {
	w := withReplicas(t)
	facts := w.nodes[regionA].set.Facts(mrk.Hash{}).Marshal()
	set := w.nodes[regionA].set.Marshal()
	_, _, _, _, blob := sample()
	parsers := map[string]struct {
		bytes []byte
		parse func([]byte) error
	}{
		"facts": {facts, func(b []byte) error { _, err := mrk.ParseFacts(b); return err }},
		"set":   {set, func(b []byte) error { _, err := mrk.Unmarshal(b); return err }},
		"blob":  {blob.Marshal(), func(b []byte) error { _, err := mrk.ParseBlob(b); return err }},
	}
	for name, p := range parsers {
		if err := p.parse(p.bytes); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for n := range p.bytes {
			if p.parse(p.bytes[:n]) == nil {
				t.Errorf("%s cut to %d of %d bytes was accepted", name, n, len(p.bytes))
			}
		}
		if p.parse(append(bytes.Clone(p.bytes), 0)) == nil {
			t.Errorf("%s with a byte too many was accepted", name)
		}
		later := bytes.Clone(p.bytes)
		i := bytes.Index(later, []byte{0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1})
		later[i+11] = 2
		if p.parse(later) == nil {
			t.Errorf("%s of another version was accepted", name)
		}
	}
}

func TestStateChecks(t *testing.T) {
	_, good, _, _, _ := sample()
	good.Members = []mrk.Entry{good.Members[0], good.Members[2]}
	tests := []struct {
		name string
		edit func(*mrk.State)
		ok   bool
	}{
		{"as it should be", func(*mrk.State) {}, true},
		{"no current material", func(s *mrk.State) { s.Current = material.ID{} }, true},
		{"current not listed", func(s *mrk.State) { s.Current = material.ID{99} }, false},
		{"pending not listed", func(s *mrk.State) { s.Pending = material.ID{99} }, false},
		{"pending is current", func(s *mrk.State) { s.Pending = s.Current }, false},
		{"material listed twice", func(s *mrk.State) { s.Materials = append(s.Materials, s.Materials[0]) }, false},
		{"two materials with one prefix", func(s *mrk.State) {
			twin := s.Materials[0]
			twin.ID[31]++
			s.Materials = append(s.Materials, twin)
		}, false},
		{"member listed twice", func(s *mrk.State) { s.Members[1].Region = s.Members[0].Region }, false},
		{"members out of order", func(s *mrk.State) { s.Members[0], s.Members[1] = s.Members[1], s.Members[0] }, false},
		{"unknown status", func(s *mrk.State) { s.Members[0].Status = 7 }, false},
		{"incarnation 0", func(s *mrk.State) { s.Members[0].Incarnation = 0 }, false},
		{"primary not active", func(s *mrk.State) { s.Members[1].Status = mrk.Joining }, false},
		{"unknown reason", func(s *mrk.State) { s.Materials[0].Reason = 9 }, false},
		{"malformed account", func(s *mrk.State) { s.Account = "1" }, false},
		{"malformed Region", func(s *mrk.State) { s.Members[0].Region = "Paris" }, false},
		{"malformed spec", func(s *mrk.State) { s.Spec = "aes" }, false},
		{"single-Region key", func(s *mrk.State) { s.Key = "00112233-4455-6677-8899-aabbccddeeff" }, false},
		{"time before 1970", func(s *mrk.State) { s.Created = -1 }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := *good
			s.Materials = append([]mrk.Listed{}, good.Materials...)
			s.Members = append([]mrk.Entry{}, good.Members...)
			tt.edit(&s)
			c, _, m, r, _ := sample()
			payload := mrk.Payloads(c, &s, m, r)["state"]
			again, err := mrk.ParseStatement(statement.Signed{Purpose: statement.State, Payload: payload})
			if (err == nil) != tt.ok {
				t.Fatalf("got %v, want accepted %v", err, tt.ok)
			}
			if tt.ok && !bytes.Equal(again, payload) {
				t.Error("reading and writing changes the bytes")
			}
		})
	}
}

func TestLinesAndEpochsAreOrdered(t *testing.T) {
	line := func(g uint64, r region.Name, n byte) mrk.Line {
		return mrk.Line{Generation: g, Region: r, Nonce: mrk.Nonce{n}}
	}
	ordered := []mrk.Epoch{
		{Line: line(0, regionA, 1), Number: 0}, {Line: line(0, regionA, 1), Number: 9}, {Line: line(0, regionA, 2), Number: 0},
		{Line: line(0, regionB, 1), Number: 0}, {Line: line(1, regionA, 1), Number: 0}, {Line: line(1, regionC, 0), Number: 3},
	}
	ordered[4], ordered[5] = ordered[5], ordered[4] // ap-tokyo-1 sorts before eu-paris-1
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := a.Compare(b), cmpInt(i, j); got != want {
				t.Errorf("epoch %d against %d: %d, want %d", i, j, got, want)
			}
		}
	}
}

func cmpInt(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// FuzzParse looks for a panic, and for bytes that are accepted but are not the one encoding.
func FuzzParse(f *testing.F) {
	c, s, m, r, b := sample()
	purposes := []statement.Purpose{statement.Certificate, statement.State, statement.Member, statement.CreateReplica}
	for i, name := range []string{"certificate", "state", "member", "create-replica"} {
		f.Add(byte(i), mrk.Payloads(c, s, m, r)[name])
	}
	f.Add(byte(4), b.Marshal())
	w := newWorld(f)
	f.Add(byte(5), w.nodes[regionA].set.Facts(mrk.Hash{}).Marshal())
	f.Add(byte(6), w.nodes[regionA].set.Marshal())
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.offer(regionA, regionB))
	offer, _ := w.nodes[regionA].set.Offered()
	f.Add(byte(7), offer.Marshal())
	w.sync(regionA, regionB)
	w.must(w.force(regionB))
	w.sync(regionB, regionA)
	f.Add(byte(5), w.nodes[regionA].set.Facts(mrk.Hash{}).Marshal())
	f.Add(byte(6), w.nodes[regionB].set.Marshal())
	f.Fuzz(func(t *testing.T, kind byte, p []byte) {
		var again []byte
		var err error
		switch kind % 8 {
		case 4:
			var x mrk.Blob
			x, err = mrk.ParseBlob(p)
			again = x.Marshal()
		case 5:
			var x mrk.Facts
			x, err = mrk.ParseFacts(p)
			again = x.Marshal()
		case 6:
			if _, err = mrk.Unmarshal(p); err == nil {
				return // requests and facts may repeat a Region there; the row is sealed
			}
		case 7:
			var x mrk.Offer
			x, err = mrk.ParseOffer(p)
			again = x.Marshal()
		default:
			again, err = mrk.ParseStatement(statement.Signed{Purpose: purposes[kind%8], Payload: p})
		}
		if err == nil && !bytes.Equal(again, p) {
			t.Errorf("kind %d: accepted bytes that are not what would be written", kind%8)
		}
	})
}
