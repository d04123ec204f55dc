package region_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// owned is a descriptor with its private keys.
type owned struct {
	region.SignedDescriptor
	key, operator *ecdsa.PrivateKey
}

func own(t *testing.T) owned {
	t.Helper()
	k, d := descriptor(t, "eu-paris-1")
	op, spki := key(t, elliptic.P256())
	d.Operators = approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "op", Key: spki}}}
	s, err := d.Sign(t.Context(), statement.HostKey(k))
	if err != nil {
		t.Fatal(err)
	}
	return owned{s, k, op}
}

// next is the same Region with another key; change may make it something else.
func (o owned) next(t *testing.T, change func(*region.Descriptor)) owned {
	t.Helper()
	k, spki := key(t, elliptic.P384())
	d := o.Next(spki, time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))
	if change != nil {
		change(&d)
	}
	s, err := d.Sign(t.Context(), statement.HostKey(k))
	if err != nil {
		t.Fatal(err)
	}
	return owned{s, k, o.operator}
}

// replace makes the replacement, signed by signer and approved by operator.
func replace(t *testing.T, from, to owned, signer, operator *ecdsa.PrivateKey) (region.Replacement, error) {
	t.Helper()
	r, err := region.NewReplacement(t.Context(), statement.HostKey(signer), from.SignedDescriptor, to.SignedDescriptor)
	if err != nil {
		return r, err
	}
	q := region.RequestReplacement(from.Operators, from.SignedDescriptor, to.SignedDescriptor, approval.NewSerial(), time.Now().Add(time.Hour).Truncate(time.Second).UTC())
	f, err := approval.Sign(t.Context(), operator, q)
	if err != nil {
		t.Fatal(err)
	}
	r.Approvals = append(r.Approvals, f)
	return r, nil
}

func TestReplacementsLeadFromOneKeyToAnother(t *testing.T) {
	dir := region.Dir(t.TempDir())
	chain := []owned{own(t)}
	for range 3 {
		last := chain[len(chain)-1]
		n := last.next(t, nil)
		r, err := replace(t, last, n, last.key, last.operator)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := r.Verify(last.SignedDescriptor); err != nil || got.Fingerprint() != n.Fingerprint() {
			t.Fatalf("version %d: %v", n.Version, err)
		}
		for range 2 { // again changes nothing
			if err := dir.KeepReplacement(last.Descriptor, n.Version, r); err != nil {
				t.Fatal(err)
			}
		}
		chain = append(chain, n)
	}
	for i, from := range chain {
		for j, to := range chain {
			if err := dir.Follows(from.SignedDescriptor, to.SignedDescriptor); (err == nil) != (i <= j) {
				t.Errorf("from version %d to %d: %v", i+1, j+1, err)
			}
		}
	}
	other := chain[0].next(t, nil)
	r, err := replace(t, chain[0], other, chain[0].key, chain[0].operator)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.KeepReplacement(other.Descriptor, 2, r); !errors.Is(err, region.ErrReplacement) {
		t.Errorf("another version 2: %v", err)
	}
	if err := dir.Follows(chain[0].SignedDescriptor, other.SignedDescriptor); err == nil {
		t.Error("a descriptor that no kept replacement names follows")
	}
	if err := os.Remove(dir.Replacement(chain[0].Descriptor, 3)); err != nil {
		t.Fatal(err)
	}
	if err := dir.Follows(chain[0].SignedDescriptor, chain[3].SignedDescriptor); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("over a gap: %v", err)
	}
	keys, err := chain[3].Keys()
	if err != nil || len(keys) != 4 || !chain[3].key.PublicKey.Equal(keys[0]) || !chain[0].key.PublicKey.Equal(keys[3]) {
		t.Errorf("keys are %v, %v, want the newest first", keys, err)
	}
	if a, b := chain[0].KeyName(), chain[1].KeyName(); a == b || a != string(chain[0].Instance) {
		t.Errorf("names in the token are %s and %s", a, b)
	}
}

