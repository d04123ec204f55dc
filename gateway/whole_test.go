package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

const aliceMayAll = `{"Version": "2012-10-17", "Statement": [{"Sid": "alice", "Effect": "Allow",
  "Principal": {"AWS": "arn:aws:iam::111122223333:user/alice"}, "Action": "kms:*", "Resource": "*"}]}`

// serveRegion puts a gateway before a whole Region: keyops, policies, store and audit log.
func serveRegion(t *testing.T, r *keyopstest.Region, change func(*gateway.Config)) *served {
	t.Helper()
	s := &served{t: t}
	return s.start(r.Service, func(c *gateway.Config) {
		c.Health = func(ctx context.Context) error { _, err := r.Token.Random(ctx, 1); return err }
		if change != nil {
			change(c)
		}
	})
}

func TestWholeServiceOnTheFake(t *testing.T) {
	wholeService(t, keyopstest.New(t, keyopstest.Options{Identities: aliceMayAll}))
}

func TestWholeServiceOnSoftHSM(t *testing.T) {
	r, _ := realRegion(t, keyopstest.Options{Identities: aliceMayAll})
	wholeService(t, r)
}

// wholeService uses every RPC as a client would, half of them by REST, and then demands that
// the audit log has a record of each under the request ID that the client was told.
func wholeService(t *testing.T, r *keyopstest.Region) {
	s := serveRegion(t, r, func(c *gateway.Config) { c.Replication = replicas{} })
	ctx := context.Background()
	events := map[string]string{} // request ID → operation
	keys, crypto := kmsv1.NewKeyServiceClient(s.grpc), kmsv1.NewCryptoServiceClient(s.grpc)
	note := func(operation string, header metadata.MD) {
		t.Helper()
		id := header.Get("x-request-id")
		if len(id) != 1 || events[id[0]] != "" {
			t.Fatalf("%s has request IDs %v", operation, id)
		}
		events[id[0]] = operation
	}
	rest := func(operation, verb, path, body string, code int) map[string]any {
		t.Helper()
		resp := s.do(verb, path, body, nil)
		if resp.code != code {
			t.Fatalf("%s: got %d %s, want %d", operation, resp.code, resp.body, code)
		}
		events[resp.header.Get("X-Request-Id")] = operation
		var out map[string]any
		must(t, json.Unmarshal([]byte(resp.body), &out))
		return out
	}
	var h metadata.MD

	created, err := keys.CreateKey(ctx, &kmsv1.CreateKeyRequest{MultiRegion: true, Tags: []*kmsv1.Tag{{TagKey: "team", TagValue: "pay"}}}, grpc.Header(&h))
	must(t, err)
	note("CreateKey", h)
	meta := created.GetKeyMetadata()
	if meta.GetKeyState() != "Enabled" || !strings.HasPrefix(meta.GetKeyId(), "mrk-") || len(meta.GetCurrentKeyMaterialId()) != 64 ||
		meta.GetExportability() != kmsv1.Exportability_EXPORTABILITY_TRANSPORT_ONLY || meta.GetMultiRegionConfiguration().GetMultiRegionKeyType() != "PRIMARY" {
		t.Errorf("created %v", meta)
	}
	rest("CreateAlias", "POST", "/v1/alias/payroll", `{"targetKeyId":"`+meta.GetKeyId()+`"}`, 200)
	shown := rest("DescribeKey", "GET", "/v1/alias/payroll", "", 200)["keyMetadata"].(map[string]any)
	if shown["arn"] != meta.GetArn() || shown["exportability"] != "EXPORTABILITY_TRANSPORT_ONLY" || shown["multiRegion"] != true {
		t.Errorf("REST describes %v", shown)
	}

	// What gRPC encrypts REST decrypts, byte for byte.
	plaintext := []byte{0, 1, 255, '\n'}
	sealed, err := crypto.Encrypt(ctx, &kmsv1.EncryptRequest{KeyId: "alias/payroll", Plaintext: plaintext, EncryptionContext: map[string]string{"env": "prod"}}, grpc.Header(&h))
	must(t, err)
	note("Encrypt", h)
	blob := base64.StdEncoding.EncodeToString(sealed.GetCiphertextBlob())
	opened := rest("Decrypt", "POST", "/v1/decrypt", `{"ciphertextBlob":"`+blob+`","encryptionContext":{"env":"prod"}}`, 200)
	if got, _ := base64.StdEncoding.DecodeString(opened["plaintext"].(string)); !bytes.Equal(got, plaintext) {
		t.Errorf("opened %v", opened)
	}
	rest("Decrypt", "POST", "/v1/decrypt", `{"ciphertextBlob":"`+blob+`","encryptionContext":{"env":"test"}}`, 400)
	rest("GenerateDataKey", "POST", "/v1/generate-data-key", `{"keyId":"alias/payroll","keySpec":"AES_256"}`, 200)
	rest("GenerateDataKeyWithoutPlaintext", "POST", "/v1/generate-data-key-without-plaintext", `{"keyId":"alias/payroll","numberOfBytes":3}`, 200)
	rest("GenerateRandom", "POST", "/v1/generate-random", `{"numberOfBytes":16}`, 200)
	useDataKeyPairs(t, blob, rest)

	mac := rest("CreateKey", "POST", "/v1/keys", `{"keySpec":"HMAC_256","keyUsage":"GENERATE_VERIFY_MAC"}`, 200)["keyMetadata"].(map[string]any)["keyId"].(string)
	made := rest("GenerateMac", "POST", "/v1/generate-mac", `{"keyId":"`+mac+`","message":"aGk=","macAlgorithm":"HMAC_SHA_256"}`, 200)
	rest("VerifyMac", "POST", "/v1/verify-mac", fmt.Sprintf(`{"keyId":%q,"message":"aGk=","macAlgorithm":"HMAC_SHA_256","mac":%q}`, mac, made["mac"]), 200)
	rest("VerifyMac", "POST", "/v1/verify-mac", fmt.Sprintf(`{"keyId":%q,"message":"aG8=","macAlgorithm":"HMAC_SHA_256","mac":%q}`, mac, made["mac"]), 400)

	pair := rest("CreateKey", "POST", "/v1/keys", `{"keySpec":"ECC_NIST_P256","keyUsage":"SIGN_VERIFY","multiRegion":true}`, 200)["keyMetadata"].(map[string]any)["keyId"].(string)
	signed, err := crypto.Sign(ctx, &kmsv1.SignRequest{KeyId: pair, Message: []byte("hi"), SigningAlgorithm: "ECDSA_SHA_256"}, grpc.Header(&h))
	must(t, err)
	note("Sign", h)
	rest("Verify", "POST", "/v1/verify", fmt.Sprintf(`{"keyId":%q,"message":"aGk=","signingAlgorithm":"ECDSA_SHA_256","signature":%q}`,
		pair, base64.StdEncoding.EncodeToString(signed.GetSignature())), 200)
	public, err := crypto.GetPublicKey(ctx, &kmsv1.GetPublicKeyRequest{KeyId: pair}, grpc.Header(&h))
	must(t, err)
	note("GetPublicKey", h)
	spki, err := x509.ParsePKIXPublicKey(public.GetPublicKey())
	must(t, err)
	digest := sha256.Sum256([]byte("hi"))
	if !ecdsa.VerifyASN1(spki.(*ecdsa.PublicKey), digest[:], signed.GetSignature()) {
		t.Error("Go's own verification refuses the signature")
	}

	if got := rest("ListKeys", "GET", "/v1/keys?limit=2", "", 200); len(got["keys"].([]any)) != 2 || got["truncated"] != true {
		t.Errorf("listed %v", got)
	}
	rest("ListAliases", "GET", "/v1/keys/"+meta.GetKeyId()+"/aliases", "", 200)
	rest("GetKeyPolicy", "GET", "/v1/keys/"+meta.GetKeyId()+"/policy", "", 200)
	rest("DescribeKey", "GET", "/v1/keys/"+meta.GetKeyId()+"/replicas", "", 200)
	if got := rest("DescribeRegion", "GET", "/v1/region", "", 200); got["region"] != "eu-paris-1" || got["boundary"] != "BOUNDARY_API_ONLY" || len(got["keySpecs"].([]any)) == 0 {
		t.Errorf("the Region is %v", got)
	}
	rest("GetCallerIdentity", "GET", "/v1/whoami", "", 200)
	rest("DescribeRegion", "GET", "/v1/peers", "", 200)
	rest("ReplicateKey", "POST", "/v1/keys/"+meta.GetKeyId()+":replicate", `{"replicaRegion":"us-east-1"}`, 400)
	rest("UpdatePrimaryRegion", "POST", "/v1/keys/"+meta.GetKeyId()+":updatePrimaryRegion", `{"primaryRegion":"us-east-1"}`, 400)
	for _, operation := range []string{"promote", "suspendReplica", "evictReplica"} { // of a Region without peers
		name := map[string]string{"promote": "PromoteKey", "suspendReplica": "SuspendReplica", "evictReplica": "EvictReplica"}[operation]
		body, code := `{"replicaRegion":"us-east-1"}`, 400
		if operation == "promote" {
			body, code = `{"suspendRegions":["us-east-1"]}`, 403
		}
		rest(name, "POST", "/v1/keys/"+meta.GetKeyId()+":"+operation, body, code)
	}
	rest("WriteOffKeyMaterial", "POST", "/v1/keys/"+meta.GetKeyId()+":writeOffMaterial", `{"keyMaterialId":"`+strings.Repeat("0", 64)+`"}`, 400)
	second := rest("CreateKey", "POST", "/v1/keys", `{}`, 200)["keyMetadata"].(map[string]any)["keyId"].(string)
	rest("UpdateAlias", "PATCH", "/v1/alias/payroll", `{"targetKeyId":"`+second+`"}`, 200)
	rest("DisableKey", "POST", "/v1/keys/"+second+":disable", "", 200)
	rest("Encrypt", "POST", "/v1/encrypt", `{"keyId":"alias/payroll","plaintext":"AA=="}`, 400)
	rest("EnableKey", "POST", "/v1/keys/"+second+":enable", "", 200)
	rest("DeleteAlias", "DELETE", "/v1/alias/payroll", "", 200)
	useAccess(t, s, second, note, rest)
	useLife(t, second, rest)
	useImport(t, s, rest)
	useSynchronization(t, rest)

	// Bob is somebody, and may nothing any more; what does not exist looks to him like what does.
	bob := kmsv1.NewCryptoServiceClient(s.dial(s.ca.trusting(s.ca.issue("spiffe://test.example/user/bob", nil))))
	_, err = bob.Decrypt(ctx, &kmsv1.DecryptRequest{CiphertextBlob: sealed.GetCiphertextBlob()}, grpc.Header(&h))
	if message := wantStatus(t, err, codes.PermissionDenied, "AccessDeniedException"); !strings.Contains(message, "user/bob") {
		t.Errorf("refused with %q", message)
	}
	note("Decrypt", h)
	if code := s.get("/readyz").code; code != http.StatusOK {
		t.Errorf("readyz answers %d", code)
	}
	s.halt()
	r.Stop()
	checkAudit(t, r.AuditDir, events)
}

