package hsm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"
)

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		op   string
		code uint
		want error
	}{
		{"C_Decrypt", pkcs11.CKR_GENERAL_ERROR, ErrDataInvalid},
		{"C_Decrypt", pkcs11.CKR_FUNCTION_FAILED, ErrDataInvalid},
		{"C_Decrypt", pkcs11.CKR_ENCRYPTED_DATA_INVALID, ErrDataInvalid},
		{"C_Decrypt", pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, ErrDataInvalid},
		{"C_Decrypt", pkcs11.CKR_DEVICE_REMOVED, ErrUnavailable},
		{"C_UnwrapKey", pkcs11.CKR_GENERAL_ERROR, ErrDataInvalid},
		{"C_UnwrapKey", pkcs11.CKR_WRAPPED_KEY_INVALID, ErrDataInvalid},
		{"C_UnwrapKey", pkcs11.CKR_TEMPLATE_INCONSISTENT, ErrCaller},
		{"C_UnwrapKey", pkcs11.CKR_DEVICE_MEMORY, ErrTokenFull},
		{"C_Encrypt", pkcs11.CKR_GENERAL_ERROR, ErrModuleBroken},
		{"C_DecryptInit", pkcs11.CKR_GENERAL_ERROR, ErrModuleBroken},
		{"C_Encrypt", pkcs11.CKR_SESSION_HANDLE_INVALID, ErrSessionDead},
		{"C_EncryptInit", pkcs11.CKR_OPERATION_ACTIVE, ErrSessionDead},
		{"C_EncryptInit", pkcs11.CKR_KEY_HANDLE_INVALID, ErrNotFound},
		{"C_EncryptInit", pkcs11.CKR_MECHANISM_INVALID, ErrNotSupported},
		{"C_WrapKey", pkcs11.CKR_KEY_NOT_WRAPPABLE, ErrCaller},
		{"C_Login", pkcs11.CKR_PIN_INCORRECT, ErrPIN},
		{"C_Login", pkcs11.CKR_PIN_LOCKED, ErrPIN},
		{"C_Sign", pkcs11.CKR_USER_NOT_LOGGED_IN, ErrUnavailable},
		{"C_Sign", 0x80001234, ErrModuleBroken},
	} {
		err := fmt.Errorf("wrapped: %w", wrapError(c.op, pkcs11.Error(c.code)))
		if !errors.Is(err, c.want) {
			t.Errorf("%s, code 0x%X: got %v, want %v", c.op, c.code, err, c.want)
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code || e.Op != c.op || codeOf(err) != c.code {
			t.Errorf("%s, code 0x%X: got %+v", c.op, c.code, e)
		}
	}
	if wrapError("C_Sign", nil) != nil {
		t.Error("no error became one")
	}
	if err := wrapError("C_Sign", errors.New("other")); !errors.Is(err, ErrModuleBroken) {
		t.Errorf("an error that is no code: %v", err)
	}
}

// TestEveryCodeHasOneKind walks the table against the sentinels that callers know.
func TestEveryCodeHasOneKind(t *testing.T) {
	sentinels := []error{ErrNotFound, ErrExists, ErrDataInvalid, ErrCaller, ErrNotSupported, ErrUnavailable, ErrSessionDead, ErrTokenFull, ErrPIN, ErrModuleBroken}
	for code := range kinds {
		for _, op := range []string{"C_Encrypt", "C_Decrypt", "C_GenerateKey"} {
			err := wrapError(op, pkcs11.Error(code))
			n := 0
			for _, s := range sentinels {
				if errors.Is(err, s) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%v is %d sentinels, want one", err, n)
			}
		}
	}
}

func TestOutcomeUnknown(t *testing.T) {
	for _, c := range []struct {
		op   string
		code uint
		want bool
	}{
		{"C_GenerateKey", pkcs11.CKR_DEVICE_ERROR, true},
		{"C_GenerateKeyPair", pkcs11.CKR_GENERAL_ERROR, true},
		{"C_UnwrapKey", pkcs11.CKR_DEVICE_REMOVED, true},
		{"C_UnwrapKey", pkcs11.CKR_GENERAL_ERROR, false}, // the blob was refused
		{"C_DestroyObject", pkcs11.CKR_FUNCTION_FAILED, true},
		{"C_GenerateKey", pkcs11.CKR_SESSION_HANDLE_INVALID, false},
		{"C_GenerateKey", pkcs11.CKR_TOKEN_NOT_PRESENT, false},
		{"C_Encrypt", pkcs11.CKR_DEVICE_ERROR, false},
	} {
		err := wrapError(c.op, pkcs11.Error(c.code))
		if got := errors.Is(err, ErrOutcomeUnknown); got != c.want {
			t.Errorf("%v: unknown %v, want %v", err, got, c.want)
		}
	}
}

func TestErrorText(t *testing.T) {
	for code, want := range map[uint]string{
		pkcs11.CKR_WRAPPED_KEY_INVALID: "C_UnwrapKey: 0x110: CKR_WRAPPED_KEY_INVALID: data invalid",
		pkcs11.CKR_ACTION_PROHIBITED:   "C_UnwrapKey: 0x1B: CKR_ACTION_PROHIBITED: request not valid",
		0x80001234:                     "C_UnwrapKey: 0x80001234: PKCS#11 module misbehaved",
	} {
		if got := wrapError("C_UnwrapKey", pkcs11.Error(code)).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
