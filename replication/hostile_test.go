package replication_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// hostile is a whole peer Region in a thief's hands: it has its pinned connection, and its
// signing key signs whatever the test writes.
type hostile struct {
	*testing.T
	site   *site
	target *site
}

func (h hostile) send(kind string, body []byte, edit func(replication.Forgery)) (replication.Answer, error) {
	h.Helper()
	b, err := h.site.repl.Forge(context.Background(), h.site.region.Signer(), h.target.name(), kind, body, edit)
	if err != nil {
		h.Fatal(err)
	}
	return h.sendRaw(b)
}

func (h hostile) sendRaw(b []byte) (replication.Answer, error) {
	h.Helper()
	reply, err := h.site.repl.Send(context.Background(), h.target.name(), b)
	if err != nil {
		return replication.Answer{}, err
	}
	a, err := h.site.repl.Read(h.target.name(), reply)
	if err != nil {
		h.Fatal(err)
	}
	return a, nil
}

func (h hostile) set(id arn.KeyID, of *site) *mrk.Set {
	h.Helper()
	k, err := of.region.SharedKey(id)
	if err != nil {
		h.Fatal(err)
	}
	return k.Set
}

// replicated has a key in Paris and us-east-1, and Tokyo connected without one. All have
// heard each other.
func replicated(t *testing.T) ([]*site, arn.KeyID) {
	sites := deploy(t, paris, east, tokyo)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	for _, p := range pairs(sites) {
		if p[0] != p[1] {
			eventually(t, "all are connected", func() (bool, string) { return p[0].repl.Heard(p[1].name()), "" })
		}
	}
	return sites, id
}

// A message with one thing wrong is refused before anything in it is acted upon.
func TestMessagesRefused(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[1], sites[0]}
	facts := replication.FactsBody(id, h.set(id, sites[1]).Facts(mrk.Hash{}), mrk.Hash{1}, nil)
	before := h.set(id, sites[0]).Hash()
	self, other := sites[0].region.Descriptor, sites[2].region.Descriptor
	tests := []struct {
		name string
		kind string
		edit func(replication.Forgery)
		body []byte
		code codes.Code // OK: answered with the kind below
		want string
	}{
		{"as it should be", "facts", nil, facts, codes.OK, "facts"},
		{"in another Region's name", "facts", func(f replication.Forgery) { f.From(tokyo, other.Instance) }, facts, codes.InvalidArgument, ""},
		{"in another instance's name", "facts", func(f replication.Forgery) { f.From(east, other.Instance) }, facts, codes.InvalidArgument, ""},
		{"to another Region", "facts", func(f replication.Forgery) { f.To(tokyo, other.Instance) }, facts, codes.InvalidArgument, ""},
		{"to an instance before this one", "facts", func(f replication.Forgery) { f.To(paris, "kfi-000000000000") }, facts, codes.InvalidArgument, ""},
		{"an answer", "facts", func(f replication.Forgery) { f.To(paris, self.Instance); f.AsAnswer() }, facts, codes.InvalidArgument, ""},
		{"of another run", "facts", func(f replication.Forgery) { f.OfRun(mrk.Nonce{1}) }, facts, codes.OK, "stale-session"},
		{"of an unknown kind", "gossip", nil, facts, codes.OK, "unsupported"},
		{"with a body of another kind", "facts", nil, replication.EmptyDigest(), codes.InvalidArgument, ""},
		{"with a byte too many", "facts", nil, append(slices.Clone(facts), 0), codes.InvalidArgument, ""},
		{"with a short digest", "digest", nil, []byte{0, 0, 0, 1, 9}, codes.InvalidArgument, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := h.send(tt.kind, tt.body, tt.edit)
			if got := status.Code(err); got != tt.code {
				t.Fatalf("got %v (%v), want %v", got, err, tt.code)
			}
			if a.Kind != tt.want {
				t.Errorf("answered with %q, want %q", a.Kind, tt.want)
			}
		})
	}
	if got := sites[0].repl.Unsupported(east)["gossip"]; got != 1 {
		t.Errorf("the unknown kind was noted %d times", got)
	}
	if got := h.set(id, sites[0]).Hash(); got != before {
		t.Error("a refused message changed what Paris knows")
	}
}

