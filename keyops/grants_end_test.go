package keyops_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestRetireGrant: who may end a grant, and how it is named.
func TestRetireGrant(t *testing.T) {
	const other arn.Account = "444455556666"
	retiring := keyopstest.UserOf(other, "closer")
	policyOf := func(statements string) string {
		return `{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}` + statements + `]}`
	}
	denied := policyOf(`,{"Effect":"Deny","Principal":"*","Action":"kms:RetireGrant","Resource":"*","Condition":{"StringEquals":{"kms:EncryptionContext:env":"prod"}}}`)
	for _, tc := range []struct {
		name       string
		caller     keyops.Caller
		policy     string
		operations []string
		reason     keyops.Reason
	}{
		{"the retiring principal, of another account", retiring, "", nil, ""},
		{"the grantee with RetireGrant", app(), "", []string{"RetireGrant"}, ""},
		{"the grantee without", app(), "", nil, keyops.ErrAccessDenied},
		{"by a policy", admin(), "", nil, ""},
		{"somebody", keyopstest.User("mallory"), "", nil, keyops.ErrAccessDenied},
		{"the retiring principal, denied by what the grant is about", retiring, denied, nil, keyops.ErrAccessDenied},
		{"the grantee, denied", app(), denied, []string{"RetireGrant"}, keyops.ErrAccessDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := keyopstest.New(t, keyopstest.Options{Accounts: []arn.Account{keyopstest.Account, other}})
			k := create(t, r, keyops.CreateKeyInput{Policy: tc.policy})
			for _, byToken := range []bool{true, false} {
				in := keyops.CreateGrantInput{
					KeyID: k.ARN, GranteePrincipal: appARN, RetiringPrincipal: retiring.Principal.String(),
					Operations:  append([]string{"Encrypt"}, tc.operations...),
					Constraints: keyops.GrantConstraints{EncryptionContextSubset: map[string]string{"env": "prod"}},
				}
				made := grant(t, r, in)
				if !slices.Contains(tc.operations, "RetireGrant") {
					// A grant that may be retired opens no other one.
					grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"RetireGrant"}})
				}
				retire := keyops.RetireGrantInput{KeyID: k.ARN, GrantID: made.GrantID, DryRun: true}
				if byToken {
					retire = keyops.RetireGrantInput{GrantToken: made.GrantToken, DryRun: true}
				}
				reason := tc.reason
				if reason == "" {
					reason = keyops.ErrDryRun
				}
				_, err := r.RetireGrant(t.Context(), tc.caller, retire)
				want(t, err, reason, "")
				if err := encryptAs(r, app(), k.ARN, map[string]string{"env": "prod"}); err != nil {
					t.Errorf("the grant has gone: %v", explain(err))
				}
				retire.DryRun = false
				_, err = r.RetireGrant(t.Context(), tc.caller, retire)
				if tc.reason != "" {
					want(t, err, tc.reason, "")
					revoke(t, r, k.ARN, made.GrantID)
					continue
				}
				if err != nil {
					t.Fatal(explain(err))
				}
				want(t, encryptAs(r, app(), k.ARN, map[string]string{"env": "prod"}), keyops.ErrAccessDenied, "")
				_, err = r.RetireGrant(t.Context(), tc.caller, retire)
				switch {
				case byToken:
					want(t, err, keyops.ErrInvalidGrantToken, "")
				case tc.caller.Principal == admin().Principal:
					want(t, err, keyops.ErrNotFound, "Grant ID")
				default: // a grant that has gone gives nobody a permission to hear that it has
					want(t, err, keyops.ErrAccessDenied, "")
				}
			}
		})
	}
}

