package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters"
)

// setting is a config key given as a flag.
type setting struct {
	flag, key, text string
}

// shortFlag is a common setting's short form. It sets all its keys that the run's method obeys;
// words are values that stand for several settings.
type shortFlag struct {
	name  string
	keys  []string
	usage string
	words map[string][]string
}

var shortFlags = []shortFlag{
	{name: "dataset", keys: []string{"dataset.path"}},
	{name: "method", keys: []string{"adapter.peft_type"}, usage: "adapter method: lora, dora, rslora, adalora, loha, lokr or ia3", words: map[string][]string{
		"dora":   {"adapter.peft_type=LORA", "adapter.use_dora=true"},
		"rslora": {"adapter.peft_type=LORA", "adapter.use_rslora=true"},
	}},
	{name: "rank", keys: []string{"adapter.r", "adapter.init_r"}},
	{name: "alpha", keys: []string{"adapter.lora_alpha", "adapter.alpha"}},
	{name: "target-modules", keys: []string{"adapter.target_modules"}},
	{name: "epochs", keys: []string{"training.num_train_epochs"}},
	{name: "batch-size", keys: []string{"training.per_device_train_batch_size", "training.per_device_eval_batch_size"}},
	{name: "devices", keys: []string{"training.devices"}},
	{name: "learning-rate", keys: []string{"training.learning_rate"}},
	{name: "precision", keys: []string{"training.fp16", "training.bf16"}, usage: "fp32, fp16, bf16, or auto: bf16 where it is faster", words: map[string][]string{
		"fp32": {"training.fp16=false", "training.bf16=false"},
		"f32":  {"training.fp16=false", "training.bf16=false"},
		"fp16": {"training.fp16=true", "training.bf16=false"},
		"bf16": {"training.fp16=false", "training.bf16=true"},
		"auto": {"training.fp16=false", "training.bf16=auto"},
	}},
	{name: "seed", keys: []string{"training.seed"}},
	{name: "out", keys: []string{"training.output_dir"}},
	{name: "resume", keys: []string{"training.resume_from_checkpoint"}},
	{name: "skip-broken", keys: []string{"dataset.skip_broken"}},
	{name: "push", keys: []string{"training.push_to_hub"}},
}

// configFlags makes a flag of every config key, and the short forms; loadConfig uses what they
// were given.
func (e *env) configFlags() []cli.Flag {
	var flags []cli.Flag
	fields := defaultConfig().fields()
	for _, s := range shortFlags {
		value := &settingValue{env: e, flag: s.name, key: s.name}
		usage := s.usage
		if i := slices.IndexFunc(fields, func(f configField) bool { return f.key == s.keys[0] }); i >= 0 && usage == "" {
			value.kind = fields[i].value.Type()
			usage = "short for --" + kebab(s.keys[0])
		}
		if usage == "" {
			usage = "short for --" + kebab(strings.Join(s.keys, " or --"))
		}
		flags = append(flags, &cli.GenericFlag{Name: s.name, Usage: usage, Value: value})
	}
	for _, f := range fields {
		value := &settingValue{env: e, flag: kebab(f.key), key: f.key, kind: f.value.Type()}
		if !f.value.IsZero() {
			value.now = fmt.Sprint(f.value)
		}
		category := ""
		if section, _, nested := strings.Cut(f.key, "."); nested {
			category = "Keys of the config file: " + section
		}
		flags = append(flags, &cli.GenericFlag{Name: value.flag, Usage: f.usage, Category: category, Value: value})
	}
	keys := append([]adapterKey{{name: "names", kind: text, usage: "module names in the files: " + orList(nameSpellings)}}, adapterKeys...)
	for _, k := range keys {
		if k.kind == written {
			continue
		}
		value := &settingValue{env: e, flag: "adapter." + kebab(k.name), key: "adapter." + k.name}
		if k.kind == truth {
			value.kind = reflect.TypeFor[bool]()
		}
		flags = append(flags, &cli.GenericFlag{
			Name: value.flag, Usage: k.usage, Category: "Keys of the config file: adapter", Value: value,
			Hidden: k.usage == "", // refused by every method unless they have their default
		})
	}
	return flags
}

func kebab(key string) string { return strings.ReplaceAll(key, "_", "-") }

// settingValue notes a key and its text; loadConfig checks it together with the file.
type settingValue struct {
	env       *env
	flag, key string
	kind      reflect.Type
	now       string
}

func (v *settingValue) String() string { return v.now }

func (v *settingValue) Set(text string) error {
	v.now = text
	v.env.settings = append(v.env.settings, setting{v.flag, v.key, text})
	return nil
}

// IsBoolFlag says which flags may stand alone, meaning true.
func (v *settingValue) IsBoolFlag() bool {
	return v.kind == reflect.TypeFor[bool]() || v.kind == reflect.TypeFor[Half]() || v.kind == reflect.TypeFor[AutoPath]()
}

