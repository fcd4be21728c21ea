package model

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/model/ops"
)

// Attach makes the hook for one graph. A nil Attach leaves the model as it is.
type Attach func(p *Params) Hook

// Program is a graph over weights and the inputs of one batch.
//
// On the Go engine, whose element-wise operations use one core, a batch is cut into slices that run
// side by side; other engines take it whole. The cut depends on the model alone, not on the number
// of cores, so that sums over slices are the same on every machine.
type Program struct {
	weights *Weights
	names   []string
	exec    *graph.Exec
	slice   int // images per call; 0: all
}

// Build makes the outputs of a program from the nodes of a batch.
type Build func(p *Params, batch []*graph.Node) []*graph.Node

// NewProgram prepares a program over all tensors that weights has now. A training program's last
// batch input is the state of the random numbers; its Params can differentiate.
func NewProgram(m Model, w *Weights, attach Attach, training bool, build Build) (*Program, error) {
	p := &Program{weights: w, names: append([]string(nil), w.names...)}
	if ops.IsGo(w.backend) {
		p.slice = sliceSize(m)
	}
	exec, err := graph.NewExec(w.backend, func(in []*graph.Node) []*graph.Node {
		params := &Params{nodes: map[string]*graph.Node{}}
		for i, name := range p.names {
			params.nodes[name] = in[i]
		}
		batch := in[len(p.names):]
		params.tape = ops.NewTapeIn(w.products(), training)
		if training {
			params.rng = batch[len(batch)-1]
			batch = batch[:len(batch)-1]
		}
		if attach != nil {
			params.hook = attach(params)
		}
		return build(params, batch)
	})
	if err != nil {
		return nil, fmt.Errorf("building the graph: %w", err)
	}
	p.exec = exec
	return p, nil
}

// sliceSize keeps a slice's work near 10 GFLOP, which is large beside the cost of a call and small
// beside memory, and within 1 to 16 images.
func sliceSize(m Model) int { return min(16, max(4, int(10e9/m.Cost()))) }

// Slices returns the bounds of the slices of a batch of n: the first is [0, s), the next [s, 2s).
func (p *Program) Slices(n int) [][2]int {
	size := p.slice
	if size == 0 {
		size = n
	}
	var all [][2]int
	for lo := 0; lo < n; lo += size {
		all = append(all, [2]int{lo, min(lo+size, n)})
	}
	return all
}

// Run calls the program on every slice of a batch of n and returns the outputs in the order of the
// slices. input makes the inputs for images [lo, hi); Run frees them.
func (p *Program) Run(n int, input func(lo, hi int) ([]*tensors.Tensor, error)) ([][]*tensors.Tensor, error) {
	slices := p.Slices(n)
	outputs := make([][]*tensors.Tensor, len(slices))
	errs := make([]error, len(slices))
	var wg sync.WaitGroup
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, s := range slices {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			outputs[i], errs[i] = p.call(func() ([]*tensors.Tensor, error) { return input(s[0], s[1]) })
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

func (p *Program) call(input func() ([]*tensors.Tensor, error)) ([]*tensors.Tensor, error) {
	batch, err := input()
	if err != nil {
		return nil, err
	}
	args := make([]any, 0, len(p.names)+len(batch))
	for _, name := range p.names {
		args = append(args, p.weights.tensors[name])
	}
	for _, t := range batch {
		args = append(args, t)
	}
	out, err := p.exec.Call(args...)
	for _, t := range batch {
		t.MustFinalizeAll()
	}
	if err != nil {
		return nil, fmt.Errorf("running the graph: %w", err)
	}
	return out, nil
}

// Gradient returns the gradients of loss by the named tensors of the weights.
func (p *Params) Gradient(loss *graph.Node, names []string) []*graph.Node {
	wrt := make([]*graph.Node, len(names))
	for i, name := range names {
		wrt[i] = p.Node(name)
	}
	return p.tape.Gradient(loss, wrt...)
}

// Close frees the compiled graphs.
func (p *Program) Close() { p.exec.Finalize() }

// Whole tells whether a batch is not cut. Such engines compile for long: callers pad batches to one
// size.
func (p *Program) Whole() bool { return p.slice == 0 }
