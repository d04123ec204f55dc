package audit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

const tokenLabel = "redaction"

func TestMain(m *testing.M) { os.Exit(softhsmtest.Main(m, tokenLabel)) }

// spill collects everything that a Region says where others may read it, and all secrets
// that went through it.
type spill struct {
	*testing.T
	mu      sync.Mutex
	text    bytes.Buffer
	secrets map[string][]byte
}

// Write takes the log.
func (s *spill) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// logger logs everything, in both forms that the daemon has.
func (s *spill) logger() logrus.FieldLogger {
	l := logrus.New()
	l.SetLevel(logrus.TraceLevel)
	l.SetOutput(s)
	l.SetFormatter(&logrus.JSONFormatter{})
	l.AddHook(&textHook{s})
	return l
}

type textHook struct{ s *spill }

func (h *textHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *textHook) Fire(e *logrus.Entry) error {
	b, err := (&logrus.TextFormatter{DisableColors: true}).Format(e)
	if err == nil {
		_, err = h.s.Write(b)
	}
	return err
}

// secret remembers bytes that nobody may find.
func (s *spill) secret(name string, b []byte) []byte {
	if len(b) < 12 {
		s.Fatalf("%s has %d bytes, too few to look for", name, len(b))
	}
	s.secrets[fmt.Sprintf("%s (secret %d)", name, len(s.secrets))] = bytes.Clone(b)
	return b
}

// said takes an error in every form in which somebody may print it, with the cause that
// callers are not told.
func (s *spill) said(err error) {
	for err != nil {
		fmt.Fprintf(s, "%v\n%+v\n%#v\n", err, err, err)
		var e *keyops.Error
		if !errors.As(err, &e) || e.Cause() == nil {
			return
		}
		err = e.Cause()
	}
}

// forms are the ways in which bytes are written, besides as they are.
func forms(secret []byte) map[string][]byte {
	f := map[string][]byte{
		"raw": secret, "hex": []byte(hex.EncodeToString(secret)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(secret))),
		"decimal": []byte(strings.Trim(fmt.Sprint(secret[:12]), "[]")),
		"Go":      []byte(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret[:12]), "[]byte{"), "}")),
		"quoted":  []byte(strings.Trim(fmt.Sprintf("%q", secret), `"`)),
	}
	// As part of something longer, base64 has three forms.
	for shift := range 3 {
		b := secret[shift:]
		b = b[:len(b)/3*3]
		f[fmt.Sprintf("base64+%d", shift)] = []byte(base64.StdEncoding.EncodeToString(b))
		f[fmt.Sprintf("base64url+%d", shift)] = []byte(base64.URLEncoding.EncodeToString(b))
	}
	return f
}

// find returns where a secret is in what was said.
func find(text, secret []byte) (form string, found bool) {
	for name, b := range forms(secret) {
		if bytes.Contains(text, b) {
			return name, true
		}
	}
	return "", false
}

// check looks for every secret in the log, the errors and the audit files. What is no
// secret must be there, or the test would look in the wrong places.
func (s *spill) check(auditDir string, open ...string) {
	s.Helper()
	files, err := filepath.Glob(filepath.Join(auditDir, "audit-*.jsonl"))
	if err != nil || len(files) == 0 {
		s.Fatalf("no audit files in %s, error %v", auditDir, err)
	}
	var audited []byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			s.Fatal(err)
		}
		audited = append(audited, b...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, secret := range s.secrets {
		for place, text := range map[string][]byte{"audit log": audited, "log or errors": s.text.Bytes()} {
			if form, found := find(text, secret); found {
				s.Errorf("the %s has %s (%s)", place, name, form)
			}
		}
	}
	for _, word := range open {
		if !bytes.Contains(audited, []byte(word)) {
			s.Errorf("the audit log has no %q", word)
		}
	}
	if len(s.secrets) < 10 || s.text.Len() == 0 {
		s.Errorf("%d secrets were planted and %d bytes said, want more", len(s.secrets), s.text.Len())
	}
}

