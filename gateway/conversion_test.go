package gateway_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/keyferry/keyferry/keyops/keyopstest"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// TestOnlyCreateKeySaysMultiRegion: no other request has a word by which a key could become
// a multi-Region key, or cease to be one.
func TestOnlyCreateKeySaysMultiRegion(t *testing.T) {
	found := 0
	services := kmsv1.File_keyferry_kms_v1_key_service_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			in := methods.Get(j).Input()
			for k := range in.Fields().Len() {
				name := string(in.Fields().Get(k).Name())
				if !strings.Contains(name, "multi_region") && !strings.Contains(name, "origin") {
					continue
				}
				found++
				if in.Name() != protoreflect.Name("CreateKeyRequest") {
					t.Errorf("%s has a field %s", in.Name(), name)
				}
			}
		}
	}
	if found != 2 {
		t.Errorf("%d fields say multi-Region or origin, want those two of CreateKey", found)
	}
}

// TestNoConversion tries every field and method by which a key might become a multi-Region
// key, or cease to be one. Each is refused, and the key is what it was.
func TestNoConversion(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Identities: aliceMayAll})
	s := serveRegion(t, r, nil)
	keys := kmsv1.NewKeyServiceClient(s.grpc)
	made := func(multi bool) *kmsv1.KeyMetadata {
		out, err := keys.CreateKey(context.Background(), &kmsv1.CreateKeyRequest{MultiRegion: multi})
		must(t, err)
		return out.GetKeyMetadata()
	}
	single, multi := made(false), made(true)
	asMulti := "mrk-" + strings.ReplaceAll(single.GetKeyId(), "-", "")
	hex := strings.TrimPrefix(multi.GetKeyId(), "mrk-")
	asSingle := hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:]

	for _, tc := range []struct {
		name, verb, path, body string
		reason                 string // empty: refused before it is an operation of a key
	}{
		{"replicate a single-Region key", "POST", "/v1/keys/" + single.GetKeyId() + ":replicate", `{"replicaRegion":"us-east-1"}`, "UnsupportedOperationException"},
		{"promote a single-Region key", "POST", "/v1/keys/" + single.GetKeyId() + ":updatePrimaryRegion", `{"primaryRegion":"us-east-1"}`, "UnsupportedOperationException"},
		{"a multi-Region name for it", "GET", "/v1/keys/" + asMulti, "", "NotFoundException"},
		{"a single-Region name for the other", "GET", "/v1/keys/" + asSingle, "", "NotFoundException"},
		{"delete by the other name", "POST", "/v1/keys/" + asSingle + ":scheduleDeletion", `{}`, "NotFoundException"},
		{"describe with a field", "PATCH", "/v1/keys/" + single.GetKeyId(), `{"description":"x","multiRegion":true}`, ""},
		{"back with a field", "PATCH", "/v1/keys/" + multi.GetKeyId(), `{"description":"x","multiRegion":false}`, ""},
		{"enable with a field", "POST", "/v1/keys/" + single.GetKeyId() + ":enable", `{"multiRegion":true}`, ""},
		{"rotate with a field", "POST", "/v1/keys/" + multi.GetKeyId() + ":rotate", `{"multiRegion":false}`, ""},
		{"a tag is no switch", "POST", "/v1/keys/" + single.GetKeyId() + ":tag", `{"tags":[{"tagKey":"aws:multiRegion","tagValue":"true"}]}`, "TagException"},
		{"in the query", "GET", "/v1/keys/" + single.GetKeyId() + "?multiRegion=true", "", ""},
		{"an ID of the caller's", "POST", "/v1/keys", `{"keyId":"` + multi.GetKeyId() + `"}`, ""},
		{"a configuration of the caller's", "POST", "/v1/keys", `{"multiRegionConfiguration":{"multiRegionKeyType":"REPLICA"}}`, ""},
		{"import into a key that was made here", "POST", "/v1/keys/" + multi.GetKeyId() + "/import-parameters", `{"wrappingAlgorithm":"RSAES_OAEP_SHA_256","wrappingKeySpec":"RSA_2048"}`, "UnsupportedOperationException"},
		{"delete the material of a key that was made here", "POST", "/v1/keys/" + multi.GetKeyId() + ":deleteMaterial", `{}`, "UnsupportedOperationException"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			head := r.StoreHead()
			got := s.do(tc.verb, tc.path, tc.body, nil)
			if got.code < 400 || got.code >= 500 || tc.reason != "" && got.reason() != tc.reason {
				t.Errorf("%d %s, want %s", got.code, got.body, tc.reason)
			}
			if r.StoreHead() != head {
				t.Error("it changed the store")
			}
			for _, k := range []*kmsv1.KeyMetadata{single, multi} {
				var shown struct{ KeyMetadata map[string]any }
				must(t, json.Unmarshal([]byte(s.get("/v1/keys/"+k.GetKeyId()).body), &shown))
				if m := shown.KeyMetadata; m["multiRegion"] != k.GetMultiRegion() || m["keyState"] != "Enabled" || m["exportability"] != k.GetExportability().String() || m["description"] != "" {
					t.Errorf("the key is now %v", m)
				}
			}
		})
	}
}
