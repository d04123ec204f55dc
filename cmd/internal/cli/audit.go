package cli

import (
	"encoding/hex"
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

// The audit commands work where the logs lie, or on copies of them: they need the files and
// the Regions' public descriptors, and no Region.

func (a *app) auditVerify() *cobra.Command {
	var descriptors, peers, peerDescriptors []string
	var fingerprint string
	var restored bool
	c := &cobra.Command{
		Use: "verify DIR --descriptor FILE", Args: cobra.ExactArgs(1),
		Short: "Check that an audit log is whole, unchanged and signed by its Region, and with peers' logs that nothing was cut off or written anew",
		RunE: func(_ *cobra.Command, args []string) error {
			own, err := auditSource(args[0], descriptors)
			if err != nil {
				return err
			}
			if fingerprint != "" && fingerprint != own.fingerprint {
				return fmt.Errorf("%s is not the descriptor with that fingerprint; its own is %s", descriptors[0], own.fingerprint)
			}
			if len(peers) != len(peerDescriptors) {
				return usagef("%d logs of peers with %d descriptors: give a --peer-descriptor for each --peer, in the same order", len(peers), len(peerDescriptors))
			}
			var witnesses []audit.Witness
			var problems []error
			for i, dir := range peers {
				seen, err := peerWitnesses(dir, peerDescriptors[i], own.Region)
				witnesses = append(witnesses, seen...)
				problems = append(problems, err)
			}
			r, err := audit.Verify(own.FS, own.Keys, witnesses...)
			lost := errors.Is(err, audit.ErrRestored)
			if err == nil || lost && restored {
				err = own.owns(r)
			}
			switch {
			case err != nil && lost:
				err = fmt.Errorf("the log does not hold: %w (if that restore is yours, go on with --restored)", err)
			case err != nil:
				err = fmt.Errorf("the log does not hold: %w", err)
			}
			return errors.Join(append([]error{a.showVerified(r, len(peers) > 0), err}, problems...)...)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&descriptors, "descriptor", nil, "`FILE` with the Region's public descriptor, region.json; once more for each earlier one, after a change of its signing key")
	cobra.CheckErr(c.MarkFlagRequired("descriptor"))
	f.StringVar(&fingerprint, "fingerprint", "", "demand the descriptor with this `FINGERPRINT`, learnt from the Region's operators")
	f.StringArrayVar(&peers, "peer", nil, "`DIR` with a copy of a peer's audit log, whose records of this log must be true; may be repeated")
	f.StringArrayVar(&peerDescriptors, "peer-descriptor", nil, "`FILE` with that peer's public descriptor")
	f.BoolVar(&restored, "restored", false, "the restores from backups that the log tells of are known: what they lost is shown, and is no error")
	return c
}

// source is a log with what its Region's descriptor says.
type source struct {
	audit.Source
	fingerprint string
}

// auditSource reads the descriptors of one instance, the newest first.
func auditSource(dir string, descriptors []string) (source, error) {
	s := source{Source: audit.Source{FS: os.DirFS(dir)}}
	for _, path := range descriptors {
		d, err := region.Load(path)
		if err != nil {
			return s, usagef("reading the descriptor of the Region: %w", err)
		}
		if s.Keys == nil {
			s.Region, s.Instance, s.fingerprint = d.Region, d.Instance, d.Fingerprint()
		}
		if d.Region != s.Region || d.Instance != s.Instance {
			return s, usagef("%s is the descriptor of %s in %s, not of %s in %s", path, d.Instance, d.Region, s.Instance, s.Region)
		}
		keys, err := d.Keys()
		if err != nil {
			return s, err
		}
		s.Keys = append(s.Keys, keys...)
	}
	return s, nil
}

// owns refuses a report that is about another instance's log.
func (s source) owns(r audit.Report) error {
	if r.Region == string(s.Region) && r.Instance == string(s.Instance) {
		return nil
	}
	return fmt.Errorf("the log is that of %s in %s, the descriptor that of %s in %s", r.Instance, r.Region, s.Instance, s.Region)
}

// peerWitnesses returns what a peer's log keeps of other logs. A log that does not hold may
// lack some; the others, being signed, are worth what they were.
func peerWitnesses(dir, descriptor string, own region.Name) ([]audit.Witness, error) {
	s, err := auditSource(dir, []string{descriptor})
	if err != nil {
		return nil, err
	}
	if s.Region == own {
		return nil, usagef("%s is the descriptor of %s itself: nobody is a witness for itself", descriptor, own)
	}
	r, err := audit.Verify(s.FS, s.Keys)
	if err == nil {
		err = s.owns(r)
	}
	if err != nil {
		return r.Seen, fmt.Errorf("the log of the peer %s does not hold: %w", s.Region, err)
	}
	return r.Seen, nil
}

// auditReport is a log's report as it is printed.
type auditReport struct {
	Region    string    `json:"region"`
	Instance  string    `json:"instance"`
	Files     int       `json:"files"`
	Records   uint64    `json:"records"`
	First     time.Time `json:"first"`
	Newest    time.Time `json:"newest"`
	FirstSeq  uint64    `json:"firstSeq"`
	LastSeq   uint64    `json:"lastSeq"`
	Covered   uint64    `json:"covered"`
	Uncovered uint64    `json:"uncovered"`
	Torn      int64     `json:"tornBytes"`
	Rollbacks []uint64  `json:"storeRollbacks"`
	Restores  []restore `json:"restores"`

	Checkpoints    uint64 `json:"checkpoints"`
	LastCheckpoint uint64 `json:"lastCheckpoint"`
	LastHash       string `json:"lastCheckpointHash"`

	Witnesses         int    `json:"witnesses"`
	Witnessed         uint64 `json:"witnessed"`
	WitnessesUnsigned int    `json:"witnessesUnsigned"`
}

// restore is a place at which the log was put back from a backup.
type restore struct {
	Seq            uint64    `json:"seq"`
	Time           time.Time `json:"time"`
	After          uint64    `json:"afterCheckpoint"`
	Next           uint64    `json:"nextCheckpoint"`
	LostCheckpoint uint64    `json:"lostCheckpoint"`
	LostSeq        uint64    `json:"lostSeq"`
}

func reportOf(r audit.Report) auditReport {
	restores := []restore{}
	for _, at := range r.Restores {
		restores = append(restores, restore(at))
	}
	return auditReport{
		Region: r.Region, Instance: r.Instance, Files: r.Files, Records: r.Records,
		First: r.First, Newest: r.Newest, FirstSeq: r.FirstSeq, LastSeq: r.LastSeq,
		Covered: r.Covered, Uncovered: r.Uncovered, Torn: r.Torn, Rollbacks: r.Rollbacks, Restores: restores,
		Checkpoints: r.Checkpoints, LastCheckpoint: r.Last.Number, LastHash: hex.EncodeToString(r.Last.Hash[:]),
		Witnesses: r.Witnesses, Witnessed: r.Witnessed, WitnessesUnsigned: r.WitnessesUnsigned,
	}
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (a *app) showVerified(r audit.Report, withPeers bool) error {
	if a.json {
		return a.printJSON(reportOf(r))
	}
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "region\t%s, instance %s\n", r.Region, r.Instance)
	fmt.Fprintf(w, "records\t%d in %d files, sequence numbers %d to %d\n", r.Records, r.Files, r.FirstSeq, r.LastSeq)
	if !r.First.IsZero() {
		fmt.Fprintf(w, "time\t%s to %s\n", r.First.Format(time.RFC3339), r.Newest.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "checkpoints\t%d, the last covers line %d\n", r.Checkpoints, r.Covered)
	fmt.Fprintf(w, "not covered yet\t%d\n", r.Uncovered)
	if withPeers {
		fmt.Fprintf(w, "witnessed by peers\t%d checkpoints, the last covers line %d\n", r.Witnesses, r.Witnessed)
	}
	if r.WitnessesUnsigned > 0 {
		fmt.Fprintf(w, "witnesses ignored\t%d of checkpoints that no given descriptor's key has signed\n", r.WitnessesUnsigned)
	}
	if r.Torn > 0 {
		fmt.Fprintf(w, "after the last line\t%d bytes of a line that is being written or was left by a crash\n", r.Torn)
	}
	for _, at := range r.Restores {
		fmt.Fprintf(w, "restored\tat line %d, %s: from a backup that ended at checkpoint %d\n", at.Seq, at.Time.Format(time.RFC3339), at.After)
		if at.LostCheckpoint != 0 {
			fmt.Fprintf(w, "lost by that\twhat came after, up to line %d at least, which a witness saw in checkpoint %d\n", at.LostSeq, at.LostCheckpoint)
		}
	}
	for _, n := range r.Rollbacks {
		fmt.Fprintf(w, "store rolled back\tbefore checkpoint %d: a restore, or tampering\n", n)
	}
	return w.Flush()
}
