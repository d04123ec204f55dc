package keyops

import (
	"context"
	"crypto/rand"
	"regexp"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/policy"
)

var grantName = regexp.MustCompile(`^[a-zA-Z0-9:/_-]+$`)

// CreateGrant allows one principal some operations on a key, from the moment that it
// returns. A grantee with CreateGrant passes on at most what its own grant has.
func (s *Service) CreateGrant(ctx context.Context, caller Caller, in CreateGrantInput) (CreateGrantOutput, error) {
	g := newGrant(caller, in)
	t := target{ref: in.KeyID, tokens: in.GrantTokens, invalid: s.checkGrant(&g)}
	var kind string
	kind, t.context = g.constraint()
	t.says = []say{{policy.GranteePrincipal, g.Grantee}, {policy.RetiringPrincipal, g.Retiring}, {policy.GrantConstraintType, kind}}
	for _, op := range g.Operations {
		t.says = append(t.says, say{policy.GrantOperations, op})
	}
	if t.invalid == nil {
		t.details = map[string]string{
			"granteePrincipal": g.Grantee, "retiringPrincipal": g.Retiring, "grantConstraintType": kind, "grantOperations": strings.Join(g.Operations, " "),
		}
	}
	return do(ctx, s, caller, "CreateGrant", t, func(ctx context.Context, c *call) (CreateGrantOutput, error) {
		for _, op := range g.Operations {
			if !c.key.grantable(op) {
				return CreateGrantOutput{}, refuse(ErrValidation, "Operation %s cannot be granted on %s, whose key usage is %s.", op, c.key.arn, c.key.Usage)
			}
		}
		if in.DryRun {
			return CreateGrantOutput{}, errDryRun
		}
		var err error
		if g.ID, err = newGrantID(rand.Reader); err != nil {
			return CreateGrantOutput{}, err
		}
		g.Created = s.clock().UTC()
		_, err = s.change(ctx, c.key.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			if i := slices.IndexFunc(k.Grants, func(o Grant) bool { return g.Name != "" && g.asks(&o) }); i >= 0 {
				g.ID = k.Grants[i].ID
				return ErrUnchanged
			}
			if len(k.Grants) >= maxGrants {
				return refuse(ErrLimitExceeded, "%s has %d grants, which is the limit.", k.arn, maxGrants)
			}
			k.addGrant(g)
			return nil
		}, nil)
		if err != nil {
			return CreateGrantOutput{}, err
		}
		c.record.detail("grantId", g.ID)
		return CreateGrantOutput{GrantID: g.ID, GrantToken: grantToken(s.self.Instance, c.key.ID, g.ID)}, nil
	})
}

// newGrant is the grant that a request asks for, still without identity.
func newGrant(caller Caller, in CreateGrantInput) Grant {
	return Grant{
		Grant: policy.Grant{
			Grantee: in.GranteePrincipal, Operations: slices.Sorted(slices.Values(in.Operations)),
			EncryptionContextSubset: in.Constraints.EncryptionContextSubset, EncryptionContextEquals: in.Constraints.EncryptionContextEquals,
		},
		Name: in.Name, Retiring: in.RetiringPrincipal, Issuer: caller.Principal.Account,
	}
}

// checkGrant refuses a grant that cannot exist on any key.
func (s *Service) checkGrant(g *Grant) error {
	if err := s.checkPrincipal("granteePrincipal", g.Grantee); err != nil {
		return err
	}
	if g.Retiring != "" {
		if err := s.checkPrincipal("retiringPrincipal", g.Retiring); err != nil {
			return err
		}
	}
	if g.Name != "" && (len(g.Name) > maxGrantName || !grantName.MatchString(g.Name)) {
		return invalid("name", "have length between 1 and %d and satisfy regular expression pattern: %s", maxGrantName, grantName)
	}
	if len(g.Operations) > maxOperations {
		return invalid("operations", "have length less than or equal to %d", maxOperations)
	}
	// No encryption context could ever satisfy a larger constraint.
	if _, pairs := g.constraint(); contextSize(pairs) > ciphertext.MaxContextSize {
		return invalid("constraints", "have at most %d bytes", ciphertext.MaxContextSize)
	}
	if err := g.Check(); err != nil {
		return &Error{Reason: ErrValidation, Message: err.Error(), cause: err}
	}
	return nil
}

