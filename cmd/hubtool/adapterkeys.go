package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
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

// adapterKey is one key of adapter_config.json; of lists the methods that obey it, "" for all.
type adapterKey struct {
	name  string
	kind  keyKind
	of    string
	usage string
}

// adapterKeys are the keys of PEFT 0.21 that mean something for an image classifier, and those of
// its LoRA files that package adapters refuses unless they have their defaults.
var adapterKeys = []adapterKey{
	{"peft_type", text, "", "adapter method: LORA, ADALORA, LOHA, LOKR or IA3"},
	{"target_modules", targets, "", "modules to adapt: names, a regular expression, or all-linear"},
	{"exclude_modules", targets, "", "modules to leave alone"},
	{"modules_to_save", list, "", "modules trained in full, such as classifier"},
	{"layers_to_transform", free, "", "layer numbers to adapt"},
	{"layers_pattern", free, "", "name of the list that layer numbers count in"},
	{"r", positive, "LORA LOHA LOKR", "rank"},
	{"rank_pattern", free, "LORA LOHA LOKR", "ranks of single modules: {name: rank}"},
	{"alpha_pattern", free, "LORA LOHA LOKR", "alphas of single modules: {name: alpha}"},

	{"lora_alpha", number, "LORA ADALORA", "scale: the update counts lora_alpha / r"},
	{"lora_dropout", share, "LORA ADALORA", "dropout before the adapter"},
	{"fan_in_fan_out", truth, "LORA ADALORA IA3", "weights are stored [in, out]"},
	{"bias", text, "LORA ADALORA", "biases to train: none, all or lora_only"},
	{"init_lora_weights", word, "LORA ADALORA", "how new adapters begin: true, false, gaussian …"},
	{"use_rslora", truth, "LORA ADALORA", "scale by the root of the rank"},
	{"use_dora", truth, "LORA", "train the magnitude of each weight row as well"},
	{"lora_bias", truth, "LORA", "give the adapter a bias"},
	{"layer_replication", free, "LORA", ""},
	{"target_parameters", free, "LORA", ""},
	{"trainable_token_indices", free, "LORA ADALORA", ""},
	{"loftq_config", free, "LORA ADALORA", ""},
	{"eva_config", free, "LORA ADALORA", ""},
	{"corda_config", free, "LORA ADALORA", ""},
	{"lora_ga_config", free, "LORA ADALORA", ""},
	{"kasa_config", free, "LORA ADALORA", ""},
	{"velora_config", free, "LORA ADALORA", ""},
	{"monteclora_config", free, "LORA ADALORA", ""},
	{"arrow_config", free, "LORA ADALORA", ""},
	{"alora_invocation_tokens", free, "LORA ADALORA", ""},
	{"ensure_weight_tying", truth, "LORA ADALORA", ""},
	{"megatron_config", free, "LORA ADALORA", ""},
	{"megatron_core", free, "LORA ADALORA", ""},
	{"use_qalora", truth, "LORA ADALORA", ""},
	{"qalora_group_size", whole, "LORA ADALORA", ""},
	{"use_bdlora", free, "LORA ADALORA", ""},

	{"init_r", positive, "ADALORA", "rank at the beginning"},
	{"target_r", positive, "ADALORA", "average rank at the end"},
	{"tinit", whole, "ADALORA", "steps before pruning begins"},
	{"tfinal", whole, "ADALORA", "steps after pruning has ended"},
	{"deltaT", positive, "ADALORA", "steps between two prunings"},
	{"beta1", share, "ADALORA", "smoothing of the sensitivity"},
	{"beta2", share, "ADALORA", "smoothing of its uncertainty"},
	{"orth_reg_weight", number, "ADALORA", "weight of the orthogonality penalty"},
	{"total_step", positive, "ADALORA", "steps of the whole training; default: as planned"},

	{"alpha", number, "LOHA LOKR", "scale: the update counts alpha / r"},
	{"rank_dropout", share, "LOHA LOKR", "dropout of ranks"},
	{"module_dropout", share, "LOHA LOKR", "dropout of whole adapters"},
	{"use_effective_conv2d", truth, "LOHA LOKR", "decompose convolutions by kernel position"},
	{"init_weights", word, "LOHA LOKR", "how new adapters begin"},
	{"decompose_both", truth, "LOKR", "decompose the left factor too"},
	{"decompose_factor", whole, "LOKR", "size of the left factor; -1: balanced"},
	{"rank_dropout_scale", truth, "LOKR", "scale up what rank dropout leaves"},

	{"feedforward_modules", targets, "IA3", "target modules whose input is scaled, not their output"},
	{"init_ia3_weights", truth, "IA3", "begin with ones"},

	{"auto_mapping", written, "", ""},
	{"base_model_name_or_path", written, "", ""},
	{"inference_mode", written, "", ""},
	{"peft_version", written, "", ""},
	{"revision", written, "", ""},
	{"task_type", written, "", ""},
}

var (
	adapterMethods = []string{"LORA", "ADALORA", "LOHA", "LOKR", "IA3"}
	nameSpellings  = []string{"transformers5", "transformers4", "both"}
	biasChoices    = []string{"none", "all", "lora_only"}
)

func (k adapterKey) obeyedBy(method string) bool {
	return k.of == "" || slices.Contains(strings.Fields(k.of), method)
}

func findAdapterKey(name string) (adapterKey, bool) {
	i := slices.IndexFunc(adapterKeys, func(k adapterKey) bool { return k.name == name })
	if i < 0 {
		return adapterKey{}, false
	}
	return adapterKeys[i], true
}

// problems checks what only all keys together show.
func (a *AdapterKeys) problems() []string {
	var p []string
	method := a.PeftType()
	if !slices.Contains(adapterMethods, method) {
		return []string{fmt.Sprintf("adapter.peft_type is %q, but must be one of %s%s", method, strings.Join(adapterMethods, ", "), didYouMean(method, adapterMethods))}
	}
	if !slices.Contains(nameSpellings, a.Names) {
		p = append(p, fmt.Sprintf("adapter.names is %q, but must be one of %s%s", a.Names, strings.Join(nameSpellings, ", "), didYouMean(a.Names, nameSpellings)))
	}
	for _, v := range a.values {
		k, known := findAdapterKey(v.name)
		if known && !k.obeyedBy(method) {
			var valid []string
			for _, other := range adapterKeys {
				if other.of != "" && other.obeyedBy(method) {
					valid = append(valid, other.name)
				}
			}
			p = append(p, fmt.Sprintf("adapter.%s does nothing: %s has no such key%s", v.name, method, didYouMean(v.name, valid)))
		}
	}
	if bias := a.Get("bias"); bias != nil && !slices.Contains(biasChoices, strings.Trim(string(bias), `"`)) {
		p = append(p, fmt.Sprintf("adapter.bias is %s, but must be one of %s", bias, strings.Join(biasChoices, ", ")))
	}
	return p
}
