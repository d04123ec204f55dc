package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

const keyPage = "../../../docs/multi-region-keys.md"

// TestKeyShow: what the page shows of a key is what the command prints of it.
func TestKeyShow(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC))
	id := "mrk-0123456789abcdef0123456789abcdef"
	member := func(r, status string) *kmsv1.MultiRegionKey {
		return &kmsv1.MultiRegionKey{Arn: "arn:aws:kms:" + r + ":111122223333:key/" + id, Region: r, MemberStatus: status}
	}
	whole, behind := member("ap-tokyo-1", "ACTIVE"), member("us-east-1", "REJOINING")
	whole.ReplicationStatus, whole.LastSynchronizedTime = kmsv1.ReplicationStatus_REPLICATION_STATUS_SYNCHRONIZED, at
	behind.ReplicationStatus, behind.FailureCause = kmsv1.ReplicationStatus_REPLICATION_STATUS_FAILED, kmsv1.FailureCause_FAILURE_CAUSE_PEER_UNREACHABLE
	behind.Lag, behind.LastSynchronizedTime = durationpb.New(150*time.Second), timestamppb.New(at.AsTime().Add(-time.Hour))
	own := member("eu-paris-1", "ACTIVE")
	own.ReplicationStatus = kmsv1.ReplicationStatus_REPLICATION_STATUS_SYNCHRONIZED
	m := &kmsv1.KeyMetadata{
		KeyId: id, Arn: member("eu-paris-1", "").Arn, KeyState: "Enabled", KeySpec: "SYMMETRIC_DEFAULT", KeyUsage: "ENCRYPT_DECRYPT", Origin: "AWS_KMS",
		CreationDate: at, CurrentKeyMaterialId: strings.Repeat("0f", 32), EncryptionAlgorithms: []string{"SYMMETRIC_DEFAULT"},
		Exportability: kmsv1.Exportability_EXPORTABILITY_TRANSPORT_ONLY, MultiRegion: true,
		MultiRegionConfiguration: &kmsv1.MultiRegionConfiguration{
			MultiRegionKeyType: "PRIMARY", PrimaryKey: own, ReplicaKeys: []*kmsv1.MultiRegionKey{whole, behind},
			Generation: 1, EpochNumber: 2, Certificate: strings.Repeat("9a", 32),
		},
	}
	var b bytes.Buffer
	if err := describe(&b, m, "every 365 days, next 2027-11-20T09:30:00Z"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(keyPage)
	if err != nil {
		t.Fatal(err)
	}
	_, shown, found := strings.Cut(string(page), "$ keyferry key show payroll\n")
	shown, _, ended := strings.Cut(shown, "```")
	if !found || !ended {
		t.Fatalf("%s shows no key", keyPage)
	}
	if diff := cmp.Diff(shown, b.String()); diff != "" {
		t.Errorf("the page is not what the command prints (-page +command):\n%s", diff)
	}

	for want, date := range map[string]*timestamppb.Timestamp{
		"7 days after its last replica key; one of them at least is to stay\n":                    nil,
		"7 days after its last replica key, so it goes on 2026-11-20T09:30:00Z at the earliest\n": at,
	} {
		b.Reset()
		m.PendingDeletionWindowInDays, m.ExpectedDeletionDate = 7, date
		if err := describe(&b, m, ""); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q in\n%s", want, b.String())
		}
	}

	b.Reset()
	m.MultiRegion, m.MultiRegionConfiguration = false, nil
	if err := describe(&b, m, ""); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "multi-Region   no\n") || strings.Contains(got, "REGION") || strings.Contains(got, "epoch") {
		t.Errorf("a single-Region key is shown as\n%s", got)
	}
}
