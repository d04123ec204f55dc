package policy

import "slices"

// Identities holds the identity policies of a deployment's principals, from one document
// whose statements say in Principal to whom they are attached: to users and roles by ARN,
// or to a whole account, its root included, by its number or its root's ARN. In the zero
// value nothing is attached to anybody.
type Identities struct {
	// attached maps a principal's ARN, an account's ARN or an account's number to all
	// policies that are in force for it, those of its account included.
	attached map[string][]*Policy
}

// ParseIdentities compiles an identities file. Its errors are *Error and wrap ErrMalformed.
func ParseIdentities(data []byte) (*Identities, error) {
	file, err := parse(data, identitiesFile, MaxIdentitiesSize, MaxIdentities)
	if err != nil {
		return nil, err
	}
	own := map[string]*Policy{}
	attach := func(to string, s *statement) {
		if own[to] == nil {
			own[to] = &Policy{kind: IdentityPolicy, name: file.name}
		}
		own[to].statements = append(own[to].statements, s)
	}
	for _, s := range file.statements {
		for to := range s.who.named {
			attach(to, s)
		}
		for to := range s.who.accounts {
			attach(to, s)
		}
	}
	ids := &Identities{attached: make(map[string][]*Policy, len(own))}
	for to := range own {
		keys := []string{to}
		if who, ok := parsePrincipal(to); ok {
			keys = append(keys, who.accountARN, who.account)
		} else if who, ok := parsePrincipal(to + ":root"); ok {
			keys = append(keys, who.account)
		}
		for _, key := range keys {
			if p := own[key]; p != nil {
				ids.attached[to] = append(ids.attached[to], p)
			}
		}
		ids.attached[to] = slices.Clip(ids.attached[to])
	}
	return ids, nil
}

// For returns the policies that are attached to a principal, for Decide. The result is
// shared and must not be changed.
func (ids *Identities) For(principalARN string) []*Policy {
	who, ok := parsePrincipal(principalARN)
	if !ok {
		return nil
	}
	for _, key := range [...]string{who.arn, who.accountARN, who.account} {
		if policies, ok := ids.attached[key]; ok {
			return policies
		}
	}
	return nil
}
