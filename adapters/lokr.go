package adapters

import (
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
	"github.com/hubtool/hubtool/format"
)

// lokr is LoKr: W + s·(w₁ ⊗ w₂) with s = alpha/r, a Kronecker product of two small matrices, the
// second, or both, of them low-rank products where that is smaller. The scale counts also where
// nothing is of rank r. Yeh et al. 2024, "Navigating Text-To-Image Customization: From LyCORIS
// Fine-Tuning to Model Evaluation".
type lokr struct {
	lycoris
	DecomposeBoth    bool  `json:"decompose_both" usage:"decompose the left factor too"`
	DecomposeFactor  int   `json:"decompose_factor" usage:"size of the left factor; -1: balanced"`
	RankDropoutScale *bool `json:"rank_dropout_scale" usage:"scale up what rank dropout leaves"`
}

func newLoKr(cfg *format.AdapterConfig) (Method, error) {
	m := &lokr{lycoris: lycorisDefaults(), DecomposeFactor: -1}
	if err := cfg.Method(m); err != nil {
		return nil, err
	}
	switch init := string(m.InitWeights); {
	case init != "true" && init != "false" && init != `"lycoris"`:
		return nil, fmt.Errorf(`%w: init_weights is %s, but must be true, false or "lycoris"`, format.ErrConfig, init)
	case m.DecomposeFactor < 1 && m.DecomposeFactor != -1:
		return nil, fmt.Errorf("%w: decompose_factor is %d, but must be positive, or -1 for a balanced one", format.ErrConfig, m.DecomposeFactor)
	}
	return m, m.validate()
}

func (m *lokr) Settings() any {
	settings := *m
	if settings.RankDropoutScale == nil {
		settings.RankDropoutScale = new(bool)
	}
	return &settings
}

func (m *lokr) Check(t Target) error { return refuseKinds(t, "LoKr", Transposed, Embedding) }

// Loaded warns about files of PEFT before 0.14, which lack a key that came with the scale.
func (m *lokr) Loaded([]Target) ([]string, error) {
	if m.RankDropoutScale != nil || m.Alpha == float64(m.R) {
		return nil, nil
	}
	return []string{fmt.Sprintf("PEFT before 0.14 wrote this adapter and left out LoKr's scale of %v/%d; newer ones apply it, and so does hubtool", m.Alpha, m.R)}, nil
}

// kronecker is how a target's weight splits: w₁ [l, m] and w₂ [k, n·kernel].
type kronecker struct {
	l, m, k, n int
	kernel     int  // positions; 1 for a linear layer
	whole1     bool // w₁ is one matrix, not a product
	whole2     bool
}

func (m *lokr) split(t Target) kronecker {
	s := kronecker{kernel: size(t.Shape[2:])}
	s.l, s.k = factorize(t.Shape[0], m.DecomposeFactor)
	s.m, s.n = factorize(t.Shape[1], m.DecomposeFactor)
	s.whole1 = !m.DecomposeBoth || 2*t.Rank >= max(s.l, s.m)
	s.whole2 = 2*t.Rank >= max(s.k, s.n)
	return s
}

// factorize splits d into two factors. A factor that divides d comes first; else the smaller one
// does, the largest divisor of d up to its root that is not above factor, -1 for no limit.
func factorize(d, factor int) (int, int) {
	if factor > 0 && d%factor == 0 {
		return factor, d / factor
	}
	smaller := 1
	for m := 2; m*m <= d && (factor == -1 || m <= factor); m++ {
		if d%m == 0 {
			smaller = m
		}
	}
	return smaller, d / smaller
}

