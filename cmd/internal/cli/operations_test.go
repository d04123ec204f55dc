package cli

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

const operationsPage = "../../../docs/reference/operations.md"

const noStore = "The Region's token is the key store, and the only one."

// awsOperations are all operations of AWS KMS (API version 2014-11-01, as of May 2026), and
// what is missing here of each; empty if nothing is.
var awsOperations = []struct{ name, missing string }{
	{"CreateKey", "CustomKeyStoreId, XksKeyId: the token is the key store. CustomerMasterKeySpec: KeySpec has replaced it."},
	{"ReplicateKey", ""},
	{"UpdatePrimaryRegion", ""},
	{"DescribeKey", ""},
	{"ListKeys", ""},
	{"GetKeyLastUsage", "CloudTrailEventId: KmsRequestId names the record of the audit log."},
	{"UpdateKeyDescription", ""},
	{"EnableKey", ""},
	{"DisableKey", ""},
	{"ScheduleKeyDeletion", ""},
	{"CancelKeyDeletion", ""},
	{"EnableKeyRotation", ""},
	{"DisableKeyRotation", ""},
	{"GetKeyRotationStatus", ""},
	{"RotateKeyOnDemand", ""},
	{"ListKeyRotations", ""},
	{"GetParametersForImport", "SM2 wrapping keys."},
	{"ImportKeyMaterial", ""},
	{"DeleteImportedKeyMaterial", ""},
	{"Encrypt", ""},
	{"Decrypt", "Recipient: there are no Nitro enclaves here. DryRunModifiers."},
	{"ReEncrypt", "DryRunModifiers."},
	{"GenerateDataKey", "Recipient."},
	{"GenerateDataKeyWithoutPlaintext", ""},
	{"GenerateDataKeyPair", "Recipient. SM2."},
	{"GenerateDataKeyPairWithoutPlaintext", "SM2."},
	{"GenerateRandom", "CustomKeyStoreId, Recipient."},
	{"Sign", "MessageType EXTERNAL_MU: no token here has ML-DSA."},
	{"Verify", "MessageType EXTERNAL_MU."},
	{"GenerateMac", ""},
	{"VerifyMac", ""},
	{"GetPublicKey", ""},
	{"DeriveSharedSecret", "Recipient."},
	{"PutKeyPolicy", ""},
	{"GetKeyPolicy", ""},
	{"ListKeyPolicies", ""},
	{"CreateGrant", "GranteeServicePrincipal, RetiringServicePrincipal, SourceArn: there are no services of AWS here."},
	{"ListGrants", "GranteeServicePrincipal."},
	{"ListRetirableGrants", "RetiringServicePrincipal."},
	{"RetireGrant", ""},
	{"RevokeGrant", ""},
	{"CreateAlias", ""},
	{"UpdateAlias", ""},
	{"DeleteAlias", ""},
	{"ListAliases", ""},
	{"TagResource", ""},
	{"UntagResource", ""},
	{"ListResourceTags", ""},
	{"CreateCustomKeyStore", noStore},
	{"ConnectCustomKeyStore", noStore},
	{"DisconnectCustomKeyStore", noStore},
	{"DescribeCustomKeyStores", noStore},
	{"UpdateCustomKeyStore", noStore},
	{"DeleteCustomKeyStore", noStore},
}

// ownOperations are the RPCs that AWS KMS has not.
var ownOperations = map[string]string{
	"ListReplicas":                "How far each Region of a multi-Region key is, and why not further.",
	"ExplainAccess":               "Whether a principal may do something, and why.",
	"DescribeRegion":              "What the Region is and what its token can do.",
	"CreateSynchronization":       "Make the serving instance the primary instance of a synchronization.",
	"ListSynchronizations":        "Which synchronizations the serving instance is part of.",
	"GetSynchronization":          "What the serving instance knows of a synchronization.",
	"AssociateReplicaInstance":    "Add an empty instance that is to have all resources, or selected ones.",
	"DisassociateReplicaInstance": "End what a replica instance is to have, for good: it is frozen.",
	"UpdateSynchronization":       "Add resources to what a replica instance is to have.",
	"ListReplicaResources":        "How far each resource is in one replica instance, and why no further.",
	"ListSynchronizedResources":   "How far each resource is in all replica instances.",
	"GetRegionHealth":             "What an operator should know of the Region's condition; keyferry doctor shows it.",
	"ListPeers":                   "Which Regions this Region replicates with, and how the connections stand.",
	"GetCallerIdentity":           "Whom the Region takes the caller for; AWS has it in STS.",
	"PromoteKey":                  "makes the key of this Region the primary key without the Region that has it, by approvals of operators",
	"SuspendReplica":              "lets rotations go on without a Region that is dark",
	"EvictReplica":                "ends a Region's part in a multi-Region key",
	"WriteOffKeyMaterial":         "gives up a key material that no token holds any more",
}

