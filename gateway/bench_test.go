package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// bareService does the token operation and nothing else: no policy, no audit, no state.
type bareService struct {
	kmsv1.UnimplementedCryptoServiceServer
	encrypt func(context.Context, []byte) ([]byte, error)
}

func (s bareService) Encrypt(ctx context.Context, r *kmsv1.EncryptRequest) (*kmsv1.EncryptResponse, error) {
	sealed, err := s.encrypt(ctx, r.GetPlaintext())
	return &kmsv1.EncryptResponse{CiphertextBlob: sealed}, err
}

// BenchmarkEncrypt compares, in one run on SoftHSM, what an encryption of 64 bytes costs: in
// the bare token by one goroutine, through a mutual-TLS gRPC server that does nothing else,
// and through the full service with policies, audit and states, at 1 and 16 calls in flight.
func BenchmarkEncrypt(b *testing.B) {
	region, token := realRegion(b, keyopstest.Options{Identities: aliceMayAll, Flush: time.Second})
	encrypt := bareEncrypt(b, token)

	ca := newAuthority(b)
	alice := ca.trusting(ca.issue(aliceURI, nil))
	bare := dialBench(b, alice, serveBare(b, ca, encrypt))
	full := dialBench(b, alice, serveFull(b, ca, region))
	created, err := kmsv1.NewKeyServiceClient(full).CreateKey(b.Context(), &kmsv1.CreateKeyRequest{})
	if err != nil {
		b.Fatal(err)
	}
	keyID := created.GetKeyMetadata().GetKeyId()

	plaintext := make([]byte, 64)
	over := func(conn *grpc.ClientConn) func(context.Context) error {
		client := kmsv1.NewCryptoServiceClient(conn)
		return func(ctx context.Context) error {
			_, err := client.Encrypt(ctx, &kmsv1.EncryptRequest{KeyId: keyID, Plaintext: plaintext})
			return err
		}
	}
	rows := []struct {
		name     string
		inFlight int
		call     func(context.Context) error
	}{
		{"token", 1, func(ctx context.Context) error { _, err := encrypt(ctx, plaintext); return err }},
		{"bare gRPC", 1, over(bare)},
		{"service", 1, over(full)},
		{"bare gRPC", 16, over(bare)},
		{"service", 16, over(full)},
	}
	perSecond := map[string]float64{}
	for _, row := range rows {
		name := fmt.Sprintf("%s/%d", row.name, row.inFlight)
		b.Run(name, func(b *testing.B) {
			began := time.Now()
			inFlight(b, row.inFlight, row.call)
			perSecond[name] = float64(b.N) / time.Since(began).Seconds()
			b.ReportMetric(perSecond[name], "op/s")
			for unit, beside := range map[string]string{"of-token": "token/1", "of-bare-gRPC": fmt.Sprintf("bare gRPC/%d", row.inFlight)} {
				if perSecond[beside] > 0 && beside != name {
					b.ReportMetric(perSecond[name]/perSecond[beside], unit)
				}
			}
		})
	}
}