// useDataKeyPairs makes key pairs, and seals a ciphertext of alias/payroll anew.
func useDataKeyPairs(t *testing.T, blob string, rest func(operation, verb, path, body string, code int) map[string]any) {
	t.Helper()
	decoded := func(answer map[string]any, field string) []byte {
		t.Helper()
		b, err := base64.StdEncoding.DecodeString(answer[field].(string))
		must(t, err)
		return b
	}
	opened := func(blob any, context string) []byte {
		t.Helper()
		return decoded(rest("Decrypt", "POST", "/v1/decrypt", fmt.Sprintf(`{"ciphertextBlob":%q,"encryptionContext":%s}`, blob, context), 200), "plaintext")
	}
	again := rest("ReEncrypt", "POST", "/v1/re-encrypt", fmt.Sprintf(
		`{"ciphertextBlob":%q,"sourceEncryptionContext":{"env":"prod"},"destinationKeyId":"alias/payroll","destinationEncryptionContext":{"env":"test"}}`, blob), 200)
	if got := opened(again["ciphertextBlob"], `{"env":"test"}`); !bytes.Equal(got, []byte{0, 1, 255, '\n'}) {
		t.Errorf("sealed anew it holds %v", got)
	}
	const pair = `{"keyId":"alias/payroll","keyPairSpec":"ECC_NIST_P256","encryptionContext":{"env":"prod"}}`
	clear := rest("GenerateDataKeyPair", "POST", "/v1/generate-data-key-pair", pair, 200)
	if !bytes.Equal(opened(clear["privateKeyCiphertextBlob"], `{"env":"prod"}`), decoded(clear, "privateKeyPlaintext")) {
		t.Error("the private key is encrypted to something else")
	}
	sealed := rest("GenerateDataKeyPairWithoutPlaintext", "POST", "/v1/generate-data-key-pair-without-plaintext", pair, 200)
	private, err := x509.ParsePKCS8PrivateKey(opened(sealed["privateKeyCiphertextBlob"], `{"env":"prod"}`))
	must(t, err)
	public, err := x509.ParsePKIXPublicKey(decoded(sealed, "publicKey"))
	must(t, err)
	if !private.(*ecdsa.PrivateKey).PublicKey.Equal(public) {
		t.Error("the halves are of two pairs")
	}
	rest("DeriveSharedSecret", "POST", "/v1/derive-shared-secret", `{"keyId":"alias/payroll","keyAgreementAlgorithm":"ECDH","publicKey":"AA=="}`, 400)
}

