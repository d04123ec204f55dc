package keyops

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/policy"
)

// ReEncrypt opens a ciphertext and seals what was in it under another key, another material
// or another context. It needs kms:ReEncryptFrom on the one key and kms:ReEncryptTo on the
// other, each of which a grant may give.
func (s *Service) ReEncrypt(ctx context.Context, caller Caller, in ReEncryptInput) (ReEncryptOutput, error) {
	from := s.opens(in.SourceKeyID, in.CiphertextBlob, in.SourceEncryptionContext, in.SourceEncryptionAlgorithm)
	to := target{
		ref: in.DestinationKeyID, tokens: in.GrantTokens, context: in.DestinationEncryptionContext,
		says: saysEncrypting(in.DestinationEncryptionAlgorithm), from: &from, invalid: from.invalid,
		details: map[string]string{"sourceEncryptionContext": contextText(in.SourceEncryptionContext)},
	}
	return do(ctx, s, caller, "ReEncrypt", to, func(ctx context.Context, c *call) (ReEncryptOutput, error) {
		opened, err := s.decrypt(ctx, c.source, cipherCall{
			operation: c.name, field: "sourceEncryptionAlgorithm", data: in.CiphertextBlob,
			context: in.SourceEncryptionContext, algorithm: in.SourceEncryptionAlgorithm, dryRun: in.DryRun,
		})
		// A dry run goes on to the other key, which may refuse.
		if err != nil && !(in.DryRun && errors.Is(err, ErrDryRun)) {
			return ReEncryptOutput{}, err
		}
		defer clear(opened.data)
		sealed, err := s.encrypt(ctx, c.key, cipherCall{
			operation: c.name, field: "destinationEncryptionAlgorithm", data: opened.data,
			context: in.DestinationEncryptionContext, algorithm: in.DestinationEncryptionAlgorithm, dryRun: in.DryRun,
		})
		if err != nil {
			return ReEncryptOutput{}, err
		}
		return ReEncryptOutput{
			CiphertextBlob: sealed.data, SourceKeyID: c.source.arn, KeyID: c.key.arn,
			SourceEncryptionAlgorithm: opened.algorithm, DestinationEncryptionAlgorithm: sealed.algorithm,
			SourceKeyMaterialID: opened.material, DestinationKeyMaterialID: sealed.material,
		}, nil
	})
}

// admitBoth is admitKey for the one operation that is on two keys.
func (s *Service) admitBoth(c *call, t target) error {
	granted, err := s.checkTokens(c, t.tokens)
	if err != nil {
		return err
	}
	from, err := s.resolve(c, *t.from)
	if err != nil {
		return err
	}
	to, err := s.resolve(c, t)
	if err != nil {
		return err
	}
	c.record.resource(from.named, from.id)
	c.record.resourceToo(to.named, to.id)
	same := say{policy.ReEncryptOnSameKey, strconv.FormatBool(from.id == to.id)}
	source := c.asker
	source.encryption, source.alias, source.says = t.from.context, from.alias, append(slices.Clone(t.from.says), same)
	if c.source, err = s.permitted(c, &source, "kms:ReEncryptFrom", from, ""); err != nil {
		return err
	}
	if id, ok := c.record.Details["byGrant"]; ok {
		c.record.detail("bySourceGrant", id)
		delete(c.record.Details, "byGrant")
	}
	c.asker.alias, c.asker.says = to.alias, append(slices.Clone(t.says), same)
	if c.key, err = s.permitted(c, &c.asker, "kms:ReEncryptTo", to, ""); err != nil {
		return err
	}
	c.record.resource(c.source.arn, c.source.ID)
	c.record.resourceToo(c.key.arn, c.key.ID)
	return s.ready(c, granted, c.source, c.key)
}

// resourceToo names the second key that a call is about.
func (r *record) resourceToo(arn string, id arn.KeyID) {
	r.Resources = append(r.Resources[:1:1], audit.Resource{ARN: arn, KeyID: string(id)})
}

// contextText is an encryption context for a record that has another one in its own field.
func contextText(m map[string]string) string {
	if len(m) == 0 || contextSize(m) > ciphertext.MaxContextSize {
		return ""
	}
	b, err := json.Marshal(m)
	if err != nil {
		return "" // not text, so no ciphertext was ever made with it
	}
	return string(b)
}
