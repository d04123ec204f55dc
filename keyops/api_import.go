package keyops

import "time"

// WrappingAlgorithm says how key material is wrapped for import.
type WrappingAlgorithm string

// Wrapping algorithms. RSA_AES_KEY_WRAP puts the material under a fresh AES-256 key (RFC
// 5649) and that key under the RSA key, so it takes material of any length.
const (
	WrapOAEPSHA1            WrappingAlgorithm = "RSAES_OAEP_SHA_1"
	WrapOAEPSHA256          WrappingAlgorithm = "RSAES_OAEP_SHA_256"
	WrapRSAAESKeyWrapSHA1   WrappingAlgorithm = "RSA_AES_KEY_WRAP_SHA_1"
	WrapRSAAESKeyWrapSHA256 WrappingAlgorithm = "RSA_AES_KEY_WRAP_SHA_256"
)

// WrappingKeySpec is the kind of the RSA key under which material is wrapped.
type WrappingKeySpec string

// Kinds of wrapping keys.
const (
	WrappingRSA2048 WrappingKeySpec = "RSA_2048"
	WrappingRSA3072 WrappingKeySpec = "RSA_3072"
	WrappingRSA4096 WrappingKeySpec = "RSA_4096"
)

// ImportType says whether the material is to be new to the key.
type ImportType string

// Values of ImportType.
const (
	NewKeyMaterial      ImportType = "NEW_KEY_MATERIAL"
	ExistingKeyMaterial ImportType = "EXISTING_KEY_MATERIAL"
)

// GetParametersForImportInput asks for what is needed to wrap key material for a key of
// origin EXTERNAL.
type GetParametersForImportInput struct {
	KeyID             string // key ID or key ARN
	WrappingAlgorithm WrappingAlgorithm
	WrappingKeySpec   WrappingKeySpec
}

// GetParametersForImportOutput is a public key to wrap under and the token that the import
// has to come with. They belong together and serve one import.
type GetParametersForImportOutput struct {
	KeyID             string // the key's ARN in this Region
	ImportToken       []byte
	PublicKey         []byte // DER SubjectPublicKeyInfo
	ParametersValidTo time.Time
}

// ImportKeyMaterialInput is wrapped key material.
type ImportKeyMaterialInput struct {
	KeyID                  string          // key ID or key ARN
	ImportToken            []byte          // at most 6144 bytes
	EncryptedKeyMaterial   []byte          // at most 6144 bytes
	ValidTo                time.Time       // required if the material expires: in the future, at most 365 days ahead
	ExpirationModel        ExpirationModel // default KEY_MATERIAL_EXPIRES
	ImportType             ImportType      // default NEW_KEY_MATERIAL if nothing was ever imported, else EXISTING_KEY_MATERIAL
	KeyMaterialDescription string          // at most 256 characters
	KeyMaterialID          string          // optional, EXISTING_KEY_MATERIAL only: 64 hexadecimal digits
}

// ImportKeyMaterialOutput names what was imported.
type ImportKeyMaterialOutput struct {
	KeyID         string
	KeyMaterialID string
}

// DeleteImportedKeyMaterialInput names imported material of a key.
type DeleteImportedKeyMaterialInput struct {
	KeyID         string // key ID or key ARN
	KeyMaterialID string // 64 hexadecimal digits; default: the current material
}

// DeleteImportedKeyMaterialOutput names what was deleted.
type DeleteImportedKeyMaterialOutput struct {
	KeyID         string
	KeyMaterialID string
}
