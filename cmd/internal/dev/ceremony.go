package dev

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/transport"
)

// A deployment has one operator, who approves everything.
const operators = "threshold: 1\noperators:\n  - name: dev\n    key: dev.key.pub\n"

func (d *Deployment) operatorKey() string { return d.path("operators", "dev.key") }

func (d *Deployment) makeOperator(ctx context.Context) error {
	roster := d.path("operators", "operators.yaml")
	if exists(roster) {
		return nil
	}
	if err := os.RemoveAll(filepath.Dir(roster)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(roster), 0o700); err != nil {
		return err
	}
	if err := d.ceremony(ctx, "", "operator-key", d.operatorKey()); err != nil {
		return err
	}
	return writeFile(roster, []byte(operators))
}

// initRegions makes each Region's keys and pins the Regions' descriptors to each other.
func (d *Deployment) initRegions(ctx context.Context) error {
	if err := d.makeOperator(ctx); err != nil {
		return err
	}
	for _, r := range d.Regions() {
		if exists(d.regionDir(r).Own()) {
			continue
		}
		if err := d.ceremony(ctx, r, "init", "--region", string(r), "--partition", partition,
			"--operators", d.path("operators", "operators.yaml")); err != nil {
			return err
		}
		d.say("%s is initialised", r)
	}
	return d.eachPair(func(r, peer region.Name) error {
		if exists(d.regionDir(r).Peer(peer)) {
			return nil
		}
		descriptor, err := d.regionDir(peer).LoadOwn()
		if err != nil {
			return err
		}
		return d.ceremony(ctx, r, "pin", d.regionDir(peer).Own(), "--yes", "--fingerprint", descriptor.Fingerprint())
	})
}

func (d *Deployment) eachPair(fn func(a, b region.Name) error) error {
	for _, a := range d.Regions() {
		for _, b := range d.Regions() {
			if a == b {
				continue
			}
			if err := fn(a, b); err != nil {
				return fmt.Errorf("%s and %s: %w", a, b, err)
			}
		}
	}
	return nil
}

// holdCeremonies makes transport keys for every ordered pair that has none. One ceremony at
// a time: each refuses a token with transport keys that no transcript names yet.
func (d *Deployment) holdCeremonies(ctx context.Context) error {
	return d.eachPair(func(source, destination region.Name) error {
		p, err := d.pair(source, destination)
		if err != nil || p.established() {
			return err
		}
		if err := d.holdCeremony(ctx, p); err != nil {
			return err
		}
		if p, err = d.pair(source, destination); err == nil && !p.established() {
			err = errors.New("the ceremony ended without transport keys")
		}
		d.say("%s can send keys to %s", source, destination)
		return err
	})
}

// pair is what the transcripts at both ends say of the transport keys between them.
type pair struct {
	source, destination transport.End
	atSource, atDest    transport.Set
}

func (d *Deployment) pair(source, destination region.Name) (p pair, err error) {
	for _, end := range []struct {
		name region.Name
		end  *transport.End
		set  *transport.Set
	}{{source, &p.source, &p.atSource}, {destination, &p.destination, &p.atDest}} {
		own, err := d.regionDir(end.name).LoadOwn()
		if err != nil {
			return p, err
		}
		*end.end = transport.EndOf(own.Descriptor)
		if *end.set, err = transport.Load(d.regionDir(end.name)); err != nil {
			return p, err
		}
	}
	return p, nil
}

// oneSided lists the epochs that the source has and the destination has not.
func (p pair) oneSided() []uint64 {
	there := p.atDest.Epochs(p.source, p.destination, hsm.ClassAES)
	return slices.DeleteFunc(p.atSource.Epochs(p.source, p.destination, hsm.ClassAES), func(e uint64) bool { return slices.Contains(there, e) })
}

func (p pair) established() bool {
	return len(p.atSource.Epochs(p.source, p.destination, hsm.ClassAES)) > len(p.oneSided())
}

