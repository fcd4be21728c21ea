package train

import (
	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/model"
)

// Base describes a loaded model to the adapters on it. w may be nil where only names and shapes are
// needed.
func Base(m model.Model, w *model.Weights) adapters.Base {
	b := adapters.Base{ModelType: m.Type()}
	if w != nil {
		b.Values = w.Values
	}
	shapes := map[string][]int{}
	for _, p := range m.Parameters() {
		shapes[p.Name] = p.Shape
		b.Parameters = append(b.Parameters, adapters.Parameter{Name: p.Name, Shape: p.Shape})
	}
	for _, name := range m.Modules() {
		module := adapters.Module{Name: name, Shape: shapes[name+".weight"], Bias: shapes[name+".bias"] != nil}
		if len(module.Shape) == 4 {
			module.Kind = adapters.Convolution
		}
		b.Modules = append(b.Modules, module)
	}
	return b
}

// Attach moves an adapter's parameters to the engine beside the model's and returns what puts it
// into the model's graphs.
func Attach(w *model.Weights, a *adapters.Adapter) (model.Attach, error) {
	for _, p := range a.Params() {
		if err := set(w, p); err != nil {
			return nil, err
		}
	}
	return func(p *model.Params) model.Hook { return a.Hook(p) }, nil
}

// set moves a parameter to the engine, unless it has no elements: nothing asks for it there.
func set(w *model.Weights, p adapters.Parameter) error {
	if len(p.Values) == 0 {
		return nil
	}
	return w.Set(p.Name, p.Shape, p.Values)
}

// Narrow keeps the weights of modules in the precision of products. Those that an adapter is on stay
// in float32, because its formula may look at more than their product; the head's that it replaces
// are of no use.
func Narrow(m model.Model, w *model.Weights, a *adapters.Adapter) error {
	adapted := map[string]bool{}
	if a != nil {
		for _, t := range a.Targets {
			adapted[t.Name] = true
		}
	}
	var names []string
	for _, module := range m.Modules() {
		if !adapted[module] {
			names = append(names, module+".weight")
		}
	}
	return w.Narrow(names...)
}
