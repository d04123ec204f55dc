package gateway

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

var exportabilities = map[keyops.Exportability]kmsv1.Exportability{
	keyops.ExportNever:         kmsv1.Exportability_EXPORTABILITY_NEVER,
	keyops.ExportTransportOnly: kmsv1.Exportability_EXPORTABILITY_TRANSPORT_ONLY,
	keyops.ExportUnknown:       kmsv1.Exportability_EXPORTABILITY_UNSPECIFIED,
}

var boundaries = map[string]kmsv1.Boundary{
	"token":    kmsv1.Boundary_BOUNDARY_TOKEN,
	"api-only": kmsv1.Boundary_BOUNDARY_API_ONLY,
	"none":     kmsv1.Boundary_BOUNDARY_NONE,
}

func toMetadata(k keyops.KeyMetadata) *kmsv1.KeyMetadata {
	m := &kmsv1.KeyMetadata{
		AccountId:            string(k.AccountID),
		KeyId:                string(k.KeyID),
		Arn:                  k.ARN,
		CreationDate:         toTime(k.CreationDate),
		Enabled:              k.Enabled,
		Description:          k.Description,
		KeyUsage:             string(k.KeyUsage),
		KeyState:             k.KeyState,
		Origin:               string(k.Origin),
		KeyManager:           "CUSTOMER",
		KeySpec:              string(k.KeySpec),
		EncryptionAlgorithms: toStrings(k.EncryptionAlgorithms),
		SigningAlgorithms:    toStrings(k.SigningAlgorithms),
		MacAlgorithms:        toStrings(k.MacAlgorithms),
		MultiRegion:          k.MultiRegion,
		CurrentKeyMaterialId: k.CurrentKeyMaterialID,
		Exportability:        exportabilities[k.Exportability],

		KeyAgreementAlgorithms:      toStrings(k.KeyAgreementAlgorithms),
		DeletionDate:                toTime(k.DeletionDate),
		PendingDeletionWindowInDays: uint32(k.PendingDeletionWindowInDays),
		ExpirationModel:             string(k.ExpirationModel),
		ValidTo:                     toTime(k.ValidTo),
		ExpectedDeletionDate:        toTime(k.ExpectedDeletionDate),
		RotationDue:                 k.RotationDue,
	}
	if c := k.MultiRegionConfiguration; c != nil {
		m.MultiRegionConfiguration = &kmsv1.MultiRegionConfiguration{
			MultiRegionKeyType: string(c.MultiRegionKeyType),
			PrimaryKey:         toMultiRegionKey(c.PrimaryKey),
			Generation:         c.Epoch.Generation,
			EpochNumber:        c.Epoch.Number,
			Certificate:        c.Certificate,
		}
		for _, r := range c.ReplicaKeys {
			m.MultiRegionConfiguration.ReplicaKeys = append(m.MultiRegionConfiguration.ReplicaKeys, toMultiRegionKey(r))
		}
	}
	return m
}

func toMultiRegionKey(k keyops.MultiRegionKey) *kmsv1.MultiRegionKey {
	return &kmsv1.MultiRegionKey{Arn: k.ARN, Region: string(k.Region), MemberStatus: k.Member, DeletionDate: toTime(k.DeletionDate)}
}

func fromTags(tags []*kmsv1.Tag) []keyops.Tag {
	var out []keyops.Tag
	for _, t := range tags {
		out = append(out, keyops.Tag{Key: t.GetTagKey(), Value: t.GetTagValue()})
	}
	return out
}

func toTags(tags []keyops.Tag) []*kmsv1.Tag {
	var out []*kmsv1.Tag
	for _, t := range tags {
		out = append(out, &kmsv1.Tag{TagKey: t.Key, TagValue: t.Value})
	}
	return out
}

func toStrings[T ~string](in []T) []string {
	var out []string
	for _, s := range in {
		out = append(out, string(s))
	}
	return out
}

// toTime leaves out a time that is not known.
func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// fromTime reads a time that may be left out.
func fromTime(t *timestamppb.Timestamp, field string) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.CheckValid() != nil {
		return time.Time{}, &keyops.Error{Reason: keyops.ErrValidation, Message: field + " is not a time between the years 1 and 9999."}
	}
	return t.AsTime(), nil
}
