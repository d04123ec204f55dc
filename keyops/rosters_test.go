package keyops_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
)

// TestOperatorTakenOff: who was taken off the roster while the daemon runs approves nothing
// any more, and nor does what was approved before, whoever takes the change away again.
func TestOperatorTakenOff(t *testing.T) {
	w := guarded(t, nil)
	id := w.shared(t)
	file, err := w.paris.SuspendReplica(t.Context(), admin(), keyops.SuspendReplicaInput{KeyID: string(id), ReplicaRegion: "ap-tokyo-1", Approvals: keyops.Approvals{Request: true}})
	if err != nil {
		t.Fatal(explain(err))
	}
	early := approved(t, w.paris, requestIn(t, file.ApprovalRequest), 2)
	first := w.paris.Operators[0]

	w.paris.TakeOff(t, 0)
	_, err = w.suspend(t, id, keyops.Approvals{Files: early})
	want(t, err, keyops.ErrAccessDenied, "its roster version differs")
	again, err := w.suspend(t, id, keyops.Approvals{Request: true})
	if err != nil {
		t.Fatal(explain(err))
	}
	q := requestIn(t, again)
	if q.Roster != 1 {
		t.Fatalf("operators of roster version %d are asked", q.Roster)
	}
	rest := w.paris.Operators
	w.paris.Operators = append(rest[:1:1], first) // one who is on the roster, and the one who was
	_, err = w.suspend(t, id, keyops.Approvals{Files: approved(t, w.paris, q, 2)})
	want(t, err, keyops.ErrAccessDenied, "no operator's on the roster")
	w.paris.Operators = rest

	if err := os.RemoveAll(filepath.Join(string(w.paris.Dir), "rosters")); err != nil {
		t.Fatal(err)
	}
	w.paris.Restart(t)
	out, err := w.paris.DescribeRegion(t.Context(), admin(), keyops.DescribeRegionInput{})
	if err != nil || out.Roster != 1 || out.Operators != 2 || out.ApprovalsNeeded != 2 {
		t.Errorf("with the change taken away the Region says roster %d, %d of %d: %v", out.Roster, out.ApprovalsNeeded, out.Operators, err)
	}
	if _, err := w.suspend(t, id, keyops.Approvals{Files: approved(t, w.paris, q, 2)}); err != nil {
		t.Error("by those who are on the roster: ", explain(err))
	}
}

// The same of a promotion, whose request says who is to approve it.
func TestOperatorTakenOffPromotes(t *testing.T) {
	w := guarded(t, nil)
	id := w.shared(t)
	dark := []region.Name{"eu-paris-1"}
	early, list := w.tokyo.Promotion(t, dark, id)
	before := keyopstest.PromoteInput(t, early, list, id, w.tokyo.Approve(t, early.Request(), 2))
	first := w.tokyo.Operators[0]

	w.tokyo.TakeOff(t, 0)
	_, err := w.tokyo.PromoteKey(t.Context(), admin(), before)
	want(t, err, keyops.ErrAccessDenied, "its roster version differs")
	p, list := w.tokyo.Promotion(t, dark, id)
	rest := w.tokyo.Operators
	w.tokyo.Operators = append(rest[:1:1], first)
	_, err = w.tokyo.PromoteKey(t.Context(), admin(), keyopstest.PromoteInput(t, p, list, id, w.tokyo.Approve(t, p.Request(), 2)))
	want(t, err, keyops.ErrAccessDenied, "no operator's on the roster")
	w.tokyo.Operators = rest
	if _, err := w.tokyo.PromoteKey(t.Context(), admin(), keyopstest.PromoteInput(t, p, list, id, w.tokyo.Approve(t, p.Request(), 2))); err != nil {
		t.Fatal(explain(err))
	}
}

// TestWorkLooksAtRoster: what describes the Region follows a change by itself.
func TestWorkLooksAtRoster(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Operators: 3})
	r.TakeOff(t, 2)
	if err := r.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := r.DescribeRegion(t.Context(), admin(), keyops.DescribeRegionInput{})
	if err != nil || out.Roster != 1 || out.Operators != 2 {
		t.Errorf("the Region says roster %d of %d operators: %v", out.Roster, out.Operators, err)
	}
}
