package adapters

import (
	"math"
	"slices"
)

// pruning is the state of AdaLoRA's training: how important each rank was so far, and which are left.
type pruning struct {
	targets     []Target
	first, last int // ranks of all targets before and after
	sites       []importance
}

// importance holds two moving averages for each element of a target's parameters: of |w·∂L/∂w|, its
// sensitivity, and of that one's own fluctuation, its uncertainty.
type importance struct {
	sensitivity, uncertainty Values
	left                     []float32 // for each rank 1, or 0 where it is pruned
}

// Plan fixes the number of steps, unless the config has it, and returns the state.
func (m *adalora) Plan(steps int, targets []Target) ([]Parameter, error) {
	if m.TotalStep == nil {
		m.TotalStep = &steps
	}
	if err := m.schedule(); err != nil {
		return nil, err
	}
	m.pruning = &pruning{targets: targets, last: m.TargetR * len(targets)}
	var state []Parameter
	for _, t := range targets {
		site := importance{Values{}, Values{}, make([]float32, m.rank(t))}
		Ones(nil, site.left)
		state = append(state, Parameter{"left." + t.Name, []int{m.rank(t)}, site.left})
		for _, p := range m.Params(t) {
			site.sensitivity[p.Name], site.uncertainty[p.Name] = make([]float32, size(p.Shape)), make([]float32, size(p.Shape))
			state = append(state, Parameter{"sensitivity." + key(t.Name, p.Name), p.Shape, site.sensitivity[p.Name]},
				Parameter{"uncertainty." + key(t.Name, p.Name), p.Shape, site.uncertainty[p.Name]})
		}
		m.pruning.first += m.rank(t)
		m.pruning.sites = append(m.pruning.sites, site)
	}
	return state, nil
}

// of returns which ranks of a target are left, nil before training.
func (p *pruning) of(t Target) []float32 {
	if p == nil {
		return nil
	}
	return p.sites[slices.IndexFunc(p.targets, func(own Target) bool { return own.Name == t.Name })].left
}

// Allocate is PEFT's update_and_allocate: it prunes towards the budget until total_step - tfinal
// steps are done. Pruned ranks can come back until then, as their E is trained on; after it they
// are held at zero.
func (m *adalora) Allocate(step int, values, grads []Values) {
	end := *m.TotalStep - m.TFinal
	if step < end {
		m.observe(values, grads)
	}
	switch {
	case step == end, step < end && step > m.TInit && step%m.DeltaT == 0:
		m.pruning.choose(m.allowed(step))
	case step < end:
		return
	}
	for i, site := range m.pruning.sites {
		for rank, left := range site.left {
			if left == 0 {
				values[i]["lora_E"][rank] = 0
			}
		}
	}
	if step == end {
		m.pruning.forget()
	}
}

// Left counts the ranks of init_r that neither rank_pattern nor training has taken.
func (m *adalora) Left(t Target) (left, of int) {
	if mask := m.left(t); mask != nil {
		return count(mask), m.InitR
	}
	return m.InitR, m.InitR
}

// observe updates the moving averages from parameters and the gradients of the step that made them.
// Like torch it rounds each operation to float32.
func (m *adalora) observe(values, grads []Values) {
	keep1, take1 := float32(m.Beta1), float32(1-m.Beta1)
	keep2, take2 := float32(m.Beta2), float32(1-m.Beta2)
	for i, site := range m.pruning.sites {
		for name, sensitivity := range site.sensitivity {
			uncertainty, w, g := site.uncertainty[name], values[i][name], grads[i][name]
			for j := range sensitivity {
				now := abs(w[j] * g[j])
				mean := float32(keep1*sensitivity[j]) + float32(take1*now)
				sensitivity[j] = mean
				uncertainty[j] = float32(keep2*uncertainty[j]) + float32(take2*abs(now-mean))
			}
		}
	}
}

func abs(v float32) float32 { return float32(math.Abs(float64(v))) }

// allowed is the number of ranks that may be left after a step between tinit and the end: it falls
// with the cube of the steps to go.
func (m *adalora) allowed(step int) int {
	p := m.pruning
	togo := 1 - float64(step-m.TInit)/float64(*m.TotalStep-m.TFinal-m.TInit)
	// Python's power rounds once, and one rank hangs on it where the product is a whole number.
	square := togo * togo
	cube := square * togo
	cube += math.FMA(square, togo, -cube) + math.FMA(togo, togo, -square)*togo
	return int(float64(p.first-p.last)*cube + float64(p.last))
}

// choose keeps the most important ranks of all targets together. More than needed go where ranks
// are equally important, as before E has ever changed.
func (p *pruning) choose(allowed int) {
	var scores []float32
	for i := range p.sites {
		scores = append(scores, p.sites[i].scores(p.targets[i])...)
	}
	threshold := float32(-1) // scores are not negative
	if goes := p.first - allowed; goes > 0 {
		threshold = slices.Sorted(slices.Values(scores))[goes-1]
	}
	for _, site := range p.sites {
		for rank := range site.left {
			site.left[rank] = 0
			if scores[rank] > threshold {
				site.left[rank] = 1
			}
		}
		scores = scores[len(site.left):]
	}
}

// scores are the importances of a target's ranks: that of E's element and the means of A's row and
// B's column.
func (s importance) scores(t Target) []float32 {
	ranks := len(s.left)
	at := func(name string, j int) float64 { return float64(s.sensitivity[name][j] * s.uncertainty[name][j]) }
	scores := make([]float32, ranks)
	for rank := range scores {
		var a, b float64
		for j := range t.In() {
			a += at("lora_A", rank*t.In()+j)
		}
		for j := range t.Out() {
			b += at("lora_B", j*ranks+rank)
		}
		ab := float32(a/float64(t.In())) + float32(b/float64(t.Out()))
		scores[rank] = float32(at("lora_E", rank)) + ab
	}
	return scores
}

func (p *pruning) forget() {
	for _, site := range p.sites {
		for name := range site.sensitivity {
			clear(site.sensitivity[name])
			clear(site.uncertainty[name])
		}
	}
}