// useSynchronization makes the instance a primary instance, which has nobody to supply.
func useSynchronization(t *testing.T, rest func(operation, verb, path, body string, code int) map[string]any) {
	t.Helper()
	made := rest("CreateSynchronization", "POST", "/v1/synchronizations", `{}`, 200)["synchronization"].(map[string]any)
	id, _ := made["synchronizationId"].(string)
	at := "/v1/synchronizations/" + id
	if got := rest("GetSynchronization", "GET", at, "", 200)["synchronization"].(map[string]any); got["role"] != "PRIMARY" || got["primaryRegion"] != "eu-paris-1" {
		t.Errorf("the synchronization is %v", got)
	}
	if got := rest("ListSynchronizations", "GET", "/v1/synchronizations", "", 200)["synchronizations"].([]any); len(got) != 1 {
		t.Errorf("listed %v", got)
	}
	rest("AssociateReplicaInstance", "POST", at+"/replicas", `{"replicaInstance":"us-east-1","synchronizationType":"ALL_RESOURCES"}`, 400)
	rest("DisassociateReplicaInstance", "POST", at+"/replicas/us-east-1:disassociate", `{"confirmInstanceId":"kfi-000000000000"}`, 404)
	rest("UpdateSynchronization", "PATCH", at+"/replicas/us-east-1", `{"removeResources":["x"]}`, 400)
	rest("ListReplicaResources", "GET", at+"/replicas/us-east-1/resources", "", 404)
	rest("ListSynchronizedResources", "GET", at+"/resources?status=FAILED", "", 200)
}

