package replication_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// denying is the administrator's identity policy with one more statement, which denies.
func denying(action, condition string) string {
	deny := fmt.Sprintf(`{"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::111122223333:user/admin"}, "Action": %q, "Resource": "*", "Condition": %s}`, action, condition)
	i := strings.LastIndex(keyopstest.AdminIdentities, "]")
	return keyopstest.AdminIdentities[:i] + ", " + deny + keyopstest.AdminIdentities[i:]
}

const outsideEurope = `{"StringNotLike": {"kms:ReplicaRegion": "eu-*"}}`

func (s *site) connected(to *site) {
	s.t.Helper()
	eventually(s.t, "the peer is connected", func() (bool, string) { return s.repl.Heard(to.name()), "not heard" })
}

// refusedAs waits until a site's status of another one shows a cause.
func (s *site) refusedAs(id arn.KeyID, of *site, cause mrk.Cause) {
	s.t.Helper()
	eventually(s.t, "the refusal shows", func() (bool, string) {
		row := s.status(id, of)
		return row.Status == replication.StatusFailed && row.Cause == string(cause) && row.Attempts > 0, fmt.Sprintf("%+v", row)
	})
}

func (s *site) wraps() uint64 { return s.region.Fake.Calls()["C_WrapKey"] }

// Who writes "no replicas outside Europe" in one Region's policies is heeded by that Region,
// be it the one that would send or the one that would receive.
func TestResidencyByPolicy(t *testing.T) {
	const madrid = region.Name("eu-madrid-1")
	for _, tt := range []struct {
		name   string
		policy string
		at     int // the site that has the policy
		ok     bool
	}{
		{"at the source", denying("kms:ReplicateKey", outsideEurope), 0, false},
		{"at the destination", denying("kms:ReplicateKey", outsideEurope), 1, false},
		{"multi-Region keys at the destination", denying("kms:CreateKey", `{"Bool": {"kms:MultiRegion": "true"}}`), 1, false},
		{"replicas at the destination", denying("kms:CreateKey", `{"StringEquals": {"kms:MultiRegionKeyType": "REPLICA"}}`), 1, false},
		{"requests in the destination", denying("kms:CreateKey", `{"StringEquals": {"aws:RequestedRegion": "us-east-1"}}`), 1, false},
		{"calls of the destination's own", denying("kms:ReplicateKey", `{"StringEquals": {"aws:RequestedRegion": "us-east-1"}}`), 1, true},
		{"replicas elsewhere", denying("kms:ReplicateKey", `{"StringNotLike": {"kms:ReplicaRegion": ["eu-*", "us-*"]}}`), 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites := prepare(t, paris, east, madrid)
			sites[tt.at].region.Options.Identities = tt.policy
			for _, s := range sites {
				s.start()
			}
			sites[0].connected(sites[1])
			id := sites[0].createSymmetric()
			sites[0].mustReplicate(id, sites[2])
			sites[0].synchronized(id, sites[2])
			sent := sites[0].wraps()
			err := sites[0].replicate(id, sites[1])
			if tt.ok {
				if err != nil {
					t.Fatal(err)
				}
				sites[0].synchronized(id, sites[1], sites[2])
				return
			}
			if !errors.Is(err, keyops.ErrAccessDenied) {
				t.Fatalf("got %v, want %s", err, keyops.ErrAccessDenied)
			}
			if ids := sites[1].region.SharedKeys(); len(ids) != 0 || sites[0].wraps() != sent {
				t.Errorf("us-east-1 knows %v after %d more C_WrapKey", ids, sites[0].wraps()-sent)
			}
		})
	}
}

// The configuration says where keys may go, whatever policies allow, and the token is not
// asked to wrap for anywhere else.
func TestResidencyByConfiguration(t *testing.T) {
	sites := prepare(t, paris, east, tokyo)
	for _, s := range sites {
		if s.name() != east { // an administrator of us-east-1 cannot help it
			s.bounds = map[region.Name]keyops.Authority{east: {Accept: keyopstest.Everything(keyopstest.Account).Accept}}
		}
		s.start()
	}
	id := sites[0].createSymmetric()
	if err := sites[0].replicate(id, sites[1]); !errors.Is(err, keyops.ErrAccessDenied) {
		t.Fatalf("got %v, want %s", err, keyops.ErrAccessDenied)
	}
	sites[0].mustReplicate(id, sites[2])
	sites[0].synchronized(id, sites[2])

	// The other way is open: keys that are made there may come.
	other := sites[1].createSymmetric()
	sites[1].mustReplicate(other, sites[0])
	sites[1].synchronized(other, sites[0])
	if n := sites[0].wraps(); n != 1 {
		t.Errorf("%d C_WrapKey in Paris, want that for Tokyo", n)
	}
}

