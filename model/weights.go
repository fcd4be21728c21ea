package model

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/format"
)

// Weights are tensors by name on a backend: those of a model and, beside them, those of the adapters
// on it. They are float32, less those that [Weights.Narrow] was called for.
type Weights struct {
	backend   compute.Backend
	precision Precision
	devices   int
	names     []string
	tensors   map[string]*stored
}

// stored is one tensor, which several Weights may share: a copy on each device.
type stored struct{ copies []*tensors.Tensor }

// NewWeights returns weights without tensors.
func NewWeights(backend compute.Backend) *Weights {
	return &Weights{backend: backend, precision: Float32, devices: 1, tensors: map[string]*stored{}}
}

// Backend is where the tensors live.
func (w *Weights) Backend() compute.Backend { return w.backend }

// Set stores values under a name, replacing a tensor of the same name. It copies values.
func (w *Weights) Set(name string, shape []int, values []float32) error {
	return w.setRaw(name, shapes.Make(dtypes.Float32, shape...), bytesOf(values))
}

// bytesOf is the memory of values.
func bytesOf(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}

func (w *Weights) setRaw(name string, shape shapes.Shape, raw []byte) error {
	t := w.tensors[name]
	if t == nil {
		t = &stored{}
		w.names, w.tensors[name] = append(w.names, name), t
	}
	old := t.copies
	t.copies = nil
	for device := range w.devices {
		one, err := tensors.FromRaw(w.backend, compute.DeviceNum(device), shape, raw)
		if err != nil {
			return fmt.Errorf("moving tensor %q to the engine: %w", name, err)
		}
		t.copies = append(t.copies, one)
	}
	for _, one := range old {
		if err := one.FinalizeAll(); err != nil {
			return fmt.Errorf("freeing tensor %q: %w", name, err)
		}
	}
	return nil
}

// SetDevices puts a copy of all tensors on each of the first n devices of the backend. Programs made
// from now on divide every batch among them. The default is one.
func (w *Weights) SetDevices(n int) error {
	if most := w.backend.NumDevices(); n < 1 || n > most {
		return fmt.Errorf("computing on %d devices: %w: the engine has %d", n, format.ErrUnsupported, most)
	}
	w.devices = n
	for _, name := range w.names {
		t := w.tensors[name].copies[0]
		if len(w.tensors[name].copies) == n {
			continue
		}
		var raw []byte
		if err := t.ConstBytes(func(b []byte) { raw = slices.Clone(b) }); err != nil {
			return fmt.Errorf("copying tensor %q: %w", name, err)
		}
		if err := w.setRaw(name, t.Shape(), raw); err != nil {
			return err
		}
	}
	return nil
}

// Devices is on how many devices the tensors are.
func (w *Weights) Devices() int { return w.devices }

// Values returns a copy of a tensor's elements, nil for an unknown name.
func (w *Weights) Values(name string) ([]float32, error) {
	if w.tensors[name] == nil {
		return nil, nil
	}
	t := w.tensors[name].copies[0]
	var values []float32
	var widening error
	err := t.ConstBytes(func(raw []byte) { values, widening = widen(name, t.Shape(), raw) })
	if err = errors.Join(err, widening); err != nil {
		return nil, fmt.Errorf("reading tensor %q: %w", name, err)
	}
	return values, nil
}

// LoadOptions say what may differ between a checkpoint and the model it is loaded into.
type LoadOptions struct {
	// NewHead allows a checkpoint without a head; one is created. The default refuses.
	NewHead bool

	// ReplaceHead allows a head of another size; a new one takes its place. The default refuses.
	ReplaceHead bool

	// InitStd is the standard deviation of a new head's weights: initializer_range of config.json.
	InitStd float64

	// Seed determines a new head.
	Seed uint64

	// Share are weights loaded from the same checkpoint, whose tensors outside the head are used
	// instead of being moved to the engine again.
	Share *Weights
}

// LoadError lists every way in which a checkpoint does not fit a model.
type LoadError struct {
	Path    string
	Missing []string // parameters of the model that the checkpoint lacks
	Unused  []string // tensors of the checkpoint that the model lacks
	Shapes  []string // "name: [768] in the checkpoint, [384] in the model"
}

