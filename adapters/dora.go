package adapters

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// dora is LoRA with use_dora: m·(W + s·B·A)/‖W + s·B·A‖, where m [out] holds the length of each row
// and is trained. Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation". Gradients take the
// norm for constant (section 4.3 there).
type dora struct{ *lora }

const magnitude = "lora_magnitude_vector"

func newDoRA(m *lora) (Method, error) {
	if m.LoraBias {
		return nil, fmt.Errorf("%w: use_dora does not go with lora_bias", format.ErrConfig)
	}
	return &dora{m}, nil
}

func (m *dora) Params(t Target) []Param {
	shape := []int{t.Out()}
	if t.Kind == Convolution {
		shape = []int{1, t.Out(), 1, 1}
	}
	return append(m.lora.Params(t), Param{magnitude, shape, Zeros})
}

// Begin sets the magnitude to the rows' lengths.
func (m *dora) Begin(rng *rand.Rand, t Target, base func() ([]float32, error), values Values) error {
	if err := m.lora.Begin(rng, t, base, values); err != nil {
		return err
	}
	w, err := base()
	if err != nil {
		return err
	}
	s := float32(m.scale(t))
	product(values["lora_B.weight"], values["lora_A.weight"], t.Out(), t.Rank, t.In(), func(i int, delta []float32) {
		for j, v := range w[i*t.In() : (i+1)*t.In()] {
			delta[j] = v + float32(delta[j]*s)
		}
		values[magnitude][i] = norm2(delta)
	})
	return nil
}

// direction returns V = W + s·B·A and m/‖V‖ [out, 1].
func (m *dora) direction(s Site, base *graph.Node) (v, factor *graph.Node) {
	v = m.lora.Weight(s, base)
	norm := graph.Sqrt(graph.ReduceAndKeep(graph.Square(graph.StopGradient(v)), graph.ReduceSum, 1))
	return v, graph.Div(graph.Reshape(s.Params[magnitude], s.Out(), 1), norm)
}

func (m *dora) Weight(s Site, base *graph.Node) *graph.Node {
	v, factor := m.direction(s, base)
	return graph.Mul(factor, v)
}

// Forward scales the output of base and update; the adapted weight itself is not needed. Like PEFT,
// it drops elements of the input before the part that the base adds through the scale too.
func (m *dora) Forward(s Site, x, y *graph.Node) *graph.Node {
	_, factor := m.direction(s, s.Base)
	factor = graph.Reshape(factor, 1, s.Out())
	a, b := m.factors(s)
	if m.LoraDropout > 0 && s.Tape.Training() {
		x = s.Drop(x, m.LoraDropout)
		y = graph.Add(y, graph.Mul(graph.AddScalar(factor, -1), ops.Linear(s.Tape, x, s.Base, nil)))
		return graph.Add(y, graph.Mul(factor, ops.LowRank(s.Tape, x, a, b, m.scale(s.Target))))
	}
	update := ops.LowRank(s.Tape, x, a, b, m.scale(s.Target))
	if s.BaseBias == nil {
		return graph.Mul(factor, graph.Add(y, update))
	}
	bias := graph.ExpandLeftToRank(s.BaseBias, 2)
	return graph.Add(graph.Mul(factor, graph.Add(graph.Sub(y, bias), update)), bias)
}

// ByRows is true where a row of the stored weight has a norm.
func (m *dora) ByRows(t Target) bool { return !t.Kind.transposed() }

// MergeRows follows PEFT 0.21: V = W + (B·A)·s and m/‖V‖ in float32, one rounding at the end in either mode.
func (m *dora) MergeRows(t Target, values Values, _ Rounding) RowUpdate {
	return m.update(t, values, norm2)
}

// update merges rows of a weight [out, in], the length of which norm computes.
func (m *dora) update(t Target, values Values, norm func(row []float32) float32) RowUpdate {
	s, product, in := float32(m.scale(t)), m.product(t, values), t.In()
	return RowUpdate{Replace: func(first int, w []float32) {
		own := borrow(len(w))
		defer scratch.Put(own)
		delta := *own
		product.Rows(delta, first, s)
		for i, d := range delta {
			w[i] += d
		}
		for i := range len(w) / in {
			row := w[i*in : (i+1)*in]
			factor := values[magnitude][first+i] / norm(row)
			for j, v := range row {
				row[j] = float32(factor * v)
			}
		}
	}}
}

// Exact is the change in float64, where a row of the stored weight has a norm.
func (m *dora) Exact(t Target, values Values) func(row int, w, d, bound []float64) {
	if t.Kind.transposed() {
		return nil
	}
	update := m.lora.Exact(t, values)
	return func(row int, w, d, bound []float64) {
		update(row, w, d, bound)
		squares := 0.0
		for j := range d {
			d[j] += w[j]
			squares += d[j] * d[j]
		}
		factor := float64(values[magnitude][row]) / math.Sqrt(squares)
		for j := range d {
			// The norm adds len(d)/8 squares in each of eight lanes.
			bound[j] = math.Abs(factor) * (bound[j] + math.Abs(d[j])*float64(len(d)/8+8))
			d[j] = factor*d[j] - w[j]
		}
	}
}

// Merge is MergeRows on all rows, but for the order in which squares are added where rows are the
// columns of the stored weight.
func (m *dora) Merge(t Target, values Values, w []float32, _ Rounding, _ func(float32) float32) {
	norm := norm2
	if t.Kind.transposed() && t.Out() > 1 { // one column is a row to torch
		norm = columnNorm2
	}
	t.Kind = Linear // as w is
	m.update(t, values, norm).Replace(0, w)
}

// MergesOnBase: norms are those of the base with this update alone.
func (m *dora) MergesOnBase() {}

// norm2 is the Euclidean norm as torch computes it on x86: in eight lanes, products rounded before
// they are added, lanes and what is left over added one by one.
func norm2(row []float32) float32 {
	var lanes [8]float32
	whole := len(row) / 8 * 8
	for j, v := range row[:whole] {
		lanes[j%8] += float32(v * v)
	}
	var sum float32
	for _, v := range lanes {
		sum += v
	}
	for _, v := range row[whole:] {
		sum += float32(v * v)
	}
	return float32(math.Sqrt(float64(sum)))
}

// columnNorm2 is the norm of a column of a stored weight as torch computes it: squares are rounded and
// added one by one.
func columnNorm2(column []float32) float32 {
	var sum float32
	for _, v := range column {
		sum += float32(v * v)
	}
	return float32(math.Sqrt(float64(sum)))
}
