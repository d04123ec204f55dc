package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/policy"
)

// wrap puts the members of one statement into a key policy.
func wrap(members string) string {
	return `{"Version": "2012-10-17", "Statement": [{` + members + `}]}`
}

const (
	effect   = `"Effect": "Allow"`
	who      = `"Principal": {"AWS": "111122223333"}`
	action   = `"Action": "kms:Encrypt"`
	resource = `"Resource": "*"`
	rest     = effect + ", " + action + ", " + resource
)

func with(members ...string) string { return wrap(strings.Join(members, ", ")) }

// condition is a statement with operators.
func condition(operators string) string {
	return with(who, rest, `"Condition": {`+operators+`}`)
}

func TestParseAccepts(t *testing.T) {
	user := `"arn:aws:iam::111122223333:user/division/alice+a=b,c.d@e_f-g"`
	for name, text := range map[string]string{
		"one statement as an object": `{"Version": "2012-10-17", "Statement": {` + who + ", " + rest + `}}`,
		"Id and Sid":                 `{"Id": "my policy", "Version": "2012-10-17", "Statement": [{"Sid": "Allow use of the key", ` + who + ", " + rest + `}]}`,
		"everybody":                  with(`"Principal": "*"`, rest),
		"everybody under AWS":        with(`"Principal": {"AWS": ["*"]}`, rest),
		"many principals":            with(`"Principal": {"AWS": ["111122223333", "arn:aws-cn:iam::111122223333:root", `+user+`, "arn:aws:iam::111122223333:role/r"]}`, rest),
		"many actions":               with(who, effect, `"Action": ["KMS:encrypt", "kms:*Data*", "kms:?ign", "*"]`, resource),
		"many resources": with(who, effect, action, `"Resource": ["*", "arn:aws:kms:*:*:*", "arn:*:kms:eu-*:111122223333:key/mrk-*",
			"arn:aws:kms:eu-paris-1:1111*:k*", "arn:aws:kms:eu-paris-1:111122223333:alias/a:b"]`),
		"NotPrincipal": with(`"NotPrincipal": {"AWS": ["111122223333", `+user+`]}`, `"Effect": "Deny"`, action, resource),
		"NotAction":    with(who, effect, `"NotAction": ["kms:Decrypt", "kms:*Key*"]`, resource),
		"NotResource":  with(who, effect, action, `"NotResource": "arn:aws:kms:*:*:alias/*"`),
		"every operator": condition(`"StringEquals": {"kms:KeySpec": "x", "KMS:KEYUSAGE": ["x", ""]}, "StringNotEquals": {"kms:KeySpec": "x"},
			"StringEqualsIgnoreCase": {"kms:KeySpec": "x"}, "StringNotEqualsIgnoreCase": {"kms:KeySpec": "x"}, "StringLike": {"kms:KeySpec": "x*"}, "StringNotLike": {"kms:KeySpec": "x?"},
			"NumericEquals": {"kms:RotationPeriodInDays": 90}, "NumericNotEquals": {"kms:RotationPeriodInDays": "90.5"}, "NumericLessThan": {"kms:RotationPeriodInDays": [-1, "1"]},
			"NumericLessThanEquals": {"kms:RotationPeriodInDays": 1}, "NumericGreaterThan": {"kms:RotationPeriodInDays": 1}, "NumericGreaterThanEquals": {"kms:RotationPeriodInDays": 1},
			"DateEquals": {"aws:CurrentTime": "2030-01-31T08:00:00Z"}, "DateNotEquals": {"aws:CurrentTime": "2030-01-31T08:00:00.5+01:00"}, "DateLessThan": {"aws:CurrentTime": "2030-01-31"},
			"DateLessThanEquals": {"aws:CurrentTime": 1900000000}, "DateGreaterThan": {"kms:ValidTo": "1900000000"}, "DateGreaterThanEquals": {"kms:ValidTo": "2030-01-31"},
			"Bool": {"kms:MultiRegion": true, "kms:ReEncryptOnSameKey": "FALSE"}, "Null": {"kms:MultiRegion": false, "kms:ResourceAliases": "true"},
			"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]}, "NotIpAddress": {"aws:SourceIp": "::1"},
			"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::111122223333:root"}, "ArnNotEquals": {"aws:PrincipalArn": "arn:*:iam::*:user/*"},
			"ArnLike": {"kms:GranteePrincipal": "arn:aws:iam::*:*"}, "ArnNotLike": {"kms:RetiringPrincipal": "arn:aws:iam::*:*"}`),
		"quantifiers and IfExists": condition(`"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["a", "b"]}, "ForAnyValue:StringLikeIfExists": {"kms:ResourceAliases": "alias/*"},
			"ForAnyValue:StringEquals": {"kms:ReplicaRegion": "eu-paris-1"}, "BoolIfExists": {"aws:SecureTransport": "true"}, "StringNotLikeIfExists": {"kms:EncryptionContext:a:b c": "ä*"}`),
		"escapes":          `{"Versio\u006e": "2012-10-17", "Statement": [{` + who + ", " + rest + `}]}`,
		"space around it":  " \t\r\n" + with(who, rest) + "\n\n",
		"100 statements":   `{"Version": "2012-10-17", "Statement": [` + strings.Repeat(`{`+who+", "+rest+`},`, 99) + `{` + who + ", " + rest + `}]}`,
		"the largest size": with(who, rest) + strings.Repeat(" ", policy.MaxPolicySize-len(with(who, rest))),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := policy.Parse([]byte(text), policy.KeyPolicy); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := policy.Parse([]byte(with(rest)), policy.IdentityPolicy); err != nil {
		t.Error(err)
	}
	if _, err := policy.Parse(policy.DefaultKeyPolicy("aws-cn", "000000000001"), policy.KeyPolicy); err != nil {
		t.Error(err)
	}
}

// TestParseRefuses has one document for each refusal: what it says, and where.
func TestParseRefuses(t *testing.T) {
	for _, test := range []struct {
		name, text, path, problem string
		at                        string // the text at which the reported position points, if it has one
	}{
		// JSON
		{"nothing", "", "", "not one JSON document: unexpected end", ""},
		{"no JSON", "Version: 2012-10-17", "", "not one JSON document", "Version"},
		{"cut short", `{"Version": "2012-10-17"`, "", "unexpected end", ""},
		{"bytes after it", with(who, rest) + "x", "", "after top-level value", "x"},
		{"a second document", with(who, rest) + " {}", "", "after top-level value", "{}"},
		{"trailing comma", with(who, rest+","), "", "not one JSON document", "}]}"},
		{"comment", "{ // why\n}", "", "not one JSON document", "// why"},
		{"byte order mark", "\ufeff" + with(who, rest), "", "not one JSON document", "\ufeff"},
		{"broken UTF-8", with(who, `"Sid": "`+"\xff"+`"`, rest), "", "not valid UTF-8", "\xff"},
		{"a list", `[1]`, "", "a list; want an object", "[1]"},
		{"null", `null`, "", "null; want an object", "null"},
		{"nested too deep", `{"Version": [[[[[[[["x"]]]]]]]]}`, "Version[0][0][0][0][0][0][0]", "nested more than 8 deep", `["x"]`},
		{"element twice", with(who, rest, effect), "Statement[0].Effect", "given twice", `"Effect": "Allow"}]`},
		{"element twice by escape", with(who, rest, `"\u0045ffect": "Allow"`), "Statement[0].Effect", "given twice", `"\u0045ffect"`},
		{"Version twice", `{"Version": "2012-10-17", "Version": "2012-10-17"}`, "Version", "given twice", `"Version": "2012-10-17"}`},
		{"principal kind twice", with(`"Principal": {"AWS": "111122223333", "AWS": "*"}`, rest), "Statement[0].Principal.AWS", "given twice", `"AWS": "*"`},
		{"too large", with(who, rest) + strings.Repeat(" ", policy.MaxPolicySize), "", "key policy has at most 32768", ""},
		// the document
		{"no version", `{"Statement": []}`, "", `add "Version": "2012-10-17"`, `{"Statement"`},
		{"old version", `{"Version": "2008-10-17", "Statement": []}`, "Version", `write "2012-10-17"`, `"2008-10-17"`},
		{"version as number", `{"Version": 2012, "Statement": []}`, "Version", `write "2012-10-17"`, `2012`},
		{"no statement", `{"Version": "2012-10-17"}`, "", "Statement is missing", `{"Version"`},
		{"empty statements", `{"Version": "2012-10-17", "Statement": []}`, "Statement", "at least one statement", `[]`},
		{"statement as string", `{"Version": "2012-10-17", "Statement": "Allow"}`, "Statement", "a string; want an object or a list", `"Allow"`},
		{"statement in a list as string", `{"Version": "2012-10-17", "Statement": ["Allow"]}`, "Statement[0]", "a string; want an object", `"Allow"`},
		{"101 statements", `{"Version": "2012-10-17", "Statement": [` + strings.Repeat("{},", 100) + `{}]}`, "Statement", "at most 100", `[{}`},
		{"unknown element", `{"Version": "2012-10-17", "Comment": "x"}`, "Comment", "there are Version, Id, Statement", `"Comment"`},
		{"element of another letter case", `{"version": "2012-10-17"}`, "version", "write Version", `"version"`},
		{"empty Id", `{"Version": "2012-10-17", "Id": ""}`, "Id", "1 to 128", `""`},
		// statements
		{"no effect", with(who, action, resource), "Statement[0]", "Effect is missing", `{"Principal"`},
		{"no principal", with(rest), "Statement[0]", "Principal is missing", `{"Effect"`},
		{"no action", with(who, effect, resource), "Statement[0]", "Action is missing", `{"Principal"`},
		{"no resource", with(who, effect, action), "Statement[0]", "Resource is missing", `{"Principal"`},
		{"effect in lower case", with(who, `"Effect": "allow"`, action, resource), "Statement[0].Effect", "want Allow or Deny", `"allow"`},
		{"NotPrincipal that allows", with(`"NotPrincipal": {"AWS": "111122223333"}`, rest), "Statement[0].NotPrincipal", `not with "Effect": "Allow"`, `{"AWS"`},
		{"Principal and NotPrincipal", with(who, `"NotPrincipal": "*"`, rest), "Statement[0].NotPrincipal", "together with Principal", `"*", "Effect"`},
		{"Action and NotAction", with(who, rest, `"NotAction": "kms:*"`), "Statement[0].NotAction", "together with Action", `"kms:*"`},
		{"Resource and NotResource", with(who, rest, `"NotResource": "*"`), "Statement[0].NotResource", "together with Resource", `"*"}]}`},
		{"misspelt NotAction", with(who, effect, `"NotAction": "kms:Decryt"`, resource), "Statement[0].NotAction", "perhaps kms:Decrypt", `"kms:Decryt"`},
		{"empty NotResource", with(who, effect, action, `"NotResource": []`), "Statement[0].NotResource", "at least one", `[]`},
		// conditions
		{"condition as string", with(who, rest, `"Condition": "x"`), "Statement[0].Condition", "want an object of operators", `"x"`},
		{"empty condition", with(who, rest, `"Condition": {}`), "Statement[0].Condition", "leave it out", `{}`},
		{"unknown operator", condition(`"StringContains": {"kms:KeySpec": "x"}`), "Statement[0].Condition.StringContains", "unknown operator; see", `"StringContains"`},
		{"misspelt operator", condition(`"StringEqual": {"kms:KeySpec": "x"}`), "Statement[0].Condition.StringEqual", "perhaps StringEquals", `"StringEqual"`},
		{"operator in another letter case", condition(`"stringequals": {"kms:KeySpec": "x"}`), "Statement[0].Condition.stringequals", "perhaps StringEquals", `"stringequals"`},
		{"operator of binary values", condition(`"BinaryEquals": {"kms:KeySpec": "QQ=="}`), "Statement[0].Condition.BinaryEquals", "unknown operator", `"BinaryEquals"`},
		{"unknown quantifier", condition(`"ForSomeValues:StringEquals": {"kms:KeySpec": "x"}`), "Statement[0].Condition.ForSomeValues:StringEquals", "unknown operator", `"ForSome`},
		{"two quantifiers", condition(`"ForAllValues:ForAnyValue:StringEquals": {"kms:KeySpec": "x"}`), "Statement[0].Condition.ForAllValues:ForAnyValue:StringEquals", "unknown operator", `"ForAll`},
		{"NullIfExists", condition(`"NullIfExists": {"kms:KeySpec": "true"}`), "Statement[0].Condition.NullIfExists", "unknown operator", `"NullIfExists"`},
		{"ForAnyValue:Null", condition(`"ForAnyValue:Null": {"kms:ResourceAliases": "true"}`), "Statement[0].Condition.ForAnyValue:Null", "unknown operator", `"ForAnyValue:Null"`},
		{"operator without keys", condition(`"Bool": {}`), "Statement[0].Condition.Bool", "want an object of condition keys", `{}}}]}`},
		{"operator with a value", condition(`"Bool": "kms:MultiRegion"`), "Statement[0].Condition.Bool", "want an object of condition keys", `"kms:MultiRegion"`},
		{"unknown condition key", condition(`"StringEquals": {"kms:Colour": "x"}`), "Statement[0].Condition.StringEquals.kms:Colour", "unknown condition key; see", `"kms:Colour"`},
		{"misspelt condition key", condition(`"Bool": {"kms:MultiRegio": "true"}`), "Statement[0].Condition.Bool.kms:MultiRegio", "perhaps kms:MultiRegion", `"kms:MultiRegio"`},
		{"condition key of a service", condition(`"StringEquals": {"kms:ViaService": "s3.eu-paris-1.amazonaws.com"}`), "Statement[0].Condition.StringEquals.kms:ViaService", "unknown condition key", `"kms:ViaService"`},
		{"condition key without prefix", condition(`"StringEquals": {"KeySpec": "x"}`), "Statement[0].Condition.StringEquals.KeySpec", "unknown condition key", `"KeySpec"`},
		{"encryption context without name", condition(`"StringEquals": {"kms:EncryptionContext:": "x"}`), "Statement[0].Condition.StringEquals.kms:EncryptionContext:", "unknown condition key", `"kms:EncryptionContext:"`},
		{"variable in a condition key", condition(`"StringEquals": {"kms:EncryptionContext:${aws:username}": "x"}`), "Statement[0].Condition.StringEquals.kms:EncryptionContext:${aws:username}", "policy variables", `"kms:EncryptionC`},
		{"look-alike in a condition key", condition(`"StringEquals": {"kms:EncryptionContext:\u0430": "x"}`), "Statement[0].Condition.StringEquals.kms:EncryptionContext:\u0430", "printable ASCII", `"kms:EncryptionC`},
		{"condition key twice", condition(`"StringEquals": {"kms:KeySpec": "x", "KMS:keyspec": "y"}`), "Statement[0].Condition.StringEquals.KMS:keyspec", "letter case does not count", `"KMS:keyspec"`},
		{"encryption context twice", condition(`"StringEquals": {"kms:EncryptionContext:a": "x", "kms:EncryptionContext:A": "y"}`), "Statement[0].Condition.StringEquals.kms:EncryptionContext:A", "letter case does not count", `"kms:EncryptionContext:A"`},
		{"operator twice", condition(`"Null": {"kms:KeySpec": "true"}, "Null": {"kms:KeyUsage": "true"}`), "Statement[0].Condition.Null", "given twice", `"Null": {"kms:KeyUsage"`},
		{"operator of another type", condition(`"StringEquals": {"kms:MultiRegion": "true"}`), "Statement[0].Condition.StringEquals.kms:MultiRegion", "StringEquals is not for condition keys of type Bool", `"kms:MultiRegion"`},
		{"numeric operator on a string", condition(`"NumericEquals": {"kms:KeySpec": "1"}`), "Statement[0].Condition.NumericEquals.kms:KeySpec", "not for condition keys of type String", `"kms:KeySpec"`},
		{"ARN operator on an address", condition(`"ArnLike": {"aws:SourceIp": "arn:aws:iam::1:root"}`), "Statement[0].Condition.ArnLike.aws:SourceIp", "type IP address", `"aws:SourceIp"`},
		{"many values without quantifier", condition(`"StringEquals": {"kms:ResourceAliases": "alias/a"}`), "Statement[0].Condition.StringEquals.kms:ResourceAliases", "write ForAllValues:StringEquals or ForAnyValue:StringEquals", `"kms:ResourceAliases"`},
		{"no values", condition(`"StringEquals": {"kms:KeySpec": []}`), "Statement[0].Condition.StringEquals.kms:KeySpec", "at least one value", `[]`},
		{"value as object", condition(`"StringEquals": {"kms:KeySpec": {}}`), "Statement[0].Condition.StringEquals.kms:KeySpec", "an object; want a value", `{}}}}]}`},
		{"null value", condition(`"StringEquals": {"kms:KeySpec": [null]}`), "Statement[0].Condition.StringEquals.kms:KeySpec[0]", "null; want a value", `null`},
		{"account as number", condition(`"StringEquals": {"kms:CallerAccount": 111122223333}`), "Statement[0].Condition.StringEquals.kms:CallerAccount", `write "111122223333"`, `111122223333}`},
		{"variable in a value", condition(`"StringEquals": {"aws:PrincipalArn": "arn:aws:iam::111122223333:user/${aws:username}"}`), "Statement[0].Condition.StringEquals.aws:PrincipalArn", "policy variables", `"arn:aws:iam`},
		{"control character in a value", condition(`"StringEquals": {"kms:EncryptionContext:a": "\u0007"}`), "Statement[0].Condition.StringEquals.kms:EncryptionContext:a", "printable Latin", `"\u0007"`},
		{"Greek value", condition(`"StringEquals": {"kms:EncryptionContext:a": "α"}`), "Statement[0].Condition.StringEquals.kms:EncryptionContext:a", "printable Latin", "\"α\""},
		{"long value", condition(`"StringEquals": {"kms:EncryptionContext:a": "` + strings.Repeat("x", 2049) + `"}`), "Statement[0].Condition.StringEquals.kms:EncryptionContext:a", "at most 2048", `"xxx`},
		{"truth of another kind", condition(`"Bool": {"kms:MultiRegion": "yes"}`), "Statement[0].Condition.Bool.kms:MultiRegion", "want true or false", `"yes"`},
		{"truth as number", condition(`"Bool": {"kms:MultiRegion": 1}`), "Statement[0].Condition.Bool.kms:MultiRegion", "want true or false", `1}`},
		{"truth of Null", condition(`"Null": {"kms:KeySpec": ""}`), "Statement[0].Condition.Null.kms:KeySpec", "want true or false", `""`},
		{"number in words", condition(`"NumericLessThan": {"kms:RotationPeriodInDays": "many"}`), "Statement[0].Condition.NumericLessThan.kms:RotationPeriodInDays", "want a number", `"many"`},
		{"number with exponent", condition(`"NumericLessThan": {"kms:RotationPeriodInDays": 1e3}`), "Statement[0].Condition.NumericLessThan.kms:RotationPeriodInDays", "want a number", `1e3`},
		{"no number", condition(`"NumericLessThan": {"kms:RotationPeriodInDays": "NaN"}`), "Statement[0].Condition.NumericLessThan.kms:RotationPeriodInDays", "want a number", `"NaN"`},
		{"date of another form", condition(`"DateLessThan": {"aws:CurrentTime": "31.1.2030"}`), "Statement[0].Condition.DateLessThan.aws:CurrentTime", "want a time", `"31.1.2030"`},
		{"a year", condition(`"DateLessThan": {"aws:CurrentTime": "2030"}`), "Statement[0].Condition.DateLessThan.aws:CurrentTime", "want a time", `"2030"`},
		{"a day that does not exist", condition(`"DateLessThan": {"aws:CurrentTime": "2030-02-30"}`), "Statement[0].Condition.DateLessThan.aws:CurrentTime", "want a time", `"2030-02-30"`},
		{"host name", condition(`"IpAddress": {"aws:SourceIp": "example.org"}`), "Statement[0].Condition.IpAddress.aws:SourceIp", "want an address", `"example.org"`},
		{"address bits after the network", condition(`"IpAddress": {"aws:SourceIp": "10.1.2.3/8"}`), "Statement[0].Condition.IpAddress.aws:SourceIp", "write 10.0.0.0/8", `"10.1.2.3/8"`},
		{"network of 33 bits", condition(`"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}`), "Statement[0].Condition.IpAddress.aws:SourceIp", "want an address", `"10.0.0.0/33"`},
		{"address with a zone", condition(`"IpAddress": {"aws:SourceIp": "fe80::1%eth0"}`), "Statement[0].Condition.IpAddress.aws:SourceIp", "want an address", `"fe80`},
		{"half an ARN", condition(`"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*"}`), "Statement[0].Condition.ArnLike.aws:PrincipalArn", "all six parts", `"arn:aws:iam::*"`},
		{"Actions", with(who, effect, `"Actions": "kms:*"`, resource), "Statement[0].Actions", "there are Sid, Effect", `"Actions"`},
		{"Sid as number", with(`"Sid": 1`, who, rest), "Statement[0].Sid", "1 to 128", `1, "Principal"`},
		{"long Sid", with(`"Sid": "`+strings.Repeat("s", 129)+`"`, who, rest), "Statement[0].Sid", "1 to 128", `"s`},
		{"Sid twice", `{"Version": "2012-10-17", "Statement": [{"Sid": "a", ` + who + ", " + rest + `}, {"Sid": "a", ` + who + ", " + rest + `}]}`, "Statement[1]", `Sid "a" given twice`, ""},
		// principals
		{"principal as string", with(`"Principal": "111122223333"`, rest), "Statement[0].Principal", `want "*" or {"AWS": ...}`, `"111122223333"`},
		{"principal as list", with(`"Principal": ["*"]`, rest), "Statement[0].Principal", "a list", `["*"]`},
		{"empty principal", with(`"Principal": {}`, rest), "Statement[0].Principal", "empty", `{}`},
		{"empty list of principals", with(`"Principal": {"AWS": []}`, rest), "Statement[0].Principal.AWS", "empty", `[]`},
		{"service principal", with(`"Principal": {"Service": "s3.amazonaws.com"}`, rest), "Statement[0].Principal.Service", "name principals under AWS", `"Service"`},
		{"federated principal", with(`"Principal": {"AWS": "*", "Federated": "x"}`, rest), "Statement[0].Principal.Federated", "name principals under AWS", `"Federated"`},
		{"principal with wildcard", with(`"Principal": {"AWS": "arn:aws:iam::111122223333:user/*"}`, rest), "Statement[0].Principal.AWS", "no wildcards", `"arn:aws:iam`},
		{"every account's root", with(`"Principal": {"AWS": ["*", "arn:aws:iam::*:root"]}`, rest), "Statement[0].Principal.AWS[1]", "no wildcards", `"arn:aws:iam`},
		{"account of 11 digits", with(`"Principal": {"AWS": "11112222333"}`, rest), "Statement[0].Principal.AWS", "want an account number", `"11112222333"`},
		{"principal of another service", with(`"Principal": {"AWS": "arn:aws:sts::111122223333:assumed-role/r/s"}`, rest), "Statement[0].Principal.AWS", "root, user/<name> or role/<name>", `"arn:aws:sts`},
		{"group", with(`"Principal": {"AWS": "arn:aws:iam::111122223333:group/g"}`, rest), "Statement[0].Principal.AWS", "root, user/<name> or role/<name>", `"arn:aws:iam`},
		{"user without name", with(`"Principal": {"AWS": "arn:aws:iam::111122223333:user/"}`, rest), "Statement[0].Principal.AWS", "user/<name>", `"arn:aws:iam`},
		{"principal with a Region", with(`"Principal": {"AWS": "arn:aws:iam:eu-paris-1:111122223333:root"}`, rest), "Statement[0].Principal.AWS", "want an account number", `"arn:aws:iam`},
		{"partition of a principal in upper case", with(`"Principal": {"AWS": "arn:AWS:iam::111122223333:root"}`, rest), "Statement[0].Principal.AWS", "want an account number", `"arn:AWS`},
		{"principal as number", with(`"Principal": {"AWS": 111122223333}`, rest), "Statement[0].Principal.AWS", "a number; want a string", `111122223333`},
		{"unique ID of AWS", with(`"Principal": {"AWS": "AIDACKCEVSQ6C2EXAMPLE"}`, rest), "Statement[0].Principal.AWS", "want an account number", `"AIDA`},
		// actions
		{"misspelt action", with(who, effect, `"Action": ["kms:Encrypt", "kms:Decryt"]`, resource), "Statement[0].Action[1]", "perhaps kms:Decrypt", `"kms:Decryt"`},
		{"unknown action", with(who, effect, `"Action": "kms:CreateCustomKeyStore"`, resource), "Statement[0].Action", "unknown action", `"kms:CreateCustom`},
		{"wildcard without action", with(who, effect, `"Action": "kms:Steal*"`, resource), "Statement[0].Action", "unknown action", `"kms:Steal`},
		{"action without service", with(who, effect, `"Action": "Encrypt"`, resource), "Statement[0].Action", "begin with kms:", `"Encrypt"`},
		{"action of another service", with(who, effect, `"Action": "s3:*"`, resource), "Statement[0].Action", "begin with kms:", `"s3:*"`},
		{"wildcard in the service", with(who, effect, `"Action": "k*:Encrypt"`, resource), "Statement[0].Action", "begin with kms:", `"k*:`},
		{"no actions", with(who, effect, `"Action": []`, resource), "Statement[0].Action", "at least one", `[]`},
		{"action as object", with(who, effect, `"Action": {"kms": "*"}`, resource), "Statement[0].Action", "an object; want a string", `{"kms"`},
		{"null action", with(who, effect, `"Action": null`, resource), "Statement[0].Action", "null; want a string", `null`},
		{"empty action", with(who, effect, `"Action": ""`, resource), "Statement[0].Action", "printable ASCII", `""`},
		{"nested list", with(who, effect, `"Action": [["kms:*"]]`, resource), "Statement[0].Action[0]", "a list; want a string", `["kms`},
		// resources
		{"key ID as resource", with(who, effect, action, `"Resource": "mrk-1234abcd12ab34cd56ef1234567890ab"`), "Statement[0].Resource", "not all parts of an ARN", `"mrk-`},
		{"short pattern", with(who, effect, action, `"Resource": "arn:aws:kms:*"`), "Statement[0].Resource", "not all parts of an ARN", `"arn:aws:kms:*"`},
		{"resource of another service", with(who, effect, action, `"Resource": "arn:aws:s3:::bucket/x:y"`), "Statement[0].Resource", "another service", `"arn:aws:s3`},
		{"wildcard in the service of a resource", with(who, effect, action, `"Resource": "arn:aws:*:*:*:key/x"`), "Statement[0].Resource", "another service", `"arn:aws:*`},
		{"neither key nor alias", with(who, effect, action, `"Resource": "arn:aws:kms:eu-paris-1:111122223333:keys/x"`), "Statement[0].Resource", "no such kind", `"arn:aws:kms`},
		{"account of a resource", with(who, effect, action, `"Resource": "arn:aws:kms:eu-paris-1:1111:key/x"`), "Statement[0].Resource", "no such account", `"arn:aws:kms`},
		{"no Region", with(who, effect, action, `"Resource": "arn:aws:kms::111122223333:key/x"`), "Statement[0].Resource", "no such Region", `"arn:aws:kms`},
		{"Region in upper case", with(who, effect, action, `"Resource": "arn:aws:kms:EU-*:111122223333:key/*"`), "Statement[0].Resource", "no such Region", `"arn:aws:kms`},
		{"partition in upper case", with(who, effect, action, `"Resource": "arn:AWS:kms:*:111122223333:key/*"`), "Statement[0].Resource", "no such partition", `"arn:AWS:kms`},
		{"key ID in upper case", with(who, effect, action, `"Resource": "arn:aws:kms:*:111122223333:key/MRK-*"`), "Statement[0].Resource", "no such key ID", `"arn:aws:kms`},
		{"key without ID", with(who, effect, action, `"Resource": "arn:aws:kms:*:111122223333:key/"`), "Statement[0].Resource", "no such key ID", `"arn:aws:kms`},
		{"policy variable", with(who, effect, action, `"Resource": "arn:aws:kms:*:111122223333:alias/${aws:username}"`), "Statement[0].Resource", "policy variables", `"arn:aws:kms`},
		{"look-alike", with(who, effect, action, `"Resource": "arn:aws:kms:eu-paris-1:111122223333:key/\u0430"`), "Statement[0].Resource", "printable ASCII", `"arn:aws:kms`},
		{"long resource", with(who, effect, action, `"Resource": "arn:aws:kms:*:*:key/`+strings.Repeat("x", 2048)+`"`), "Statement[0].Resource", "1 to 2048", `"arn:aws:kms`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := policy.Parse([]byte(test.text), policy.KeyPolicy)
			if !errors.Is(err, policy.ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
			var e *policy.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %T, want *policy.Error", err)
			}
			if e.Path != test.path || !strings.Contains(e.Problem, test.problem) {
				t.Errorf("got %q, want path %q and %q", e, test.path, test.problem)
			}
			if test.at != "" {
				want := strings.Index(test.text, test.at)
				if got := offset(test.text, e.Line, e.Column); got != want {
					t.Errorf("position %d:%d is offset %d, want %d, at %s", e.Line, e.Column, got, want, test.at)
				}
			}
		})
	}
}

