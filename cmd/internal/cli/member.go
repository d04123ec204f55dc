package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// consent is what the commands have in common that take the approvals of operators.
type consent struct {
	request   string
	approvals []string
	life      time.Duration
}

func (c *consent) flags(f *pflag.FlagSet) {
	f.StringVar(&c.request, "request", "", "change nothing: write what operators are to approve to this new `FILE`, see keyferry approve")
	f.StringArrayVar(&c.approvals, "approval", nil, "`FILE` with an operator's approval, repeated")
	f.DurationVar(&c.life, "expires", 24*time.Hour, "with --request: for how long it may be approved and carried out, at most 168h")
}

// read returns the approvals, whether a request is asked for, and its life.
func (c *consent) read() (files [][]byte, ask bool, life *durationpb.Duration, err error) {
	if c.request != "" && len(c.approvals) > 0 {
		return nil, false, nil, usagef("--request asks for approvals and --approval gives them: use one of them")
	}
	if c.request != "" {
		return nil, true, durationpb.New(c.life), nil
	}
	files, err = readFiles(c.approvals)
	return files, false, nil, err
}

func readFiles(paths []string) (files [][]byte, err error) {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, usagef("%w", err)
		}
		files = append(files, b)
	}
	return files, nil
}

// asked writes the request to its file, and says how it goes on.
func (a *app) asked(ctx context.Context, cl *client, path string, file []byte) error {
	var q approval.Request
	if err := statement.UnmarshalJSON(file, &q); err != nil {
		return fmt.Errorf("the request of %s: %w", cl.region, err)
	}
	return a.writeRequest(ctx, cl, path, q)
}

func (a *app) writeRequest(ctx context.Context, cl *client, path string, q approval.Request) error {
	if err := statement.WriteJSON(path, q); err != nil {
		return err
	}
	needed := "the"
	if r, err := cl.info.DescribeRegion(ctx, &kmsv1.DescribeRegionRequest{}); err == nil && r.GetRegion() == q.Region {
		needed = fmt.Sprintf("%d of %d", r.GetApprovalsNeeded(), r.GetOperators())
	}
	a.say("nothing has changed; %s operators of %s approve with keyferry approve %s, until %s", needed, q.Region, path, q.Expires.Format(time.RFC3339))
	a.say("fingerprint %s", q.Fingerprint())
	return a.write([]byte(path + "\n"))
}

func (a *app) keyWriteOff(use string) *cobra.Command {
	req, p := &kmsv1.WriteOffKeyMaterialRequest{}, &consent{}
	c := a.onKeyWith(use, "Give up a key material that no token holds any more, and what was encrypted under it", cobra.ExactArgs(2),
		func(ctx context.Context, cl *client, id string, rest []string) (err error) {
			req.KeyId, req.KeyMaterialId = id, rest[0]
			if req.Approvals, req.RequestApprovals, req.ApprovalLife, err = p.read(); err != nil {
				return err
			}
			out, err := cl.keys.WriteOffKeyMaterial(ctx, req)
			if err != nil {
				return err
			}
			if req.RequestApprovals {
				return a.asked(ctx, cl, p.request, out.GetApprovalRequest())
			}
			a.say("material %s of %s is written off", rest[0], id)
			return nil
		})
	p.flags(c.Flags())
	return c
}
