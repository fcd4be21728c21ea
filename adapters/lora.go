package adapters

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"gonum.org/v1/gonum/mat"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// lora is LoRA: W + s·B·A with s = alpha/r, or alpha/√r with use_rslora.
// Hu et al. 2021; rsLoRA: Kalajdzievski 2023, "A Rank Stabilization Scaling Factor".
type lora struct {
	loraSettings
	loraVariants
	loraInert

	UseRSLoRA bool `json:"use_rslora" usage:"scale by the root of the rank"`
	LoraBias  bool `json:"lora_bias" usage:"give the adapter a bias"`
	UseDoRA   bool `json:"use_dora" usage:"train the magnitude of each weight row as well"`
}

// loraSettings are the fields that every PEFT since 0.4 reads.
type loraSettings struct {
	R           int             `json:"r" is:"positive" usage:"rank"`
	LoraAlpha   float64         `json:"lora_alpha" usage:"scale: the update counts lora_alpha / rank"`
	LoraDropout float64         `json:"lora_dropout" is:"share" usage:"dropout before the adapter"`
	FanInFanOut bool            `json:"fan_in_fan_out" usage:"weights are stored [in, out]"`
	TrainBias   string          `json:"bias" usage:"biases to train: none, all or lora_only"`
	InitWeights json.RawMessage `json:"init_lora_weights" is:"word" usage:"how new adapters begin: true, false, gaussian or orthogonal; ADALORA: true or false"`
}

// loraDefaults are PEFT's. Decoding writes into the memory of a RawMessage, so each has its own.
func loraDefaults() loraSettings {
	return loraSettings{R: 8, LoraAlpha: 8, TrainBias: "none", InitWeights: json.RawMessage("true")}
}

func (m *loraSettings) validate() error {
	switch {
	case m.LoraDropout < 0 || m.LoraDropout >= 1:
		return fmt.Errorf("%w: lora_dropout is %v, but must be in [0, 1)", format.ErrConfig, m.LoraDropout)
	case m.TrainBias != "none" && m.TrainBias != "all" && m.TrainBias != "lora_only":
		return fmt.Errorf("%w: bias is %q, but must be none, all or lora_only", format.ErrConfig, m.TrainBias)
	}
	return nil
}

// loraVariants are fields that change LoRA's formula or its tensors in ways not written here.
type loraVariants struct {
	QALoRA       bool            `json:"use_qalora"`
	Replication  json.RawMessage `json:"layer_replication"`
	TokenIndices json.RawMessage `json:"trainable_token_indices"`
	TargetParams json.RawMessage `json:"target_parameters"`
	ALoRA        json.RawMessage `json:"alora_invocation_tokens"`
	Arrow        json.RawMessage `json:"arrow_config"`
	BDLoRA       json.RawMessage `json:"use_bdlora"`
	VeLoRA       json.RawMessage `json:"velora_config"`
	MonteCLoRA   json.RawMessage `json:"monteclora_config"`
	KaSA         json.RawMessage `json:"kasa_config"`
}

// loraInert are fields that mean nothing here. PEFT writes them into all its files; those of
// initialisations say how a saved adapter began.
type loraInert struct {
	CorDA        json.RawMessage `json:"corda_config"`
	EVA          json.RawMessage `json:"eva_config"`
	LoftQ        json.RawMessage `json:"loftq_config"`
	LoRAGA       json.RawMessage `json:"lora_ga_config"`
	Megatron     json.RawMessage `json:"megatron_config"`
	MegatronCore json.RawMessage `json:"megatron_core"`
	QALoRAGroup  json.RawMessage `json:"qalora_group_size"`
	WeightTying  json.RawMessage `json:"ensure_weight_tying"`
}

// refuse names the first that is set.
func (v *loraVariants) refuse(method string) error {
	for _, s := range []namedFlag{
		{"use_qalora", v.QALoRA}, {"layer_replication", isSet(v.Replication)},
		{"trainable_token_indices", isSet(v.TokenIndices)}, {"target_parameters", isSet(v.TargetParams)},
		{"alora_invocation_tokens", isSet(v.ALoRA)}, {"arrow_config", isSet(v.Arrow)}, {"use_bdlora", isSet(v.BDLoRA)},
		{"velora_config", isSet(v.VeLoRA)}, {"monteclora_config", isSet(v.MonteCLoRA)}, {"kasa_config", isSet(v.KaSA)},
	} {
		if s.on {
			return fmt.Errorf("%w: %s with %s", ErrMethod, method, s.name)
		}
	}
	return nil
}

// namedFlag is a setting and whether it is on.
type namedFlag struct {
	name string
	on   bool
}

// idle is an error for the first of a new adapter's settings that would do nothing.
func idle(method string, settings ...namedFlag) error {
	for _, s := range settings {
		if s.on {
			return fmt.Errorf("%w: %s does nothing for %s", format.ErrConfig, s.name, method)
		}
	}
	return nil
}

