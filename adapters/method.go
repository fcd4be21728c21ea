package adapters

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// A Method is one family of adapters with its settings. Everything the rest of hubtool knows about
// LoRA or LoHa it knows through this interface and the optional ones below.
type Method interface {
	// Scale returns the rank and alpha of modules that no pattern names; alpha is 0 for a method
	// whose update has no scale.
	Scale() (rank int, alpha float64)

	// Settings are the fields that a new adapter_config.json should have beside the shared ones: a
	// pointer to a struct with json tags.
	Settings() any

	// Check refuses a target that the method cannot adapt; the error says why.
	Check(t Target) error

	// Params lists the tensors of one target, named as PEFT names them after the module.
	Params(t Target) []Param

	// Weight is the method's formula: the adapted weight for the base weight [out, in]. A
	// convolution's kernel counts as input.
	Weight(s Site, base *graph.Node) *graph.Node
}

// Forwarder is a method with a cheaper way to a module's output than through its weight, or
// one that acts on the input in training. x is [rows, in], y [rows, out] the base's output.
type Forwarder interface {
	Forward(s Site, x, y *graph.Node) *graph.Node
}

// Biaser is a method that changes the module's bias too. It is not called for modules without one.
type Biaser interface {
	Bias(s Site, base *graph.Node) *graph.Node
}

// Beginner is a method with parameters that begin as a function of each other or of the base. Begin is
// called after each Param's Init; base returns the base's weight [out, in].
type Beginner interface {
	Begin(rng *rand.Rand, t Target, base func() ([]float32, error), values Values) error
}

// BiasTrainer is a method that can train biases of the base: "none", "all" or "lora_only".
type BiasTrainer interface {
	TrainedBiases() string
}

// Merger merges on the host, in the order of operations that PEFT has, so that results are equal
// bit for bit. Methods without it cannot be merged.
type Merger interface {
	// Merge turns w, a base weight [out, in] widened to float32, into the adapted weight. round
	// narrows a value to the base's type and widens it again; it is applied to the update first
	// where rounding is [RoundSafe].
	Merge(t Target, values Values, w []float32, rounding Rounding, round func(float32) float32)
}

// BaseMerger is a [Merger] whose update depends on the weight of the base, which is no longer there
// when others have been merged into it.
type BaseMerger interface {
	Merger
	MergesOnBase()
}

// CoarseMerger is a [Merger] of whose targets PEFT rounds some parameters to the type of the base's
// weight when it loads them.
type CoarseMerger interface {
	Merger
	Coarse(t Target) bool
}

// BiasMerger is a [Merger] that may change the module's bias too.
type BiasMerger interface {
	MergesBias() bool
	MergeBias(t Target, values Values, bias []float32)
}

// Namer is a method with settings that name modules.
type Namer interface {
	// Named returns these settings, as Settings does, for a file in which paths are a target's full
	// names and entries its names in target_modules; nil entries mean that target_modules stays.
	Named(targets []Target, paths, entries func(Target) []string) any
}

// Exporter is a method that saves other tensors for a target than it trains. params are those of
// Params, and may be returned. both says that the file will hold every tensor under both generations
// of names.
type Exporter interface {
	Export(t Target, params []Parameter, both bool) []Parameter
}

// Allocator is a method that takes ranks from its targets while they are trained.
type Allocator interface {
	// Plan is told the number of optimizer steps before the first one. It returns what, beside the
	// parameters, later steps depend on; its values change in place.
	Plan(steps int, targets []Target) (state []Parameter, err error)

	// Allocate follows an optimizer step, the first of which is 1. It is given the parameters of each
	// target, which it may change, and the gradients that the step used.
	Allocate(step int, values, grads []Values)

	// Left is how many ranks a target has after that, of how many at first.
	Left(t Target) (left, of int)
}

// Penalizer is a method with a term that may be added to the loss: the mean over targets of Penalty,
// a scalar, where nil counts as zero.
type Penalizer interface {
	Penalty(s Site) *graph.Node
}

// Constant is a method with so many numbers per target that PEFT counts as parameters, but neither
// trains nor saves.
type Constant interface {
	Constants() int
}

// Creator is a method with settings that saved adapters may have, but new ones may not: those that
// would do nothing, and those that hubtool cannot begin with.
type Creator interface {
	Creates() error
}

// Loader is a method that checks settings which came from a file, and has remarks for the user.
type Loader interface {
	Loaded(targets []Target) (notes []string, err error)
}

// Target is a module to adapt.
type Target struct {
	Module
	Rank  int
	Alpha float64
	Names []string // all spellings of Name under which a config may mean it
}

