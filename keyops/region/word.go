package region

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// signWord makes a statement for the Region's own directory, in the name of that Region.
func signWord(ctx context.Context, own Descriptor, s statement.Signer, purpose statement.Purpose, payload []byte) (statement.File, error) {
	signed, err := statement.Sign(ctx, s, purpose, payload)
	if err != nil {
		return statement.File{}, err
	}
	pub, err := own.PublicKey()
	if err != nil {
		return statement.File{}, err
	}
	return statement.NewFile(signed, pub)
}

// keepWord writes a statement down, unless there is one already.
func keepWord(path string, f statement.File) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := statement.WriteJSON(path, f); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// loadWord reads the payload of a statement that the Region own has signed.
func loadWord(path string, own Descriptor, purpose statement.Purpose) (*wire.Reader, error) {
	var f statement.File
	if err := statement.ReadJSON(path, &f); err != nil {
		return nil, err
	}
	s, err := f.Signed(purpose)
	if err != nil {
		return nil, err
	}
	if err := own.Verify(s); err != nil {
		return nil, err
	}
	return wire.NewReader(s.Payload), nil
}

// decodeTime reads a time to the second.
func decodeTime(in *wire.Reader) time.Time {
	at := in.Uint()
	if at > 1<<40 {
		in.Fail("time %d is beyond any calendar", at)
	}
	return time.Unix(int64(at), 0).UTC()
}
