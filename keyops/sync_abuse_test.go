package keyops_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
)

// foreign is a network in which one Region is in another partition.
type foreign struct {
	*keyopstest.Network
	name region.Name
}

func (f foreign) Peer(name region.Name) (region.Descriptor, bool) {
	d, ok := f.Network.Peer(name)
	if name == f.name {
		d.Partition = "aws-cn"
	}
	return d, ok
}

// Instances of two partitions are not associated, whichever end is asked.
func TestAssociationWithAnotherPartition(t *testing.T) {
	f := newFleet(t, keyopstest.Options{Name: "eu-paris-1"}, keyopstest.Options{Name: "cn-north-1"})
	paris, north := f.regions["eu-paris-1"], f.regions["cn-north-1"]
	paris.Options.Peers = foreign{f.network, "cn-north-1"}
	paris.Restart(t)
	id := synchronizationIn(t, paris)
	for _, name := range []string{"cn-north-1", string(north.Descriptor.Instance)} {
		want(t, associate(paris, t, id, name), keyops.ErrInvalidArn, "partition aws-cn")
	}
	claim := keyops.AssociationClaim{
		Source: "eu-paris-1", Instance: paris.Descriptor.Instance, Synchronization: noSync, Account: keyopstest.Account,
		Principal: arn.Principal{Partition: "aws-cn", Account: keyopstest.Account, Name: "user/admin"}, KeyQuota: 1, Commit: true,
	}
	want(t, north.Associate(t.Context(), claim), keyops.ErrAccessDenied, "")
	if out, err := north.ListSynchronizations(t.Context(), admin(), keyops.ListSynchronizationsInput{}); err != nil || len(out.Synchronizations) != 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestAuthorityIsAskedForEachKey: an association does what its maker may do at that moment, at
// either end, and no more than that when it has lost a permission.
func TestAuthorityIsAskedForEachKey(t *testing.T) {
	const maker = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:user/admin","arn:aws:iam::111122223333:user/maker"]},"Action":"kms:*","Resource":"*"}]}`
	without := func(action string) string {
		return strings.Replace(maker, `"Statement":[`, `"Statement":[{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::111122223333:user/maker"},"Action":"kms:`+action+`","Resource":"*"},`, 1)
	}
	clock := newClock()
	options := func(name region.Name) keyopstest.Options {
		return keyopstest.Options{Name: name, Identities: maker, Clock: clock.now, Elapsed: clock.passed}
	}
	f := newFleet(t, options("eu-paris-1"), options("us-east-1"), options("ap-tokyo-1"))
	paris, east := f.regions["eu-paris-1"], f.regions["us-east-1"]
	id := synchronizationIn(t, paris)
	for _, name := range []string{"us-east-1", "ap-tokyo-1"} {
		in := keyops.AssociateReplicaInstanceInput{SynchronizationID: id, ReplicaInstance: name, SynchronizationType: "ALL_RESOURCES"}
		if _, err := paris.AssociateReplicaInstance(t.Context(), keyopstest.User("maker"), in); err != nil {
			t.Fatal(explain(err))
		}
	}
	names := map[arn.KeyID]string{}
	make := func(name string) {
		t.Helper()
		names[create(t, paris, keyops.CreateKeyInput{MultiRegion: true}).KeyID] = name
		clock.advance(61 * time.Second)
		if err := paris.Synchronize(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when, list string) {
		t.Helper()
		if got := strings.Join(rows(t, paris, id, names, keyops.ResourceFilter{}), "; "); got != list {
			t.Errorf("%s: %s\nwant %s", when, got, list)
		}
	}
	make("old")
	expect("with all permissions", "old us-east-1 PENDINGap-tokyo-1 PENDING")

	paris.Options.Identities = without("ReplicateKey")
	paris.Restart(t)
	make("new")
	expect("without kms:ReplicateKey here", "old us-east-1 PENDINGap-tokyo-1 PENDING; new us-east-1 FAILED ACCESS_DENIEDap-tokyo-1 FAILED ACCESS_DENIED")

	// Back here, lost in one Region, which is asked; the other is dark and decides later.
	paris.Options.Identities = maker
	paris.Restart(t)
	east.Options.Identities = without("CreateKey")
	east.Restart(t)
	f.network.SetDark("ap-tokyo-1", true)
	make("off")
	expect("without kms:CreateKey there", "old us-east-1 PENDINGap-tokyo-1 PENDING; new us-east-1 FAILED ACCESS_DENIEDap-tokyo-1 PENDING; off us-east-1 FAILED ACCESS_DENIEDap-tokyo-1 PENDING")

	east.Options.Identities = maker
	east.Restart(t)
	clock.advance(11 * time.Minute)
	if err := paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("with all permissions again", "old us-east-1 PENDINGap-tokyo-1 PENDING; new us-east-1 PENDINGap-tokyo-1 PENDING; off us-east-1 PENDINGap-tokyo-1 PENDING")
	for _, l := range strings.Split(auditText(t, paris), "\n") {
		if strings.Contains(l, `"event":"ReplicateKey"`) && !strings.Contains(l, `"principal":"arn:aws:iam::111122223333:user/maker"`) {
			t.Errorf("not in the maker's name: %s", l)
		}
	}
	// A principal that may nothing at all has no synchronization to ask about.
	_, err := paris.DisassociateReplicaInstance(t.Context(), keyopstest.User("mallory"), keyops.DisassociateReplicaInstanceInput{SynchronizationID: id, ReplicaInstance: "us-east-1"})
	if !errors.Is(err, keyops.ErrAccessDenied) {
		t.Errorf("a stranger disassociates: %v", err)
	}
}
