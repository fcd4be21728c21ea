package model

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/hubtool/hubtool/model/ops"
)

// Params gives a model its parameters while a graph is built, with the adapters' say in them.
type Params struct {
	nodes map[string]*graph.Node
	hook  Hook
	tape  *ops.Tape
	rng   *graph.Node // state of the random numbers; nil outside training

	recomputing bool
}

// Node returns the node of a tensor of [Weights], without the hook's say in it.
func (p *Params) Node(name string) *graph.Node {
	n := p.nodes[name]
	if n == nil {
		exceptions.Panicf("the weights have no tensor %q", name)
	}
	return n
}

// Tensor returns a parameter, or what the hook uses instead.
func (p *Params) Tensor(name string) *graph.Node {
	if p.hook != nil {
		return p.hook.Tensor(name, p.nodes[name])
	}
	return p.Node(name)
}

// Linear applies a module to x [rows, in]: a linear layer, or a convolution to patches that do not
// overlap, where in counts channels and kernel.
func (p *Params) Linear(module string, x *graph.Node) *graph.Node {
	w := p.Tensor(module + ".weight")
	w = graph.Reshape(w, w.Shape().Dimensions[0], -1)
	var b *graph.Node
	if p.nodes[module+".bias"] != nil {
		b = p.Tensor(module + ".bias")
	}
	if p.hook != nil {
		if y := p.hook.Linear(module, x, w, b); y != nil {
			return y
		}
	}
	return ops.Linear(p.tape, x, w, b)
}

// LayerNorm applies a normalising module to the last axis of x.
func (p *Params) LayerNorm(module string, x *graph.Node, eps float64) *graph.Node {
	return ops.LayerNorm(p.tape, x, p.Tensor(module+".weight"), p.Tensor(module+".bias"), eps)
}

// Dropout drops elements of x with the given rate in training, and does nothing otherwise.
func (p *Params) Dropout(x *graph.Node, rate float64) *graph.Node {
	if p.rng == nil || rate == 0 {
		return x
	}
	p.rng, x = ops.Dropout(p.rng, x, rate)
	return x
}

// Layer marks x as the input of a layer. In a program for Recomputing, only these are kept for the
// backward pass. Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
func (p *Params) Layer(x *graph.Node) *graph.Node {
	if !p.recomputing {
		return ops.Residual(p.tape, x)
	}
	return x.Checkpoint()
}

// End marks the output of the last layer.
func (p *Params) End(x *graph.Node) *graph.Node {
	if !p.recomputing {
		return x
	}
	return x.StopCheckpoint()
}

// Tape is what operations know about the graph.
func (p *Params) Tape() *ops.Tape { return p.tape }

// Normalise turns images as bytes, [n, height, width, 3], into what models take: torchvision's
// ToTensor and Normalize, [n, 3, height, width] in float32.
func Normalise(images *graph.Node, mean, std [3]float32) *graph.Node {
	g := images.Graph()
	x := graph.ConvertDType(graph.TransposeAllAxes(images, 0, 3, 1, 2), dtypes.Float32)
	channel := func(v [3]float32) *graph.Node { return graph.Reshape(graph.Const(g, v[:]), 1, 3, 1, 1) }
	return graph.Div(graph.Sub(graph.DivScalar(x, 255), channel(mean)), channel(std))
}
