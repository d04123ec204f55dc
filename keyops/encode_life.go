package keyops

import (
	"slices"

	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Bounds of what a row says of deletion, rotation and imports.
const (
	maxRotations           = maxMaterials
	maxMaterialDescription = 256
)

// imports are what a row says of a material beside what every material has.
func (m *Material) imports() bool {
	return m.Import != "" || !m.Expires.IsZero() || m.Expiration != "" || m.Description != ""
}

// lives reports whether the row says anything of deletion, rotation or imports.
func (k *Key) lives() bool {
	return !k.DeletionDate.IsZero() || !k.Deleted.IsZero() || k.PendingDays != 0 || k.Rotation != Rotation{} || len(k.Rotations) > 0 ||
		slices.ContainsFunc(k.Materials, func(m Material) bool { return m.imports() })
}

// encodeLife writes what schemaLife adds, with one entry for every material.
func encodeLife(w *wire.Writer, k *Key) {
	w.Time(k.DeletionDate)
	w.Time(k.Deleted)
	w.Uint(uint64(k.PendingDays))
	w.Bool(k.Rotation.Enabled)
	w.Uint(uint64(k.Rotation.Days))
	w.Time(k.Rotation.Last)
	w.Time(k.Rotation.Next)
	w.Uint(uint64(k.Rotation.OnDemand))
	w.Count(len(k.Rotations))
	for _, r := range k.Rotations {
		w.Time(r.Date)
		w.String(string(r.Type))
		w.Bytes(r.Material[:])
	}
	for _, m := range k.Materials {
		w.String(string(m.Import))
		w.Time(m.Expires)
		w.String(string(m.Expiration))
		w.String(m.Description)
	}
}

func decodeLife(r *wire.Reader, k *Key) {
	k.DeletionDate, k.Deleted, k.PendingDays = r.Time(), r.Time(), readCount(r)
	k.Rotation = Rotation{Enabled: r.Bool(), Days: readCount(r), Last: r.Time(), Next: r.Time(), OnDemand: readCount(r)}
	for range r.Count(maxRotations) {
		e := RotationEntry{Date: r.Time(), Type: RotationType(r.String(32))}
		r.Fixed(e.Material[:])
		k.Rotations = append(k.Rotations, e)
	}
	for i := range k.Materials {
		m := &k.Materials[i]
		m.Import, m.Expires = ImportState(r.String(32)), r.Time()
		m.Expiration, m.Description = ExpirationModel(r.String(32)), r.String(4*maxMaterialDescription)
	}
}

// readCount reads a small number: a number of days or of times.
func readCount(r *wire.Reader) int {
	n := r.Uint()
	if n > 1<<20 {
		r.Fail("number %d", n)
		return 0
	}
	return int(n)
}

// checkLife returns what is wrong with deletion, rotation and imports, or nothing.
func (k *Key) checkLife() string {
	switch {
	case !k.DeletionDate.IsZero() && (k.State != keystate.PendingDeletion || k.PendingDays == 0):
		return "deletion date out of place"
	case k.Gone() && (k.Set == nil || k.State != keystate.PendingDeletion):
		return "deleted, and of a kind that leaves no row"
	case k.PendingDays < 0 || k.PendingDays != 0 && k.State != keystate.PendingDeletion && k.State != keystate.PendingReplicaDeletion:
		return "waiting period of a deletion out of place"
	case k.Rotation.Enabled != !k.Rotation.Next.IsZero() || k.Rotation.Enabled && k.Rotation.Days == 0 || k.Rotation.Days < 0 || k.Rotation.OnDemand < 0:
		return "rotation setting inconsistent"
	}
	for _, e := range k.Rotations {
		if e.Type != RotationAutomatic && e.Type != RotationOnDemand || k.Material(e.Material) == nil {
			return "rotation of no type, or to a material that is not listed"
		}
	}
	for i := range k.Materials {
		m := &k.Materials[i]
		switch {
		case !m.imports():
		case k.Origin != OriginExternal:
			return "import state of a material that was made here"
		case m.Import != MaterialImported && m.Import != MaterialPending || m.Expiration != "" && m.Expiration != MaterialExpires && m.Expiration != MaterialDoesNotExpire,
			(m.Expiration == MaterialExpires) != !m.Expires.IsZero():
			return "import state of a material inconsistent"
		}
	}
	return ""
}