// TestForms shows that a secret is found however it is written.
func TestForms(t *testing.T) {
	secret := []byte("PLANTED\x00\xff\n\"-plaintext")
	for _, text := range []string{
		"x" + string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint(secret), fmt.Sprintf("%q", secret), fmt.Sprintf("%#v", secret),
		base64.StdEncoding.EncodeToString(secret), base64.StdEncoding.EncodeToString(append([]byte("1"), secret...)),
		base64.RawURLEncoding.EncodeToString(append([]byte("12"), secret...)), base64.StdEncoding.EncodeToString(append([]byte("123"), secret...)),
	} {
		if _, found := find([]byte(text), secret); !found {
			t.Errorf("not found in %q", text)
		}
	}
	if form, found := find([]byte("nothing of the kind"), secret); found {
		t.Errorf("found as %s where it is not", form)
	}
}

// TestRedaction uses every operation that sees secrets, rightly and wrongly, on a real
// token, and looks for them.
func TestRedaction(t *testing.T) {
	softhsmtest.Used(t)
	s := &spill{T: t, secrets: map[string][]byte{}}
	tok := softhsmtest.Named(tokenLabel)
	for name, path := range map[string]string{"the user PIN": tok.PINFile, "the SO PIN": tok.SOPINFile} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s.secret(name, bytes.TrimSpace(b))
	}
	config := hsm.Config{Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, Profile: hsm.SoftHSM2(), Log: s.logger()}
	s.wrongPIN(config)
	token, err := hsm.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(token.Close)
	r := keyopstest.New(t, keyopstest.Options{Token: token, Log: s.logger()})
	s.useAll(r)
	s.check(r.AuditDir, "context-is-no-secret", "GenerateDataKey", "Decrypt", "InvalidCiphertextException", "KMSInvalidMacException")
}

// wrongPIN opens the token with files that hold the wrong thing.
func (s *spill) wrongPIN(config hsm.Config) {
	s.Helper()
	wrong := s.secret("a PIN that is wrong", []byte("planted-wrong-pin"))
	for i, text := range [][]byte{wrong, append(bytes.Clone(wrong), "\nand a second line\n"...), bytes.Repeat(wrong, 1000)} {
		path := filepath.Join(s.TempDir(), fmt.Sprint("pin", i))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			s.Fatal(err)
		}
		config.PINFile = path
		token, err := hsm.Open(context.Background(), config)
		if err == nil {
			token.Close()
			s.Fatalf("the token opened with %q", text)
		}
		s.said(err)
	}
}

// TestRedactionOfFailures makes every call to the token fail while secrets are on their way.
func TestRedactionOfFailures(t *testing.T) {
	s := &spill{T: t, secrets: map[string][]byte{}}
	r := keyopstest.New(t, keyopstest.Options{Log: s.logger()})
	s.useAll(r)
	for _, fault := range []hsmtest.Fault{{Before: hsmtest.FailedNotApplied}, {After: hsmtest.FailedButApplied}, {Before: hsm.ErrDataInvalid}} {
		for _, op := range []string{"EncryptGCM", "DecryptGCM", "MAC", "Random"} {
			r.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
				if c.Op == op {
					return fault
				}
				return hsmtest.Fault{}
			})
			s.useKeys(r, op)
		}
	}
	r.Fake.SetHook(nil)
	s.check(r.AuditDir, "context-is-no-secret", "KeyUnavailableException")
}

// madeKeys are aliases of keys.
type madeKeys struct{ aes, mac, ec string }

var (
	plaintext = []byte("PLANTED plaintext of a payroll")
	message   = []byte("PLANTED message to be signed")
	notSecret = map[string]string{"department": "context-is-no-secret"}
)

func (s *spill) useAll(r *keyopstest.Region) {
	s.Helper()
	s.secret("the plaintext", plaintext)
	s.secret("the message", message)
	s.useKeys(r, "")
}

