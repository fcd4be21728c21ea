package adapters

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
	"github.com/hubtool/hubtool/format"
)

// A Verification says how a merged checkpoint compares with what base and adapters make of it.
type Verification struct {
	Structure Structure `json:"structure"`
	Numbers   Numbers   `json:"numbers"`
}

// OK tells whether nothing was found.
func (v Verification) OK() bool {
	return len(v.Structure.Missing)+len(v.Structure.Unexpected)+len(v.Structure.Mismatched) == 0 && v.Numbers.Different == 0
}

// Structure lists tensors that are not as they must be.
type Structure struct {
	Tensors    int      `json:"tensors"`
	Missing    []string `json:"missing"`
	Unexpected []string `json:"unexpected"`
	Mismatched []string `json:"mismatched"` // in type or shape
}

// Numbers compares elements. Those of merged weights may be one step of their type off, at the size
// of weight or update, whichever is larger: orders of operations and ways of rounding differ that
// much. All others must have the same bits.
type Numbers struct {
	Tensors   int     `json:"tensors"`
	Elements  int64   `json:"elements_checked"`
	MaxAbs    float64 `json:"max_abs"`
	MaxULP    float64 `json:"max_ulp"`
	Different int64   `json:"different"`
	Where     string  `json:"where,omitempty"` // a tensor with elements that differ
}

func (n *Numbers) add(other Numbers) {
	n.Tensors += other.Tensors
	n.Elements += other.Elements
	n.MaxAbs, n.MaxULP = max(n.MaxAbs, other.MaxAbs), max(n.MaxULP, other.MaxULP)
	if n.Different += other.Different; n.Where == "" {
		n.Where = other.Where
	}
}

// exacter is a method whose update is computed in float64 too, independently of merging.
type exacter interface {
	// Exact returns what fills d with the change of one row w of the weight as it is stored, and bound
	// with what a rounding of all intermediate results in float32 may amount to, in units of 2^-24.
	// It is nil for targets that cannot be done by rows.
	Exact(t Target, values Values) func(row int, w, d, bound []float64)
}

// Verify compares a merged checkpoint with the plan. Of every merged weight it recomputes rows, all
// for 0, in float64.
func (p *MergePlan) Verify(ctx context.Context, merged *format.Checkpoint, rows int, progress func(done, total int)) (*Verification, error) {
	v := &Verification{Structure: Structure{Missing: []string{}, Unexpected: []string{}, Mismatched: []string{}}}
	expected := map[string]bool{}
	var todo []format.Piece
	for _, s := range p.shards {
		for _, want := range s.order {
			expected[want.Name] = true
			v.Structure.Tensors++
			got, ok := merged.Tensor(want.Name)
			switch {
			case !ok:
				v.Structure.Missing = append(v.Structure.Missing, want.Name)
			case got.Info().DType != want.DType || !slices.Equal(got.Info().Shape, want.Shape):
				v.Structure.Mismatched = append(v.Structure.Mismatched,
					fmt.Sprintf("%s: %s %v, expected %s %v", want.Name, got.Info().DType, got.Info().Shape, want.DType, want.Shape))
			default:
				todo = append(todo, s.pieces[want.Name])
			}
		}
	}
	for t := range merged.Tensors() {
		if !expected[t.Info().Name] {
			v.Structure.Unexpected = append(v.Structure.Unexpected, t.Info().Name)
		}
	}
	for i, piece := range todo {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		got, _ := merged.Tensor(piece.Name)
		numbers, err := p.verifyPiece(piece, got, rows)
		if err != nil {
			return nil, fmt.Errorf("verifying %q: %w", piece.Name, err)
		}
		if numbers.Different > 0 {
			numbers.Where = piece.Name
		}
		v.Numbers.add(numbers)
		if progress != nil {
			progress(i+1, len(todo))
		}
	}
	return v, nil
}

func (p *MergePlan) verifyPiece(piece format.Piece, got format.Tensor, rows int) (Numbers, error) {
	w, ok := p.weights[piece.Name]
	switch {
	case piece.Patch == nil:
		return compareBytes(piece.From, got)
	case !ok: // a bias
		data, err := piece.From.Bytes()
		if err != nil {
			return Numbers{}, err
		}
		data = slices.Clone(data)
		apply, err := piece.Patch.Start()
		if err == nil {
			err = apply(0, data)
		}
		if err != nil {
			return Numbers{}, err
		}
		return compareBytes(format.NewTensor(piece.TensorInfo, data), got)
	}
	return p.verifyWeight(piece, got, w, rows)
}

// compareBytes counts elements with other bits.
func compareBytes(want, got format.Tensor) (Numbers, error) {
	n := Numbers{Tensors: 1, Elements: want.Info().Elements()}
	size, width := want.Info().Size(), max(want.Info().DType.Bits()/8, 1)
	a, b := make([]byte, min(size, inPlaceBytes)), make([]byte, min(size, inPlaceBytes))
	for at := int64(0); at < size; at += int64(len(a)) {
		part := min(int64(len(a)), size-at)
		if err := format.ReadRange(want, a[:part], at); err != nil {
			return n, err
		}
		if err := format.ReadRange(got, b[:part], at); err != nil {
			return n, err
		}
		if bytes.Equal(a[:part], b[:part]) {
			continue
		}
		for i := 0; i < int(part); i += width {
			if !bytes.Equal(a[i:i+width], b[i:i+width]) {
				n.Different++
			}
		}
	}
	return n, nil
}

