package bearer

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

const (
	// keysAge is after how long keys at a URL are fetched again, so that one that the issuer
	// has withdrawn is soon worth nothing.
	keysAge = 10 * time.Minute
	// retryAge is after how long a fetch that failed is tried again.
	retryAge = 30 * time.Second
	// staleAge is for how long keys are used while the URL does not answer.
	staleAge = 24 * time.Hour
	// unknownKeyPause is the shortest time between fetches because of unknown key IDs, which
	// anybody can make up.
	unknownKeyPause = 10 * time.Second

	maxSet  = 256 << 10
	maxKeys = 100
	minRSA  = 2048
)

// keySet is the issuer's keys by key ID.
type keySet struct {
	read    func(context.Context) ([]byte, error)
	remote  bool
	now     func() time.Time
	unknown *rate.Limiter
	flight  singleflight.Group // one reading at a time, whoever asks

	mu   sync.Mutex
	keys map[string]publicKey // guarded by mu; nil before the first success
	text []byte               // guarded by mu; what keys were made of
	made time.Time            // guarded by mu; when text was last seen
	next time.Time            // guarded by mu; when to look again
	err  error                // guarded by mu; of the last attempt
}

func newKeySet(c Config) (*keySet, error) {
	s := &keySet{now: c.Now, unknown: rate.NewLimiter(rate.Every(unknownKeyPause), 1), remote: c.KeysURL != ""}
	if s.remote {
		var err error
		s.read, err = fetcher(c.KeysURL, c.KeysCAFile)
		return s, err
	}
	s.read = fileReader(c.KeysFile)
	_, err := s.refresh(context.Background(), true)
	return s, err
}

// find returns the key of an ID. An unknown one may be new, so the set is read again, but
// not at every call: whoever has no token at all can ask for that.
func (s *keySet) find(ctx context.Context, id string) (publicKey, error) {
	if id == "" {
		return publicKey{}, ErrUnknownKey
	}
	if key, ok, err := s.get(id); ok || err != nil {
		return key, err
	}
	waiting := s.flight.DoChan("unknown key", func() (any, error) {
		if !s.unknown.AllowN(s.now(), 1) {
			return nil, nil
		}
		// Not the caller's context: others wait for this too, and it has a bound of its own.
		return s.refresh(context.Background(), true)
	})
	select {
	case <-waiting:
	case <-ctx.Done():
		return publicKey{}, ctx.Err()
	}
	key, ok, err := s.get(id)
	switch {
	case err != nil:
		return publicKey{}, err
	case ok:
		return key, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return publicKey{}, ErrNoKeys
	}
	return publicKey{}, ErrUnknownKey
}

func (s *keySet) get(id string) (publicKey, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remote && s.keys != nil && s.now().Sub(s.made) > staleAge {
		return publicKey{}, false, ErrNoKeys
	}
	key, ok := s.keys[id]
	return key, ok, nil
}

// refresh reads the set again if it is due. Until then the outcome of the last reading
// stands.
func (s *keySet) refresh(ctx context.Context, always bool) (bool, error) {
	s.mu.Lock()
	due, standing := always || !s.now().Before(s.next), s.err
	s.mu.Unlock()
	if !due {
		return false, standing
	}
	waiting := s.flight.DoChan("keys", func() (any, error) { return s.load() })
	select {
	case r := <-waiting:
		changed, _ := r.Val.(bool)
		return changed, r.Err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// load reads the set. It is called by one goroutine at a time.
func (s *keySet) load() (changed bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	text, err := s.read(ctx)
	var keys map[string]publicKey
	if err == nil {
		keys, err = parseSet(text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.err = err
	if err != nil {
		s.next = now.Add(retryAge)
		return false, err
	}
	changed = !bytes.Equal(text, s.text)
	s.keys, s.text, s.made, s.next = keys, text, now, now.Add(keysAge)
	if !s.remote {
		s.next = now // a file costs nothing to look at
	}
	return changed, nil
}

// parseSet reads a JWK set. Keys that are for something else are passed over, as the
// standard demands; a set with a secret in it is refused, since it is no longer one.
func parseSet(text []byte) (map[string]publicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("reading the issuer's keys: not a JWK set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("reading the issuer's keys: %d keys, at most %d are taken", len(set.Keys), maxKeys)
	}
	keys := map[string]publicKey{}
	for i, raw := range set.Keys {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil {
			return nil, fmt.Errorf("reading the issuer's keys: key %d is no object", i+1)
		}
		for _, secret := range []string{"d", "k", "p", "q", "dp", "dq", "qi", "priv"} {
			if _, ok := members[secret]; ok {
				return nil, fmt.Errorf("reading the issuer's keys: key %d is not public: replace it at the issuer, it has leaked", i+1)
			}
		}
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil || !usable(key) {
			continue
		}
		if _, ok := keys[key.KeyID]; ok {
			return nil, fmt.Errorf("reading the issuer's keys: key %d has the key ID of another", i+1)
		}
		keys[key.KeyID] = publicKey{public: key.Key, algorithm: key.Algorithm}
	}
	if len(keys) == 0 {
		return nil, errors.New("reading the issuer's keys: none with a key ID that can verify tokens")
	}
	return keys, nil
}

func usable(key jose.JSONWebKey) bool {
	if key.KeyID == "" || (key.Use != "" && key.Use != "sig") || !key.Valid() {
		return false
	}
	if public, ok := key.Key.(*rsa.PublicKey); ok && public.N.BitLen() < minRSA {
		return false
	}
	for _, a := range Algorithms {
		if (publicKey{public: key.Key, algorithm: key.Algorithm}).signs(a) {
			return true
		}
	}
	return false
}
