package hsm

/*
#cgo linux LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long ck_ulong;

typedef struct { ck_ulong type; void *value; ck_ulong len; } ck_attribute;
typedef struct { ck_ulong mechanism; void *param; ck_ulong len; } ck_mechanism;

// The function list of PKCS #11 2.x as far as it is used here: a version, then the
// functions in the order of the standard. The names between are those skipped.
typedef struct {
	unsigned char major, minor;
	void *initialize_to_set_operation_state[18];
	ck_ulong (*login)(ck_ulong, ck_ulong, unsigned char*, ck_ulong);
	void *logout;
	ck_ulong (*create_object)(ck_ulong, ck_attribute*, ck_ulong, ck_ulong*);
	ck_ulong (*copy_object)(ck_ulong, ck_ulong, ck_attribute*, ck_ulong, ck_ulong*);
	void *destroy_object_to_get_attribute_value[3];
	ck_ulong (*set_attribute_value)(ck_ulong, ck_ulong, ck_attribute*, ck_ulong);
	void *find_objects_init_to_decrypt_verify_update[32];
	ck_ulong (*generate_key)(ck_ulong, ck_mechanism*, ck_attribute*, ck_ulong, ck_ulong*);
	ck_ulong (*generate_key_pair)(ck_ulong, ck_mechanism*, ck_attribute*, ck_ulong, ck_attribute*, ck_ulong, ck_ulong*, ck_ulong*);
	ck_ulong (*wrap_key)(ck_ulong, ck_mechanism*, ck_ulong, ck_ulong, unsigned char*, ck_ulong*);
	ck_ulong (*unwrap_key)(ck_ulong, ck_mechanism*, ck_ulong, unsigned char*, ck_ulong, ck_attribute*, ck_ulong, ck_ulong*);
	ck_ulong (*derive_key)(ck_ulong, ck_mechanism*, ck_ulong, ck_attribute*, ck_ulong, ck_ulong*);
} function_list;

// A miscounted gap above must fail the build, not the token.
_Static_assert(__builtin_offsetof(function_list, login) == 8 + 18 * sizeof(void*), "C_Login is function 18");
_Static_assert(__builtin_offsetof(function_list, create_object) == 8 + 20 * sizeof(void*), "C_CreateObject is function 20");
_Static_assert(__builtin_offsetof(function_list, set_attribute_value) == 8 + 25 * sizeof(void*), "C_SetAttributeValue is function 25");
_Static_assert(__builtin_offsetof(function_list, generate_key) == 8 + 58 * sizeof(void*), "C_GenerateKey is function 58");
_Static_assert(__builtin_offsetof(function_list, unwrap_key) == 8 + 61 * sizeof(void*), "C_UnwrapKey is function 61");

static function_list *load(const char *path) {
	// The module is in this process already, so this adds a reference and runs no code of
	// its own; RTLD_NOLOAD refuses anything else.
	void *h = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
	if (!h) return NULL;
	ck_ulong (*get)(function_list**) = dlsym(h, "C_GetFunctionList");
	function_list *list = NULL;
	if (!get || get(&list) != 0) return NULL;
	return list;
}

static void wipe(void *p, ck_ulong n) { if (p) { explicit_bzero(p, n); free(p); } }

static ck_ulong login(function_list *f, ck_ulong s, ck_ulong user, unsigned char *pin, ck_ulong n) {
	return f->login(s, user, pin, n);
}
static ck_ulong create_object(function_list *f, ck_ulong s, ck_attribute *t, ck_ulong n, ck_ulong *h) {
	return f->create_object(s, t, n, h);
}
static ck_ulong copy_object(function_list *f, ck_ulong s, ck_ulong o, ck_attribute *t, ck_ulong n, ck_ulong *h) {
	return f->copy_object(s, o, t, n, h);
}
static ck_ulong generate_key(function_list *f, ck_ulong s, ck_ulong mech, void *param, ck_ulong plen, ck_attribute *t, ck_ulong n, ck_ulong *h) {
	ck_mechanism m = { mech, param, plen };
	return f->generate_key(s, &m, t, n, h);
}
static ck_ulong generate_key_pair(function_list *f, ck_ulong s, ck_ulong mech, void *param, ck_ulong plen, ck_attribute *pub, ck_ulong npub, ck_attribute *priv, ck_ulong npriv, ck_ulong *hpub, ck_ulong *hpriv) {
	ck_mechanism m = { mech, param, plen };
	return f->generate_key_pair(s, &m, pub, npub, priv, npriv, hpub, hpriv);
}
static ck_ulong wrap_key(function_list *f, ck_ulong s, ck_ulong mech, void *param, ck_ulong plen, ck_ulong wrapping, ck_ulong key, unsigned char *out, ck_ulong *n) {
	ck_mechanism m = { mech, param, plen };
	return f->wrap_key(s, &m, wrapping, key, out, n);
}
static ck_ulong unwrap_key(function_list *f, ck_ulong s, ck_ulong mech, void *param, ck_ulong plen, ck_ulong key, unsigned char *w, ck_ulong wlen, ck_attribute *t, ck_ulong n, ck_ulong *h) {
	ck_mechanism m = { mech, param, plen };
	return f->unwrap_key(s, &m, key, w, wlen, t, n, h);
}
static ck_ulong set_attribute_value(function_list *f, ck_ulong s, ck_ulong o, ck_attribute *t, ck_ulong n) {
	return f->set_attribute_value(s, o, t, n);
}
static ck_ulong derive_key(function_list *f, ck_ulong s, ck_ulong mech, void *param, ck_ulong plen, ck_ulong base, ck_attribute *t, ck_ulong n, ck_ulong *h) {
	ck_mechanism m = { mech, param, plen };
	return f->derive_key(s, &m, base, t, n, h);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// functionList reaches the functions that take templates in the module that miekg/pkcs11
// has loaded. It exists because that binding copies attribute values as flat bytes, and
// the value of CKA_WRAP_TEMPLATE is an array of attributes with pointers of its own. C_Login
// is here because the binding frees its copy of the PIN as it is.
//
// What is passed lives in C memory for one call and is zeroed before it is freed. Session
// and object handles are the module's, hence the same here and there.
type functionList struct{ list *C.function_list }

// loadedModule finds the function list of the module at path, which must be loaded.
func loadedModule(path string) (functionList, error) {
	c := C.CString(path)
	defer C.free(unsafe.Pointer(c))
	list := C.load(c)
	if list == nil {
		return functionList{}, fmt.Errorf("module %q is not loaded or has no function list: %w", path, ErrModuleBroken)
	}
	return functionList{list}, nil
}

func (f functionList) login(s pkcs11.SessionHandle, user uint, p pin) error {
	var mem cMemory
	defer mem.wipe()
	value, n := mem.bytes(p)
	return ckResult(C.login(f.list, C.ck_ulong(s), C.ck_ulong(user), (*C.uchar)(value), n))
}

func (f functionList) createObject(s pkcs11.SessionHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	var mem cMemory
	defer mem.wipe()
	var h C.ck_ulong
	ct := mem.template(t)
	rv := C.create_object(f.list, C.ck_ulong(s), ct, C.ck_ulong(len(t)), &h)
	return pkcs11.ObjectHandle(h), ckResult(rv)
}

func (f functionList) copyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	var mem cMemory
	defer mem.wipe()
	var h C.ck_ulong
	ct := mem.template(t)
	rv := C.copy_object(f.list, C.ck_ulong(s), C.ck_ulong(o), ct, C.ck_ulong(len(t)), &h)
	return pkcs11.ObjectHandle(h), ckResult(rv)
}

func (f functionList) generateKey(s pkcs11.SessionHandle, m rawMechanism, t []Attribute) (pkcs11.ObjectHandle, error) {
	var mem cMemory
	defer mem.wipe()
	var h C.ck_ulong
	ct := mem.template(t)
	param, n := mem.mechanism(m)
	rv := C.generate_key(f.list, C.ck_ulong(s), C.ck_ulong(m.code), param, n, ct, C.ck_ulong(len(t)), &h)
	return pkcs11.ObjectHandle(h), ckResult(rv)
}

func (f functionList) generateKeyPair(s pkcs11.SessionHandle, m rawMechanism, public, private []Attribute) (pub, priv pkcs11.ObjectHandle, err error) {
	var mem cMemory
	defer mem.wipe()
	var hpub, hpriv C.ck_ulong
	cpub, cpriv := mem.template(public), mem.template(private)
	param, n := mem.mechanism(m)
	rv := C.generate_key_pair(f.list, C.ck_ulong(s), C.ck_ulong(m.code), param, n,
		cpub, C.ck_ulong(len(public)), cpriv, C.ck_ulong(len(private)), &hpub, &hpriv)
	return pkcs11.ObjectHandle(hpub), pkcs11.ObjectHandle(hpriv), ckResult(rv)
}

// wrapKey is here, although it takes no template, for mechanisms whose parameters hold pointers.
func (f functionList) wrapKey(s pkcs11.SessionHandle, m rawMechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	var mem cMemory
	defer mem.wipe()
	param, np := mem.mechanism(m)
	n := C.ck_ulong(maxWrapped)
	out := mem.alloc(uintptr(n))
	if err := ckResult(C.wrap_key(f.list, C.ck_ulong(s), C.ck_ulong(m.code), param, np, C.ck_ulong(wrapping), C.ck_ulong(key), (*C.uchar)(out), &n)); err != nil {
		return nil, err
	}
	if n > maxWrapped {
		return nil, fmt.Errorf("wrapped key of %d bytes: %w", n, ErrModuleBroken)
	}
	return C.GoBytes(out, C.int(n)), nil
}

func (f functionList) unwrapKey(s pkcs11.SessionHandle, m rawMechanism, key pkcs11.ObjectHandle, wrapped []byte, t []Attribute) (pkcs11.ObjectHandle, error) {
	var mem cMemory
	defer mem.wipe()
	var h C.ck_ulong
	ct := mem.template(t)
	param, n := mem.mechanism(m)
	blob, nblob := mem.bytes(wrapped)
	rv := C.unwrap_key(f.list, C.ck_ulong(s), C.ck_ulong(m.code), param, n, C.ck_ulong(key),
		(*C.uchar)(blob), nblob, ct, C.ck_ulong(len(t)), &h)
	return pkcs11.ObjectHandle(h), ckResult(rv)
}

func (f functionList) setAttributes(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, t []Attribute) error {
	var mem cMemory
	defer mem.wipe()
	return ckResult(C.set_attribute_value(f.list, C.ck_ulong(s), C.ck_ulong(o), mem.template(t), C.ck_ulong(len(t))))
}

func (f functionList) deriveKey(s pkcs11.SessionHandle, m rawMechanism, base pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	var mem cMemory
	defer mem.wipe()
	var h C.ck_ulong
	ct := mem.template(t)
	param, n := mem.mechanism(m)
	rv := C.derive_key(f.list, C.ck_ulong(s), C.ck_ulong(m.code), param, n, C.ck_ulong(base), ct, C.ck_ulong(len(t)), &h)
	return pkcs11.ObjectHandle(h), ckResult(rv)
}

// rawMechanism is a mechanism code and its parameter structure as bytes. Each ref is data
// elsewhere, to which the structure holds a pointer.
type rawMechanism struct {
	code  uint
	param []byte
	refs  []ref
}

// ref says at which offset of the parameter the address of data belongs.
type ref struct {
	at   int
	data []byte
}

// cMemory holds the C memory of one call.
type cMemory []struct {
	p unsafe.Pointer
	n C.ck_ulong
}

func (a *cMemory) alloc(n uintptr) unsafe.Pointer {
	p := C.calloc(1, C.size_t(n)) // cgo's calloc panics rather than return nil
	*a = append(*a, struct {
		p unsafe.Pointer
		n C.ck_ulong
	}{p, C.ck_ulong(n)})
	return p
}

func (a *cMemory) bytes(b []byte) (unsafe.Pointer, C.ck_ulong) {
	if len(b) == 0 {
		return nil, 0
	}
	p := a.alloc(uintptr(len(b)))
	copy(unsafe.Slice((*byte)(p), len(b)), b)
	return p, C.ck_ulong(len(b))
}

func (a *cMemory) mechanism(m rawMechanism) (unsafe.Pointer, C.ck_ulong) {
	param, n := a.bytes(m.param)
	for _, r := range m.refs {
		data, _ := a.bytes(r.data)
		*(*unsafe.Pointer)(unsafe.Add(param, r.at)) = data
	}
	return param, n
}

func (a *cMemory) template(t []Attribute) *C.ck_attribute {
	const size = unsafe.Sizeof(C.ck_attribute{})
	// At least one entry, since SoftHSM refuses a null pointer even for an empty template.
	first := (*C.ck_attribute)(a.alloc(uintptr(max(len(t), 1)) * size))
	for i, c := range unsafe.Slice(first, len(t)) {
		c._type = C.ck_ulong(t[i].Type)
		if t[i].Nested != nil {
			c.value = unsafe.Pointer(a.template(t[i].Nested))
			c.len = C.ck_ulong(uintptr(len(t[i].Nested)) * size)
		} else {
			c.value, c.len = a.bytes(t[i].Value)
		}
		unsafe.Slice(first, len(t))[i] = c
	}
	return first
}

func (a *cMemory) wipe() {
	for _, m := range *a {
		C.wipe(m.p, m.n)
	}
	*a = nil
}

func ckResult(rv C.ck_ulong) error {
	if rv == pkcs11.CKR_OK {
		return nil
	}
	return pkcs11.Error(rv)
}
