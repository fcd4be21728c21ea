package train

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/model"
)

// differentiator computes the loss of batches and its gradients by the adapter's parameters.
type differentiator struct {
	weights      *model.Weights
	program      *model.Program
	params       []int // that it differentiates by: those with elements
	batch        int
	height, wide int
	width        int // of features
	classes      int
	smoothing    float64

	reading sync.WaitGroup // of gradients; what follows is its result
	sum     float64
	err     error
}

// newDifferentiator takes features instead of pixels where the backbone is frozen.
func newDifferentiator(job Job, frozen bool) (*differentiator, error) {
	m, w, a, norm, batch := job.Model, job.Weights, job.Adapter, job.Norm, job.Config.TrainBatch()
	attach, err := Attach(w, a)
	if err != nil {
		return nil, err
	}
	d := &differentiator{weights: w, batch: batch, classes: len(job.Labels), width: m.Width(), smoothing: job.Config.LabelSmoothingFactor}
	var names []string
	for i, p := range a.Params() {
		if len(p.Values) > 0 {
			names, d.params = append(names, p.Name), append(d.params, i)
		}
	}
	d.height, d.wide = m.InputSize()
	mode := model.Training
	if job.Config.GradientCheckpointing {
		mode = model.Recomputing
	}
	d.program, err = model.NewProgram(m, w, attach, mode, func(p *model.Params, in []*graph.Node) []*graph.Node {
		x, targets, share := in[0], in[1], in[2]
		if !frozen {
			x = m.Features(p, model.Normalise(x, norm.Mean, norm.Std))
		}
		logits := m.Classify(p, x)
		loss := graph.ReduceAllSum(graph.Mul(crossEntropy(logits, targets), share))
		if job.Penalty {
			if penalty := a.Hook(p).Penalty(); penalty != nil {
				loss = graph.Add(loss, graph.Mul(penalty, graph.ReduceAllSum(share))) // the mean over images has it once
			}
		}
		return append([]*graph.Node{loss}, p.Gradient(loss, names)...)
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// crossEntropy is -sum(targets * log softmax(logits)) of each image, for logits [n, classes] and
// targets [n, classes] that sum to 1: [n].
func crossEntropy(logits, targets *graph.Node) *graph.Node {
	shifted := graph.Sub(logits, graph.StopGradient(graph.ReduceAndKeep(logits, graph.ReduceMax, -1)))
	wanted := graph.ReduceSum(graph.Mul(shifted, targets), 1)
	return graph.Sub(graph.Log(graph.ReduceSum(graph.Exp(shifted), 1)), wanted)
}

// moved is a batch whose images are with the engine. The rest of it, which is small, follows when the
// batch's turn comes.
type moved struct {
	Batch
	images map[int]*tensors.Tensor // by the first image of the slice; those that a program has are not here
}

// size is how many images a program takes of a batch, those of the padding included: one shape, one
// compilation; the mask takes the padding out.
func (d *differentiator) size(n int) int {
	if d.program.Whole() {
		return d.batch
	}
	return n
}

// move brings a batch to the engine, and keeps nothing of the batch's own memory.
func (d *differentiator) move(b *Batch) (*moved, error) {
	m := &moved{*b, map[int]*tensors.Tensor{}}
	m.Pixels, m.Features = nil, nil
	m.Labels, m.Mask = slices.Clone(b.Labels), slices.Clone(b.Mask)
	for _, s := range d.program.Cut(d.size(b.N)) {
		images, err := d.images(b, s)
		if err != nil {
			m.free()
			return nil, err
		}
		m.images[s.Lo] = images
	}
	return m, nil
}

// take gives a slice's images away.
func (m *moved) take(lo int) *tensors.Tensor {
	images := m.images[lo]
	delete(m.images, lo)
	return images
}

// free frees what was moved and is not used.
func (m *moved) free() {
	for _, images := range m.images {
		images.MustFinalizeAll()
	}
}

// add adds the gradients of the sum of a batch's losses, times a factor, to grads, and the sum to what
// [differentiator.loss] returns. It ends when the engine has computed them; they are read, which takes
// the engine as little as the sums, while it may compute those of the next batch. step seeds what is
// random in training.
func (d *differentiator) add(m *moved, seed uint64, step int, factor float64, grads [][]float32) error {
	defer m.free()
	var taking sync.Mutex
	seeds := func(lo int) int64 { return sliceSeed(seed, step, lo) }
	outputs, err := d.program.Run(d.size(m.N), seeds, func(s model.Slice) ([]*tensors.Tensor, error) {
		taking.Lock()
		images := m.take(s.Lo)
		taking.Unlock()
		n := s.Hi - s.Lo
		targets, shares := make([]float32, n*d.classes), make([]float32, n)
		for i := range n { // of the padding as well, whose share is 0
			m.target(s.Lo+i, d.smoothing, targets[i*d.classes:(i+1)*d.classes])
			shares[i] = m.Mask[s.Lo+i] * float32(factor)
		}
		return []*tensors.Tensor{images, tensors.FromFlatDataAndDimensions(targets, n, d.classes), tensors.FromFlatDataAndDimensions(shares, n)}, nil
	})
	if err != nil {
		return err
	}
	d.reading.Wait() // one batch after the other, so that sums are the same on every machine
	d.reading.Go(func() {
		loss, err := d.read(outputs, factor, grads)
		d.sum, d.err = d.sum+loss, errors.Join(d.err, err)
	})
	return nil
}

// read adds what the engine computed of a batch to grads, in the order of slices, and returns the loss.
func (d *differentiator) read(outputs [][]*tensors.Tensor, factor float64, grads [][]float32) (loss float64, err error) {
	for _, out := range outputs {
		loss += float64(tensors.ToScalar[float32](out[0])) / factor
		for i, t := range out[1:] {
			err := tensors.ConstFlatData(t, func(values []float32) {
				for j, v := range values {
					grads[d.params[i]][j] += v
				}
			})
			if err != nil {
				return 0, fmt.Errorf("reading gradients: %w", err)
			}
		}
		for _, t := range out {
			t.MustFinalizeAll()
		}
	}
	return loss, nil
}

// loss returns the sum of the losses since it was asked last, when all their gradients are read.
func (d *differentiator) loss() (float64, error) {
	d.reading.Wait()
	loss, err := d.sum, d.err
	d.sum, d.err = 0, nil
	return loss, err
}

// images moves a slice of a batch to the engine, pixels or features.
func (d *differentiator) images(b *Batch, s model.Slice) (*tensors.Tensor, error) {
	if b.Features != nil {
		return model.Features(d.weights, b.Features[s.Lo*d.width:s.Hi*d.width], s, d.width)
	}
	image := d.height * d.wide * 3
	return model.Pixels(d.weights, b.Pixels[s.Lo*image:s.Hi*image], s, d.height, d.wide)
}

// sliceSeed makes the seed of one slice of one micro-batch.
func sliceSeed(seed uint64, step, lo int) int64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %d", seed, step, lo)
	return int64(h.Sum64())
}

func (d *differentiator) close() {
	d.reading.Wait()
	d.program.Close()
}
