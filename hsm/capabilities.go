package hsm

import (
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// offers is a token's list of mechanisms with what it says of each.
type offers map[uint]pkcs11.MechanismInfo

func (m *module) offers(slot uint) (offers, error) {
	list, err := m.ctx.GetMechanismList(slot)
	if err != nil {
		return nil, wrapError("C_GetMechanismList", err)
	}
	o := offers{}
	for _, mech := range list {
		info, err := m.ctx.GetMechanismInfo(slot, []*pkcs11.Mechanism{mech})
		if err != nil {
			return nil, wrapError("C_GetMechanismInfo", err)
		}
		o[mech.Mechanism] = info
	}
	return o, nil
}

// lacks says in words what is missing for mechanism, or nothing.
func (o offers) lacks(mechanism, flags, bits uint) string {
	info, ok := o[mechanism]
	switch {
	case !ok:
		return fmt.Sprintf("the token has no %s", mechanismName(mechanism))
	case info.Flags&flags != flags:
		return fmt.Sprintf("the token's %s does not do this", mechanismName(mechanism))
	case bits != 0 && (bits < info.MinKeySize || bits > info.MaxKeySize):
		return fmt.Sprintf("the token's %s takes %d to %d bits, not %d", mechanismName(mechanism), info.MinKeySize, info.MaxKeySize, bits)
	}
	return ""
}

// capabilities compares the mechanism table with what the token offers.
func capabilities(p Profile, o offers) Capabilities {
	c := Capabilities{MaxGCMBytes: p.GCM.MaxBytes}
	for _, row := range p.mechanismTable() {
		k := Capability{Algorithm: row.algorithm, Usage: row.usage}
		k.Limit = o.lacks(row.generate, row.generateFlag(), row.keyBits)
		k.Generate = k.Limit == ""
		usable := ""
		for _, mech := range row.use {
			if usable == "" {
				usable = o.lacks(mech, row.useFlags, 0)
			}
		}
		k.Use = usable == ""
		wrappable := o.lacks(p.wrapMechanism(), pkcs11.CKF_WRAP|pkcs11.CKF_UNWRAP, 0)
		if p.TrustedBy == TrustedByNobody {
			wrappable = "the token has no CKA_TRUSTED"
		}
		if _, err := ClassOf(row.algorithm, row.usage); err != nil {
			wrappable = "no transport key carries it"
		}
		k.Wrap = wrappable == ""
		for _, limit := range []string{usable, wrappable} {
			if k.Limit == "" {
				k.Limit = limit
			}
		}
		c.Keys = append(c.Keys, k)
		if row.usage == UsageDecrypt && o.lacks(row.generate, row.generateFlag(), row.keyBits) == "" {
			c.ImportKeys = append(c.ImportKeys, row.algorithm)
		}
	}
	for _, scheme := range ImportSchemes {
		if o.canImport(p, scheme) {
			c.ImportSchemes = append(c.ImportSchemes, scheme)
		}
	}
	return c
}

// canImport reports whether the token opens what is wrapped by the scheme.
func (o offers) canImport(p Profile, scheme ImportScheme) bool {
	if !p.takesOAEP(scheme.Hash()) || o.lacks(p.importMechanism(scheme).code, pkcs11.CKF_UNWRAP, 0) != "" {
		return false
	}
	return !p.twoSteps(scheme) || o.lacks(p.wrapMechanism(), pkcs11.CKF_UNWRAP, 0) == ""
}

// Capabilities says what this token can do. Until a self-test has run, the boundary is
// [BoundaryNone].
func (t *Token) Capabilities() Capabilities {
	c := t.known
	c.Keys, c.ImportSchemes, c.ImportKeys = slices.Clone(c.Keys), slices.Clone(c.ImportSchemes), slices.Clone(c.ImportKeys)
	c.Boundary = BoundaryNone
	if b := t.boundary.Load(); b != nil {
		c.Boundary = *b
	}
	return c
}

// setBoundary records what the self-test found.
func (t *Token) setBoundary(refusedAll bool) Boundary {
	b := boundaryOf(refusedAll, t.hardware && !t.module.softHSM())
	t.boundary.Store(&b)
	return b
}

// boundaryOf judges a self-test. Keys that are files are never better than api-only,
// whatever the library refused.
func boundaryOf(refusedAll, hardware bool) Boundary {
	switch {
	case !refusedAll:
		return BoundaryNone
	case !hardware:
		return BoundaryAPIOnly
	}
	return BoundaryToken
}