// A flipped bit anywhere in a signed message makes it worthless.
func TestTamperedMessages(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[1], sites[0]}
	ctx := context.Background()
	good, err := sites[1].repl.Forge(ctx, sites[1].region.Signer(), paris, "confirm-held", replication.ConfirmBody(id), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.sendRaw(good); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 7 {
		bad := slices.Clone(good)
		bad[i] ^= 0x10
		if _, err := h.sendRaw(bad); err == nil {
			t.Errorf("a message with byte %d of %d changed was answered", i, len(good))
		}
	}
	theirs, err := sites[1].repl.Forge(ctx, sites[2].region.Signer(), paris, "confirm-held", replication.ConfirmBody(id), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.sendRaw(theirs); status.Code(err) != codes.PermissionDenied {
		t.Errorf("signed by another Region: %v", err)
	}
}

// A recorded message that is repeated changes nothing, and after a restart of its receiver
// it is not even looked at.
func TestReplay(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[0], sites[1]}
	k, err := sites[0].region.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := sites[0].region.WrapMaterial(context.Background(), id, k.Current, sites[1].region.Descriptor.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := sites[0].repl.Forge(context.Background(), sites[0].region.Signer(), east, "facts",
		replication.FactsBody(id, k.Set.Facts(mrk.Hash{}), k.Set.Hash(), nil, blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	hash, unwraps, objects := h.set(id, sites[1]).Hash(), sites[1].region.Fake.Calls()["C_UnwrapKey"], len(sites[1].region.Fake.Objects())
	for range 3 {
		if a, err := h.sendRaw(recorded); err != nil || a.Cause != "" {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	if h.set(id, sites[1]).Hash() != hash || sites[1].region.Fake.Calls()["C_UnwrapKey"] != unwraps || len(sites[1].region.Fake.Objects()) != objects {
		t.Error("a repeated message had an effect")
	}
	sites[1].restart()
	eventually(t, "the answer to the recorded message", func() (bool, string) {
		a, err := sites[0].repl.Send(context.Background(), east, recorded)
		if err != nil {
			return false, err.Error() // not listening yet
		}
		got, err := sites[0].repl.Read(east, a)
		if err != nil || got.Kind != "stale-session" {
			t.Fatalf("answered with %q after the restart (%v)", got.Kind, err)
		}
		return true, ""
	})
}

// A peer that is no member learns nothing about a key whose ID it knows, and cannot make
// itself a member.
func TestStrangerLearnsNothing(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[2], sites[0]}
	ctx := context.Background()
	set := h.set(id, sites[0])
	word, err := mrkWord(ctx, sites[2], set)
	if err != nil {
		t.Fatal(err)
	}
	for name, facts := range map[string]mrk.Facts{"asking": {}, "calling itself a member": word} {
		a, err := h.send("facts", replication.FactsBody(id, facts, mrk.Hash{1}, nil), nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Told || a.Hash != (mrk.Hash{}) {
			t.Errorf("%s, a stranger was told: %+v", name, a)
		}
	}
	a, err := h.send("digest", replication.EmptyDigest(), nil)
	if err != nil || a.Keys != 0 {
		t.Errorf("a stranger's digest names %d keys (%v)", a.Keys, err)
	}
	a, err = h.send("confirm-held", replication.ConfirmBody(id), nil)
	if err != nil || a.Exists {
		t.Errorf("a stranger's confirmation: %+v (%v)", a, err)
	}
	now := h.set(id, sites[0])
	if now.Entry(tokyo).Incarnation != 0 || len(now.Owes(tokyo)) != 0 || now.State().Hash() != set.State().Hash() {
		t.Errorf("the stranger became %+v", now.Entry(tokyo))
	}
	if got := sites[0].region.Fake.Calls()["C_WrapKey"]; got != 1 {
		t.Errorf("%d C_WrapKey, want the replica's only", got)
	}
}

// mrkWord is a member fact that a Region writes about itself without having been asked.
func mrkWord(ctx context.Context, s *site, like *mrk.Set) (mrk.Facts, error) {
	set, err := mrk.Create(ctx, s.region.Signer(), mrk.Self{Region: s.name(), Instance: s.region.Descriptor.Instance}, mrk.Properties{
		Key: like.Key(), Account: like.State().Account, Spec: like.State().Spec, Usage: like.State().Usage, Origin: like.State().Origin,
	}, mrk.Listed{ID: like.Current()}, mrk.Nonce{7})
	if err != nil {
		return mrk.Facts{}, err
	}
	if _, err := set.Reissue(ctx, s.region.Signer(), mrk.OwnFacts{KeyState: "Creating"}); err != nil {
		return mrk.Facts{}, err
	}
	return mrk.Facts{Key: like.Key(), Members: []*mrk.Member{set.Own()}}, nil
}

// What a hostile member of the set sends beside its own word is refused by name.
func TestHostileMember(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[1], sites[0]}
	ctx := context.Background()
	set := h.set(id, sites[1])
	itself, err := mrk.Create(ctx, sites[1].region.Signer(), set.Self(), mrk.Properties{
		Key: id, Account: set.State().Account, Spec: set.State().Spec, Usage: set.State().Usage, Origin: set.State().Origin,
	}, mrk.Listed{ID: set.Current()}, mrk.Nonce{8})
	if err != nil {
		t.Fatal(err)
	}
	state := itself.Facts(mrk.Hash{})
	state.Certificates = nil
	k, err := sites[0].region.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := sites[0].region.WrapMaterial(ctx, id, k.Current, sites[1].region.Descriptor.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	toParis := blob
	toParis.Source, toParis.Instance = east, sites[1].region.Descriptor.Instance
	toParis.Destination, toParis.ToInstance = paris, sites[0].region.Descriptor.Instance
	unlisted := toParis
	unlisted.Material[0] ^= 1
	stolen := toParis
	stolen.Source = tokyo
	tests := []struct {
		name  string
		facts mrk.Facts
		blob  *mrk.Blob
		want  mrk.Cause
	}{
		{"a certificate of its own making", itself.Facts(mrk.Hash{}), nil, mrk.CauseWaitingForConfirmation},
		{"a state written by a replica", state, nil, mrk.CauseWaitingForConfirmation},
		{"a material that no state lists", mrk.Facts{}, &unlisted, mrk.CauseMaterialMismatch},
		{"a blob of another source", mrk.Facts{}, &stolen, mrk.CauseWaitingForConfirmation},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var blobs []mrk.Blob
			if tt.blob != nil {
				blobs = append(blobs, *tt.blob)
			}
			unwraps := sites[0].region.Fake.Calls()["C_UnwrapKey"]
			a, err := h.send("facts", replication.FactsBody(id, tt.facts, mrk.Hash{1}, nil, blobs...), nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.blob != nil && a.Cause != tt.want {
				t.Errorf("answered with cause %q (%s), want %q", a.Cause, a.Text, tt.want)
			}
			now := h.set(id, sites[0])
			if now.Primary() != paris || !now.Acting() || now.State().Epoch.Region != paris {
				t.Errorf("primary is %s, Paris acts %v", now.Primary(), now.Acting())
			}
			if got := sites[0].region.Fake.Calls()["C_UnwrapKey"]; got != unwraps {
				t.Error("the token was asked to unwrap it")
			}
		})
	}
}

// A Region that signs two facts with one number, by malice or because it was restored from
// a backup, freezes the management of the key until it has counted past both. Cryptography
// goes on.
func TestEquivocation(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[1], sites[0]}
	ctx := context.Background()
	// The honest part of us-east-1 counts past a fact of its own as soon as that comes back
	// to it, which may be before the second one is sent.
	eventually(t, "two facts with one number are noticed", func() (bool, string) {
		var facts []mrk.Facts
		base := h.set(id, sites[1])
		for _, state := range []string{"Disabled", "PendingDeletion"} {
			set := base.Clone()
			if _, err := set.Reissue(ctx, sites[1].region.Signer(), mrk.OwnFacts{KeyState: state, Held: set.Own().Held, Used: set.Own().Used}); err != nil {
				t.Fatal(err)
			}
			facts = append(facts, mrk.Facts{Members: []*mrk.Member{set.Own()}})
		}
		var a replication.Answer
		for _, f := range facts {
			var err error
			if a, err = h.send("facts", replication.FactsBody(id, f, mrk.Hash{1}, nil), nil); err != nil {
				t.Fatal(err)
			}
		}
		return a.Cause == mrk.CauseEquivocation, fmt.Sprintf("%+v", a)
	})
	if !strings.Contains(strings.Join(sites[0].alarms(), ""), "contradictory facts") {
		t.Errorf("no alarm was logged: %v", sites[0].alarms())
	}
	encryptHereDecryptThere(t, id, sites[0], sites[1])
	eventually(t, "the freeze ends", func() (bool, string) {
		return h.set(id, sites[0]).Frozen() == nil, "frozen"
	})
	sites[0].synchronized(id, sites[1])
	sites[0].mustReplicate(id, sites[2])
	sites[0].synchronized(id, sites[1], sites[2])
}

// A create request that the destination has not been sent by the primary Region makes
// nothing.
func TestForgedCreateRequest(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[1], sites[2]}
	req := h.set(id, sites[1]).Admission()
	a, err := h.send("facts", replication.FactsBody(id, h.set(id, sites[1]).Facts(mrk.Hash{}), mrk.Hash{1}, req), nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Cause == "" {
		t.Errorf("another Region's create request was taken: %+v", a)
	}
	if _, err := sites[2].region.SharedKey(id); err == nil {
		t.Error("Tokyo has the key")
	}
	a, err = h.send("facts", replication.FactsBody(id, h.set(id, sites[1]).Facts(mrk.Hash{}), mrk.Hash{1}, nil), nil)
	if err != nil || a.Cause != mrk.CauseCreateRequestMissing {
		t.Errorf("facts without a request: %+v, %v", a, err)
	}
}

// A peer cannot make this Region do more than its share at once.
func TestFlood(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[1], sites[0]}
	release := sites[0].repl.FillSlots(east)
	_, err := h.send("confirm-held", replication.ConfirmBody(id), nil)
	release()
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one exchange too many at once: %v", err)
	}
	if _, err := h.send("confirm-held", replication.ConfirmBody(id), nil); err != nil {
		t.Errorf("after the flood: %v", err)
	}
	huge := make([]byte, 2<<20)
	if _, err := h.sendRaw(huge); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of %d bytes: %v", len(huge), err)
	}
	restore := sites[0].repl.LimitRate(east, 3)
	refused := 0
	for range 6 {
		if _, err := h.sendRaw([]byte("x")); status.Code(err) == codes.ResourceExhausted {
			refused++
		}
	}
	if refused < 3 {
		t.Errorf("%d of 6 exchanges beyond a limit of 3 were refused", refused)
	}
	other := hostile{t, sites[2], sites[0]}
	if _, err := other.send("digest", replication.EmptyDigest(), nil); err != nil {
		t.Errorf("another peer suffers from the flood: %v", err)
	}
	restore()
}