// useLife rotates a key and sends it to its grave, and back.
func useLife(t *testing.T, key string, rest func(operation, verb, path, body string, code int) map[string]any) {
	t.Helper()
	at := "/v1/keys/" + key
	sealed := rest("Encrypt", "POST", "/v1/encrypt", `{"keyId":"`+key+`","plaintext":"AA=="}`, 200)
	rest("EnableKeyRotation", "PUT", at+"/rotation", `{"rotationPeriodInDays":90}`, 200)
	status := rest("GetKeyRotationStatus", "GET", at+"/rotation", "", 200)
	if status["keyRotationEnabled"] != true || status["rotationPeriodInDays"] != 90.0 || status["nextRotationDate"] == nil {
		t.Errorf("rotation is %v", status)
	}
	rest("EnableKeyRotation", "PUT", at+"/rotation", `{"rotationPeriodInDays":89}`, 400)
	rest("DisableKeyRotation", "DELETE", at+"/rotation", "", 200)
	rest("RotateKeyOnDemand", "POST", at+":rotate", "", 200)
	all := rest("ListKeyRotations", "GET", at+"/rotations?includeKeyMaterial=ALL_KEY_MATERIAL", "", 200)["rotations"].([]any)
	if len(all) != 2 || all[1].(map[string]any)["rotationType"] != "ON_DEMAND" || all[1].(map[string]any)["keyMaterialState"] != "CURRENT" {
		t.Errorf("materials %v", all)
	}
	old := rest("Decrypt", "POST", "/v1/decrypt", fmt.Sprintf(`{"ciphertextBlob":%q}`, sealed["ciphertextBlob"]), 200)
	if old["plaintext"] != "AA==" || old["keyMaterialId"] != all[0].(map[string]any)["keyMaterialId"] {
		t.Errorf("old material opens %v", old)
	}
	if used := rest("GetKeyLastUsage", "GET", at+"/last-usage", "", 200)["keyLastUsage"].(map[string]any); used["operation"] != "Decrypt" || used["kmsRequestId"] == "" {
		t.Errorf("last used for %v", used)
	}

	rest("ScheduleKeyDeletion", "POST", at+":scheduleDeletion", `{"pendingWindowInDays":6}`, 400)
	dying := rest("ScheduleKeyDeletion", "POST", at+":scheduleDeletion", `{"pendingWindowInDays":7}`, 200)
	shown := rest("DescribeKey", "GET", at, "", 200)["keyMetadata"].(map[string]any)
	if dying["keyState"] != "PendingDeletion" || shown["keyState"] != "PendingDeletion" || shown["deletionDate"] != dying["deletionDate"] || dying["deletionDate"] == nil {
		t.Errorf("dying %v, shown %v", dying, shown)
	}
	rest("Encrypt", "POST", "/v1/encrypt", `{"keyId":"`+key+`","plaintext":"AA=="}`, 400)
	rest("CancelKeyDeletion", "POST", at+":cancelDeletion", "", 200)
	rest("CancelKeyDeletion", "POST", at+":cancelDeletion", "", 400)
	rest("EnableKey", "POST", at+":enable", "", 200)
}