// useKeys goes through the data plane. failing names the token's operation that fails; then
// every answer may be an error.
func (s *spill) useKeys(r *keyopstest.Region, failing string) {
	s.Helper()
	ctx, admin := context.Background(), keyopstest.Admin
	kept := func(name string, b []byte, err error) []byte {
		s.said(err)
		switch {
		case err == nil:
			s.secret(name, b)
		case failing == "":
			s.Fatalf("%s: %v", name, err)
		}
		return b
	}
	refused := func(what string, err error) {
		if s.said(err); err == nil {
			s.Errorf("%s: no error", what)
		}
	}
	keys := s.makeKeys(r)
	sealed, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: keys.aes, Plaintext: plaintext, EncryptionContext: notSecret})
	kept("a ciphertext", sealed.CiphertextBlob, err)
	opened, err := r.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: notSecret})
	kept("the decrypted plaintext", opened.Plaintext, err)
	dataKey, err := r.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: keys.aes, NumberOfBytes: 48, EncryptionContext: notSecret})
	kept("a data key", dataKey.Plaintext, err)
	kept("an encrypted data key", dataKey.CiphertextBlob, err)
	random, err := r.GenerateRandom(ctx, admin(), keyops.GenerateRandomInput{NumberOfBytes: 48})
	kept("random bytes", random.Plaintext, err)
	mac, err := r.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: keys.mac, Message: message, MacAlgorithm: keyops.AlgorithmHMACSHA256})
	kept("a MAC", mac.Mac, err)
	signature, err := r.Sign(ctx, admin(), keyops.SignInput{KeyID: keys.ec, Message: message, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
	kept("a signature", signature.Signature, err)

	// The same secrets, in calls that fail.
	_, err = r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: keys.aes, Plaintext: bytes.Repeat(plaintext, 200)})
	refused("too long a plaintext", err)
	_, err = r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: keys.mac, Plaintext: plaintext})
	refused("a plaintext for a MAC key", err)
	_, err = r.Encrypt(ctx, keyopstest.User("mallory"), keyops.EncryptInput{KeyID: keys.aes, Plaintext: plaintext})
	refused("a plaintext of a stranger", err)
	_, err = r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: "alias/none", Plaintext: plaintext})
	refused("a plaintext for no key", err)
	tampered := bytes.Clone(sealed.CiphertextBlob)
	if len(tampered) > 0 {
		tampered[len(tampered)-1] ^= 1
	}
	_, err = r.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: tampered, EncryptionContext: notSecret})
	refused("a changed ciphertext", err)
	_, err = r.Decrypt(ctx, admin(), keyops.DecryptInput{CiphertextBlob: plaintext})
	refused("a plaintext as ciphertext", err)
	_, err = r.VerifyMac(ctx, admin(), keyops.VerifyMacInput{KeyID: keys.mac, Message: message, Mac: bytes.Repeat([]byte("PLANTED!"), 4), MacAlgorithm: keyops.AlgorithmHMACSHA256})
	refused("a wrong MAC", err)
	_, err = r.Sign(ctx, admin(), keyops.SignInput{KeyID: keys.ec, Message: message, MessageType: "DIGEST", SigningAlgorithm: keyops.AlgorithmECDSASHA256})
	refused("a message as digest", err)
	_, err = r.Verify(ctx, admin(), keyops.VerifyInput{KeyID: keys.ec, Message: message, Signature: plaintext, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
	refused("a wrong signature", err)
}

// makeKeys makes the keys of a Region once; they are dear on a real token.
func (s *spill) makeKeys(r *keyopstest.Region) madeKeys {
	s.Helper()
	make := func(alias string, spec keyops.KeySpec, usage keyops.KeyUsage) string {
		name := "alias/" + alias
		if _, err := r.DescribeKey(context.Background(), keyopstest.Admin(), keyops.DescribeKeyInput{KeyID: name}); err == nil {
			return name
		}
		out, err := r.CreateKey(context.Background(), keyopstest.Admin(), keyops.CreateKeyInput{KeySpec: spec, KeyUsage: usage})
		if err != nil {
			s.Fatal(err)
		}
		if _, err := r.CreateAlias(context.Background(), keyopstest.Admin(), keyops.CreateAliasInput{AliasName: name, TargetKeyID: string(out.KeyMetadata.KeyID)}); err != nil {
			s.Fatal(err)
		}
		return name
	}
	return madeKeys{
		aes: make("aes", keyops.SymmetricDefault, keyops.EncryptDecrypt),
		mac: make("mac", keyops.HMAC256, keyops.GenerateVerifyMac),
		ec:  make("ec", keyops.ECCNISTP256, keyops.SignVerify),
	}
}
