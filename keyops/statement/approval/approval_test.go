package approval_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// people makes operators a, b, c... with keys of all accepted kinds.
func people(t *testing.T, n int) ([]crypto.Signer, []approval.Operator) {
	t.Helper()
	var keys []crypto.Signer
	var ops []approval.Operator
	for i := range n {
		var k crypto.Signer
		var err error
		switch i % 3 {
		case 0:
			k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		case 1:
			_, k, err = ed25519.GenerateKey(rand.Reader)
		case 2:
			k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		}
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys, ops = append(keys, k), append(ops, approval.Operator{Name: string(rune('a' + i)), Key: der})
	}
	return keys, ops
}

// requestFor is a valid request to a roster.
func requestFor(r approval.Roster) approval.Request {
	return approval.Request{
		Operation: approval.ForcePromotion, Region: "eu-paris-1", Instance: "kfi-0123456789ab", Roster: r.Version,
		Series: "promotions", Epoch: 3, Target: "eu-paris-1", Serial: approval.NewSerial(), Expires: now.Add(time.Hour),
		Object: []approval.Detail{{Name: "key", Text: "mrk-1"}, {Name: "key", Text: "mrk-2"}},
	}
}

func mustSign(t testing.TB, k crypto.Signer, q approval.Request) statement.File {
	t.Helper()
	f, err := approval.Sign(t.Context(), k, q)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestApprovalsAreCounted(t *testing.T) {
	keys, ops := people(t, 4)
	roster := approval.Roster{Version: 5, Threshold: 2, Operators: ops[:3]} // the fourth is a stranger
	want := requestFor(roster)
	sign := func(who int, change func(*approval.Request)) statement.File {
		t.Helper()
		q := want
		q.Object = slices.Clone(want.Object)
		if change != nil {
			change(&q)
		}
		return mustSign(t, keys[who], q)
	}
	forged := sign(0, nil)
	forged.Key = sign(1, nil).Key
	broken := sign(1, nil)
	broken.Signature = bytes.Clone(broken.Signature)
	broken.Signature[len(broken.Signature)-1] ^= 1
	another := sign(1, nil)
	another.Type = string(statement.Descriptor)
	other := func(change func(*approval.Request)) []statement.File {
		return []statement.File{sign(0, nil), sign(1, change)}
	}
	for _, c := range []struct {
		name string
		got  []statement.File
		why  string // empty if it is enough
	}{
		{"none", nil, "0 of 2 needed"},
		{"one", []statement.File{sign(0, nil)}, "1 of 2 needed"},
		{"two", []statement.File{sign(0, nil), sign(1, nil)}, ""},
		{"all", []statement.File{sign(0, nil), sign(1, nil), sign(2, nil)}, ""},
		{"two and a stranger's", []statement.File{sign(3, nil), sign(0, nil), sign(2, nil)}, ""},
		{"one operator twice", []statement.File{sign(0, nil), sign(0, nil)}, "counts once"},
		{"one file twice", slices.Repeat([]statement.File{sign(0, nil)}, 2), "counts once"},
		{"one and a stranger's", []statement.File{sign(0, nil), sign(3, nil)}, "no operator's on the roster"},
		{"one and one under another's name", []statement.File{sign(0, nil), forged}, "signature not valid"},
		{"one with a flipped bit", []statement.File{sign(0, nil), broken}, "signature not valid"},
		{"one as another kind of statement", []statement.File{sign(0, nil), another}, `want "approval"`},
		{"another operation", other(func(q *approval.Request) { q.Operation = approval.SuspendRegion }), "its operation differs"},
		{"another Region", other(func(q *approval.Request) { q.Region = "us-east-1" }), "its Region differs"},
		{"another instance", other(func(q *approval.Request) { q.Instance = "kfi-ba9876543210" }), "its instance differs"},
		{"another roster", other(func(q *approval.Request) { q.Roster-- }), "its roster version differs"},
		{"another epoch", other(func(q *approval.Request) { q.Epoch++ }), "its epoch differs"},
		{"another target", other(func(q *approval.Request) { q.Target = "us-east-1" }), "its epoch differs"},
		{"another serial", other(func(q *approval.Request) { q.Serial = approval.NewSerial() }), "its serial differs"},
		{"another expiry", other(func(q *approval.Request) { q.Expires = q.Expires.Add(time.Second) }), "its expiry differs"},
		{"another object", other(func(q *approval.Request) { q.Object[1].Text = "mrk-3" }), `differs at "key"`},
		{"less of the object", other(func(q *approval.Request) { q.Object = q.Object[:1] }), `differs at "key"`},
		{"more than the object", other(func(q *approval.Request) { q.Object = append(q.Object, q.Object[0]) }), "has more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := roster.Check(want, now, c.got)
			if c.why == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if c.why != "" && (!errors.Is(err, approval.ErrNotEnough) || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("got %v, want ErrNotEnough that says %q", err, c.why)
			}
		})
	}
	enough := []statement.File{sign(0, nil), sign(1, nil)}
	for name, at := range map[string]time.Time{"expired": want.Expires, "long before": want.Expires.Add(-approval.MaxLife - time.Second)} {
		if err := roster.Check(want, at, enough); !errors.Is(err, approval.ErrExpired) {
			t.Errorf("%s: got %v, want ErrExpired", name, err)
		}
	}
	if err := roster.Check(want, want.Expires.Add(-time.Second), enough); err != nil {
		t.Errorf("in the last second: %v", err)
	}
	if err := roster.Verify(want, enough); err != nil {
		t.Errorf("at any time later: %v", err)
	}
	newer := roster
	newer.Version++
	if err := newer.Check(want, now, enough); !errors.Is(err, approval.ErrNotEnough) || !strings.Contains(err.Error(), "ask again") {
		t.Errorf("the same people under a newer roster: %v", err)
	}
	if err := (approval.Roster{Version: 5}).Check(want, now, enough); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("an empty roster: got %v, want ErrNotEnough", err)
	}
	half := approval.Roster{Version: 5, Threshold: 2, Operators: ops}
	if err := half.Check(want, now, enough); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("half of the operators: got %v, want ErrNotEnough", err)
	}
}