func TestGrantRequestsRefused(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	aes := create(t, r, keyops.CreateKeyInput{}).ARN
	mac := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}).ARN
	ec := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify}).ARN
	off := create(t, r, keyops.CreateKeyInput{})
	kept := grant(t, r, keyops.CreateGrantInput{KeyID: off.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}})
	if _, err := r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: off.ARN}); err != nil {
		t.Fatal(err)
	}
	type pairs = map[string]string
	for _, tc := range []struct {
		name   string
		in     keyops.CreateGrantInput
		reason keyops.Reason
		part   string
	}{
		{"no grantee", keyops.CreateGrantInput{GranteePrincipal: "*"}, keyops.ErrInvalidArn, "granteePrincipal '*'"},
		{"of another partition", keyops.CreateGrantInput{GranteePrincipal: "arn:aws-cn:iam::111122223333:user/app"}, keyops.ErrInvalidArn, "partition aws"},
		{"a bad retiring principal", keyops.CreateGrantInput{RetiringPrincipal: "user/app"}, keyops.ErrInvalidArn, "retiringPrincipal"},
		{"management", keyops.CreateGrantInput{Operations: []string{"PutKeyPolicy"}}, keyops.ErrValidation, "cannot be granted"},
		{"nothing", keyops.CreateGrantInput{Operations: []string{}}, keyops.ErrValidation, "no operations"},
		{"very much", keyops.CreateGrantInput{Operations: slices.Repeat([]string{"Encrypt"}, 1000)}, keyops.ErrValidation, "operations"},
		{"an operation twice", keyops.CreateGrantInput{Operations: []string{"Encrypt", "Encrypt"}}, keyops.ErrValidation, "twice"},
		{"another usage", keyops.CreateGrantInput{Operations: []string{"Sign"}}, keyops.ErrValidation, "key usage is ENCRYPT_DECRYPT"},
		{"no key pair", keyops.CreateGrantInput{Operations: []string{"GetPublicKey"}}, keyops.ErrValidation, "GetPublicKey"},
		{"HMAC key encrypts", keyops.CreateGrantInput{KeyID: mac}, keyops.ErrValidation, "GENERATE_VERIFY_MAC"},
		{"signing key makes MACs", keyops.CreateGrantInput{KeyID: ec, Operations: []string{"GenerateMac"}}, keyops.ErrValidation, "SIGN_VERIFY"},
		{"a constraint on Sign", keyops.CreateGrantInput{KeyID: ec, Operations: []string{"Sign"}, Constraints: keyops.GrantConstraints{EncryptionContextSubset: pairs{"a": "b"}}}, keyops.ErrValidation, "no encryption context"},
		{"two constraints", keyops.CreateGrantInput{Constraints: keyops.GrantConstraints{EncryptionContextSubset: pairs{"a": "b"}, EncryptionContextEquals: pairs{"a": "b"}}}, keyops.ErrValidation, "both"},
		{"a constraint that no context satisfies", keyops.CreateGrantInput{Constraints: keyops.GrantConstraints{EncryptionContextSubset: pairs{strings.Repeat("k", 8192): "b"}}}, keyops.ErrValidation, "8192"},
		{"a name with a space", keyops.CreateGrantInput{Name: "a b"}, keyops.ErrValidation, "'name'"},
		{"a long name", keyops.CreateGrantInput{Name: strings.Repeat("n", 257)}, keyops.ErrValidation, "'name'"},
		{"a disabled key", keyops.CreateGrantInput{KeyID: off.ARN}, keyops.ErrDisabled, "is disabled."},
		{"only tried", keyops.CreateGrantInput{DryRun: true}, keyops.ErrDryRun, ""},
		{"by alias", keyops.CreateGrantInput{KeyID: "alias/a"}, keyops.ErrNotFound, "Invalid keyId"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.in.KeyID == "" {
				tc.in.KeyID = aes
			}
			if tc.in.GranteePrincipal == "" {
				tc.in.GranteePrincipal = appARN
			}
			if tc.in.Operations == nil {
				tc.in.Operations = []string{"Encrypt"}
			}
			_, err := r.CreateGrant(t.Context(), admin(), tc.in)
			want(t, err, tc.reason, tc.part)
			list, err := r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: aes})
			if err != nil || len(list.Grants) != 0 {
				t.Errorf("a grant was made: %+v, %v", list, err)
			}
		})
	}
	grant(t, r, keyops.CreateGrantInput{KeyID: ec, GranteePrincipal: appARN, Operations: []string{"GetPublicKey", "Sign", "Verify"}})
	revoke(t, r, off.ARN, kept.GrantID) // what is disabled can still be taken away
	_, err := r.RevokeGrant(t.Context(), admin(), keyops.RevokeGrantInput{KeyID: aes, GrantID: "x"})
	want(t, err, keyops.ErrInvalidGrantID, "64")
	for _, in := range []keyops.RetireGrantInput{{}, {GrantToken: "a", KeyID: aes}, {GrantToken: "a", GrantID: noGrant}} {
		_, err = r.RetireGrant(t.Context(), admin(), in)
		want(t, err, keyops.ErrValidation, "either")
	}
	_, err = r.RetireGrant(t.Context(), admin(), keyops.RetireGrantInput{KeyID: aes, GrantID: strings.ToUpper(kept.GrantID[:63]) + "A"})
	want(t, err, keyops.ErrInvalidGrantID, "")
}