// In is the number of inputs; a convolution's kernel counts.
func (t Target) In() int {
	in := 1
	for _, d := range t.Shape[1:] {
		in *= d
	}
	return in
}

// Out is the number of output features.
func (t Target) Out() int { return t.Shape[0] }

// Param is one tensor of a method on one target.
type Param struct {
	Name  string // as PEFT names it: "lora_A.weight", "hada_w1_a"
	Shape []int
	Init  Init
}

// refuseKinds is what Check returns for methods that cannot adapt some kinds of modules.
func refuseKinds(t Target, method string, kinds ...Kind) error {
	if slices.Contains(kinds, t.Kind) {
		return fmt.Errorf("%w: %s cannot adapt this module, as it is of the kind %q", ErrMethod, method, t.Kind)
	}
	return nil
}

// Init fills a new parameter.
type Init func(rng *rand.Rand, values []float32)

// Values are a target's parameters on the host, by Param.Name.
type Values map[string][]float32

// Site is a target inside one graph.
type Site struct {
	Target
	Params map[string]*graph.Node // by Param.Name; those without elements are missing

	// Base and BaseBias are the module's own weight [out, in], and bias [out] or nil.
	Base, BaseBias *graph.Node

	Tape *ops.Tape                                  // what operations know about the graph
	Drop func(x *graph.Node, p float64) *graph.Node // does nothing outside training
}

// Keep draws zeros with probability p and ones otherwise. It is nil where nothing is dropped:
// outside training or for p = 0. Where a batch is cut into slices, each draws its own.
func (s Site) Keep(p float64, dims ...int) *graph.Node {
	if !s.Tape.Training() || p == 0 {
		return nil
	}
	ones := graph.Ones(s.Base.Graph(), shapes.Make(dtypes.Float32, dims...))
	return graph.Sign(s.Drop(ones, p))
}

// ErrMethod is wrapped by errors about a method or setting that hubtool cannot do.
var ErrMethod = errors.New("method not supported")

// registration is a method in the table: its peft_type, its constructor, and the struct that the
// constructor decodes a config into, whose tags are the method's [Setting]s.
type registration struct {
	name   string
	make   func(cfg *format.AdapterConfig) (Method, error)
	fields any
}

var methods = []registration{
	{"LORA", newLoRA, lora{}},
	{"ADALORA", newAdaLoRA, adalora{}},
	{"LOHA", newLoHa, loha{}},
	{"LOKR", newLoKr, lokr{}},
	{"IA3", newIA3, ia3{}},
}

// Methods lists the values of peft_type that adapters can have here.
func Methods() []string {
	var names []string
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

// construct makes the method that a config names.
func construct(cfg *format.AdapterConfig) (Method, error) {
	for _, m := range methods {
		if m.name == cfg.PeftType {
			return m.make(cfg)
		}
	}
	if slices.Contains(OtherMethods, cfg.PeftType) {
		return nil, fmt.Errorf("%w: %s is a method of PEFT that hubtool has not: merge such an adapter with PEFT's merge_and_unload, "+
			"and train with one of %s", ErrMethod, cfg.PeftType, strings.Join(Methods(), ", "))
	}
	return nil, fmt.Errorf("%w: peft_type %q; known are %s", ErrMethod, cfg.PeftType, strings.Join(Methods(), ", "))
}

// OtherMethods are the values of peft_type that PEFT 0.21 has beside [Methods].
var OtherMethods = strings.Fields(`ADAMSS ADAPTION_PROMPT BEFT BOFT C3A CARTRIDGE CPT DEFT DELORA FOURIERFT FROD GLORA GRALORA
	HIRA HRA LILY LN_TUNING MISS MULTITASK_PROMPT_TUNING OFT OSF PEANUT POLY PREFIX_TUNING PROMPT_TUNING PSOFT PVERA
	P_TUNING RANDLORA ROAD SHADOW SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT XLORA`)

// Zeros leaves a parameter zero.
func Zeros(*rand.Rand, []float32) {}

// Ones sets a parameter to one.
func Ones(_ *rand.Rand, values []float32) {
	for i := range values {
		values[i] = 1
	}
}

// KaimingUniform is torch's default for linear layers: uniform within ±1/√fanIn.
func KaimingUniform(fanIn int) Init {
	bound := 1 / math.Sqrt(float64(fanIn))
	return func(rng *rand.Rand, values []float32) {
		for i := range values {
			values[i] = float32((2*rng.Float64() - 1) * bound)
		}
	}
}

// Normal draws from a normal distribution around zero.
func Normal(std float64) Init {
	return func(rng *rand.Rand, values []float32) {
		for i := range values {
			values[i] = float32(rng.NormFloat64() * std)
		}
	}
}