// useImport brings a key's material, takes it away and brings it back.
func useImport(t *testing.T, s *served, rest func(operation, verb, path, body string, code int) map[string]any) {
	t.Helper()
	made := rest("CreateKey", "POST", "/v1/keys", `{"origin":"EXTERNAL"}`, 200)["keyMetadata"].(map[string]any)
	if made["keyState"] != "PendingImport" {
		t.Errorf("made %v", made)
	}
	at := "/v1/keys/" + made["keyId"].(string)
	material := bytes.Repeat([]byte{7}, 32)
	// wrapped is the body of an import but for its end.
	wrapped := func() string {
		p := rest("GetParametersForImport", "POST", at+"/import-parameters", `{"wrappingAlgorithm":"RSAES_OAEP_SHA_1","wrappingKeySpec":"RSA_2048"}`, 200)
		der, err := base64.StdEncoding.DecodeString(p["publicKey"].(string))
		must(t, err)
		public, err := x509.ParsePKIXPublicKey(der)
		must(t, err)
		blob, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), material, nil)
		must(t, err)
		return fmt.Sprintf(`{"importToken":%q,"encryptedKeyMaterial":%q`, p["importToken"], base64.StdEncoding.EncodeToString(blob))
	}
	body := wrapped()
	// What is no request has no record.
	if got := s.do("POST", at+":importMaterial", body+`,"validTo":"tomorrow"}`, nil); !strings.Contains(got.body, `field \"validTo\" is not a time such as 2026-01-31T12:00:00Z`) {
		t.Errorf("refused with %s", got.body)
	}
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	id := rest("ImportKeyMaterial", "POST", at+":importMaterial", body+`,"validTo":"`+end+`"}`, 200)["keyMaterialId"]
	shown := rest("DescribeKey", "GET", at, "", 200)["keyMetadata"].(map[string]any)
	if shown["keyState"] != "Enabled" || shown["validTo"] != end || shown["expirationModel"] != "KEY_MATERIAL_EXPIRES" || shown["currentKeyMaterialId"] != id {
		t.Errorf("imported, it is %v", shown)
	}
	sealed := rest("Encrypt", "POST", "/v1/encrypt", fmt.Sprintf(`{"keyId":%q,"plaintext":"AA=="}`, made["keyId"]), 200)
	if got := rest("DeleteImportedKeyMaterial", "POST", at+":deleteMaterial", "", 200); got["keyMaterialId"] != id {
		t.Errorf("deleted %v", got)
	}
	opening := fmt.Sprintf(`{"ciphertextBlob":%q}`, sealed["ciphertextBlob"])
	rest("Decrypt", "POST", "/v1/decrypt", opening, 400)
	again := rest("ImportKeyMaterial", "POST", at+":importMaterial", wrapped()+`,"expirationModel":"KEY_MATERIAL_DOES_NOT_EXPIRE"}`, 200)
	if got := rest("Decrypt", "POST", "/v1/decrypt", opening, 200); again["keyMaterialId"] != id || got["plaintext"] != "AA==" {
		t.Errorf("brought back as %v, it opens %v", again, got)
	}
}