// TestCreateGrantIsRepeatable: with a name, the same request makes one grant.
func TestCreateGrantIsRepeatable(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	in := keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt", "Decrypt"}, Name: "n"}
	first := grant(t, r, in)
	head := r.StoreHead()
	in.Operations = []string{"Decrypt", "Encrypt"} // the order says nothing
	if again := grant(t, r, in); again != first || r.StoreHead() != head {
		t.Errorf("made %v again as %v", first, again)
	}
	seen := map[string]bool{first.GrantID: true}
	for name, change := range map[string]func(*keyops.CreateGrantInput){
		"no name":           func(in *keyops.CreateGrantInput) { in.Name = "" },
		"another name":      func(in *keyops.CreateGrantInput) { in.Name = "m" },
		"another operation": func(in *keyops.CreateGrantInput) { in.Operations = []string{"Encrypt"} },
		"another grantee":   func(in *keyops.CreateGrantInput) { in.GranteePrincipal = helper },
		"a retiring one":    func(in *keyops.CreateGrantInput) { in.RetiringPrincipal = helper },
		"another constraint": func(in *keyops.CreateGrantInput) {
			in.Constraints.EncryptionContextSubset = map[string]string{"a": "b"}
		},
	} {
		other := in
		change(&other)
		if made := grant(t, r, other); seen[made.GrantID] {
			t.Errorf("%s: got an old grant", name)
		} else {
			seen[made.GrantID] = true
		}
	}
}

// TestGrantPages lists in pages, of a key and of a retiring principal.
func TestGrantPages(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a, b := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
	made := map[string]bool{}
	for i := range 12 {
		k := a
		if i%4 == 0 {
			k = b
		}
		in := keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: fmt.Sprint("arn:aws:iam::111122223333:user/u", i%3), RetiringPrincipal: helper, Operations: []string{"Encrypt"}}
		made[grant(t, r, in).GrantID] = true
	}
	grant(t, r, keyops.CreateGrantInput{KeyID: a.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}}) // retired by nobody
	check := func() {
		t.Helper()
		var ids []string
		in := keyops.ListRetirableGrantsInput{RetiringPrincipal: helper, Limit: 5}
		for more := true; more; {
			out, err := r.ListRetirableGrants(t.Context(), admin(), in)
			if err != nil || len(out.Grants) == 0 {
				t.Fatalf("%+v, %v", out, explain(err))
			}
			if out.Truncated && len(out.Grants) != in.Limit {
				t.Errorf("a page of %d grants, want %d", len(out.Grants), in.Limit)
			}
			for _, g := range out.Grants {
				ids = append(ids, g.KeyID+g.GrantID)
				if !made[g.GrantID] {
					t.Errorf("listed %+v", g)
				}
			}
			in.Marker, more = out.NextMarker, out.Truncated
		}
		if len(ids) != len(made) || !slices.IsSorted(ids) || len(slices.Compact(ids)) != len(made) {
			t.Errorf("%d retirable grants, want %d: %v", len(ids), len(made), ids)
		}
	}
	check()
	r.Restart(t)
	check()
	var ids []string
	in := keyops.ListGrantsInput{KeyID: a.ARN, Limit: 2, GranteePrincipal: "arn:aws:iam::111122223333:user/u1"}
	for more := true; more; {
		out, err := r.ListGrants(t.Context(), admin(), in)
		if err != nil {
			t.Fatal(explain(err))
		}
		for _, g := range out.Grants {
			ids = append(ids, g.GrantID)
			if g.GranteePrincipal != in.GranteePrincipal {
				t.Errorf("listed %+v", g)
			}
		}
		in.Marker, more = out.NextMarker, out.Truncated
	}
	if len(ids) != 3 || !slices.IsSorted(ids) {
		t.Errorf("%d grants of one grantee: %v", len(ids), ids)
	}
	out, err := r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: a.ARN, GrantID: ids[1]})
	if err != nil || len(out.Grants) != 1 || out.Grants[0].GrantID != ids[1] {
		t.Errorf("%+v, %v", out, err)
	}
	revoke(t, r, a.ARN, ids[1])
	delete(made, ids[1])
	check()
	for name, err := range map[string]error{
		"marker of another operation": second(r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: a.ARN, Marker: "eA"})),
		"limit":                       second(r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: a.ARN, Limit: 101})),
		"retirable limit":             second(r.ListRetirableGrants(t.Context(), admin(), keyops.ListRetirableGrantsInput{RetiringPrincipal: helper, Limit: 101})),
		"of another account":          second(r.ListRetirableGrants(t.Context(), admin(), keyops.ListRetirableGrantsInput{RetiringPrincipal: "arn:aws:iam::444455556666:user/x"})),
		"no principal":                second(r.ListRetirableGrants(t.Context(), admin(), keyops.ListRetirableGrantsInput{})),
		"grant ID":                    second(r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: a.ARN, GrantID: "1"})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestGrantQuota(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	last := grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}})
	if err := r.GrantCopies(t.Context(), k.KeyID, 999); err != nil {
		t.Fatal(err)
	}
	_, err := r.CreateGrant(t.Context(), admin(), keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}})
	want(t, err, keyops.ErrLimitExceeded, "1000 grants")
	r.Restart(t)
	revoke(t, r, k.ARN, last.GrantID)
	grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}})
}

