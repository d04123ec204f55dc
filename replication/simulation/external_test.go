package simulation

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// Keys of origin EXTERNAL: their owner has the bytes, and imports the same in each Region.

// invent makes key material as an owner does, who never loses it.
func (w *world) invent(id arn.KeyID) material.ID {
	secret := make([]byte, 32)
	rand.Read(secret)
	block, err := aes.NewCipher(secret)
	w.must(err)
	check := material.AESBlocks(string(id))
	for i := range 2 {
		block.Encrypt(check[16*i:16*i+16], check[16*i:16*i+16])
	}
	m := material.Compute(string(keyops.SymmetricDefault), string(id), check[:])
	w.secrets[m] = secret
	return m
}

// importing says how a material is imported.
type importing struct {
	as      keyops.ImportType
	expires time.Time // zero = never
	wrong   bool      // other bytes than those of the material
}

func (n *node) importMaterial(id arn.KeyID, m material.ID, how importing) error {
	r, ctx := n.run, context.Background()
	p, err := r.svc.GetParametersForImport(ctx, caller(), keyops.GetParametersForImportInput{
		KeyID: string(id), WrappingAlgorithm: keyops.WrapOAEPSHA256, WrappingKeySpec: keyops.WrappingRSA2048,
	})
	if err != nil {
		return err
	}
	public, err := x509.ParsePKIXPublicKey(p.PublicKey)
	n.w.must(err)
	secret := slices.Clone(n.w.secrets[m])
	if how.wrong {
		secret[0]++
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), secret, nil)
	n.w.must(err)
	n.w.meanwhile(20)
	if r.dead {
		return errDied
	}
	in := keyops.ImportKeyMaterialInput{
		KeyID: string(id), ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapped, ImportType: how.as, ExpirationModel: keyops.MaterialDoesNotExpire,
	}
	if !how.expires.IsZero() {
		in.ExpirationModel, in.ValidTo = keyops.MaterialExpires, how.expires
	}
	_, err = r.svc.ImportKeyMaterial(ctx, caller(), in)
	return err
}

// createExternal makes a key whose material is still to be imported.
func (w *world) createExternal() {
	n, r := w.anyUp()
	if n == nil || len(w.keys) >= maxKeys {
		return
	}
	out, err := r.svc.CreateKey(context.Background(), caller(), keyops.CreateKeyInput{MultiRegion: true, Origin: keyops.OriginExternal})
	if !w.answered(n, r, "create, to import", err) {
		return
	}
	id := out.KeyMetadata.KeyID
	w.keys = append(w.keys, id)
	w.external[id] = true
	if w.chance(80) {
		w.answered(n, r, "import", n.importMaterial(id, w.invent(id), importing{}))
	}
}

// imported makes a key and imports its first material.
func (w *world) imported(at *node) (arn.KeyID, material.ID) {
	out, err := at.run.svc.CreateKey(context.Background(), caller(), keyops.CreateKeyInput{MultiRegion: true, Origin: keyops.OriginExternal})
	w.must(err)
	id := out.KeyMetadata.KeyID
	w.keys = append(w.keys, id)
	w.external[id] = true
	m := w.invent(id)
	w.must(at.importMaterial(id, m, importing{}))
	return id, m
}

func (w *world) anyExternal() arn.KeyID {
	ids := slices.DeleteFunc(slices.Clone(w.keys), func(id arn.KeyID) bool { return !w.external[id] })
	if len(ids) == 0 {
		return ""
	}
	return pick(w, ids)
}

// importSome imports what a Region lacks, or something new where the primary key is.
func (w *world) importSome() {
	n, r := w.anyUp()
	id := w.anyExternal()
	if n == nil || id == "" || n.key(id) == nil {
		return
	}
	how := importing{}
	if w.chance(25) {
		how.expires = n.clock().Add(time.Duration(1+w.rng.IntN(60*24)) * time.Hour)
	}
	wanted := n.wanted(n.key(id))
	var m material.ID
	switch listed := n.key(id).Set.Listed(); {
	case len(wanted) > 0 && w.chance(85):
		m = pick(w, wanted)
	case len(listed) > 0 && w.chance(40):
		m = pick(w, listed).ID // here already, perhaps
		how.wrong = w.chance(50)
	default:
		m, how.as = w.invent(id), keyops.NewKeyMaterial
	}
	err := n.importMaterial(id, m, how)
	if w.answered(n, r, fmt.Sprintf("import %.8s, wrong %t, new %t", m, how.wrong, how.as != ""), err) && how.wrong {
		w.break_("%s takes other bytes for %.8s", n.name, m)
	}
}

// wanted lists what is listed of a key and cannot be used here.
func (n *node) wanted(k *keyops.Key) (ids []material.ID) {
	for _, l := range k.Set.Listed() {
		m := k.Material(l.ID)
		if !l.WrittenOff && (m == nil || m.Lost || n.expired(*m)) {
			ids = append(ids, l.ID)
		}
	}
	return ids
}

func (n *node) expired(m keyops.Material) bool {
	return !m.Expires.IsZero() && !n.clock().Before(m.Expires)
}

// deleteImported takes imported material out of one Region's token.
func (w *world) deleteImported() {
	n, r := w.anyUp()
	id := w.anyExternal()
	if n == nil || id == "" || n.key(id) == nil || len(n.key(id).Materials) == 0 {
		return
	}
	m := pick(w, n.key(id).Materials).ID
	_, err := r.svc.DeleteImportedKeyMaterial(context.Background(), caller(), keyops.DeleteImportedKeyMaterialInput{KeyID: string(id), KeyMaterialID: m.String()})
	w.answered(n, r, fmt.Sprintf("delete import %.8s", m), err)
}

// importAll lets owners import whatever is listed, for good, and where the primary key is what
// the status of another Region says that it has used.
func (n *node) importAll() {
	r := n.run
	for _, id := range n.w.keys {
		k := n.key(id)
		if !n.w.external[id] || k == nil || k.Gone() || k.State == keystate.PendingDeletion || k.Set.Told() || k.Set.Shut() {
			continue
		}
		todo := n.wanted(k)
		if k.Set.Acting() && k.Set.Frozen() == nil {
			todo = append(todo, k.Set.Orphans()...)
		}
		for _, m := range k.Materials {
			if !m.Expires.IsZero() && !slices.Contains(todo, m.ID) && slices.ContainsFunc(k.Set.Listed(), func(l mrk.Listed) bool { return l.ID == m.ID }) {
				todo = append(todo, m.ID)
			}
		}
		slices.SortFunc(todo, func(a, b material.ID) int { return bytes.Compare(a[:], b[:]) })
		for _, m := range slices.Compact(todo) {
			n.w.answered(n, r, fmt.Sprintf("import %.8s", m), n.importMaterial(id, m, importing{as: keyops.ExistingKeyMaterial}))
		}
		if len(k.Set.Listed()) == 0 && k.Set.Acting() {
			n.w.answered(n, r, "import", n.importMaterial(id, n.w.invent(id), importing{as: keyops.NewKeyMaterial}))
		}
	}
}
