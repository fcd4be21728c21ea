package adapters

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/format"
)

// loha is LoHa: W + s·(A₁·B₁)⊙(A₂·B₂) with s = alpha/r, whose update has a rank of up to r².
// Hyeon-Woo et al. 2022, "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated
// Learning".
type loha struct{ lycoris }

func newLoHa(cfg *format.AdapterConfig) (Method, error) {
	m := &loha{lycorisDefaults}
	if err := cfg.Method(m); err != nil {
		return nil, err
	}
	if init := string(m.InitWeights); init != "true" && init != "false" {
		return nil, fmt.Errorf("%w: init_weights is %s, but must be true or false", format.ErrConfig, init)
	}
	return m, m.validate()
}

func (m *loha) Settings() any { return &m.lycoris }

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

// Merge follows PEFT 0.21: ((A₁·B₁)⊙(A₂·B₂))·s in float32, one rounding in either mode.
func (m *loha) Merge(t Target, values Values, w []float32, _ Rounding, _ func(float32) float32) {
	s := float32(m.scale(t))
	first := m.factor(t, values, "1")
	for i, v := range m.factor(t, values, "2") {
		w[i] += float32(float32(first[i]*v) * s)
	}
}

func (m *loha) factor(t Target, values Values, n string) []float32 {
	a, b := values["hada_w"+n+"_a"], values["hada_w"+n+"_b"]
	if m.tucker(t) {
		return hostTucker(values["hada_t"+n], a, b, t.Rank, t.Out(), t.Shape[1], t.Shape[2]*t.Shape[3], t.Out() < t.Shape[1])
	}
	return hostProduct(a, b, t.Out(), t.Rank, t.In())
}