// creates refuses those that are set for a new adapter, for which they would do nothing.
func (f *loraInert) creates(method string) error {
	return idle(method, namedFlag{"corda_config", isSet(f.CorDA)}, namedFlag{"eva_config", isSet(f.EVA)}, namedFlag{"loftq_config", isSet(f.LoftQ)},
		namedFlag{"lora_ga_config", isSet(f.LoRAGA)}, namedFlag{"megatron_config", isSet(f.Megatron)}, namedFlag{"ensure_weight_tying", isSet(f.WeightTying)})
}

func isSet(raw json.RawMessage) bool {
	return !slices.Contains([]string{"", "null", "false", "{}", "[]"}, string(raw))
}

// Values of init_lora_weights that new adapters can have, and others that leave the base as it is.
var (
	newInits   = []string{"true", "false", `"gaussian"`, `"orthogonal"`}
	otherInits = []string{`"eva"`, `"mica"`}
)

func newLoRA(cfg *format.AdapterConfig) (Method, error) {
	m := &lora{loraSettings: loraDefaults()}
	if err := cfg.Method(m); err != nil {
		return nil, err
	}
	if err := m.refuse("LoRA"); err != nil {
		return nil, err
	}
	switch init := string(m.InitWeights); {
	case slices.Contains(newInits, init) || slices.Contains(otherInits, init):
	case len(init) > 0 && init[0] == '"':
		return nil, fmt.Errorf("%w: LoRA with init_lora_weights %s, which changes the base: save it from PEFT as plain LoRA, "+
			"with path_initial_model_for_weight_conversion", ErrMethod, init)
	default:
		return nil, fmt.Errorf("%w: init_lora_weights is %s, but must be true, false or a name", format.ErrConfig, init)
	}
	if m.R < 1 {
		return nil, fmt.Errorf("%w: r is %d, but must be positive", format.ErrConfig, m.R)
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	if m.UseDoRA {
		return newDoRA(m)
	}
	return m, nil
}

func (m *lora) Scale() (int, float64) { return m.R, m.LoraAlpha }
func (m *lora) Settings() any         { return &m.loraSettings }
func (m *lora) TrainedBiases() string { return m.TrainBias }

// Creates refuses initialisations that need data or a decomposition of the base.
func (m *lora) Creates() error {
	switch init := string(m.InitWeights); {
	case !slices.Contains(newInits, init):
		return fmt.Errorf("%w: new LoRA with init_lora_weights %s: use true, false, \"gaussian\" or \"orthogonal\"", ErrMethod, init)
	case m.LoraBias && init != "true" && init != "false":
		return fmt.Errorf("%w: lora_bias goes with init_lora_weights true or false only, not %s", format.ErrConfig, init)
	}
	return m.creates("LoRA")
}

func (m *lora) Check(t Target) error {
	if m.LoraBias && !t.Bias {
		return fmt.Errorf("%w: lora_bias on a module without a bias", ErrMethod)
	}
	return nil
}

// Begin makes a new adapter of init_lora_weights "orthogonal": A = (X·Q₁)ᵀ/10 and B = Y·Q₂/10, where X
// [in, r/2] and Y [out, r/2] are normal and Q₁, Q₂ every other row of an orthogonal matrix, so that
// B·A is zero though neither factor is.
func (m *lora) Begin(rng *rand.Rand, t Target, _ func() ([]float32, error), values Values) error {
	if string(m.InitWeights) != `"orthogonal"` {
		return nil
	}
	r := t.Rank
	if r%2 != 0 || t.Kind == Convolution {
		return fmt.Errorf("beginning %q: %w: init_lora_weights \"orthogonal\" needs an even rank, not %d, and a linear layer", t.Name, format.ErrConfig, r)
	}
	normal := func(rows, cols int) *mat.Dense {
		m := mat.NewDense(rows, cols, nil)
		m.Apply(func(int, int, float64) float64 { return rng.NormFloat64() }, m)
		return m
	}
	q, _ := thinQR(normal(r, r))
	first, second := mat.NewDense(r/2, r, nil), mat.NewDense(r/2, r, nil)
	for i := range r / 2 {
		first.SetRow(i, q.RawRowView(2*i))
		second.SetRow(i, q.RawRowView(2*i+1))
	}
	var a, b mat.Dense
	a.Mul(normal(t.In(), r/2), first)
	b.Mul(normal(t.Out(), r/2), second)
	for i := range values["lora_A.weight"] {
		values["lora_A.weight"][i] = float32(a.At(i%t.In(), i/t.In()) / 10)
	}
	for i := range values["lora_B.weight"] {
		values["lora_B.weight"][i] = float32(b.At(i/r, i%r) / 10)
	}
	return nil
}

func (m *lora) scale(t Target) float64 {
	if m.UseRSLoRA {
		return t.Alpha / math.Sqrt(float64(t.Rank))
	}
	return t.Alpha / float64(t.Rank)
}

func (m *lora) Params(t Target) []Param {
	a, b := KaimingUniform(t.In()), Init(Zeros)
	switch string(m.InitWeights) {
	case "false": // torch's default for both, so that a new adapter changes its base
		b = KaimingUniform(t.Rank)
	case `"gaussian"`:
		a = Normal(1 / float64(t.Rank))
	}
	// A convolution's A has the kernel of the base, its B a kernel of one.
	shapeA, shapeB := append([]int{t.Rank}, t.Shape[1:]...), []int{t.Out(), t.Rank}
	for range t.Shape[2:] {
		shapeB = append(shapeB, 1)
	}
	if t.Kind == Embedding {
		return []Param{{"lora_embedding_A", shapeA, Zeros}, {"lora_embedding_B", shapeB, Normal(1)}}
	}
	ps := []Param{{"lora_A.weight", shapeA, a}, {"lora_B.weight", shapeB, b}}
	if m.LoraBias {
		ps = append(ps, Param{"lora_B.bias", []int{t.Out()}, Zeros})
	}
	return ps
}

// factors are A [r, in] and B [out, r], a convolution's kernel flattened.
func (m *lora) factors(s Site) (a, b *graph.Node) {
	return graph.Reshape(s.Params["lora_A.weight"], s.Rank, s.In()), graph.Reshape(s.Params["lora_B.weight"], s.Out(), s.Rank)
}

func (m *lora) Weight(s Site, base *graph.Node) *graph.Node {
	a, b := m.factors(s)
	delta := graph.Dot(b, a).General([]int{1}, nil, []int{0}, nil)
	return graph.Add(base, graph.MulScalar(delta, m.scale(s.Target)))
}

// Forward drops elements of the input, which a weight cannot, and needs no gradient of the size of
// the weight.
func (m *lora) Forward(s Site, x, y *graph.Node) *graph.Node {
	if m.LoraDropout > 0 {
		x = s.Drop(x, m.LoraDropout)
	}
	a, b := m.factors(s)
	y = graph.Add(y, ops.LowRank(s.Tape, x, a, b, m.scale(s.Target)))
	if m.LoraBias {
		y = graph.Add(y, graph.ExpandLeftToRank(graph.MulScalar(s.Params["lora_B.bias"], m.scale(s.Target)), 2))
	}
	return y
}

func (m *lora) Bias(s Site, base *graph.Node) *graph.Node {
	if !m.LoraBias {
		return base
	}
	return graph.Add(base, graph.MulScalar(s.Params["lora_B.bias"], m.scale(s.Target)))
}

// ByRows is true: every row of the update is a product of its own.
func (m *lora) ByRows(Target) bool { return true }

// MergeRows follows PEFT 0.21: D = (B·A)·s in float32, one rounding; with safe merging, and for
// embeddings, D is rounded first. A transposed weight gets Aᵀ·Bᵀ, which has the same sums.
func (m *lora) MergeRows(t Target, values Values, rounding Rounding) RowUpdate {
	s, product := float32(m.scale(t)), m.product(t, values)
	return RowUpdate{
		Delta:   func(first int, d []float32) { product.Rows(d, first, s) },
		Rounded: rounding == RoundSafe || rounding == RoundPEFT && t.Kind == Embedding,
	}
}

// product is the update without its scale, in the layout of the weight.
func (m *lora) product(t Target, values Values) *kernel.Product {
	left, right := m.stored(t, values)
	return kernel.NewProduct(left, right, t.Rank, len(right)/t.Rank)
}

// stored are the two factors of the update in the layout of the weight: B and A, or Aᵀ and Bᵀ.
func (m *lora) stored(t Target, values Values) (left, right []float32) {
	a, b := values["lora_A.weight"], values["lora_B.weight"]
	if a == nil {
		a, b = values["lora_embedding_A"], values["lora_embedding_B"]
	}
	if t.Kind.transposed() {
		return hostTranspose(a, t.Rank, t.In()), hostTranspose(b, t.Out(), t.Rank)
	}
	return b, a
}

// Exact is the update in float64.
func (m *lora) Exact(t Target, values Values) func(row int, w, d, bound []float64) {
	left, right := m.stored(t, values)
	scale := m.scale(t)
	return func(row int, _, d, bound []float64) {
		clear(d)
		clear(bound)
		for k, x := range left[row*t.Rank : (row+1)*t.Rank] {
			x := float64(x) * scale
			for j, y := range right[k*len(d) : (k+1)*len(d)] {
				term := x * float64(y)
				d[j] += term
				bound[j] += math.Abs(term) * float64(t.Rank+2)
			}
		}
	}
}

// Merge is MergeRows on all rows.
func (m *lora) Merge(t Target, values Values, w []float32, rounding Rounding, round func(float32) float32) {
	mergeAll(m, t, values, w, rounding, round)
}

func (m *lora) MergesBias() bool { return m.LoraBias }

func (m *lora) MergeBias(t Target, values Values, bias []float32) {
	s := float32(m.scale(t))
	for i, v := range values["lora_B.bias"] {
		bias[i] += float32(v * s)
	}
}
