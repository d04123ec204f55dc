package policy

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// operand is one value of a condition, compiled for its operator.
type operand struct {
	text   string
	parts  arnParts
	number float64
	time   time.Time
	net    netip.Prefix
	truth  bool
}

// operator is one row of the table of operators.
type operator struct {
	name    string
	takes   valueType // the types of condition keys that it is for
	negated bool      // it holds when no value matches, and for an absent key
	compile func(text string) (v operand, problem string)

	// match compares a value of the request, and says whether that could be read at all. It
	// is nil for Null, which looks at no value.
	match func(v *operand, have string) (matches, readable bool)
}

const textual = stringType | arnType

// The table of operators: every one that a policy may name, with or without ForAllValues:,
// ForAnyValue: and IfExists.
var operators = []operator{
	{"StringEquals", textual, false, asText, equal},
	{"StringNotEquals", textual, true, asText, equal},
	{"StringEqualsIgnoreCase", textual, false, asText, equalFold},
	{"StringNotEqualsIgnoreCase", textual, true, asText, equalFold},
	{"StringLike", textual, false, asText, like},
	{"StringNotLike", textual, true, asText, like},
	{"NumericEquals", numericType, false, asNumber, number(func(c int) bool { return c == 0 })},
	{"NumericNotEquals", numericType, true, asNumber, number(func(c int) bool { return c == 0 })},
	{"NumericLessThan", numericType, false, asNumber, number(func(c int) bool { return c < 0 })},
	{"NumericLessThanEquals", numericType, false, asNumber, number(func(c int) bool { return c <= 0 })},
	{"NumericGreaterThan", numericType, false, asNumber, number(func(c int) bool { return c > 0 })},
	{"NumericGreaterThanEquals", numericType, false, asNumber, number(func(c int) bool { return c >= 0 })},
	{"DateEquals", dateType, false, asDate, date(func(c int) bool { return c == 0 })},
	{"DateNotEquals", dateType, true, asDate, date(func(c int) bool { return c == 0 })},
	{"DateLessThan", dateType, false, asDate, date(func(c int) bool { return c < 0 })},
	{"DateLessThanEquals", dateType, false, asDate, date(func(c int) bool { return c <= 0 })},
	{"DateGreaterThan", dateType, false, asDate, date(func(c int) bool { return c > 0 })},
	{"DateGreaterThanEquals", dateType, false, asDate, date(func(c int) bool { return c >= 0 })},
	{"Bool", boolType, false, asBool, sameTruth},
	{"IpAddress", ipType, false, asNetwork, within},
	{"NotIpAddress", ipType, true, asNetwork, within},
	{"ArnEquals", arnType, false, asARN, likeARN},
	{"ArnNotEquals", arnType, true, asARN, likeARN},
	{"ArnLike", arnType, false, asARN, likeARN},
	{"ArnNotLike", arnType, true, asARN, likeARN},
	{"Null", anyType, false, asBool, nil},
}

func findOperator(name string) *operator {
	for i := range operators {
		if operators[i].name == name {
			return &operators[i]
		}
	}
	return nil
}

func asText(text string) (operand, string) { return operand{text: text}, "" }

func asBool(text string) (operand, string) {
	truth, ok := readBool(text)
	if !ok {
		return operand{}, "want true or false"
	}
	return operand{text: text, truth: truth}, ""
}

func asNumber(text string) (operand, string) {
	n, ok := readNumber(text)
	if !ok {
		return operand{}, "want a number such as 7 or 7.5"
	}
	return operand{text: text, number: n}, ""
}

func asDate(text string) (operand, string) {
	t, ok := readDate(text)
	if !ok {
		return operand{}, "want a time such as 2030-01-31T08:00:00Z, a day such as 2030-01-31, or seconds since 1970"
	}
	return operand{text: text, time: t}, ""
}

func asNetwork(text string) (operand, string) {
	const want = "want an address or a network such as 10.1.0.0/16 or 2001:db8::/32"
	if !strings.Contains(text, "/") {
		a, ok := readAddress(text)
		if !ok {
			return operand{}, want
		}
		return operand{text: text, net: netip.PrefixFrom(a, a.BitLen())}, ""
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return operand{}, want
	}
	if p != p.Masked() {
		return operand{}, "address bits after the network's; write " + p.Masked().String()
	}
	return operand{text: text, net: p}, ""
}

func asARN(text string) (operand, string) {
	parts, ok := splitARN(text)
	if !ok {
		return operand{}, "want all six parts of an ARN, such as arn:aws:iam::111122223333:role/*"
	}
	return operand{text: text, parts: parts}, ""
}

func equal(v *operand, have string) (bool, bool)     { return v.text == have, true }
func equalFold(v *operand, have string) (bool, bool) { return strings.EqualFold(v.text, have), true }
func like(v *operand, have string) (bool, bool)      { return glob(v.text, have), true }

func sameTruth(v *operand, have string) (bool, bool) {
	truth, ok := readBool(have)
	return truth == v.truth, ok
}

func number(holds func(c int) bool) func(*operand, string) (bool, bool) {
	return func(v *operand, have string) (bool, bool) {
		n, ok := readNumber(have)
		switch {
		case n < v.number:
			return holds(-1), ok
		case n > v.number:
			return holds(1), ok
		}
		return holds(0), ok
	}
}

func date(holds func(c int) bool) func(*operand, string) (bool, bool) {
	return func(v *operand, have string) (bool, bool) {
		t, ok := readDate(have)
		return holds(t.Compare(v.time)), ok
	}
}

func within(v *operand, have string) (bool, bool) {
	a, ok := readAddress(have)
	return ok && v.net.Contains(a), ok
}

func likeARN(v *operand, have string) (bool, bool) {
	parts, ok := splitARN(have)
	return ok && v.parts.match(&parts), ok
}

func readBool(text string) (truth, ok bool) {
	truth = strings.EqualFold(text, "true")
	return truth, truth || strings.EqualFold(text, "false")
}

// readNumber reads a decimal number. What else strconv understands, NaN, hexadecimal digits
// or exponents, is no number here.
func readNumber(text string) (float64, bool) {
	digits := strings.TrimPrefix(text, "-")
	if digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789.") != "" || digits[0] == '.' {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil
}

func readDate(text string) (time.Time, bool) {
	if len(text) > 0 && strings.Trim(text, "0123456789") == "" && len(text) != 4 { // a year alone would be 1970
		seconds, err := strconv.ParseInt(text, 10, 64)
		return time.Unix(seconds, 0), err == nil && len(text) <= 12
	}
	layout := time.RFC3339
	if len(text) == len(time.DateOnly) {
		layout = time.DateOnly
	}
	t, err := time.Parse(layout, text)
	return t, err == nil
}

func readAddress(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil && a.Zone() == ""
}
