package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// act is an operation on its way.
type act struct {
	plan
	key                 *chaosKey
	source, destination string // Regions: of the primary key, and of a replica key
	request, approval   string // files of operators
}

// chaosOperation is one that a daemon is killed in.
type chaosOperation struct {
	name     string
	commands int                                       // that it takes at least; 0 if most of it comes after its answer
	prepare  func(*chaos, *act) error                  // what is done before, all Regions being up; nil = nothing
	do       func(*chaos, *act) error                  // what a daemon is killed in
	after    func(*chaos, *testing.T, *act, bool) bool // what who did not get an answer does, all Regions being up again; says whether it is done now
	at       func(*act) string                         // the Region in which the key is out of use meanwhile
	calm     bool                                      // it is refused at once unless all Regions are in touch
	midway   func(*chaos, *act) bool                   // whether the kill has left it half done; nil = not asked
}

// stops reports whether the operation stops the use of its key in a Region.
func (op *chaosOperation) stops(a *act, region string) bool {
	return op.at != nil && op.at(a) == region
}

var chaosOperations = []*chaosOperation{
	{name: "replicate", commands: 2, do: (*chaos).replicate, after: (*chaos).replicateAgain},
	{name: "rotate", commands: 1, do: func(c *chaos, a *act) error {
		return c.run("key", "rotate", a.key.id, "--region", a.source)
	}, midway: (*chaos).rotating},
	{name: "hand over", commands: 0, calm: true, do: (*chaos).handOver, after: (*chaos).handOverAgain, midway: (*chaos).updating},
	{name: "promote by force", commands: 1, prepare: (*chaos).askPromotion, do: (*chaos).promote, after: (*chaos).promoteAgain},
	{name: "delete and undelete", commands: 3, prepare: (*chaos).askDeletion, do: (*chaos).deleteAndBack, after: (*chaos).revive, at: (*act).deletes},
}

func (c *chaos) run(args ...string) error {
	_, err := shared.keyferry(nil, args...)
	return err
}

// answered reports whether an operation was answered. Without an answer nothing is concluded;
// a refusal is counted as well, since the Regions may be out of touch.
func answered(t *testing.T, a *act, what string, err error) bool {
	t.Helper()
	if err != nil {
		t.Logf("%d: %s: %v", a.number, what, err)
	}
	return err == nil
}

// begin makes a key of each kind, replicates it everywhere and uses it in every Region before
// the first fault, so that there is something to lose whatever chance does later.
func (c *chaos) begin(t *testing.T) {
	t.Helper()
	for i, kind := range chaosKinds {
		k := c.create(t, kind, regions[i%len(regions)])
		begun := time.Now()
		if err := c.replicate(&act{key: k, source: k.primary}); err != nil {
			t.Fatalf("before the first fault: %v", err)
		}
		c.command += time.Since(begun) / time.Duration(2*len(chaosKinds))
	}
	for _, k := range c.keys {
		c.await(t, k)
		for _, r := range regions {
			if err := c.prove(t, k, r); err != nil {
				t.Fatalf("before the first fault: %v", err)
			}
		}
	}
	t.Logf("a command takes %v here", c.command)
}

func (c *chaos) create(t *testing.T, kind *chaosKind, region string) *chaosKey {
	t.Helper()
	k := &chaosKey{kind: kind, primary: region, members: map[string]bool{region: true}, usable: map[string]bool{region: true}}
	k.id = shared.createKey(t, region, kind.create...)
	c.keys = append(c.keys, k)
	return k
}

// choose returns the key of a round: a new one to replicate, one that rotates, or any.
func (c *chaos) choose(t *testing.T, p plan) *chaosKey {
	t.Helper()
	if p.op.name == "replicate" {
		return c.create(t, p.kind, regions[p.key%len(regions)])
	}
	var fit []*chaosKey
	for _, k := range c.keys {
		if k.kind.rotates || p.op.name != "rotate" {
			fit = append(fit, k)
		}
	}
	return fit[p.key%len(fit)]
}

func (c *chaos) replicate(a *act) (err error) {
	for _, to := range regions {
		if a.key.members[to] {
			continue
		}
		_, failed := shared.keyferry(nil, "key", "replicate", a.key.id, "--to", to, "--region", a.source)
		if failed == nil || strings.Contains(failed.Error(), "AlreadyExistsException") {
			a.key.members[to] = true
		} else {
			err = errors.Join(err, failed)
		}
	}
	return err
}

func (c *chaos) replicateAgain(t *testing.T, a *act, ok bool) bool {
	return ok || answered(t, a, "replicating again", c.replicate(a))
}

func (c *chaos) handOver(a *act) error {
	return c.run("key", "promote", a.key.id, "--to", a.destination, "--region", a.source)
}

// handOverAgain looks where the primary key is now, and asks again if it has not moved.
func (c *chaos) handOverAgain(t *testing.T, a *act, ok bool) bool {
	return ok || c.lead(a.key) == a.destination || answered(t, a, "handing over again", c.handOver(a))
}

// updating reports whether an end of a hand-over does not know how it ended.
func (c *chaos) updating(a *act) bool {
	for _, r := range []string{a.source, a.destination} {
		if m, err := c.show(r, a.key); err == nil && m.GetKeyState() == "Updating" {
			return true
		}
	}
	return false
}

// rotating reports whether a rotation waits for Regions.
func (c *chaos) rotating(a *act) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := c.manage[a.source].GetKeyRotationStatus(ctx, &kmsv1.GetKeyRotationStatusRequest{KeyId: a.key.id})
	return err == nil && out.GetProgress() != nil
}

