package keyops

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/seal"
)

// CreateKey makes a key and its first material. For a multi-Region key this Region becomes
// the primary key's Region.
func (s *Service) CreateKey(ctx context.Context, caller Caller, in CreateKeyInput) (CreateKeyOutput, error) {
	if in.KeySpec == "" {
		in.KeySpec = SymmetricDefault
	}
	if in.KeyUsage == "" && in.KeySpec == SymmetricDefault {
		in.KeyUsage = EncryptDecrypt
	}
	if in.Origin == "" {
		in.Origin = OriginToken
	}
	t := target{says: append(saysOfNew(in.KeySpec, in.KeyUsage, in.Origin, in.MultiRegion, Primary), bypass(in.BypassPolicyLockoutSafetyCheck))}
	return do(ctx, s, caller, "CreateKey", t, func(ctx context.Context, c *call) (CreateKeyOutput, error) {
		k, err := s.newKey(c, in)
		if err != nil {
			return CreateKeyOutput{}, err
		}
		c.record.resource(s.keyARN(k.Account, k.ID), k.ID)
		if err := s.create(ctx, k); err != nil {
			return CreateKeyOutput{}, err
		}
		return CreateKeyOutput{KeyMetadata: s.describe(ctx, k), Warnings: s.warnings(k)}, nil
	})
}

// warnings say what the maker of a key should know.
func (s *Service) warnings(k *Key) []string {
	if s.token.Info().Backup != hsm.BackupNone || k.Origin == OriginExternal {
		return nil
	}
	if k.ID.MultiRegion() {
		return []string{"Nothing is known to back this Region's token up: replicate the key, or it is lost with the token."}
	}
	return []string{"Nothing is known to back this Region's token up, and single-Region keys are in no other: the key is lost with the token."}
}

