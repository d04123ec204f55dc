package mrk

import "github.com/keyferry/keyferry/keyops/guard"

// Guards, by the number of the rule in the protocol and what it demands.
const (
	guardActing guard.Name = "acting" // of rules 2, 7, 10, 12, 24, 25: the newest certificate names this Region, and it has the permit
	guardSealed guard.Name = "sealed" // of the same rules: no hand-over is on offer
	guardFrozen guard.Name = "frozen" // of the same rules: no contradictory facts are known

	guard2Member      guard.Name = "2 destination is no member"
	guard2Incarnation guard.Name = "2 next incarnation"
	guard3Newer       guard.Name = "3 incarnation above mine"
	guard3Request     guard.Name = "3 request of the primary Region"
	guard3Recreated   guard.Name = "3 recreated as the incarnation that it was"
	guard4Incarnation guard.Name = "4 blob for this incarnation"
	guard4Deleted     guard.Name = "4 not told deleted"
	guard4Listed      guard.Name = "4 material listed"

	guard5Incarnation guard.Name = "5 same incarnation"
	guard5Joined      guard.Name = "5 joined this epoch"
	guard5Deleted     guard.Name = "5 not deleted"
	guard5Suspended   guard.Name = "5 suspended member has heard so"
	guard5Holds       guard.Name = "5 holds what the primary holds"
	guard5Used        guard.Name = "5 primary holds what it used"
	guard5Others      guard.Name = "5 active members hold what it used"
	guard6Active      guard.Name = "6 state says active"
	guard6Holds       guard.Name = "6 holds every listed material"

	guard7Enabled guard.Name = "7 enabled"
	guard7Pending guard.Name = "7 nothing pending"
	guard7Alone   guard.Name = "7 not in one token only"
	guard8Heard   guard.Name = "8 all heard since the start"
	guard8Joined  guard.Name = "8 awaited members joined this epoch"
	guard8Holds   guard.Name = "8 awaited members hold the pending material"
	guard8Alone   guard.Name = "8 not in one token only"

	guard9Parent        guard.Name = "9 certificate signed by the Region before"
	guard9Countersigned guard.Name = "9 certificate signed by the Region that it names"
	guard9State         guard.Name = "9 state signed by the primary Region"
	guard9Member        guard.Name = "9 member fact signed by the member"
	guard9Once          guard.Name = "9 one state of one number"
	guard9Earlier       guard.Name = "9 earlier state signed by the primary Region of then"
	guard9Former        guard.Name = "9 nothing new of an instance that is no more"

	guard11Held guard.Name = "11 active members hold what the primary holds"
	guard11Used guard.Name = "11 primary holds what active members used"

	guard12Enabled guard.Name = "12 enabled"
	guard12Heard   guard.Name = "12 all heard since the start"
	guard12Active  guard.Name = "12 target is active"
	guard13Parent  guard.Name = "13 offer follows the newest certificate"
	guard13Final   guard.Name = "13 final state is known"
	guard13Refused guard.Name = "13 offer was not refused before"
	guard13Enabled guard.Name = "13 enabled"
	guard13Active  guard.Name = "13 active member"
	guard13Holds   guard.Name = "13 holds every listed material"
	guard13Heard   guard.Name = "13 offering Region heard since the start"
	guard13Known   guard.Name = "13 offer is known where it was made"
	guard13Prove   guard.Name = "13 other members prove themselves again"
	guard15Answer  guard.Name = "15 target has refused or is deleted"
	guard15Burn    guard.Name = "15 refused number is burnt"
	guard16Permit  guard.Name = "16 permit lost to a higher epoch"
	guard16Seal    guard.Name = "16 seal lost to a higher epoch"
	guard16Fork    guard.Name = "16 one successor of an epoch"

	guard17Enabled    guard.Name = "17 enabled"
	guard17Current    guard.Name = "17 holds its current material"
	guard17Acting     guard.Name = "17 does not act already"
	guard17Newest     guard.Name = "17 approved for the newest certificate known"
	guard17Generation guard.Name = "17 generation above all known"
	guard17Once       guard.Name = "17 approvals open one line"
	guard17Listed     guard.Name = "17 key is on the approved list"
	guard17Approved   guard.Name = "17 approved by a quorum"
	guard17Roster     guard.Name = "17 roster not older than the one known"

	guard18Heard   guard.Name = "18 all heard since the start"
	guard18Current guard.Name = "18 current material usable"
	guard18Named   guard.Name = "18 named by the newest certificate"

	guard20Count  guard.Name = "20 counts above its own facts"
	guard20Permit guard.Name = "20 permit lost to a forgotten state"
	guard20Told   guard.Name = "20 told that it is deleted"

	guard21Admitted guard.Name = "21 admitted by a primary Region"
	guard21Self     guard.Name = "21 admitted by another Region than itself"
	guard21Evicted  guard.Name = "21 not evicted"

	guard22Primary   guard.Name = "22 not the primary key"
	guard22Confirmed guard.Name = "22 acting primary Region has confirmed"
	guard22Nonce     guard.Name = "22 confirmation is fresh"
	guard22Holds     guard.Name = "22 confirmed to hold all that is held"
	guard23Newest    guard.Name = "23 deletion of the newest incarnation"
	guard23Final     guard.Name = "23 deletion is the last word"
	guard24Members   guard.Name = "24 no members"
	guard24Absent    guard.Name = "24 every other Region has no such key"
	guard25Member    guard.Name = "25 a member"

	guardWriteOffHeld guard.Name = "write-off: held by nobody"
	guardWriteOffUse  guard.Name = "write-off: neither current nor pending"
	guardWriteOffAll  guard.Name = "write-off: all heard since the start"
	guardAlive        guard.Name = "no way back from destruction"
)
