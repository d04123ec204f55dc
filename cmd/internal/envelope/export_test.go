package envelope

import "filippo.io/age"

// NewRecipient is one to compare with age's own.
func NewRecipient(wrap Wrap) age.Recipient { return &recipient{wrap: wrap} }

// NewIdentity is one to compare with age's own.
func NewIdentity(unwrap Unwrap) age.Identity { return &identity{unwrap: unwrap} }
