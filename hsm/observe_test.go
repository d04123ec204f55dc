package hsm

import (
	"errors"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestObserveAndSessions asks who is told of operations, and how many sessions are at work
// during one.
func TestObserveAndSessions(t *testing.T) {
	softhsmtest.Used(t)
	k, f := openFaulty(t, 2)
	type seen struct {
		operation string
		took      time.Duration
		err       error
	}
	told := make(chan seen, 10)
	id := material(t, k, testAES)
	k.cfg.Observe = func(operation string, took time.Duration, err error) { told <- seen{operation, took, err} }
	if used, total := k.Sessions(); used != 0 || total != 2 {
		t.Errorf("%d of %d sessions are at work before anybody calls", used, total)
	}
	f.set(func(function string) error {
		if function == "C_Encrypt" {
			if used, total := k.Sessions(); used != 1 || total != 2 {
				t.Errorf("%d of %d sessions are at work during a call", used, total)
			}
		}
		return nil
	})
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), []byte("text")); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got.operation != "EncryptGCM" || got.err != nil || got.took <= 0 {
		t.Errorf("told of %+v", got)
	}
	if _, err := k.DecryptGCM(t.Context(), id, make([]byte, 12), []byte("aad"), make([]byte, 20)); !errors.Is(err, ErrDataInvalid) {
		t.Fatal(err)
	}
	if got := <-told; got.operation != "DecryptGCM" || !errors.Is(got.err, ErrDataInvalid) {
		t.Errorf("told of %+v", got)
	}
	c := k.conn.Swap(nil)
	defer k.conn.Store(c)
	if used, total := k.Sessions(); used != 0 || total != 0 {
		t.Errorf("%d of %d sessions while the token is away", used, total)
	}
}
