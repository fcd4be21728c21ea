package model

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// Precision is the type in which programs compute their products, those of layers and of attention.
// All else, and what adapters train, is in float32, as with torch's autocast.
type Precision string

// The precisions. Float16 has few exponents: training in it scales the loss.
const (
	Float32  Precision = "float32"
	Float16  Precision = "float16"
	BFloat16 Precision = "bfloat16"
)

// halves are the types of those that are not float32: of nodes, and of what is stored.
var halves = map[Precision]struct {
	node   dtypes.DType
	stored format.DType
}{
	Float16:  {dtypes.Float16, format.F16},
	BFloat16: {dtypes.BFloat16, format.BF16},
}

// SetPrecision decides the precision of programs over these weights that are made from now on. The
// default is Float32, which is also the only one of the Go engine: half precision is several hundred
// times slower there.
func (w *Weights) SetPrecision(p Precision) error {
	_, half := halves[p]
	switch {
	case !half && p != Float32:
		return fmt.Errorf("computing in %q: must be %s, %s or %s", p, Float32, Float16, BFloat16)
	case half && ops.IsGo(w.backend):
		return fmt.Errorf("computing in %s: %w: the Go engine computes in float32", p, format.ErrUnsupported)
	}
	w.precision = p
	return nil
}

// Precision is that of programs over the weights.
func (w *Weights) Precision() Precision { return w.precision }

// products is the type of nodes in the weights' precision.
func (w *Weights) products() dtypes.DType {
	if half, ok := halves[w.precision]; ok {
		return half.node
	}
	return dtypes.Float32
}

// Narrow keeps tensors in the weights' precision from now on, in half of the memory. It changes no
// result where a tensor is only a factor of products.
func (w *Weights) Narrow(names ...string) error {
	half, ok := halves[w.precision]
	if !ok {
		return nil
	}
	for _, name := range names {
		t := w.tensors[name]
		if t == nil || t.copies[0].DType() == half.node {
			continue
		}
		values, err := w.Values(name)
		if err != nil {
			return err
		}
		raw, err := format.Narrow(half.stored, values)
		if err != nil {
			return fmt.Errorf("narrowing tensor %q: %w", name, err)
		}
		if err := w.setRaw(name, shapes.Make(half.node, t.copies[0].Shape().Dimensions...), raw); err != nil {
			return err
		}
	}
	return nil
}

// widen reads the bytes of a tensor of any of the precisions.
func widen(name string, shape shapes.Shape, raw []byte) ([]float32, error) {
	info := format.TensorInfo{Name: name, DType: format.F32, Shape: shape.Dimensions}
	for _, half := range halves {
		if half.node == shape.DType {
			info.DType = half.stored
		}
	}
	return format.Floats(format.NewTensor(info, raw))
}