// checkPrincipal refuses what is no principal of this deployment's partition.
func (s *Service) checkPrincipal(field, text string) error {
	p, err := arn.ParsePrincipal(text)
	if err != nil || p.Partition != s.partition {
		return refuse(ErrInvalidArn, "%s '%s' is no principal of partition %s", field, clip(text), s.partition)
	}
	return nil
}

// byUsage lists the operations that grants can allow on keys of a usage, beside those that
// fit all keys.
var byUsage = map[KeyUsage][]string{
	EncryptDecrypt: {
		"Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo",
		"GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
	},
	SignVerify:        {"Sign", "Verify"},
	GenerateVerifyMac: {"GenerateMac", "VerifyMac"},
	KeyAgreement:      {"DeriveSharedSecret"},
}

func (k *Key) grantable(operation string) bool {
	switch operation {
	case "CreateGrant", "DescribeKey", "RetireGrant":
		return true
	case "GetPublicKey":
		return k.use().pair()
	}
	if strings.HasPrefix(operation, "GenerateDataKey") && k.use().pair() {
		return false // only symmetric keys encrypt data keys
	}
	return slices.Contains(byUsage[k.Usage], operation)
}

// ListGrants lists the grants on a key, ordered by grant ID.
func (s *Service) ListGrants(ctx context.Context, caller Caller, in ListGrantsInput) (ListGrantsOutput, error) {
	return do(ctx, s, caller, "ListGrants", target{ref: in.KeyID}, func(_ context.Context, c *call) (ListGrantsOutput, error) {
		n, err := limit(in.Limit, 50, 100)
		if err != nil {
			return ListGrantsOutput{}, err
		}
		after, err := parseMarker(c.name, in.Marker)
		if err != nil {
			return ListGrantsOutput{}, err
		}
		if in.GrantID != "" && !isGrantID(in.GrantID) {
			return ListGrantsOutput{}, errGrantID
		}
		var out ListGrantsOutput
		for i := range c.key.Grants {
			g := &c.key.Grants[i]
			switch {
			case g.ID <= after, in.GrantID != "" && g.ID != in.GrantID, in.GranteePrincipal != "" && g.Grantee != in.GranteePrincipal:
			case len(out.Grants) == n:
				out.Truncated, out.NextMarker = true, marker(c.name, out.Grants[n-1].GrantID)
				return out, nil
			default:
				out.Grants = append(out.Grants, describeGrant(c.key, g))
			}
		}
		return out, nil
	})
}

// ListRetirableGrants lists the grants that name a principal of the caller's account as
// retiring principal, whatever keys they are on, ordered by key and grant.
func (s *Service) ListRetirableGrants(ctx context.Context, caller Caller, in ListRetirableGrantsInput) (ListRetirableGrantsOutput, error) {
	t := target{invalid: s.checkPrincipal("retiringPrincipal", in.RetiringPrincipal)}
	return do(ctx, s, caller, "ListRetirableGrants", t, func(_ context.Context, c *call) (ListRetirableGrantsOutput, error) {
		n, err := limit(in.Limit, 50, 100)
		if err != nil {
			return ListRetirableGrantsOutput{}, err
		}
		after, err := parseMarker(c.name, in.Marker)
		if err != nil {
			return ListRetirableGrantsOutput{}, err
		}
		if p, err := arn.ParsePrincipal(in.RetiringPrincipal); err != nil || p.Account != caller.Principal.Account {
			return ListRetirableGrantsOutput{}, refuse(ErrValidation, "The retiring principal must be of the caller's account %s.", caller.Principal.Account)
		}
		var out ListRetirableGrantsOutput
		refs, more := s.view.retirableAfter(in.RetiringPrincipal, grantRef(after), n)
		for _, ref := range refs {
			id, grant := ref.split()
			if k := s.view.key(id); k != nil {
				if g, ok := k.grant(grant); ok { // it may just have gone
					out.Grants = append(out.Grants, describeGrant(k, g))
				}
			}
		}
		if more {
			out.Truncated, out.NextMarker = true, marker(c.name, string(refs[len(refs)-1]))
		}
		return out, nil
	})
}