// verifyWeight recomputes rows of a merged weight.
func (p *MergePlan) verifyWeight(piece format.Piece, got format.Tensor, sites []mergeSite, rows int) (Numbers, error) {
	info := piece.TensorInfo
	count := info.Shape[0]
	cols := int(info.Elements()) / max(count, 1)
	if cols == 0 {
		return Numbers{Tensors: 1}, nil
	}
	every := 1
	if rows > 0 && rows < count {
		every = (count + rows - 1) / rows
	}
	var updates []func(first int, w, d, bound []float64)
	for _, s := range sites {
		values, err := s.values(info.DType)
		if err != nil {
			return Numbers{}, err
		}
		updates = append(updates, s.exact(info, values, piece.From, count, cols))
	}
	total := Numbers{Tensors: 1}
	var mu sync.Mutex
	var failed error
	parallel(runtime.GOMAXPROCS(0), (count+every-1)/every, func(i int) {
		n, err := verifyRow(info, piece.From, got, i*every, cols, updates)
		mu.Lock()
		defer mu.Unlock()
		total.add(n)
		if err != nil {
			failed = err
		}
	})
	return total, failed
}

func verifyRow(info format.TensorInfo, base, got format.Tensor, row, cols int, updates []func(row int, w, d, bound []float64)) (Numbers, error) {
	n := Numbers{Elements: int64(cols)}
	typ := kernelTypes[info.DType]
	data, old, merged := make([]byte, cols*typ.Size()), make([]float32, cols), make([]float32, cols)
	at := int64(row) * int64(len(data))
	if err := format.ReadRange(base, data, at); err != nil {
		return n, err
	}
	kernel.Widen(typ, old, data)
	if err := format.ReadRange(got, data, at); err != nil {
		return n, err
	}
	kernel.Widen(typ, merged, data)
	w, d, bound, largest := make([]float64, cols), make([]float64, cols), make([]float64, cols), make([]float64, cols)
	for j, v := range old {
		w[j], largest[j] = float64(v), math.Abs(float64(v))
	}
	slack := make([]float64, cols)
	for _, update := range updates {
		update(row, w, d, bound)
		for j := range w {
			w[j] += d[j]
			largest[j] = max(largest[j], math.Abs(d[j]), math.Abs(w[j]))
			slack[j] += bound[j] * 0x1p-24
		}
	}
	for j, v := range merged {
		if notFinite(v) && notFinite(old[j]) { // as it may stay
			continue
		}
		diff := math.Abs(float64(v) - w[j])
		ulp := step(info.DType, largest[j])
		n.MaxAbs, n.MaxULP = max(n.MaxAbs, diff), max(n.MaxULP, diff/ulp)
		if !(diff <= float64(len(updates))*ulp+slack[j]) {
			n.Different++
		}
	}
	return n, nil
}

// step is the distance between numbers of a type that are as large as v.
func step(d format.DType, v float64) float64 {
	digits, smallest := 23, -149
	switch d {
	case format.BF16:
		digits, smallest = 7, -133
	case format.F16:
		digits, smallest = 10, -24
	}
	if v == 0 {
		return math.Ldexp(1, smallest)
	}
	return math.Ldexp(1, max(math.Ilogb(v)-digits, smallest))
}

// exact is a site's update in float64: of methods without one of their own, in float32.
func (s mergeSite) exact(info format.TensorInfo, values Values, base format.Tensor, rows, cols int) func(row int, w, d, bound []float64) {
	if m, ok := s.adapter.method.(exacter); ok {
		if update := m.Exact(s.target, values); update != nil {
			return update
		}
	}
	if s.byRows() {
		u := s.adapter.method.(RowMerger).MergeRows(s.target, values, RoundPEFT)
		return func(row int, w, d, bound []float64) { single(u, row, w, d, bound) }
	}
	// The whole weight is needed for one row: it is merged once.
	u := s.whole(info, values, RoundPEFT)
	whole := sync.OnceValue(func() []float32 {
		v, err := format.Floats(base)
		if err != nil {
			return make([]float32, rows*cols)
		}
		u.Replace(0, v)
		return v
	})
	return func(row int, w, d, bound []float64) {
		for j, v := range whole()[row*cols : (row+1)*cols] {
			d[j] = float64(v) - w[j]
			bound[j] = 4 * (math.Abs(w[j]) + math.Abs(d[j]))
		}
	}
}

// single is one row of an update in float32.
func single(u RowUpdate, row int, w, d, bound []float64) {
	v := make([]float32, len(w))
	if u.Delta != nil {
		u.Delta(row, v)
		for j, x := range v {
			d[j], bound[j] = float64(x), 4*math.Abs(float64(x))
		}
		return
	}
	for j, x := range w {
		v[j] = float32(x)
	}
	u.Replace(row, v)
	for j, x := range v {
		d[j] = float64(x) - w[j]
		bound[j] = 4 * (math.Abs(w[j]) + math.Abs(d[j]))
	}
}
