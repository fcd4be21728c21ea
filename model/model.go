package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/format"
)

// Model is an architecture with its sizes.
type Model interface {
	// Type is the model_type of config.json.
	Type() string

	// Parameters lists all parameters by their canonical names, in network order.
	Parameters() []Parameter

	// Modules lists the modules that adapters can adapt, in network order: linear layers and
	// convolutions whose kernels do not overlap.
	Modules() []string

	// Head is the module that maps features to labels, and Labels their number.
	Head() string
	Labels() int

	// InputSize is the height and width of the images in pixels.
	InputSize() (height, width int)

	// Cost estimates the floating-point operations of one image's forward pass.
	Cost() float64

	// Features maps images [n, channels, height, width], normalised, to what the head takes, [n, Width],
	// and Classify that to logits [n, labels].
	Features(p *Params, images *graph.Node) *graph.Node
	Classify(p *Params, features *graph.Node) *graph.Node
	Width() int

	// Drops tells whether Features drops elements at random in training.
	Drops() bool
}

// Forward maps images [n, channels, height, width], normalised, to logits [n, labels].
func Forward(m Model, p *Params, images *graph.Node) *graph.Node {
	return m.Classify(p, m.Features(p, images))
}

// Parameter is one tensor of a model.
type Parameter struct {
	Name  string
	Shape []int
}

// Hook is how adapters take part in a model. All methods are called while a graph is built.
type Hook interface {
	// Tensor returns the node to use for a parameter instead of base, or base itself.
	Tensor(name string, base *graph.Node) *graph.Node

	// Linear returns the output of an adapted module for x [rows, in], weight w [out, in] and bias b
	// [out] or nil. It returns nil for a module that is not adapted.
	Linear(module string, x, w, b *graph.Node) *graph.Node
}

// architectures maps model_type to a constructor.
var architectures = map[string]func(cfg *format.ModelConfig, labels int) (Model, error){
	"vit": newViT,
}

// New returns the model that config.json describes, with a head for the given number of labels.
func New(cfg *format.ModelConfig, labels int) (Model, error) {
	construct := architectures[cfg.ModelType]
	if construct == nil {
		known := strings.Join(slices.Sorted(maps.Keys(architectures)), ", ")
		return nil, fmt.Errorf("building a model of type %q: %w: known types are %s", cfg.ModelType, format.ErrUnsupported, known)
	}
	if labels < 1 {
		return nil, fmt.Errorf("building a model of type %q: it needs at least one label, not %d", cfg.ModelType, labels)
	}
	return construct(cfg, labels)
}
