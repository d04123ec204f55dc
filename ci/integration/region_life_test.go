package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
	"github.com/keyferry/keyferry/softhsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

const milan = "eu-milan-1"

// TestRegionLife types docs/region-life.md on three Regions, a fourth that comes and goes, and
// a client that calls in all of them throughout.
func TestRegionLife(t *testing.T) {
	softhsmtest.Used(t)
	t.Parallel()
	d := deployment{dir: filepath.Join(t.TempDir(), "d")}
	t.Cleanup(func() { d.dev("down", "--purge") })
	d.mustDev(t, "up", "--base-port", basePort())
	l := newLives(t, d)
	three := []string{paris, virginia, tokyo}
	for _, r := range three {
		l.link(r, filepath.Join(d.dir, "operators", "dev.key"), "anna.key")
	}
	key := d.createKey(t, paris)
	for _, to := range []string{virginia, tokyo} {
		d.replicate(t, key, paris, to)
	}
	before := d.must(t, []byte("before"), "encrypt", key, "--region", paris)
	peers, clients := map[string]string{}, map[string]kmsv1.CryptoServiceClient{}
	for name, s := range d.status(t) {
		clients[name], peers[name] = d.client(t, s.GRPC), l.peerAddress(name)
	}
	without := func(dark string) map[string]kmsv1.CryptoServiceClient {
		some := map[string]kmsv1.CryptoServiceClient{}
		for name, c := range clients {
			if name != dark {
				some[name] = c
			}
		}
		return some
	}

	c := l.call(key, clients)
	l.changeTransportKeys(key)
	c.none(t, "transport keys changed")

	c = l.call(key, without(tokyo))
	l.replaceToken(key)
	c.none(t, "a token replaced")
	l.opens(before, "before", tokyo)

	c = l.call(key, without(virginia))
	l.restoreOldStore(key)
	c.none(t, "an old store restored")
	l.opens(before, "before", virginia)

	c = l.call(key, clients)
	l.addMilan(key, peers, three)
	c.none(t, "a Region added")
	l.opens(before, "before", milan)

	c = l.call(key, clients)
	l.retireMilan(key, peers, three)
	c.none(t, "a Region retired")
	l.staysRetired(peers)

	if left := l.untyped(); len(left) > 0 {
		t.Errorf("commands of the page that nobody has typed: %q", left)
	}
	for _, r := range three {
		l.stopDaemon(r)
		l.verifyAudit(r)
	}
}

// rotate rotates a key, once a rotation before has ended, and waits until the Region of its
// primary key encrypts with the new material, which every Region has by then.
func (l *lives) rotate(key string) {
	l.t.Helper()
	eventually(l.t, patience, func() (string, bool) {
		_, err := l.keyferry(nil, "key", "rotate", key, "--wait", "--region", paris)
		if err != nil && !strings.Contains(err.Error(), "ConflictException") {
			l.t.Fatal(err)
		}
		return errString(err), err == nil
	})
}

// opens waits until a Region decrypts.
func (l *lives) opens(ciphertext []byte, want, in string) {
	l.t.Helper()
	eventually(l.t, patience, func() (string, bool) {
		got, err := l.keyferry(ciphertext, "decrypt", "--region", in)
		return fmt.Sprintf("%s: %q, %v", in, got, err), string(got) == want
	})
}

// peerAddress is where a Region listens for peers.
func (l *lives) peerAddress(name string) string {
	l.t.Helper()
	data, err := os.ReadFile(l.in(name, "keyferryd.yaml"))
	var c struct{ Peers struct{ Listen string } }
	if err == nil {
		err = yaml.Unmarshal(data, &c)
	}
	if err != nil || c.Peers.Listen == "" {
		l.t.Fatalf("%s listens for peers at %q, %v", name, c.Peers.Listen, err)
	}
	return c.Peers.Listen
}

// epochs waits until a Region's doctor shows the epoch of what a peer sends.
func (l *lives) epochs(in, peer string, from float64) {
	l.t.Helper()
	l.mark("keyferry --region us-east-1 doctor --json")
	eventually(l.t, patience, func() (string, bool) {
		all, _ := l.doctor(l.t, "--region", in)
		for _, c := range all[in].Checks {
			if c.Name == "transport" && c.Subject == peer {
				return fmt.Sprint(c), c.Values["epochFrom"] == from
			}
		}
		return fmt.Sprint(all), false
	})
}

