package cli

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
)

// auditVerify checks a log where it lies: it needs the files and the Region's public
// descriptor, and no Region.
func (a *app) auditVerify() *cobra.Command {
	var descriptor, fingerprint string
	c := &cobra.Command{
		Use: "verify DIR --descriptor FILE", Short: "Check that an audit log is whole, unchanged and signed by its Region", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := region.Load(descriptor)
			if err != nil {
				return usagef("reading the Region's descriptor: %w", err)
			}
			if fingerprint != "" && fingerprint != d.Fingerprint() {
				return fmt.Errorf("%s is not the descriptor with that fingerprint; its own is %s", descriptor, d.Fingerprint())
			}
			key, err := d.PublicKey()
			if err != nil {
				return err
			}
			r, err := audit.Verify(os.DirFS(args[0]), []crypto.PublicKey{key})
			if err == nil && (r.Region != string(d.Region) || r.Instance != string(d.Instance)) {
				err = fmt.Errorf("the log is that of %s in %s, the descriptor that of %s in %s", r.Instance, r.Region, d.Instance, d.Region)
			}
			if a.json {
				if e := json.NewEncoder(a.Out).Encode(r); e != nil {
					return errors.Join(err, e)
				}
			} else if e := a.auditReport(r); e != nil {
				return errors.Join(err, e)
			}
			if err != nil {
				return fmt.Errorf("the log does not hold: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&descriptor, "descriptor", "", "`FILE` with the Region's public descriptor, region.json")
	cobra.CheckErr(c.MarkFlagRequired("descriptor"))
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "demand the descriptor with this `FINGERPRINT`, learnt from the Region's operators")
	return c
}

func (a *app) auditReport(r audit.Report) error {
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "region\t%s, instance %s\n", r.Region, r.Instance)
	fmt.Fprintf(w, "records\t%d in %d files, sequence numbers %d to %d\n", r.Records, r.Files, r.FirstSeq, r.LastSeq)
	if !r.First.IsZero() {
		fmt.Fprintf(w, "time\t%s to %s\n", r.First.Format(time.RFC3339), r.Newest.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "checkpoints\t%d, the last covers line %d\n", r.Checkpoints, r.Covered)
	fmt.Fprintf(w, "not covered yet\t%d\n", r.Uncovered)
	if r.Torn > 0 {
		fmt.Fprintf(w, "after the last line\t%d bytes of a line that is being written or was left by a crash\n", r.Torn)
	}
	for _, n := range r.Rollbacks {
		fmt.Fprintf(w, "store rolled back\tbefore checkpoint %d: a restore, or tampering\n", n)
	}
	return w.Flush()
}
