package adapters

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// adalora is AdaLoRA: W + s·B·(E⊙A), a singular value decomposition whose least important ranks are
// taken away in training, see pruning.go. s = alpha/(init_r + 10⁻⁵), whatever ranks are left.
// Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning".
type adalora struct {
	adaloraSettings
	loraVariants
	loraInert

	UseDoRA      bool            `json:"use_dora"`
	UseRSLoRA    bool            `json:"use_rslora"`
	LoraBias     bool            `json:"lora_bias"`
	AlphaPattern json.RawMessage `json:"alpha_pattern"` // PEFT does not read it
	RankPattern  rankPattern     `json:"rank_pattern"`

	pruning *pruning // while it is trained
}

// adaloraSettings are the fields of a new config. R is LoRA's, which PEFT reads but does not obey.
type adaloraSettings struct {
	loraSettings
	R         int     `json:"r"`
	InitR     int     `json:"init_r" is:"positive" usage:"rank at the beginning"`
	TargetR   int     `json:"target_r" usage:"average rank at the end"`
	TInit     int     `json:"tinit" usage:"steps before pruning begins"`
	TFinal    int     `json:"tfinal" usage:"steps after pruning has ended"`
	DeltaT    int     `json:"deltaT" is:"positive" usage:"steps between two prunings"`
	Beta1     float64 `json:"beta1" is:"share" usage:"smoothing of the sensitivity"`
	Beta2     float64 `json:"beta2" is:"share" usage:"smoothing of its uncertainty"`
	OrthReg   float64 `json:"orth_reg_weight" usage:"weight of the penalty that training.orthogonality_penalty adds"`
	TotalStep *int    `json:"total_step" is:"positive" usage:"steps of the whole training; default: as planned"` // nil until then
}

// rankPattern has, by the path of lora_E, which of the init_r ranks are left.
type rankPattern map[string][]bool

func newAdaLoRA(cfg *format.AdapterConfig) (Method, error) {
	m := &adalora{adaloraSettings: adaloraSettings{loraSettings: loraDefaults(),
		R: 8, TargetR: 8, InitR: 12, DeltaT: 1, Beta1: 0.85, Beta2: 0.85, OrthReg: 0.5}}
	if err := cfg.Method(m); err != nil {
		return nil, err
	}
	if err := m.refuse("AdaLoRA"); err != nil {
		return nil, err
	}
	if err := m.loraSettings.validate(); err != nil {
		return nil, err
	}
	for _, rule := range []struct {
		broken bool
		says   string
	}{
		{m.UseDoRA, "use_dora does not go with AdaLoRA"},
		{isSet(m.LoftQ), "loftq_config does not go with AdaLoRA"},
		{m.InitR < 1, fmt.Sprintf("init_r is %d, but must be positive", m.InitR)},
		{m.TargetR < 0, fmt.Sprintf("target_r is %d, but must not be negative", m.TargetR)},
		{m.TInit < 0 || m.TFinal < 0, fmt.Sprintf("tinit is %d and tfinal %d, but neither may be negative", m.TInit, m.TFinal)},
		{m.DeltaT < 1, fmt.Sprintf("deltaT is %d, but must be positive", m.DeltaT)},
		{m.Beta1 <= 0 || m.Beta1 >= 1 || m.Beta2 <= 0 || m.Beta2 >= 1, fmt.Sprintf("beta1 is %v and beta2 %v, but both must be between 0 and 1", m.Beta1, m.Beta2)},
		{m.OrthReg < 0, fmt.Sprintf("orth_reg_weight is %v, but must not be negative", m.OrthReg)},
	} {
		if rule.broken {
			return nil, fmt.Errorf("%w: %s", format.ErrConfig, rule.says)
		}
	}
	for name, mask := range m.RankPattern {
		if len(mask) != m.InitR {
			return nil, fmt.Errorf("%w: rank_pattern has %d ranks for %q, but init_r is %d", format.ErrConfig, len(mask), name, m.InitR)
		}
	}
	if m.TotalStep != nil {
		return m, m.schedule()
	}
	return m, nil
}

// schedule checks the steps in which ranks are taken away, once their number is known.
func (m *adalora) schedule() error {
	switch total := *m.TotalStep; {
	case total < 1:
		return fmt.Errorf("%w: total_step is %d, but must be positive", format.ErrConfig, total)
	case m.TInit >= total-m.TFinal:
		return fmt.Errorf("%w: no steps are left to take ranks away in: tinit is %d, tfinal %d and total_step %d", format.ErrConfig, m.TInit, m.TFinal, total)
	}
	return nil
}

