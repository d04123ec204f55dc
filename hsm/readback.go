package hsm

/*
typedef unsigned long ck_ulong;
typedef struct { ck_ulong type; void *value; ck_ulong len; } ck_attribute;

// C_GetAttributeValue is function 24 of the function list, which begins with a version.
static ck_ulong get_attribute_value(void *list, ck_ulong s, ck_ulong o, void *t, ck_ulong n) {
	ck_ulong (*f)(ck_ulong, ck_ulong, ck_attribute*, ck_ulong) = ((void**)list)[1 + 24];
	return f(s, o, t, n);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// Bounds on what a token may claim about a template, before memory is allocated for it.
const (
	maxNested      = 64
	maxNestedValue = 1024
)

// attributeTemplate reads CKA_WRAP_TEMPLATE or CKA_UNWRAP_TEMPLATE, which the binding would
// return as an array of pointers into nothing. PKCS#11 wants three calls: for the length of
// the array, for the lengths of its values, for the values.
func (f functionList) attributeTemplate(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, typ uint) ([]Attribute, error) {
	var mem cMemory
	defer mem.wipe()
	const size = unsafe.Sizeof(C.ck_attribute{})
	outer := (*C.ck_attribute)(mem.alloc(size))
	outer._type = C.ck_ulong(typ)
	get := func() error {
		return ckResult(C.get_attribute_value(unsafe.Pointer(f.list), C.ck_ulong(s), C.ck_ulong(o), unsafe.Pointer(outer), 1))
	}
	if err := get(); err != nil {
		return nil, err
	}
	n := uintptr(outer.len) / size
	if n == 0 {
		return nil, nil
	}
	if n > maxNested || uintptr(outer.len)%size != 0 {
		return nil, fmt.Errorf("template of %d bytes: %w", outer.len, ErrModuleBroken)
	}
	outer.value = mem.alloc(uintptr(outer.len))
	if err := get(); err != nil {
		return nil, err
	}
	inner := unsafe.Slice((*C.ck_attribute)(outer.value), n)
	for i := range inner {
		if inner[i].len > maxNestedValue {
			return nil, fmt.Errorf("value of %d bytes in a template: %w", inner[i].len, ErrModuleBroken)
		}
		inner[i].value = mem.alloc(max(1, uintptr(inner[i].len)))
	}
	if err := get(); err != nil {
		return nil, err
	}
	t := make([]Attribute, n)
	for i, a := range inner {
		t[i] = Attribute{Type: uint(a._type), Value: C.GoBytes(a.value, C.int(a.len))}
	}
	return t, nil
}
