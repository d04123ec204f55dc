package strictyaml

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

var durationType = reflect.TypeFor[time.Duration]()

func (d *Document) decode(n *yaml.Node, into any) {
	d.value(n, reflect.ValueOf(into).Elem(), "")
}

func (d *Document) value(n *yaml.Node, v reflect.Value, path string) {
	if path != "" && d.lines[path] == 0 {
		d.lines[path] = n.Line
	}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.add(n.Line, path, "anchors and aliases are not supported: write the value out")
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.add(n.Line, path, "no value: give one, or leave the key out")
		return
	}
	switch {
	case v.Type() == durationType:
		d.duration(n, v, path)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, path)
	case v.Kind() == reflect.Map:
		d.mapping(n, v, path)
	case v.Kind() == reflect.Slice:
		d.sequence(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

func (d *Document) structure(n *yaml.Node, v reflect.Value, path string) {
	fields := Fields(v.Type())
	d.pairs(n, path, func(key, value *yaml.Node, at string) {
		i := slices.Index(fields, key.Value)
		if i < 0 {
			d.add(key.Line, at, "unknown key: "+suggest(key.Value, fields))
			return
		}
		d.value(value, v.Field(i), at)
	})
}

func (d *Document) mapping(n *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, path, func(key, value *yaml.Node, at string) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(value, elem, at)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), elem)
	})
}

// pairs calls fn for each key of a mapping that has not been there before.
func (d *Document) pairs(n *yaml.Node, path string, fn func(key, value *yaml.Node, at string)) {
	if n.Kind != yaml.MappingNode {
		d.add(n.Line, path, fmt.Sprintf("want keys and values, not %s", describe(n)))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			d.add(key.Line, path, "a key must be a plain word")
			continue
		}
		at := join(path, key.Value)
		if first, again := seen[key.Value]; again {
			d.add(key.Line, at, fmt.Sprintf("given twice, first in line %d: remove one", first))
			continue
		}
		seen[key.Value] = key.Line
		d.lines[at] = key.Line
		fn(key, value, at)
	}
}

func (d *Document) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.add(n.Line, path, fmt.Sprintf("want a list, not %s", describe(n)))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *Document) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.add(n.Line, path, fmt.Sprintf("want %s, not %s", kindName(v), describe(n)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		// An unquoted 012345678901 would arrive as another text than the operator reads, so
		// only what YAML itself takes for text is text.
		if n.Tag != "!!str" {
			d.add(n.Line, path, fmt.Sprintf("want text, not %s: write it in quotes", describe(n)))
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if n.Tag != "!!bool" {
			d.add(n.Line, path, fmt.Sprintf("want true or false, not %s", describe(n)))
			return
		}
		v.SetBool(n.Value == "true" || n.Value == "True" || n.Value == "TRUE")
	case reflect.Int:
		i, err := strconv.Atoi(n.Value)
		if err != nil || n.Tag != "!!int" {
			d.add(n.Line, path, fmt.Sprintf("want a whole number, not %s", describe(n)))
			return
		}
		v.SetInt(int64(i))
	default:
		panic(fmt.Sprintf("strictyaml: field %s has unsupported type %s", path, v.Type()))
	}
}

func (d *Document) duration(n *yaml.Node, v reflect.Value, path string) {
	value, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		d.add(n.Line, path, fmt.Sprintf("want a duration such as 500ms, 30s or 1h30m, not %s", describe(n)))
		return
	}
	v.SetInt(int64(value))
}

// Fields returns the YAML names of a struct's fields, in order.
func Fields(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == "" {
			panic(fmt.Sprintf("strictyaml: field %s.%s has no yaml name", t, t.Field(i).Name))
		}
		names[i] = name
	}
	return names
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func kindName(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "text"
	}
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	}
	value := n.Value
	if len(value) > 40 {
		value = value[:40] + "..."
	}
	return strconv.Quote(value)
}

// suggest names the field that was probably meant, or all of them.
func suggest(key string, fields []string) string {
	best, least := "", 3
	for _, f := range fields {
		if dist := distance(key, f); dist < least {
			best, least = f, dist
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "the keys here are " + strings.Join(fields, ", ")
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