// Loaded refuses what PEFT refuses in files, and says what it ignores.
func (m *adalora) Loaded(targets []Target) (notes []string, err error) {
	if m.TotalStep == nil {
		return nil, fmt.Errorf("%w: total_step is missing", format.ErrConfig)
	}
	found := 0
	for _, t := range targets {
		if m.mask(t) != nil {
			found++
		}
	}
	if found < len(m.RankPattern) {
		return nil, fmt.Errorf("%w: rank_pattern names %d modules, but only %d of them are targets", ErrMismatch, len(m.RankPattern), found)
	}
	for _, s := range []namedFlag{{"use_rslora", m.UseRSLoRA}, {"lora_bias", m.LoraBias}, {"alpha_pattern", isSet(m.AlphaPattern)}} {
		if s.on {
			notes = append(notes, fmt.Sprintf("%s has %s, which does nothing for AdaLoRA, as in PEFT", format.AdapterConfigFile, s.name))
		}
	}
	return notes, nil
}

// Creates refuses what PEFT ignores, and how it does not begin.
func (m *adalora) Creates() error {
	if m.R != 8 {
		return fmt.Errorf("%w: r does nothing for AdaLoRA, whose ranks are init_r and target_r", format.ErrConfig)
	}
	if init := string(m.InitWeights); init != "true" && init != "false" {
		return fmt.Errorf("%w: init_lora_weights is %s, but must be true or false for AdaLoRA", format.ErrConfig, init)
	}
	if err := idle("AdaLoRA", namedFlag{"use_rslora", m.UseRSLoRA}, namedFlag{"lora_bias", m.LoraBias},
		namedFlag{"alpha_pattern", isSet(m.AlphaPattern)}, namedFlag{"rank_pattern, which training fills,", len(m.RankPattern) > 0}); err != nil {
		return err
	}
	return m.creates("AdaLoRA")
}

// Scale returns init_r and alpha, which is init_r where it is not positive.
func (m *adalora) Scale() (int, float64) {
	if m.LoraAlpha <= 0 {
		return m.InitR, float64(m.InitR)
	}
	return m.InitR, m.LoraAlpha
}

func (m *adalora) Settings() any         { return &m.adaloraSettings }
func (m *adalora) TrainedBiases() string { return m.TrainBias }
func (m *adalora) Check(t Target) error  { return refuseKinds(t, "AdaLoRA", Embedding) }

// Constants counts ranknum, which holds init_r.
func (m *adalora) Constants() int { return 1 }

// divisor is what PEFT divides by: a sum in float32.
func (m *adalora) divisor() float32 { return float32(m.InitR) + 1e-5 }

func (m *adalora) scale(t Target) float64 { return t.Alpha / float64(m.divisor()) }

// mask is a target's entry in rank_pattern; nil where it has none.
func (m *adalora) mask(t Target) []bool {
	for _, name := range t.Names {
		if mask, ok := m.RankPattern[name+".lora_E"]; ok {
			return mask
		}
	}
	return nil
}

// Coarse is true where PEFT makes the parameters anew for fewer ranks: they then have the base's type
// until they are filled.
func (m *adalora) Coarse(t Target) bool { return m.mask(t) != nil }

// rank is the number of ranks that a target has in memory.
func (m *adalora) rank(t Target) int {
	return count(m.inMemory(t))
}

func (m *adalora) Params(t Target) []Param {
	r, a, e := m.rank(t), Normal(0.02), Init(Zeros)
	if string(m.InitWeights) == "false" {
		a, e = Normal(1), Normal(1)
	}
	return []Param{{"lora_A", []int{r, t.In()}, a}, {"lora_B", []int{t.Out(), r}, a}, {"lora_E", []int{r, 1}, e}}
}

func (m *adalora) Weight(s Site, base *graph.Node) *graph.Node {
	if m.rank(s.Target) == 0 {
		return base
	}
	update := matmul(s.Params["lora_B"], graph.Mul(s.Params["lora_A"], s.Params["lora_E"]))
	return graph.Add(base, graph.MulScalar(update, m.scale(s.Target)))
}

// Forward is LoRA's with E⊙A for A.
func (m *adalora) Forward(s Site, x, y *graph.Node) *graph.Node {
	if m.rank(s.Target) == 0 {
		return y
	}
	if m.LoraDropout > 0 {
		x = s.Drop(x, m.LoraDropout)
	}
	ea := graph.Mul(s.Params["lora_A"], s.Params["lora_E"])
	return graph.Add(y, ops.LowRank(s.Tape, x, ea, s.Params["lora_B"], m.scale(s.Target)))
}