func TestReplacementsThatAreRefused(t *testing.T) {
	first := own(t)
	thief, spki := key(t, elliptic.P384())
	for name, change := range map[string]func(*region.Descriptor){
		"another instance":   func(d *region.Descriptor) { d.Instance = region.NewInstanceID() },
		"another Region":     func(d *region.Descriptor) { d.Region = "us-east-1" },
		"another partition":  func(d *region.Descriptor) { d.Partition = "aws-cn" },
		"version skipped":    func(d *region.Descriptor) { d.Version, d.Earlier = 3, append(d.Earlier, spki) },
		"another past":       func(d *region.Descriptor) { d.Earlier = [][]byte{spki} },
		"other operators":    func(d *region.Descriptor) { d.Operators.Operators[0].Key = mustSPKI(t) },
		"an operator's name": func(d *region.Descriptor) { d.Operators.Operators[0].Name = "op2" },
	} {
		base := own(t)
		if _, err := replace(t, base, base.next(t, func(d *region.Descriptor) {
			d.Operators.Operators = append([]approval.Operator(nil), d.Operators.Operators...)
			change(d)
		}), base.key, base.operator); !errors.Is(err, region.ErrReplacement) {
			t.Errorf("%s: %v", name, err)
		}
	}
	second := first.next(t, nil)
	if _, err := replace(t, first, second, thief, first.operator); !errors.Is(err, region.ErrReplacement) {
		t.Errorf("named by another than the old key: %v", err)
	}
	stranger, _ := key(t, elliptic.P256())
	r, err := replace(t, first, second, first.key, stranger)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Verify(first.SignedDescriptor); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("approved by a stranger: %v", err)
	}
	r.Approvals = nil
	if _, _, err := r.Verify(first.SignedDescriptor); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("approved by nobody: %v", err)
	}
	// An approval of one next key is none of another.
	good, err := replace(t, first, second, first.key, first.operator)
	if err != nil {
		t.Fatal(err)
	}
	other, err := replace(t, first, first.next(t, nil), first.key, first.operator)
	if err != nil {
		t.Fatal(err)
	}
	other.Approvals = good.Approvals
	if _, _, err := other.Verify(first.SignedDescriptor); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("with another's approvals: %v", err)
	}
	// Nor is one Region's succession another's.
	other, err = replace(t, first, first.next(t, nil), first.key, first.operator)
	if err != nil {
		t.Fatal(err)
	}
	good.Succession = other.Succession
	if _, err := good.Open(first.SignedDescriptor); !errors.Is(err, region.ErrReplacement) {
		t.Errorf("with another's succession: %v", err)
	}
}

