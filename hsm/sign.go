package hsm

import (
	"context"
	"crypto"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// Sign signs a digest and returns what verifiers expect: for ECDSA an ASN.1 signature, for
// RSA as many bytes as the modulus has.
func (t *Token) Sign(ctx context.Context, id ID, scheme SignScheme, digest []byte) ([]byte, error) {
	return use(ctx, t, "Sign", id, UseSign, func(s pkcs11.SessionHandle, e entry) ([]byte, error) {
		if err := CheckSign(e.Spec, scheme, digest); err != nil {
			return nil, err
		}
		m, input := signInput(e.Spec.Algorithm, scheme, digest)
		raw, err := t.driver.Sign(s, m, e.handle, input)
		if err != nil {
			return nil, err
		}
		if scheme.Padding == ECDSA {
			return signatureASN1(raw, fieldBytes(e.Spec.Algorithm.Curve()))
		}
		if len(raw) != e.Spec.Algorithm.ModulusBits()/8 {
			return nil, fmt.Errorf("signature of %d bytes under %s: %w", len(raw), e.Spec.Algorithm, ErrModuleBroken)
		}
		return raw, nil
	})
}

// pssParams are the mechanism's numbers for each hash.
var pssParams = map[crypto.Hash]struct{ hash, mgf uint }{
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

// signInput returns the mechanism and what it takes for a digest.
func signInput(a Algorithm, scheme SignScheme, digest []byte) (*pkcs11.Mechanism, []byte) {
	switch scheme.Padding {
	case PKCS1v15:
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil), append(append([]byte(nil), signHashes[scheme.Hash]...), digest...)
	case PSS:
		p := pssParams[scheme.Hash]
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(p.hash, p.mgf, uint(scheme.Hash.Size()))), digest
	}
	// FIPS 186 takes the leftmost bits of a long digest. Some tokens refuse it instead, so it
	// is cut here, on byte boundaries: the order of P-521 is longer than any digest.
	if n := fieldBytes(a.Curve()); len(digest) > n {
		digest = digest[:n]
	}
	return pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil), digest
}

// signatureASN1 turns the token's r ‖ s into the form that everybody else uses.
func signatureASN1(raw []byte, n int) ([]byte, error) {
	if len(raw) != 2*n {
		return nil, fmt.Errorf("signature of %d bytes, want %d: %w", len(raw), 2*n, ErrModuleBroken)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:n]), new(big.Int).SetBytes(raw[n:])})
}
