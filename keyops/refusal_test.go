package keyops_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestRefusalsDoTheSameWork refuses every operation on a key that exists and on one that does
// not, and counts what is done: the same decisions, and no call of the token. What takes the
// same steps does not tell by its time which of the two it is; the size of the key's policy
// is all that differs.
func TestRefusalsDoTheSameWork(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/old", TargetKeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	decisions := r.Service.CountDecisions()
	mallory := keyopstest.User("mallory")
	missing := "arn:aws:kms:eu-paris-1:111122223333:key/" + string(arn.NewKeyID(true))
	work := func(op attempt, key string) (n int64, token uint64) {
		before := decisions.Load()
		calls := r.TokenCalls(t)
		want(t, op.call(t.Context(), r, mallory, key), keyops.ErrAccessDenied, "")
		for function, after := range r.Fake.Calls() {
			token += after - calls[function]
		}
		return decisions.Load() - before, token
	}
	for _, op := range onAKey {
		there, touched := work(op, k.ARN)
		gone, probed := work(op, missing)
		if there != gone || there == 0 || touched != 0 || probed != 0 {
			t.Errorf("%s: %d decisions on a key that exists and %d on one that does not, %d and %d calls of the token", op.name, there, gone, touched, probed)
		}
		if !among(byAlias, op.name) {
			continue
		}
		there, _ = work(op, "alias/old")
		if gone, _ = work(op, "alias/gone"); there != gone {
			t.Errorf("%s by alias: %d decisions where it exists and %d where not", op.name, there, gone)
		}
	}
}
