package policy

import (
	"errors"
	"fmt"
)

// ErrLockout is wrapped by the errors of SafeToPut.
var ErrLockout = errors.New("the new key policy will not allow you to update the key policy in the future")

// SafeToPut checks that whoever gives a key this policy can give it another one afterwards,
// or one typing error makes a key that nobody can manage any more. req is the call that
// brings the policy; its Resource is the key's ARN, also while the key is being created. The
// next PutKeyPolicy is taken to come from the same place under the same circumstances.
// Grants cannot allow it, so they are not asked.
func SafeToPut(keyPolicy *Policy, req Request, identity []*Policy) error {
	req.Action = "kms:PutKeyPolicy"
	if d := Decide(req, keyPolicy, identity); !d.Allowed {
		return fmt.Errorf("%w: %s (%s)", ErrLockout, d.Reason, d.Statement)
	}
	return nil
}
