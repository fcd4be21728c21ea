// Package goldentest reads for tests what Python made of tiny models, below testdata/golden, and
// compares numbers with it.
package goldentest

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
)

// Open opens a base until the test ends.
func Open(t testing.TB, dir string) (*format.Checkpoint, *format.ModelConfig) {
	t.Helper()
	ck, err := format.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ck, cfg
}

// Load makes the model of a base with so many labels and moves its weights to an engine. A base that has
// no head gets a new one.
func Load(t testing.TB, e *engine.Engine, ck *format.Checkpoint, cfg *format.ModelConfig, labels int) (model.Model, *model.Weights) {
	t.Helper()
	m, err := model.New(cfg, labels)
	if err != nil {
		t.Fatal(err)
	}
	w, _, err := model.Load(e.Backend, ck, m, model.LoadOptions{NewHead: true})
	if err != nil {
		t.Fatal(err)
	}
	return m, w
}

// tensor gives read a tensor of a safetensors file.
func tensor(t testing.TB, path, name string, read func(format.Tensor) error) {
	t.Helper()
	ck, err := format.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	found, ok := ck.Tensor(name)
	if !ok {
		t.Fatalf("%s has no %q", path, name)
	}
	if err := read(found); err != nil {
		t.Fatal(err)
	}
}

// Floats reads a tensor of a safetensors file as numbers.
func Floats(t testing.TB, path, name string) (shape []int, values []float32) {
	t.Helper()
	tensor(t, path, name, func(found format.Tensor) (err error) {
		shape = found.Info().Shape
		values, err = format.Floats(found)
		return err
	})
	return shape, values
}

// Bytes reads a tensor of a safetensors file as it is stored.
func Bytes(t testing.TB, path, name string) (shape []int, raw []byte) {
	t.Helper()
	tensor(t, path, name, func(found format.Tensor) (err error) {
		shape = found.Info().Shape
		raw, err = found.Bytes()
		return err
	})
	return shape, raw
}

// Logits are those of the pixel_values in a safetensors file.
func Logits(t testing.TB, m model.Model, w *model.Weights, attach model.Attach, batch string) []float32 {
	t.Helper()
	program, err := model.NewProgram(m, w, attach, model.Predicting, func(p *model.Params, in []*graph.Node) []*graph.Node {
		return []*graph.Node{model.Forward(m, p, in[0])}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	shape, pixels := Floats(t, batch, "pixel_values")
	image := len(pixels) / shape[0]
	out, err := program.Run(shape[0], nil, func(s model.Slice) ([]*tensors.Tensor, error) {
		return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(pixels[s.Lo*image:s.Hi*image], s.Hi-s.Lo, shape[1], shape[2], shape[3])}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](out[0][0])
}

// Near fails where two lists of numbers differ by more than delta.
func Near(t testing.TB, got, want []float32, delta float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(float64(got[i]-want[i])) <= delta) {
			t.Errorf("value %d is %v, want %v", i, got[i], want[i])
		}
	}
}
