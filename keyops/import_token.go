package keyops

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/wire"
)

// An import token names a wrapping key and the moment at which it expires, under a MAC by
// the seal key over both and the key for which it was handed out. So an expired token, or
// one of another key, is told from a spent one after the wrapping key is long gone.
const importTokenSchema = 1

// importTokenPurpose keeps these MACs apart from the seals of rows.
const importTokenPurpose = "keyferry/import-token/v1"

func (s *Service) makeImportToken(ctx context.Context, key arn.KeyID, object hsm.ID, until time.Time) ([]byte, error) {
	mac, err := s.importTokenMAC(ctx, key, object, until)
	if err != nil {
		return nil, err
	}
	var w wire.Writer
	w.Uint(importTokenSchema)
	w.Bytes(object[:])
	w.Time(until)
	w.Bytes(mac)
	return w.Out(), nil
}

func (s *Service) importTokenMAC(ctx context.Context, key arn.KeyID, object hsm.ID, until time.Time) ([]byte, error) {
	var w wire.Writer
	w.String(importTokenPurpose)
	w.String(string(s.self.Instance))
	w.String(string(key))
	w.Bytes(object[:])
	w.Time(until)
	mac, err := s.token.MAC(ctx, s.sealing, w.Out())
	if err != nil {
		return nil, fmt.Errorf("authenticating an import token: %w", err)
	}
	return mac, nil
}

// openImportToken returns the wrapping key that a token names, if the token is this key's
// and has not expired.
func (s *Service) openImportToken(ctx context.Context, k *Key, token []byte) (hsm.ID, error) {
	bad := refuse(ErrInvalidImportToken, "The import token is not one that GetParametersForImport gave for %s in Region %s; get new parameters, and wrap the key material again.", k.arn, s.self.Region)
	r := wire.NewReader(token)
	if r.Uint() != importTokenSchema {
		return hsm.ID{}, bad
	}
	var object hsm.ID
	r.Fixed(object[:])
	until, mac := r.Time(), r.Bytes(64)
	if r.Done() != nil {
		return hsm.ID{}, bad
	}
	want, err := s.importTokenMAC(ctx, k.ID, object, until)
	if err != nil {
		return hsm.ID{}, err
	}
	if subtle.ConstantTimeCompare(mac, want) != 1 {
		return hsm.ID{}, bad
	}
	if !s.clock().Before(until) {
		return hsm.ID{}, refuse(ErrExpiredImportToken, "The import token expired at %s; get new parameters, and wrap the key material again.", until.Format(time.RFC3339))
	}
	return object, nil
}
