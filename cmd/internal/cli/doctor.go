package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// errUnwell means that a Region has a problem, which is an answer and not a failure.
var errUnwell = errors.New("not all is well, see above")

// credentialWarning is how long before its end the caller's own credential is worth a word.
// A bearer token lives for minutes, so it is none.
const credentialWarning = 30 * 24 * time.Hour

// Levels as they are printed.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelProblem = "problem"
)

var levels = map[kmsv1.HealthLevel]string{
	kmsv1.HealthLevel_HEALTH_LEVEL_OK:      levelOK,
	kmsv1.HealthLevel_HEALTH_LEVEL_WARNING: levelWarning,
	kmsv1.HealthLevel_HEALTH_LEVEL_PROBLEM: levelProblem,
}

// examined is what the doctor says of one Region.
type examined struct {
	Region   string         `json:"region"`
	Instance string         `json:"instanceId,omitempty"`
	Level    string         `json:"level"`
	Checks   []examinedItem `json:"checks"`
}

type examinedItem struct {
	Name    string             `json:"name"`
	Subject string             `json:"subject,omitempty"`
	Level   string             `json:"level"`
	Summary string             `json:"summary"`
	Advice  string             `json:"advice,omitempty"`
	Values  map[string]float64 `json:"values,omitempty"`
}

func (e *examined) add(i examinedItem) {
	e.Checks = append(e.Checks, i)
	if i.Level == levelProblem || i.Level == levelWarning && e.Level == levelOK {
		e.Level = i.Level
	}
}

func (a *app) doctor(use string) *cobra.Command {
	var strict bool
	c := &cobra.Command{
		Use: use, Short: "Look at the health of Regions; exit code 7 if there is a problem", Args: cobra.NoArgs,
		Long: `Look at token, peers, clocks, certificates, disk, seals, transport keys, audit log and room
for more keys, in all Regions of the configuration or the one of --region.

Exit code 0 means that there is no problem, 7 that there is one, or that a Region cannot be
reached; with --strict, a warning counts too.`,
		RunE: func(c *cobra.Command, _ []string) error {
			var regions []string
			if a.region != "" {
				regions = []string{a.region}
			}
			names, err := a.regionsOf(regions)
			if err != nil {
				return err
			}
			all := make([]examined, len(names))
			var wg sync.WaitGroup
			for i, name := range names {
				wg.Go(func() { all[i] = a.examine(c.Context(), name, time.Now()) })
			}
			wg.Wait()
			if err := a.writeExamined(all); err != nil {
				return err
			}
			for _, e := range all {
				if e.Level == levelProblem || strict && e.Level != levelOK {
					return errUnwell
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "let warnings count as problems")
	return c
}

// examine asks one Region. That it does not answer is what it says.
func (a *app) examine(ctx context.Context, name string, now time.Time) examined {
	e, in := examined{Region: name, Level: levelOK}, *a
	in.region = name
	err := in.with(ctx, func(ctx context.Context, cl *client) error {
		out, err := cl.info.GetRegionHealth(ctx, &kmsv1.GetRegionHealthRequest{})
		if err != nil {
			return err
		}
		e.Instance = out.GetInstanceId()
		for _, c := range out.GetChecks() {
			level, known := levels[c.GetLevel()]
			if !known { // of a newer release
				level = levelWarning
			}
			e.add(examinedItem{Name: c.GetName(), Subject: c.GetSubject(), Level: level, Summary: c.GetSummary(), Advice: c.GetAdvice(), Values: c.GetValues()})
		}
		who, err := cl.info.GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
		if err != nil {
			return err
		}
		e.add(credentialOf(who, now))
		return nil
	})
	if err != nil {
		e.add(examinedItem{Name: "region", Level: levelProblem, Summary: words(err), Advice: "look whether the daemon runs, and at the way to it"})
	}
	return e
}

// credentialOf says until when the caller's own credential is good.
func credentialOf(who *kmsv1.GetCallerIdentityResponse, now time.Time) examinedItem {
	i := examinedItem{Name: "credential", Subject: "yours", Level: levelOK}
	ends := who.GetExpireTime().AsTime()
	i.Summary = "good until " + ends.UTC().Format(time.RFC3339)
	if who.GetCredentialType() == kmsv1.CredentialType_CREDENTIAL_TYPE_CERTIFICATE && ends.Sub(now) < credentialWarning {
		i.Level, i.Advice = levelWarning, "have another certificate issued"
	}
	return i
}

func (a *app) writeExamined(all []examined) error {
	if a.json {
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		return a.write(append(b, '\n'))
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, e := range all {
		fmt.Fprintf(w, "%s %s\t\t%s\t\n", e.Region, e.Instance, e.Level)
		for _, c := range e.Checks {
			text := c.Summary
			if c.Advice != "" {
				text += " (" + c.Advice + ")"
			}
			mark := c.Level
			if mark != levelOK {
				mark = strings.ToUpper(mark)
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", mark, c.Name, c.Subject, text)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return a.write([]byte(b.String()))
}
