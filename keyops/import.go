package keyops

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
)

// Limits of imports.
const (
	maxImportToken        = 6144
	maxEncryptedMaterial  = 6144
	maxValidity           = 365 * 24 * time.Hour // of imported material
	parametersValidity    = 24 * time.Hour       // of a wrapping key and its import token
	maxImportAttempts     = 5                    // with one import token
	maxWrappingPerKey     = 5                    // wrapping keys that are open at once
	maxWrappingPerAccount = 100
	// expiryGrace is how long expired material stays in the token. It is unusable from the
	// instant of its expiry; a clock that was wrong for a while destroys nothing.
	expiryGrace = 24 * time.Hour
)

// wrappingScheme is what follows from a wrapping algorithm.
type wrappingScheme struct {
	algorithm WrappingAlgorithm
	token     hsm.ImportScheme
}

var wrappingSchemes = []wrappingScheme{
	{WrapOAEPSHA1, hsm.OAEPSHA1Import},
	{WrapOAEPSHA256, hsm.OAEPSHA256Import},
	{WrapRSAAESKeyWrapSHA1, hsm.RSAAESKeyWrapSHA1},
	{WrapRSAAESKeyWrapSHA256, hsm.RSAAESKeyWrapSHA256},
}

var wrappingKeys = []struct {
	spec  WrappingKeySpec
	token hsm.Algorithm
}{
	{WrappingRSA2048, hsm.RSA2048},
	{WrappingRSA3072, hsm.RSA3072},
	{WrappingRSA4096, hsm.RSA4096},
}

func findScheme(a WrappingAlgorithm) (hsm.ImportScheme, bool) {
	i := slices.IndexFunc(wrappingSchemes, func(w wrappingScheme) bool { return w.algorithm == a })
	if i < 0 {
		return "", false
	}
	return wrappingSchemes[i].token, true
}

func findWrappingKey(spec WrappingKeySpec) (hsm.Algorithm, bool) {
	for _, w := range wrappingKeys {
		if w.spec == spec {
			return w.token, true
		}
	}
	return "", false
}

// purpose is what an import wrapping key for material of this key is for. Imported material
// never leaves its token, in a multi-Region key neither: its owner imports it in each Region.
func (k *Key) purpose(scheme hsm.ImportScheme) hsm.ImportFor {
	row := k.use()
	return hsm.ImportFor{Scheme: scheme, Role: k.role(), Algorithm: row.token, Usage: row.tokenUsage}
}

// stateAt is the key's state at an instant. Imported material is unusable from the moment
// at which it expires, whether anybody has noted that in the store or not.
func (k *Key) stateAt(now time.Time) keystate.State {
	switch k.State {
	case keystate.Enabled, keystate.Disabled, keystate.Updating:
		if k.Origin == OriginExternal && k.awaitsImport(now) {
			return keystate.PendingImport
		}
	}
	return k.State
}

// expired reports whether imported material may not be used any more.
func (m *Material) expired(now time.Time) bool { return !m.Expires.IsZero() && !now.Before(m.Expires) }

// usable reports whether imported material is here and may be used.
func (m *Material) usable(now time.Time) bool {
	return !m.Lost && m.Import != MaterialPending && !m.expired(now)
}

// awaitsImport reports whether a key of origin EXTERNAL lacks material that belongs to it
// for good: everything that it ever encrypted or signed with, here or in another Region.
func (k *Key) awaitsImport(now time.Time) bool {
	ids := k.permanent()
	if len(ids) == 0 {
		return true
	}
	return slices.ContainsFunc(ids, func(id material.ID) bool {
		m := k.Material(id)
		return m == nil || !m.usable(now)
	})
}

// permanent lists the materials that an EXTERNAL key cannot do without: those that were ever
// current, here or, as the primary key's Region says, in any Region, but for those that
// operators have written off.
func (k *Key) permanent() []material.ID {
	ids := slices.Clone(k.Used)
	if k.Set == nil {
		return ids
	}
	for _, l := range k.Set.Listed() {
		switch {
		case l.WrittenOff:
			ids = slices.DeleteFunc(ids, func(id material.ID) bool { return id == l.ID })
		case l.ID != k.Set.Pending() && !slices.Contains(ids, l.ID):
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// expected lists the materials that an import of existing material may bring. Where the
// primary key is, those that only another Region still knows, because it has used them, too.
func (k *Key) expected() []material.ID {
	var ids []material.ID
	for _, m := range k.Materials {
		ids = append(ids, m.ID)
	}
	if k.Set != nil {
		for _, l := range k.Set.Listed() {
			if !slices.Contains(ids, l.ID) {
				ids = append(ids, l.ID)
			}
		}
		if k.Set.Primary() == k.Set.Self().Region {
			ids = append(ids, slices.DeleteFunc(k.Set.Orphans(), func(id material.ID) bool { return slices.Contains(ids, id) })...)
		}
	}
	return ids
}

// pendingImport returns the imported material that waits to become current, or nil.
func (k *Key) pendingImport() *Material {
	if k.Origin != OriginExternal {
		return nil
	}
	if k.Set != nil {
		return k.Material(k.Set.Pending())
	}
	for i := range k.Materials {
		if !slices.Contains(k.Used, k.Materials[i].ID) {
			return &k.Materials[i]
		}
	}
	return nil
}

// followImports makes the state of an EXTERNAL key follow its materials: it waits for an
// import while one is missing, and is enabled by the last one.
func (k *Key) followImports(now time.Time) {
	if k.Origin != OriginExternal {
		return
	}
	waits := k.awaitsImport(now)
	switch k.State {
	case keystate.Enabled, keystate.Disabled:
		if waits {
			k.State = keystate.PendingImport
		}
	case keystate.PendingImport:
		if !waits {
			k.State = keystate.Enabled
		}
	}
}

// what describes in words what has to be wrapped.
func (k *Key) what() string {
	row := k.use()
	if row.pair() {
		return fmt.Sprintf("an unencrypted PKCS #8 private key (DER) of key spec %s", k.Spec)
	}
	if k.Spec == HMAC224 {
		return fmt.Sprintf("a key of exactly %d bytes (with zero bytes after a shorter one, which HMAC pads with too)", row.token.SecretBytes())
	}
	return fmt.Sprintf("a key of exactly %d bytes", row.token.SecretBytes())
}
