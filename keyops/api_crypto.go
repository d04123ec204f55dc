package keyops

// Shapes of the cryptographic operations that were not among the first; the others are in
// api.go.

// DataKeyPairSpec is the kind of a data key pair.
type DataKeyPairSpec string

// ReEncryptInput is a ciphertext, how it is opened, and under which key it is sealed anew.
// The plaintext never leaves the service.
type ReEncryptInput struct {
	CiphertextBlob                 []byte // at most 6144 bytes
	SourceKeyID                    string // optional for symmetric ciphertexts; a ciphertext of another key is IncorrectKey
	SourceEncryptionContext        map[string]string
	SourceEncryptionAlgorithm      Algorithm // default SYMMETRIC_DEFAULT
	DestinationKeyID               string    // key ID, key ARN, alias name or alias ARN
	DestinationEncryptionContext   map[string]string
	DestinationEncryptionAlgorithm Algorithm // default SYMMETRIC_DEFAULT
	DryRun                         bool
	GrantTokens                    []string // of grants on either key
}

// ReEncryptOutput is the new ciphertext, and both keys.
type ReEncryptOutput struct {
	CiphertextBlob                 []byte
	SourceKeyID                    string // ARN of the key that had encrypted
	KeyID                          string // ARN of the destination key
	SourceEncryptionAlgorithm      Algorithm
	DestinationEncryptionAlgorithm Algorithm
	SourceKeyMaterialID            string // empty for key pairs
	DestinationKeyMaterialID       string // empty for key pairs
}

// GenerateDataKeyWithoutPlaintextInput asks for random bytes in encrypted form only. Exactly
// one of KeySpec and NumberOfBytes is set.
type GenerateDataKeyWithoutPlaintextInput struct {
	KeyID             string
	KeySpec           DataKeySpec
	NumberOfBytes     int // 1 to 1024
	EncryptionContext map[string]string
	DryRun            bool
	GrantTokens       []string
}

// GenerateDataKeyWithoutPlaintextOutput is a data key that Decrypt opens.
type GenerateDataKeyWithoutPlaintextOutput struct {
	CiphertextBlob []byte
	KeyID          string
	KeyMaterialID  string
}

// GenerateDataKeyPairInput asks for a key pair for use outside the service.
type GenerateDataKeyPairInput struct {
	KeyID             string // a symmetric key, which encrypts the private key
	KeyPairSpec       DataKeyPairSpec
	EncryptionContext map[string]string
	DryRun            bool
	GrantTokens       []string
}

// GenerateDataKeyPairOutput is a key pair.
type GenerateDataKeyPairOutput struct {
	PrivateKeyCiphertextBlob []byte // what Decrypt turns into PrivateKeyPlaintext
	PrivateKeyPlaintext      []byte // PKCS #8, DER
	PublicKey                []byte // SubjectPublicKeyInfo, DER
	KeyID                    string
	KeyPairSpec              DataKeyPairSpec
	KeyMaterialID            string
}

// GenerateDataKeyPairWithoutPlaintextInput asks for a key pair whose private key is returned
// in encrypted form only.
type GenerateDataKeyPairWithoutPlaintextInput GenerateDataKeyPairInput

// GenerateDataKeyPairWithoutPlaintextOutput is a key pair whose private key Decrypt opens.
type GenerateDataKeyPairWithoutPlaintextOutput struct {
	PrivateKeyCiphertextBlob []byte
	PublicKey                []byte // SubjectPublicKeyInfo, DER
	KeyID                    string
	KeyPairSpec              DataKeyPairSpec
	KeyMaterialID            string
}

// DeriveSharedSecretInput is the other side's public key.
type DeriveSharedSecretInput struct {
	KeyID                 string    // a key with usage KEY_AGREEMENT
	KeyAgreementAlgorithm Algorithm // ECDH
	PublicKey             []byte    // SubjectPublicKeyInfo, DER, on the curve of the key; at most 8192 bytes
	DryRun                bool
	GrantTokens           []string
}

// DeriveSharedSecretOutput is the raw secret: the x-coordinate of the shared point.
type DeriveSharedSecretOutput struct {
	SharedSecret          []byte
	KeyID                 string
	KeyAgreementAlgorithm Algorithm
	KeyOrigin             Origin
}