// offset turns line and column back into a byte offset.
func offset(text string, line, column int) int {
	at := 0
	for range line - 1 {
		at += strings.IndexByte(text[at:], '\n') + 1
	}
	for range column - 1 {
		at += len(string([]rune(text[at:])[:1]))
	}
	return at
}

func TestPositions(t *testing.T) {
	const text = `{
  "Version": "2012-10-17",
  "Statement": [
    {"Sid": "first", "Effect": "Allow", "Principal": "*", "Action": "kms:Encrypt", "Resource": "*"},
    {"Sid": "second", "Effect": "Allow", "Principal": "*",
     "Action": [
       "kms:Decrypt",
       "kms:Encyrpt"
     ], "Resource": "*"}
  ]
}`
	_, err := policy.Parse([]byte(text), policy.KeyPolicy)
	want := `malformed policy document: line 8, column 8: Statement[1].Action[1]: unknown action "kms:Encyrpt"; perhaps kms:Encrypt`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestIdentityPolicyHasNoPrincipal(t *testing.T) {
	_, err := policy.Parse([]byte(with(who, rest)), policy.IdentityPolicy)
	if err == nil || !strings.Contains(err.Error(), "attached to its principal") {
		t.Errorf("got %v", err)
	}
	if _, err := policy.Parse([]byte(with(rest)), 0); !errors.Is(err, policy.ErrMalformed) {
		t.Errorf("no kind: got %v, want ErrMalformed", err)
	}
}

func TestParseIdentities(t *testing.T) {
	const alice, bob, carol = "arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:user/bob", "arn:aws:iam::444455556666:user/carol"
	ids := mustIdentities(t, []byte(`{"Version": "2012-10-17", "Id": "staff", "Statement": [
		{"Effect": "Allow", "Principal": {"AWS": "`+alice+`"}, "Action": "kms:ListKeys", "Resource": "*"},
		{"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "kms:ListAliases", "Resource": "*"},
		{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}, "Action": "kms:GenerateRandom", "Resource": "*"}
	]}`))
	list, aliases, random := "kms:ListKeys", "kms:ListAliases", "kms:GenerateRandom"
	for who, want := range map[string][]string{
		alice: {list, aliases, random},
		bob:   {aliases, random},
		"arn:aws-cn:iam::111122223333:user/alice": {aliases},
		carol:                            nil,
		"arn:aws:iam::111122223333:root": {list, aliases, random}, // the root may do it anyhow
		"alice":                          nil,
	} {
		var got []string
		for _, action := range []string{list, aliases, random} {
			d := policy.Decide(policy.Request{Principal: who, Action: action, Resource: "*"}, nil, ids.For(who))
			if d.Allowed {
				got = append(got, action)
				if d.Reason == policy.IdentityAllow && d.Statement.Policy != "identity policies staff" {
					t.Errorf("%s for %s: decided by %q", action, who, d.Statement)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", who, diff)
		}
	}
	for name, text := range map[string]string{
		"everybody":    with(`"Principal": {"AWS": "*"}`, rest),
		"no principal": with(rest),
		"too large":    with(who, rest) + strings.Repeat(" ", policy.MaxIdentitiesSize),
	} {
		if _, err := policy.ParseIdentities([]byte(text)); !errors.Is(err, policy.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

// TestActionsCoverOperations compares with the operations that have key states.
func TestActionsCoverOperations(t *testing.T) {
	actions := policy.Actions()
	for _, op := range keystate.Operations() {
		names := []string{"kms:" + string(op)}
		if op == "ReEncrypt" {
			names = []string{"kms:ReEncryptFrom", "kms:ReEncryptTo"}
		}
		for _, name := range names {
			if !slices.Contains(actions, name) {
				t.Errorf("no action %s", name)
			}
		}
	}
	if len(actions) > 128 {
		t.Errorf("%d actions, and an action set has 128 bits", len(actions))
	}
}

func ExampleParse() {
	_, err := policy.Parse([]byte(`{
  "Version": "2012-10-17",
  "Statement": {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "kms:ReplicateKey",
    "Resource": "*",
    "Condition": {"StringNotLike": {"kms:RelicaRegion": "eu-*"}}
  }
}`), policy.KeyPolicy)
	fmt.Println(err)
	// Output:
	// malformed policy document: line 8, column 37: Statement.Condition.StringNotLike.kms:RelicaRegion: unknown condition key; perhaps kms:ReplicaRegion
}

// TestPrincipalsAreThoseOfTheProduct compares with the parser of principals that the rest
// of the product uses, which this package does without.
func TestPrincipalsAreThoseOfTheProduct(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`arn:(aws|aws-cn|a-1):iam::111122223333:(root|(user|role)/[A-Za-z0-9+=,.@_/-]{1,3})`),
			rapid.StringMatching(`arn:(aws|1a|A|):(iam|kms):(|eu-paris-1):(111122223333|1111|):(root|(user|role)/a)`),
			rapid.StringMatching(`arn:aws:iam::111122223333:(roots|group/a|user/?|user/[ -~]{1,2}|user/[a-z]{127,129})`),
		).Draw(t, "principal")
		_, want := arn.ParsePrincipal(text)
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		_, got := policy.Parse([]byte(with(`"Principal": {"AWS": `+string(quoted)+`}`, rest)), policy.KeyPolicy)
		if (got == nil) != (want == nil) {
			t.Fatalf("%q: policy says %v, arn says %v", text, got, want)
		}
		asked := policy.Decide(policy.Request{Principal: text, Action: "kms:ListKeys", Resource: "*"}, nil, nil).Reason != policy.InvalidRequest
		if asked != (want == nil) {
			t.Fatalf("%q: a request is understood: %t, arn says %v", text, asked, want)
		}
		if want == nil {
			accepted++
		}
	})
	if accepted == 0 {
		t.Error("no principal was accepted: the comparison says nothing")
	}
}
