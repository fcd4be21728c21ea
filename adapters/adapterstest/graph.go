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

// program builds a graph over the targets' inputs, weights and biases and the adapter's parameters, and
// returns what executes it at their present values.
func program(t *testing.T, backend compute.Backend, a *adapters.Adapter, build func(s scope, sites []site) []*graph.Node) func() []*tensors.Tensor {
	t.Helper()
	var inputs []any
	exec, err := graph.NewExec(backend, func(in []*graph.Node) []*graph.Node {
		next := func() *graph.Node { n := in[0]; in = in[1:]; return n }
		s := scope{nodes: map[string]*graph.Node{}}
		for _, p := range a.Params() {
			s.nodes[p.Name] = next()
		}
		var sites []site
		for _, target := range a.Targets {
			one := site{target: target, x: next(), w: next()}
			if target.Bias {
				one.b = next()
			}
			sites = append(sites, one)
		}
		return build(s, sites)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exec.Finalize)
	for _, target := range a.Targets {
		inputs = append(inputs, tensors.FromFlatDataAndDimensions(value(target.Name+".input"), rows, target.In()),
			tensors.FromFlatDataAndDimensions(value(target.Name+".weight"), target.Out(), target.In()))
		if target.Bias {
			inputs = append(inputs, tensors.FromFlatDataAndDimensions(value(target.Name+".bias"), target.Out()))
		}
	}
	return func() []*tensors.Tensor {
		t.Helper()
		var args []any
		for _, p := range a.Params() {
			args = append(args, tensors.FromFlatDataAndDimensions(slices.Clone(p.Values), p.Shape...))
		}
		out, err := exec.Call(append(args, inputs...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// output is what one target computes.
type output struct {
	base, adapted, throughWeight []float32 // of the module, [rows, out]
	weight, bias                 []float32 // adapted; no bias for a module without one
}

// outputs computes all targets outside training.
func outputs(t *testing.T, backend compute.Backend, a *adapters.Adapter) []output {
	t.Helper()
	nodes := program(t, backend, a, func(s scope, sites []site) []*graph.Node {
		var all []*graph.Node
		for _, at := range sites {
			w, b := adapted(a, s, at)
			all = append(all, ops.Linear(at.x, at.w, at.b), a.Hook(s).Linear(at.target.Name, at.x, at.w, at.b), ops.Linear(at.x, w, b), w)
			if b != nil {
				all = append(all, b)
			}
		}
		return all
	})()
	next := func() []float32 { n := nodes[0]; nodes = nodes[1:]; return tensors.MustCopyFlatData[float32](n) }
	var all []output
	for _, target := range a.Targets {
		o := output{base: next(), adapted: next(), throughWeight: next(), weight: next()}
		if target.Bias {
			o.bias = next()
		}
		all = append(all, o)
	}
	return all
}

// adapted returns the weight and the bias of an adapted module.
func adapted(a *adapters.Adapter, s scope, at site) (w, b *graph.Node) {
	on, _ := a.Hook(s).Site(at.target.Name, at.w, at.b)
	w, b = a.Method().Weight(on, at.w), at.b
	if m, ok := a.Method().(adapters.Biaser); ok && b != nil {
		b = m.Bias(on, b)
	}
	return w, b
}

// loss is how far an adapter's outputs are from those of another adapter with the same settings:
// the mean square, summed over targets. It can be reached exactly.
type loss struct {
	forward, weight func() []*tensors.Tensor
}

func newLoss(t *testing.T, backend compute.Backend, a *adapters.Adapter) *loss {
	t.Helper()
	own := make([][]float32, len(a.Params()))
	for i, p := range a.Params() {
		own[i] = slices.Clone(p.Values)
	}
	Randomize(a, 5)
	want := outputs(t, backend, a)
	for i, p := range a.Params() {
		copy(p.Values, own[i])
	}
	build := func(throughWeight bool) func() []*tensors.Tensor {
		return program(t, backend, a, func(s scope, sites []site) []*graph.Node {
			s.tape = ops.NewTape()
			var sum *graph.Node
			for i, at := range sites {
				var y *graph.Node
				if throughWeight {
					w, b := adapted(a, s, at)
					y = ops.Linear(at.x, w, b)
				} else {
					y = a.Hook(s).Linear(at.target.Name, at.x, at.w, at.b)
				}
				far := graph.Sub(y, graph.Reshape(graph.Const(y.Graph(), want[i].adapted), rows, at.target.Out()))
				square := graph.ReduceAllMean(graph.Square(far))
				if sum == nil {
					sum = square
				} else {
					sum = graph.Add(sum, square)
				}
			}
			var wrt []*graph.Node
			for _, p := range a.Params() {
				wrt = append(wrt, s.nodes[p.Name])
			}
			return append([]*graph.Node{sum}, s.tape.Gradient(sum, wrt...)...)
		})
	}
	return &loss{build(false), build(true)}
}

// at returns the loss and its gradients by the adapter's parameters, at their present values.
func (l *loss) at(a *adapters.Adapter, throughWeight bool) (value float64, grads [][]float32) {
	run := l.forward
	if throughWeight {
		run = l.weight
	}
	out := run()
	for _, g := range out[1:] {
		grads = append(grads, tensors.MustCopyFlatData[float32](g))
	}
	return float64(tensors.ToScalar[float32](out[0])), grads
}
