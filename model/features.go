package model

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Extractor computes what the head takes of images.
type Extractor struct {
	batches
	model Model
}

// NewExtractor is [NewPredictor] for features. In the mode Training they are computed by the formulas
// of training, which round differently; the model must not drop then.
func NewExtractor(m Model, w *Weights, attach Attach, norm Normalization, batch int, mode Mode) (*Extractor, error) {
	program, err := NewProgram(m, w, attach, mode, func(p *Params, in []*graph.Node) []*graph.Node {
		return []*graph.Node{m.Features(p, Normalise(in[0], norm.Mean, norm.Std))}
	})
	if err != nil {
		return nil, err
	}
	return &Extractor{newBatches(w, program, batch, m.Width()), m}, nil
}

// Features returns the features of n images, n*width values, for pixels as [Predictor.Logits] takes them.
func (x *Extractor) Features(pixels []byte, n int) ([]float32, error) {
	return x.ofPixels("computing features of", x.model, pixels, n)
}

// HeadPredictor computes logits of features.
type HeadPredictor struct {
	batches
	model Model
}

// NewHeadPredictor is [NewPredictor] for what an [Extractor] made of images.
func NewHeadPredictor(m Model, w *Weights, attach Attach, batch int) (*HeadPredictor, error) {
	program, err := NewProgram(m, w, attach, Predicting, func(p *Params, in []*graph.Node) []*graph.Node {
		return []*graph.Node{m.Classify(p, in[0])}
	})
	if err != nil {
		return nil, err
	}
	return &HeadPredictor{newBatches(w, program, batch, m.Labels()), m}, nil
}

// Logits returns the logits of n images, n*labels values.
func (p *HeadPredictor) Logits(features []float32, n int) ([]float32, error) {
	width := p.model.Width()
	if len(features) != n*width {
		return nil, fmt.Errorf("predicting %d images: %d features given, but the head takes %d of each", n, len(features), width)
	}
	return p.run(n, func(s Slice, hi int) (*tensors.Tensor, error) {
		return Features(p.program.weights, features[min(s.Lo, hi)*width:min(s.Hi, hi)*width], s, width)
	})
}

// Features moves the features of a slice to the engine: [n, width]. Where values holds fewer, zeros
// follow.
func Features(w *Weights, values []float32, s Slice, width int) (*tensors.Tensor, error) {
	n := s.Hi - s.Lo
	padded := make([]float32, n*width)
	copy(padded, values)
	t, err := tensors.FromRaw(w.backend, s.Device, shapes.Make(dtypes.Float32, n, width), bytesOf(padded))
	if err != nil {
		return nil, fmt.Errorf("moving features of %d images to the engine: %w", n, err)
	}
	return t, nil
}
