package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/internal/nearest"
)

// AdapterKeys are the keys of adapter_config.json that a run starts from, as JSON and in the order
// given, because the order of rank_pattern and alpha_pattern has a meaning. Keys that are not set
// have PEFT's defaults.
type AdapterKeys struct {
	Names  string // spelling of module names in what is written; not a key of adapter_config.json
	values []adapterValue
}

type adapterValue struct {
	name  string
	value json.RawMessage
}

// Get returns a key's value as JSON, or nil if it is not set.
func (a *AdapterKeys) Get(name string) json.RawMessage {
	for _, v := range a.values {
		if v.name == name {
			return v.value
		}
	}
	return nil
}

// Set sets or replaces a key.
func (a *AdapterKeys) Set(name string, value json.RawMessage) {
	for i, v := range a.values {
		if v.name == name {
			a.values[i].value = value
			return
		}
	}
	a.values = append(a.values, adapterValue{name, value})
}

// PeftType is the method, in PEFT's spelling.
func (a *AdapterKeys) PeftType() string {
	var s string
	if err := json.Unmarshal(a.Get("peft_type"), &s); err != nil {
		return ""
	}
	return s
}

// JSON is the text of an adapter_config.json with the keys that are set.
func (a *AdapterKeys) JSON() []byte {
	var parts []string
	for _, v := range a.values {
		parts = append(parts, fmt.Sprintf("%q: %s", v.name, v.value))
	}
	return []byte("{" + strings.Join(parts, ", ") + "}")
}

// MarshalYAML is the adapter section of a config file.
func (a AdapterKeys) MarshalYAML() (any, error) {
	all := AdapterKeys{values: append([]adapterValue{{"names", []byte(strconv.Quote(a.Names))}}, a.values...)}
	var doc yaml.Node
	if err := yaml.Load(all.JSON(), &doc); err != nil {
		return nil, err
	}
	plain(doc.Content[0])
	doc.Content[0].Style = 0
	return doc.Content[0], nil
}

