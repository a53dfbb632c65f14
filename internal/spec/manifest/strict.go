package manifest

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// maxNesting bounds how deep a JSON document may nest; real ones stay below 10.
const maxNesting = 64

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// decodeStrict decodes one JSON object into v after it has checked what encoding/json lets pass: a key given twice, a key that
// differs from a known field in case only (encoding/json would take it for the field), data after the object, deep nesting.
// Unknown keys are allowed: the formats are open. It returns the keys of the outermost object.
func decodeStrict(raw []byte, v any) (map[string]bool, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	tok, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	if tok != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	keys, err := walkObject(dec, reflect.TypeOf(v).Elem(), 1)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("data after the JSON object")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, err
	}
	return keys, nil
}

// walkObject checks an object whose opening brace was read. t is the type it will be decoded into, nil when unknown.
func walkObject(dec *json.Decoder, t reflect.Type, depth int) (map[string]bool, error) {
	fields := fieldsOf(t)
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key := tok.(string) // the decoder accepts only strings here
		if seen[key] {
			return nil, fmt.Errorf("key %q appears twice", clip(key))
		}
		seen[key] = true
		ft, known := fields[key]
		if !known {
			for f := range fields {
				if strings.EqualFold(f, key) {
					return nil, fmt.Errorf("key %q is a disguise of %q", clip(key), f)
				}
			}
			if t != nil && t.Kind() == reflect.Map {
				ft = t.Elem()
			}
		}
		if err := walkValue(dec, ft, depth); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return seen, err
}

func walkValue(dec *json.Decoder, t reflect.Type, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if tok == json.Delim('{') || tok == json.Delim('[') {
		if depth++; depth > maxNesting {
			return fmt.Errorf("nested deeper than %d", maxNesting)
		}
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch tok {
	case json.Delim('{'):
		_, err = walkObject(dec, t, depth)
		return err
	case json.Delim('['):
		var elem reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			elem = t.Elem()
		}
		for dec.More() {
			if err := walkValue(dec, elem, depth); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	}
	return err
}

// fieldsOf maps the JSON names of a struct to the types of their fields, embedded structs included; outer fields win.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct || decodesItself(t) {
		return nil
	}
	fields := map[string]reflect.Type{}
	for level := []reflect.Type{t}; len(level) > 0; {
		var next []reflect.Type
		for _, s := range level {
			for i := range s.NumField() {
				f := s.Field(i)
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				switch {
				case name == "-" || !f.IsExported() && !f.Anonymous:
				case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
					next = append(next, f.Type)
				default:
					if name == "" {
						name = f.Name
					}
					if _, shadowed := fields[name]; !shadowed {
						fields[name] = f.Type
					}
				}
			}
		}
		level = next
	}
	return fields
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler)
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