func (l *lives) changeTransportKeys(key string) {
	l.t.Helper()
	old := l.newest(paris, virginia)
	next := l.hold(paris, virginia)
	l.epochs(virginia, paris, 2)
	l.rotate(key) // replication goes on
	l.typed(virginia, `ceremony retire --set "$SET"`, "$SET", old)
	l.refused(paris, fmt.Sprintf("ceremony retire --set '%s'", old), "the destination retires first")
	l.typed(paris, `ceremony retire --set "$SET" --destination-transcript "$TRANSCRIPT"`, "$SET", old, "$TRANSCRIPT", l.transcript(virginia, old))
	eventually(l.t, patience, func() (string, bool) {
		all, _ := l.doctor(l.t, "--region", virginia)
		for _, c := range all[virginia].Checks {
			if c.Name == "transport" && c.Subject == paris {
				return fmt.Sprint(c), c.Values["epochsFrom"] == 1
			}
		}
		return fmt.Sprint(all), false
	})
	l.rotate(key)
	if next == old || !strings.HasSuffix(next, "#2") {
		l.t.Errorf("after %s came %s", old, next)
	}
}

// newMilan makes what a new host has: token, certificates, configuration, operators' roster.
func (l *lives) newMilan(peers map[string]string) (peerAddress string) {
	l.t.Helper()
	if err := os.MkdirAll(l.in(milan), 0o700); err != nil {
		l.t.Fatal(err)
	}
	if _, err := softhsm.Provision(l.t.Context(), l.in(milan, "softhsm"), milan); err != nil {
		l.t.Fatal(err)
	}
	for _, name := range []string{"server.crt", "server.key"} { // they name 127.0.0.1
		l.link(milan, l.in(paris, name), name)
	}
	for _, name := range []string{"operators.yaml", "dev.key.pub"} {
		l.link(milan, filepath.Join(l.dir, "operators", name), name)
	}
	data, err := os.ReadFile(l.in(paris, "keyferryd.yaml"))
	if err != nil {
		l.t.Fatal(err)
	}
	var c map[string]any
	if err := yaml.Unmarshal(data, &c); err != nil {
		l.t.Fatal(err)
	}
	peerAddress = freePort(l.t)
	grpc := freePort(l.t)
	c["region"] = milan
	c["token"].(map[string]any)["label"] = milan
	c["token"].(map[string]any)["pin_file"] = l.in(milan, "softhsm", milan+".pin")
	c["clients"].(map[string]any)["grpc"], c["clients"].(map[string]any)["rest"] = grpc, freePort(l.t)
	c["peers"].(map[string]any)["listen"] = peerAddress
	delete(c, "metrics")
	if data, err = yaml.Marshal(c); err == nil {
		err = os.WriteFile(l.in(milan, "keyferryd.yaml"), data, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.configured(milan, "keyferryd.yaml", peers)
	admin := filepath.Join(l.dir, "clients", "admin", "config.yaml")
	if data, err = os.ReadFile(admin); err == nil {
		err = yaml.Unmarshal(data, &c)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	regions := c["regions"].(map[string]any)
	ours := map[string]any{}
	for k, v := range regions[paris].(map[string]any) {
		ours[k] = v
	}
	delete(ours, "rest")
	ours["grpc"], regions[milan] = grpc, ours
	if data, err = yaml.Marshal(map[string]any{"default_region": paris, "regions": regions}); err == nil {
		err = os.WriteFile(admin, data, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return peerAddress
}

func (l *lives) addMilan(key string, peers map[string]string, others []string) {
	l.t.Helper()
	address := l.newMilan(peers)
	l.typed(milan, "ceremony init --region eu-milan-1 --operators operators.yaml")
	all := map[string]string{milan: address}
	for name, a := range peers {
		all[name] = a
		l.link(name, l.in(milan, "region", "region.json"), milan+"/region.json")
		l.link(milan, l.in(name, "region", "region.json"), name+"/region.json")
		l.typed(name, "ceremony pin eu-milan-1/region.json")
		l.typed(milan, "ceremony pin eu-paris-1/region.json", paris, name)
	}
	l.hold(paris, milan)
	l.hold(milan, paris)
	l.startDaemon(milan, l.in(milan, "keyferryd.yaml"))
	for _, name := range others {
		l.configured(name, "next.yaml", all)
		l.typed(name, "keyferryd validate --files next.yaml")
		l.mark("keyferryd run --config next.yaml --standby")
		l.mark("systemctl stop keyferryd")
		l.handOver(name, l.in(name, "next.yaml"))
	}
	l.typed(paris, "keyferry key replicate payroll --to eu-milan-1 --wait", "payroll", key+" --region "+paris)
}

func (l *lives) replaceToken(key string) {
	l.t.Helper()
	alone := strings.TrimSpace(string(l.must(l.t, nil, "key", "create", "--alias", "alone", "--region", tokyo)))
	l.stopDaemon(tokyo)
	if err := os.Rename(l.in(tokyo, "softhsm"), l.in(tokyo, "lost")); err != nil {
		l.t.Fatal(err)
	}
	if _, err := softhsm.Provision(l.t.Context(), l.in(tokyo, "softhsm"), tokyo); err != nil {
		l.t.Fatal(err)
	}
	l.must(l.t, nil, "key", "rotate", key, "--region", paris) // ends when the Region is back, which is waited for
	lost := map[string]string{}
	for _, peer := range []string{paris, virginia} {
		lost["to "+peer], lost["from "+peer] = l.newest(tokyo, peer), l.newest(peer, tokyo)
	}
	l.refused(tokyo, "ceremony rekey --request other.request", "objects of role")
	out := l.typed(tokyo, "ceremony rekey --lost --store store.db --audit-dir audit --request rekey.request")
	if !strings.Contains(out, "approvals needed") {
		l.t.Errorf("it does not say who approves:\n%s", out)
	}
	l.refused(paris, "ceremony rekey --lost --store store.db --audit-dir audit --request other.request", "for a new, empty token")
	l.typed(tokyo, "keyferry approve rekey.request --key anna.key --out rekey.approval-anna")
	l.typed(tokyo, "ceremony rekey --store store.db --audit-dir audit --approval rekey.approval-*")
	report := l.typed(tokyo, "keyferryd store lost --config keyferryd.yaml")
	if !strings.Contains(report, alone) || !strings.Contains(report, "alias/alone") || !strings.Contains(report, key) {
		l.t.Errorf("it does not name %s and %s:\n%s", alone, key, report)
	}
	l.startDaemon(tokyo, l.in(tokyo, "keyferryd.yaml"))

	replacement := filepath.Join(l.in(tokyo, "region", "replacements"), tokyo+"@"+l.instance(tokyo), "2.json")
	for _, peer := range []string{paris, virginia} {
		l.link(peer, replacement, "2.json")
		l.refused(peer, "ceremony pin --replace 2.json --yes --fingerprint 0000", "differs")
		if out := l.typed(peer, "ceremony pin --replace 2.json"); !strings.Contains(out, "lost with its token") {
			l.t.Errorf("the peer's operator is not told that the old key is lost:\n%s", out)
		}
		l.handOver(peer, l.in(peer, "keyferryd.yaml"))
		l.typed(peer, `ceremony retire --set "$FROM_TOKYO"`, "$FROM_TOKYO", lost["to "+peer])
		l.typed(peer, `ceremony retire --set "$TO_TOKYO" --destination-transcript "$TRANSCRIPT"`, "$TO_TOKYO", lost["from "+peer], "$TRANSCRIPT", l.transcript(tokyo, lost["from "+peer]))
		l.hold(peer, tokyo)
		l.hold(tokyo, peer)
	}
	l.awaitSynchronized(l.t, key, paris, tokyo)
	if _, err := l.keyferry([]byte("x"), "encrypt", alone, "--region", tokyo); err == nil || !strings.Contains(err.Error(), "KeyUnavailable") {
		l.t.Errorf("a single-Region key that is lost: %v", err)
	}
	if out := l.typed(tokyo, "keyferryd store lost --config keyferryd.yaml"); strings.Contains(out, key) {
		l.t.Errorf("%s has come back, and is reported lost:\n%s", key, out)
	}
}

// instance is a Region's instance ID.
func (l *lives) instance(name string) string {
	l.t.Helper()
	var out struct{ InstanceID string }
	data := l.must(l.t, nil, "region", "show", "--json", "--region", name)
	if err := json.Unmarshal(data, &out); err != nil || out.InstanceID == "" {
		l.t.Fatalf("keyferry region show: %v\n%s", err, data)
	}
	return out.InstanceID
}

func (l *lives) restoreOldStore(key string) {
	l.t.Helper()
	l.shell(virginia, "keyferryd backup --config keyferryd.yaml --out backup-monday")
	l.rotate(key)
	since := l.must(l.t, []byte("since"), "encrypt", key, "--region", virginia)
	l.stopDaemon(virginia)
	l.typed(virginia, "keyferryd restore --config keyferryd.yaml --from backup-monday --replace")
	l.typed(virginia, "keyferryd store findings --config keyferryd.yaml --request restore.request")
	l.typed(virginia, "keyferry approve restore.request --key anna.key --out restore.approval-anna")
	l.typed(virginia, "keyferryd store reseal --config keyferryd.yaml --approval restore.approval-*")
	l.startDaemon(virginia, l.in(virginia, "keyferryd.yaml"))
	l.opens(since, "since", virginia)
	l.awaitSynchronized(l.t, key, paris, virginia)
}

// shell runs a command that is another page's.
func (l *lives) shell(region, command string) {
	l.t.Helper()
	if code, out, err := l.at(l.t.Context(), region, l.shims(region, 0)+command); err != nil || code != 0 {
		l.t.Fatalf("%s: %s: exit code %d, %v\n%s", region, command, code, err, out)
	}
}

func (l *lives) retireMilan(key string, peers map[string]string, others []string) {
	l.t.Helper()
	its := l.createKey(l.t, milan)
	l.replicate(l.t, its, milan, paris)
	sealed := l.must(l.t, []byte("its"), "encrypt", its, "--region", milan)
	l.typed(paris, "keyferry --region eu-milan-1 key promote payroll --to eu-paris-1 --wait", "payroll", its)
	for i, k := range []string{key, its} {
		with := []string{"payroll", k, "evict.", fmt.Sprintf("evict-%d.", i)}
		l.typed(paris, "keyferry --region eu-paris-1 key evict payroll --replica eu-milan-1 --request evict.request", with...)
		l.typed(paris, "keyferry approve evict.request --key anna.key --out evict.approval-anna", with...)
		l.typed(paris, "keyferry --region eu-paris-1 key evict payroll --replica eu-milan-1 --approval evict.approval-anna", with...)
	}
	l.refused(paris, "ceremony retire-region eu-milan-1", "are in use")
	for _, name := range others {
		l.handOver(name, l.configured(name, "later.yaml", peers))
	}
	from, to := l.newest(milan, paris), l.newest(paris, milan)
	l.stopDaemon(milan)
	l.typed(paris, `ceremony retire --set "$FROM_MILAN"`, "$FROM_MILAN", from)
	l.typed(paris, `ceremony retire --set "$TO_MILAN" --alone`, "$TO_MILAN", to)
	for _, name := range others {
		l.typed(name, "ceremony retire-region eu-milan-1")
		l.shell(name, "ceremony retire-region eu-milan-1 | grep already")
		l.refused(name, "ceremony pin eu-milan-1/region.json", "was retired")
	}
	l.opens(sealed, "its", paris)
	// What it has signed is history, also for a Region that has never heard of the key.
	l.handOver(tokyo, l.in(tokyo, "later.yaml"))
	l.replicate(l.t, its, paris, tokyo)
	l.opens(sealed, "its", tokyo)
	l.rotate(key)
}

// staysRetired takes away the word that a Region was retired. That does not bring it back: the
// daemon remembers.
func (l *lives) staysRetired(peers map[string]string) {
	l.t.Helper()
	l.handOver(paris, l.in(paris, "later.yaml"))
	l.shell(paris, "mv region/retired kept && ceremony pin eu-milan-1/region.json")
	l.stopDaemon(paris)
	with := l.configured(paris, "again.yaml", map[string]string{milan: freePort(l.t), virginia: peers[virginia], tokyo: peers[tokyo]})
	if code, line := l.refusal(l.t, paris, with); code == 0 || !strings.Contains(line, "was retired") {
		l.t.Errorf("a retired Region as a peer again: exit code %d, %q", code, line)
	}
	l.shell(paris, "rm region/peers/eu-milan-1.json && mv kept region/retired")
	l.startDaemon(paris, l.in(paris, "later.yaml"))
}
