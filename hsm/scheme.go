package hsm

import (
	"crypto"
	_ "crypto/sha1" // hash sizes
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"fmt"
	"slices"
)

// SignPadding is what is done to a digest before a private key is applied to it.
type SignPadding string

// Paddings.
const (
	ECDSA    SignPadding = "ECDSA"             // none; the digest's leftmost bits, as long as the curve's order
	PKCS1v15 SignPadding = "RSASSA_PKCS1_V1_5" // RFC 8017, with the hash's DigestInfo
	PSS      SignPadding = "RSASSA_PSS"        // RFC 8017, MGF1 with the same hash, a salt as long as the hash
)

// SignScheme says what a private key does to a digest. Signing hashes nothing.
type SignScheme struct {
	Padding SignPadding
	Hash    crypto.Hash // SHA-256, SHA-384 or SHA-512: what the digest is of
}

// RegionScheme is how Region signing keys sign statements and certificates.
var RegionScheme = SignScheme{Padding: ECDSA, Hash: crypto.SHA384}

// signHashes are the hashes of every padding, with the start of their DigestInfo (RFC 8017
// section 9.2, note 1).
var signHashes = map[crypto.Hash][]byte{
	crypto.SHA256: digestInfo(crypto.SHA256, 1),
	crypto.SHA384: digestInfo(crypto.SHA384, 2),
	crypto.SHA512: digestInfo(crypto.SHA512, 3),
}

// digestInfo is DigestInfo up to the digest. The algorithm is 2.16.840.1.101.3.4.2.n.
func digestInfo(h crypto.Hash, n int) []byte {
	b, err := asn1.Marshal(struct {
		Algorithm struct {
			ID   asn1.ObjectIdentifier
			Null asn1.RawValue
		}
		Digest []byte
	}{struct {
		ID   asn1.ObjectIdentifier
		Null asn1.RawValue
	}{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, n}, asn1.NullRawValue}, make([]byte, h.Size())})
	if err != nil {
		panic(err) // the argument is a constant above
	}
	return b[:len(b)-h.Size()]
}

// CheckSign reports whether an object of this spec signs such a digest; if not, the error
// is [ErrCaller].
func CheckSign(s Spec, scheme SignScheme, digest []byte) error {
	if err := CheckUse(s, UseSign); err != nil {
		return err
	}
	paddings := []SignPadding{ECDSA}
	if rsaBits[s.Algorithm] != 0 {
		paddings = []SignPadding{PKCS1v15, PSS}
	}
	if !slices.Contains(paddings, scheme.Padding) || signHashes[scheme.Hash] == nil {
		return fmt.Errorf("signing by %s with %s, hash %d: %w", s.Algorithm, scheme.Padding, scheme.Hash, ErrCaller)
	}
	if len(digest) != scheme.Hash.Size() {
		return fmt.Errorf("digest of %d bytes, want %d: %w", len(digest), scheme.Hash.Size(), ErrCaller)
	}
	return nil
}

// CheckOAEP reports whether an object of this spec opens such a ciphertext. A wrong hash or
// a wrong use of the key is [ErrCaller], a wrong length [ErrDataInvalid].
func CheckOAEP(s Spec, hash crypto.Hash, ciphertext []byte) error {
	if err := CheckUse(s, UseDecrypt); err != nil {
		return err
	}
	if hash != crypto.SHA1 && hash != crypto.SHA256 {
		return fmt.Errorf("RSA-OAEP with hash %d: %w", hash, ErrCaller)
	}
	if len(ciphertext) != s.Algorithm.ModulusBits()/8 {
		return fmt.Errorf("ciphertext of %d bytes under %s: %w", len(ciphertext), s.Algorithm, ErrDataInvalid)
	}
	return nil
}

// MaxOAEP is the longest plaintext, in bytes, that RSA-OAEP with this hash takes under a key
// of this algorithm, and 0 where there is none.
func MaxOAEP(a Algorithm, hash crypto.Hash) int {
	return max(0, a.ModulusBits()/8-2*hash.Size()-2)
}
