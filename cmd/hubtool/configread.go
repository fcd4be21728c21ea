package main

import (
	"cmp"
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/internal/nearest"
)

// configReader fills structs from YAML nodes and gathers everything that is wrong, where package
// yaml would stop or name no alternative.
type configReader struct {
	problems []string
	sweeping bool // the file may have a section sweep, which gives axes
	axes     []axis
}

func (r *configReader) add(problems ...string) { r.problems = append(r.problems, problems...) }

// at reports a problem with its line; nodes made from flags have none.
func (r *configReader) at(n *yaml.Node, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if n.Line > 0 {
		text = fmt.Sprintf("line %d: %s", n.Line, text)
	}
	r.add(text)
}

// fill sets v from a node. An empty value keeps the default.
func (r *configReader) fill(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if keys, ok := v.Addr().Interface().(*AdapterKeys); ok {
		r.eachKey(n, key, func(_ string, k, value *yaml.Node) { r.adapterKey(keys, k, value) })
		return
	}
	if v.Kind() != reflect.Struct {
		if want := setValue(n, v); want != "" {
			r.at(n, "%s is %s, but must be %s", key, shown(n), want)
		}
		return
	}
	fields := structFields(v)
	r.eachKey(n, key, func(name string, k, value *yaml.Node) {
		if f, err := strconv.ParseFloat(value.Value, 64); k.Value == "warmup_ratio" && err == nil && f >= 1 {
			r.at(k, "%s.warmup_ratio is %s, but must be below 1", key, value.Value)
		}
		if field, ok := fields[name]; ok {
			r.fill(value, field, strings.TrimPrefix(key+"."+name, "."))
			return
		}
		if key == "training" && r.trainerKey(k, value) {
			return
		}
		r.at(k, "unknown key %q%s", strings.TrimPrefix(key+"."+name, "."), suggestKey(name, fields))
	})
}

// oldKeys are names that transformers used before version 5.
var oldKeys = map[string]string{
	"training.warmup_ratio":        "warmup_steps",
	"training.evaluation_strategy": "eval_strategy",
}

// eachKey visits a mapping's entries, refusing anything else and keys given twice.
func (r *configReader) eachKey(n *yaml.Node, key string, visit func(name string, k, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		if key == "" {
			key = "the file"
		}
		r.at(n, "%s is %s, but must be keys with values", key, shown(n))
		return
	}
	seen := map[string]string{} // as it is spelled
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		name := cmp.Or(oldKeys[key+"."+k.Value], k.Value)
		switch before, given := seen[name]; {
		case given && before != k.Value:
			r.at(k, "%s.%s and %s.%s are one setting: give only one", key, before, key, k.Value)
			continue
		case given:
			r.at(k, "%s is given twice", strings.TrimPrefix(key+"."+name, "."))
			continue
		}
		seen[name] = k.Value
		visit(name, k, n.Content[i+1])
	}
}

// structFields maps YAML names to fields, those of embedded structs included.
func structFields(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		if sf.Anonymous {
			for name, f := range structFields(v.Field(i)) {
				fields[name] = f
			}
			continue
		}
		name, _, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		fields[name] = v.Field(i)
	}
	return fields
}

// suggestKey looks among the neighbours first, then among the short flags, and last in the other
// sections, where a key often belongs.
func suggestKey(name string, neighbours map[string]reflect.Value) string {
	var near []string
	for n := range neighbours {
		near = append(near, n)
	}
	if s := nearest.DidYouMean(name, near); s != "" {
		return s
	}
	if s := suggestShort(name); s != "" {
		return s
	}
	full := map[string]string{}
	for _, f := range defaultConfig().fields() {
		full[f.key[strings.LastIndex(f.key, ".")+1:]] = f.key
	}
	for _, k := range adapterKeys {
		full[k.name] = "adapter." + k.name
	}
	var last []string
	for n := range full {
		last = append(last, n)
	}
	if n := nearest.Name(name, last); n != "" {
		return fmt.Sprintf(", did you mean %q?", full[n])
	}
	return ""
}

// suggestShort is the key whose flag has a short form of this name.
func suggestShort(name string) string {
	if i := slices.IndexFunc(shortFlags, func(f shortFlag) bool { return f.name == kebab(name) }); i >= 0 {
		return fmt.Sprintf(", did you mean %q?", shortFlags[i].keys[0])
	}
	return ""
}

// setValue sets a scalar or free-form value, or says what it must be. Numbers are read from their
// text, because YAML takes 1e-8 without a dot for a word in many dialects.
func setValue(n *yaml.Node, v reflect.Value) (want string) {
	if v.Kind() == reflect.Interface {
		var x any
		if err := n.Decode(&x); err != nil {
			return "valid YAML: " + err.Error()
		}
		v.Set(reflect.ValueOf(x))
		return ""
	}
	scalar := n.Kind == yaml.ScalarNode
	if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && scalar {
		if err := t.UnmarshalText([]byte(n.Value)); err != nil {
			return err.Error()
		}
		return ""
	}
	switch v.Kind() {
	case reflect.String:
		if !scalar || n.ShortTag() == "!!bool" {
			return "text"
		}
		v.SetString(n.Value)
	case reflect.Bool:
		b, ok := parseBool(n.Value)
		if !scalar || !ok {
			return "true or false"
		}
		v.SetBool(b)
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if !scalar || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return "a number"
		}
		v.SetFloat(f)
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if !scalar || err != nil {
			return "a whole number"
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint64:
		u, err := strconv.ParseUint(n.Value, 10, 64)
		if !scalar || err != nil {
			return "a whole number, zero or more"
		}
		v.SetUint(u)
	case reflect.Slice: // of texts, taken as written: a class may be called no
		var list []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return "a list of plain names"
			}
			list = append(list, item.Value)
		}
		if n.Kind != yaml.SequenceNode {
			return "a list of plain names"
		}
		v.Set(reflect.ValueOf(list))
	default:
		panic("config field of kind " + v.Kind().String()) // a new field needs a case here
	}
	return ""
}

// parseBool accepts the spellings of YAML 1.1, which Python reads.
func parseBool(s string) (value, ok bool) {
	s = strings.ToLower(s)
	if slices.Contains([]string{"true", "yes", "on"}, s) {
		return true, true
	}
	return false, slices.Contains([]string{"false", "no", "off"}, s)
}

func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}
