// Package ops holds the graph operations that a transformer and its adapters are built from. They
// compute what GoMLX's layers compute; what they add are forms that the Go backend runs several
// times faster, and gradients of their own where automatic ones would run the forward pass twice.
//
// Like all code that builds graphs, they panic on wrong shapes; an executor turns that into an error.
package ops

import (
	"math"
	"math/bits"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:staticcheck // formulas read better unqualified
	"github.com/gomlx/gomlx/support/exceptions"
)

// Linear is x·Wᵀ + b with x [rows, in], w [out, in] and b [out] or nil, as torch's nn.Linear.
//
// The Go backend adds a row to a matrix three times as slowly as a matrix. Where the output is not
// narrower than the input, [x, 1]·[W, b]ᵀ is cheaper.
func Linear(t *Tape, x, w, b *Node) *Node {
	in, out := w.Shape().Dimensions[1], w.Shape().Dimensions[0]
	if b == nil || !IsGo(x.Graph().Backend()) || out < in {
		y := wide(linear(t, t.narrow(x), t.narrow(w)))
		if b != nil {
			y = Add(y, ExpandLeftToRank(b, 2))
		}
		return y
	}
	ones := Ones(x.Graph(), shapes.Make(x.DType(), x.Shape().Dimensions[0], 1))
	inputs := Concatenate([]*Node{x, ones}, 1)
	weights := Concatenate([]*Node{w, Reshape(b, out, 1)}, 1)
	if !t.Training() {
		return Dot(inputs, weights).General([]int{1}, nil, []int{1}, nil)
	}
	y := Dot(StopGradient(inputs), StopGradient(weights)).General([]int{1}, nil, []int{1}, nil)
	// The barrier's value is y; the others are among its inputs to receive gradients.
	return t.gradient(SchedulingBarrier(y, x, w, b), func(v *Node) []*Node {
		return []*Node{
			nil,
			byColumns(v, w),
			Dot(v, x).General([]int{0}, nil, []int{0}, nil),
			ReduceSum(v, 0),
		}
	})
}

// linear is x·Wᵀ with x [rows, in] and w [out, in] of the same type. So are the products of its
// gradients, where GoMLX's own would widen half precision to float32.
//
// That by w transposes v, the gradient by the output. In adapters that is thin, while x is wide.
func linear(t *Tape, x, w *Node) *Node {
	y := Dot(x, w).General([]int{1}, nil, []int{1}, nil)
	return t.gradient(y, func(v *Node) []*Node { return []*Node{byColumns(v, w), byColumns(Transpose(v, 0, 1), x)} })
}

// byColumns is x·y with x [m, k] and y [k, n].
//
// XLA's products for the processor, which are oneDNN's, read y by columns. Where its rows are a multiple of
// 4 KiB, columns fall into few sets of the cache, and take twice the time; oneDNN copies y then only if
// the multiple is a power of two. Here a line is added to its rows. 3,072 values, as in a ViT-Base, are 12 KiB.
func byColumns(x, y *Node) *Node {
	product := func(y *Node) *Node { return Dot(x, y).General([]int{1}, nil, []int{0}, nil) }
	k, n := y.Shape().Dimensions[0], y.Shape().Dimensions[1]
	row := 4 * n
	if !onProcessor(x.Graph().Backend()) || y.DType() != dtypes.Float32 || row%4096 != 0 || bits.OnesCount(uint(row)) == 1 {
		return product(y)
	}
	spare := Zeros(y.Graph(), shapes.Make(y.DType(), k, 16))
	return Slice(product(Concatenate([]*Node{y, spare}, 1)), AxisRange(), AxisRange(0, n))
}

// LowRank is scale · x·Aᵀ·Bᵀ with x [rows, in], a [rank, in] and b [out, rank].
func LowRank(t *Tape, x, a, b *Node, scale float64) *Node {
	x, a, b = t.narrow(x), t.narrow(a), t.narrow(MulScalar(b, scale))
	return wide(linear(t, linear(t, x, a), b))
}

// Attention is softmax(q·kᵀ/√d)·v for every head, with q [heads, queries, d] and k and v
// [heads, keys, d]; heads counts those of all images. drop is applied to the softmax's weights.
func Attention(t *Tape, q, k, v *Node, drop func(*Node) *Node) *Node {
	d := q.Shape().Dimensions[2]
	q = MulScalar(q, 1/math.Sqrt(float64(d))) // q is smaller than the scores
	weights := softmax(t, scores(t, t.narrow(q), t.narrow(k)))
	return wide(mix(t, t.narrow(drop(weights)), t.narrow(v)))
}

