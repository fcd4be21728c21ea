package train

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/model"
)

// differentiator computes the loss of batches and its gradients by the adapter's parameters.
type differentiator struct {
	weights       *model.Weights
	program       *model.Program
	params        []int // that it differentiates by: those with elements
	batch         int
	height, width int
}

func newDifferentiator(job Job) (*differentiator, error) {
	m, w, a, norm, batch := job.Model, job.Weights, job.Adapter, job.Norm, job.Config.PerDeviceTrainBatchSize
	attach, err := Attach(w, a)
	if err != nil {
		return nil, err
	}
	d := &differentiator{weights: w, batch: batch}
	var names []string
	for i, p := range a.Params() {
		if len(p.Values) > 0 {
			names, d.params = append(names, p.Name), append(d.params, i)
		}
	}
	d.height, d.width = m.InputSize()
	d.program, err = model.NewProgram(m, w, attach, true, func(p *model.Params, in []*graph.Node) []*graph.Node {
		pixels, labels, mask := in[0], in[1], in[2]
		logits := m.Forward(p, model.Normalise(pixels, norm.Mean, norm.Std))
		loss := graph.ReduceAllSum(graph.Mul(crossEntropy(logits, labels), mask))
		if job.Penalty {
			if penalty := a.Hook(p).Penalty(); penalty != nil {
				loss = graph.Add(loss, graph.Mul(penalty, graph.ReduceAllSum(mask))) // the mean over images has it once
			}
		}
		return append([]*graph.Node{loss}, p.Gradient(loss, names)...)
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// crossEntropy is -log softmax(logits)[label] for logits [n, labels] and labels [n].
func crossEntropy(logits, labels *graph.Node) *graph.Node {
	classes := logits.Shape().Dimensions[1]
	shifted := graph.Sub(logits, graph.StopGradient(graph.ReduceAndKeep(logits, graph.ReduceMax, -1)))
	picked := graph.ReduceSum(graph.Mul(shifted, graph.OneHot(labels, classes, dtypes.Float32)), 1)
	return graph.Sub(graph.Log(graph.ReduceSum(graph.Exp(shifted), 1)), picked)
}

// add adds the gradients of the sum of a batch's losses to grads and returns the sum. step seeds what
// is random in training.
func (d *differentiator) add(b *Batch, seed uint64, step int, grads [][]float32) (loss float64, err error) {
	n := len(b.Labels)
	total := n
	if d.program.Whole() {
		total = d.batch // one shape, one compilation; the mask takes the rest out
	}
	image := d.height * d.width * 3
	outputs, err := d.program.Run(total, func(lo, hi int) ([]*tensors.Tensor, error) {
		pixels, err := model.Pixels(d.weights, b.Pixels[lo*image:min(hi, n)*image], hi-lo, d.height, d.width)
		if err != nil {
			return nil, err
		}
		labels, mask := make([]int32, hi-lo), make([]float32, hi-lo)
		copy(labels, b.Labels[lo:min(hi, n)])
		for i := range min(hi, n) - lo {
			mask[i] = 1
		}
		rng, err := graph.RNGStateFromSeed(sliceSeed(seed, step, lo))
		if err != nil {
			return nil, err
		}
		return []*tensors.Tensor{pixels, tensors.FromFlatDataAndDimensions(labels, hi-lo), tensors.FromFlatDataAndDimensions(mask, hi-lo), rng}, nil
	})
	if err != nil {
		return 0, err
	}
	for _, out := range outputs { // in the order of slices, so that sums are the same on every machine
		loss += float64(tensors.ToScalar[float32](out[0]))
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

// sliceSeed makes the seed of one slice of one micro-batch.
func sliceSeed(seed uint64, step, lo int) int64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %d", seed, step, lo)
	return int64(h.Sum64())
}

func (d *differentiator) close() { d.program.Close() }

// decays tells whether weight decay applies to a parameter: not to biases and norms, as in Trainer.
func decays(name string) bool {
	return !strings.Contains(name, "bias") && !strings.Contains(name, "layernorm")
}
