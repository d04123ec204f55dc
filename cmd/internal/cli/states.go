package cli

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops/keystate"
)

func (a *app) referenceStates(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Print which operation a key allows in which state; needs no Region", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
			fmt.Fprint(w, "operation")
			for _, s := range keystate.States {
				fmt.Fprintf(w, "\t%s", s)
			}
			for _, op := range keystate.Operations() {
				fmt.Fprintf(w, "\n%s", op)
				for _, s := range keystate.States {
					made, external := mark(s, op, false), mark(s, op, true)
					if made != external {
						made += " / " + external
					}
					fmt.Fprintf(w, "\t%s", made)
				}
			}
			fmt.Fprintln(w, "\n\n✓ allowed; D DisabledException; S KMSInvalidStateException; U UnsupportedOperationException")
			fmt.Fprintln(w, "two marks: for a key made here, and for one of origin EXTERNAL")
			return w.Flush()
		},
	}
}

// mark is what the table says of one operation in one state: the initial of the error, or a
// tick.
func mark(s keystate.State, op keystate.Operation, external bool) string {
	err := keystate.Check(s, op, keystate.Facts{External: external})
	var refused *keystate.Error
	switch {
	case err == nil:
		return "✓"
	case errors.As(err, &refused):
		return strings.TrimPrefix(string(refused.Reason), "KMSInvalid")[:1]
	}
	return "?" // no operation of the table comes here
}
