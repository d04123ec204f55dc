package mrk

import "context"

// SetRotation changes the setting of automatic rotation, which members share.
func (s *Set) SetRotation(ctx context.Context, signer Signer, r Rotation) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	st.Rotation = r
	return s.publish(ctx, signer, st)
}
