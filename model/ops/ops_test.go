package ops_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
	"github.com/hubtool/hubtool/model/ops"
)

// The formulas without any of the package's tricks, differentiated by GoMLX alone.
var plain = map[string]func(in []*Node) *Node{
	"narrowing": func(in []*Node) *Node { return Add(Einsum("mi,oi->mo", in[0], in[1]), ExpandLeftToRank(in[2], 2)) },
	"linear":    func(in []*Node) *Node { return Add(Einsum("mi,oi->mo", in[0], in[1]), ExpandLeftToRank(in[2], 2)) },
	"lowrank": func(in []*Node) *Node {
		return MulScalar(Einsum("mr,or->mo", Einsum("mi,ri->mr", in[0], in[1]), in[2]), 0.5)
	},
	"attention": func(in []*Node) *Node {
		e := Exp(MulScalar(Einsum("hqd,hkd->hqk", in[0], in[1]), 0.25))
		return Einsum("hqk,hkd->hqd", Div(e, ReduceAndKeep(e, ReduceSum, -1)), in[2])
	},
	"heads": func(in []*Node) *Node {
		y := Reshape(TransposeAllAxes(Reshape(in[0], 2, 3, 4, 6), 0, 2, 1, 3), 8, 3, 6)
		return Mul(y, in[1])
	},
	"join": func(in []*Node) *Node {
		return Reshape(TransposeAllAxes(Reshape(in[0], 2, 4, 3, 6), 0, 2, 1, 3), 6, 24)
	},
	"odd heads": func(in []*Node) *Node {
		return Reshape(TransposeAllAxes(Reshape(in[0], 2, 3, 4, 5), 0, 2, 1, 3), 8, 3, 5)
	},
	"gelu": func(in []*Node) *Node {
		return Mul(in[0], MulScalar(AddScalar(Erf(MulScalar(in[0], 1/math.Sqrt2)), 1), 0.5))
	},
	"layernorm": func(in []*Node) *Node {
		c := Sub(in[0], ReduceAndKeep(in[0], ReduceMean, -1))
		n := Div(c, Sqrt(AddScalar(ReduceAndKeep(Square(c), ReduceMean, -1), 1e-5)))
		return Add(Mul(n, ExpandLeftToRank(in[1], 2)), ExpandLeftToRank(in[2], 2))
	},
}

var own = map[string]func(t *ops.Tape, in []*Node) *Node{
	"linear":    func(t *ops.Tape, in []*Node) *Node { return ops.Linear(t, in[0], in[1], in[2]) },
	"narrowing": func(t *ops.Tape, in []*Node) *Node { return ops.Linear(t, in[0], in[1], in[2]) },
	"lowrank":   func(t *ops.Tape, in []*Node) *Node { return ops.LowRank(t, in[0], in[1], in[2], 0.5) },
	"attention": func(t *ops.Tape, in []*Node) *Node { return ops.Attention(t, in[0], in[1], in[2], keep) },
	"heads":     func(t *ops.Tape, in []*Node) *Node { return Mul(ops.SplitHeads(t, in[0], 2, 4), in[1]) },
	"join":      func(t *ops.Tape, in []*Node) *Node { return ops.JoinHeads(t, in[0], 2) },
	"odd heads": func(t *ops.Tape, in []*Node) *Node { return ops.SplitHeads(t, in[0], 2, 4) },
	"gelu":      func(t *ops.Tape, in []*Node) *Node { return ops.Gelu(t, in[0]) },
	"layernorm": func(t *ops.Tape, in []*Node) *Node { return ops.LayerNorm(t, in[0], in[1], in[2], 1e-5) },
}

// The forms under test are those for the Go backend.
func TestIsGo(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if !ops.IsGo(e.Backend) {
		t.Errorf("the backend %q is not taken for the Go engine's", e.Backend)
	}
}

func keep(x *Node) *Node { return x }

var inputs = map[string][][]int{
	"linear":    {{5, 48}, {64, 48}, {64}},
	"narrowing": {{5, 48}, {24, 48}, {24}},
	"lowrank":   {{5, 48}, {7, 48}, {24, 7}},
	"attention": {{3, 4, 16}, {3, 5, 16}, {3, 5, 16}},
	"heads":     {{6, 24}, {8, 3, 6}},
	"join":      {{8, 3, 6}},
	"odd heads": {{6, 20}},
	"gelu":      {{5, 48}},
	"layernorm": {{5, 48}, {48}, {48}},
}

// Values and gradients equal those of the plain formulas.
func TestEqualPlainFormulas(t *testing.T) {
	enginetest.Each(t, equalPlainFormulas)
}

