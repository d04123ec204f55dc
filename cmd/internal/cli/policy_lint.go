package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops/policy"
)

// policyLint needs no server: a document is looked at before anybody has it.
func (a *app) policyLint(use string) *cobra.Command {
	var identities bool
	c := &cobra.Command{
		Use: use, Short: "Check a policy file, without a server; exit code 1 if there is anything to look at", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			limit := policy.MaxPolicySize
			if identities {
				limit = policy.MaxIdentitiesSize
			}
			document, err := a.readFile(args[0], limit, "policy")
			if err != nil {
				return err
			}
			findings, err := lint(document, identities)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := a.writeFindings(args[0], findings); err != nil {
				return err
			}
			if len(findings) > 0 {
				return errors.New("the policy is valid, but see above")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&identities, "identities", false, "the file is a Region's file of identity policies, not a key policy")
	return c
}

func lint(document []byte, identities bool) ([]policy.Finding, error) {
	if identities {
		parsed, err := policy.ParseIdentities(document)
		if err != nil {
			return nil, err
		}
		return parsed.Lint(), nil
	}
	parsed, err := policy.Parse(document, policy.KeyPolicy)
	if err != nil {
		return nil, err
	}
	return policy.Lint(parsed), nil
}

func (a *app) writeFindings(file string, findings []policy.Finding) error {
	for _, f := range findings {
		if a.json {
			line, err := json.Marshal(f)
			if err != nil {
				return err
			}
			if err := a.write(append(line, '\n')); err != nil {
				return err
			}
			continue
		}
		where := file
		if f.Statement != "" {
			where += ": " + f.Statement
		}
		if err := a.write(fmt.Appendf(nil, "%s: %s: %s\n", where, f.Rule, f.Problem)); err != nil {
			return err
		}
	}
	return nil
}