// holdCeremony runs the two processes of one ceremony, as officers of the two Regions would.
func (d *Deployment) holdCeremony(ctx context.Context, p pair) error {
	dir, attempt, err := d.newAttempt(p)
	if err != nil {
		return err
	}
	if attempt > 1 {
		if err := d.clearAttempt(ctx, p); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends accept if establish fails
	offer, answer := filepath.Join(dir, "offer.json"), filepath.Join(dir, "package.json")
	accept, err := d.ceremonyCommand(ctx, p.destination.Region, "accept", "--from", string(p.source.Region),
		"--offer", offer, "--package", answer, "--operator-key", d.operatorKey(),
		"--epoch", strconv.FormatUint(p.atSource.NextEpoch(p.source, p.destination), 10))
	if err != nil {
		return err
	}
	said, err := accept.StdoutPipe()
	if err != nil {
		return err
	}
	if err := accept.Start(); err != nil {
		return err
	}
	fingerprint, err := readFingerprint(said)
	if err == nil {
		err = d.ceremony(ctx, p.source.Region, "establish", offer, "--package", answer,
			"--so-pin-file", d.soPINFile(p.source.Region), "--yes", "--fingerprint", fingerprint)
	}
	if err != nil {
		cancel()
	}
	_, drained := io.Copy(io.Discard, said)
	return errors.Join(err, drained, finish(accept, accept.Wait()))
}

// readFingerprint returns the offer's fingerprint once the offer is there to be answered.
func readFingerprint(said io.Reader) (string, error) {
	fingerprint := ""
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if f, ok := strings.CutPrefix(lines.Text(), "offer fingerprint "); ok {
			fingerprint = f
		}
		if strings.HasPrefix(lines.Text(), "waiting for ") && strings.Contains(lines.Text(), "package.json") {
			return fingerprint, nil
		}
	}
	return "", errors.New("accept ended without an offer")
}

// newAttempt makes a directory for the files of one ceremony, which are never overwritten.
func (d *Deployment) newAttempt(p pair) (dir string, number int, err error) {
	for number = 1; ; number++ {
		dir = d.path("ceremonies", fmt.Sprintf("%s-to-%s", p.source.Region, p.destination.Region), strconv.Itoa(number))
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			return "", 0, err
		}
		if err := os.Mkdir(dir, 0o700); !errors.Is(err, os.ErrExist) {
			return dir, number, err
		}
	}
}

// clearAttempt destroys what a ceremony that was killed has left in either token.
func (d *Deployment) clearAttempt(ctx context.Context, p pair) error {
	for _, r := range []region.Name{p.source.Region, p.destination.Region} {
		if err := d.ceremony(ctx, r, "retire", "--orphans"); err != nil {
			return err
		}
	}
	for _, epoch := range p.oneSided() {
		set := transport.Name{Source: p.source, Destination: p.destination, Epoch: epoch}
		if err := d.ceremony(ctx, p.source.Region, "retire", "--set", set.String(), "--alone"); err != nil {
			return err
		}
	}
	return nil
}

// ceremony runs keyferry-ceremony beside the token of a Region, or beside none.
func (d *Deployment) ceremony(ctx context.Context, r region.Name, args ...string) error {
	cmd, err := d.ceremonyCommand(ctx, r, args...)
	if err != nil {
		return err
	}
	return finish(cmd, cmd.Run())
}

func (d *Deployment) ceremonyCommand(ctx context.Context, r region.Name, args ...string) (*exec.Cmd, error) {
	var env []string
	if r != "" {
		token, err := d.token(ctx, r)
		if err != nil {
			return nil, err
		}
		args = append(args, "--region-dir", string(d.regionDir(r)), "--module", token.Module,
			"--token", token.Label, "--pin-file", token.PINFile, "--profile", profile)
		env = tokenEnv(token)
	}
	cmd := exec.CommandContext(ctx, d.bin.Ceremony, args...)
	cmd.Env = env
	cmd.Stderr = new(bytes.Buffer)
	// An accept that nobody answers any more would wait for an hour.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// finish adds to a command's error what it said.
func finish(cmd *exec.Cmd, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("keyferry-ceremony %s: %w: %s", cmd.Args[1], err, bytes.TrimSpace(cmd.Stderr.(*bytes.Buffer).Bytes()))
}