func TestConfirmHeld(t *testing.T) {
	sites, id := replicated(t)
	k, err := sites[0].region.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	ids := k.Held()
	a, err := hostile{t, sites[1], sites[0]}.send("confirm-held", replication.ConfirmBody(id, ids...), nil)
	if err != nil || !a.Exists || !a.Acting || a.Held != len(ids) {
		t.Errorf("the primary Region confirms %+v (%v)", a, err)
	}
	a, err = hostile{t, sites[0], sites[1]}.send("confirm-held", replication.ConfirmBody(id, ids...), nil)
	if err != nil || !a.Exists || a.Acting || a.Held != len(ids) {
		t.Errorf("a replica confirms %+v (%v)", a, err)
	}
	ids[0][0] ^= 1
	a, err = hostile{t, sites[1], sites[0]}.send("confirm-held", replication.ConfirmBody(id, ids...), nil)
	if err != nil || a.Held != 0 {
		t.Errorf("a material that nobody has is confirmed: %+v (%v)", a, err)
	}
}

// No text that a peer is sent or that is logged names what only this Region may know.
func TestAnswersTellNoSecrets(t *testing.T) {
	sites, id := replicated(t)
	h := hostile{t, sites[2], sites[0]}
	a, err := h.send("facts", replication.FactsBody(id, mrk.Facts{}, mrk.Hash{1}, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := h.send("facts", replication.FactsBody(arn.NewKeyID(true), mrk.Facts{}, mrk.Hash{1}, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Cause != unknown.Cause || a.Text != unknown.Text || a.BodySize != unknown.BodySize {
		t.Errorf("a key that a stranger asks for answers %+v, one that does not exist %+v", a, unknown)
	}
	if strings.Contains(a.Text, string(id)) {
		t.Errorf("the answer names the key: %s", a.Text)
	}
}
