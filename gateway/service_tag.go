package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *keyService) TagResource(ctx context.Context, r *kmsv1.TagResourceRequest) (*kmsv1.TagResourceResponse, error) {
	if _, err := s.keys.TagResource(ctx, callerOf(ctx), keyops.TagResourceInput{KeyID: r.GetKeyId(), Tags: fromTags(r.GetTags())}); err != nil {
		return nil, err
	}
	return &kmsv1.TagResourceResponse{}, nil
}

func (s *keyService) UntagResource(ctx context.Context, r *kmsv1.UntagResourceRequest) (*kmsv1.UntagResourceResponse, error) {
	if _, err := s.keys.UntagResource(ctx, callerOf(ctx), keyops.UntagResourceInput{KeyID: r.GetKeyId(), TagKeys: r.GetTagKeys()}); err != nil {
		return nil, err
	}
	return &kmsv1.UntagResourceResponse{}, nil
}

func (s *keyService) ListResourceTags(ctx context.Context, r *kmsv1.ListResourceTagsRequest) (*kmsv1.ListResourceTagsResponse, error) {
	out, err := s.keys.ListResourceTags(ctx, callerOf(ctx), keyops.ListResourceTagsInput{
		KeyID: r.GetKeyId(), Limit: int(r.GetLimit()), Marker: r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListResourceTagsResponse{Tags: toTags(out.Tags), NextMarker: out.NextMarker, Truncated: out.Truncated}, nil
}

func (s *keyService) UpdateKeyDescription(ctx context.Context, r *kmsv1.UpdateKeyDescriptionRequest) (*kmsv1.UpdateKeyDescriptionResponse, error) {
	_, err := s.keys.UpdateKeyDescription(ctx, callerOf(ctx), keyops.UpdateKeyDescriptionInput{KeyID: r.GetKeyId(), Description: r.GetDescription()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.UpdateKeyDescriptionResponse{}, nil
}
