package adapters

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// ExtractOptions are the settings of [Extract].
type ExtractOptions struct {
	Reduce    Reduction // Rank or Energy
	BaseModel string    // base_model_name_or_path of the new adapter
	Names     format.Names
	Progress  func(done, total int, module string)
}

// Extract makes a LoRA adapter of the difference between a tuned model and its base, a tensor at a
// time. Matrices get their best approximation of low rank; other parameters that changed are saved
// whole, with the modules that they belong to. The notes say what is left out.
func Extract(ctx context.Context, base, tuned *format.Checkpoint, cfg *format.ModelConfig, opts ExtractOptions) (*Adapter, *Loss, error) {
	b, err := CheckpointBase(cfg, base)
	if err != nil {
		return nil, nil, err
	}
	x := extraction{base: b, opts: opts, full: map[string]Parameter{}, old: byCanonical(b, base), new: byCanonical(b, tuned)}
	if err := x.compare(ctx); err != nil {
		return nil, nil, fmt.Errorf("extracting: %w", err)
	}
	if len(x.modules) == 0 {
		return nil, nil, fmt.Errorf("extracting: %w: no matrix of the tuned model differs from the base's", ErrMismatch)
	}
	a, err := x.assemble()
	if err != nil {
		return nil, nil, fmt.Errorf("extracting: %w", err)
	}
	a.Notes = x.notes
	return a, lossOf(x.modules, a), nil
}

func byCanonical(b Base, ck *format.Checkpoint) map[string]format.Tensor {
	all := map[string]format.Tensor{}
	for t := range ck.Tensors() {
		all[format.Canonical(b.ModelType, t.Info().Name)] = t
	}
	return all
}

type extraction struct {
	base     Base
	opts     ExtractOptions
	old, new map[string]format.Tensor
	modules  []composed
	full     map[string]Parameter
	saved    []string // modules
	biases   bool     // some of adapted modules have changed
	notes    []string
}

// heads are small, new in most tuned models, and changed altogether.
var heads = []string{"classifier", "score", "qa_outputs"}

// compare goes through all tensors of the tuned model.
func (x *extraction) compare(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(x.new))
	var changed []string
	for i, name := range names {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if x.opts.Progress != nil {
			x.opts.Progress(i+1, len(names), name)
		}
		old, ok := x.old[name]
		if !ok {
			changed = append(changed, name)
			continue
		}
		if !slices.Equal(old.Info().Shape, x.new[name].Info().Shape) {
			if len(old.Info().Shape) == 0 || name != "classifier.weight" && name != "classifier.bias" {
				return fmt.Errorf("%w: %q is %v in the base and %v in the tuned model", ErrMismatch, name, old.Info().Shape, x.new[name].Info().Shape)
			}
			changed = append(changed, name)
			continue
		}
		delta, err := difference(old, x.new[name])
		if err != nil {
			return err
		}
		if delta == nil {
			continue
		}
		module, ok := x.base.module(strings.TrimSuffix(name, ".weight"))
		if !ok || !strings.HasSuffix(name, ".weight") || min(module.Shape[0], Target{Module: module}.In()) < 2 || slices.Contains(heads, module.Name) {
			changed = append(changed, name)
			continue
		}
		if err := x.decompose(module, delta); err != nil {
			return err
		}
	}
	for name := range x.old {
		if x.new[name] == nil {
			x.notes = append(x.notes, fmt.Sprintf("the tuned model has no %s", name))
		}
	}
	return x.keepWhole(changed)
}

// difference is tuned minus base, nil if they are equal.
func difference(old, tuned format.Tensor) ([]float32, error) {
	a, err := format.Floats(old)
	if err != nil {
		return nil, err
	}
	b, err := format.Floats(tuned)
	if err != nil {
		return nil, err
	}
	equal := true
	for i, v := range a {
		b[i] -= v
		equal = equal && b[i] == 0
		if notFinite(b[i]) {
			return nil, fmt.Errorf("%w: element %d of %q", ErrNonFinite, i, tuned.Info().Name)
		}
	}
	if equal {
		return nil, nil
	}
	return b, nil
}