// Error lists the differences, a line each.
func (e *LoadError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "loading %q: the checkpoint does not fit the model of its config.json", e.Path)
	for _, list := range []struct {
		sign  string
		names []string
	}{{"missing", e.Missing}, {"unused", e.Unused}, {"shape of", e.Shapes}} {
		for _, name := range list.names {
			fmt.Fprintf(&b, "\n  %s %s", list.sign, name)
		}
	}
	return b.String()
}

// Unwrap makes a LoadError a [format.ErrConfig]: config.json and the tensors disagree.
func (e *LoadError) Unwrap() error { return format.ErrConfig }

// Check tells whether a checkpoint fits a model, from headers only, and whether its head would be a
// new one. The error is a *LoadError where it does not fit.
func Check(ck *format.Checkpoint, m Model, opts LoadOptions) (newHead bool, err error) {
	fits, err := match(ck, m, opts)
	for _, t := range fits {
		newHead = newHead || t == nil
	}
	return newHead, err
}

// match finds the tensor of each parameter, by name, whichever of the known spellings it has; nil for
// one that is to be created.
func match(ck *format.Checkpoint, m Model, opts LoadOptions) (map[string]format.Tensor, error) {
	stored := map[string]format.Tensor{}
	for t := range ck.Tensors() {
		stored[format.Canonical(m.Type(), t.Info().Name)] = t
	}
	found := map[string]format.Tensor{}
	misfit := &LoadError{Path: ck.Path()}
	for _, p := range m.Parameters() {
		t, ok := stored[p.Name]
		delete(stored, p.Name)
		inHead := strings.HasPrefix(p.Name, m.Head()+".")
		switch {
		case ok && slices.Equal(t.Info().Shape, p.Shape):
			found[p.Name] = t
		case inHead && (!ok && opts.NewHead || ok && opts.ReplaceHead):
			found[p.Name] = nil
		case !ok:
			misfit.Missing = append(misfit.Missing, p.Name)
		default:
			misfit.Shapes = append(misfit.Shapes, fmt.Sprintf("%s: %v in the checkpoint, %v in the model", p.Name, t.Info().Shape, p.Shape))
		}
	}
	for name := range stored {
		// The pooler belongs to the bare encoder; classifiers have none.
		if !strings.Contains(name, "pooler.") {
			misfit.Unused = append(misfit.Unused, name)
		}
	}
	if len(misfit.Missing)+len(misfit.Unused)+len(misfit.Shapes) > 0 {
		slices.Sort(misfit.Unused)
		return nil, misfit
	}
	return found, nil
}

// Load reads a model's parameters from a checkpoint. newHead tells whether the head was created. The
// error is a *LoadError where the checkpoint does not fit.
func Load(backend compute.Backend, ck *format.Checkpoint, m Model, opts LoadOptions) (w *Weights, newHead bool, err error) {
	fits, err := match(ck, m, opts)
	if err != nil {
		return nil, false, err
	}
	w = NewWeights(backend)
	for _, p := range m.Parameters() {
		if opts.Share != nil && !strings.HasPrefix(p.Name, m.Head()+".") {
			w.names, w.tensors[p.Name] = append(w.names, p.Name), opts.Share.tensors[p.Name]
			continue
		}
		var values []float32
		if t := fits[p.Name]; t != nil {
			values, err = format.Floats(t)
		} else {
			newHead, values = true, newHeadValues(p, opts)
		}
		if err == nil {
			err = w.Set(p.Name, p.Shape, values)
		}
		if err != nil {
			return nil, false, err
		}
	}
	return w, newHead, nil
}

// newHeadValues draws what transformers gives a new head: weights from a normal distribution
// truncated at two standard deviations, biases zero.
func newHeadValues(p Parameter, opts LoadOptions) []float32 {
	size := 1
	for _, d := range p.Shape {
		size *= d
	}
	values := make([]float32, size)
	if strings.HasSuffix(p.Name, ".bias") {
		return values
	}
	rng := rand.New(rand.NewPCG(opts.Seed, 0x68656164)) // "head": a stream of its own
	for i := range values {
		x := rng.NormFloat64()
		for math.Abs(x) > 2 {
			x = rng.NormFloat64()
		}
		values[i] = float32(x * opts.InitStd)
	}
	return values
}
