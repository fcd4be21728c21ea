package adapterstest

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/model/ops"
)

const rows = 7 // of each module's input

// Base is a base with one module of each kind: linear layers that are square, wider and narrower
// than their input, one of them without a bias, and a convolution. They have the names of a ViT's, so that
// both generations of names can be tested.
func Base() adapters.Base {
	const layer = "vit.encoder.layer.0."
	modules := []adapters.Module{
		{Name: "vit.embeddings.patch_embeddings.projection", Kind: adapters.Convolution, Shape: []int{8, 4, 2, 3}, Bias: true},
		{Name: layer + "attention.attention.query", Shape: []int{8, 8}},
		{Name: layer + "intermediate.dense", Shape: []int{24, 8}, Bias: true},
		{Name: layer + "output.dense", Shape: []int{8, 24}, Bias: true},
	}
	b := adapters.Base{ModelType: "vit", Modules: modules}
	b.Values = func(name string) ([]float32, error) { return value(name), nil }
	for _, m := range modules {
		b.Parameters = append(b.Parameters, adapters.Parameter{Name: m.Name + ".weight", Shape: m.Shape})
		if m.Bias {
			b.Parameters = append(b.Parameters, adapters.Parameter{Name: m.Name + ".bias", Shape: m.Shape[:1]})
		}
	}
	return b
}

// value returns the elements of a tensor of the base, or of an input of a module, nil if there is none.
func value(name string) []float32 {
	for _, m := range Base().Modules {
		elements := 1
		for _, d := range m.Shape {
			elements *= d
		}
		switch name {
		case m.Name + ".weight":
			return random(name, elements)
		case m.Name + ".input":
			return random(name, rows*elements/m.Shape[0])
		case m.Name + ".bias":
			if m.Bias {
				return random(name, m.Shape[0])
			}
		}
	}
	return nil
}

func random(name string, n int) []float32 {
	h := fnv.New64a()
	h.Write([]byte(name))
	rng := rand.New(rand.NewPCG(h.Sum64(), 0))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64())
	}
	return values
}

// scope offers an adapter's parameters to its hook. Nothing is dropped, so that results can be
// compared; with a tape the graph is one of training all the same.
type scope struct {
	nodes map[string]*graph.Node
	tape  *ops.Tape
}

func (s scope) Node(key string) *graph.Node                  { return s.nodes[key] }
func (s scope) Dropout(x *graph.Node, _ float64) *graph.Node { return x }
func (s scope) Tape() *ops.Tape                              { return s.tape }

// site is a target with the nodes that a model has for it.
type site struct {
	target  adapters.Target
	x, w, b *graph.Node
}

// machine has the graphs of one adapter's targets. Its methods take the adapter's values of the moment.
type machine struct {
	adapter *adapters.Adapter
	inputs  []any                                     // of each target: x, weight, and bias where it has one
	outputs func(*testing.T, []any) []*tensors.Tensor // those of output, for each target
	losses  func(*testing.T, []any) []*tensors.Tensor // loss and gradients through Forward, then through Weight
}

func newMachine(t *testing.T, backend compute.Backend, a *adapters.Adapter) *machine {
	t.Helper()
	m := &machine{adapter: a}
	for _, target := range a.Targets {
		m.inputs = append(m.inputs, tensors.FromFlatDataAndDimensions(value(target.Name+".input"), rows, target.In()),
			tensors.FromFlatDataAndDimensions(value(target.Name+".weight"), target.Out(), target.In()))
		if target.Bias {
			m.inputs = append(m.inputs, tensors.FromFlatDataAndDimensions(value(target.Name+".bias"), target.Out()))
		}
	}
	m.outputs = m.compile(t, backend, m.buildOutputs)
	m.losses = m.compile(t, backend, m.buildLosses)
	return m
}