// A Region that was a member before the configuration said otherwise hears what becomes of
// the key, and gets no material any more.
func TestSendingEnds(t *testing.T) {
	sites := deploy(t, paris, east)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	waiting := sites[0].createSymmetric()
	sites[1].stop()
	sites[0].mustReplicate(waiting, sites[1]) // accepted while the peer is down
	sites[0].stop()
	sites[0].bounds = map[region.Name]keyops.Authority{east: {Accept: keyopstest.Everything(keyopstest.Account).Accept}}
	sites[0].start()
	before := sites[0].wraps()
	k, err := sites[1].lose(id)
	if err != nil {
		t.Fatal(err)
	}
	sites[1].start()
	sites[0].refusedAs(id, sites[1], mrk.CauseAccessDenied)
	sites[0].refusedAs(waiting, sites[1], mrk.CauseAccessDenied)
	if n := sites[0].wraps() - before; n != 0 {
		t.Errorf("%d C_WrapKey for a Region that keys may not go to", n)
	}
	if ids := sites[1].region.SharedKeys(); len(ids) != 1 || ids[0] != id {
		t.Errorf("us-east-1 knows %v, want %s alone", ids, id)
	}
	if fact := sites[0].fact(id, east); fact == nil || fact.Holds(k) {
		t.Errorf("Paris has not heard that us-east-1 lost its material: %+v", fact)
	}
	if lines := auditLines(t, sites[0]); !slices.ContainsFunc(lines, func(l string) bool {
		return contains(l, "wrappedMaterialId") && contains(l, `"outcome":"Denied"`)
	}) {
		t.Error("the audit log does not show that a material was refused")
	}
	if _, err := sites[0].region.WrapMaterial(context.Background(), id, k, sites[1].region.Descriptor.Descriptor); !errors.Is(err, keyops.ErrAccessDenied) {
		t.Errorf("wrapping: %v, want %s", err, keyops.ErrAccessDenied)
	}
}

// lose destroys the one material of a key in the token of a Region that is stopped.
func (s *site) lose(id arn.KeyID) (material.ID, error) {
	if err := s.region.Start(context.Background()); err != nil {
		return material.ID{}, err
	}
	defer s.region.Stop()
	k, err := s.region.SharedKey(id)
	if err != nil {
		return material.ID{}, err
	}
	return k.Materials[0].ID, s.region.Fake.Destroy(context.Background(), k.Materials[0].Object)
}

func (s *site) fact(id arn.KeyID, of region.Name) *mrk.Member {
	s.t.Helper()
	k, err := s.region.SharedKey(id)
	if err != nil {
		s.t.Fatal(err)
	}
	return k.Set.Fact(of)
}

