package adapters

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
	"github.com/hubtool/hubtool/format"
)

// loha is LoHa: W + s·(A₁·B₁)⊙(A₂·B₂) with s = alpha/r, whose update has a rank of up to r².
// Hyeon-Woo et al. 2022, "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated
// Learning".
type loha struct{ lycoris }

func newLoHa(cfg *format.AdapterConfig) (Method, error) {
	m := &loha{lycorisDefaults()}
	if err := cfg.Method(m); err != nil {
		return nil, err
	}
	if init := string(m.InitWeights); init != "true" && init != "false" {
		return nil, fmt.Errorf("%w: init_weights is %s, but must be true or false", format.ErrConfig, init)
	}
	return m, m.validate()
}

func (m *loha) Settings() any        { return &m.lycoris }
func (m *loha) Check(t Target) error { return refuseKinds(t, "LoHa", Transposed, Embedding) }

func (m *loha) Params(t Target) []Param {
	r, out, in := t.Rank, t.Out(), t.In()
	a, b := []int{out, r}, []int{r, in}
	if m.tucker(t) {
		a, b = []int{r, out}, []int{r, t.Shape[1]}
	}
	last := Init(Zeros)
	if string(m.InitWeights) == "false" {
		last = kaiming(b...)
	}
	ps := []Param{{"hada_w1_a", a, kaiming(a...)}, {"hada_w1_b", b, kaiming(b...)}, {"hada_w2_a", a, kaiming(a...)}, {"hada_w2_b", b, last}}
	if m.tucker(t) {
		core := []int{r, r, t.Shape[2], t.Shape[3]}
		ps = append(ps, Param{"hada_t1", core, kaiming(core...)}, Param{"hada_t2", core, kaiming(core...)})
	}
	return ps
}

func (m *loha) Weight(s Site, base *graph.Node) *graph.Node {
	var factors [2]*graph.Node
	for i, n := range []string{"1", "2"} {
		a, b := s.Params["hada_w"+n+"_a"], s.Params["hada_w"+n+"_b"]
		if m.tucker(s.Target) {
			factors[i] = tucker(s.Params["hada_t"+n], a, b)
		} else {
			factors[i] = matmul(a, b)
		}
	}
	update := graph.MulScalar(graph.Mul(factors[0], factors[1]), m.scale(s.Target))
	return graph.Add(base, m.drop(s, update, true))
}

// ByRows is true where the update is not decomposed by kernel position.
func (m *loha) ByRows(t Target) bool { return !m.tucker(t) }

// MergeRows follows PEFT 0.21: ((A₁·B₁)⊙(A₂·B₂))·s in float32, one rounding in either mode.
func (m *loha) MergeRows(t Target, values Values, _ Rounding) RowUpdate {
	s, first, second := float32(m.scale(t)), m.factor(t, values, "1"), m.factor(t, values, "2")
	return RowUpdate{Delta: func(row int, d []float32) {
		own := borrow(len(d))
		defer scratch.Put(own)
		other := *own
		first(d, row)
		second(other, row)
		for i, v := range other {
			d[i] = float32(float32(d[i]*v) * s)
		}
	}}
}

// Merge is MergeRows on all rows.
func (m *loha) Merge(t Target, values Values, w []float32, rounding Rounding, round func(float32) float32) {
	mergeAll(m, t, values, w, rounding, round)
}

// factor returns what computes rows of one of the two factors.
func (m *loha) factor(t Target, values Values, n string) func(d []float32, first int) {
	a, b := values["hada_w"+n+"_a"], values["hada_w"+n+"_b"]
	if m.tucker(t) {
		whole := hostTucker(values["hada_t"+n], a, b, t.Rank, t.Out(), t.Shape[1], t.Shape[2]*t.Shape[3], true)
		return func(d []float32, first int) { copy(d, whole[first*t.In():]) }
	}
	product := kernel.NewProduct(a, b, t.Rank, t.In())
	return func(d []float32, first int) { product.Rows(d, first, 1) }
}