func (c *chaos) askPromotion(a *act) error {
	args := []string{"key", "promote", "--force", a.key.id, "--generation", nextGeneration(), "--region", a.destination}
	if a.suspend {
		a.key.unsure = true
		args = append(args, "--suspend", a.source)
	}
	return c.ask(a, args...)
}

// ask writes a request and has the deployment's operator approve it.
func (c *chaos) ask(a *act, args ...string) error {
	a.request = filepath.Join(c.dir, fmt.Sprint(a.number)+".request")
	a.approval = filepath.Join(c.dir, fmt.Sprint(a.number)+".approval")
	if err := c.run(append(args, "--request", a.request)...); err != nil {
		return err
	}
	_, err := shared.keyferry([]byte("yes\n"), "approve", a.request, "--key", filepath.Join(shared.dir, "operators", "dev.key"), "--out", a.approval)
	return err
}

func (c *chaos) promote(a *act) error {
	return c.run("key", "promote", "--force", "--request", a.request, "--approval", a.approval, "--region", a.destination)
}

// promoteAgain repeats the command, as docs/lose-a-region.md says.
func (c *chaos) promoteAgain(t *testing.T, a *act, ok bool) bool {
	return ok || answered(t, a, "promoting again", c.promote(a))
}

func (a *act) deletes() string {
	if a.primary {
		return a.source
	}
	return a.destination
}

func (c *chaos) askDeletion(a *act) error {
	a.key.usable[a.deletes()] = false
	if !a.primary {
		return nil // only the deletion of a primary key takes approvals
	}
	return c.ask(a, "key", "delete", a.key.id, "--in", "7d", "--region", a.source)
}

func (c *chaos) deleteAndBack(a *act) error {
	where := []string{a.key.id, "--region", a.deletes()}
	scheduled := append([]string{"key", "delete", "--in", "7d"}, where...)
	if a.primary {
		scheduled = append(scheduled, "--approval", a.approval)
	}
	for _, args := range [][]string{scheduled, append([]string{"key", "undelete"}, where...), append([]string{"key", "enable"}, where...)} {
		if err := c.run(args...); err != nil {
			return err
		}
	}
	return nil
}

// revive brings the key back where it was sent to deletion, however far that came.
func (c *chaos) revive(t *testing.T, a *act, ok bool) bool {
	region := a.deletes()
	eventually(t, patience, func() (string, bool) {
		m, err := c.show(region, a.key)
		said, enabled := c.enable(region, a.key, m, err)
		return said, enabled || m.GetKeyState() == "Updating"
	})
	return ok
}

// enable does the next step on the way of a key to where it is enabled.
func (c *chaos) enable(region string, k *chaosKey, m *kmsv1.KeyMetadata, err error) (said string, enabled bool) {
	if err == nil {
		switch m.GetKeyState() {
		case "PendingDeletion", "PendingReplicaDeletion":
			err = c.run("key", "undelete", k.id, "--region", region)
		case "Disabled":
			err = c.run("key", "enable", k.id, "--region", region)
		case "Enabled":
			k.usable[region] = true
		}
	}
	return fmt.Sprintf("%s in %s is %q: %v", k.id, region, m.GetKeyState(), err), k.usable[region] && m.GetKeyState() == "Enabled"
}

func (c *chaos) show(region string, k *chaosKey) (*kmsv1.KeyMetadata, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := c.manage[region].DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: k.id})
	return out.GetKeyMetadata(), err
}

// lead asks where the primary key is, since a hand-over may have moved it.
func (c *chaos) lead(k *chaosKey) string {
	if m, err := c.show(k.primary, k); err == nil {
		k.primary = m.GetMultiRegionConfiguration().GetPrimaryKey().GetRegion()
	}
	return k.primary
}

// await waits until a key is enabled in the Regions that it was replicated to, and all agree
// about it.
func (c *chaos) await(t *testing.T, k *chaosKey) {
	t.Helper()
	eventually(t, patience, func() (string, bool) { return c.agreed(k) })
	k.unsure = false
}

// agreed reports whether the members of a key are enabled, name one primary Region and one
// current material, and have confirmed everything.
func (c *chaos) agreed(k *chaosKey) (seen string, ok bool) {
	var first *kmsv1.KeyMetadata
	ok = true
	for _, r := range regions {
		if !k.members[r] {
			continue
		}
		m, err := c.show(r, k)
		said, enabled := c.enable(r, k, m, err)
		seen += said + "; "
		if first == nil {
			first = m
		}
		ok = ok && enabled && m.GetCurrentKeyMaterialId() == first.GetCurrentKeyMaterialId() &&
			m.GetMultiRegionConfiguration().GetCertificate() == first.GetMultiRegionConfiguration().GetCertificate()
	}
	if !ok {
		return seen, false
	}
	k.primary = first.GetMultiRegionConfiguration().GetPrimaryKey().GetRegion()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := c.manage[k.primary].ListReplicas(ctx, &kmsv1.ListReplicasRequest{KeyId: k.id})
	for _, r := range out.GetReplicas() {
		k.members[r.GetRegion()] = true
		seen += fmt.Sprintf("%s: %s %s; ", r.GetRegion(), r.GetStatus(), r.GetFailureText())
		ok = ok && r.GetStatus() == kmsv1.ReplicationStatus_REPLICATION_STATUS_SYNCHRONIZED
	}
	return seen + errString(err), ok && err == nil && len(out.GetReplicas()) == len(k.members)
}
