package ops

import (
	"sync"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Tape remembers, while a training graph is built, which nodes have gradients of their own. A nil
// Tape, as prediction uses, remembers nothing.
//
// GoMLX finds a node's gradient by its type in [graph.VJPRegistration]. For the types that this
// package makes, the entry asks the tape of the node's graph first. Entries exist only inside
// [Tape.Gradient], so no graph outlives its use here.
type Tape struct {
	gradients map[*graph.Node]func(v *graph.Node) []*graph.Node
}

// NewTape returns an empty tape for one graph.
func NewTape() *Tape {
	return &Tape{gradients: map[*graph.Node]func(*graph.Node) []*graph.Node{}}
}

// gradient gives n a gradient: from v, the gradient of the loss by n, to those by n's inputs.
func (t *Tape) gradient(n *graph.Node, fn func(v *graph.Node) []*graph.Node) *graph.Node {
	if t != nil {
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
	for _, kind := range []graph.NodeType{graph.NodeTypeDotGeneral, graph.NodeTypeMul, graph.NodeTypeSchedulingBarrier,
		graph.NodeTypeFusedSoftmax, graph.NodeTypeFusedLayerNorm} {
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
