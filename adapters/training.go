package adapters

import "strings"

// Plan prepares the adapter for so many optimizer steps.
func (a *Adapter) Plan(steps int) error {
	m, ok := a.method.(Allocator)
	if !ok {
		return nil
	}
	var err error
	if a.state, err = m.Plan(steps, a.Targets); err != nil {
		return err
	}
	return a.Config.SetMethod(a.method.Settings()) // which may have waited for the number
}

// Allocate must follow each optimizer step after [Adapter.Plan], the first of which is 1, with the
// gradients by [Adapter.Params] that it used. It may change parameters.
func (a *Adapter) Allocate(step int, grads [][]float32) {
	m, ok := a.method.(Allocator)
	if !ok {
		return
	}
	values, gradients := make([]Values, len(a.Targets)), make([]Values, len(a.Targets))
	for i, t := range a.Targets {
		values[i], gradients[i] = a.TargetValues(t), Values{}
		for j := a.first[i]; j < a.first[i+1]; j++ {
			gradients[i][strings.TrimPrefix(a.params[j].Name, keyPrefix+t.Name+".")] = grads[j]
		}
	}
	m.Allocate(step, values, gradients)
}

// RanksLeft is how many ranks a module has left.
type RanksLeft struct {
	Module   string // canonical
	Left, Of int
}

// RanksLeft returns what training has left of the targets' ranks, nil for methods that take none.
func (a *Adapter) RanksLeft() []RanksLeft {
	m, ok := a.method.(Allocator)
	if !ok {
		return nil
	}
	var list []RanksLeft
	for _, t := range a.Targets {
		left, of := m.Left(t)
		list = append(list, RanksLeft{t.Name, left, of})
	}
	return list
}

// State is what training depends on beside Params: empty, or tensors whose values change in place.
func (a *Adapter) State() []Parameter { return a.state }