// The destination's configuration bounds whom it believes, whatever its policies allow.
func TestAccepting(t *testing.T) {
	all := []arn.Account{keyopstest.Account}
	for _, tt := range []struct {
		name   string
		accept keyops.Accept
		want   keyops.Reason
	}{
		{"nothing", keyops.Accept{}, keyops.ErrAccessDenied},
		{"another account", keyops.Accept{Accounts: []arn.Account{"999999999999"}}, keyops.ErrAccessDenied},
		{"another principal", keyops.Accept{Accounts: all, Principals: []string{"arn:aws:iam::111122223333:user/administrator", "arn:aws:iam::111122223333:role/*"}}, keyops.ErrAccessDenied},
		{"a name that begins so", keyops.Accept{Accounts: all, Principals: []string{"arn:aws:iam::111122223333:user/adm"}}, keyops.ErrAccessDenied},
		{"a pattern that is longer", keyops.Accept{Accounts: all, Principals: []string{"arn:aws:iam::111122223333:user/admi*min"}}, keyops.ErrAccessDenied},
		{"this principal", keyops.Accept{Accounts: all, Principals: []string{"arn:aws:iam::111122223333:user/admin"}}, ""},
		{"principals like this", keyops.Accept{Accounts: all, Principals: []string{"arn:aws:iam::111122223333:user/a*n"}}, ""},
		{"anybody of the account", keyops.Accept{Accounts: all}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites := prepare(t, paris, east)
			sites[1].bounds = map[region.Name]keyops.Authority{paris: {Accept: tt.accept}}
			for _, s := range sites {
				s.start()
			}
			sites[0].connected(sites[1])
			id := sites[0].createSymmetric()
			err := sites[0].replicate(id, sites[1])
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				sites[0].synchronized(id, sites[1])
			} else if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// A Region that could not be asked says so later, and its operators can change their mind.
func TestAcceptingLater(t *testing.T) {
	sites := prepare(t, paris, east)
	sites[1].bounds = map[region.Name]keyops.Authority{paris: {}}
	sites[0].start()
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[1].start()
	sites[0].refusedAs(id, sites[1], mrk.CauseAccessDenied)
	if text := sites[0].status(id, sites[1]).Text; !strings.Contains(text, "configuration of Region us-east-1") {
		t.Errorf("the status says %q, not whose configuration refuses", text)
	}
	if n := sites[0].wraps(); n != 0 {
		t.Errorf("%d C_WrapKey for a Region that refused", n)
	}
	sites[1].stop()
	sites[1].bounds = nil
	sites[1].start()
	sites[0].synchronized(id, sites[1])
}

// A peer may ask for so many keys, at once or one after the other.
func TestMaxKeys(t *testing.T) {
	sites := prepare(t, paris, east, tokyo)
	accept := keyops.Accept{Accounts: []arn.Account{keyopstest.Account}, MaxKeys: 2}
	sites[1].bounds = map[region.Name]keyops.Authority{paris: {Accept: accept, Send: accept.Accounts}}
	sites[0].start()
	sites[2].start()
	var ids []arn.KeyID
	for range 5 { // accepted, since the destination cannot be asked
		id := sites[0].createSymmetric()
		sites[0].mustReplicate(id, sites[1])
		ids = append(ids, id)
	}
	sites[1].start()
	eventually(t, "two are made and three are refused", func() (bool, string) {
		got := map[string]int{}
		for _, id := range ids {
			row := sites[0].status(id, sites[1])
			got[row.Status+row.Cause]++
		}
		return got["SYNCHRONIZED"] == 2 && got["FAILEDQUOTA_EXCEEDED"] == 3, fmt.Sprint(got)
	})
	if n := len(sites[1].region.SharedKeys()); n != 2 {
		t.Errorf("us-east-1 has %d keys, want 2", n)
	}
	if err := sites[0].replicate(sites[0].createSymmetric(), sites[1]); !errors.Is(err, keyops.ErrLimitExceeded) {
		t.Errorf("a sixth key: %v, want %s", err, keyops.ErrLimitExceeded)
	}
	// Each peer has its own bound, and keys that are made here have none.
	other := sites[2].createSymmetric()
	sites[2].mustReplicate(other, sites[1])
	sites[2].synchronized(other, sites[1])
	own := sites[1].createSymmetric()
	sites[1].mustReplicate(own, sites[0])
	sites[1].synchronized(own, sites[0])
}

// A Region holds so many materials of a peer's key: it takes no key that has more, and no
// further one when the key rotates.
func TestMaxMaterials(t *testing.T) {
	sites := prepare(t, paris, east)
	accept := keyops.Accept{Accounts: []arn.Account{keyopstest.Account}, MaxMaterials: 1}
	sites[1].bounds = map[region.Name]keyops.Authority{paris: {Accept: accept, Send: accept.Accounts}}
	for _, s := range sites {
		s.start()
	}
	sites[0].connected(sites[1])
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	sites[0].rotate(id)
	sites[0].refusedAs(id, sites[1], mrk.CauseQuotaExceeded)
	if n := sites[1].region.Fake.Calls()["C_UnwrapKey"]; n != 1 {
		t.Errorf("%d C_UnwrapKey, want that of the first material", n)
	}
	encryptHereDecryptThere(t, id, sites[0], sites[1]) // nobody encrypts with what a member lacks

	other := sites[0].createSymmetric()
	sites[0].rotate(other)
	eventually(t, "a key without replicas rotates at once", func() (bool, string) {
		k, err := sites[0].region.SharedKey(other)
		return err == nil && k.Set.Pending().IsZero(), fmt.Sprint(err)
	})
	if err := sites[0].replicate(other, sites[1]); !errors.Is(err, keyops.ErrLimitExceeded) {
		t.Errorf("a key with two materials: %v, want %s", err, keyops.ErrLimitExceeded)
	}

	sites[1].stop()
	sites[1].bounds = nil
	sites[1].start()
	sites[0].synchronized(id, sites[1])
	encryptHereDecryptThere(t, id, sites[0], sites[1])
}

// rotate gives a key of this Region a second material, as rotation will.
func (s *site) rotate(id arn.KeyID) {
	s.t.Helper()
	ctx := context.Background()
	k, err := s.region.SharedKey(id)
	if err != nil {
		s.t.Fatal(err)
	}
	first, err := s.region.Fake.Lookup(ctx, k.Materials[0].Object)
	if err != nil {
		s.t.Fatal(err)
	}
	object := hsm.NewID()
	if _, err := s.region.Fake.Generate(ctx, first.Spec, object); err != nil {
		s.t.Fatal(err)
	}
	blocks := material.AESBlocks(string(id))
	check, err := s.region.Fake.EncryptBlocks(ctx, object, blocks[:])
	if err != nil {
		s.t.Fatal(err)
	}
	m := keyops.Material{ID: material.Compute(string(k.Spec), string(id), check), Object: object, Created: time.Now(), Local: true}
	err = s.region.UpdateShared(ctx, id, keyops.Cause{Event: "RotateKey"}, func(k *keyops.Key) error {
		k.Materials = append(slices.Clip(k.Materials), m)
		return k.Set.RotateAlone(ctx, s.region.Signer(), mrk.Listed{ID: m.ID})
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// What a token has no room for is tried again, and the status says why.
func TestTokenFull(t *testing.T) {
	sites := deploy(t, paris, east)
	sites[1].region.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		if c.Op == "Unwrap" {
			return hsmtest.Fault{Before: hsm.ErrTokenFull}
		}
		return hsmtest.Fault{}
	})
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].refusedAs(id, sites[1], mrk.CauseTokenFull)
	sites[1].region.Fake.SetHook(nil)
	sites[0].synchronized(id, sites[1])
}

// The time of the last exchange moves with every exchange, at the end that began it and at
// the one that answered, long before the next digest is due.
func TestLastExchange(t *testing.T) {
	sites := prepare(t, paris, east)
	for _, s := range sites {
		s.config = func(c *replication.Config) { c.DigestInterval = time.Hour }
		s.start()
	}
	sites[0].connected(sites[1])
	sites[1].connected(sites[0])
	eventually(t, "settled", func() (bool, string) {
		return sites[0].repl.Settled(east) && sites[1].repl.Settled(paris), "not yet"
	})
	last := func(s *site) time.Time { return s.repl.Peers()[0].LastExchange }
	began, answered, contact := last(sites[0]), last(sites[1]), sites[1].repl.LastContact(paris)
	time.Sleep(time.Millisecond) // the clock's step
	claim := keyops.ReplicaClaim{Key: arn.NewKeyID(true), Account: keyopstest.Account, Principal: keyopstest.Admin().Principal}
	if err := sites[0].repl.CheckReplica(context.Background(), east, claim); errors.Is(err, keyops.ErrPeerUnreachable) {
		t.Fatal(err)
	}
	if now := last(sites[0]); !now.After(began) {
		t.Errorf("Paris asked, and its last exchange stayed at %v", now)
	}
	if now := last(sites[1]); !now.After(answered) {
		t.Errorf("us-east-1 answered, and its last exchange stayed at %v", now)
	}
	if now := sites[1].repl.LastContact(paris); !now.Equal(contact) {
		t.Errorf("us-east-1 takes being asked for an answer of Paris: %v, before %v", now, contact)
	}
}
