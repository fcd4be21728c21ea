package ops

import (
	"sync"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Tape is what operations know about the graph that they are built into: the type in which its
// products are computed, and, while it is one for training, which nodes have gradients of their own.
// A nil Tape is that of a graph for prediction in float32.
//
// Operations take float32 and return float32 whatever the type of products: their factors are
// rounded, and their sums are kept in float32 where the engine can. So normalisations, softmax,
// residual sums and losses are in float32, as with torch's autocast.
//
// GoMLX finds a node's gradient by its type in [graph.VJPRegistration]. For the types that this
// package makes, the entry asks the tape of the node's graph first. Entries exist only inside
// [Tape.Gradient], so no graph outlives its use here.
type Tape struct {
	products  dtypes.DType
	training  bool
	gradients map[*graph.Node]func(v *graph.Node) []*graph.Node // nil: all are GoMLX's
}

// NewTape returns an empty tape for one graph for training, with products in float32.
func NewTape() *Tape { return NewTapeIn(dtypes.Float32, true) }

// NewTapeIn returns an empty tape for one graph with products in a type.
func NewTapeIn(products dtypes.DType, training bool) *Tape {
	t := &Tape{products: products, training: training}
	if training {
		t.gradients = map[*graph.Node]func(*graph.Node) []*graph.Node{}
	}
	return t
}

// Training tells whether the graph is one for training.
func (t *Tape) Training() bool { return t != nil && t.training }

// Plain leaves all gradients to GoMLX. Where parts of the graph are computed again for the backward
// pass, their nodes are others than those that have gradients of their own here.
func (t *Tape) Plain() { t.gradients = nil }

// narrow converts a factor to the type of products, and wide the outcome back.
func (t *Tape) narrow(x *graph.Node) *graph.Node {
	if t == nil {
		return x
	}
	return graph.ConvertDType(x, t.products)
}

func wide(x *graph.Node) *graph.Node { return graph.ConvertDType(x, dtypes.Float32) }

// gradient gives n a gradient: from v, the gradient of the loss by n, to those by n's inputs.
func (t *Tape) gradient(n *graph.Node, fn func(v *graph.Node) []*graph.Node) *graph.Node {
	if t != nil && t.gradients != nil {
		t.gradients[n] = fn
	}
	return n
}

// Gradient returns the gradients of loss by each of the nodes in wrt, in their order.
func (t *Tape) Gradient(loss *graph.Node, wrt ...*graph.Node) []*graph.Node {
	if t == nil {
		return graph.Gradient(loss, wrt...)
	}
	active.Store(loss.Graph(), t)
	defer active.Delete(loss.Graph())
	return graph.Gradient(loss, wrt...)
}

var active sync.Map // *graph.Graph → *Tape

func init() {
	for _, kind := range []graph.NodeType{graph.NodeTypeDotGeneral, graph.NodeTypeMul, graph.NodeTypeExp, graph.NodeTypeSchedulingBarrier,
		graph.NodeTypeFusedGelu, graph.NodeTypeFusedSoftmax, graph.NodeTypeFusedLayerNorm} {
		original := graph.VJPRegistration[kind]
		graph.VJPRegistration[kind] = func(n *graph.Node, vs []*graph.Node, shape shapes.Shape) []*graph.Node {
			if t, ok := active.Load(n.Graph()); ok {
				if fn := t.(*Tape).gradients[n]; fn != nil {
					return fn(vs[0])
				}
			}
			if original == nil {
				exceptions.Panicf("no gradient is known for %s", n)
			}
			return original(n, vs, shape)
		}
	}
}
