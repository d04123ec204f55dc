package seal

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// ErrSeal says that a row does not carry the seal of its present contents.
var ErrSeal = errors.New("seal does not match")

const (
	rowLabel = "keyferry/row/v1"
	// rowSchema is the version of the list of fields in message. Bodies carry their own.
	rowSchema = 1
	// minMAC refuses a truncated HMAC, which could be guessed.
	minMAC = 32
)

// MACer computes the HMAC of a message with the seal key, inside the token.
type MACer interface {
	MAC(ctx context.Context, message []byte) ([]byte, error)
}

// Sealer makes and checks the seals of one instance's rows.
type Sealer struct {
	macer    MACer
	instance region.InstanceID
}

// NewSealer returns a Sealer. Rows of one instance never pass for those of another, though
// both may have been sealed by one token.
func NewSealer(m MACer, instance region.InstanceID) Sealer {
	return Sealer{macer: m, instance: instance}
}

// message returns the bytes that are sealed.
func (s Sealer) message(row store.Row) []byte {
	w := wire.NewWriter(256 + len(row.ID) + len(row.Body))
	w.String(rowLabel)
	w.String(string(s.instance))
	w.String(string(row.Kind))
	w.String(row.ID)
	w.Uint(rowSchema)
	w.Uint(row.Version)
	w.Bytes(row.Body)
	return w.Out()
}

// Seal returns the seal of the row's name, version and body.
func (s Sealer) Seal(ctx context.Context, row store.Row) ([]byte, error) {
	mac, err := s.macer.MAC(ctx, s.message(row))
	if err != nil {
		return nil, fmt.Errorf("sealing %s %s: %w", row.Kind, row.ID, err)
	}
	if len(mac) < minMAC {
		return nil, fmt.Errorf("sealing %s %s: the token answered %d bytes, want at least %d", row.Kind, row.ID, len(mac), minMAC)
	}
	return mac, nil
}

// Check returns an error that wraps ErrSeal if the row's seal is not its own. Any other
// error means that the token could not tell.
func (s Sealer) Check(ctx context.Context, row store.Row) error {
	want, err := s.Seal(ctx, row)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, row.Seal) != 1 {
		return fmt.Errorf("checking %s %s: %w", row.Kind, row.ID, ErrSeal)
	}
	return nil
}