// TestRevokeIsAtOnce: while a grantee calls and passes its grant on as fast as it can, no call
// that begins after RevokeGrant has returned succeeds, and no grant appears any more.
func TestRevokeIsAtOnce(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	made := grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt", "CreateGrant"}})
	var began, done sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		began.Add(1)
		done.Go(func() {
			for n := 0; ; n++ {
				if n == 1 {
					began.Done()
				}
				select {
				case <-stop:
					return
				default:
				}
				if i%2 == 0 {
					_ = encryptAs(r, app(), k.ARN, nil)
				} else {
					_, _ = r.CreateGrant(context.Background(), app(), keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: helper, Operations: []string{"Encrypt"}})
				}
			}
		})
	}
	began.Wait()
	revoke(t, r, k.ARN, made.GrantID)
	before, err := r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: k.ARN, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		want(t, encryptAs(r, app(), k.ARN, nil), keyops.ErrAccessDenied, "")
	}
	close(stop)
	done.Wait()
	after, err := r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: k.ARN, Limit: 100})
	if err != nil || len(after.Grants) != len(before.Grants) {
		t.Errorf("%d grants after the revocation, then %d: %v", len(before.Grants), len(after.Grants), err)
	}
}

// TestRevokedWhileWaiting: a grantee's change that was let in, and waits for the key while its
// grant is revoked, is refused.
func TestRevokedWhileWaiting(t *testing.T) {
	var holds atomic.Pointer[chan struct{}] // what the change of a key waits for while it has the key's lock
	r := keyopstest.New(t, keyopstest.Options{Step: func(string) {
		if release := holds.Swap(nil); release != nil {
			<-*release
		}
	}})
	k := create(t, r, keyops.CreateKeyInput{})
	for range 10 {
		made := grant(t, r, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt", "CreateGrant"}})
		release := make(chan struct{})
		holds.Store(&release)
		var calls sync.WaitGroup
		calls.Go(func() {
			in := keyops.UpdateKeyDescriptionInput{KeyID: k.ARN, Description: made.GrantID}
			if _, err := r.UpdateKeyDescription(context.Background(), admin(), in); err != nil {
				t.Error(explain(err))
			}
		})
		for holds.Load() != nil {
			time.Sleep(time.Millisecond)
		}
		revoker, grantee := admin(), app()
		var passedOn error
		calls.Go(func() {
			if _, err := r.RevokeGrant(context.Background(), revoker, keyops.RevokeGrantInput{KeyID: k.ARN, GrantID: made.GrantID}); err != nil {
				t.Error(explain(err))
			}
		})
		waits(t, r, revoker)
		calls.Go(func() {
			_, passedOn = r.CreateGrant(context.Background(), grantee, keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: helper, Operations: []string{"Encrypt"}})
		})
		waits(t, r, grantee)
		close(release)
		calls.Wait()
		if passedOn == nil {
			continue // the lock was given to the grantee first: its grant was in force
		}
		want(t, passedOn, keyops.ErrAccessDenied, "kms:CreateGrant")
		return
	}
	t.Error("no change of the grantee came after the revocation")
}

// waits returns when a call has been let in and is about to wait for its key.
func waits(t *testing.T, r *keyopstest.Region, c keyops.Caller) {
	t.Helper()
	for len(auditLines(t, r, c.RequestID)) == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond) // from the record to the lock; longer makes the locks' order fair
}

// TestAliasMovedUnderACaller: an alias that moves between a key that the caller may use and
// one that it may not never takes a permission along.
func TestAliasMovedUnderACaller(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a, b := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
	grant(t, r, keyops.CreateGrantInput{KeyID: a.ARN, GranteePrincipal: appARN, Operations: []string{"Encrypt"}})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/payroll", TargetKeyID: a.ARN}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			to := []string{b.ARN, a.ARN}[i%2]
			if _, err := r.UpdateAlias(context.Background(), admin(), keyops.UpdateAliasInput{AliasName: "alias/payroll", TargetKeyID: to}); err != nil {
				t.Error(explain(err))
				return
			}
		}
	})
	allowed, refused := 0, 0
	for i := 0; i < 20000 && (i < 200 || allowed == 0 || refused == 0); i++ {
		out, err := r.Encrypt(t.Context(), app(), keyops.EncryptInput{KeyID: "alias/payroll", Plaintext: x})
		switch {
		case err == nil && out.KeyID == a.ARN:
			allowed++
		case err == nil:
			t.Fatalf("encrypted with %s", out.KeyID)
		default:
			want(t, err, keyops.ErrAccessDenied, "alias/payroll")
			refused++
		}
	}
	close(stop)
	done.Wait()
	if allowed == 0 || refused == 0 {
		t.Errorf("%d calls allowed, %d refused: the alias did not move under the caller", allowed, refused)
	}
}