// newKey checks a request and returns the key that it asks for, still without material.
func (s *Service) newKey(c *call, in CreateKeyInput) (*Key, error) {
	if in.KeyUsage == "" && in.KeySpec.uses() != nil {
		return nil, refuse(ErrValidation, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
	}
	if err := s.possible(in.KeySpec, in.KeyUsage, in.Origin, in.MultiRegion); err != nil {
		return nil, err
	}
	words, err := s.words(&c.asker, in.Policy, in.Description, in.Tags, in.BypassPolicyLockoutSafetyCheck)
	if err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 {
		if d := s.decide(&c.asker, "kms:TagResource", "*", nil); !d.Allowed {
			return nil, s.denied(c, "kms:TagResource", "*", d)
		}
	}
	state := keystate.Enabled
	if in.Origin == OriginExternal {
		state = keystate.PendingImport
	}
	return &Key{
		ID: arn.NewKeyID(in.MultiRegion), Account: c.caller.Principal.Account,
		Spec: in.KeySpec, Usage: in.KeyUsage, Origin: in.Origin,
		Description: in.Description, Policy: words.policy, Tags: words.tags,
		Created: s.clock().UTC().Truncate(time.Millisecond), Creator: c.caller.Principal.String(), State: state,
	}, nil
}

// possible refuses a kind of key that does not exist, or that this token cannot hold.
func (s *Service) possible(spec KeySpec, usage KeyUsage, origin Origin, multiRegion bool) error {
	if spec.uses() == nil {
		return unknownSpec(spec)
	}
	row, ok := spec.find(usage)
	if !ok {
		return refuse(ErrValidation, "KeyUsage %s is not compatible with KeySpec %s", clip(string(usage)), spec)
	}
	can := s.token.Capabilities().Of(row.token, row.tokenUsage)
	switch origin {
	case OriginToken:
	case OriginExternal:
		switch {
		case !can.Use:
			return refuse(ErrUnsupportedOperation, "This Region's token cannot hold %s keys: %s.", spec, can.Limit)
		case len(s.token.Capabilities().ImportSchemes) == 0:
			return refuse(ErrUnsupportedOperation, "This Region's token cannot take imported key material; use Origin %s.", OriginToken)
		}
		return nil
	default:
		return invalid("origin", "satisfy enum value set: [%s, %s]", OriginToken, OriginExternal)
	}
	switch {
	case !can.Generate || !can.Use:
		return refuse(ErrUnsupportedOperation, "This Region's token cannot hold %s keys: %s.", spec, can.Limit)
	case multiRegion && !can.Wrap:
		return refuse(ErrUnsupportedOperation, "This Region's token cannot pass on %s keys, so they cannot be multi-Region keys: %s.", spec, can.Limit)
	}
	return nil
}

// words are the checked free texts of a new key or replica.
type words struct {
	policy []byte
	tags   map[string]string
}

// bypass is what conditions may ask of the lockout check.
func bypass(skip bool) say {
	return say{policy.BypassPolicyLockoutSafetyCheck, strconv.FormatBool(skip)}
}

// words checks policy, description and tags of a new key of the asker's account.
func (s *Service) words(a *asker, document, description string, tags []Tag, skipLockout bool) (words, error) {
	var w words
	if err := checkDescription(description); err != nil {
		return w, err
	}
	tagMap, err := checkTags(tags)
	if err != nil {
		return w, err
	}
	w.tags, w.policy = tagMap, []byte(document)
	if document == "" {
		w.policy = policy.DefaultKeyPolicy(s.partition, string(a.principal.Account))
		return w, nil
	}
	parsed, err := parsePolicy(w.policy)
	if err != nil || skipLockout {
		return w, err
	}
	return w, s.safeToPut(a, parsed, s.keyARN(a.principal.Account, arn.NewKeyID(false)), nil)
}

// create makes the key's material and the key, in the write order.
func (s *Service) create(ctx context.Context, k *Key) error {
	if err := s.underQuota(k.Account, k.Creator); err != nil {
		return err // before the token is troubled; asked again in the transaction
	}
	if k.Origin == OriginExternal {
		return s.createEmpty(ctx, k)
	}
	row := k.use()
	w := &write{
		intent: intent{by: byCreate, key: k.ID, object: hsm.NewID()},
		spec:   k.Spec,
		use:    row,
	}
	// The material ID follows from the material, so the label cannot have it yet.
	spec := hsm.Spec{Role: k.role(), Algorithm: row.token, Usage: row.tokenUsage, Name: label(k.ID, material.ID{})}
	w.make = func(ctx context.Context) ([]byte, error) {
		spki, err := s.token.Generate(ctx, spec, w.object)
		if err != nil {
			return nil, fmt.Errorf("generating material: %w", err)
		}
		return spki, nil
	}
	w.settle = func(ctx context.Context, id material.ID, spki []byte) error {
		m := Material{ID: id, Object: w.object, SPKI: spki, Created: s.clock().UTC(), Local: true, Reserved: countStep, watch: &watch{}}
		m.watch.proven.Store(true) // identify has just computed it
		k.Materials = []Material{m}
		k.makeCurrent(id)
		if err := s.openSet(ctx, k, m); err != nil {
			return err
		}
		return s.commit(ctx, func(tx *seal.Tx) error {
			if err := s.underQuota(k.Account, k.Creator); err != nil {
				return err
			}
			return tx.Delete(kindIntent, w.object.String())
		}, pair{now: k})
	}
	return s.perform(ctx, w)
}

// createEmpty makes a key whose material is imported later.
func (s *Service) createEmpty(ctx context.Context, k *Key) error {
	if err := s.openSet(ctx, k, Material{}); err != nil {
		return err
	}
	return s.commit(ctx, func(*seal.Tx) error { return s.underQuota(k.Account, k.Creator) }, pair{now: k})
}

// openSet makes the first facts of a multi-Region key (rule 1).
func (s *Service) openSet(ctx context.Context, k *Key, m Material) error {
	if !k.ID.MultiRegion() {
		return nil
	}
	var first mrk.Listed // of zeros while the material is still to be imported
	if !m.ID.IsZero() {
		first = mrk.Listed{ID: m.ID, SPKI: m.SPKI, Created: m.Created.Unix()}
	}
	nonce, err := mrk.NewNonce(rand.Reader)
	if err != nil {
		return err
	}
	k.Set, err = mrk.Create(ctx, s.Signer(), s.me(), mrk.Properties{
		Key: k.ID, Account: k.Account, Spec: string(k.Spec), Usage: string(k.Usage), Origin: string(k.Origin), Created: k.Created.Unix(),
	}, first, nonce)
	if err != nil {
		return fmt.Errorf("making the facts of key %s: %w", k.ID, err)
	}
	return s.settle(ctx, nil, k)
}

// underQuota refuses a key more than an account, or one principal of it, may have here.
func (s *Service) underQuota(a arn.Account, principal string) error {
	if s.view.count(a) >= s.quota {
		return refuse(ErrLimitExceeded, "Account %s has %d keys in Region %s, which is its quota.", a, s.quota, s.self.Region)
	}
	if s.principalQuota > 0 && s.view.madeBy(principal) >= s.principalQuota {
		return refuse(ErrLimitExceeded, "User: %s has made %d keys in Region %s, which is the quota of each principal. Delete some that are not needed, or ask for a higher limits.keys_per_principal.", principal, s.principalQuota, s.self.Region)
	}
	return nil
}

// label names a material's object in the token, so that an object whose row was lost still
// says what it is: <key ID>/<material ID>, or - for a material that was made there.
func label(key arn.KeyID, id material.ID) string {
	if id.IsZero() {
		return string(key) + "/-"
	}
	return string(key) + "/" + id.String()
}

var errLabel = errors.New("label is not that of a key material")

func parseLabel(name string) (arn.KeyID, material.ID, error) {
	key, rest, ok := strings.Cut(name, "/")
	id, err := arn.ParseKeyID(key)
	if !ok || err != nil {
		return "", material.ID{}, errLabel
	}
	if rest == "-" {
		return id, material.ID{}, nil
	}
	m, err := material.Parse(rest)
	if err != nil {
		return "", material.ID{}, errLabel
	}
	return id, m, nil
}

// importLabel names imported material, whose ID is not known before it is in the token.
func importLabel(key arn.KeyID) string { return label(key, material.ID{}) }
