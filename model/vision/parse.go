package vision

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/internal/nearest"
)

// Defaults completes a pipeline with what the model's image processor says: Normalize without
// arguments, and crops and resizes without a size.
type Defaults struct {
	Mean, Std [3]float32
	Size      int // pixels a side
}

// ParsePipeline builds a pipeline from decoded YAML or JSON: a list of torchvision names, each
// alone or as a map from the name to its arguments (the first one, or all by keyword):
//
//	[{RandomResizedCrop: {size: 224, scale: [0.6, 1]}}, RandomHorizontalFlip, ToTensor, Normalize]
//
// ToTensor, and Normalize if there is one, stand at the end; only MixUp and CutMix, which are for
// batches, may follow. The error lists every problem of the
// list, not only the first.
func ParsePipeline(spec any, d Defaults) (*Pipeline, error) {
	list, ok := spec.([]any)
	if !ok {
		return nil, fmt.Errorf("reading transforms: want a list of names such as [Resize, ToTensor], found %v", spec)
	}
	p := &pipelineParser{defaults: d, pipeline: &Pipeline{Std: [3]float32{1, 1, 1}}}
	for i, item := range list {
		name, value, err := splitItem(item)
		if err != nil {
			p.errs = append(p.errs, fmt.Errorf("reading transform %d: %w", i+1, err))
			continue
		}
		for _, err := range p.step(name, value) {
			p.errs = append(p.errs, fmt.Errorf("reading transform %d, %s: %w", i+1, name, err))
		}
	}
	if !p.tensor && len(p.errs) == 0 {
		p.errs = append(p.errs, errors.New("reading transforms: there is no ToTensor; add it, and Normalize, at the end"))
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.pipeline, nil
}

func splitItem(item any) (name string, value any, err error) {
	switch item := item.(type) {
	case string:
		return item, nil, nil
	case map[string]any:
		if len(item) == 1 {
			for k, v := range item {
				return k, v, nil
			}
		}
		return "", nil, fmt.Errorf("want one name, found %d: %q", len(item), slices.Sorted(maps.Keys(item)))
	}
	return "", nil, fmt.Errorf("want a name or a map of a name to arguments, found %v", item)
}

type pipelineParser struct {
	defaults          Defaults
	pipeline          *Pipeline
	tensor, normalize bool // seen so far
	errs              []error
}

// step adds one transform and returns what is wrong with it.
func (p *pipelineParser) step(name string, value any) []error {
	a := &arguments{defaults: p.defaults}
	b, known := builders[name]
	mixer := mixers[name]
	switch {
	case mixer != nil && !p.tensor:
		a.failf("it is for batches of tensors; move it behind ToTensor and Normalize")
	case mixer != nil:
		a.set(value, "alpha")
		p.pipeline.Mixers = append(p.pipeline.Mixers, mixer(a.positive("alpha", 1)))
	case len(p.pipeline.Mixers) > 0:
		a.failf("only MixUp or CutMix may follow %s; move it in front", p.pipeline.Mixers[0])
	case name == "ToTensor":
		a.set(value)
		p.tensor = true
	case name == "Normalize":
		a.set(value, "mean", "std")
		p.setNormalize(a)
	case !known:
		a.failf("unknown name%s (known: %s)", nearest.DidYouMean(name, transformNames()), strings.Join(transformNames(), ", "))
	case p.tensor:
		a.failf("only Normalize, MixUp and CutMix may follow ToTensor; move it in front")
	default:
		a.set(value, b.keys...)
		if t := b.build(a); len(a.errs) == 0 {
			p.pipeline.Steps = append(p.pipeline.Steps, t)
		}
	}
	return a.errs
}

func (p *pipelineParser) setNormalize(a *arguments) {
	if !p.tensor {
		a.failf("it needs a tensor; put ToTensor in front of it")
	}
	if p.normalize {
		a.failf("there are two of it; remove one")
	}
	p.normalize = true
	p.pipeline.Mean, p.pipeline.Std = a.channels("mean", p.defaults.Mean), a.channels("std", p.defaults.Std)
	if slices.Contains(p.pipeline.Std[:], 0) {
		a.failf("std is %v, but must not contain 0", p.pipeline.Std)
	}
}

func transformNames() []string {
	return append(slices.Sorted(maps.Keys(builders)), "ToTensor", "Normalize", "MixUp", "CutMix")
}
