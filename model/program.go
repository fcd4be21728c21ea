package model

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// Attach makes the hook for one graph. A nil Attach leaves the model as it is.
type Attach func(p *Params) Hook

// Program is a graph over weights and the inputs of one batch.
//
// On the Go engine, whose element-wise operations use one core, a batch is cut into slices that run
// side by side; other engines take it whole. The cut depends on the model alone, not on the number
// of cores, so that sums over slices are the same on every machine.
//
// On several devices, each gets its part of every batch. The graph is one over the whole batch, which
// XLA divides: sums over the batch, gradients among them, are made on all devices together.
type Program struct {
	weights  *Weights
	names    []string
	exec     *graph.Exec
	slice    int // images per call; 0: all
	training bool
}

// Slice is a part of a batch, images [Lo, Hi), and the device that needs it.
type Slice struct {
	Lo, Hi int
	Device compute.DeviceNum
}

// Mode is what a program is for.
type Mode int

// Programs for Training can differentiate and drop at random. Those for Recomputing do, too, but keep
// of each layer only its input for the backward pass and compute the layer again there.
const (
	Predicting Mode = iota
	Training
	Recomputing
)

// Build makes the outputs of a program from the nodes of a batch.
type Build func(p *Params, batch []*graph.Node) []*graph.Node

// NewProgram prepares a program over all tensors that weights has now. The first axis of a batch's
// inputs counts its images.
func NewProgram(m Model, w *Weights, attach Attach, mode Mode, build Build) (*Program, error) {
	training := mode != Predicting
	if mode == Recomputing && ops.IsGo(w.backend) {
		return nil, fmt.Errorf("building the graph: computing layers again for their gradients: %w by the Go engine", format.ErrUnsupported)
	}
	p := &Program{weights: w, names: append([]string(nil), w.names...), training: training}
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
			params.rng, batch = batch[0], batch[1:]
		}
		if mode == Recomputing {
			params.recomputing = true
			params.tape.Plain()
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
	if w.devices > 1 {
		if err := p.divide(); err != nil {
			return nil, fmt.Errorf("dividing batches among %d devices: %w", w.devices, err)
		}
	}
	return p, nil
}

// divide has the weights and the random numbers on all devices, a part of the batch on each, and the
// outputs on all.
func (p *Program) divide() error {
	mesh, err := distributed.NewDeviceMesh([]int{p.weights.devices}, []string{"batch"})
	if err != nil {
		return err
	}
	everywhere := distributed.NewReplicatedShardingSpec(mesh)
	part, err := distributed.BuildSpec(mesh).S("batch").Done()
	if err != nil {
		return err
	}
	var inputs []*distributed.ShardingSpec
	for range p.names {
		inputs = append(inputs, everywhere)
	}
	if p.training {
		inputs = append(inputs, everywhere)
	}
	// The last of the specifications is that of all further inputs, or outputs.
	p.exec.AutoSharding(mesh).WithInputShardingSpecs(append(inputs, part)...).WithOutputShardingSpecs(everywhere)
	return nil
}

// sliceSize keeps a slice's work near 10 GFLOP, which is large beside the cost of a call and small
// beside memory, and within 1 to 16 images.
func sliceSize(m Model) int { return min(16, max(4, int(10e9/m.Cost()))) }

// slices cuts a batch of n: the first is [0, s), the next [s, 2s).
func (p *Program) slices(n int) []Slice {
	size := p.slice
	if size == 0 {
		size = n
	}
	var all []Slice
	for lo := 0; lo < n; lo += size {
		all = append(all, Slice{Lo: lo, Hi: min(lo+size, n)})
	}
	return all
}

// Cut lists the parts of a batch of n that [Inputs] is asked for, one by one.
func (p *Program) Cut(n int) []Slice {
	var all []Slice
	for _, s := range p.slices(n) {
		all = append(all, p.parts(s)...)
	}
	return all
}

// parts divides a slice among the devices.
func (p *Program) parts(s Slice) []Slice {
	devices := p.weights.devices
	each := (s.Hi - s.Lo) / devices
	parts := make([]Slice, devices)
	for device := range parts {
		lo := s.Lo + device*each
		parts[device] = Slice{Lo: lo, Hi: lo + each, Device: compute.DeviceNum(device)}
	}
	return parts
}

// Inputs makes the inputs for a slice of a batch. The program frees them.
type Inputs func(Slice) ([]*tensors.Tensor, error)

// Run calls the program on every slice of a batch of n and returns the outputs in the order of the
// slices. seed, which only training has, gives the seed of the slice that starts with image lo. n must be a
// multiple of the number of devices.
func (p *Program) Run(n int, seed func(lo int) int64, input Inputs) ([][]*tensors.Tensor, error) {
	slices := p.slices(n)
	outputs := make([][]*tensors.Tensor, len(slices))
	errs := make([]error, len(slices))
	var wg sync.WaitGroup
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, s := range slices {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			outputs[i], errs[i] = p.call(s, seed, input)
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

// call is one execution, on all devices.
func (p *Program) call(s Slice, seed func(lo int) int64, input Inputs) ([]*tensors.Tensor, error) {
	var args []any
	var batch []*tensors.Tensor
	defer func() {
		for _, t := range batch {
			t.MustFinalizeAll()
		}
	}()
	devices := p.weights.devices
	if (s.Hi-s.Lo)%devices != 0 {
		return nil, fmt.Errorf("running the graph: %d images cannot be divided among %d devices", s.Hi-s.Lo, devices)
	}
	for device, part := range p.parts(s) {
		for _, name := range p.names {
			args = append(args, p.weights.tensors[name].copies[device])
		}
		var own []*tensors.Tensor
		if p.training {
			rng, err := graph.RNGStateFromSeed(seed(s.Lo))
			if err != nil {
				return nil, err
			}
			own = append(own, rng)
		}
		in, err := input(part)
		own = append(own, in...)
		batch = append(batch, own...)
		if err != nil {
			return nil, err
		}
		for _, t := range own {
			args = append(args, t)
		}
	}
	out, err := p.exec.Call(args...)
	if err != nil {
		return nil, fmt.Errorf("running the graph: %w", err)
	}
	for _, same := range out[len(out)/devices:] {
		same.MustFinalizeAll()
	}
	return out[:len(out)/devices], nil
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
