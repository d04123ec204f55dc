package guard_test

// mistakes has seeds of TestEveryMistake of package mrk, by the guard whose absence the schedule
// notices.
var mistakes = map[string]uint64{}

// beneath says of guards that no schedule and no scenario notices the absence of why that is so:
// which other condition stands before them.
var beneath = map[string]string{}
