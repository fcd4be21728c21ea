package adapters

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/model/ops"
)

// Scope is what a graph under construction offers to an adapter.
type Scope interface {
	Node(key string) *graph.Node // of a tensor that [Adapter.Params] lists
	Dropout(x *graph.Node, p float64) *graph.Node
	Tape() *ops.Tape
}

// Hook puts an adapter into one graph. It satisfies model.Hook.
type Hook struct {
	adapter *Adapter
	scope   Scope
}

// Hook returns the adapter's part in one graph.
func (a *Adapter) Hook(s Scope) *Hook { return &Hook{a, s} }

// Tensor returns the adapter's copy of a parameter that it replaces, or base.
func (h *Hook) Tensor(name string, base *graph.Node) *graph.Node {
	if slices.Contains(h.adapter.Full, name) {
		return h.scope.Node(keyPrefix + name)
	}
	return base
}

// Linear returns the output of an adapted module for x [rows, in] and w [out, in], or nil.
func (h *Hook) Linear(module string, x, w, b *graph.Node) *graph.Node {
	site, ok := h.Site(module, w, b)
	if !ok {
		return nil
	}
	m := h.adapter.method
	if f, ok := m.(Forwarder); ok {
		return f.Forward(site, x, ops.Linear(site.Tape, x, w, b))
	}
	if f, ok := m.(Biaser); ok && b != nil {
		b = f.Bias(site, b)
	}
	return ops.Linear(site.Tape, x, m.Weight(site, site.Base), b)
}

// Site is the adapted module with its base weight w [out, in] and bias b [out] or nil; ok is false
// for a module that is not adapted.
func (h *Hook) Site(module string, w, b *graph.Node) (s Site, ok bool) {
	i := slices.IndexFunc(h.adapter.Targets, func(t Target) bool { return t.Name == module })
	if i < 0 {
		return Site{}, false
	}
	t := h.adapter.Targets[i]
	if w != nil {
		w = graph.ConvertDType(w, dtypes.Float32) // formulas are in float32, whatever the base is kept in
	}
	s = Site{Target: t, Params: map[string]*graph.Node{}, Base: w, BaseBias: b, Tape: h.scope.Tape(), Drop: h.scope.Dropout}
	for _, p := range h.adapter.method.Params(t) {
		if size(p.Shape) > 0 {
			s.Params[p.Name] = h.scope.Node(key(module, p.Name))
		}
	}
	return s, true
}

// Penalty is the method's term of the loss: a scalar, or nil where it has none.
func (h *Hook) Penalty() *graph.Node {
	m, ok := h.adapter.method.(Penalizer)
	if !ok {
		return nil
	}
	var sum *graph.Node
	for _, t := range h.adapter.Targets {
		s, _ := h.Site(t.Name, nil, nil)
		switch term := m.Penalty(s); {
		case term == nil:
		case sum == nil:
			sum = term
		default:
			sum = graph.Add(sum, term)
		}
	}
	if sum == nil {
		return nil
	}
	return graph.DivScalar(sum, float64(len(h.adapter.Targets)))
}