// scores is q·kᵀ and mix is weights·v, head by head. What they add are gradients by k and v that are
// made transposed: of the factors, the Go backend then has to transpose the one that has d columns,
// and not the one that has as many as there are keys. Scores are float32 whatever their factors are:
// the exponential makes their errors relative ones.
func scores(t *Tape, q, k *Node) *Node {
	product32 := Dot(q, k).WithOutputDType(dtypes.Float32).General([]int{2}, []int{0}, []int{2}, []int{0})
	return t.gradient(product32, func(v *Node) []*Node {
		v = t.narrow(v)
		return []*Node{product(v, 2, k, 1), Transpose(product(q, 1, v, 1), 1, 2)}
	})
}

func mix(t *Tape, weights, v *Node) *Node {
	return t.gradient(product(weights, 2, v, 1), func(g *Node) []*Node {
		return []*Node{product(g, 2, v, 2), Transpose(product(g, 1, weights, 1), 1, 2)}
	})
}

// product multiplies matrices head by head, over one axis of each.
func product(x *Node, xAxis int, y *Node, yAxis int) *Node {
	return Dot(x, y).General([]int{xAxis}, []int{0}, []int{yAxis}, []int{0})
}

// SplitHeads separates attention heads: x [n·tokens, heads·d] becomes [n·heads, tokens, d].
func SplitHeads(t *Tape, x *Node, n, heads int) *Node {
	tokens, d := x.Shape().Dimensions[0]/n, x.Shape().Dimensions[1]/heads
	return Reshape(swapMiddle(t, Reshape(x, n, tokens, heads, d)), n*heads, tokens, d)
}

// JoinHeads undoes SplitHeads.
func JoinHeads(t *Tape, x *Node, n int) *Node {
	heads, tokens, d := x.Shape().Dimensions[0]/n, x.Shape().Dimensions[1], x.Shape().Dimensions[2]
	return Reshape(swapMiddle(t, Reshape(x, n, heads, tokens, d)), n*tokens, heads*d)
}

// swapMiddle swaps the two middle axes of x, which has four. The Go backend moves elements one by one:
// taken for 64-bit words, they are half as many.
func swapMiddle(t *Tape, x *Node) *Node {
	d := x.Shape().Dimensions
	if !IsGo(x.Graph().Backend()) || x.DType() != dtypes.Float32 || d[3]%2 != 0 {
		return TransposeAllAxes(x, 0, 2, 1, 3)
	}
	words := Bitcast(Reshape(StopGradient(x), d[0], d[1], d[2], d[3]/2, 2), dtypes.Uint64)
	y := Reshape(Bitcast(TransposeAllAxes(words, 0, 2, 1, 3), dtypes.Float32), d[0], d[2], d[1], d[3])
	if !t.Training() {
		return y
	}
	// The barrier's value is y; x is among its inputs to receive the gradient.
	return t.gradient(SchedulingBarrier(y, x), func(v *Node) []*Node { return []*Node{nil, swapMiddle(nil, v)} })
}

// softmax over the last axis. Of the forward pass, its gradient needs the outcome alone: where it is
// not one operation, it is written so that its last is an exponential, with the gradient of the whole.
func softmax(t *Tape, x *Node) *Node {
	y, _ := fusedOr(
		func() *Node { return BackendFusedSoftmax(x, x.Rank()-1) },
		func() *Node {
			if t != nil && t.gradients == nil {
				e := Exp(Sub(x, StopGradient(ReduceAndKeep(x, ReduceMax, -1))))
				return Div(e, ReduceAndKeep(e, ReduceSum, -1))
			}
			top := ReduceAndKeep(x, ReduceMax, -1)
			total := Add(top, Log(ReduceAndKeep(Exp(Sub(x, top)), ReduceSum, -1)))
			return Exp(Sub(x, StopGradient(total)))
		})
	return t.gradient(y, func(v *Node) []*Node {
		vy := Mul(v, y)
		return []*Node{Sub(vy, Mul(y, ReduceAndKeep(vy, ReduceSum, -1)))}
	})
}

// Gelu is the exact x·Φ(x), transformers' "gelu"; its derivative is Φ(x) + x·φ(x). Φ is computed again for it:
// that costs little beside the memory that Φ would be kept in until the backward pass. XLA does not take it
// for the one before, which is written 1 - Φ(-x) in training. It would also find GELU in the other form, and
// have the product before it apply it, while the backward pass took the outcome for x.
func Gelu(t *Tape, x *Node) *Node {
	y, fused := fusedOr(
		func() *Node { return BackendFusedGelu(x, true) },
		func() *Node {
			if !t.Training() {
				return Mul(x, normalCDF(x))
			}
			cdf := OneMinus(normalCDF(Neg(x)))
			if t.gradients == nil {
				return Mul(x, cdf)
			}
			// For autodiff the second factor is constant; the gradient by the first covers both.
			return Mul(x, StopGradient(cdf))
		})
	return t.gradient(y, func(v *Node) []*Node {
		pdf := MulScalar(Exp(MulScalar(Square(x), -0.5)), 1/math.Sqrt(2*math.Pi))
		dx := Mul(v, Add(normalCDF(x), Mul(x, pdf)))
		if fused {
			return []*Node{dx}
		}
		return []*Node{dx, nil}
	})
}

