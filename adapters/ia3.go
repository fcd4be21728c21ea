package adapters

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// ia3 is (IA)³: l ⊙ W with a trained vector l that scales the module's outputs, bias included, or,
// in feedforward modules, its inputs. Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is
// Better and Cheaper than In-Context Learning".
type ia3 struct {
	Feedforward format.Targets `json:"feedforward_modules" usage:"target modules whose input is scaled, not their output"`
	FanInFanOut bool           `json:"fan_in_fan_out" usage:"weights are stored [in, out]"`
	InitWeights bool           `json:"init_ia3_weights" usage:"begin with ones"`

	pattern *regexp.Regexp // of Feedforward, where that is one
}

func newIA3(cfg *format.AdapterConfig) (Method, error) {
	m := &ia3{InitWeights: true}
	if err := cfg.Method(m); err != nil {
		return nil, err
	}
	if m.Feedforward.IsZero() {
		return nil, fmt.Errorf("%w: feedforward_modules is missing: name the target modules whose inputs are scaled, or set it to [] for none", format.ErrConfig)
	}
	if cfg.TargetModules.Names != nil {
		for _, name := range m.Feedforward.Names {
			if !slices.Contains(cfg.TargetModules.Names, name) {
				return nil, fmt.Errorf("%w: feedforward_modules has %q, which target_modules has not", format.ErrConfig, name)
			}
		}
	}
	if m.Feedforward.Pattern != "" {
		var err error
		if m.pattern, err = pythonRegexp("feedforward_modules", "^(?:"+m.Feedforward.Pattern+`)\z`); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *ia3) Scale() (int, float64) { return 1, 0 }
func (m *ia3) Settings() any         { return m }
func (m *ia3) Check(t Target) error  { return refuseKinds(t, "IA3", Embedding) }

// feedforward tells whether a target's inputs are scaled. PEFT compares the ends of names, with no
// regard to dots.
func (m *ia3) feedforward(t Target) bool {
	return slices.ContainsFunc(t.Names, func(name string) bool {
		if m.pattern != nil {
			return m.pattern.MatchString(name)
		}
		return slices.ContainsFunc(m.Feedforward.Names, func(end string) bool { return strings.HasSuffix(name, end) })
	})
}

// Named lists the feedforward modules in the names of a file.
func (m *ia3) Named(targets []Target, _, entries func(Target) []string) any {
	if entries == nil {
		return m
	}
	named := *m
	named.Feedforward = format.Targets{Names: []string{}}
	for _, t := range targets {
		if m.feedforward(t) {
			named.Feedforward.Names = append(named.Feedforward.Names, entries(t)...)
		}
	}
	slices.Sort(named.Feedforward.Names)
	named.Feedforward.Names = slices.Compact(named.Feedforward.Names)
	return &named
}

func (m *ia3) Params(t Target) []Param {
	shape := []int{t.Out(), 1}
	switch ff := m.feedforward(t); {
	case t.Kind == Convolution && ff:
		shape = []int{1, t.Shape[1], 1, 1}
	case t.Kind == Convolution:
		shape = []int{1, t.Out(), 1, 1}
	case ff:
		shape = []int{1, t.In()}
	}
	init := Init(Ones)
	if !m.InitWeights {
		init = Normal(1)
	}
	return []Param{{"ia3_l", shape, init}}
}

// inputs is l of a feedforward target as a row [1, in]: all positions of a kernel have that of their channel.
func inputs(s Site) *graph.Node {
	l := graph.Reshape(s.Params["ia3_l"], s.Shape[1], 1)
	return graph.Reshape(graph.BroadcastToDims(l, s.Shape[1], s.In()/s.Shape[1]), 1, s.In())
}

func (m *ia3) Weight(s Site, base *graph.Node) *graph.Node {
	if m.feedforward(s.Target) {
		return graph.Mul(base, inputs(s))
	}
	return graph.Mul(base, graph.Reshape(s.Params["ia3_l"], s.Out(), 1))
}

func (m *ia3) Bias(s Site, base *graph.Node) *graph.Node {
	if m.feedforward(s.Target) {
		return base
	}
	return graph.Mul(base, graph.Reshape(s.Params["ia3_l"], s.Out()))
}

// Forward scales activations, which needs no gradient of the size of the weight.
func (m *ia3) Forward(s Site, x, y *graph.Node) *graph.Node {
	if m.feedforward(s.Target) {
		return ops.Linear(s.Tape, graph.Mul(x, inputs(s)), s.Base, s.BaseBias)
	}
	return graph.Mul(y, graph.Reshape(s.Params["ia3_l"], 1, s.Out()))
}

// ByRows is true where rows of the stored weight are outputs.
func (m *ia3) ByRows(t Target) bool { return !t.Kind.transposed() }

// MergeRows follows PEFT 0.21: W ⊙ l in float32, one rounding in either mode.
func (m *ia3) MergeRows(t Target, values Values, _ Rounding) RowUpdate {
	l, in, kernel := values["ia3_l"], t.In(), t.In()/t.Shape[1]
	ff := m.feedforward(t)
	return RowUpdate{Replace: func(first int, w []float32) {
		for i := range w {
			if ff {
				w[i] *= l[i%in/kernel]
			} else {
				w[i] *= l[first+i/in]
			}
		}
	}}
}

// Merge is MergeRows on all rows.
func (m *ia3) Merge(t Target, values Values, w []float32, rounding Rounding, round func(float32) float32) {
	mergeAll(m, t, values, w, rounding, round)
}

func (m *ia3) MergesBias() bool { return true }

func (m *ia3) MergeBias(t Target, values Values, bias []float32) {
	if m.feedforward(t) {
		return
	}
	for i, l := range values["ia3_l"] {
		bias[i] *= l
	}
}
