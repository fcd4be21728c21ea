package adapters

import (
	"encoding/json"
	"fmt"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/format"
)

// lycoris are the settings that LoHa and LoKr share.
type lycoris struct {
	R             int             `json:"r" is:"positive" usage:"rank"`
	Alpha         float64         `json:"alpha" usage:"scale: the update counts alpha / r"`
	RankDropout   float64         `json:"rank_dropout" is:"share" usage:"dropout of rows of the update"`
	ModuleDropout float64         `json:"module_dropout" is:"share" usage:"dropout of whole adapters"`
	Effective     bool            `json:"use_effective_conv2d" usage:"decompose convolutions by kernel position"`
	InitWeights   json.RawMessage `json:"init_weights" is:"word" usage:"how new adapters begin: true, false; LOKR: lycoris"`
}

func lycorisDefaults() lycoris { return lycoris{R: 8, Alpha: 8, InitWeights: json.RawMessage("true")} }

func (m *lycoris) validate() error {
	switch {
	case m.R < 1:
		return fmt.Errorf("%w: r is %d, but must be positive", format.ErrConfig, m.R)
	case m.RankDropout < 0 || m.RankDropout >= 1:
		return fmt.Errorf("%w: rank_dropout is %v, but must be in [0, 1)", format.ErrConfig, m.RankDropout)
	case m.ModuleDropout < 0 || m.ModuleDropout >= 1:
		return fmt.Errorf("%w: module_dropout is %v, but must be in [0, 1)", format.ErrConfig, m.ModuleDropout)
	}
	return nil
}

func (m *lycoris) Scale() (int, float64)  { return m.R, m.Alpha }
func (m *lycoris) scale(t Target) float64 { return t.Alpha / float64(t.Rank) }

// tucker tells whether a target's tensors are decomposed by kernel position too: Hyeon-Woo et al.,
// proposition 3. PEFT spares kernels of one.
func (m *lycoris) tucker(t Target) bool {
	return m.Effective && t.Kind == Convolution && t.Shape[2]*t.Shape[3] > 1
}

// drop applies both kinds of dropout to an update [out, in]: single rows of it, scaled so that their
// mean stays where rescale is set, or all of it.
func (m *lycoris) drop(s Site, update *graph.Node, rescale bool) *graph.Node {
	if rows := s.Keep(m.RankDropout, s.Out(), 1); rows != nil {
		if rescale {
			// PEFT divides by zero where no row is left.
			rows = graph.Div(rows, graph.MaxScalar(graph.ReduceAllMean(rows), 0.5/float64(s.Out())))
		}
		update = graph.Mul(update, rows)
	}
	if all := s.Keep(m.ModuleDropout, 1, 1); all != nil {
		update = graph.Mul(update, all)
	}
	return update
}

// kaiming is torch's kaiming_uniform_(a=√5) for a tensor of the shape.
func kaiming(shape ...int) Init {
	return KaimingUniform(size(shape[1:]))
}

// tucker multiplies a core [r, r, kh, kw] by a [r, p] and b [r, q]: [p, q·kh·kw].
func tucker(core, a, b *graph.Node) *graph.Node {
	r, kernel := core.Shape().Dimensions[0], core.Shape().Dimensions[2:]
	p, q, k := a.Shape().Dimensions[1], b.Shape().Dimensions[1], size(kernel)
	core = graph.Reshape(core, r, r, k)
	left := graph.Dot(a, core).General([]int{0}, nil, []int{0}, nil) // [p, r, k]
	both := graph.Dot(left, b).General([]int{1}, nil, []int{0}, nil) // [p, k, q]
	return graph.Reshape(graph.Transpose(both, 1, 2), p, q*k)
}

// matmul is a·b.
func matmul(a, b *graph.Node) *graph.Node {
	return graph.Dot(a, b).General([]int{1}, nil, []int{0}, nil)
}

// hostProduct is b·a with b [m, k] and a [k, n].
func hostProduct(b, a []float32, m, k, n int) []float32 {
	whole := make([]float32, m*n)
	product(b, a, m, k, n, func(i int, row []float32) { copy(whole[i*n:], row) })
	return whole
}

// hostTucker is [tucker] on the host, for k positions of the kernel, in the order of torch's einsum
// with opt_einsum: of the three products to begin with, the one that makes the fewest operations;
// among equals the core's with b, if bFirst, else with a. What has less than 400 terms is
// multiplied without fused multiply-adds.
func hostTucker(core, a, b []float32, r, p, q, k int, bFirst bool) []float32 {
	multiply := func(x, y []float32, m, k, n, terms int) []float32 {
		if terms < 400 {
			return plainProduct(x, y, m, k, n)
		}
		return hostProduct(x, y, m, k, n)
	}
	withA, withB, without := 2*r*p*k*(r+q), 2*r*q*k*(r+p), r*r*p*q*(1+2*k)
	if without < min(withA, withB) {
		outer := make([]float32, 0, p*q*r*r)
		for i := range p {
			for j := range q {
				for l := range r * r {
					outer = append(outer, a[l/r*p+i]*b[l%r*q+j])
				}
			}
		}
		return multiply(outer, core, p*q, r*r, k, p*q*r*r*k)
	}
	whole := make([]float32, p*q*k)
	for at := range k {
		one := make([]float32, r*r) // the core at one position
		for i := range one {
			one[i] = core[i*k+at]
		}
		var product []float32
		if withB < withA || withB == withA && bFirst {
			half := multiply(one, b, r, r, q, r*r*q*k)
			product = multiply(hostTranspose(a, r, p), half, p, r, q, r*p*q*k)
		} else {
			half := multiply(hostTranspose(one, r, r), a, r, r, p, r*r*p*k)
			product = multiply(hostTranspose(half, r, p), b, p, r, q, r*p*q*k)
		}
		for i, v := range product {
			whole[i*k+at] = v
		}
	}
	return whole
}

// plainProduct is b·a with two roundings for each term.
func plainProduct(b, a []float32, m, k, n int) []float32 {
	whole := make([]float32, m*n)
	for i := range m {
		row := whole[i*n : (i+1)*n]
		for kk := range k {
			for j, y := range a[kk*n : (kk+1)*n] {
				row[j] += float32(b[i*k+kk] * y)
			}
		}
	}
	return whole
}

func hostTranspose(m []float32, rows, columns int) []float32 {
	t := make([]float32, len(m))
	for i := range rows {
		for j := range columns {
			t[j*rows+i] = m[i*columns+j]
		}
	}
	return t
}
