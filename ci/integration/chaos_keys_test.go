package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// chaosKey is a key. A call that got no answer may have been carried out all the same.
type chaosKey struct {
	id      string
	kind    *chaosKind
	primary string          // where the primary key was when somebody last asked
	members map[string]bool // Regions in which there is to be a replica, as somebody was told
	usable  map[string]bool // Regions that have had it enabled, and must go on with it
	unsure  bool            // a Region may not know that it is not waited for
}

// proof is a ciphertext, a MAC or a signature that a Region has answered with: from then on
// every Region must take it, for ever.
type proof struct {
	key    *chaosKey
	region string
	text   []byte
	made   []byte
}

// chaosKind is what is done with one kind of key.
type chaosKind struct {
	name    string
	create  []string
	rotates bool
	make    func(ctx context.Context, c kmsv1.CryptoServiceClient, key string, text []byte) ([]byte, error)
	open    func(ctx context.Context, c kmsv1.CryptoServiceClient, p proof) error
}

var errOther = errors.New("it opens to something else")

// chaosKinds has symmetric keys twice, since those rotate.
var chaosKinds = []*chaosKind{encryption, {
	name: "MAC", create: []string{"--spec", "HMAC_256"},
	make: func(ctx context.Context, c kmsv1.CryptoServiceClient, key string, text []byte) ([]byte, error) {
		out, err := c.GenerateMac(ctx, &kmsv1.GenerateMacRequest{KeyId: key, Message: text, MacAlgorithm: "HMAC_SHA_256"})
		return out.GetMac(), err
	},
	open: func(ctx context.Context, c kmsv1.CryptoServiceClient, p proof) error {
		_, err := c.VerifyMac(ctx, &kmsv1.VerifyMacRequest{KeyId: p.key.id, Message: p.text, Mac: p.made, MacAlgorithm: "HMAC_SHA_256"})
		return err
	},
}, signatures("EC signature", "ECC_NIST_P256", "ECDSA_SHA_256"), signatures("RSA signature", "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256"), encryption}

var encryption = &chaosKind{
	name: "ciphertext", rotates: true,
	make: func(ctx context.Context, c kmsv1.CryptoServiceClient, key string, text []byte) ([]byte, error) {
		out, err := c.Encrypt(ctx, &kmsv1.EncryptRequest{KeyId: key, Plaintext: text})
		return out.GetCiphertextBlob(), err
	},
	open: func(ctx context.Context, c kmsv1.CryptoServiceClient, p proof) error {
		out, err := c.Decrypt(ctx, &kmsv1.DecryptRequest{CiphertextBlob: p.made})
		if err == nil && !bytes.Equal(out.GetPlaintext(), p.text) {
			return errOther
		}
		return err
	},
}

// signatures verifies with a key pair, and signs again in the other Region when the algorithm
// has one signature for a message.
func signatures(name, spec, algorithm string) *chaosKind {
	sign := func(ctx context.Context, c kmsv1.CryptoServiceClient, key string, text []byte) ([]byte, error) {
		out, err := c.Sign(ctx, &kmsv1.SignRequest{KeyId: key, Message: text, SigningAlgorithm: algorithm})
		return out.GetSignature(), err
	}
	return &chaosKind{
		name: name, create: []string{"--spec", spec, "--usage", "SIGN_VERIFY"}, make: sign,
		open: func(ctx context.Context, c kmsv1.CryptoServiceClient, p proof) error {
			_, err := c.Verify(ctx, &kmsv1.VerifyRequest{KeyId: p.key.id, Message: p.text, Signature: p.made, SigningAlgorithm: algorithm})
			if err != nil || !strings.HasPrefix(algorithm, "RSASSA_PKCS1") {
				return err
			}
			again, err := sign(ctx, c, p.key.id, p.text)
			if err == nil && !bytes.Equal(again, p.made) {
				return errOther
			}
			return err
		},
	}
}

// forged reports whether a Region says that something was never made with the key.
func forged(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			switch info.GetReason() {
			case "InvalidCiphertextException", "KMSInvalidMacException", "KMSInvalidSignatureException":
				return true
			}
		}
	}
	return errors.Is(err, errOther)
}

// make has a Region make something with a key.
func (c *chaos) make(region string, k *chaosKey, text []byte) (proof, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	made, err := k.kind.make(ctx, c.crypto[region], k.id, text)
	return proof{k, region, text, made}, err
}

// open has a Region take what another has made.
func (c *chaos) open(region string, p proof) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.key.kind.open(ctx, c.crypto[region], p)
}

// prove keeps what a Region makes with a key. One that has had the key in use does not refuse.
func (c *chaos) prove(t *testing.T, k *chaosKey, region string) error {
	t.Helper()
	p, err := c.make(region, k, fmt.Appendf(nil, "record %d", len(c.proofs)))
	if err == nil {
		c.proofs = append(c.proofs, p)
	} else if k.usable[region] {
		t.Errorf("%s does not use %s, %s: %v", region, k.id, k.kind.name, err)
	}
	return err
}

// look hands the newest proofs to a Region. It may be unable to open one, but not see another
// text, nor deny that a key made what it has made, unless it has yet to get that key.
func (c *chaos) look(t *testing.T, region string) {
	t.Helper()
	for _, p := range c.proofs[max(0, len(c.proofs)-4):] {
		err := c.open(region, p)
		sure := p.key.usable[region] && !p.key.unsure
		if errors.Is(err, errOther) || sure && forged(err) {
			t.Errorf("%s does not take what %s made with %s, %s: %v", region, p.region, p.key.id, p.key.kind.name, err)
		}
	}
}

// users use a key in some Regions, one in each, until they are stopped.
type users struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	calls int
	made  []proof // the first and the last in each Region
	err   error   // the first failure
}

func (c *chaos) use(t *testing.T, k *chaosKey, in []string) *users {
	ctx, cancel := context.WithCancel(context.Background())
	u := &users{cancel: cancel}
	t.Cleanup(func() { u.cancel(); u.wg.Wait() })
	for _, r := range in {
		u.wg.Go(func() {
			var first, last proof
			for n := 0; ctx.Err() == nil; n++ {
				p, err := c.make(r, k, fmt.Appendf(nil, "used in %s, %d", r, n))
				if err == nil {
					err = c.open(r, p)
				}
				u.mu.Lock()
				u.calls++
				if err != nil && u.err == nil {
					u.err = fmt.Errorf("%s with %s in %s: %w", k.kind.name, k.id, r, err)
				}
				u.mu.Unlock()
				if err != nil {
					break
				}
				if n == 0 {
					first = p
				}
				last = p
				time.Sleep(20 * time.Millisecond) // leaves the machine to the daemons
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			for _, p := range []proof{first, last} {
				if p.made != nil {
					u.made = append(u.made, p)
				}
			}
		})
	}
	return u
}

// stop ends them and returns what they made. There is no excuse for a failure: the Regions
// were up, and needed nobody.
func (u *users) stop(t *testing.T) []proof {
	t.Helper()
	u.cancel()
	u.wg.Wait()
	if u.err != nil {
		t.Errorf("a Region that is up failed: %v", u.err)
	}
	return u.made
}
