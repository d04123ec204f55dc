package keyops

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// StoreInspection is what operators are told of a store.
type StoreInspection struct {
	seal.Inspection
	Witnessed seal.Head // the highest head that a checkpoint has seen; zero if there is none
	Behind    error     // seal.ErrRolledBack or seal.ErrForked, or nil
}

// Err returns why a daemon does not believe all of the store, or nil.
func (in StoreInspection) Err() error {
	switch {
	case in.Behind != nil:
		return in.Behind
	case len(in.Findings) > 0:
		return &in.Findings[0]
	}
	return nil
}

// maxShown bounds how many findings a request spells out. The others count by their hash.
const maxShown = 100

// details are the inspection in words. Any other state of the store, or of what was
// witnessed of it, has other words.
func (in StoreInspection) details() []approval.Detail {
	sum := sha256.New()
	for i := range in.Findings {
		fmt.Fprintf(sum, "%s\n", describe(in.Findings[i]))
	}
	rolledBack := "no"
	if in.Behind != nil {
		rolledBack = "yes: " + in.Behind.Error()
	}
	d := []approval.Detail{
		{Name: "store head", Text: in.Head.String()},
		{Name: "witnessed head", Text: in.Witnessed.String()},
		{Name: "rolled back", Text: rolledBack},
		{Name: "contents", Text: fmt.Sprintf("%d rows with hash %x", in.Rows, in.Contents)},
		{Name: "findings", Text: fmt.Sprintf("%d with hash %s", len(in.Findings), hex.EncodeToString(sum.Sum(nil)))},
	}
	for _, f := range in.Findings[:min(len(in.Findings), maxShown)] {
		d = append(d, approval.Detail{Name: "finding", Text: describe(f)})
	}
	return d
}

func describe(f seal.Finding) string {
	return fmt.Sprintf("%s %s %s, version %d", f.Problem, f.Kind, f.ID, f.Version)
}
