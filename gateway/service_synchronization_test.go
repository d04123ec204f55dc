package gateway_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// Every status and cause of a view has its value in the API.
func TestSynchronizedResourceEnumerations(t *testing.T) {
	s := start(t, nil)
	client := kmsv1.NewSynchronizationServiceClient(s.grpc)
	causes := []mrk.Cause{"", mrk.CausePeerUnreachable, mrk.CauseSingleRegionKey, mrk.CauseNotPrimary, mrk.CauseAccessDenied, mrk.CauseQuotaExceeded,
		mrk.CauseAlreadyExists, mrk.CauseMechanismUnsupported, mrk.CauseWaitingForConfirmation, mrk.CauseTokenUnavailable}
	for _, status := range []string{"PENDING", "IN_PROGRESS", "SYNCHRONIZED", "FAILED", "SUSPENDED"} {
		for _, cause := range causes {
			s.keys.change = func(out any) {
				if o, ok := out.(*keyops.ListSynchronizedResourcesOutput); ok {
					o.Resources = []keyops.SynchronizedResource{{ResourceID: keyID, Status: status, FailureCause: string(cause)}}
				}
			}
			out, err := client.ListSynchronizedResources(t.Context(), &kmsv1.ListSynchronizedResourcesRequest{})
			must(t, err)
			row := out.GetResources()[0]
			if row.GetStatus().String() != "REPLICATION_STATUS_"+status {
				t.Errorf("%s becomes %s", status, row.GetStatus())
			}
			want := "FAILURE_CAUSE_" + string(cause)
			if cause == "" {
				want += "UNSPECIFIED"
			}
			if row.GetFailureCause().String() != want {
				t.Errorf("%s becomes %s", cause, row.GetFailureCause())
			}
		}
	}
}
