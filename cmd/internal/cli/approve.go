package cli

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/operator"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// approve needs no Region: an operator may be anywhere, on a machine without a network.
func (a *app) approve() *cobra.Command {
	var key, out, fingerprint string
	var yes bool
	c := &cobra.Command{
		Use: "approve REQUEST_FILE --key FILE", Args: cobra.ExactArgs(1),
		Short: "Show in words what operators are asked for, and approve it with an operator's key",
		RunE: func(c *cobra.Command, args []string) error {
			if yes && fingerprint == "" {
				return usagef("--yes needs --fingerprint: nobody would have read the request")
			}
			var q approval.Request
			if err := statement.ReadJSON(args[0], &q); err != nil {
				return usagef("%w", err)
			}
			if err := q.Validate(); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			k, err := operator.Load(key)
			if err != nil {
				return usagef("%w", err)
			}
			if err := a.showRequest(q, time.Now()); err != nil {
				return err
			}
			if detail(q, mrk.DetailKeys) != "" {
				list, err := readKeys(args[0], q)
				if err != nil {
					return err
				}
				a.say("the keys, each with its newest certificate:\n%s", list.Text())
			}
			if err := a.agree(q, yes, fingerprint); err != nil {
				return err
			}
			f, err := k.Approve(c.Context(), q)
			if err != nil {
				return err
			}
			if out == "" {
				out = approvalPath(args[0], f)
			}
			if err := statement.WriteJSON(out, f); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.Out, "%s\n", out)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&key, "key", "", "the operator's private key `FILE`, PKCS #8; what it approves is remembered in FILE.signed")
	cobra.CheckErr(c.MarkFlagRequired("key"))
	f.StringVar(&out, "out", "", "write the approval to this new `FILE` (default REQUEST_FILE without .request, then .approval- and the beginning of the key's fingerprint)")
	f.BoolVar(&yes, "yes", false, "do not ask; --fingerprint must be given")
	f.StringVar(&fingerprint, "fingerprint", "", "demand the request with this `FINGERPRINT`, learnt from another operator")
	return c
}

// approvalPath is beside the request, where those who wait for approvals look.
func approvalPath(request string, f statement.File) string {
	first, _, _ := strings.Cut(f.Key, "-")
	second, _, _ := strings.Cut(strings.TrimPrefix(f.Key, first+"-"), "-")
	return strings.TrimSuffix(request, ".request") + ".approval-" + first + second
}

// showRequest prints everything that will be signed, in words.
func (a *app) showRequest(q approval.Request, now time.Time) error {
	left := q.Expires.Sub(now)
	if left <= 0 {
		return fmt.Errorf("the request expired at %s: ask for a new one", q.Expires.Format(time.RFC3339))
	}
	w := tabwriter.NewWriter(a.Err, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "You are asked to\t%s.\n", q.Operation.Words())
	fmt.Fprintf(w, "operation\t%s\n", q.Operation)
	fmt.Fprintf(w, "in\tRegion %s, instance %s\n", q.Region, q.Instance)
	fmt.Fprintf(w, "by operators of\troster version %d\n", q.Roster)
	if q.Series != "" {
		fmt.Fprintf(w, "as\tnumber %d of %s, given to %s\n", q.Epoch, q.Series, q.Target)
	}
	for _, d := range q.Object {
		fmt.Fprintf(w, "%s\t%s\n", d.Name, d.Text)
	}
	fmt.Fprintf(w, "serial\t%s\n", q.Serial)
	fmt.Fprintf(w, "until\t%s, that is for %s\n", q.Expires.Format(time.RFC3339), left.Round(time.Minute))
	fmt.Fprintf(w, "fingerprint\t%s\n", q.Fingerprint())
	return w.Flush()
}

// agree compares with --fingerprint, or asks the operator.
func (a *app) agree(q approval.Request, yes bool, fingerprint string) error {
	if fingerprint != "" && !statement.SameFingerprint(q.Fingerprint(), fingerprint) {
		return errors.New("this is not the request with that fingerprint: it was not approved")
	}
	if yes {
		return nil
	}
	fmt.Fprint(a.Err, "Type yes to approve exactly this: ")
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("not approved")
	}
	return nil
}