// Penalty is how far A's rows and B's columns are from orthonormal, (‖A·Aᵀ−I‖ + ‖Bᵀ·B−I‖)/2 times
// orth_reg_weight. PEFT adds its mean over targets to a loss that the model returns to it, which is
// not the case for image classifiers.
func (m *adalora) Penalty(s Site) *graph.Node {
	if m.rank(s.Target) == 0 || m.OrthReg == 0 {
		return nil
	}
	distance := func(x *graph.Node, axis int) *graph.Node {
		gram := graph.Dot(x, x).General([]int{axis}, nil, []int{axis}, nil)
		off := graph.Sub(gram, graph.ConvertDType(graph.Diagonal(x.Graph(), gram.Shape().Dimensions[0]), x.DType()))
		return graph.Sqrt(graph.ReduceAllSum(graph.Square(off)))
	}
	return graph.MulScalar(graph.Add(distance(s.Params["lora_A"], 1), distance(s.Params["lora_B"], 0)), m.OrthReg/2)
}

// ByRows is true where rows of the stored weight are outputs.
func (m *adalora) ByRows(t Target) bool { return !t.Kind.transposed() }

// MergeRows follows PEFT 0.21: (B·(A⊙E))·alpha/(init_r + 10⁻⁵) in float32, one rounding in either mode.
func (m *adalora) MergeRows(t Target, values Values, _ Rounding) RowUpdate {
	a, in := values["lora_A"], t.In()
	ea := make([]float32, len(a))
	for r, e := range values["lora_E"] {
		for i, v := range a[r*in : (r+1)*in] {
			ea[r*in+i] = v * e
		}
	}
	product := kernel.NewProduct(values["lora_B"], ea, m.rank(t), t.In())
	return RowUpdate{Delta: func(first int, d []float32) {
		product.Rows(d, first, float32(t.Alpha))
		kernel.Divide(d, m.divisor())
	}}
}

// Merge is MergeRows on all rows.
func (m *adalora) Merge(t Target, values Values, w []float32, rounding Rounding, round func(float32) float32) {
	mergeAll(m, t, values, w, rounding, round)
}

// left tells which of a target's init_r ranks are left: those of rank_pattern, less those that
// training has pruned since. nil means all.
func (m *adalora) left(t Target) []bool {
	loaded, trained := m.mask(t), m.pruning.of(t)
	if trained == nil {
		return loaded
	}
	all, next := make([]bool, m.InitR), 0
	for i := range all {
		if loaded == nil || loaded[i] {
			all[i] = trained[next] != 0
			next++
		}
	}
	return all
}

// Export drops the ranks that are pruned. Under both generations of names it keeps them, with E zero:
// PEFT fails where rank_pattern names a module that the model has not.
func (m *adalora) Export(t Target, params []Parameter, both bool) []Parameter {
	left := m.left(t)
	if left == nil {
		return params
	}
	kept := m.InitR
	if !both {
		kept = count(left)
	}
	shapes := [][]int{{kept, t.In()}, {t.Out(), kept}, {kept, 1}}
	exported := make([]Parameter, len(params))
	for i, p := range params {
		exported[i] = Parameter{p.Name, shapes[i], make([]float32, size(shapes[i]))}
	}
	a, b, e := exported[0].Values, exported[1].Values, exported[2].Values
	from, rank, to := 0, m.rank(t), 0 // of the ranks in memory, their number, and of those in the file
	for i, loaded := range m.inMemory(t) {
		if left[i] {
			copy(a[to*t.In():(to+1)*t.In()], params[0].Values[from*t.In():])
			for row := range t.Out() {
				b[row*kept+to] = params[1].Values[row*rank+from]
			}
			e[to] = params[2].Values[from]
		}
		if left[i] || both {
			to++
		}
		if loaded {
			from++
		}
	}
	return exported
}

// inMemory tells which of a target's init_r ranks have parameters.
func (m *adalora) inMemory(t Target) []bool {
	if mask := m.mask(t); mask != nil {
		return mask
	}
	return slices.Repeat([]bool{true}, m.InitR)
}

// Named spells rank_pattern, which is null as long as all ranks are left, and where Export keeps all.
func (m *adalora) Named(targets []Target, paths, _ func(Target) []string) any {
	pattern := rankPattern{}
	pruned := false
	for _, t := range targets {
		left := m.left(t)
		if left == nil {
			left = m.inMemory(t)
		}
		names := paths(t)
		for _, name := range names {
			pattern[name+".lora_E"] = left
		}
		pruned = pruned || slices.Contains(left, false)
		if len(names) > 1 {
			return &patternSetting{}
		}
	}
	if !pruned {
		pattern = nil
	}
	return &patternSetting{pattern}
}

type patternSetting struct {
	RankPattern rankPattern `json:"rank_pattern"`
}

func count(mask []bool) int {
	n := 0
	for _, set := range mask {
		if set {
			n++
		}
	}
	return n
}
