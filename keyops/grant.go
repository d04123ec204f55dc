package keyops

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Bounds of grants.
const (
	maxGrants     = 1000 // per key: a key's grants are rewritten with its row
	maxGrantName  = 256
	maxTokens     = 10
	maxToken      = 8192
	maxPrincipal  = 512
	grantIDBytes  = 32
	maxOperations = 64 // above the number of operations that can be granted
)

// Grant is what a key's row holds of one grant. It never changes.
type Grant struct {
	policy.Grant
	Name     string
	Retiring string // ARN of the principal that may retire it, or empty
	Issuer   arn.Account
	Created  time.Time
}

func newGrantID(random io.Reader) (string, error) {
	var b [grantIDBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("making a grant ID: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

func isGrantID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == grantIDBytes && s == strings.ToLower(s)
}

// asks reports whether two grants are the same but for their identity.
func (g *Grant) asks(o *Grant) bool {
	return g.Name == o.Name && g.Grantee == o.Grantee && g.Retiring == o.Retiring &&
		slices.Equal(g.Operations, o.Operations) &&
		maps.Equal(g.EncryptionContextSubset, o.EncryptionContextSubset) &&
		maps.Equal(g.EncryptionContextEquals, o.EncryptionContextEquals)
}

// constraint returns the name and the pairs of the grant's constraint, if it has one.
func (g *Grant) constraint() (name string, pairs map[string]string) {
	switch {
	case len(g.EncryptionContextEquals) > 0:
		return "EncryptionContextEquals", g.EncryptionContextEquals
	case len(g.EncryptionContextSubset) > 0:
		return "EncryptionContextSubset", g.EncryptionContextSubset
	}
	return "", nil
}

// grant returns the key's grant with this ID.
func (k *Key) grant(id string) (*Grant, bool) {
	i, found := k.findGrant(id)
	if !found {
		return nil, false
	}
	return &k.Grants[i], true
}

func (k *Key) findGrant(id string) (int, bool) {
	return slices.BinarySearchFunc(k.Grants, id, func(g Grant, id string) int { return strings.Compare(g.ID, id) })
}

// addGrant and takeGrant leave the present list alone: copies of a Key share it.
func (k *Key) addGrant(g Grant) {
	i, _ := k.findGrant(g.ID)
	k.Grants = slices.Insert(slices.Clone(k.Grants), i, g)
	k.grantees = nil
}

func (k *Key) takeGrant(id string) bool {
	i, found := k.findGrant(id)
	if found {
		k.Grants = slices.Delete(slices.Clone(k.Grants), i, i+1)
		k.grantees = nil
	}
	return found
}

// indexGrants finds the grants of a principal without looking at the others'.
func (k *Key) indexGrants() {
	if k.grantees != nil || len(k.Grants) == 0 {
		return
	}
	k.grantees = map[string][]policy.Grant{}
	for _, g := range k.Grants {
		k.grantees[g.Grantee] = append(k.grantees[g.Grantee], g.Grant)
	}
}

// grantsFor returns the grants that can allow the asker something on the key. Whoever wants
// to retire a grant has that one alone, and as retiring principal needs no permission else.
func (k *Key) grantsFor(a *asker) []policy.Grant {
	if a.retires == "" {
		return k.grantees[a.arn]
	}
	g, ok := k.grant(a.retires)
	if !ok {
		return nil
	}
	grants := []policy.Grant{g.Grant}
	if g.Retiring != "" {
		grants = append(grants, policy.Grant{ID: g.ID, Grantee: g.Retiring, Operations: []string{"RetireGrant"}})
	}
	return grants
}

// A grant token names a grant of one instance. It is no secret and gives nothing by itself:
// who may what is in the grant.
const tokenSchema = 1

var (
	errToken     = errors.New("no grant token")
	tokenEncoder = base64.RawURLEncoding.Strict()
)

func grantToken(at region.InstanceID, key arn.KeyID, grant string) string {
	var w wire.Writer
	w.Uint(tokenSchema)
	w.String(string(at))
	w.String(string(key))
	w.String(grant)
	return tokenEncoder.EncodeToString(w.Out())
}

func parseGrantToken(token string) (at region.InstanceID, key arn.KeyID, grant string, err error) {
	b, err := tokenEncoder.DecodeString(token)
	if err != nil {
		return "", "", "", errToken
	}
	r := wire.NewReader(b)
	if r.Uint() != tokenSchema {
		return "", "", "", errToken
	}
	at, key, grant = region.InstanceID(r.String(64)), arn.KeyID(r.String(64)), r.String(2*grantIDBytes)
	if r.Done() != nil || !isGrantID(grant) {
		return "", "", "", errToken
	}
	return at, key, grant, nil
}

var errGrantToken = &Error{Reason: ErrInvalidGrantToken, Message: "A grant token names no grant that is in force for this caller on this key in this Region."}

// named returns the key and the grant that a token names, if the grant is in force here.
func (s *Service) named(token string) (*Key, *Grant, error) {
	at, id, grant, err := parseGrantToken(token)
	if err != nil || at != s.self.Instance {
		return nil, nil, errGrantToken
	}
	if k := s.view.key(id); k != nil {
		if g, ok := k.grant(grant); ok {
			return k, g, nil
		}
	}
	return nil, nil, errGrantToken
}

// checkTokens checks the grant tokens of a call and returns the keys that they are for. What
// it refuses, it refuses alike whether the key exists or not.
func (s *Service) checkTokens(c *call, tokens []string) ([]arn.KeyID, error) {
	if len(tokens) > maxTokens {
		return nil, invalid("grantTokens", "have length less than or equal to %d", maxTokens)
	}
	var keys []arn.KeyID
	for _, token := range tokens {
		if len(token) == 0 || len(token) > maxToken {
			return nil, invalid("grantTokens", "have members of length between 1 and %d", maxToken)
		}
		k, g, err := s.named(token)
		if err != nil {
			return nil, err
		}
		if g.Grantee != c.asker.arn {
			return nil, errGrantToken
		}
		keys = append(keys, k.ID)
	}
	return keys, nil
}

// encodeGrants and decodeGrants are the end of a key row of schema 2.
func encodeGrants(w *wire.Writer, grants []Grant) {
	w.Count(len(grants))
	for _, g := range grants {
		w.String(g.ID)
		w.String(g.Name)
		w.String(g.Grantee)
		w.String(g.Retiring)
		w.String(string(g.Issuer))
		w.Time(g.Created)
		w.Count(len(g.Operations))
		for _, op := range g.Operations {
			w.String(op)
		}
		writePairs(w, g.EncryptionContextSubset)
		writePairs(w, g.EncryptionContextEquals)
	}
}

func decodeGrants(r *wire.Reader) []Grant {
	var grants []Grant
	for range r.Count(maxGrants) {
		var g Grant
		g.ID, g.Name = r.String(2*grantIDBytes), r.String(maxGrantName)
		g.Grantee, g.Retiring, g.Issuer = r.String(maxPrincipal), r.String(maxPrincipal), arn.Account(r.String(12))
		g.Created = r.Time()
		for range r.Count(maxOperations) {
			g.Operations = append(g.Operations, r.String(64))
		}
		g.EncryptionContextSubset, g.EncryptionContextEquals = readPairs(r), readPairs(r)
		grants = append(grants, g)
	}
	return grants
}

// check refuses a grant that no operation could have made.
func (g *Grant) check() error {
	if !isGrantID(g.ID) {
		return errors.New("grant ID malformed")
	}
	return g.Grant.Check()
}

func writePairs(w *wire.Writer, pairs map[string]string) {
	w.Count(len(pairs))
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		w.String(name)
		w.String(pairs[name])
	}
}

func readPairs(r *wire.Reader) map[string]string {
	var pairs map[string]string
	for range r.Count(policy.MaxConstraintPairs) {
		if pairs == nil {
			pairs = map[string]string{}
		}
		name := r.String(ciphertext.MaxContextSize)
		pairs[name] = r.String(ciphertext.MaxContextSize)
	}
	return pairs
}