// Silu is x·σ(x), with a form of its own for training as Gelu has.
func Silu(t *Tape, x *Node) *Node {
	if t.Training() {
		return Mul(x, OneMinus(Sigmoid(Neg(x))))
	}
	return Mul(x, Sigmoid(x))
}

// normalCDF is Φ, the distribution function of the standard normal distribution.
func normalCDF(x *Node) *Node {
	return MulScalar(AddScalar(Erf(MulScalar(x, 1/math.Sqrt2)), 1), 0.5)
}

// LayerNorm normalises the last axis of x to mean 0 and variance 1, then scales by gamma and shifts
// by beta, both [features].
func LayerNorm(t *Tape, x, gamma, beta *Node, eps float64) *Node {
	row := func(n *Node) *Node { return ExpandLeftToRank(n, x.Rank()) }
	features := float64(x.Shape().Dimensions[x.Rank()-1])
	mean := func(n *Node) *Node { return MulScalar(ReduceAndKeep(n, ReduceSum, -1), 1/features) }
	normalise := func() (xhat, rstd *Node) {
		centred := Sub(x, mean(x))
		rstd = Inverse(Sqrt(AddScalar(mean(Square(centred)), eps))) // Rsqrt has no gradient in GoMLX
		return Mul(centred, rstd), rstd
	}
	y, fused := fusedOr(
		func() *Node { return BackendFusedLayerNorm(x, []int{x.Rank() - 1}, eps, gamma, beta) },
		func() *Node {
			xhat, _ := normalise()
			return Add(Mul(xhat, row(gamma)), row(beta))
		})
	if !fused {
		return y
	}
	return t.gradient(y, func(v *Node) []*Node {
		xhat, rstd := normalise()
		gv := Mul(v, row(gamma))
		dx := Mul(rstd, Sub(Sub(gv, mean(gv)), Mul(xhat, mean(Mul(gv, xhat)))))
		rows := make([]int, x.Rank()-1)
		for i := range rows {
			rows[i] = i
		}
		return []*Node{dx, ReduceSum(Mul(v, xhat), rows...), ReduceSum(v, rows...)}
	})
}

// Residual is x, the sum that runs through all layers. Its gradient is a sum as well, to which every
// layer adds: the barrier has XLA keep it once per layer instead of adding up all later layers again
// wherever it is needed.
func Residual(t *Tape, x *Node) *Node {
	if !t.Training() || IsGo(x.Graph().Backend()) {
		return x
	}
	return t.gradient(SchedulingBarrier(x), func(v *Node) []*Node { return OptimizationBarriers(v, x)[:1] })
}

// Dropout zeroes elements of x with probability p and divides the others by 1-p, as torch does in
// training. It takes from the random state and returns the next one.
//
// Each element has 16 random bits, and p is rounded to as many: random numbers are the dearest part of
// dropping, and GoMLX's uniform ones take 32 bits each.
func Dropout(state, x *Node, p float64) (next, y *Node) {
	const words = 1 << 16
	dropped := math.Round(p * words)
	g, size := x.Graph(), x.Shape().Size()
	all := Const(g, uint64(math.MaxUint64)) // as a node: a number that large is rounded on its way
	next, bits := RandomIntN(state, all, shapes.Make(dtypes.Uint64, (size+3)/4))
	bits = Reshape(Bitcast(bits, dtypes.Uint16), -1)
	if bits.Shape().Size() > size {
		bits = Slice(bits, AxisRange(0, size))
	}
	keep := GreaterOrEqual(Reshape(bits, x.Shape().Dimensions...), Scalar(g, dtypes.Uint16, dropped))
	return next, Where(keep, MulScalar(x, 1/(1-p)), ZerosLike(x))
}

// IsGo tells whether a backend is GoMLX's own, whose needs many of the forms here serve.
func IsGo(b compute.Backend) bool { return b.String() == "go" }

// onProcessor tells whether it is XLA's for the processor.
func onProcessor(b compute.Backend) bool {
	xla, ok := b.(interface{ IsCPU() bool })
	return ok && xla.IsCPU()
}

// fusedOr builds the fused operation, or the decomposed one where the backend lacks it.
func fusedOr(fused, decomposed func() *Node) (n *Node, ok bool) {
	err := exceptions.TryCatch[error](func() { n = fused() })
	switch {
	case err == nil:
		return n, true
	case compute.IsNotImplemented(err):
		return decomposed(), false
	default:
		panic(err)
	}
}
