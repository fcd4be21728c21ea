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
	return a.config(names).Write(dir)
}

// tensors are the adapter's parameters under the names of PEFT's files.
func (a *Adapter) tensors(names format.Names) []format.Tensor {
	var ts []format.Tensor
	seen := map[string]bool{}
	for _, p := range a.params {
		name := strings.TrimPrefix(p.Name, keyPrefix)
		for _, n := range names.Each() {
			spelled := format.Spell(a.base.ModelType, name, n)
			if module, ok := strings.CutSuffix(spelled, ".bias"); ok && a.wraps(strings.TrimSuffix(name, ".bias")) {
				spelled = module + ".base_layer.bias"
			}
			if !seen[spelled] {
				seen[spelled] = true
				ts = append(ts, format.FloatTensor(keyPrefix+spelled, p.Shape, p.Values))
			}
		}
	}
	return ts
}

// wraps tells whether the module is a target, whose own tensors PEFT keeps in "base_layer".
func (a *Adapter) wraps(module string) bool {
	return slices.ContainsFunc(a.Targets, func(t Target) bool { return t.Name == module })
}

// config is the adapter's config as it is saved: as it was made where that selects the same modules
// with the same ranks among names of the given generation, else with targets and patterns in those
// names, the shortest that do.
func (a *Adapter) config(names format.Names) *format.AdapterConfig {
	cfg := *a.Config
	cfg.InferenceMode = true
	if class, ok := classes[a.base.ModelType]; ok && cfg.AutoMapping == nil && cfg.TaskType == nil {
		cfg.AutoMapping, _ = json.Marshal(class)
	}
	// PEFT saves what "all-linear" stands for.
	if !strings.EqualFold(cfg.TargetModules.Pattern, "all-linear") && a.selectsSame(cfg, names) {
		return &cfg
	}
	cfg.RankPattern, cfg.AlphaPattern = a.patterns(names)
	for parts := 1; parts <= 3; parts++ {
		cfg.TargetModules = format.Targets{Names: a.suffixes(names, parts)}
		if a.selectsSame(cfg, names) {
			return &cfg
		}
	}
	const whole = 1 << 10
	cfg.TargetModules = format.Targets{Names: a.suffixes(names, whole)}
	cfg.ExcludeModules, cfg.LayersToTransform, cfg.LayersPattern = format.Targets{}, nil, nil
	return &cfg
}

// selectsSame tells whether the config selects the adapter's targets with their ranks and alphas
// wherever modules have the names of one of the generations.
func (a *Adapter) selectsSame(cfg format.AdapterConfig, names format.Names) bool {
	for _, n := range names.Each() {
		targets, err := selectTargets(&cfg, a.method, a.base.Modules, func(name string) []string {
			return []string{format.Spell(a.base.ModelType, name, n)}
		})
		// An error means that it selects nothing, or something that cannot be adapted.
		if err != nil || !slices.EqualFunc(targets, a.Targets, func(x, y Target) bool {
			return x.Name == y.Name && x.Rank == y.Rank && x.Alpha == y.Alpha
		}) {
			return false
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
		for _, n := range names.Each() {
			path := strings.Split(format.Spell(a.base.ModelType, t.Name, n), ".")
			list = append(list, strings.Join(path[max(0, len(path)-parts):], "."))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