const bobARN = "arn:aws:iam::111122223333:user/bob"

// useAccess uses what says who may do what: tags, the key policy, grants and explanations.
func useAccess(t *testing.T, s *served, key string, note func(string, metadata.MD), rest func(operation, verb, path, body string, code int) map[string]any) {
	ctx, keys := context.Background(), kmsv1.NewKeyServiceClient(s.grpc)
	bob := kmsv1.NewCryptoServiceClient(s.dial(s.ca.trusting(s.ca.issue("spiffe://test.example/user/bob", nil))))
	var h metadata.MD
	at := "/v1/keys/" + key

	rest("TagResource", "POST", at+":tag", `{"tags":[{"tagKey":"team","tagValue":"pay"},{"tagKey":"env","tagValue":"prod"}]}`, 200)
	rest("UntagResource", "POST", at+":untag", `{"tagKeys":["env"]}`, 200)
	if got := fmt.Sprint(rest("ListResourceTags", "GET", at+"/tags", "", 200)["tags"]); got != "[map[tagKey:team tagValue:pay]]" {
		t.Errorf("tags %s", got)
	}
	rest("UpdateKeyDescription", "PATCH", at, `{"description":"payroll"}`, 200)
	if got := rest("DescribeKey", "GET", at, "", 200)["keyMetadata"].(map[string]any)["description"]; got != "payroll" {
		t.Errorf("description %q", got)
	}
	if got := fmt.Sprint(rest("ListKeyPolicies", "GET", at+"/policies", "", 200)["policyNames"]); got != "[default]" {
		t.Errorf("policies %s", got)
	}
	document := rest("GetKeyPolicy", "GET", at+"/policy", "", 200)["policy"].(string) + "\n"
	_, err := keys.PutKeyPolicy(ctx, &kmsv1.PutKeyPolicyRequest{KeyId: key, Policy: document}, grpc.Header(&h))
	must(t, err)
	note("PutKeyPolicy", h)
	rest("PutKeyPolicy", "PUT", at+"/policy", `{"policy":"{}"}`, 400)

	made, err := keys.CreateGrant(ctx, &kmsv1.CreateGrantRequest{
		KeyId: key, GranteePrincipal: bobARN, RetiringPrincipal: bobARN, Operations: []string{"Encrypt"}, Name: "n",
		Constraints: &kmsv1.GrantConstraints{EncryptionContextSubset: map[string]string{"env": "prod"}},
	}, grpc.Header(&h))
	must(t, err)
	note("CreateGrant", h)
	again := rest("CreateGrant", "POST", at+"/grants",
		`{"granteePrincipal":"`+bobARN+`","retiringPrincipal":"`+bobARN+`","operations":["Encrypt"],"name":"n","constraints":{"encryptionContextSubset":{"env":"prod"}}}`, 200)
	if again["grantId"] != made.GetGrantId() || again["grantToken"] != made.GetGrantToken() {
		t.Errorf("the grant %v was made again as %v", made, again)
	}
	encrypt := &kmsv1.EncryptRequest{KeyId: key, Plaintext: []byte("x"), EncryptionContext: map[string]string{"env": "prod"}, GrantTokens: []string{made.GetGrantToken()}}
	_, err = bob.Encrypt(ctx, encrypt, grpc.Header(&h))
	must(t, err)
	note("Encrypt", h)
	listed := rest("ListGrants", "GET", at+"/grants?granteePrincipal="+bobARN, "", 200)["grants"].([]any)
	if len(listed) != 1 || fmt.Sprint(listed[0].(map[string]any)["constraints"]) != "map[encryptionContextEquals:map[] encryptionContextSubset:map[env:prod]]" {
		t.Errorf("grants %v", listed)
	}
	if got := rest("ListRetirableGrants", "GET", "/v1/retirable-grants?retiringPrincipal="+bobARN, "", 200)["grants"].([]any); len(got) != 1 {
		t.Errorf("retirable grants %v", got)
	}
	explained := rest("ExplainAccess", "POST", "/v1/explain-access",
		`{"principal":"`+bobARN+`","action":"kms:Encrypt","keyId":"`+key+`","encryptionContext":{"env":"prod"}}`, 200)
	decision := explained["decisions"].([]any)[0].(map[string]any)
	if explained["allowed"] != true || decision["reason"] != "GrantAllow" || decision["statement"] != `grant "`+made.GetGrantId()+`"` || len(decision["considered"].([]any)) < 2 {
		t.Errorf("explained as %v", explained)
	}
	rest("RetireGrant", "POST", "/v1/retire-grant", `{"grantToken":"`+made.GetGrantToken()+`"}`, 200)
	_, err = bob.Encrypt(ctx, encrypt, grpc.Header(&h))
	wantStatus(t, err, codes.InvalidArgument, "InvalidGrantTokenException")
	note("Encrypt", h)
	second := rest("CreateGrant", "POST", at+"/grants", `{"granteePrincipal":"`+bobARN+`","operations":["Encrypt"]}`, 200)["grantId"].(string)
	rest("RevokeGrant", "DELETE", at+"/grants/"+second+"?dryRun=true", "", 400)
	rest("RevokeGrant", "DELETE", at+"/grants/"+second, "", 200)
	rest("RevokeGrant", "DELETE", at+"/grants/"+second, "", 404)
}

