package hsm_test

import (
	"context"
	"regexp"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// hopeless lists the attacks that SoftHSM refuses even on keys without any protection, and
// why. On those its refusal proves little; they are in the table for other tokens.
var hopeless = []struct{ pattern, why string }{
	{`^make-trusted: `, "only the security officer sets CKA_TRUSTED"},
	{`^open-package: `, "the package is encrypted for another key"},
	{`^(set|copy)-attribute: .*(ALLOWED_MECHANISMS|COPYABLE|PRIVATE|SENSITIVE|TRUSTED|_TEMPLATE)\b`, "immutable after creation, whatever CKA_MODIFIABLE says"},
	{`^set-attribute: set CKA_MODIFIABLE to false$`, "immutable by SET"},
	{`^copy-attribute: copy it unchanged, then set CKA_MODIFIABLE$`, "immutable by SET"},
	{`^cipher-transport: decrypt .* 0x(1085|1087)$`, "a blob has no padding and no tag of these modes"},
	{`^derive: .* 0x(1100|1101|1102|1103|21)$`, "the mechanism takes DES or Diffie-Hellman keys"},
	{`^wrap-(untrusted|transport): .* 0x(121|122|125|133)$`, "the mechanism takes DES keys"},
	{`^unwrap-mechanism: .* 0x2109$`, "a blob of RFC 5649 has no integrity value of RFC 3394"},
	{`^unwrap-(establishment|import): .* mechanism 0x1$`, "a package has no padding of PKCS #1 v1.5"},
	{`^unwrap-import: .* of class (ec|rsa)-\w+$`, "a secret key is no PKCS #8"},
	{`^unwrap-(template|establishment|import): .* key type 0x[013]$`, "a private key's type is in its PKCS #8, and a secret key has none"},
	{`^derive: .* off the curve$`, "SoftHSM computes with points on the curve only, whoever asks"},
	{`^unwrap-template: .* of class `, "it was wrapped under another class's key"},
	{`^unwrap-(template|establishment|import): .* twice, the other value first$`, "the last value counts"},
	{`^unwrap-(template|establishment|import): .*CKA_(CLASS|KEY_TYPE) (contradicted|left out|twice, the other value last)$`, "without the class and type nothing is unwrapped"},
	{`^unwrap-(template|establishment|import): .*CKA_(MODIFIABLE|COPYABLE) twice, the other value last$`, "one that is false never becomes true"},
	{`^unwrap-(template|establishment|import): .*CKA_(TOKEN|PRIVATE|DERIVE|UNWRAP|EXTRACTABLE|WRAP_WITH_TRUSTED) left out$`, "the default is what is demanded"},
	{`^unwrap-(template|establishment|import): .*CKA_TRUSTED besides$`, "only the security officer sets CKA_TRUSTED"},
	{`^unwrap-(template|establishment|import): .* length \d+$`, "CKA_VALUE_LEN is refused in every unwrap"},
}

// An attack that fails on an unprotected key as well proves nothing where it is refused.
func TestAttacksWorkOnUnprotectedKeys(t *testing.T) {
	worked, failed, attacks := map[string]bool{}, map[string]string{}, map[string]bool{}
	for _, a := range hsm.RunOnUnprotected(t, open(t, source)) {
		k := a.Attack + ": " + a.Words
		attacks[a.Attack] = true
		if a.Refused {
			failed[k] = a.Victim + " answered " + a.Answer
		} else {
			worked[k] = true
		}
	}
	used := map[string]bool{}
	for k, answer := range failed {
		if worked[k] {
			continue
		}
		known := false
		for _, h := range hopeless {
			if regexp.MustCompile(h.pattern).MatchString(k) {
				known, used[h.pattern] = true, true
			}
		}
		if !known {
			t.Errorf("never worked: %s (%s)", k, answer)
		}
	}
	for _, h := range hopeless {
		if !used[h.pattern] {
			t.Errorf("no attack is hopeless as %s says: %s", h.pattern, h.why)
		}
	}
	if len(attacks) < 12 || len(worked) < 150 {
		t.Errorf("%d attacks with %d ways that worked: the table has shrunk", len(attacks), len(worked))
	}
}

// The self-test passes on SoftHSM, which is never better than api-only, in a time that
// every start can spare.
func TestSelfTest(t *testing.T) {
	tok := open(t, source)
	if b := tok.Capabilities().Boundary; b != hsm.BoundaryNone {
		t.Errorf("boundary before the self-test is %s, want none", b)
	}
	th := thief(t, softhsmtest.Named(source))
	sessionBefore, err := th.SessionObjects()
	if err != nil {
		t.Fatal(err)
	}
	before := len(tok.Objects())
	r, err := tok.SelfTest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Boundary != hsm.BoundaryAPIOnly || tok.Capabilities().Boundary != hsm.BoundaryAPIOnly {
		t.Errorf("boundary is %s, published as %s, want api-only", r.Boundary, tok.Capabilities().Boundary)
	}
	if len(r.Attempts) < 2000 {
		t.Errorf("only %d attempts were made", len(r.Attempts))
	}
	if err := tok.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := len(tok.Objects()); after != before || len(tok.Quarantined()) != 0 {
		t.Errorf("%d objects before and %d after, %d in quarantine: stand-ins were left behind", before, after, len(tok.Quarantined()))
	}
	if after, err := th.SessionObjects(); err != nil || after != sessionBefore {
		t.Errorf("%d session objects before and %d after (%v)", sessionBefore, after, err)
	}
	t.Logf("%d attempts in %s", len(r.Attempts), r.Took)
}

// A self-test that finds nothing is worth what it would find: a module that permits a
// single one of the attacks must be caught, whichever it is.
func TestSelfTestCatchesEveryLeak(t *testing.T) {
	tok := open(t, source)
	leaks := hsm.RunLeaky(t, tok)
	if len(leaks) < 12 {
		t.Fatalf("%d leaks were tried, want one at least for each attack", len(leaks))
	}
	for _, l := range leaks {
		if len(l.Broken) != 1 || l.Broken[0].Attack != l.Leak.Attack || l.Broken[0].Words != l.Leak.Words || l.Broken[0].Victim != l.Leak.Victim {
			t.Errorf("leak %s: %s: %s was reported as %+v", l.Leak.Attack, l.Leak.Victim, l.Leak.Words, l.Broken)
		}
	}
}

// On the ceremony's real objects, with the rights of the user PIN: each is refused.
func TestAttacksOnRealTransportKeys(t *testing.T) {
	s, d := open(t, source), open(t, destination)
	ctx := context.Background()
	for _, tok := range []*hsm.Token{s, d} {
		for _, class := range hsm.Classes {
			generate(t, tok, class.Material())
		}
		for _, spec := range []hsm.Spec{
			{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "victim"},
			{Role: hsm.RoleMaterial, Algorithm: hsm.HMACSHA256, Name: "victim"},
			{Role: hsm.RoleMaterial, Algorithm: hsm.ECP256, Usage: hsm.UsageSign, Name: "victim"},
			{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: "victim"},
			{Role: hsm.RoleSeal, Algorithm: hsm.HMACSHA256, Name: "victim"},
		} {
			generate(t, tok, spec)
		}
	}
	blobs, err := s.Record(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(blobs) != len(hsm.Classes) {
		t.Fatalf("%d blobs were recorded, want one for each class", len(blobs))
	}
	for name, tok := range map[string]*hsm.Token{"source": s, "destination": d} {
		attempts, err := tok.Attack(ctx, blobs, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, a := range hsm.Broken(attempts) {
			t.Errorf("%s: %s: %s: %s answered %s", name, a.Victim, a.Words, a.Function, a.Answer)
		}
		if len(attempts) < 1500 {
			t.Errorf("%s: only %d attempts", name, len(attempts))
		}
		// Whatever was refused left every object as its template says.
		if err := tok.Rescan(ctx); err != nil {
			t.Fatal(err)
		}
		if q := tok.Quarantined(); len(q) != 0 {
			t.Errorf("%s: after the attacks these are not what they were: %+v", name, q)
		}
	}
	// Blobs of no use are no evidence.
	for k := range blobs {
		blobs[k] = make([]byte, len(blobs[k]))
	}
	if _, err := d.Attack(ctx, blobs, nil); err == nil {
		t.Error("attacks with blobs that open for nobody were taken for a proof")
	}
	if _, err := d.Attack(ctx, nil, nil); err == nil {
		t.Error("attacks without blobs were taken for a proof")
	}
}
