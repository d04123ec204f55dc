package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// node is one JSON value with its place, which encoding/json does not keep.
type node struct {
	path    string
	offset  int
	value   any      // string, json.Number, bool, nil, or json.Delim for an object or a list
	members []member // of an object, in the order of the document
	elems   []node   // of a list
}

type member struct {
	name   string
	offset int
	node   node
}

func (n node) isObject() bool { return n.value == json.Delim('{') }
func (n node) isList() bool   { return n.value == json.Delim('[') }

// scalar returns a string, a number as it is written, or a boolean.
func (n node) scalar() (string, bool) {
	switch v := n.value.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// kind names what was found, for messages.
func (n node) kind() string {
	switch n.value.(type) {
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "a boolean"
	case nil:
		return "null"
	}
	if n.isObject() {
		return "an object"
	}
	return "a list"
}

// document reads one JSON value strictly: no duplicate keys, no bytes after it, valid UTF-8,
// bounded depth.
type document struct {
	data []byte
	dec  *json.Decoder
}

func (d *document) fail(path string, offset int, format string, args ...any) error {
	offset = min(offset, len(d.data))
	before := d.data[:offset]
	lineStart := bytes.LastIndexByte(before, '\n') + 1
	return &Error{
		Path:    path,
		Line:    bytes.Count(before, []byte("\n")) + 1,
		Column:  utf8.RuneCount(before[lineStart:]) + 1,
		Problem: fmt.Sprintf(format, args...),
	}
}

func (d *document) read() (node, error) {
	if !utf8.Valid(d.data) {
		i := 0
		for r, size := utf8.DecodeRune(d.data); r != utf8.RuneError || size > 1; r, size = utf8.DecodeRune(d.data[i:]) {
			i += size
		}
		return node{}, d.fail("", i, "not valid UTF-8; save the document as UTF-8")
	}
	// The whole text is checked first, so that the walk below meets valid JSON only.
	var whole json.RawMessage
	if err := json.Unmarshal(d.data, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return node{}, d.fail("", max(int(syntax.Offset)-1, 0), "not one JSON document: %v", err)
		}
		return node{}, d.fail("", 0, "not one JSON document: %v", err)
	}
	d.dec = json.NewDecoder(bytes.NewReader(d.data))
	d.dec.UseNumber()
	return d.value("", 1)
}

// token returns the next token and where it begins.
func (d *document) token() (json.Token, int, error) {
	offset := int(d.dec.InputOffset())
	for offset < len(d.data) && bytes.IndexByte([]byte(" \t\r\n,:"), d.data[offset]) >= 0 {
		offset++
	}
	token, err := d.dec.Token()
	if err != nil {
		return nil, offset, d.fail("", offset, "not one JSON document: %v", err)
	}
	return token, offset, nil
}

func (d *document) value(path string, depth int) (node, error) {
	token, offset, err := d.token()
	if err != nil {
		return node{}, err
	}
	n := node{path: path, offset: offset, value: token}
	if depth > maxDepth {
		return node{}, d.fail(path, offset, "nested more than %d deep", maxDepth)
	}
	switch token {
	case json.Delim('{'):
		err = d.object(&n, depth)
	case json.Delim('['):
		err = d.list(&n, depth)
	}
	return n, err
}

func (d *document) object(n *node, depth int) error {
	seen := map[string]bool{}
	for d.dec.More() {
		token, offset, err := d.token()
		if err != nil {
			return err
		}
		name := token.(string) // valid JSON has no other
		path := join(n.path, name)
		if seen[name] {
			return d.fail(path, offset, "given twice; keep one of them")
		}
		seen[name] = true
		value, err := d.value(path, depth+1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{name, offset, value})
	}
	_, _, err := d.token()
	return err
}

func (d *document) list(n *node, depth int) error {
	for d.dec.More() {
		value, err := d.value(fmt.Sprintf("%s[%d]", n.path, len(n.elems)), depth+1)
		if err != nil {
			return err
		}
		n.elems = append(n.elems, value)
	}
	_, _, err := d.token()
	return err
}

func join(path, name string) string {
	if len(name) > 64 {
		name = name[:64] + "..."
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
