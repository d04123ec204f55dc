package keyops

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
)

// A marker is the last element of the page before, bound to the operation that returned it:
// the name of the operation, a zero byte and the element.
func marker(operation, last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(operation + "\x00" + last))
}

func parseMarker(operation, m string) (string, error) {
	if m == "" {
		return "", nil
	}
	if len(m) > 1024 {
		return "", invalid("marker", "have length less than or equal to 1024")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(m)
	last, ok := strings.CutPrefix(string(b), operation+"\x00")
	if err != nil || !ok || last == "" {
		return "", refuse(ErrInvalidMarker, "The marker is not one that %s returned.", operation)
	}
	return last, nil
}

// limit checks a page size; 0 means the default.
func limit(n, byDefault, most int) (int, error) {
	if n == 0 {
		return byDefault, nil
	}
	if n < 1 || n > most {
		return 0, invalid("limit", "have value between 1 and %d", most)
	}
	return n, nil
}

// ListKeys lists the keys of the caller's account, ordered by key ID.
func (s *Service) ListKeys(ctx context.Context, caller Caller, in ListKeysInput) (ListKeysOutput, error) {
	return do(ctx, s, caller, "ListKeys", target{}, func(_ context.Context, c *call) (ListKeysOutput, error) {
		n, err := limit(in.Limit, 100, 1000)
		if err != nil {
			return ListKeysOutput{}, err
		}
		after, err := parseMarker(c.name, in.Marker)
		if err != nil {
			return ListKeysOutput{}, err
		}
		account := c.caller.Principal.Account
		ids, more := s.view.keysAfter(account, arn.KeyID(after), n)
		out := ListKeysOutput{Keys: make([]KeyListEntry, len(ids)), Truncated: more}
		for i, id := range ids {
			out.Keys[i] = KeyListEntry{KeyID: id, KeyARN: s.keyARN(account, id)}
		}
		if more {
			out.NextMarker = marker(c.name, string(ids[len(ids)-1]))
		}
		return out, nil
	})
}

// ListAliases lists the aliases of the caller's account, or of one of its keys, ordered by name.
func (s *Service) ListAliases(ctx context.Context, caller Caller, in ListAliasesInput) (ListAliasesOutput, error) {
	return do(ctx, s, caller, "ListAliases", target{}, func(_ context.Context, c *call) (ListAliasesOutput, error) {
		n, err := limit(in.Limit, 50, 100)
		if err != nil {
			return ListAliasesOutput{}, err
		}
		after, err := parseMarker(c.name, in.Marker)
		if err != nil {
			return ListAliasesOutput{}, err
		}
		var entries []AliasListEntry
		var more bool
		if in.KeyID != "" {
			entries, more, err = s.aliasesOf(c, in.KeyID, after, n)
		} else {
			entries, more = s.aliasesAfter(c.caller.Principal.Account, after, n)
		}
		if err != nil {
			return ListAliasesOutput{}, err
		}
		out := ListAliasesOutput{Aliases: entries, Truncated: more}
		if more {
			out.NextMarker = marker(c.name, entries[len(entries)-1].AliasName)
		}
		return out, nil
	})
}

func (s *Service) aliasesAfter(account arn.Account, after string, n int) ([]AliasListEntry, bool) {
	names, ids, more := s.view.namesAfter(account, after, n)
	entries := make([]AliasListEntry, 0, len(names))
	for i, name := range names {
		if k := s.view.key(ids[i]); k != nil {
			entries = append(entries, s.aliasEntry(k, name)...)
		}
	}
	return entries, more && len(entries) > 0
}

// aliasesOf lists one key's aliases. ListAliases is allowed on the account as a whole, so
// the caller may know which keys there are.
func (s *Service) aliasesOf(c *call, ref, after string, n int) ([]AliasListEntry, bool, error) {
	r, err := s.resolve(c, target{ref: ref})
	if err != nil {
		return nil, false, err
	}
	k := s.view.key(r.id)
	if k == nil || k.Account != c.caller.Principal.Account {
		return nil, false, s.missing(c, c.action(), r)
	}
	names := make([]string, len(k.Aliases))
	for i, a := range k.Aliases {
		names[i] = a.Name
	}
	names, more := page(names, after, n)
	var entries []AliasListEntry
	for _, name := range names {
		entries = append(entries, s.aliasEntry(k, name)...)
	}
	return entries, more, nil
}

// aliasEntry returns the key's alias of this name, or nothing if it has just moved.
func (s *Service) aliasEntry(k *Key, name string) []AliasListEntry {
	i := slices.IndexFunc(k.Aliases, func(a Alias) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	a := k.Aliases[i]
	return []AliasListEntry{{
		AliasName: name, AliasARN: s.aliasARN(k.Account, name), TargetKeyID: k.ID,
		CreationDate: a.Created, LastUpdatedDate: a.Updated,
	}}
}
