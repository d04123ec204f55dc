package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// requestBody is a whole request body, and what the path has said already. It stands in for
// the HTTP request's body, so that the decoder knows both.
type requestBody struct {
	*bytes.Reader
	data   []byte
	inPath map[string]string
}

func newRequestBody(data []byte, inPath map[string]string) *requestBody {
	return &requestBody{bytes.NewReader(data), data, inPath}
}

// Close does nothing: the body is in memory.
func (*requestBody) Close() error { return nil }

// strictJSON reads requests strictly and writes answers in one form: camelCase, compact,
// zero values included, so that "multiRegion": false can be seen.
type strictJSON struct{ *runtime.JSONPb }

// NewDecoder reads one request. An empty body is an empty request.
func (strictJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, ok := r.(*requestBody)
		m, isMessage := v.(proto.Message)
		if !ok || !isMessage {
			return fmt.Errorf("decoding %T from %T", v, r)
		}
		if len(body.data) == 0 {
			return io.EOF
		}
		return unmarshalStrict(body.data, m, body.inPath)
	})
}

// Marshal writes one answer.
func (strictJSON) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encoding %T", v)
	}
	return marshalJSON(m)
}

// marshalJSON takes out the spaces that protojson puts in at random.
func marshalJSON(m proto.Message) ([]byte, error) {
	loose, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, loose); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Errors of request bodies. They name fields, never values: a value can be a plaintext.
var (
	errNotObject = errors.New("the body must be one JSON object")
	errTrailing  = errors.New("there is something after the JSON object")
)

// unmarshalStrict reads one JSON object into m and refuses whatever would otherwise be
// ignored: a misspelt encryptionContext would encrypt without one. Fields that the path has
// set already must not come again.
func unmarshalStrict(body []byte, m proto.Message, inPath map[string]string) error {
	members, err := membersOf(body)
	if err != nil {
		return err
	}
	fields := m.ProtoReflect().Descriptor().Fields()
	seen := map[protoreflect.Name]bool{}
	for _, member := range members {
		field := fieldNamed(fields, member.name)
		switch {
		case field == nil:
			return fmt.Errorf("field %q is unknown", clip(member.name))
		case seen[field.Name()]:
			return fmt.Errorf("field %q is there twice", field.JSONName())
		}
		if _, ok := inPath[string(field.Name())]; ok {
			return fmt.Errorf("field %q is in the path, it cannot be in the body as well", field.JSONName())
		}
		seen[field.Name()] = true
	}
	if protojson.Unmarshal(body, m) == nil {
		return nil
	}
	// Its errors quote values, so find the field instead.
	for _, member := range members {
		alone, err := json.Marshal(map[string]json.RawMessage{member.name: member.value})
		if err == nil && protojson.Unmarshal(alone, m.ProtoReflect().New().Interface()) != nil {
			return fmt.Errorf("field %q is not %s", member.name, kindOf(fieldNamed(fields, member.name)))
		}
	}
	return errNotObject
}

// member is one name and value of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// membersOf splits a JSON object, in order and with repeated names.
func membersOf(body []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotObject
	}
	var out []member
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errNotObject
		}
		m := member{name: name}
		if err := dec.Decode(&m.value); err != nil {
			return nil, errNotObject
		}
		out = append(out, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, errNotObject
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	return out, nil
}

// fieldNamed finds a field by its JSON name or its name in the .proto file.
func fieldNamed(fields protoreflect.FieldDescriptors, name string) protoreflect.FieldDescriptor {
	if f := fields.ByJSONName(name); f != nil {
		return f
	}
	return fields.ByTextName(name)
}

// kindOf says what a field's value must be.
func kindOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "an object with different names and string values"
	case f.IsList():
		return "a list of the documented type"
	}
	switch f.Kind() {
	case protoreflect.BytesKind:
		return "base64"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.StringKind:
		return "a string of valid UTF-8"
	case protoreflect.MessageKind:
		if f.Message().FullName() == "google.protobuf.Timestamp" {
			return "a time such as 2026-01-31T12:00:00Z"
		}
		return "an object of the documented fields"
	}
	return "a number in its range"
}

// clip keeps hostile names from filling answers.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
