package hsm_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/hsm"
)

// FuzzCheckImport shows blobs of every length to every kind of wrapping key: what is refused
// before the token is one class of error, and what is let through has the lengths that the
// two unwraps need.
func FuzzCheckImport(f *testing.F) {
	kinds := []struct {
		algorithm hsm.Algorithm
		usage     hsm.Usage
	}{{hsm.AES256, ""}, {hsm.HMACSHA224, ""}, {hsm.HMACSHA512, ""}, {hsm.ECP521, hsm.UsageAgree}, {hsm.RSA4096, hsm.UsageDecrypt}}
	for kind := range kinds {
		for scheme := range hsm.ImportSchemes {
			for _, n := range []int{0, 1, 255, 256, 257, 271, 272, 296, 304, 328, 6144} {
				f.Add(kind, scheme, make([]byte, n))
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind, scheme int, blob []byte) {
		if kind < 0 || scheme < 0 {
			return
		}
		k, s := kinds[kind%len(kinds)], hsm.ImportSchemes[scheme%len(hsm.ImportSchemes)]
		material := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: k.algorithm, Usage: k.usage, Name: "fuzz"}
		wrapping := hsm.Spec{Role: hsm.RoleImportWrapping, Algorithm: hsm.RSA2048, Name: "fuzz",
			Import: hsm.ImportFor{Scheme: s, Role: material.Role, Algorithm: material.Algorithm, Usage: material.Usage}}
		if wrapping.Check() != nil {
			return // a key that is too long for this scheme
		}
		err := hsm.CheckImport(wrapping, material, blob)
		switch inner := len(blob) - 256; {
		case err != nil && !errors.Is(err, hsm.ErrDataInvalid):
			t.Errorf("%s by %s, %d bytes: %v", k.algorithm, s, len(blob), err)
		case err == nil && !s.KeyWrap() && inner != 0:
			t.Errorf("%s by %s: %d bytes are let through", k.algorithm, s, len(blob))
		case err == nil && s.KeyWrap() && (inner < 16 || inner%8 != 0 || material.Algorithm.Secret() && inner != material.Algorithm.SecretBytes()+8):
			t.Errorf("%s by %s: %d bytes are let through", k.algorithm, s, len(blob))
		}
	})
}
