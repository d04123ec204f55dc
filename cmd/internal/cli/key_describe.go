package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// rotationOf says when a key is rotated, if it is one of those that are.
func (c *client) rotationOf(ctx context.Context, m *kmsv1.KeyMetadata) string {
	if m.GetKeySpec() != "SYMMETRIC_DEFAULT" || m.GetOrigin() != "AWS_KMS" {
		return ""
	}
	s, err := c.keys.GetKeyRotationStatus(ctx, &kmsv1.GetKeyRotationStatusRequest{KeyId: m.GetArn()})
	switch {
	case status.Code(err) == codes.PermissionDenied:
		return "not told: you need kms:GetKeyRotationStatus"
	case err != nil:
		return "" // the rest of what is shown is true all the same
	case !s.GetKeyRotationEnabled():
		return "not automatic"
	}
	return fmt.Sprintf("every %d days, next %s", s.GetRotationPeriodInDays(), clock(s.GetNextRotationDate().AsTime(), s.GetNextRotationDate() != nil))
}

// describe writes what is known of a key, and of a multi-Region key what is known of each
// related key below it.
func describe(out io.Writer, m *kmsv1.KeyMetadata, rotation string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(k, v string) {
		if v != "" {
			fmt.Fprintf(w, "%s\t%s\n", k, v)
		}
	}
	row("key ID", m.GetKeyId())
	row("ARN", m.GetArn())
	row("state", m.GetKeyState())
	row("spec", m.GetKeySpec())
	row("usage", m.GetKeyUsage())
	row("origin", m.GetOrigin())
	row("created", m.GetCreationDate().AsTime().Format(time.RFC3339))
	row("description", m.GetDescription())
	row("material ID", m.GetCurrentKeyMaterialId())
	row("rotation", rotation)
	if m.GetRotationDue() {
		row("rotation due", "the material has encrypted 2^31 times, and refuses at 2^32")
	}
	date := func(name string, t *timestamppb.Timestamp) {
		if t != nil {
			row(name, t.AsTime().Format(time.RFC3339))
		}
	}
	date("deleted on", m.GetDeletionDate())
	if n := m.GetPendingDeletionWindowInDays(); n > 0 {
		row("deleted", fmt.Sprintf("%d days after its last replica key%s", n, expected(m.GetExpectedDeletionDate())))
	}
	row("expiration", m.GetExpirationModel())
	date("expires", m.GetValidTo())
	row("algorithms", strings.Join(slices.Concat(m.GetEncryptionAlgorithms(), m.GetSigningAlgorithms(), m.GetMacAlgorithms(), m.GetKeyAgreementAlgorithms()), ", "))
	row("exportability", strings.TrimPrefix(m.GetExportability().String(), "EXPORTABILITY_"))
	mr := m.GetMultiRegionConfiguration()
	if mr == nil {
		row("multi-Region", "no")
		return w.Flush()
	}
	row("multi-Region", mr.GetMultiRegionKeyType())
	row("primary key in", mr.GetPrimaryKey().GetRegion())
	row("epoch", fmt.Sprintf("generation %d, number %d", mr.GetGeneration(), mr.GetEpochNumber()))
	row("certificate", mr.GetCertificate())
	return errors.Join(w.Flush(), describeMembers(out, mr))
}

// describeMembers writes a table of the related keys, as the serving Region sees them.
func describeMembers(out io.Writer, mr *kmsv1.MultiRegionConfiguration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nREGION\tTYPE\tMEMBER\tSTATUS\tLAG\tSYNCHRONIZED\tCAUSE")
	kind := "PRIMARY"
	for _, k := range append([]*kmsv1.MultiRegionKey{mr.GetPrimaryKey()}, mr.GetReplicaKeys()...) {
		lag := ""
		if d := k.GetLag().AsDuration(); d > 0 {
			lag = d.Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.GetRegion(), kind, dash(k.GetMemberStatus()),
			dash(replicationWord(k.GetReplicationStatus())), dash(lag),
			clock(k.GetLastSynchronizedTime().AsTime(), k.GetLastSynchronizedTime() != nil), dash(causeWord(k.GetFailureCause())))
		kind = "REPLICA"
	}
	return w.Flush()
}