// plain drops JSON's quotes where YAML needs none.
func plain(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// What a key's value may be.
type keyKind uint8

const (
	text     keyKind = iota
	positive         // whole number, 1 or more
	whole            // whole number
	number           // any finite number
	share            // number in [0, 1)
	truth            // true or false
	word             // true, false, or a name
	targets          // list of names, or one regular expression
	list             // list of names
	free             // anything; package adapters knows
	written          // train writes it
)

// adapterKey is one key of adapter_config.json, and the methods that have it.
type adapterKey struct {
	name  string
	kind  keyKind
	of    []string
	usage string // "" for what only PEFT's default may be
}

// sharedKeys are the keys that package format knows, by what a run may do with them. Which methods
// have them, format.SharedKeys says.
var sharedKeys = []adapterKey{
	{name: "peft_type", kind: text, usage: "adapter method: " + orList(adapters.Methods())},
	{name: "target_modules", kind: targets, usage: "modules to adapt: names, a regular expression, all-linear, or dummy-target-modules for none"},
	{name: "exclude_modules", kind: targets, usage: "modules to leave alone"},
	{name: "modules_to_save", kind: list, usage: "modules trained in full, such as classifier"},
	{name: "layers_to_transform", kind: free, usage: "layer numbers to adapt"},
	{name: "layers_pattern", kind: free, usage: "name of the list that layer numbers count in"},
	{name: "rank_pattern", kind: free, usage: "ranks of single modules: {name: rank}"},
	{name: "alpha_pattern", kind: free, usage: "alphas of single modules: {name: alpha}"},
	{name: "auto_mapping", kind: written},
	{name: "base_model_name_or_path", kind: written},
	{name: "inference_mode", kind: written},
	{name: "peft_version", kind: written},
	{name: "revision", kind: written},
	{name: "task_type", kind: written},
}

// adapterKeys are the shared keys and those of every method in package adapters.
var adapterKeys = func() []adapterKey {
	keys := slices.Clone(sharedKeys)
	add := func(method, name string, k adapterKey) {
		i := slices.IndexFunc(keys, func(known adapterKey) bool { return known.name == name })
		if i < 0 {
			k.name, i = name, len(keys)
			keys = append(keys, k)
		}
		if keys[i].usage == "" && keys[i].kind != written {
			keys[i].kind, keys[i].usage = k.kind, k.usage
		}
		keys[i].of = append(keys[i].of, method)
	}
	for _, method := range adapters.Methods() {
		for _, name := range format.SharedKeys(method) {
			add(method, name, adapterKey{})
		}
		for _, s := range adapters.Settings(method) {
			add(method, s.Key, adapterKey{kind: kindOf(s), usage: s.Usage})
		}
	}
	return keys
}()

// kindOf is what a method's setting may be.
func kindOf(s adapters.Setting) keyKind {
	if k, ok := map[string]keyKind{"positive": positive, "share": share, "word": word}[s.Is]; ok {
		return k
	}
	switch s.Type {
	case reflect.TypeFor[bool](), reflect.TypeFor[*bool]():
		return truth
	case reflect.TypeFor[string]():
		return text
	case reflect.TypeFor[int]():
		return whole
	case reflect.TypeFor[float64]():
		return number
	case reflect.TypeFor[format.Targets]():
		return targets
	}
	return free
}

// orList joins names as in "LORA, LOHA or IA3".
func orList(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

var (
	nameSpellings = []string{"transformers5", "transformers4", "both"}
	biasChoices   = []string{"none", "all", "lora_only"}
)

func (k adapterKey) isOf(method string) bool { return slices.Contains(k.of, method) }

// obeys tells whether a run with the method does something with the key.
func obeys(method, name string) bool {
	if slices.Contains(format.SharedKeys(method), name) {
		return true
	}
	return slices.ContainsFunc(adapters.Settings(method), func(s adapters.Setting) bool { return s.Key == name && s.Usage != "" })
}

func findAdapterKey(name string) (adapterKey, bool) {
	i := slices.IndexFunc(adapterKeys, func(k adapterKey) bool { return k.name == name })
	if i < 0 {
		return adapterKey{}, false
	}
	return adapterKeys[i], true
}

// problems checks what only all keys together show. What hubtool cannot do, as opposed to what is
// wrong, is left to check.
func (a *AdapterKeys) problems() []string {
	var p []string
	method := a.PeftType()
	if !slices.Contains(nameSpellings, a.Names) {
		p = append(p, fmt.Sprintf("adapter.names is %q, but must be one of %s%s", a.Names, strings.Join(nameSpellings, ", "), nearest.DidYouMean(a.Names, nameSpellings)))
	}
	switch {
	case slices.Contains(adapters.Methods(), method):
	case slices.Contains(adapters.OtherMethods, method):
		return p
	default:
		return append(p, fmt.Sprintf("adapter.peft_type is %q, but must be one of %s%s", method, orList(adapters.Methods()), nearest.DidYouMean(method, adapters.Methods())))
	}
	for _, v := range a.values {
		if k, known := findAdapterKey(v.name); known && !k.isOf(method) {
			var valid []string
			for _, other := range adapterKeys {
				if other.usage != "" && obeys(method, other.name) {
					valid = append(valid, other.name)
				}
			}
			p = append(p, fmt.Sprintf("adapter.%s does nothing: %s has no such key%s", v.name, method, nearest.DidYouMean(v.name, valid)))
		}
	}
	if bias := a.Get("bias"); bias != nil && !slices.Contains(biasChoices, strings.Trim(string(bias), `"`)) {
		p = append(p, fmt.Sprintf("adapter.bias is %s, but must be one of %s", bias, strings.Join(biasChoices, ", ")))
	}
	if err := a.check(); len(p) == 0 && errors.Is(err, format.ErrConfig) {
		p = append(p, "adapter: "+strings.TrimPrefix(err.Error(), format.ErrConfig.Error()+": "))
	}
	return p
}

// check is an error for settings that package adapters does not take for a new adapter.
func (a *AdapterKeys) check() error {
	cfg, err := format.ParseAdapterConfig(a.JSON())
	if err != nil {
		return err
	}
	return adapters.CheckNew(cfg)
}
