package replication_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

var kinds = []struct {
	spec  keyops.KeySpec
	usage keyops.KeyUsage
	use   func(testing.TB, arn.KeyID, *site, *site)
}{
	{keyops.SymmetricDefault, keyops.EncryptDecrypt, encryptHereDecryptThere},
	{keyops.HMAC256, keyops.GenerateVerifyMac, macHereVerifyThere},
	{keyops.ECCNISTP256, keyops.SignVerify, signHereVerifyThere},
}

func encryptHereDecryptThere(t testing.TB, id arn.KeyID, here, there *site) {
	t.Helper()
	sealed, err := here.region.Encrypt(context.Background(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("payroll")})
	if err != nil {
		t.Fatal(err)
	}
	out, err := there.region.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	if err != nil {
		t.Fatalf("what %s encrypted, %s does not decrypt: %v", here.name(), there.name(), err)
	}
	if !bytes.Equal(out.Plaintext, []byte("payroll")) || out.KeyMaterialID != sealed.KeyMaterialID {
		t.Fatalf("decrypted %q with material %s, encrypted with %s", out.Plaintext, out.KeyMaterialID, sealed.KeyMaterialID)
	}
}

func macHereVerifyThere(t testing.TB, id arn.KeyID, here, there *site) {
	t.Helper()
	mac, err := here.region.GenerateMac(context.Background(), keyopstest.Admin(), keyops.GenerateMacInput{
		KeyID: string(id), Message: []byte("m"), MacAlgorithm: keyops.AlgorithmHMACSHA256,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := there.region.VerifyMac(context.Background(), keyopstest.Admin(), keyops.VerifyMacInput{
		KeyID: string(id), Message: []byte("m"), Mac: mac.Mac, MacAlgorithm: keyops.AlgorithmHMACSHA256,
	}); err != nil {
		t.Fatal(err)
	}
}

func signHereVerifyThere(t testing.TB, id arn.KeyID, here, there *site) {
	t.Helper()
	sig, err := here.region.Sign(context.Background(), keyopstest.Admin(), keyops.SignInput{
		KeyID: string(id), Message: []byte("m"), SigningAlgorithm: keyops.AlgorithmECDSASHA256,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := there.region.Verify(context.Background(), keyopstest.Admin(), keyops.VerifyInput{
		KeyID: string(id), Message: []byte("m"), Signature: sig.Signature, SigningAlgorithm: keyops.AlgorithmECDSASHA256,
	}); err != nil {
		t.Fatal(err)
	}
}

// Each kind of key works in three Regions in all directions, and making a replica costs one
// C_WrapKey at the source and one C_UnwrapKey at the destination.
func TestReplicateToTwoRegions(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	for _, kind := range kinds {
		t.Run(string(kind.spec), func(t *testing.T) {
			for _, s := range sites {
				s.t = t
			}
			id := sites[0].create(kind.spec, kind.usage)
			wraps, unwraps := sites[0].region.Fake.Calls()["C_WrapKey"], []uint64{}
			for _, s := range sites {
				unwraps = append(unwraps, s.region.Fake.Calls()["C_UnwrapKey"])
			}
			sites[0].mustReplicate(id, sites[1], sites[2])
			sites[0].synchronized(id, sites[1:]...)
			for _, pair := range pairs(sites) {
				kind.use(t, id, pair[0], pair[1])
			}
			if got := sites[0].region.Fake.Calls()["C_WrapKey"] - wraps; got != 2 {
				t.Errorf("%d C_WrapKey at the source for two replicas", got)
			}
			for i, s := range sites[1:] {
				if got := s.region.Fake.Calls()["C_UnwrapKey"] - unwraps[i+1]; got != 1 {
					t.Errorf("%d C_UnwrapKey in %s", got, s.name())
				}
				if got := s.region.Fake.Calls()["C_WrapKey"]; got != 0 {
					t.Errorf("%d C_WrapKey in %s, which has nothing to send", got, s.name())
				}
			}
		})
	}
	for _, s := range sites {
		s.t = t
		s.noAlarms()
	}
}

// TestReplicateTwiceAtOnce: of two calls at once for one replica, one makes it, and the
// other is told that it is there.
func TestReplicateTwiceAtOnce(t *testing.T) {
	sites := deploy(t, paris, east)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	errs := make(chan error)
	for range 2 {
		go func() { errs <- a.replicate(id, b) }()
	}
	made := 0
	for range 2 {
		switch err := <-errs; {
		case err == nil:
			made++
		case !errors.Is(err, keyops.ErrAlreadyExists):
			t.Errorf("the other call: %v", err)
		}
	}
	if made != 1 {
		t.Errorf("%d of two calls made the replica", made)
	}
	a.synchronized(id, b)
	if got := b.region.Fake.Calls()["C_UnwrapKey"]; got != 1 {
		t.Errorf("%d materials were unwrapped, want 1", got)
	}
}