func describeGrant(k *Key, g *Grant) GrantListEntry {
	return GrantListEntry{
		KeyID: k.arn, GrantID: g.ID, Name: g.Name, CreationDate: g.Created,
		GranteePrincipal: g.Grantee, RetiringPrincipal: g.Retiring, IssuingAccount: g.Issuer, Operations: g.Operations,
		Constraints: GrantConstraints{EncryptionContextSubset: g.EncryptionContextSubset, EncryptionContextEquals: g.EncryptionContextEquals},
	}
}

var errGrantID = &Error{Reason: ErrInvalidGrantID, Message: "A grant ID has 64 lower-case hexadecimal digits."}

func noGrant(id string) error { return refuse(ErrNotFound, "Grant ID %s not found", id) }

// RevokeGrant takes a grant away. What it allowed is refused from the moment that this
// returns.
func (s *Service) RevokeGrant(ctx context.Context, caller Caller, in RevokeGrantInput) (RevokeGrantOutput, error) {
	t := target{ref: in.KeyID}
	if !isGrantID(in.GrantID) {
		t.invalid = errGrantID
	} else {
		t.details = map[string]string{"grantId": in.GrantID}
	}
	return do(ctx, s, caller, "RevokeGrant", t, func(ctx context.Context, c *call) (RevokeGrantOutput, error) {
		return RevokeGrantOutput{}, s.endGrant(ctx, c, in.GrantID, in.DryRun, noGrant(in.GrantID))
	})
}

// RetireGrant ends a grant that has done its work.
func (s *Service) RetireGrant(ctx context.Context, caller Caller, in RetireGrantInput) (RetireGrantOutput, error) {
	t := target{ref: in.KeyID, retires: in.GrantID}
	gone := noGrant(in.GrantID)
	switch {
	case (in.GrantToken != "") == (in.KeyID != "" || in.GrantID != ""):
		t.invalid = refuse(ErrValidation, "Please specify either a grant token, or a key ARN and a grant ID.")
	case len(in.GrantToken) > maxToken:
		t.invalid = invalid("grantToken", "have length less than or equal to %d", maxToken)
	case in.GrantToken != "":
		gone = errGrantToken
		k, g, err := s.named(in.GrantToken)
		if t.invalid = err; err == nil {
			t.ref, t.retires = k.arn, g.ID
		}
	case !isGrantID(in.GrantID):
		t.invalid = errGrantID
	}
	if t.invalid == nil {
		t.details = map[string]string{"grantId": t.retires}
	}
	return do(ctx, s, caller, "RetireGrant", t, func(ctx context.Context, c *call) (RetireGrantOutput, error) {
		return RetireGrantOutput{}, s.endGrant(ctx, c, t.retires, in.DryRun, gone)
	})
}

// endGrant removes a grant. gone is what a caller hears who may, when there is none.
func (s *Service) endGrant(ctx context.Context, c *call, id string, dryRun bool, gone error) error {
	_, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if _, there := k.grant(id); !there {
			return gone
		}
		if err := s.still(c, k); err != nil {
			return err
		}
		if dryRun {
			return errDryRun
		}
		k.takeGrant(id)
		return nil
	}, nil)
	return err
}
