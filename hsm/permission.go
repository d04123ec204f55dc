package hsm

import (
	"fmt"
	"slices"
)

// Use is one thing that a token object can be asked to do.
type Use string

// Uses of objects.
const (
	UseGCM     Use = "AES-GCM"
	UseBlocks  Use = "AES-ECB"
	UseMAC     Use = "HMAC"
	UseSign    Use = "signing"
	UseDecrypt Use = "RSA-OAEP decryption"
	UseAgree   Use = "key agreement"
	UseWrap    Use = "wrapping"
	UseUnwrap  Use = "unwrapping"
	UseImport  Use = "unwrapping an import"
)

// permissions says which roles have which use, by algorithm. The token enforces the same
// through usage flags; here it is checked first, so that a mix-up of IDs is refused before
// any key is touched, on every token and in the fake alike.
var permissions = map[Use]map[Algorithm][]Role{
	UseGCM:    {AES256: materialRoles},
	UseBlocks: {AES256: materialRoles},
	UseMAC: {HMACSHA224: materialRoles, HMACSHA384: materialRoles, HMACSHA512: materialRoles,
		HMACSHA256: {RoleMaterial, RoleSharedMaterial, RoleSeal}},
	UseSign: {ECP256: materialRoles, ECP521: materialRoles, ECSecp256k1: materialRoles, RSA2048: materialRoles, RSA3072: materialRoles, RSA4096: materialRoles,
		ECP384: {RoleMaterial, RoleSharedMaterial, RoleRegionSigning}},
	UseDecrypt: {RSA2048: materialRoles, RSA3072: materialRoles, RSA4096: materialRoles},
	UseAgree:   {ECP256: materialRoles, ECP384: materialRoles, ECP521: materialRoles},
	UseWrap:    {AES256: {RoleTransportSource}},
	UseUnwrap:  {AES256: {RoleTransportDestination}},
	UseImport:  {RSA2048: {RoleImportWrapping}, RSA3072: {RoleImportWrapping}, RSA4096: {RoleImportWrapping}},
}

var materialRoles = []Role{RoleMaterial, RoleSharedMaterial}

// usageOf is what a private key must be for to have a use; other uses say nothing about it.
var usageOf = map[Use]Usage{UseSign: UsageSign, UseDecrypt: UsageDecrypt, UseAgree: UsageAgree}

// CheckUse reports whether an object of this spec has the use; if not, the error is [ErrCaller].
func CheckUse(s Spec, u Use) error {
	if !slices.Contains(permissions[u][s.Algorithm], s.Role) || s.Usage != usageOf[u] {
		return fmt.Errorf("%s with a key of role %q, algorithm %q, usage %q: %w", u, s.Role, s.Algorithm, s.Usage, ErrCaller)
	}
	return nil
}

// CheckWrap reports whether the material may leave under the transport key.
func CheckWrap(transport, material Spec) error {
	if err := CheckUse(transport, UseWrap); err != nil {
		return err
	}
	return checkCarried(transport, material)
}

// CheckUnwrap reports whether the blob may become that material under the transport key.
func CheckUnwrap(transport, material Spec, wrapped []byte) error {
	if err := CheckUse(transport, UseUnwrap); err != nil {
		return err
	}
	if err := checkCarried(transport, material); err != nil {
		return err
	}
	// RFC 5649 adds eight bytes to the padded length. For secret keys the exact length is the
	// only proof of theirs: after C_UnwrapKey SoftHSM shows CKA_VALUE_LEN 0 and uses 16 bytes
	// as a silent AES-128.
	if n := len(wrapped); n < 16 || n > maxWrapped || n%8 != 0 || material.Algorithm.Secret() && n != material.Algorithm.SecretBytes()+8 {
		return fmt.Errorf("wrapped %s of %d bytes: %w", material.Algorithm, n, ErrDataInvalid)
	}
	return nil
}

const maxWrapped = 4096 // an RSA-4096 private key has about 2,400 bytes

func checkCarried(transport, material Spec) error {
	if err := material.Check(); err != nil {
		return err
	}
	if material.Role != RoleSharedMaterial {
		return fmt.Errorf("object of role %q does not leave its token: %w", material.Role, ErrCaller)
	}
	class, err := ClassOf(material.Algorithm, material.Usage)
	if err != nil {
		return err
	}
	if class != transport.Class {
		return fmt.Errorf("%s under a transport key of class %q: %w", material.Algorithm, transport.Class, ErrCaller)
	}
	return nil
}