// checkAudit demands an audit record for every call, which names the operation that the
// table of methods names, and a call of every operation.
func checkAudit(t *testing.T, dir string, events map[string]string) {
	t.Helper()
	actions := map[string]bool{"GetCallerIdentity": true, "ExplainAccess": true} // need no permission
	for name, row := range gateway.MethodRows() {
		if row.Action != "" {
			actions[operationOf(name)] = true
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	recorded := map[string]string{}
	for _, name := range files {
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var record struct{ Event, RequestID, SourceAddress, Principal string }
			must(t, json.Unmarshal(lines.Bytes(), &record))
			if record.RequestID != "" {
				recorded[record.RequestID] = record.Event
				if record.SourceAddress == "" || record.Principal == "" {
					t.Errorf("incomplete record %s", lines.Text())
				}
			}
		}
	}
	for id, operation := range events {
		if recorded[id] != operation || !actions[operation] {
			t.Errorf("%s is recorded as %q", operation, recorded[id])
		}
	}
	used := map[string]bool{}
	for _, operation := range events {
		used[operation] = true
	}
	for operation := range actions {
		if operation != "" && !used[operation] {
			t.Errorf("%s was not used", operation)
		}
	}
	if len(events) < 30 || len(recorded) != len(events) {
		t.Errorf("%d calls, %d recorded", len(events), len(recorded))
	}
}
