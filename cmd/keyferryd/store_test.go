package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// site is a Region whose signing key is in this process.
type site struct {
	key  *ecdsa.PrivateKey
	desc region.SignedDescriptor
	dir  string // of its audit log
}

func newSite(t *testing.T, name region.Name) site {
	t.Helper()
	key := func(c elliptic.Curve) (*ecdsa.PrivateKey, []byte) {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		return k, der
	}
	k, public := key(elliptic.P384())
	_, operator := key(elliptic.P256())
	desc, err := region.Descriptor{
		Region: name, Instance: region.NewInstanceID(), Partition: "aws", SigningKey: public, Version: 1,
		Operators: approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "operator", Key: operator}}},
		Created:   time.Now().Truncate(time.Second).UTC(),
	}.Sign(t.Context(), statement.HostKey(k))
	if err != nil {
		t.Fatal(err)
	}
	return site{k, desc, filepath.Join(t.TempDir(), "audit")}
}

func (s site) open(t *testing.T) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), audit.Config{
		Dir: s.dir, Region: s.desc.Region, Instance: s.desc.Instance, Signer: statement.HostKey(s.key), CheckpointEvery: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// checkpoint is one that the site signs, with its store at the version.
func (s site) checkpoint(t *testing.T, version uint64) audit.SignedCheckpoint {
	t.Helper()
	l := s.open(t)
	l.CoverStore(func() audit.StoreHead { return audit.StoreHead{Version: version} })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	public := []crypto.PublicKey{s.key.Public()}
	c, err := audit.Newest(s.dir, public)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWitnessedBy takes from a peer's log what this Region has signed, and nothing else.
func TestWitnessedBy(t *testing.T) {
	own, peer, impostor := newSite(t, "eu-paris-1"), newSite(t, "us-east-1"), newSite(t, "eu-paris-1")
	impostor.desc.Instance = own.desc.Instance
	regionDir := region.Dir(t.TempDir())
	if err := errors.Join(regionDir.Make(), own.desc.Save(regionDir.Own()), peer.desc.Save(regionDir.Peer("us-east-1"))); err != nil {
		t.Fatal(err)
	}
	l := peer.open(t)
	for _, c := range []audit.SignedCheckpoint{own.checkpoint(t, 7), impostor.checkpoint(t, 99), own.checkpoint(t, 8), newSite(t, "ap-tokyo-1").checkpoint(t, 50)} {
		if err := l.Append(context.Background(), audit.WitnessRecord(c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d := &daemon{config: &config.Config{RegionDir: string(regionDir)}, self: own.desc}
	got, err := d.witnessedBy("us-east-1=" + peer.dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]audit.StoreHead{{Version: 7}, {Version: 8}}, got); diff != "" {
		t.Errorf("witnessed (-want +got):\n%s", diff)
	}
	for flag, want := range map[string]string{
		"us-east-1":                         "want REGION=DIR",
		"ap-tokyo-1=" + peer.dir:            "not pinned",
		"us-east-1=" + own.dir:              "signature not valid",
		"us-east-1=" + t.TempDir():          "no file",
		"../peers/us-east-1=" + peer.dir:    "",
		"us-east-1=" + peer.dir + "/absent": "",
	} {
		if got, err := d.witnessedBy(flag); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v; want an error with %q", flag, got, err, want)
		}
	}
}

func TestPrintFindings(t *testing.T) {
	bad := keyops.StoreInspection{
		Inspection: seal.Inspection{Rows: 3, Findings: seal.Findings{{Kind: "key", ID: "k1", Version: 2, Problem: seal.SealWrong}}},
		Behind:     fmt.Errorf("%w: at head 3, witnessed at 5", seal.ErrRolledBack),
	}
	for name, c := range map[string]struct {
		in   keyops.StoreInspection
		want []string
		not  string
	}{
		"what holds":    {keyops.StoreInspection{}, []string{"all holds", "witnessed head"}, "rolled back"},
		"what does not": {bad, []string{"rolled back", "witnessed at 5", "SEAL_WRONG", "key k1, version 2"}, "all holds"},
	} {
		var out bytes.Buffer
		if err := printFindings(&out, c.in, false); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: %q is not in\n%s", name, w, out.String())
			}
		}
		if strings.Contains(out.String(), c.not) {
			t.Errorf("%s: %q is in\n%s", name, c.not, out.String())
		}
		out.Reset()
		var got struct {
			Holds    bool
			Behind   string
			Findings []map[string]any
		}
		if err := printFindings(&out, c.in, true); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Holds != (c.in.Err() == nil) || len(got.Findings) != len(c.in.Findings) || (got.Behind != "") != (c.in.Behind != nil) {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}
