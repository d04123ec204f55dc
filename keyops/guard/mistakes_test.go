package guard_test

// mistakes has seeds of TestEveryMistake of package mrk, by the guard whose absence the schedule
// notices.
var mistakes = map[string]uint64{
	"5 not deleted":                172,
	"7 enabled":                    153182,
	"12 enabled":                   26107,
	"12 all heard since the start": 7271392,
	"13 offer follows the newest certificate":      1129,
	"13 final state is known":                      494516,
	"13 enabled":                                   1327,
	"13 active member":                             28716832,
	"13 holds every listed material":               337432,
	"17 approved for the newest certificate known": 109279,
	"17 generation above all known":                10181329,
	"18 current material usable":                   2,
	"22 confirmation is fresh":                     9467777,
	"22 confirmed to hold all that is held":        171992,
	"23 deletion is the last word":                 13999987,
	"24 every other Region has no such key":        31879,
	"write-off: held by nobody":                    14886697,
	"no way back from destruction":                 1954,
}
