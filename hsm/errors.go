package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Sentinels of this package. Each names what a caller can do about it; errors.Is finds them
// in every error that a method of [Token] returns.
var (
	// ErrNotFound means that the token holds no object of ours under this ID.
	ErrNotFound = errors.New("no such object in the token")
	// ErrQuarantined means that there is an object under this ID, but that it is not what
	// its label says or not alone, so it is not used. It is an ErrNotFound.
	ErrQuarantined = fmt.Errorf("object in quarantine: %w", ErrNotFound)
	// ErrExists means that the ID is taken; nothing was written.
	ErrExists = errors.New("object exists already")
	// ErrDataInvalid means that the ciphertext, blob or tag does not fit the key. It says
	// nothing about the token's health.
	ErrDataInvalid = errors.New("data invalid")
	// ErrCaller means that the request could never succeed: wrong role, class, length or
	// attribute. Repeating it is useless.
	ErrCaller = errors.New("request not valid")
	// ErrNotSupported means that this token or profile lacks the mechanism.
	ErrNotSupported = errors.New("not supported by this token")
	// ErrUnavailable means that the token is away and is being reconnected in the
	// background. The call may be repeated later.
	ErrUnavailable = errors.New("token unavailable")
	// ErrSessionDead means that the session was lost before the call had any effect, and
	// that a second one was lost as well.
	ErrSessionDead = errors.New("session lost")
	// ErrTokenFull means that the token has no room for another object.
	ErrTokenFull = errors.New("token full")
	// ErrPIN means that the PIN file was refused or that the token refused the PIN. It is
	// never tried again, because tokens lock after a few wrong PINs.
	ErrPIN = errors.New("PIN not accepted")
	// ErrModuleBroken means an answer that PKCS#11 does not allow here, or a panic in the binding.
	ErrModuleBroken = errors.New("PKCS#11 module misbehaved")
	// ErrOutcomeUnknown is found, beside the cause, in the error of a write that the token
	// may or may not have done. The caller asks Lookup before it decides.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

// Error is the failure of one PKCS#11 function. It carries no template values and no data.
type Error struct {
	Op   string // the PKCS#11 function, for example "C_UnwrapKey"
	Code uint   // the CKR value
	Kind error  // the sentinel that the value maps to for this function
}

// Error names the function, the code and what it means.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s: %v", e.Op, codeName(e.Code), e.Kind)
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.Kind }

// Is finds [ErrOutcomeUnknown] in the failure of a function that changes token objects, if
// the code does not say that nothing was changed.
func (e *Error) Is(target error) bool {
	return target == ErrOutcomeUnknown && changesObjects[e.Op] && (mayHaveChanged[e.Code] || e.Kind == ErrModuleBroken)
}

var changesObjects = map[string]bool{
	"C_GenerateKey": true, "C_GenerateKeyPair": true, "C_UnwrapKey": true, "C_DestroyObject": true,
}

var mayHaveChanged = map[uint]bool{
	pkcs11.CKR_DEVICE_ERROR:   true,
	pkcs11.CKR_DEVICE_REMOVED: true,
	pkcs11.CKR_DEVICE_MEMORY:  true,
}

// codeName renders a CKR value as "0x5: CKR_GENERAL_ERROR".
func codeName(code uint) string {
	if code == pkcs11.CKR_ACTION_PROHIBITED {
		return "0x1B: CKR_ACTION_PROHIBITED" // the binding has the value, but not its name
	}
	return strings.Trim(strings.TrimPrefix(pkcs11.Error(code).Error(), "pkcs11: "), ": ")
}

