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
	grantable    bool // a grant can allow it
}

// The table of actions: every one that a policy may name. Names and their reach across
// accounts are AWS's; DescribeRegion is ours.
var actions = []action{
	{"AssociateReplicaInstance", onNothing, false, false},
	{"CancelKeyDeletion", onKey, false, false},
	{"CreateAlias", onKey | onAlias, false, false},
	{"CreateGrant", onKey, true, true},
	{"CreateKey", onNothing, false, false},
	{"CreateSynchronization", onNothing, false, false},
	{"Decrypt", onKey, true, true},
	{"DeleteAlias", onKey | onAlias, false, false},
	{"DeleteImportedKeyMaterial", onKey, false, false},
	{"DeriveSharedSecret", onKey, true, true},
	{"DescribeKey", onKey, true, true},
	{"DescribeRegion", onNothing, false, false},
	{"DisableKey", onKey, false, false},
	{"DisableKeyRotation", onKey, false, false},
	{"DisassociateReplicaInstance", onNothing, false, false},
	{"EnableKey", onKey, false, false},
	{"EnableKeyRotation", onKey, false, false},
	{"Encrypt", onKey, true, true},
	{"EvictReplica", onKey, false, false},
	{"GenerateDataKey", onKey, true, true},
	{"GenerateDataKeyPair", onKey, true, true},
	{"GenerateDataKeyPairWithoutPlaintext", onKey, true, true},
	{"GenerateDataKeyWithoutPlaintext", onKey, true, true},
	{"GenerateMac", onKey, true, true},
	{"GenerateRandom", onNothing, false, false},
	{"GetKeyLastUsage", onKey, false, false},
	{"GetKeyPolicy", onKey, false, false},
	{"GetKeyRotationStatus", onKey, true, false},
	{"GetParametersForImport", onKey, false, false},
	{"GetPublicKey", onKey, true, true},
	{"GetSynchronization", onNothing, false, false},
	{"ImportKeyMaterial", onKey, false, false},
	{"ListAliases", onNothing, false, false},
	{"ListGrants", onKey, true, false},
	{"ListKeyPolicies", onKey, false, false},
	{"ListKeyRotations", onKey, false, false},
	{"ListKeys", onNothing, false, false},
	{"ListReplicaResources", onNothing, false, false},
	{"ListResourceTags", onKey, false, false},
	{"ListRetirableGrants", onNothing, false, false},
	{"ListSynchronizations", onNothing, false, false},
	{"ListSynchronizedResources", onNothing, false, false},
	{"PromoteKey", onKey, false, false},
	{"PutKeyPolicy", onKey, false, false},
	{"ReEncryptFrom", onKey, true, true},
	{"ReEncryptTo", onKey, true, true},
	{"ReplicateKey", onKey, false, false},
	{"RetireGrant", onKey, true, true},
	{"RevokeGrant", onKey, true, false},
	{"RotateKeyOnDemand", onKey, false, false},
	{"ScheduleKeyDeletion", onKey, false, false},
	{"Sign", onKey, true, true},
	{"SuspendReplica", onKey, false, false},
	{"TagResource", onKey | onNothing, false, false}, // on nothing: the tags of a key that is being created
	{"UntagResource", onKey, false, false},
	{"UpdateAlias", onKey | onAlias, false, false},
	{"UpdateKeyDescription", onKey, false, false},
	{"UpdatePrimaryRegion", onKey, false, false},
	{"UpdateSynchronization", onNothing, false, false},
	{"Verify", onKey, true, true},
	{"VerifyMac", onKey, true, true},
	{"WriteOffKeyMaterial", onKey, false, false},
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

func (s actionSet) and(o actionSet) actionSet { return actionSet{s[0] & o[0], s[1] & o[1]} }
func (s actionSet) empty() bool               { return s == actionSet{} }

// others returns the actions that are not in the set, for NotAction.
func (s actionSet) others() actionSet {
	var o actionSet
	for i := range actions {
		if !s.has(i) {
			o.add(i)
		}
	}
	return o
}

// actionsOf returns the set that a list of patterns names.
func actionsOf(patterns ...string) actionSet {
	var s actionSet
	for _, p := range patterns {
		s.addPattern(p)
	}
	return s
}

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
