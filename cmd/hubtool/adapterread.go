package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/internal/nearest"
)

// adapterKey reads one key of the adapter section. An empty value is PEFT's default.
func (r *configReader) adapterKey(keys *AdapterKeys, k, n *yaml.Node) {
	name := k.Value
	known, ok := findAdapterKey(name)
	if !ok && name != "names" {
		valid := []string{"names"}
		for _, a := range adapterKeys {
			if a.kind != written {
				valid = append(valid, a.name)
			}
		}
		r.at(k, "unknown key %q%s", "adapter."+name, cmp.Or(nearest.DidYouMean(name, valid), suggestShort(name)))
		return
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if name == "names" {
		keys.Names = n.Value // checked by AdapterKeys.problems
		return
	}
	value, want := adapterJSON(n, known.kind)
	if want != "" {
		r.at(n, "adapter.%s is %s, but must be %s", name, shown(n), want)
		return
	}
	if name == "peft_type" {
		value = []byte(strings.ToUpper(string(value)))
	}
	keys.Set(name, value)
}

// adapterJSON turns a value into JSON of its key's kind, or says what it must be. PEFT needs ranks
// to be written as integers.
func adapterJSON(n *yaml.Node, kind keyKind) (value json.RawMessage, want string) {
	scalar := n.Kind == yaml.ScalarNode
	i, intErr := strconv.ParseInt(n.Value, 10, 32)
	f, floatErr := strconv.ParseFloat(n.Value, 64)
	finite := scalar && floatErr == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
	b, isBool := parseBool(n.Value)
	switch {
	case kind == written:
		return nil, "left out: train writes it"
	case kind == text && scalar && n.ShortTag() != "!!bool", kind == word && scalar && !isBool:
		return mustJSON(n.Value), ""
	case kind == positive && scalar && intErr == nil && i >= 1, kind == whole && scalar && intErr == nil:
		return mustJSON(i), ""
	case kind == number && finite, kind == share && finite && f >= 0 && f < 1:
		if intErr == nil {
			return mustJSON(i), ""
		}
		return mustJSON(f), ""
	case (kind == truth || kind == word) && scalar && isBool:
		return mustJSON(b), ""
	case kind == targets && scalar && n.ShortTag() != "!!bool":
		return mustJSON(n.Value), ""
	case (kind == targets || kind == list) && n.Kind == yaml.SequenceNode:
		var names []string
		if n.Decode(&names) == nil {
			return mustJSON(names), ""
		}
	case kind == free:
		value, err := nodeJSON(n)
		if err != nil {
			return nil, "plain data: " + err.Error()
		}
		return value, ""
	}
	return nil, [...]string{
		text: "text", positive: "a whole number, 1 or more", whole: "a whole number", number: "a number",
		share: "a number from 0 to below 1", truth: "true or false", word: "true, false or a name",
		targets: "a list of names, or a regular expression", list: "a list of names",
	}[kind]
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, bools and finite numbers only
	}
	return b
}

// nodeJSON writes a YAML value as JSON, keeping the order of keys.
func nodeJSON(n *yaml.Node) (json.RawMessage, error) {
	var parts []string
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := nodeJSON(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			parts = append(parts, fmt.Sprintf("%s: %s", mustJSON(n.Content[i].Value), v))
		}
		return []byte("{" + strings.Join(parts, ", ") + "}"), nil
	case yaml.SequenceNode:
		for _, c := range n.Content {
			v, err := nodeJSON(c)
			if err != nil {
				return nil, err
			}
			parts = append(parts, string(v))
		}
		return []byte("[" + strings.Join(parts, ", ") + "]"), nil
	case yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, err
		}
		return json.Marshal(v)
	}
	return nil, errors.New("references between values are not allowed here") // they could be endless
}