// kinds maps CKR values to sentinels. What is not listed is ErrModuleBroken.
var kinds = map[uint]error{
	pkcs11.CKR_HOST_MEMORY:     ErrModuleBroken,
	pkcs11.CKR_GENERAL_ERROR:   ErrModuleBroken,
	pkcs11.CKR_FUNCTION_FAILED: ErrModuleBroken,

	pkcs11.CKR_ARGUMENTS_BAD:                    ErrCaller,
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:              ErrCaller,
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:              ErrCaller,
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:           ErrCaller,
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:          ErrCaller,
	pkcs11.CKR_DATA_INVALID:                     ErrCaller,
	pkcs11.CKR_DATA_LEN_RANGE:                   ErrCaller,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:       ErrCaller,
	pkcs11.CKR_KEY_NOT_WRAPPABLE:                ErrCaller,
	pkcs11.CKR_KEY_UNEXTRACTABLE:                ErrCaller,
	pkcs11.CKR_KEY_SIZE_RANGE:                   ErrCaller,
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:            ErrCaller,
	pkcs11.CKR_WRAPPING_KEY_SIZE_RANGE:          ErrCaller,
	pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT:   ErrCaller,
	pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE:        ErrCaller,
	pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: ErrCaller,
	pkcs11.CKR_TEMPLATE_INCOMPLETE:              ErrCaller,
	pkcs11.CKR_TEMPLATE_INCONSISTENT:            ErrCaller,
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:            ErrCaller,
	pkcs11.CKR_ACTION_PROHIBITED:                ErrCaller,

	pkcs11.CKR_ENCRYPTED_DATA_INVALID:   ErrDataInvalid,
	pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE: ErrDataInvalid,
	pkcs11.CKR_WRAPPED_KEY_INVALID:      ErrDataInvalid,
	pkcs11.CKR_WRAPPED_KEY_LEN_RANGE:    ErrDataInvalid,
	pkcs11.CKR_SIGNATURE_INVALID:        ErrDataInvalid,
	pkcs11.CKR_SIGNATURE_LEN_RANGE:      ErrDataInvalid,

	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:  ErrNotSupported,
	pkcs11.CKR_MECHANISM_INVALID:       ErrNotSupported,
	pkcs11.CKR_MECHANISM_PARAM_INVALID: ErrNotSupported,
	pkcs11.CKR_CURVE_NOT_SUPPORTED:     ErrNotSupported,

	pkcs11.CKR_DEVICE_MEMORY: ErrTokenFull,

	pkcs11.CKR_KEY_HANDLE_INVALID:            ErrNotFound,
	pkcs11.CKR_OBJECT_HANDLE_INVALID:         ErrNotFound,
	pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID:   ErrNotFound,
	pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID: ErrNotFound,

	pkcs11.CKR_SESSION_HANDLE_INVALID:    ErrSessionDead,
	pkcs11.CKR_SESSION_CLOSED:            ErrSessionDead,
	pkcs11.CKR_OPERATION_ACTIVE:          ErrSessionDead,
	pkcs11.CKR_OPERATION_NOT_INITIALIZED: ErrSessionDead,

	pkcs11.CKR_DEVICE_ERROR:             ErrUnavailable,
	pkcs11.CKR_DEVICE_REMOVED:           ErrUnavailable,
	pkcs11.CKR_TOKEN_NOT_PRESENT:        ErrUnavailable,
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:     ErrUnavailable,
	pkcs11.CKR_SLOT_ID_INVALID:          ErrUnavailable,
	pkcs11.CKR_SESSION_COUNT:            ErrUnavailable,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED: ErrUnavailable,
	// A session of a logged-in token that is not logged in: the token was reset beneath us.
	pkcs11.CKR_USER_NOT_LOGGED_IN: ErrUnavailable,

	pkcs11.CKR_PIN_INCORRECT:                  ErrPIN,
	pkcs11.CKR_PIN_INVALID:                    ErrPIN,
	pkcs11.CKR_PIN_LEN_RANGE:                  ErrPIN,
	pkcs11.CKR_PIN_EXPIRED:                    ErrPIN,
	pkcs11.CKR_PIN_LOCKED:                     ErrPIN,
	pkcs11.CKR_USER_TYPE_INVALID:              ErrPIN,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED:       ErrPIN,
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: ErrPIN,
}

// opensData lists the functions whose input a client can choose and whose integrity check
// the token does. A vague code there means bad data: taken for a broken token, any client
// could force reconnections by sending garbage.
var opensData = map[string]bool{"C_Decrypt": true, "C_UnwrapKey": true}

var vagueOnData = map[uint]bool{
	pkcs11.CKR_GENERAL_ERROR:             true,
	pkcs11.CKR_FUNCTION_FAILED:           true,
	pkcs11.CKR_DATA_INVALID:              true,
	pkcs11.CKR_DATA_LEN_RANGE:            true,
	pkcs11.CKR_ARGUMENTS_BAD:             true,
	pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE: true,
}

// wrap turns an error of the binding into an *Error; nil stays nil.
func wrapError(op string, err error) error {
	if err == nil {
		return nil
	}
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return fmt.Errorf("%s: %w: %w", op, ErrModuleBroken, err)
	}
	kind, ok := kinds[uint(code)]
	if !ok {
		kind = ErrModuleBroken
	}
	if opensData[op] && vagueOnData[uint(code)] {
		kind = ErrDataInvalid
	}
	return &Error{Op: op, Code: uint(code), Kind: kind}
}

// codeOf returns the CKR value inside err, or CKR_OK.
func codeOf(err error) uint {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return pkcs11.CKR_OK
}
