package model

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Normalization is how bytes become what a model was trained on: (x/255 - mean) / std per channel.
type Normalization struct{ Mean, Std [3]float32 }

// Predictor computes logits of images.
type Predictor struct {
	batches
	model Model
}

// batches runs a program on batches of one size, and puts together what it makes: width values of
// each image.
type batches struct {
	program     *Program
	size, width int
}

func newBatches(w *Weights, program *Program, size, width int) batches {
	return batches{program, (size + w.devices - 1) / w.devices * w.devices, width}
}

// NewPredictor returns a predictor for batches of up to batch images. Engines that compile for long
// see that one batch size only; smaller batches are padded.
func NewPredictor(m Model, w *Weights, attach Attach, norm Normalization, batch int) (*Predictor, error) {
	program, err := NewProgram(m, w, attach, Predicting, func(p *Params, in []*graph.Node) []*graph.Node {
		return []*graph.Node{Forward(m, p, Normalise(in[0], norm.Mean, norm.Std))}
	})
	if err != nil {
		return nil, err
	}
	return &Predictor{newBatches(w, program, batch, m.Labels()), m}, nil
}

// Logits returns the logits of n images, n*labels values. pixels holds the images one after another,
// each height x width x 3 bytes.
func (p *Predictor) Logits(pixels []byte, n int) ([]float32, error) {
	return p.ofPixels("predicting", p.model, pixels, n)
}

// ofPixels runs a program over images.
func (b *batches) ofPixels(doing string, m Model, pixels []byte, n int) ([]float32, error) {
	h, w := m.InputSize()
	if len(pixels) != n*h*w*3 {
		return nil, fmt.Errorf("%s %d images: %d bytes given, but the model takes images of %dx%d", doing, n, len(pixels), w, h)
	}
	return b.run(n, func(s Slice, hi int) (*tensors.Tensor, error) {
		return Pixels(b.program.weights, pixels[min(s.Lo, hi)*h*w*3:min(s.Hi, hi)*h*w*3], s, h, w)
	})
}

// run calls input for slices of all n images; those from hi on are padding.
func (b *batches) run(n int, input func(s Slice, hi int) (*tensors.Tensor, error)) ([]float32, error) {
	values := make([]float32, 0, n*b.width)
	seed := func(int) int64 { return 0 } // nothing is random here, even in a program for training
	for lo := 0; lo < n; lo += b.size {
		hi := min(lo+b.size, n)
		out, err := b.program.Run(b.padded(hi-lo), seed, func(s Slice) ([]*tensors.Tensor, error) {
			t, err := input(Slice{lo + s.Lo, lo + s.Hi, s.Device}, hi)
			return []*tensors.Tensor{t}, err
		})
		if err != nil {
			return nil, err
		}
		for _, o := range out {
			own, err := tensors.CopyFlatData[float32](o[0])
			o[0].MustFinalizeAll()
			if err != nil {
				return nil, fmt.Errorf("reading what was computed: %w", err)
			}
			values = append(values, own...)
		}
		values = values[:hi*b.width] // less those of the padding
	}
	return values, nil
}

func (b *batches) padded(n int) int {
	if b.program.Whole() {
		return b.size
	}
	return n
}

// Close frees the compiled graph.
func (b *batches) Close() { b.program.Close() }

// Pixels moves the images of a slice to the engine: [n, height, width, 3]. Where pixels holds fewer,
// zeros follow.
func Pixels(w *Weights, pixels []byte, s Slice, height, width int) (*tensors.Tensor, error) {
	n := s.Hi - s.Lo
	if size := n * height * width * 3; len(pixels) < size {
		pixels = append(make([]byte, 0, size), pixels...)[:size]
	}
	t, err := tensors.FromRaw(w.backend, s.Device, shapes.Make(dtypes.Uint8, n, height, width, 3), pixels)
	if err != nil {
		return nil, fmt.Errorf("moving %d images to the engine: %w", n, err)
	}
	return t, nil
}
