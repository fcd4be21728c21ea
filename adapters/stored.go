package adapters

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
	"github.com/hubtool/hubtool/format"
)

// checkStored fails if values that will be read from the file are not finite: that has to be known
// before anything is written. Nothing of them stays in memory.
func (a *Adapter) checkStored() error {
	errs := make([]error, len(a.params))
	parallel(runtime.GOMAXPROCS(0), len(errs), func(i int) {
		if t, ok := a.stored[a.params[i].Name]; ok {
			errs[i] = checkFinite(t)
		}
	})
	for _, err := range errs { // the first in the order of the targets, whichever was found first
		if err != nil {
			return err
		}
	}
	return nil
}

// pieces lends memory to what reads a tensor piece by piece.
var pieces = sync.Pool{New: func() any { return new([1 << 17]byte) }}

// checkFinite fails if an element of a tensor is not finite as float32.
func checkFinite(t format.Tensor) error {
	typ, ok := kernelTypes[t.Info().DType]
	if !ok {
		values, err := format.Floats(t)
		if err != nil {
			return err
		}
		return finiteValues(t, 0, values)
	}
	piece := pieces.Get().(*[1 << 17]byte)
	defer pieces.Put(piece)
	for at, size := int64(0), t.Info().Size(); at < size; {
		data := piece[:min(size-at, int64(len(piece)))]
		if err := format.ReadRange(t, data, at); err != nil {
			return err
		}
		if !kernel.Finite(typ, data) {
			values := make([]float32, len(data)/typ.Size())
			kernel.Widen(typ, values, data)
			return finiteValues(t, int(at)/typ.Size(), values)
		}
		at += int64(len(data))
	}
	return nil
}

// finiteValues names the first of a tensor's values, which begin at an element of it, that is not finite.
func finiteValues(t format.Tensor, first int, values []float32) error {
	if i := slices.IndexFunc(values, notFinite); i >= 0 {
		return fmt.Errorf("%w: element %d of %q is %v", ErrNonFinite, first+i, t.Info().Name, values[i])
	}
	return nil
}
