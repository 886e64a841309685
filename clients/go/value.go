package milepost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// exactIntegers is the bound up to which a JSON number, which is a double, holds every integer.
	exactIntegers = 1 << 53
	// maxLevels bounds the objects and lists in each other. The service accepts fewer.
	maxLevels = 30
	// maxCheckpointBytes and maxTypeURLBytes are the sizes of a checkpoint that the service accepts.
	maxCheckpointBytes = 65_536
	maxTypeURLBytes    = 2_048
	// maxMessageBytes is the size of a progress message that is sent at all. The service accepts
	// fewer characters, as its operator says.
	maxMessageBytes = 262_144
)

func tooDeep() error {
	return &ValueError{problem: "the value is nested too deep, or contains itself"}
}

// toAny returns the value as a packed message, or nil for nil. A message is packed as it is, and
// an Any is returned unchanged. Anything else is JSON, as package encoding/json writes it, and
// becomes a google.protobuf.Value.
func toAny(value any) (*anypb.Any, error) {
	switch value := value.(type) {
	case nil:
		return nil, nil
	case *anypb.Any:
		if !utf8.ValidString(value.GetTypeUrl()) {
			return nil, &ValueError{problem: "the type_url of the message is not valid UTF-8"}
		}
		return value, nil
	case proto.Message:
		return pack(value)
	default:
		plain, err := toValue(value, 0)
		if err != nil {
			return nil, err
		}
		return pack(plain)
	}
}

func pack(message proto.Message) (*anypb.Any, error) {
	packed, err := anypb.New(message)
	if err != nil {
		return nil, &ValueError{problem: fmt.Sprintf("the message cannot be packed: %v", err), err: err}
	}
	return packed, nil
}

// checkReport returns a [ValueError] for a report that gRPC cannot send, or that is too large for it:
// on a stream that would end the reports of all operations.
func checkReport(message string, checkpoint *anypb.Any) error {
	if !utf8.ValidString(message) {
		return &ValueError{problem: "the message is not valid UTF-8"}
	}
	for _, each := range []struct {
		name        string
		size, limit int
	}{
		{"message", len(message), maxMessageBytes},
		{"checkpoint", len(checkpoint.GetValue()), maxCheckpointBytes},
		{"type_url of the checkpoint", len(checkpoint.GetTypeUrl()), maxTypeURLBytes},
	} {
		if each.size > each.limit {
			return &ValueError{problem: fmt.Sprintf(
				"the %s has at most %d bytes, not %d", each.name, each.limit, each.size)}
		}
	}
	return nil
}

// toStruct returns the JSON object as a message, or nil for nil.
func toStruct(members map[string]any) (*structpb.Struct, error) {
	if members == nil {
		return nil, nil
	}
	value, err := toValue(members, 0)
	if err != nil {
		return nil, err
	}
	return value.GetStructValue(), nil
}

// toValue returns the JSON value as a message.
func toValue(value any, level int) (*structpb.Value, error) {
	if level > maxLevels {
		return nil, tooDeep()
	}
	switch value := value.(type) {
	case nil:
		return structpb.NewNullValue(), nil
	case bool:
		return structpb.NewBoolValue(value), nil
	case string:
		if !utf8.ValidString(value) {
			return nil, &ValueError{problem: "a text is not valid UTF-8"}
		}
		return structpb.NewStringValue(value), nil
	case float64:
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return nil, &ValueError{problem: fmt.Sprintf("%v has no place in JSON", value)}
		}
		return structpb.NewNumberValue(value), nil
	case int:
		return toNumber(strconv.Itoa(value))
	case json.Number:
		return toNumber(value.String())
	case map[string]any:
		return toObject(value, level)
	case []any:
		return toList(value, level)
	default:
		return throughJSON(value, level)
	}
}

func toObject(members map[string]any, level int) (*structpb.Value, error) {
	fields := make(map[string]*structpb.Value, len(members))
	for name, member := range members {
		if !utf8.ValidString(name) {
			return nil, &ValueError{problem: "the name of a member is not valid UTF-8"}
		}
		field, err := toValue(member, level+1)
		if err != nil {
			return nil, err
		}
		fields[name] = field
	}
	return structpb.NewStructValue(&structpb.Struct{Fields: fields}), nil
}

func toList(items []any, level int) (*structpb.Value, error) {
	values := make([]*structpb.Value, len(items))
	for i, item := range items {
		value, err := toValue(item, level+1)
		if err != nil {
			return nil, err
		}
		values[i] = value
	}
	return structpb.NewListValue(&structpb.ListValue{Values: values}), nil
}

// toNumber returns the number that the text stands for, if a double can hold it.
func toNumber(text string) (*structpb.Value, error) {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, &ValueError{problem: fmt.Sprintf("%s has no place in JSON", text), err: err}
	}
	if !strings.ContainsAny(text, ".eE") && math.Abs(number) >= exactIntegers && !isExact(text) {
		return nil, &ValueError{
			problem: "an integer above 2**53 would lose digits in JSON: send it as text",
		}
	}
	return structpb.NewNumberValue(number), nil
}

// isExact returns true for the bound itself, which its successor is rounded to.
func isExact(text string) bool {
	return strings.TrimPrefix(text, "-") == strconv.FormatInt(exactIntegers, 10)
}

// throughJSON converts a value of any other type as package encoding/json does.
func throughJSON(value any, level int) (*structpb.Value, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, &ValueError{problem: fmt.Sprintf("the value is not JSON: %v", err), err: err}
	}
	if replacesText(text) {
		return nil, &ValueError{problem: "a text is not valid UTF-8"}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var plain any
	if err := decoder.Decode(&plain); err != nil {
		return nil, &ValueError{problem: fmt.Sprintf("the value is not JSON: %v", err), err: err}
	}
	return toValue(plain, level)
}

// replacesText returns true if a text was not valid UTF-8: only then json.Marshal writes \ufffd,
// with an escape.
func replacesText(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' {
			if bytes.HasPrefix(text[i:], []byte(`\ufffd`)) {
				return true
			}
			i++ // the escaped character
		}
	}
	return false
}

// fromAny returns the plain value of packed JSON, and anything else, or undecodable, unchanged.
func fromAny(packed *anypb.Any) any {
	if packed == nil {
		return nil
	}
	message, err := packed.UnmarshalNew()
	if err != nil {
		return packed
	}
	switch message := message.(type) {
	case *structpb.Value:
		return message.AsInterface()
	case *structpb.Struct:
		return message.AsMap()
	case *structpb.ListValue:
		return message.AsSlice()
	default:
		return packed
	}
}

// decode stores the value that fromAny has returned in into: a message is unpacked into a message,
// JSON is decoded as package encoding/json does.
func decode(value, into any) error {
	if into == nil {
		return nil
	}
	packed, isPacked := value.(*anypb.Any)
	if target, ok := into.(proto.Message); ok {
		if isPacked {
			return packed.UnmarshalTo(target)
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		return protojson.Unmarshal(text, target)
	}
	if target, ok := into.(*any); ok {
		*target = value
		return nil
	}
	if isPacked {
		return &ValueError{problem: fmt.Sprintf("a %s is not JSON", packed.MessageName())}
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
