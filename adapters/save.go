package adapters

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// File is the name under which PEFT keeps an adapter's tensors.
const File = "adapter_model.safetensors"

// classes gives, by model_type, the class of transformers that PEFT wraps: auto_mapping.
var classes = map[string]struct {
	Class   string `json:"base_model_class"`
	Library string `json:"parent_library"`
}{
	"vit": {"ViTForImageClassification", "transformers.models.vit.modeling_vit"},
}

// Save writes the adapter into dir as PEFT would, with module names of the given generation. Each
// file appears whole or not at all, the config last.
func (a *Adapter) Save(ctx context.Context, dir string, names format.Names) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("saving adapter: %w", err)
	}
	if err := format.Write(ctx, filepath.Join(dir, File), a.tensors(names), map[string]string{"format": "pt"}); err != nil {
		return err
	}
	cfg, err := a.config(names)
	if err != nil {
		return fmt.Errorf("saving adapter: %w", err)
	}
	return cfg.Write(dir)
}

// exported are the parameters of the i-th target as they are saved.
func (a *Adapter) exported(i int, names format.Names) []Parameter {
	params := a.params[a.first[i]:a.first[i+1]]
	if m, ok := a.method.(Exporter); ok {
		return m.Export(a.Targets[i], params, names == format.BothNames)
	}
	return params
}

// tensors are the adapter's parameters under the names of PEFT's files.
func (a *Adapter) tensors(names format.Names) []format.Tensor {
	var params []Parameter
	for i := range a.Targets {
		params = append(params, a.exported(i, names)...)
	}
	params = append(params, a.params[a.first[len(a.Targets)]:]...)
	var ts []format.Tensor
	seen := map[string]bool{}
	for _, p := range params {
		name := strings.TrimPrefix(p.Name, keyPrefix)
		for _, n := range names.Each() {
			spelled := format.Spell(a.base.ModelType, name, n)
			if a.wraps(name) {
				dot := strings.LastIndexByte(spelled, '.')
				spelled = spelled[:dot] + ".base_layer" + spelled[dot:]
			}
			if !seen[spelled] {
				seen[spelled] = true
				ts = append(ts, format.FloatTensor(keyPrefix+spelled, p.Shape, p.Values))
			}
		}
	}
	return ts
}

// wraps tells whether a parameter of the base is a target's, whose own tensors PEFT keeps in "base_layer".
func (a *Adapter) wraps(parameter string) bool {
	return slices.ContainsFunc(a.Targets, func(t Target) bool {
		return parameter == t.Name+".weight" || parameter == t.Name+".bias"
	})
}

// config is the adapter's config as it is saved: as it was made where that selects the same modules
// with the same tensors among names of the given generation, else with targets and patterns in those
// names, the shortest that do.
func (a *Adapter) config(names format.Names) (*format.AdapterConfig, error) {
	text, err := a.Config.MarshalJSON()
	if err != nil {
		return nil, err
	}
	cfg, err := format.ParseAdapterConfig(text) // a copy
	if err != nil {
		return nil, err
	}
	cfg.InferenceMode = true
	if class, ok := classes[a.base.ModelType]; ok && cfg.AutoMapping == nil && cfg.TaskType == nil {
		cfg.AutoMapping, _ = json.Marshal(class)
	}
	if err := a.name(cfg, names, 0); err != nil {
		return nil, err
	}
	// PEFT saves what "all-linear" stands for.
	if !strings.EqualFold(cfg.TargetModules.Pattern, "all-linear") && a.selectsSame(cfg, names) {
		return cfg, nil
	}
	cfg.RankPattern, cfg.AlphaPattern = a.patterns(names)
	for _, parts := range []int{1, 2, 3, whole} {
		if parts == whole {
			cfg.ExcludeModules, cfg.LayersToTransform, cfg.LayersPattern = format.Targets{}, nil, nil
		}
		cfg.TargetModules = format.Targets{Names: a.suffixes(names, parts)}
		if err := a.name(cfg, names, parts); err != nil {
			return nil, err
		}
		if a.selectsSame(cfg, names) {
			break
		}
	}
	return cfg, nil
}

const whole = 1 << 10 // parts of a module's name: all

// name puts the method's settings that name modules into the names of the given generation, for
// target_modules whose entries have so many parts; 0 where target_modules is as it was.
func (a *Adapter) name(cfg *format.AdapterConfig, names format.Names, parts int) error {
	m, ok := a.method.(Namer)
	if !ok {
		return nil
	}
	last := func(parts int) func(Target) []string {
		return func(t Target) []string { return a.spelled(t, names, parts) }
	}
	if parts == 0 {
		return cfg.SetMethod(m.Named(a.Targets, last(whole), nil))
	}
	return cfg.SetMethod(m.Named(a.Targets, last(whole), last(parts)))
}

// selectsSame tells whether the config selects the adapter's targets with their scales and the
// tensors that are saved wherever modules have the names of one of the generations.
func (a *Adapter) selectsSame(cfg *format.AdapterConfig, names format.Names) bool {
	m, err := construct(cfg)
	if err != nil {
		return false
	}
	for _, n := range names.Each() {
		targets, err := selectTargets(cfg, m, a.base.Modules, func(name string) []string {
			return []string{format.Spell(a.base.ModelType, name, n)}
		})
		// An error means that it selects nothing, or something that cannot be adapted.
		if err != nil || len(targets) != len(a.Targets) {
			return false
		}
		for i, t := range targets {
			own := a.Targets[i]
			if t.Name != own.Name || t.Rank != own.Rank || t.Alpha != own.Alpha ||
				!slices.EqualFunc(m.Params(t), a.exported(i, names), func(p Param, saved Parameter) bool { return slices.Equal(p.Shape, saved.Shape) }) {
				return false
			}
		}
	}
	return true
}

// patterns names every target whose rank or alpha is not the config's.
func (a *Adapter) patterns(names format.Names) (ranks, alphas format.Pattern) {
	ranks, alphas = format.Pattern{}, format.Pattern{}
	rank, alpha := a.method.Scale()
	for _, t := range a.Targets {
		for _, n := range names.Each() {
			key := "^" + regexp.QuoteMeta(format.Spell(a.base.ModelType, t.Name, n))
			if t.Rank != rank {
				ranks = append(ranks, format.PatternEntry{Key: key, Value: float64(t.Rank)})
			}
			if t.Alpha != alpha {
				alphas = append(alphas, format.PatternEntry{Key: key, Value: t.Alpha})
			}
		}
	}
	return ranks, alphas
}

// suffixes are the last parts of the targets' names, sorted, none twice.
func (a *Adapter) suffixes(names format.Names, parts int) []string {
	var list []string
	for _, t := range a.Targets {
		list = append(list, a.spelled(t, names, parts)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// spelled are the last parts of a target's name in each generation.
func (a *Adapter) spelled(t Target, names format.Names, parts int) []string {
	var list []string
	for _, n := range names.Each() {
		path := strings.Split(format.Spell(a.base.ModelType, t.Name, n), ".")
		list = append(list, strings.Join(path[max(0, len(path)-parts):], "."))
	}
	return slices.Compact(list)
}