// words are the values of a key that has a few.
func (v *settingValue) words() []string {
	switch {
	case v.kind == reflect.TypeFor[Half]():
		return []string{"true", "false", "auto"}
	case v.IsBoolFlag():
		return []string{"true", "false"}
	case v.key == "names" || v.key == "adapter.names":
		return nameSpellings
	}
	var list []string
	if v.key == "method" || v.key == "adapter.peft_type" {
		for _, name := range adapters.Methods() {
			list = append(list, strings.ToLower(name))
		}
	}
	for _, s := range shortFlags {
		if s.name == v.key {
			list = slices.AppendSeq(list, maps.Keys(s.words))
		}
	}
	slices.Sort(list)
	return list
}

// takes says whether a word behind such a flag is its value.
func (v *settingValue) takes(word string) bool {
	_, ok := parseBool(word)
	return ok || v.kind == reflect.TypeFor[Half]() && word == "auto"
}

// flags overlays the settings given as flags. The method comes first, because the keys that some
// short forms mean depend on it.
func (r *configReader) flags(cfg *Config, settings []setting) {
	var long, late []setting
	for _, s := range settings {
		i := slices.IndexFunc(shortFlags, func(f shortFlag) bool { return f.name == s.key })
		switch {
		case i < 0:
			long = append(long, s)
		case shortFlags[i].words[strings.ToLower(s.text)] != nil:
			for _, pair := range shortFlags[i].words[strings.ToLower(s.text)] {
				key, text, _ := strings.Cut(pair, "=")
				long = append(long, setting{s.flag, key, text})
			}
		case s.key == "precision":
			r.add(fmt.Sprintf("--precision is %q, but must be fp32, fp16, bf16 or auto", s.text))
		case len(shortFlags[i].keys) == 1:
			long = append(long, setting{s.flag, shortFlags[i].keys[0], s.text})
		default:
			late = append(late, s)
		}
	}
	for _, s := range long {
		r.set(cfg, s)
	}
	for _, s := range late {
		i := slices.IndexFunc(shortFlags, func(f shortFlag) bool { return f.name == s.key })
		obeyed := 0
		for _, key := range shortFlags[i].keys {
			name, isAdapter := strings.CutPrefix(key, "adapter.")
			if !isAdapter || obeys(cfg.Adapter.PeftType(), name) {
				r.set(cfg, setting{s.flag, key, s.text})
				obeyed++
			}
		}
		if obeyed == 0 {
			r.add(fmt.Sprintf("--%s does nothing: %s has no such setting", s.flag, cfg.Adapter.PeftType()))
		}
	}
}

func (r *configReader) set(cfg *Config, s setting) {
	kind, field := text, reflect.Value{}
	name, isAdapter := strings.CutPrefix(s.key, "adapter.")
	if isAdapter {
		k, _ := findAdapterKey(name)
		kind = k.kind
	}
	for _, f := range cfg.fields() {
		if f.key == s.key {
			field = f.value
		}
	}
	switch {
	case isAdapter:
	case field.Kind() == reflect.Interface:
		kind = free
	case field.Kind() == reflect.Slice:
		kind = list
	}
	node := flagNode(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s.text}, kind)
	before := len(r.problems)
	switch {
	case node == nil:
		r.add(fmt.Sprintf("%s is %q, but must be valid YAML", s.key, s.text))
	case isAdapter:
		r.adapterKey(&cfg.Adapter, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, node)
	default:
		if want := setValue(node, field); want != "" {
			r.add(fmt.Sprintf("%s is %q, but must be %s", s.key, s.text, want))
		}
	}
	for i := range r.problems[before:] {
		r.problems[before+i] = strings.Replace(r.problems[before+i], s.key, "--"+s.flag, 1)
	}
}

// flagNode reads a flag's text as its key's kind wants it: names divided by commas, or YAML; nil
// if that is malformed.
func flagNode(n *yaml.Node, kind keyKind) *yaml.Node {
	yamlText := strings.HasPrefix(strings.TrimSpace(n.Value), "[") || kind == free
	switch {
	case yamlText:
		var doc yaml.Node
		if yaml.Load([]byte(n.Value), &doc) != nil || len(doc.Content) == 0 {
			return nil
		}
		clearLines(doc.Content[0])
		return doc.Content[0]
	case kind == list, kind == targets && n.Value != "all-linear" && n.Value != adapters.NoTargets && !strings.ContainsAny(n.Value, `*+?()[]{}|^$\`):
		names := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, name := range strings.Split(n.Value, ",") {
			names.Content = append(names.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.TrimSpace(name)})
		}
		return names
	}
	return n
}

// clearLines forgets positions, which would look like the config file's.
func clearLines(n *yaml.Node) {
	n.Line = 0
	for _, c := range n.Content {
		clearLines(c)
	}
}
