package gateway_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyferry/keyferry/gateway"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// said is a value somewhere in a message or in a struct, and the names that lead to it.
type said struct {
	path  []string
	value string
}

func (l said) String() string { return strings.Join(l.path, ".") + " = " + l.value }

// plain makes names of both worlds alike: key_material_id and KeyMaterialID.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// fits says whether b is what became of a: the same value under a name that a's names have.
func (a said) fits(b said) bool {
	if a.value != b.value {
		return false
	}
	last, other := plain(a.path[len(a.path)-1]), plain(b.path[len(b.path)-1])
	return strings.Contains(last, other) || strings.Contains(other, last) ||
		slices.ContainsFunc(a.path, func(n string) bool { return plain(n) == other }) ||
		slices.ContainsFunc(b.path, func(n string) bool { return plain(n) == last })
}

// wantAll demands that every said of one side is on the other.
func wantAll(t *testing.T, from, to []said, except ...string) {
	t.Helper()
	for _, l := range from {
		if !slices.ContainsFunc(to, l.fits) && !slices.Contains(except, l.path[len(l.path)-1]) {
			t.Errorf("%s is lost; there are %v", l, to)
		}
	}
}

// counter makes values that are all different.
type counter int

func (c *counter) next() int { *c++; return int(*c) }

// fill sets every field of a message.
func (c *counter) fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString(c.text()).MapKey(), protoreflect.ValueOfString(c.text()))
		case f.IsList() && f.Message() != nil:
			c.fill(m.Mutable(f).List().AppendMutable().Message())
		case f.IsList():
			m.Mutable(f).List().Append(c.value(f))
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
			m.Set(f, protoreflect.ValueOfMessage(timestamppb.New(time.Unix(int64(c.next()), 0)).ProtoReflect()))
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration":
			m.Set(f, protoreflect.ValueOfMessage(durationpb.New(time.Duration(c.next())*time.Second).ProtoReflect()))
		case f.Message() != nil:
			c.fill(m.Mutable(f).Message())
		default:
			m.Set(f, c.value(f))
		}
	}
}

func (c *counter) text() string { return fmt.Sprintf("text-%d", c.next()) }

func (c *counter) value(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(c.text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(c.text()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(c.next()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(c.next()))
	}
	panic("a kind that no request had: " + f.Kind().String())
}

// sayings lists what a message says.
func sayings(m protoreflect.Message, path ...string) (out []said) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := append(slices.Clone(path), string(f.Name()))
		one := func(v protoreflect.Value) {
			if f.Message() == nil || f.IsMap() {
				text := v.String()
				if f.Kind() == protoreflect.BytesKind {
					text = string(v.Bytes())
				}
				out = append(out, said{at, text})
				return
			}
			if stamp, ok := v.Message().Interface().(*timestamppb.Timestamp); ok {
				out = append(out, said{at, fmt.Sprint(stamp.GetSeconds())})
				return
			}
			if d, ok := v.Message().Interface().(*durationpb.Duration); ok {
				out = append(out, said{at, d.AsDuration().String()})
				return
			}
			out = append(out, sayings(v.Message(), at...)...)
		}
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				one(k.Value())
				one(v)
				return true
			})
		case f.IsList():
			for i := range v.List().Len() {
				one(v.List().Get(i))
			}
		default:
			one(v)
		}
		return true
	})
	return out
}

// fillStruct sets every field of a struct.
func (c *counter) fillStruct(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		c.fillStruct(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(int64(c.next()), 0)))
			return
		}
		for i := range v.NumField() {
			c.fillStruct(v.Field(i))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(c.text()))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		c.fillStruct(v.Index(0))
	case reflect.Map:
		key := reflect.ValueOf(c.text()).Convert(v.Type().Key())
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, reflect.ValueOf(c.text()).Convert(v.Type().Elem()))
	case reflect.String:
		v.SetString(c.text())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint64:
		v.SetUint(uint64(c.next()))
	case reflect.Int:
		v.SetInt(int64(c.next()))
	default:
		panic("a kind that no answer had: " + v.Kind().String())
	}
}

// sayingsIn lists what a struct says.
func sayingsIn(v reflect.Value, path ...string) (out []said) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return sayingsIn(v.Elem(), path...)
		}
	case reflect.Struct:
		if stamp, ok := v.Interface().(time.Time); ok {
			return []said{{path, fmt.Sprint(stamp.Unix())}}
		}
		for i := range v.NumField() {
			out = append(out, sayingsIn(v.Field(i), append(slices.Clone(path), v.Type().Field(i).Name)...)...)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return []said{{path, string(v.Bytes())}}
		}
		for i := range v.Len() {
			out = append(out, sayingsIn(v.Index(i), path...)...)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			out = append(out, sayingsIn(it.Key(), path...)...)
			out = append(out, sayingsIn(it.Value(), path...)...)
		}
	default:
		return []said{{path, fmt.Sprint(v.Interface())}}
	}
	return out
}

// TestEveryFieldIsConverted sends each RPC with every field set, and demands that keyops gets
// each of them and that the client gets everything that keyops answers.
func TestEveryFieldIsConverted(t *testing.T) {
	s := start(t, nil)
	var answered []said
	s.keys.change = func(out any) {
		var c counter
		c.fillStruct(reflect.ValueOf(out).Elem())
		answered = sayingsIn(reflect.ValueOf(out).Elem(), "Output")
	}
	checked := 0
	for _, file := range []protoreflect.FileDescriptor{
		kmsv1.File_keyferry_kms_v1_key_service_proto, kmsv1.File_keyferry_kms_v1_crypto_service_proto, kmsv1.File_keyferry_kms_v1_region_service_proto, kmsv1.File_keyferry_kms_v1_synchronization_service_proto,
	} {
		for i := range file.Services().Get(0).Methods().Len() {
			m := file.Services().Get(0).Methods().Get(i)
			name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
			t.Run(string(m.Name()), func(t *testing.T) {
				in, out := message(t, m.Input()), message(t, m.Output())
				new(counter).fill(in.ProtoReflect())
				must(t, s.grpc.Invoke(t.Context(), name, in, out))
				wantAll(t, sayings(in.ProtoReflect(), "request"), sayingsIn(reflect.ValueOf(s.keys.last().Input), "Input"))
				if operationOf(name) == string(m.Name()) { // else the answer is not the operation's
					// These become enumerations, which have tests of their own.
					wantAll(t, answered, sayings(out.ProtoReflect(), "response"), "Exportability", "Boundary", "Status", "FailureCause")
				}
				checked++
			})
		}
	}
	if checked < len(gateway.MethodRows())-6 {
		t.Errorf("%d RPCs checked", checked)
	}
}

func message(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	must(t, err)
	return kind.New().Interface()
}