func TestRequestsThatNobodySigns(t *testing.T) {
	keys, _ := people(t, 1)
	for name, change := range map[string]func(*approval.Request){
		"an unknown operation":     func(q *approval.Request) { q.Operation = "erase" },
		"no operation":             func(q *approval.Request) { q.Operation = "" },
		"no Region":                func(q *approval.Request) { q.Region = "" },
		"no serial":                func(q *approval.Request) { q.Serial = "" },
		"an epoch of nothing":      func(q *approval.Request) { q.Series = "" },
		"a series of nothing":      func(q *approval.Request) { q.Epoch, q.Target = 0, "" },
		"no object":                func(q *approval.Request) { q.Object = nil },
		"too much":                 func(q *approval.Request) { q.Object = make([]approval.Detail, 257) },
		"an empty detail":          func(q *approval.Request) { q.Object[0].Text = "" },
		"a terminal sequence":      func(q *approval.Request) { q.Object[0].Text = "\x1b[2Jnothing" },
		"a line of its own":        func(q *approval.Request) { q.Object[0].Text = "key\nexpires: never" },
		"writing that turns round": func(q *approval.Request) { q.Object[0].Text = "\u202ekey" },
		"bytes that are no text":   func(q *approval.Request) { q.Object[0].Text = "\xff" },
		"parts of a second":        func(q *approval.Request) { q.Expires = q.Expires.Add(1) },
		"another time zone":        func(q *approval.Request) { q.Expires = q.Expires.In(time.FixedZone("", 3600)) },
	} {
		q := requestFor(approval.Roster{})
		change(&q)
		if _, err := approval.Sign(t.Context(), keys[0], q); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
}

// TestRequestComesBack holds that request, approval and file say the same.
func TestRequestComesBack(t *testing.T) {
	keys, _ := people(t, 1)
	for name, q := range map[string]approval.Request{
		"numbered": requestFor(approval.Roster{Version: 7}),
		"plain": {Operation: approval.ResealStore, Region: "r", Instance: "i", Serial: approval.NewSerial(), Expires: now,
			Object: []approval.Detail{{Name: "store", Text: "what it is: <&> Ω"}}},
	} {
		got, err := approval.RequestOf(mustSign(t, keys[0], q))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(q, got); diff != "" {
			t.Errorf("%s: signed and read (-want +got):\n%s", name, diff)
		}
		path := filepath.Join(t.TempDir(), "request.json")
		if err := statement.WriteJSON(path, q); err != nil {
			t.Fatal(err)
		}
		var file approval.Request
		if err := statement.ReadJSON(path, &file); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(q, file); diff != "" || file.ID() != q.ID() {
			t.Errorf("%s: written and read (-want +got):\n%s", name, diff)
		}
	}
}

func TestQuorum(t *testing.T) {
	always := []approval.Operation{approval.Offer, approval.ResealStore, approval.ChangeRoster, approval.ForcePromotion, "erase"}
	none, err := approval.NewQuorum(nil)
	if err != nil {
		t.Fatal(err)
	}
	some, err := approval.NewQuorum([]approval.Operation{approval.SuspendRegion, approval.Offer})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		q    approval.Quorum
		free []approval.Operation
	}{
		"not configured": {approval.Quorum{}, nil},
		"none":           {none, approval.Optional()},
		"some":           {some, []approval.Operation{approval.DeletePrimaryKey, approval.Disassociate, approval.EvictReplica, approval.WriteOffMaterial}},
	} {
		for _, o := range always {
			if !c.q.Needs(o) {
				t.Errorf("%s: %s needs no approvals", name, o)
			}
		}
		var free []approval.Operation
		for _, o := range approval.Optional() {
			if !c.q.Needs(o) {
				free = append(free, o)
			}
		}
		if diff := cmp.Diff(c.free, free); diff != "" {
			t.Errorf("%s: free of approvals (-want +got):\n%s", name, diff)
		}
	}
	for name, list := range map[string][]approval.Operation{
		"unknown": {"erase"}, "twice": {approval.SuspendRegion, approval.SuspendRegion}, "empty": {""},
	} {
		if _, err := approval.NewQuorum(list); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRosterValidate(t *testing.T) {
	_, ops := people(t, 3)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(p521.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r  approval.Roster
		ok bool
	}{
		"2 of 3":        {approval.Roster{Threshold: 2, Operators: ops}, true},
		"0 of 3":        {approval.Roster{Threshold: 0, Operators: ops}, false},
		"4 of 3":        {approval.Roster{Threshold: 4, Operators: ops}, false},
		"negative":      {approval.Roster{Threshold: -1, Operators: ops}, false},
		"half of 2":     {approval.Roster{Threshold: 1, Operators: ops[:2]}, false},
		"1 of 1":        {approval.Roster{Threshold: 1, Operators: ops[:1]}, true},
		"same key":      {approval.Roster{Threshold: 2, Operators: []approval.Operator{ops[0], {Name: "other", Key: ops[0].Key}}}, false},
		"same name":     {approval.Roster{Threshold: 2, Operators: []approval.Operator{ops[0], {Name: ops[0].Name, Key: ops[1].Key}}}, false},
		"key, padded":   {approval.Roster{Threshold: 2, Operators: []approval.Operator{ops[0], {Name: "other", Key: padded(t, ops[0].Key)}}}, false},
		"a sequence":    {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "a\x1b[8m", Key: ops[0].Key}}}, false},
		"two lines":     {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "a\ndescriptor fingerprint", Key: ops[0].Key}}}, false},
		"no name":       {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Key: ops[0].Key}}}, false},
		"no key":        {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "a"}}}, false},
		"key of a kind": {approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "a", Key: der}}}, false},
	} {
		if err := c.r.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, c.ok)
		}
	}
}