// served returns the RPCs and their first route of REST.
func served() map[string]string {
	out := map[string]string{}
	for _, file := range []protoreflect.FileDescriptor{
		kmsv1.File_keyferry_kms_v1_key_service_proto, kmsv1.File_keyferry_kms_v1_crypto_service_proto, kmsv1.File_keyferry_kms_v1_region_service_proto,
		kmsv1.File_keyferry_kms_v1_synchronization_service_proto,
	} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
			route := ""
			rule.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
				if f.ContainingOneof() != nil && f.Kind() == protoreflect.StringKind {
					route = strings.ToUpper(string(f.Name())) + " " + v.String()
				}
				return true
			})
			out[string(m.Name())] = route
		}
	}
	return out
}

var capital = regexp.MustCompile(`[A-Z]`)

// kebab is how AWS's command line calls an operation.
func kebab(name string) string {
	return strings.ToLower(strings.TrimPrefix(capital.ReplaceAllString(name, "-$0"), "-"))
}

// TestOperationsPage holds the page against the RPCs and against the commands. A command
// line that AWS's users have in their fingers has every operation under AWS's name.
func TestOperationsPage(t *testing.T) {
	routes, commands := served(), map[string]bool{}
	for _, c := range (&app{}).root().Commands() {
		commands[c.Name()] = true
	}
	var b strings.Builder
	b.WriteString(`# Operations of AWS KMS

What AWS KMS offers, and what of it is here. Names, fields, states and errors are AWS's; see
[the errors](errors.md), [the states](states.md), and the comments of
[the API](../../proto/keyferry/kms/v1). A test holds this page against the API and against the
command line, which has every operation under AWS's name, ` + "`keyferry create-key`" + `, beside
[its own](cli.md).

| operation | here | REST | what is missing |
| --- | --- | --- | --- |
`)
	for _, op := range awsOperations {
		route, ok := routes[op.name]
		delete(routes, op.name)
		switch {
		case !ok && op.missing == "":
			t.Errorf("%s is not served and has no reason why", op.name)
		case ok && op.missing == noStore:
			t.Errorf("%s is served and has a reason why not: %s", op.name, op.missing)
		case ok && !commands[kebab(op.name)]:
			t.Errorf("there is no keyferry %s", kebab(op.name))
		}
		mark, rest := "—", "—"
		if ok {
			mark, rest = "✓", "`"+route+"`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", op.name, mark, rest, op.missing)
	}
	b.WriteString("\n## Not in AWS KMS\n\n| operation | REST | what it does |\n| --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		if ownOperations[name] == "" {
			t.Errorf("%s is neither AWS's nor explained", name)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", name, routes[name], ownOperations[name])
	}
	if len(awsOperations) != 54 {
		t.Errorf("AWS KMS has 54 operations, the table %d", len(awsOperations))
	}
	if *update {
		if err := os.WriteFile(operationsPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if page, err := os.ReadFile(operationsPage); err != nil || string(page) != b.String() {
		t.Errorf("the page is not that of this API (%v); run go test ./cmd/internal/cli -run Page -update", err)
	}
}

// TestStates holds the command against the page, which is generated from what keyops does.
func TestStates(t *testing.T) {
	code, out, errs := run(t, "", "reference", "states")
	if code != ExitOK || errs != "" {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	page, err := os.ReadFile("../../../docs/reference/states.md")
	if err != nil {
		t.Fatal(err)
	}
	cells := regexp.MustCompile(` {2,}`)
	table, _, _ := strings.Cut(out, "\n\n")
	lines := strings.Split(table, "\n")
	if len(lines) < 40 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		name, _, _ := strings.Cut(line, " ")
		want := "| " + strings.Join(cells.Split(strings.TrimSpace(line), -1), " | ") + " |"
		later := strings.Replace(want, name, name+" (later)", 1)
		if !strings.Contains(string(page), want+"\n") && !strings.Contains(string(page), later+"\n") {
			t.Errorf("the page does not have %s", want)
		}
	}
}
