package hsm

import (
	"context"
	"crypto"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// errOAEP is the one answer to every ciphertext that does not open. Manger's attack
// decrypts with whoever tells a wrong first byte from any other fault.
var errOAEP = fmt.Errorf("opening RSA-OAEP: %w", ErrDataInvalid)

// DecryptOAEP opens an RSA-OAEP ciphertext with an empty label; MGF1 uses the same hash.
// Where the token does not take the hash, it applies the key alone (CKM_RSA_X_509) and the
// encoding is removed here, in constant time (ADR 0017). Whatever does not fit is
// [ErrDataInvalid], with one text.
func (t *Token) DecryptOAEP(ctx context.Context, id ID, hash crypto.Hash, ciphertext []byte) ([]byte, error) {
	plaintext, err := use(ctx, t, "DecryptOAEP", id, UseDecrypt, func(s pkcs11.SessionHandle, e entry) ([]byte, error) {
		if err := CheckOAEP(e.Spec, hash, ciphertext); err != nil {
			return nil, err
		}
		if t.cfg.Profile.takesOAEP(hash) {
			return t.driver.Decrypt(s, oaepFor(hash), e.handle, ciphertext)
		}
		encoded, err := t.driver.Decrypt(s, pkcs11.NewMechanism(pkcs11.CKM_RSA_X_509, nil), e.handle, ciphertext)
		if err != nil {
			return nil, err
		}
		defer clear(encoded)
		if len(encoded) != len(ciphertext) {
			return nil, fmt.Errorf("%d bytes from the RSA operation, want %d: %w", len(encoded), len(ciphertext), ErrModuleBroken)
		}
		return decodeOAEP(hash, encoded)
	})
	if errors.Is(err, ErrDataInvalid) {
		return nil, fmt.Errorf("DecryptOAEP: %w", errOAEP)
	}
	return plaintext, err
}

// oaepNumbers are the mechanism's numbers for each hash.
var oaepNumbers = map[crypto.Hash]struct{ hash, mgf uint }{
	crypto.SHA1:   {pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
}

func oaepFor(hash crypto.Hash) *pkcs11.Mechanism {
	n := oaepNumbers[hash]
	return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(n.hash, n.mgf, pkcs11.CKZ_DATA_SPECIFIED, nil))
}

// decodeOAEP removes the encoding of RFC 8017 section 7.1.2, step 3, with an empty label. It
// overwrites em. Neither branches nor memory accesses depend on what is inside until the
// verdict, which is one bit.
func decodeOAEP(hash crypto.Hash, em []byte) ([]byte, error) {
	n := hash.Size()
	if len(em) < 2*n+2 {
		return nil, errOAEP // decided by the key's length
	}
	first, seed, db := em[0], em[1:1+n], em[1+n:]
	maskMGF1(seed, hash, db)
	maskMGF1(db, hash, seed)

	label := hash.New().Sum(nil)
	good := subtle.ConstantTimeByteEq(first, 0) & subtle.ConstantTimeCompare(label, db[:n])

	// The data begins after the first byte that is not zero, which must be 1.
	rest := db[n:]
	looking, at := 1, 0
	for i, b := range rest {
		zero, one := subtle.ConstantTimeByteEq(b, 0), subtle.ConstantTimeByteEq(b, 1)
		at = subtle.ConstantTimeSelect(looking&one, i, at)
		good &= 1 ^ (looking & (1 ^ zero) & (1 ^ one))
		looking &= zero
	}
	if good&(1^looking) != 1 {
		return nil, errOAEP
	}
	return append([]byte{}, rest[at+1:]...), nil
}

// maskMGF1 applies MGF1 of the seed to out.
func maskMGF1(out []byte, hash crypto.Hash, seed []byte) {
	h := hash.New()
	var mask []byte
	for counter := uint32(0); len(out) > 0; counter++ {
		h.Reset()
		h.Write(seed)
		h.Write(binary.BigEndian.AppendUint32(nil, counter))
		mask = h.Sum(mask[:0])
		out = out[subtle.XORBytes(out, out, mask[:min(len(mask), len(out))]):]
	}
}
