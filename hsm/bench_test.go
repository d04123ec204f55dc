package hsm

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// BenchmarkEncryptGCM measures what a call of Token costs on top of the token: the same
// encryption through Token and on a bare session are timed in turns within one run, and the
// ratio of the two is reported. Absolute figures depend on the machine, the ratio hardly.
func BenchmarkEncryptGCM(b *testing.B) {
	for _, size := range []int{32, 4096} {
		b.Run(fmt.Sprintf("%d", size), func(b *testing.B) {
			k, id := benchToken(b)
			// With a deadline, as every request has: it is what makes a call a goroutine.
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()
			text, aad := make([]byte, size), make([]byte, 64)
			bare := bareGCM(b, k, id, text, aad)
			var through, raw time.Duration
			const turn = 50
			for b.Loop() {
				start := time.Now()
				for range turn {
					if _, _, err := k.EncryptGCM(ctx, id, aad, text); err != nil {
						b.Fatal(err)
					}
				}
				middle := time.Now()
				for range turn {
					bare()
				}
				through += middle.Sub(start)
				raw += time.Since(middle)
			}
			report(b, through, raw, turn)
		})
	}
}

// BenchmarkObjects shows that a call does not depend on how many objects the index holds.
func BenchmarkObjects(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			k, id := benchToken(b)
			for range n {
				e := entry{Object: Object{ID: NewID(), Spec: testAES}}
				k.index.put(e)
			}
			text, aad := make([]byte, 32), make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := k.EncryptGCM(b.Context(), id, aad, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchToken(b *testing.B) (*Token, ID) {
	b.Helper()
	tok := softhsmtest.Named("source")
	k, err := Open(b.Context(), Config{Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, Profile: SoftHSM2()})
	if err != nil {
		b.Fatal(err)
	}
	id := NewID()
	if _, err := k.Generate(b.Context(), testAES, id); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := k.Destroy(context.Background(), id); err != nil {
			b.Error(err)
		}
		k.Close()
	})
	return k, id
}

// bareGCM is the least that an encryption takes: one session, one goroutine, the binding.
func bareGCM(b *testing.B, k *Token, id ID, text, aad []byte) func() {
	b.Helper()
	s, err := k.module.ctx.OpenSession(k.conn.Load().slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		b.Fatal(err)
	}
	e, _ := k.index.get(id)
	return func() {
		iv := make([]byte, 12)
		rand.Read(iv)
		params := pkcs11.NewGCMParams(iv, aad, 128)
		defer params.Free()
		if err := k.module.ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, e.handle); err != nil {
			b.Fatal(err)
		}
		if _, err := k.module.ctx.Encrypt(s, text); err != nil {
			b.Fatal(err)
		}
	}
}

func report(b *testing.B, through, raw time.Duration, turn int) {
	n := float64(b.N * turn)
	b.ReportMetric(float64(through.Nanoseconds())/n, "ns/call")
	b.ReportMetric(float64(raw.Nanoseconds())/n, "ns/bare-call")
	b.ReportMetric(float64(through)/float64(raw), "ratio")
	b.ReportMetric(0, "ns/op") // of no meaning: one op is many calls of two kinds
}
