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
	model   Model
	program *Program
	batch   int
}

// NewPredictor returns a predictor for batches of up to batch images. Engines that compile for long
// see that one batch size only; smaller batches are padded.
func NewPredictor(m Model, w *Weights, attach Attach, norm Normalization, batch int) (*Predictor, error) {
	program, err := NewProgram(m, w, attach, Predicting, func(p *Params, in []*graph.Node) []*graph.Node {
		return []*graph.Node{m.Forward(p, Normalise(in[0], norm.Mean, norm.Std))}
	})
	if err != nil {
		return nil, err
	}
	batch = (batch + w.devices - 1) / w.devices * w.devices
	return &Predictor{model: m, program: program, batch: batch}, nil
}

// Logits returns the logits of n images, n*labels values. pixels holds the images one after another,
// each height x width x 3 bytes.
func (p *Predictor) Logits(pixels []byte, n int) ([]float32, error) {
	h, w := p.model.InputSize()
	if len(pixels) != n*h*w*3 {
		return nil, fmt.Errorf("predicting %d images: %d bytes given, but the model takes images of %dx%d", n, len(pixels), w, h)
	}
	logits := make([]float32, 0, n*p.model.Labels())
	for lo := 0; lo < n; lo += p.batch {
		hi := min(lo+p.batch, n)
		out, err := p.program.Run(p.padded(hi-lo), nil, func(s Slice) ([]*tensors.Tensor, error) {
			t, err := Pixels(p.program.weights, pixels[min(lo+s.Lo, hi)*h*w*3:min(lo+s.Hi, hi)*h*w*3], s, h, w)
			return []*tensors.Tensor{t}, err
		})
		if err != nil {
			return nil, err
		}
		for _, o := range out {
			values, err := tensors.CopyFlatData[float32](o[0])
			o[0].MustFinalizeAll()
			if err != nil {
				return nil, fmt.Errorf("reading logits: %w", err)
			}
			logits = append(logits, values...)
		}
		logits = logits[:hi*p.model.Labels()] // less those of the padding
	}
	return logits, nil
}

func (p *Predictor) padded(n int) int {
	if p.program.Whole() {
		return p.batch
	}
	return n
}

// Close frees the compiled graph.
func (p *Predictor) Close() { p.program.Close() }

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