// BenchmarkDecryptFailure compares what a client sees of the time of decryptions that fail in
// the token with that of one that succeeds: median over median, 1 for no difference. The
// token's module sets these times, so they are figures and no test has a bound for them. The
// kinds take turns, so that a machine that slows down does so for all of them.
func BenchmarkDecryptFailure(b *testing.B) {
	region, _ := realRegion(b, keyopstest.Options{Identities: aliceMayAll, Flush: time.Second})
	ca := newAuthority(b)
	conn := dialBench(b, ca.trusting(ca.issue(aliceURI, nil)), serveFull(b, ca, region))
	created, err := kmsv1.NewKeyServiceClient(conn).CreateKey(b.Context(), &kmsv1.CreateKeyRequest{})
	if err != nil {
		b.Fatal(err)
	}
	client := kmsv1.NewCryptoServiceClient(conn)
	prod := map[string]string{"env": "prod"}
	for _, size := range []int{64, 4096} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			sealed, err := client.Encrypt(b.Context(), &kmsv1.EncryptRequest{
				KeyId: created.GetKeyMetadata().GetKeyId(), Plaintext: make([]byte, size), EncryptionContext: prod,
			})
			if err != nil {
				b.Fatal(err)
			}
			blob := sealed.GetCiphertextBlob()
			const tag = 16
			kinds := []struct {
				name    string
				blob    []byte
				context map[string]string
				code    codes.Code
			}{
				{"success", blob, prod, codes.OK},
				{"wrong-tag", flipped(blob, len(blob)-1), prod, codes.InvalidArgument},
				{"wrong-text", flipped(blob, len(blob)-tag-1), prod, codes.InvalidArgument},
				{"wrong-context", blob, map[string]string{"env": "test"}, codes.InvalidArgument},
			}
			took := make([][]time.Duration, len(kinds))
			for b.Loop() {
				for i, kind := range kinds {
					began := time.Now()
					_, err := client.Decrypt(b.Context(), &kmsv1.DecryptRequest{CiphertextBlob: kind.blob, EncryptionContext: kind.context})
					took[i] = append(took[i], time.Since(began))
					if status.Code(err) != kind.code {
						b.Fatalf("%s: got %v, want %v", kind.name, err, kind.code)
					}
				}
			}
			success := median(took[0])
			b.ReportMetric(float64(success.Microseconds()), "us/success")
			for i, kind := range kinds[1:] {
				b.ReportMetric(float64(median(took[i+1]))/float64(success), kind.name+"/success")
			}
		})
	}
}

// flipped returns a copy with one bit of one byte changed.
func flipped(blob []byte, at int) []byte {
	blob = slices.Clone(blob)
	blob[at] ^= 1
	return blob
}

func median(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}

// inFlight makes b.N calls, n of them at a time.
func inFlight(b *testing.B, n int, call func(context.Context) error) {
	work := make(chan struct{})
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			for range work {
				if err := call(b.Context()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	workers.Wait()
}

// bareEncrypt makes a key in the token and returns its use.
func bareEncrypt(b *testing.B, token *hsm.Token) func(context.Context, []byte) ([]byte, error) {
	b.Helper()
	id := hsm.NewID()
	spec := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "bench/-"}
	if _, err := token.Generate(b.Context(), spec, id); err != nil {
		b.Fatal(err)
	}
	aad := make([]byte, 66)
	return func(ctx context.Context, plaintext []byte) ([]byte, error) {
		_, sealed, err := token.EncryptGCM(ctx, id, aad, plaintext)
		return sealed, err
	}
}

// serveBare serves with the same TLS and no interceptors.
func serveBare(b *testing.B, ca *authority, encrypt func(context.Context, []byte) ([]byte, error)) string {
	b.Helper()
	files := ca.files()
	cert, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientCAs: ca.trusting().RootCAs, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	kmsv1.RegisterCryptoServiceServer(server, bareService{encrypt: encrypt})
	go server.Serve(listener) //nolint:errcheck // ends with the benchmark
	b.Cleanup(server.Stop)
	return listener.Addr().String()
}

// serveFull serves the whole Region.
func serveFull(b *testing.B, ca *authority, region *keyopstest.Region) string {
	b.Helper()
	server, err := gateway.New(gateway.Config{
		GRPCAddress: "127.0.0.1:0", TLS: ca.files(),
		Principals: []gateway.Rule{{SPIFFE: aliceURI, Principal: "arn:aws:iam::111122223333:user/alice"}},
		Region:     "eu-paris-1",
		Keys:       region.Service,
		Limits:     gateway.Limits{Rates: gateway.Rates{Crypto: gateway.Rate{Account: 1e9, Principal: 1e9}}},
		Health:     func(context.Context) error { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return server.GRPCAddr().String()
}

func dialBench(b *testing.B, c *tls.Config, address string) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}
