package policy

import (
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestConditionKeyTable keeps the table sound: names in order, each carried by some action,
// found in any letter case, and of a type that some operator takes.
func TestConditionKeyTable(t *testing.T) {
	for i := range conditionKeys {
		row := &conditionKeys[i]
		if i > 0 && strings.ToLower(conditionKeys[i-1].name) >= strings.ToLower(row.name) {
			t.Errorf("%s does not come after %s", row.name, conditionKeys[i-1].name)
		}
		if row.on.empty() {
			t.Errorf("no action carries %s", row.name)
		}
		text, name := strings.ToUpper(row.name), ""
		if row.source == fromEncryptionContext {
			text, name = text+"a:B", "a:B"
		}
		if got, gotName, ok := findConditionKey(text); !ok || got != row || gotName != name {
			t.Errorf("%s is not found as %s", row.name, text)
		}
		if !slices.ContainsFunc(operators, func(o operator) bool { return o.match != nil && o.takes&row.typ != 0 }) {
			t.Errorf("no operator takes %s", row.name)
		}
		if row.typ.String() == anyType.String() {
			t.Errorf("%s has no type", row.name)
		}
	}
}

// TestContextConstants reads the constants for callers out of the source: each has a row, and
// each row that callers fill has a constant.
func TestContextConstants(t *testing.T) {
	file, err := goparser.ParseFile(token.NewFileSet(), "contextkey.go", nil, goparser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !spec.Names[0].IsExported() {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		name, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		if spec.Comment == nil {
			t.Errorf("%s does not say what belongs in", spec.Names[0].Name)
		}
		constants[name] = true
		return true
	})
	for i := range conditionKeys {
		if row := &conditionKeys[i]; constants[row.name] != (row.source == fromContext) {
			t.Errorf("%s has a constant: %t", row.name, constants[row.name])
		}
		delete(constants, conditionKeys[i].name)
	}
	if len(constants) > 0 {
		t.Errorf("constants without rows: %v", constants)
	}
}

// TestConditionsPage writes the tables of docs/policy.md from the code and compares.
func TestConditionsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{"condition keys": keysTable(), "operators": operatorsTable()} {
		if !strings.Contains(string(page), table) {
			t.Errorf("docs/policy.md has another table of %s; want\n%s", name, table)
		}
	}
}

func keysTable() string {
	sets := []struct {
		set   actionSet
		words string
	}{
		{everyCall, "every call"}, {keyOrNew, "every call on a key, and `CreateKey`"}, {everyKey, "every call on a key"},
		{inContext, "`Encrypt`, `Decrypt`, `ReEncrypt*`, `GenerateDataKey*`, `CreateGrant`, `RetireGrant`"},
		{encrypting, "`Encrypt`, `Decrypt`, `ReEncrypt*`, `GenerateDataKey*`"},
		{byAlias, "the cryptographic operations, `DescribeKey`, `GetPublicKey`"},
	}
	var rows strings.Builder
	for i := range conditionKeys {
		row := &conditionKeys[i]
		name, typ, on := row.name, row.typ.String(), ""
		if row.source == fromEncryptionContext {
			name += "<name>"
		}
		if row.multi {
			typ += ", a list"
		}
		for _, s := range sets {
			if on == "" && s.set == row.on {
				on = s.words
			}
		}
		if on == "" {
			var names []string
			for j, a := range actions {
				if row.on.has(j) {
					names = append(names, "`"+a.name+"`")
				}
			}
			on = strings.Join(names, ", ")
		}
		values := strings.Join(row.values, "`, `")
		if row.multi && values != "" {
			values = "the operations that a grant can allow"
		} else if values != "" {
			values = "`" + values + "`"
		}
		fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", name, typ, on, values)
	}
	return rows.String()
}

func operatorsTable() string {
	var rows strings.Builder
	for _, typ := range []struct {
		takes valueType
		words string
	}{{textual, "String and ARN"}, {arnType, "ARN"}, {boolType, "Bool"}, {numericType, "Numeric"}, {dateType, "Date"}, {ipType, "IP address"}, {anyType, "any"}} {
		var plain, negated []string
		for _, o := range operators {
			switch {
			case o.takes != typ.takes:
			case o.negated:
				negated = append(negated, "`"+o.name+"`")
			default:
				plain = append(plain, "`"+o.name+"`")
			}
		}
		fmt.Fprintf(&rows, "| %s | %s | %s |\n", typ.words, strings.Join(plain, ", "), strings.Join(negated, ", "))
	}
	return rows.String()
}
