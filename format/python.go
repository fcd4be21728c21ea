package format

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxConfigBytes bounds a configuration file. AdaLoRA's masks, one boolean a
// line, are the longest known content.
const maxConfigBytes = 16 << 20

// readConfig reads a JSON object of configuration keys from a file.
func readConfig(path string) (map[string]json.RawMessage, error) {
	text, err := readCapped(path, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	raw, err := parseConfig(text)
	return raw, at("reading", path, err)
}

// parseConfig splits a JSON object into its fields. Duplicate keys are refused
// at every level.
func parseConfig(text []byte) (map[string]json.RawMessage, error) {
	s, err := newScanner(text)
	if err != nil {
		return nil, &Error{Kind: ErrConfig, Err: err}
	}
	raw := map[string]json.RawMessage{}
	err = s.object(func(key string) error {
		if _, dup := raw[key]; dup {
			return fmt.Errorf("field %q: given twice", key)
		}
		value, err := s.value()
		if err != nil {
			return fmt.Errorf("field %q: %w", key, err)
		}
		raw[key] = value
		return nil
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, &Error{Kind: ErrConfig, Err: err}
	}
	return raw, nil
}

// fieldError is an ErrConfig that names the field.
func fieldError(field string, err error) error {
	return &Error{Kind: ErrConfig, Err: fmt.Errorf("field %q: %w", field, err)}
}

// decodeField decodes one value with a message that says what was expected.
func decodeField(field string, raw json.RawMessage, v any) error {
	err := json.Unmarshal(raw, v)
	if err == nil {
		return nil
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		where := ""
		if t.Field != "" {
			where = t.Field + ": "
		}
		err = fmt.Errorf("%sexpected %s, found %s", where, kindName(t), clip(raw))
	}
	return fieldError(field, err)
}

var kindNames = map[string]string{"int": "an integer", "float64": "a number", "float32": "a number",
	"bool": "true or false", "string": "a string", "slice": "a list", "map": "an object", "struct": "an object"}

func kindName(t *json.UnmarshalTypeError) string {
	kind := t.Type.Kind().String()
	return cmp.Or(kindNames[kind], kind)
}

func clip(raw []byte) string {
	if len(raw) > 40 {
		return string(raw[:40]) + "…"
	}
	return string(raw)
}

// pythonJSON rewrites valid JSON as Python's json.dumps(indent=2,
// sort_keys=True) prints it: sorted keys, "\u" escapes for all but ASCII,
// floats as repr() has them. There is no newline at the end. The objects
// called numbered have integers as keys in Python and are sorted as such.
func pythonJSON(raw []byte, numbered ...string) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return appendPython(nil, v, "\n", numbered), nil
}

// appendPython prints a decoded value. The newline carries the indentation.
func appendPython(b []byte, v any, newline string, numbered []string) []byte {
	inner := newline + "  "
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case json.Number:
		return append(b, pythonNumber(v.String())...)
	case string:
		return appendPythonString(b, v)
	case []any:
		if len(v) == 0 {
			return append(b, "[]"...)
		}
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendPython(append(b, inner...), x, inner, numbered)
		}
		return append(append(b, newline...), ']')
	case map[string]any:
		return appendPythonObject(b, v, newline, slices.Sorted(maps.Keys(v)), numbered)
	}
	panic(fmt.Sprintf("format: %T cannot come out of a JSON decoder", v))
}

func appendPythonObject(b []byte, v map[string]any, newline string, keys, numbered []string) []byte {
	if len(v) == 0 {
		return append(b, "{}"...)
	}
	inner := newline + "  "
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendPythonString(append(b, inner...), key)
		b = append(b, ": "...)
		if member, ok := v[key].(map[string]any); ok && slices.Contains(numbered, key) {
			byNumber := slices.SortedFunc(maps.Keys(member), func(a, b string) int {
				return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
			})
			b = appendPythonObject(b, member, inner, byNumber, nil)
		} else {
			b = appendPython(b, v[key], inner, numbered)
		}
	}
	return append(append(b, newline...), '}')
}

// pythonNumber prints a JSON number as Python would after reading it: integers
// as they are, anything else as repr(float).
func pythonNumber(text string) string {
	if !strings.ContainsAny(text, ".eE") {
		if text == "-0" {
			return "0"
		}
		return text
	}
	f, _ := strconv.ParseFloat(text, 64) // the scanner refused what overflows
	return pythonFloat(f)
}

// pythonFloat is repr(float) for finite f: shortest digits that round-trip,
// with an exponent below 1e-4 and from 1e16 on.
func pythonFloat(f float64) string {
	sci := strconv.FormatFloat(f, 'e', -1, 64)
	_, exp, _ := strings.Cut(sci, "e")
	if n, _ := strconv.Atoi(exp); n < -4 || n >= 16 {
		return sci
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

func appendPythonString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\b':
			b = append(b, '\\', 'b')
		case r == '\f':
			b = append(b, '\\', 'f')
		case ' ' <= r && r <= '~':
			b = append(b, byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(b, '"')
}