// compile makes a function of the adapter's parameters, the targets' inputs, and more.
func (m *machine) compile(t *testing.T, backend compute.Backend, build func(s scope, sites []site, more []*graph.Node) []*graph.Node) func(*testing.T, []any) []*tensors.Tensor {
	t.Helper()
	exec, err := graph.NewExec(backend, func(in []*graph.Node) []*graph.Node {
		next := func() *graph.Node { n := in[0]; in = in[1:]; return n }
		s := scope{nodes: map[string]*graph.Node{}}
		for _, p := range m.adapter.Params() {
			s.nodes[p.Name] = next()
		}
		var sites []site
		for _, target := range m.adapter.Targets {
			one := site{target: target, x: next(), w: next()}
			if target.Bias {
				one.b = next()
			}
			sites = append(sites, one)
		}
		return build(s, sites, in)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exec.Finalize)
	return func(t *testing.T, more []any) []*tensors.Tensor {
		t.Helper()
		var args []any
		for _, p := range m.adapter.Params() {
			args = append(args, tensors.FromFlatDataAndDimensions(slices.Clone(p.Values), p.Shape...))
		}
		out, err := exec.Call(append(append(args, m.inputs...), more...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func (m *machine) buildOutputs(s scope, sites []site, _ []*graph.Node) []*graph.Node {
	var all []*graph.Node
	for _, at := range sites {
		w, b := m.adapted(s, at)
		all = append(all, ops.Linear(nil, at.x, at.w, at.b), m.adapter.Hook(s).Linear(at.target.Name, at.x, at.w, at.b), ops.Linear(nil, at.x, w, b), w)
		if b != nil {
			all = append(all, b)
		}
	}
	return all
}

// adapted returns the weight and the bias of an adapted module.
func (m *machine) adapted(s scope, at site) (w, b *graph.Node) {
	on, _ := m.adapter.Hook(s).Site(at.target.Name, at.w, at.b)
	w, b = m.adapter.Method().Weight(on, at.w), at.b
	if m, ok := m.adapter.Method().(adapters.Biaser); ok && b != nil {
		b = m.Bias(on, b)
	}
	return w, b
}

// buildLosses computes how far outputs are from goals: the mean square, summed over targets.
func (m *machine) buildLosses(s scope, sites []site, goals []*graph.Node) []*graph.Node {
	s.tape = ops.NewTape()
	var wrt []*graph.Node
	for _, p := range m.adapter.Params() {
		wrt = append(wrt, s.nodes[p.Name])
	}
	var all []*graph.Node
	for _, throughWeight := range []bool{false, true} {
		var sum *graph.Node
		for i, at := range sites {
			var y *graph.Node
			if throughWeight {
				w, b := m.adapted(s, at)
				y = ops.Linear(nil, at.x, w, b)
			} else {
				y = m.adapter.Hook(s).Linear(at.target.Name, at.x, at.w, at.b)
			}
			square := graph.ReduceAllMean(graph.Square(graph.Sub(y, goals[i])))
			if i == 0 {
				sum = square
			} else {
				sum = graph.Add(sum, square)
			}
		}
		all = append(append(all, sum), s.tape.Gradient(sum, wrt...)...)
	}
	return all
}

// output is what one target computes outside training.
type output struct {
	base, adapted, throughWeight []float32 // of the module, [rows, out]
	weight, bias                 []float32 // adapted; no bias for a module without one
}

func (m *machine) output(t *testing.T) []output {
	t.Helper()
	nodes := m.outputs(t, nil)
	next := func() []float32 { n := nodes[0]; nodes = nodes[1:]; return tensors.MustCopyFlatData[float32](n) }
	var all []output
	for _, target := range m.adapter.Targets {
		o := output{base: next(), adapted: next(), throughWeight: next(), weight: next()}
		if target.Bias {
			o.bias = next()
		}
		all = append(all, o)
	}
	return all
}

// goals are outputs for loss to reach.
func (m *machine) goals(t *testing.T) []any {
	t.Helper()
	var goals []any
	for i, o := range m.output(t) {
		goals = append(goals, tensors.FromFlatDataAndDimensions(o.adapted, rows, m.adapter.Targets[i].Out()))
	}
	return goals
}

// loss returns the loss and its gradients by the adapter's parameters, through Forward and through Weight.
func (m *machine) loss(t *testing.T, goals []any) (loss float64, forward, weight [][]float32) {
	t.Helper()
	out := m.losses(t, goals)
	half := len(out) / 2
	for i := 1; i < half; i++ {
		forward = append(forward, tensors.MustCopyFlatData[float32](out[i]))
		weight = append(weight, tensors.MustCopyFlatData[float32](out[half+i]))
	}
	return float64(tensors.ToScalar[float32](out[0])), forward, weight
}