func mustSPKI(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// TestEarlierKeysSignNothingFresh asks of each purpose whether an earlier signing key still
// counts: for what is kept it does, and for what is made when it is needed it must not, since
// whoever had the PIN could go on signing it.
func TestEarlierKeysSignNothingFresh(t *testing.T) {
	first := own(t)
	second := first.next(t, nil)
	for purpose, lasts := range map[statement.Purpose]bool{
		statement.Transcript: true, statement.Certificate: true, statement.State: true, statement.Member: true,
		statement.CreateReplica: true, statement.Checkpoint: true,
		statement.Descriptor: false, statement.CeremonyOffer: false, statement.CeremonyPackage: false, statement.Approval: false,
		statement.ConfirmHeld: false, statement.Exchange: false, statement.PeerTLS: false, statement.Succession: false,
	} {
		for _, by := range []struct {
			name string
			key  *ecdsa.PrivateKey
			ok   bool
		}{{"the key", second.key, true}, {"an earlier key", first.key, lasts}} {
			s, err := statement.Sign(context.Background(), statement.HostKey(by.key), purpose, []byte("payload"))
			if err != nil {
				t.Fatal(err)
			}
			if err := second.Verify(s); (err == nil) != by.ok {
				t.Errorf("%s signed by %s: %v", purpose, by.name, err)
			}
		}
		s, err := statement.Sign(context.Background(), statement.HostKey(second.key), purpose, []byte("payload"))
		if err != nil {
			t.Fatal(err)
		}
		if first.Verify(s) == nil {
			t.Errorf("%s: a descriptor believes a key that came after it", purpose)
		}
	}
}

func TestSwap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region.json")
	first := own(t)
	second := first.next(t, nil)
	if err := first.Save(path); err != nil {
		t.Fatal(err)
	}
	half := path + ".1" + statement.PartSuffix
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil { // of one that was killed
		t.Fatal(err)
	}
	for range 2 {
		if err := second.Swap(path); err != nil {
			t.Fatal(err)
		}
		if got, err := region.Load(path); err != nil || got.Fingerprint() != second.Fingerprint() {
			t.Errorf("read back %v, %v", got.Descriptor, err)
		}
	}
	left, _ := filepath.Glob(path + "*")
	if want := []string{path, half}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

// TestLostReplacement: without the old key's word only approvals of exactly that count, and
// what the operators were told of the store stays a part of it.
func TestLostReplacement(t *testing.T) {
	from := own(t)
	to := from.next(t, nil)
	lost, err := region.NewLostReplacement(from.SignedDescriptor, to.SignedDescriptor)
	if err != nil || !lost.Lost() {
		t.Fatalf("lost %v, %v", lost.Lost(), err)
	}
	expires := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	store := []approval.Detail{{Name: "store", Text: "3 rows"}}
	approve := func(q approval.Request) []statement.File {
		t.Helper()
		f, err := approval.Sign(t.Context(), from.operator, q)
		if err != nil {
			t.Fatal(err)
		}
		return []statement.File{f}
	}
	forLost := approve(region.RequestLost(from.Operators, from.SignedDescriptor, to.SignedDescriptor, approval.NewSerial(), expires, store))
	forNamed := approve(region.RequestReplacement(from.Operators, from.SignedDescriptor, to.SignedDescriptor, approval.NewSerial(), expires))
	named, err := region.NewReplacement(t.Context(), statement.HostKey(from.key), from.SignedDescriptor, to.SignedDescriptor)
	if err != nil || named.Lost() {
		t.Fatalf("lost %v, %v", named.Lost(), err)
	}
	other := from.next(t, nil)
	elsewhere, err := region.NewLostReplacement(from.SignedDescriptor, other.SignedDescriptor)
	if err != nil {
		t.Fatal(err)
	}
	with := func(r region.Replacement, approvals []statement.File) region.Replacement {
		r.Approvals = approvals
		return r
	}
	half := with(lost, forLost)
	half.Succession.Type = named.Succession.Type
	for _, tc := range []struct {
		name string
		r    region.Replacement
		ok   bool
	}{
		{"approved as lost", with(lost, forLost), true},
		{"approved as named", with(named, forNamed), true},
		{"the old key's word taken away", with(lost, forNamed), false},
		{"approved as lost, and the old key's word put in", with(named, forLost), false},
		{"half of a word", half, false},
		{"another key", with(elsewhere, forLost), false},
		{"nobody", lost, false},
	} {
		if _, _, err := tc.r.Verify(from.SignedDescriptor); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if q := region.RequestLost(from.Operators, from.SignedDescriptor, to.SignedDescriptor, "s", expires, store); q.Object[len(q.Object)-1] != store[0] {
		t.Errorf("the request does not name the store: %+v", q.Object)
	}
	path := filepath.Join(t.TempDir(), "2.json")
	if err := statement.WriteJSON(path, with(lost, forLost)); err != nil {
		t.Fatal(err)
	}
	var read region.Replacement
	if err := statement.ReadJSON(path, &read); err != nil || !read.Lost() {
		t.Errorf("read again: lost %v, %v", read.Lost(), err)
	}
}