// padded returns another DER encoding of the same EC key, of which Go's parser takes both: the
// point begins with five zero bits, so its bit string can be written shifted and padded.
func padded(t *testing.T, spki []byte) []byte {
	t.Helper()
	var key struct {
		Algorithm asn1.RawValue
		Point     asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &key); err != nil {
		t.Fatal(err)
	}
	point := new(big.Int).SetBytes(key.Point.Bytes)
	key.Point.BitLength -= 4
	key.Point.Bytes = point.Lsh(point, 4).FillBytes(make([]byte, len(key.Point.Bytes)))
	der, err := asn1.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	one, err1 := x509.ParsePKIXPublicKey(spki)
	two, err2 := x509.ParsePKIXPublicKey(der)
	if err1 != nil || err2 != nil || !one.(*ecdsa.PublicKey).Equal(two) || bytes.Equal(spki, der) {
		t.Fatalf("not another encoding of the same key: %v, %v", err1, err2)
	}
	return der
}

func TestRosterOnTheWire(t *testing.T) {
	_, ops := people(t, 3)
	r := approval.Roster{Version: 3, Threshold: 2, Operators: ops}
	var w wire.Writer
	r.Append(&w)
	d := wire.NewReader(w.Out())
	got := approval.Take(d)
	if err := d.Done(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	var bad wire.Writer
	approval.Roster{Threshold: 4, Operators: ops}.Append(&bad)
	d = wire.NewReader(bad.Out())
	approval.Take(d)
	if d.Done() == nil {
		t.Error("a roster that is not valid was read")
	}
}

func TestLoadRoster(t *testing.T) {
	dir := t.TempDir()
	_, ops := people(t, 2)
	for _, o := range ops {
		b := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: o.Key})
		if err := os.WriteFile(filepath.Join(dir, o.Name+".pub"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"good":          {"threshold: 2\noperators:\n  - name: a\n    key: a.pub\n  - name: b\n    key: b.pub\n", true},
		"unknown field": {"threshold: 1\nquorum: 1\noperators:\n  - name: a\n    key: a.pub\n", false},
		"missing key":   {"threshold: 1\noperators:\n  - name: a\n    key: c.pub\n", false},
		"no threshold":  {"operators:\n  - name: a\n    key: a.pub\n", false},
		"empty":         {"", false},
	} {
		path := filepath.Join(dir, "operators.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := approval.LoadRoster(path)
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, c.ok)
		}
		if c.ok {
			if d := cmp.Diff(approval.Roster{Threshold: 2, Operators: ops}, r); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		}
	}
}
