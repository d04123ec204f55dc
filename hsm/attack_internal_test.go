package hsm

import (
	"testing"

	"github.com/miekg/pkcs11"
)

// A refusal of the question is none of the key: a token that dislikes a parameter may well
// give the key to whoever asks properly.
func TestWhatCountsAsRefused(t *testing.T) {
	for code, want := range map[pkcs11.Error]bool{
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED: true,
		pkcs11.CKR_KEY_NOT_WRAPPABLE:          true,
		pkcs11.CKR_TEMPLATE_INCONSISTENT:      true,
		pkcs11.CKR_ACTION_PROHIBITED:          true,
		pkcs11.CKR_MECHANISM_INVALID:          true,
		pkcs11.CKR_MECHANISM_PARAM_INVALID:    false,
		pkcs11.CKR_ARGUMENTS_BAD:              false,
		pkcs11.CKR_DEVICE_ERROR:               false,
		pkcs11.CKR_KEY_HANDLE_INVALID:         false,
	} {
		for _, op := range []string{"C_WrapKey", "C_UnwrapKey", "C_DeriveKey"} {
			if got := refused(op, code); got != want {
				t.Errorf("%s answered %v: refused is %v, want %v", op, code, got, want)
			}
		}
	}
	if refused("C_WrapKey", nil) {
		t.Error("success counts as refused")
	}
}

// Mechanisms that other tokens than SoftHSM wrap and decrypt with are asked properly: as
// long as PKCS #11 says, with an address wherever it wants one.
func TestAttacksAskProperly(t *testing.T) {
	for code, want := range map[uint]struct{ bytes, pointers int }{
		pkcs11.CKM_AES_CBC: {16, 0}, pkcs11.CKM_AES_CTR: {24, 0}, pkcs11.CKM_DES3_CBC: {8, 0}, pkcs11.CKM_RSA_PKCS_OAEP: {40, 0},
		pkcs11.CKM_AES_GCM: {48, 2}, pkcs11.CKM_AES_CCM: {48, 2}, pkcs11.CKM_RSA_AES_KEY_WRAP: {16, 1},
		pkcs11.CKM_AES_KEY_WRAP: {0, 0}, pkcs11.CKM_AES_KEY_WRAP_PAD: {0, 0},
	} {
		m := SoftHSM2().parametrised(code)
		if len(m.param) != want.bytes || len(m.refs) != want.pointers {
			t.Errorf("mechanism 0x%X: %d bytes with %d pointers, want %d with %d", code, len(m.param), len(m.refs), want.bytes, want.pointers)
		}
		for _, r := range m.refs {
			if len(r.data) == 0 || r.at%8 != 0 || string(m.param[r.at:r.at+8]) != string(make([]byte, 8)) {
				t.Errorf("mechanism 0x%X: pointer at %d to %d bytes", code, r.at, len(r.data))
			}
		}
	}
}
