package gateway_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/keyferry/keyferry/gateway"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// FuzzBody demands that strict reading takes nothing that protojson would not take, reads it
// alike, and never takes what the path has said already.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"keyId":"a","plaintext":"AA=="}`, `{"key_id":"a","keyId":"b"}`, `{"encryptionContext":{"a":"b","a":"c"}}`,
		`{"keyId":"a"} {}`, `{"keyId":"\ud800"}`, `null`, `{"encryptionContext":{"":""},"dryRun":true}`, "{\"keyId\":\"\xff\"}", `{"keyId"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var strict, plain kmsv1.EncryptRequest
		if gateway.UnmarshalStrict(body, &strict, nil) != nil {
			return
		}
		if err := protojson.Unmarshal(body, &plain); err != nil {
			t.Fatalf("took %q, which protojson refuses: %v", body, err)
		}
		if !proto.Equal(&strict, &plain) {
			t.Fatalf("read %q as %v", body, &strict)
		}
		if strict.GetKeyId() != "" && gateway.UnmarshalStrict(body, new(kmsv1.EncryptRequest), map[string]string{"key_id": "x"}) == nil {
			t.Fatalf("took a key ID twice in %q", body)
		}
	})
}