func (x *extraction) decompose(m Module, delta []float32) error {
	t := Target{Module: m, Names: x.base.spellings(m.Name)}
	if m.Kind.transposed() {
		delta = hostTranspose(delta, t.In(), t.Out())
	}
	s, err := spectrumFor(delta, t.Out(), t.In(), x.opts.Reduce, 16)
	if err != nil {
		return fmt.Errorf("%q: %w", m.Name, err)
	}
	c := composed{target: t}
	c.rank = min(x.opts.Reduce.Rank, len(s.values))
	if x.opts.Reduce.Energy > 0 {
		c.rank = s.rankFor(x.opts.Reduce.Energy)
	}
	c.b, c.a = s.factors(c.rank)
	c.lost, c.energy = s.lost(c.rank), s.energy()
	x.modules = append(x.modules, c)
	return nil
}

// keepWhole saves parameters that are no matrices: biases of adapted modules by themselves, others
// with their modules.
func (x *extraction) keepWhole(changed []string) error {
	adapted := func(module string) bool {
		return slices.ContainsFunc(x.modules, func(c composed) bool { return c.target.Name == module })
	}
	for _, name := range changed {
		dot := strings.LastIndexByte(name, '.')
		if dot < 0 {
			x.notes = append(x.notes, fmt.Sprintf("%s changed, but belongs to no module that could be saved", name))
			continue
		}
		module, part := name[:dot], name[dot+1:]
		switch {
		case part == "bias" && adapted(module):
			x.biases = true
		case part != "weight" && part != "bias":
			x.notes = append(x.notes, fmt.Sprintf("%s changed, but is no module's weight or bias", name))
			continue
		case !slices.Contains(x.saved, module):
			x.saved = append(x.saved, module)
		}
	}
	for name, t := range x.new {
		dot := max(0, strings.LastIndexByte(name, '.'))
		bias := x.biases && strings.HasSuffix(name, ".bias") && adapted(name[:dot])
		if !bias && !slices.Contains(x.saved, name[:dot]) {
			continue
		}
		values, err := format.Floats(t)
		if err != nil {
			return err
		}
		x.full[name] = Parameter{name, t.Info().Shape, values}
		if x.old[name] == nil || !slices.Equal(x.old[name].Info().Shape, t.Info().Shape) {
			x.base.Parameters = slices.DeleteFunc(x.base.Parameters, func(p Parameter) bool { return p.Name == name })
			x.base.Parameters = append(x.base.Parameters, Parameter{Name: name, Shape: t.Info().Shape})
		}
	}
	return nil
}

// assemble makes the adapter. Only its modules are in its base: their names alone select them there.
func (x *extraction) assemble() (*Adapter, error) {
	var targets []string
	for _, c := range x.modules {
		for _, n := range x.opts.Names.Each() {
			targets = append(targets, format.Spell(x.base.ModelType, c.target.Name, n))
		}
	}
	var saved []string
	for _, module := range x.saved {
		for _, n := range x.opts.Names.Each() {
			saved = append(saved, format.Spell(x.base.ModelType, module, n))
		}
	}
	slices.Sort(saved)
	saved = slices.Compact(saved)
	bias := "none"
	if x.biases {
		bias = "lora_only"
	}
	text, err := json.Marshal(map[string]any{"peft_type": "LORA", "target_modules": targets, "modules_to_save": saved, "bias": bias,
		"base_model_name_or_path": x.opts.BaseModel, "task_type": nil, "inference_mode": true})
	if err != nil {
		return nil, err
	}
	cfg, err := format.ParseAdapterConfig(text)
	if err != nil {
		return nil, err
	}
	like := &Adapter{Config: cfg, base: x.base, method: &lora{loraSettings: loraSettings{TrainBias: bias}}}
	return assemble([]*Adapter{like}, x.modules, x.full, x.opts.Names)
}