func equalPlainFormulas(t *testing.T, e *engine.Engine) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, dims := range inputs {
		t.Run(name, func(t *testing.T) {
			args := make([]any, 0, len(dims)+1)
			for _, d := range dims {
				args = append(args, random(rng, d))
			}
			build := func(tape *ops.Tape, f func(*ops.Tape, []*Node) *Node) func(in []*Node) []*Node {
				return func(in []*Node) []*Node {
					y := f(tape, in)
					// Uneven weights, so that a gradient that mixes up elements shows.
					weights := Sin(IotaFull(y.Graph(), shapes.Make(dtypes.Float32, y.Shape().Dimensions...)))
					loss := ReduceAllSum(Mul(y, weights))
					if tape == nil {
						return append([]*Node{y}, Gradient(loss, in...)...)
					}
					return append([]*Node{y}, tape.Gradient(loss, in...)...)
				}
			}
			want := call(t, e, build(nil, func(_ *ops.Tape, in []*Node) *Node { return plain[name](in) }), args)
			got := call(t, e, build(ops.NewTape(), own[name]), args)
			for i := range want {
				if !got[i].InDelta(want[i], 2e-5) {
					t.Errorf("output %d (0: value, then gradients):\n got %v\nwant %v", i, got[i], want[i])
				}
			}
		})
	}
}

// Over the range where float32 knows other values than 0 and x, GELU is exact to 6e-7.
func TestGeluIsExact(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var xs []float32
	for x := -12.0; x <= 12; x += 1.0 / 512 {
		xs = append(xs, float32(x))
	}
	xs = append(xs, 1e-30, -1e-30, 1e30, -1e30, float32(math.Inf(1)))
	out := call(t, e, func(in []*Node) []*Node { return []*Node{ops.Gelu(nil, in[0])} }, []any{tensors.FromFlatDataAndDimensions(xs, len(xs))})
	for i, got := range tensors.MustCopyFlatData[float32](out[0]) {
		x := float64(xs[i])
		want := x * 0.5 * (1 + math.Erf(x/math.Sqrt2))
		if math.IsInf(want, 1) && math.IsInf(float64(got), 1) {
			continue
		}
		if !(math.Abs(float64(got)-want) <= 6e-7+6e-7*math.Abs(want)) {
			t.Fatalf("gelu(%v) = %v, want %v", x, got, want)
		}
	}
}

func TestDropoutKeepsTheMean(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	drop := func(seed int64) []float32 {
		state, err := RNGStateFromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		out := call(t, e, func(in []*Node) []*Node {
			_, y := ops.Dropout(in[0], Ones(in[0].Graph(), shapes.Make(dtypes.Float32, 100, 200)), 0.25)
			return []*Node{y}
		}, []any{state})
		return tensors.MustCopyFlatData[float32](out[0])
	}
	first, again, other := drop(1), drop(1), drop(2)
	var dropped, different int
	for i, v := range first {
		switch v {
		case 0:
			dropped++
		case float32(1 / 0.75):
		default:
			t.Fatalf("element %d is %v", i, v)
		}
		if again[i] != v {
			t.Fatal("the same state gave another mask")
		}
		if other[i] != v {
			different++
		}
	}
	if share := float64(dropped) / float64(len(first)); math.Abs(share-0.25) > 0.015 {
		t.Errorf("dropped %.3f of the elements, want 0.25", share)
	}
	if different == 0 {
		t.Error("another state gave the same mask")
	}
}

func random(rng *rand.Rand, dims []int) *tensors.Tensor {
	size := 1
	for _, d := range dims {
		size *= d
	}
	values := make([]float32, size)
	for i := range values {
		values[i] = float32(rng.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

func call(t *testing.T, e *engine.Engine, fn func(in []*Node) []*Node, args []any) []*tensors.Tensor {
	t.Helper()
	exec, err := NewExec(e.Backend, fn)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// An activation of what a product wrote: the gradient needs what the product wrote as well. XLA's products for the
// processor apply GELU and SiLU themselves where they find them, and do not look who else needs their input.
func TestActivationsAfterProducts(t *testing.T) {
	type function func(x float64) float64
	activations := map[string]struct {
		apply       func(*ops.Tape, *Node) *Node
		gate, slope function // it is x·gate(x)
	}{
		"gelu": {
			ops.Gelu,
			func(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) },
			func(x float64) float64 { return math.Exp(-x*x/2) / math.Sqrt(2*math.Pi) },
		},
		"silu": {
			ops.Silu,
			func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
			func(x float64) float64 { return 1 / (2 + math.Exp(x) + math.Exp(-x)) },
		},
	}
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		for name, a := range activations {
			for _, plain := range []bool{false, true} { // gradients of our own, or of GoMLX, which knows none of the Go engine's GELU
				if plain && e.IsGo() {
					continue
				}
				rng := rand.New(rand.NewPCG(3, 4))
				out := call(t, e, func(in []*Node) []*Node {
					tape := ops.NewTape()
					if plain {
						tape.Plain()
					}
					h := ops.Linear(tape, MulScalar(in[0], 0.1), in[1], nil)
					loss := ReduceAllSum(Square(a.apply(tape, h)))
					return append([]*Node{h}, tape.Gradient(loss, h)...)
				}, []any{random(rng, []int{520, 96}), random(rng, []int{384, 96})})
				got := tensors.MustCopyFlatData[float32](out[1])
				for i, h := range tensors.MustCopyFlatData[float32](out[0]) {
					x := float64(h)
					want := 2 * x * a.gate(x) * (a.gate(x) + x*a.slope(x))
					if !(math.Abs(float64(got[i])-want) <= 1e-5) {
						t.Fatalf("%s (GoMLX's gradients: %t): gradient at %v is %v, want %v", name, plain, x, got[i], want)
					}
				}
			}
		}
	})
}
