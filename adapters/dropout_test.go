package adapters_test

import (
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/adapters/adapterstest"
	"github.com/hubtool/hubtool/model/ops"
)

// trainingScope drops at random, as model.Params does.
type trainingScope struct {
	nodes map[string]*graph.Node
	tape  *ops.Tape
	rng   *graph.Node
}

func (s *trainingScope) Node(key string) *graph.Node { return s.nodes[key] }
func (s *trainingScope) Tape() *ops.Tape             { return s.tape }

func (s *trainingScope) Dropout(x *graph.Node, p float64) (y *graph.Node) {
	if s.rng == nil {
		return x
	}
	s.rng, y = ops.Dropout(s.rng, x, p)
	return y
}

// updates returns, for each of n seeds, what the adapter on "query" adds to the output of its module
// for a unit of input: the rows of its update. Without seeds it is that outside training.
func updates(t *testing.T, settings string, n int) [][]float32 {
	t.Helper()
	a := adapterstest.New(t, settings, 1)
	adapterstest.Randomize(a, 2)
	target := a.Targets[0]
	exec, err := graph.NewExec(goEngine(t).Backend, func(in []*graph.Node) *graph.Node {
		s := &trainingScope{nodes: map[string]*graph.Node{}}
		for i, p := range a.Params() {
			s.nodes[p.Name] = in[i]
		}
		if n > 0 {
			s.rng, s.tape = in[len(a.Params())], ops.NewTape()
		}
		g := in[0].Graph()
		x := graph.ConvertDType(graph.Diagonal(g, target.In()), dtypes.Float32)
		w := graph.Zeros(g, shapes.Make(dtypes.Float32, target.Out(), target.In()))
		return a.Hook(s).Linear(target.Name, x, w, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	var all [][]float32
	for seed := range max(n, 1) {
		var args []any
		for _, p := range a.Params() {
			args = append(args, tensors.FromFlatDataAndDimensions(p.Values, p.Shape...))
		}
		rng, err := graph.RNGStateFromSeed(int64(seed))
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Call(append(args, rng)...)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tensors.MustCopyFlatData[float32](out[0]))
	}
	return all
}

// Dropout does what PEFT's does: of inputs, of rows of the update, of all of it.
func TestDropout(t *testing.T) {
	const size, runs = 8, 400
	for _, c := range []struct {
		settings string
		share    float64                    // of what is dropped
		unit     func(i int) int            // elements of the update that are dropped together
		scale    func(kept float64) float64 // of what stays, where kept is its share
	}{
		{`{"peft_type": "LORA", "r": 2, "target_modules": ["query"], "lora_dropout": 0.3}`, 0.3, func(i int) int { return i / size }, func(float64) float64 { return 1 / 0.7 }},
		{`{"peft_type": "LOHA", "r": 2, "target_modules": ["query"], "rank_dropout": 0.3}`, 0.3, func(i int) int { return i % size }, func(kept float64) float64 { return 1 / kept }},
		{`{"peft_type": "LOKR", "r": 2, "target_modules": ["query"], "rank_dropout": 0.3}`, 0.3, func(i int) int { return i % size }, func(float64) float64 { return 1 }},
		{`{"peft_type": "LOKR", "r": 2, "target_modules": ["query"], "rank_dropout": 0.3, "rank_dropout_scale": true}`, 0.3, func(i int) int { return i % size }, func(kept float64) float64 { return 1 / kept }},
		{`{"peft_type": "LOHA", "r": 2, "target_modules": ["query"], "module_dropout": 0.4}`, 0.4, func(int) int { return 0 }, func(float64) float64 { return 1 }},
		{`{"peft_type": "LOKR", "r": 2, "target_modules": ["query"], "module_dropout": 0.4}`, 0.4, func(int) int { return 0 }, func(float64) float64 { return 1 }},
		{`{"peft_type": "ADALORA", "init_r": 2, "target_modules": ["query"], "lora_dropout": 0.3}`, 0.3, func(i int) int { return i / size }, func(float64) float64 { return 1 / 0.7 }},
	} {
		whole := updates(t, c.settings, 0)[0] // [in, out]
		dropped, units := 0, 0
		for _, got := range updates(t, c.settings, runs) {
			kept := map[int]bool{}
			for i := range whole {
				u := c.unit(i)
				kept[u] = kept[u] || math.Abs(float64(got[i])) > 1e-6
			}
			left := 0
			for _, k := range kept {
				if k {
					left++
				}
			}
			units += len(kept)
			dropped += len(kept) - left
			for i, v := range whole {
				want := 0.0
				if kept[c.unit(i)] {
					want = float64(v) * c.scale(float64(left)/float64(len(kept)))
				}
				if math.Abs(float64(got[i])-want) > 1e-5 {
					t.Fatalf("%s: element %d is %v, want %v", c.settings, i, got[i], want)
				}
			}
		}
		// Four standard deviations of as many throws.
		if share := float64(dropped) / float64(units); math.Abs(share-c.share) > 4*math.Sqrt(c.share*(1-c.share)/float64(units)) {
			t.Errorf("%s: %.3f were dropped", c.settings, share)
		}
	}
}
