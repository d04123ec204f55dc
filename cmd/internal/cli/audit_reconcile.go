package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops/audit"
)

func (a *app) auditReconcile() *cobra.Command {
	var descriptors []string
	var grace time.Duration
	c := &cobra.Command{
		Use: "reconcile DIR --descriptor FILE DIR --descriptor FILE...", Args: cobra.MinimumNArgs(2),
		Short: "Compare the audit logs of several Regions: what one says of another must be in the other's. Exits with 1 if it is not, unless it may still be on its way",
		RunE: func(_ *cobra.Command, dirs []string) error {
			if len(dirs) != len(descriptors) {
				return usagef("%d logs with %d descriptors: give a --descriptor for each DIR, in the same order", len(dirs), len(descriptors))
			}
			if grace < 0 {
				return usagef("--grace %v: want a duration such as 15m", grace)
			}
			var sources []audit.Source
			for i, dir := range dirs {
				s, err := auditSource(dir, descriptors[i:i+1])
				if err != nil {
					return err
				}
				sources = append(sources, s.Source)
			}
			r, err := audit.Reconcile(sources, grace)
			if err != nil {
				return err
			}
			if n := r.Count(audit.Contradiction); n > 0 {
				err = fmt.Errorf("the logs do not agree, contradictions: %d", n)
			}
			return errors.Join(a.showReconciled(r), err)
		},
	}
	c.Flags().StringArrayVar(&descriptors, "descriptor", nil, "`FILE` with a Region's public descriptor, region.json; one for each DIR, in the same order")
	cobra.CheckErr(c.MarkFlagRequired("descriptor"))
	c.Flags().DurationVar(&grace, "grace", 15*time.Minute, "how long what one Region says may take to be in the other's log, with the difference of their clocks, as a `DURATION`")
	return c
}

// reconciled is a reconciliation as it is printed.
type reconciled struct {
	Logs           []auditReport   `json:"logs"`
	Agree          int             `json:"agree"`
	Contradictions int             `json:"contradictions"`
	InFlight       int             `json:"inFlight"`
	Unknown        int             `json:"unknown"`
	Findings       []audit.Finding `json:"findings"`
}

func (a *app) showReconciled(r audit.Reconciliation) error {
	out := reconciled{
		Agree: r.Agree, Findings: r.Findings, Contradictions: r.Count(audit.Contradiction),
		InFlight: r.Count(audit.InFlight), Unknown: r.Count(audit.Unknown),
	}
	for _, l := range r.Logs {
		out.Logs = append(out.Logs, reportOf(l))
	}
	if a.json {
		return a.printJSON(out)
	}
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	for _, l := range out.Logs {
		fmt.Fprintf(w, "%s\t%d records, %s to %s\n", l.Region, l.Records, l.First.Format(time.RFC3339), l.Newest.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "agree\t%d\n", out.Agree)
	fmt.Fprintf(w, "contradictions\t%d\n", out.Contradictions)
	fmt.Fprintf(w, "may be on their way\t%d\n", out.InFlight)
	fmt.Fprintf(w, "cannot be known\t%d, as the other log is not given or does not reach back\n", out.Unknown)
	for _, f := range out.Findings {
		fmt.Fprintln(w)
		showFinding(w, f)
	}
	return w.Flush()
}

func showFinding(w io.Writer, f audit.Finding) {
	subject := map[audit.Status]string{
		audit.Contradiction: "contradiction", audit.InFlight: "may be on its way", audit.Unknown: "cannot be known",
	}[f.Status]
	fmt.Fprintf(w, "%s\t%s from %s to %s\n", subject, f.Kind, plain(f.Source), plain(f.Destination))
	fmt.Fprintf(w, "key\t%s\n", plain(f.KeyID))
	if f.MaterialID != "" {
		fmt.Fprintf(w, "material\t%s\n", plain(f.MaterialID))
	}
	if f.CorrelationID != "" {
		fmt.Fprintf(w, "correlation ID\t%s\n", plain(f.CorrelationID))
	}
	showEntry(w, f.Says)
	if f.Instead == nil {
		fmt.Fprintf(w, "%s\tnothing\n", plain(f.Other))
		return
	}
	showEntry(w, *f.Instead)
}

// plain quotes what a terminal might obey: another Region wrote it.
func plain[S ~string](s S) string {
	if q := strconv.QuoteToASCII(string(s)); len(q) != len(s)+2 {
		return q
	}
	return string(s)
}

func showEntry(w io.Writer, e audit.Entry) {
	fmt.Fprintf(w, "%s\t%s %s, line %d, %s", e.Region, e.Event, e.Outcome, e.Seq, e.Time.Format(time.RFC3339))
	if e.Principal != "" {
		fmt.Fprintf(w, ", principal %s", plain(e.Principal))
	}
	fmt.Fprintln(w)
}
