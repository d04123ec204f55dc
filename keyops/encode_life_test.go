package keyops_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/policy"
)

// keptRow returns the row that is kept from the first schema.
func keptRow(t *testing.T) (id string, body []byte) {
	t.Helper()
	file, err := os.ReadFile("testdata/key-row-1.txt")
	if err != nil {
		t.Fatal(err)
	}
	id, text, _ := strings.Cut(strings.TrimSpace(string(file)), "\n")
	body, err = hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return id, body
}

// TestKeyRowOfALife: what a row says of deletion, rotation and imports is read as it was
// written, with grants and without, and nothing else is.
func TestKeyRowOfALife(t *testing.T) {
	id, old := keptRow(t)
	at := time.Unix(1_700_000_000, 5).UTC()
	grant := keyops.Grant{
		Grant:  policy.Grant{ID: strings.Repeat("a", 64), Grantee: appARN, Operations: []string{"Decrypt"}},
		Issuer: "111122223333", Created: at,
	}
	tests := map[string]func(*keyops.Key){
		"pending deletion": func(k *keyops.Key) {
			k.State, k.DeletionDate, k.PendingDays = keystate.PendingDeletion, at, 7
		},
		"pending replica deletion": func(k *keyops.Key) { k.State, k.PendingDays = keystate.PendingReplicaDeletion, 30 },
		"rotation on": func(k *keyops.Key) {
			k.Rotation = keyops.Rotation{Enabled: true, Days: 90, Last: at, Next: at.AddDate(0, 0, 90)}
		},
		"rotation off again": func(k *keyops.Key) { k.Rotation = keyops.Rotation{Days: 90, Last: at, OnDemand: 25} },
		"rotated": func(k *keyops.Key) {
			k.Rotations = []keyops.RotationEntry{{Date: at, Type: keyops.RotationOnDemand, Material: k.Current}, {Date: at, Type: keyops.RotationAutomatic, Material: k.Current}}
		},
		"imported": func(k *keyops.Key) {
			k.Origin = keyops.OriginExternal
			m := &k.Materials[0]
			m.Import, m.Expiration, m.Expires, m.Description = keyops.MaterialImported, keyops.MaterialExpires, at, "from the safe"
		},
	}
	for name, change := range tests {
		for _, grants := range [][]keyops.Grant{nil, {grant}} {
			k, err := keyops.DecodeKey(id, old)
			if err != nil {
				t.Fatal(err)
			}
			k.Grants = grants
			change(k)
			body := keyops.EncodeKey(k)
			again, err := keyops.DecodeKey(id, body)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if body[11] != 3 || !bytes.Equal(keyops.EncodeKey(again), body) {
				t.Errorf("%s: schema %d, or written otherwise the second time", name, body[11])
			}
			if diff := cmp.Diff(
				[]any{k.DeletionDate, k.PendingDays, k.Rotation, k.Rotations, k.Materials[0].Expires, k.Materials[0].Import, k.Materials[0].Description, k.Grants},
				[]any{again.DeletionDate, again.PendingDays, again.Rotation, again.Rotations, again.Materials[0].Expires, again.Materials[0].Import, again.Materials[0].Description, again.Grants},
			); diff != "" {
				t.Errorf("%s (-written +read):\n%s", name, diff)
			}
			for n := range body {
				if _, err := keyops.DecodeKey(id, body[:n]); err == nil {
					t.Fatalf("%s: a row cut short at %d is read", name, n)
				}
			}
		}
	}
	impossible := map[string]func(*keyops.Key){
		"a date without a deletion":    func(k *keyops.Key) { k.DeletionDate, k.PendingDays = at, 7 },
		"a period without a deletion":  func(k *keyops.Key) { k.PendingDays = 7 },
		"a date without a period":      func(k *keyops.Key) { k.State, k.DeletionDate = keystate.PendingDeletion, at },
		"rotation on without a date":   func(k *keyops.Key) { k.Rotation = keyops.Rotation{Enabled: true, Days: 90} },
		"rotation on without a period": func(k *keyops.Key) { k.Rotation = keyops.Rotation{Enabled: true, Next: at} },
		"a date with rotation off":     func(k *keyops.Key) { k.Rotation = keyops.Rotation{Days: 90, Next: at} },
		"rotation of no type":          func(k *keyops.Key) { k.Rotations = []keyops.RotationEntry{{Date: at, Type: "", Material: k.Current}} },
		"rotation to an unknown": func(k *keyops.Key) {
			k.Rotations = []keyops.RotationEntry{{at, keyops.RotationOnDemand, material.ID{1}}}
		},
		"evicted, and of one Region":     func(k *keyops.Key) { k.Withheld = true },
		"an import into a key from here": func(k *keyops.Key) { k.Materials[0].Import = keyops.MaterialImported },
		"expiry without a date": func(k *keyops.Key) {
			k.Origin = keyops.OriginExternal
			k.Materials[0].Import, k.Materials[0].Expiration = keyops.MaterialImported, keyops.MaterialExpires
		},
	}
	for name, change := range impossible {
		k, err := keyops.DecodeKey(id, old)
		if err != nil {
			t.Fatal(err)
		}
		change(k)
		if _, err := keyops.DecodeKey(id, keyops.EncodeKey(k)); err == nil {
			t.Errorf("%s: a row that no operation could have made is read", name)
		}
	}
}
