package adapters

import (
	"fmt"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// Kind is what a module computes, as far as methods care.
type Kind int

// The kinds of modules.
const (
	Linear Kind = iota
	Convolution
	Transposed // a linear layer stored [in, out]: transformers' Conv1D
	Embedding  // stored [in, out], where inputs are the words of the vocabulary
)

// String names the kind for messages.
func (k Kind) String() string {
	return [...]string{"linear layer", "convolution", "transposed linear layer", "embedding"}[k]
}

// transposed tells whether the weight is stored as [in, out].
func (k Kind) transposed() bool { return k == Transposed || k == Embedding }

// Module is a module of a base model that could be adapted.
type Module struct {
	Name  string // canonical, as in "vit.encoder.layer.0.attention.attention.query"
	Kind  Kind
	Shape []int // [out, in], also where the weight is stored transposed, or [out, in, height, width]
	Bias  bool
}

// Base is what adapters know of the model they adapt. Names are canonical.
type Base struct {
	ModelType  string
	Modules    []Module
	Parameters []Parameter // all tensors, in network order

	// Values returns the elements of a parameter: what training it starts from.
	Values func(name string) ([]float32, error)

	tied          map[string]string // parameters that a checkpoint leaves out, and whose they are
	added, absent string            // prefix that adapters' names have more, or less, than the checkpoint's
}

// Parameter is a named tensor of a base, or one of an adapter with its elements.
type Parameter struct {
	Name   string
	Shape  []int
	Values []float32
}

// canonical is the name by which adapters know a tensor of the checkpoint.
func (b Base) canonical(name string) string {
	return b.added + strings.TrimPrefix(format.Canonical(b.ModelType, name), b.absent)
}

// spellings are all names that a module or parameter has in one of the generations of transformers.
func (b Base) spellings(name string) []string { return format.Spellings(b.ModelType, name) }

// module returns the module of the name.
func (b Base) module(name string) (Module, bool) {
	for _, m := range b.Modules {
		if m.Name == name {
			return m, true
		}
	}
	return Module{}, false
}

// nearest is the tail of a message about a name that is not the base's: the module most like it.
func (b Base) nearest(name string) string {
	name = strings.TrimPrefix(name, keyPrefix)
	best, score := "", 0
	for _, m := range b.Modules {
		same := 0
		for same < min(len(name), len(m.Name)) && name[same] == m.Name[same] {
			same++
		}
		if same > score {
			best, score = m.Name, same
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (the nearest module is %s)", best)
}
