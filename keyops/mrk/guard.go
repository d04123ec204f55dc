package mrk

// guard names one condition that a rule demands. Each stands in the code where it decides,
// and can be switched off in a build with the tag "mutation" only, which exists to show
// that the tests notice its absence. In every other build off is false, always.
type guard string

// stops reports whether a violated condition refuses what the rule would do.
func (g guard) stops(violated bool) bool { return violated && !off(g) }

// Guards, by the number of the rule in the protocol and what it demands.
const (
	guardActing guard = "acting" // of rules 2, 7, 10, 12, 24, 25: the newest certificate names this Region, and it has the permit
	guardSealed guard = "sealed" // of the same rules: no hand-over is on offer
	guardFrozen guard = "frozen" // of the same rules: no contradictory facts are known

	guard2Member      guard = "2 destination is no member"
	guard2Incarnation guard = "2 next incarnation"
	guard3Newer       guard = "3 incarnation above mine"
	guard3Request     guard = "3 request of the primary Region"
	guard3Recreated   guard = "3 recreated as the incarnation that it was"
	guard4Incarnation guard = "4 blob for this incarnation"
	guard4Deleted     guard = "4 not told deleted"
	guard4Listed      guard = "4 material listed"

	guard5Incarnation guard = "5 same incarnation"
	guard5Joined      guard = "5 joined this epoch"
	guard5Deleted     guard = "5 not deleted"
	guard5Holds       guard = "5 holds what the primary holds"
	guard5Used        guard = "5 primary holds what it used"
	guard5Others      guard = "5 active members hold what it used"
	guard6Active      guard = "6 state says active"
	guard6Holds       guard = "6 holds every listed material"

	guard7Enabled guard = "7 enabled"
	guard7Pending guard = "7 nothing pending"
	guard7Alone   guard = "7 not in one token only"
	guard8Heard   guard = "8 all heard since the start"
	guard8Joined  guard = "8 awaited members joined this epoch"
	guard8Holds   guard = "8 awaited members hold the pending material"
	guard8Alone   guard = "8 not in one token only"

	guard11Held guard = "11 active members hold what the primary holds"
	guard11Used guard = "11 primary holds what active members used"

	guard12Enabled guard = "12 enabled"
	guard12Heard   guard = "12 all heard since the start"
	guard12Active  guard = "12 target is active"
	guard13Parent  guard = "13 offer follows the newest certificate"
	guard13Final   guard = "13 final state is known"
	guard13Refused guard = "13 offer was not refused before"
	guard13Enabled guard = "13 enabled"
	guard13Active  guard = "13 active member"
	guard13Holds   guard = "13 holds every listed material"
	guard13Heard   guard = "13 offering Region heard since the start"
	guard13Prove   guard = "13 other members prove themselves again"
	guard15Answer  guard = "15 target has refused or is deleted"
	guard15Burn    guard = "15 refused number is burnt"
	guard16Permit  guard = "16 permit lost to a higher epoch"
	guard16Seal    guard = "16 seal lost to a higher epoch"
	guard16Fork    guard = "16 one successor of an epoch"

	guard17Enabled    guard = "17 enabled"
	guard17Current    guard = "17 holds its current material"
	guard17Acting     guard = "17 does not act already"
	guard17Newest     guard = "17 approved for the newest certificate known"
	guard17Generation guard = "17 generation above all known"
	guard17Listed     guard = "17 key is on the approved list"
	guard17Approved   guard = "17 approved by a quorum"
	guard17Roster     guard = "17 roster not older than the one known"

	guard18Heard   guard = "18 all heard since the start"
	guard18Current guard = "18 current material usable"
	guard18Named   guard = "18 named by the newest certificate"

	guard20Count  guard = "20 counts above its own facts"
	guard20Permit guard = "20 permit lost to a forgotten state"
	guard20Told   guard = "20 told that it is deleted"

	guard21Admitted guard = "21 admitted by a primary Region"
	guard21Evicted  guard = "21 not evicted"

	guard22Primary   guard = "22 not the primary key"
	guard22Confirmed guard = "22 acting primary Region has confirmed"
	guard22Nonce     guard = "22 confirmation is fresh"
	guard22Holds     guard = "22 confirmed to hold all that is held"
	guard23Newest    guard = "23 deletion of the newest incarnation"
	guard23Final     guard = "23 deletion is the last word"
	guard24Members   guard = "24 no members"
	guard24Absent    guard = "24 every other Region has no such key"
	guard25Member    guard = "25 a member"

	guardWriteOffHeld guard = "write-off: held by nobody"
	guardWriteOffUse  guard = "write-off: neither current nor pending"
	guardWriteOffAll  guard = "write-off: all heard since the start"
	guardAlive        guard = "no way back from destruction"
)