func (m *lokr) Params(t Target) []Param {
	s, r := m.split(t), t.Rank
	shapes := [][]int{{s.l, s.m}}
	names := []string{"lokr_w1"}
	if !s.whole1 {
		names, shapes = []string{"lokr_w1_a", "lokr_w1_b"}, [][]int{{s.l, r}, {r, s.m}}
	}
	switch kernel := t.Shape[2:]; {
	case s.whole2:
		names, shapes = append(names, "lokr_w2"), append(shapes, append([]int{s.k, s.n}, kernel...))
	case m.tucker(t):
		names = append(names, "lokr_t2", "lokr_w2_a", "lokr_w2_b")
		shapes = append(shapes, append([]int{r, r}, kernel...), []int{r, s.k}, []int{r, s.n})
	default:
		names, shapes = append(names, "lokr_w2_a", "lokr_w2_b"), append(shapes, []int{s.k, r}, []int{r, s.n * s.kernel})
	}
	zero := map[string][]string{"true": {"lokr_w1", "lokr_w1_a"}, `"lycoris"`: {"lokr_w2", "lokr_w2_b"}}[string(m.InitWeights)]
	var ps []Param
	for i, name := range names {
		init := kaiming(shapes[i]...)
		if slices.Contains(zero, name) {
			init = Zeros
		}
		ps = append(ps, Param{name, shapes[i], init})
	}
	return ps
}

func (m *lokr) Weight(s Site, base *graph.Node) *graph.Node {
	p, k := s.Params, m.split(s.Target)
	w1, w2 := p["lokr_w1"], p["lokr_w2"]
	if w1 == nil {
		w1 = matmul(p["lokr_w1_a"], p["lokr_w1_b"])
	}
	switch {
	case w2 != nil:
		w2 = graph.Reshape(w2, k.k, k.n*k.kernel)
	case p["lokr_t2"] != nil:
		w2 = tucker(p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
	default:
		w2 = matmul(p["lokr_w2_a"], p["lokr_w2_b"])
	}
	update := graph.Mul(graph.Reshape(w1, k.l, 1, k.m, 1), graph.Reshape(w2, 1, k.k, 1, k.n*k.kernel))
	update = graph.MulScalar(graph.Reshape(update, s.Out(), s.In()), m.scale(s.Target))
	return graph.Add(base, m.drop(s, update, m.RankDropoutScale != nil && *m.RankDropoutScale))
}

// ByRows is true: rows of the update are made of rows of the factors.
func (m *lokr) ByRows(Target) bool { return true }

// MergeRows follows PEFT 0.21: (w₁ ⊗ w₂)·s in float32, one rounding in either mode.
func (m *lokr) MergeRows(t Target, values Values, _ Rounding) RowUpdate {
	k, s := m.split(t), float32(m.scale(t))
	w1, w2 := m.wholes(t, values)
	columns := k.n * k.kernel
	return RowUpdate{Delta: func(first int, d []float32) {
		for i := first; len(d) > 0; i++ {
			x, y := w1[i/k.k*k.m:(i/k.k+1)*k.m], w2[i%k.k*columns:(i%k.k+1)*columns]
			kernel.Outer(d, x, y, s)
			d = d[len(x)*columns:]
		}
	}}
}

// wholes are w₁ and w₂ as matrices.
func (m *lokr) wholes(t Target, values Values) (w1, w2 []float32) {
	k, r := m.split(t), t.Rank
	w1, w2 = values["lokr_w1"], values["lokr_w2"]
	if w1 == nil {
		w1 = hostProduct(values["lokr_w1_a"], values["lokr_w1_b"], k.l, r, k.m)
	}
	switch a, b := values["lokr_w2_a"], values["lokr_w2_b"]; {
	case w2 != nil:
	case values["lokr_t2"] != nil:
		w2 = hostTucker(values["lokr_t2"], a, b, r, k.k, k.n, k.kernel, false)
	default:
		w2 = hostProduct(a, b, k.k, r, k.n*k.kernel)
	}
	return w1, w2
}

// Merge is MergeRows on all rows.
func (m *lokr) Merge(t Target, values Values, w []float32, rounding Rounding, round func(float32) float32) {
	mergeAll(m, t, values, w, rounding, round)
}
