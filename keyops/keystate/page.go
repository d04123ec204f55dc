package keystate

import (
	"errors"
	"fmt"
	"strings"
)

const pageHead = `# Key states

Which operation a key allows in which state, as AWS KMS has it. The table is generated from the code that decides (` + "`keyops/keystate`" + `), and a test compares the two; ` + "`keyferry reference states`" + ` prints it. The states of related keys are independent: a replica key works while the primary key is disabled, pending deletion or out of reach.

The column Unavailable is AWS KMS's. Here no key is kept from anything by it: DescribeKey says Unavailable while the material that an enabled key encrypts or signs with is missing from the token; what needs that material then fails with KeyUnavailableException, and everything else goes on as for an enabled key.

✓ allowed; D = DisabledException; S = KMSInvalidStateException; U = UnsupportedOperationException. Two marks: for a key made here, then for one of origin EXTERNAL.

`

// Page returns both tables as a page for people: what every operation does in every state,
// and which state may follow which.
func Page() string {
	var b strings.Builder
	b.WriteString(pageHead + "| operation |")
	for _, s := range States {
		fmt.Fprintf(&b, " %s |", s)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(States)) + "\n")
	for _, op := range Operations() {
		fmt.Fprintf(&b, "| %s |", op)
		for _, s := range States {
			made, external := mark(s, op, false), mark(s, op, true)
			if made == external {
				fmt.Fprintf(&b, " %s |", made)
			} else {
				fmt.Fprintf(&b, " %s / %s |", made, external)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## What may follow\n\n| state | may become |\n| --- | --- |\n")
	for _, from := range append([]State{None}, States...) {
		var next []string
		for _, to := range transitions[from] {
			next = append(next, to.name())
		}
		fmt.Fprintf(&b, "| %s | %s |\n", from.name(), strings.Join(next, ", "))
	}
	b.WriteString("\nBesides, a key that was evicted and is replicated again becomes Creating, and one of which peers say that it was deleted becomes PendingDeletion. None is a key that does not exist yet, or no more.\n")
	return b.String()
}

func (s State) name() string {
	if s == None {
		return "None"
	}
	return string(s)
}

// mark is one cell of the page.
func mark(s State, op Operation, external bool) string {
	err := Check(s, op, Facts{External: external})
	if err == nil {
		return "✓"
	}
	var e *Error
	if !errors.As(err, &e) {
		return "?" // an operation or a state without a row; a test forbids it
	}
	return map[Reason]string{ReasonDisabled: "D", ReasonInvalidState: "S", ReasonUnsupported: "U"}[e.Reason]
}
