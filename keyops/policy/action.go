package policy

import (
	"slices"
	"strings"
)

// resourceKind is what an action acts on, as a set of bits.
type resourceKind byte

const (
	onNothing resourceKind = 1 << iota // the account as a whole; the request's Resource is *
	onKey
	onAlias
)

// action is one row of the table of actions.
type action struct {
	name         string // without its prefix kms:
	on           resourceKind
	crossAccount bool // AWS allows it to principals of other accounts
}

// The table of actions: every one that a policy may name. Names and their reach across
// accounts are AWS's; DescribeRegion is ours.
var actions = []action{
	{"CancelKeyDeletion", onKey, false},
	{"CreateAlias", onKey | onAlias, false},
	{"CreateGrant", onKey, true},
	{"CreateKey", onNothing, false},
	{"Decrypt", onKey, true},
	{"DeleteAlias", onKey | onAlias, false},
	{"DeleteImportedKeyMaterial", onKey, false},
	{"DeriveSharedSecret", onKey, true},
	{"DescribeKey", onKey, true},
	{"DescribeRegion", onNothing, false},
	{"DisableKey", onKey, false},
	{"DisableKeyRotation", onKey, false},
	{"EnableKey", onKey, false},
	{"EnableKeyRotation", onKey, false},
	{"Encrypt", onKey, true},
	{"GenerateDataKey", onKey, true},
	{"GenerateDataKeyPair", onKey, true},
	{"GenerateDataKeyPairWithoutPlaintext", onKey, true},
	{"GenerateDataKeyWithoutPlaintext", onKey, true},
	{"GenerateMac", onKey, true},
	{"GenerateRandom", onNothing, false},
	{"GetKeyLastUsage", onKey, false},
	{"GetKeyPolicy", onKey, false},
	{"GetKeyRotationStatus", onKey, true},
	{"GetParametersForImport", onKey, false},
	{"GetPublicKey", onKey, true},
	{"ImportKeyMaterial", onKey, false},
	{"ListAliases", onNothing, false},
	{"ListGrants", onKey, true},
	{"ListKeyPolicies", onKey, false},
	{"ListKeyRotations", onKey, false},
	{"ListKeys", onNothing, false},
	{"ListResourceTags", onKey, false},
	{"ListRetirableGrants", onNothing, false},
	{"PutKeyPolicy", onKey, false},
	{"ReEncryptFrom", onKey, true},
	{"ReEncryptTo", onKey, true},
	{"ReplicateKey", onKey, false},
	{"RetireGrant", onKey, true},
	{"RevokeGrant", onKey, true},
	{"RotateKeyOnDemand", onKey, false},
	{"ScheduleKeyDeletion", onKey, false},
	{"Sign", onKey, true},
	{"TagResource", onKey | onNothing, false}, // on nothing: the tags of a key that is being created
	{"UntagResource", onKey, false},
	{"UpdateAlias", onKey | onAlias, false},
	{"UpdateKeyDescription", onKey, false},
	{"UpdatePrimaryRegion", onKey, false},
	{"Verify", onKey, true},
	{"VerifyMac", onKey, true},
}

// actionIndex finds the row of an action by the name that requests use, kms:Encrypt.
var actionIndex = func() map[string]int {
	index := make(map[string]int, len(actions))
	for i, a := range actions {
		index["kms:"+a.name] = i
	}
	return index
}()

// Actions returns the name of every action, such as kms:Encrypt, sorted.
func Actions() []string {
	names := make([]string, 0, len(actions))
	for name := range actionIndex {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// actionSet is a set of rows: an Action element, compiled, so that matching is one bit.
type actionSet [2]uint64

func (s *actionSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *actionSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// addPattern adds the actions that a pattern names, and reports whether there are any.
// As in AWS, letter case does not count.
func (s *actionSet) addPattern(pattern string) bool {
	pattern = strings.ToLower(pattern)
	if pattern != "*" {
		var ok bool
		if pattern, ok = strings.CutPrefix(pattern, "kms:"); !ok {
			return false
		}
	}
	found := false
	for i, a := range actions {
		if glob(pattern, strings.ToLower(a.name)) {
			s.add(i)
			found = true
		}
	}
	return found
}

// nearest returns the action that a misspelt name most resembles, if one does.
func nearest(name string) string {
	name = strings.ToLower(strings.TrimPrefix(strings.ToLower(name), "kms:"))
	best, bestDistance := "", 4 // more than three edits away is another word
	for _, a := range actions {
		if d := distance(name, strings.ToLower(a.name)); d < bestDistance {
			best, bestDistance = "kms:"+a.name, d
		}
	}
	return best
}

// distance is the number of inserted, deleted or replaced bytes between two words.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a) // no action is that long
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
