package adapters

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
	"github.com/hubtool/hubtool/format"
)

// RowMerger is a [Merger] that can do with some rows of a weight at a time, so that no weight is in
// memory as a whole. It gives the same bits as Merge.
type RowMerger interface {
	Merger

	// ByRows tells whether it can do so for a target.
	ByRows(t Target) bool

	// MergeRows prepares the merge of a target.
	MergeRows(t Target, values Values, rounding Rounding) RowUpdate
}

// A RowUpdate merges rows of a weight as it is stored: those of a [Transposed] or an [Embedding]
// module are its inputs. One of the functions is set; it is called from several goroutines.
type RowUpdate struct {
	// Delta fills d with rows, from first on, of what is added to the weight.
	Delta func(first int, d []float32)

	// Rounded says that Delta is rounded to the weight's type before it is added.
	Rounded bool

	// Replace turns rows of the weight, from first on, widened to float32, into the merged ones.
	Replace func(first int, w []float32)
}

// mergeAll is [Merger.Merge] by way of MergeRows.
func mergeAll(m RowMerger, t Target, values Values, w []float32, rounding Rounding, round func(float32) float32) {
	if t.Kind.transposed() { // w is not
		t.Kind = Linear
	}
	u := m.MergeRows(t, values, rounding)
	if u.Replace != nil {
		u.Replace(0, w)
		return
	}
	d := make([]float32, len(w))
	u.Delta(0, d)
	for i, d := range d {
		if u.Rounded {
			d = round(d)
		}
		w[i] += d
	}
}

// kernelTypes are the types of weights that can be merged into.
var kernelTypes = map[format.DType]kernel.Type{format.BF16: kernel.BF16, format.F16: kernel.F16, format.F32: kernel.F32}

// A weightMerge merges updates, one after the other, into blocks of rows of one weight.
type weightMerge struct {
	info       format.TensorInfo
	from       format.Tensor // the base's, in case that something is wrong with it
	nonFinite  bool          // what is not finite in the base may stay so
	typ        kernel.Type
	rows, cols int // cols counts a convolution's kernel
	group      int // rows that are merged at once
	workers    int
	together   bool // round once, after the last update
	updates    []RowUpdate
}

// weightPatch merges sites into a tensor of the base.
func (p *MergePlan) weightPatch(info format.TensorInfo, from format.Tensor, sites []mergeSite) *format.Patch {
	w := weightMerge{info: info, from: from, nonFinite: p.opts.AllowNonFinite, typ: kernelTypes[info.DType], rows: info.Shape[0],
		together: p.opts.Rounding == RoundOnce && len(sites) > 1}
	w.cols = int(info.Elements()) / max(w.rows, 1)
	w.group = rowGroup(w.cols)
	block := int64(w.cols * w.typ.Size())
	if slices.ContainsFunc(sites, func(s mergeSite) bool { return !s.byRows() }) {
		w.group, block = w.rows, info.Size()
	}
	return &format.Patch{Block: block, Start: func() (func(int64, []byte) error, error) {
		started := w
		started.workers = p.workers()
		for _, s := range sites {
			values, err := s.values(info.DType)
			if err != nil {
				return nil, err
			}
			if s.byRows() {
				started.updates = append(started.updates, s.adapter.method.(RowMerger).MergeRows(s.target, values, p.opts.Rounding))
			} else {
				started.updates = append(started.updates, s.whole(info, values, p.opts.Rounding))
			}
		}
		return started.apply, nil
	}}
}

// values are the parameters that are merged into a weight of a type.
func (s mergeSite) values(d format.DType) (Values, error) {
	values, err := s.adapter.readTarget(s.target)
	if m, ok := s.adapter.method.(CoarseMerger); err != nil || !ok || !m.Coarse(s.target) {
		return values, err
	}
	coarse := Values{}
	for name, v := range values {
		coarse[name] = slices.Clone(v)
		for i, x := range v {
			coarse[name][i] = format.Round(d, x)
		}
	}
	return coarse, nil
}

func (s mergeSite) byRows() bool {
	m, ok := s.adapter.method.(RowMerger)
	return ok && m.ByRows(s.target)
}

// whole is the update by a method that sees all rows at once.
func (s mergeSite) whole(info format.TensorInfo, values Values, rounding Rounding) RowUpdate {
	round := func(v float32) float32 { return format.Round(info.DType, v) }
	return RowUpdate{Replace: func(_ int, w []float32) {
		in, out := s.target.In(), s.target.Out()
		if s.target.Kind.transposed() {
			copy(w, hostTranspose(w, in, out))
			defer func() { copy(w, hostTranspose(w, out, in)) }()
		}
		s.adapter.method.(Merger).Merge(s.target, values, w, rounding, round)
	}}
}

// apply merges whole rows, which begin at a position in the weight's data.
func (w weightMerge) apply(at int64, data []byte) error {
	size := int64(w.cols * w.typ.Size())
	if size == 0 {
		return nil
	}
	first, rows := int(at/size), int(int64(len(data))/size)
	var broken atomic.Pointer[error]
	parallel(w.workers, (rows+w.group-1)/w.group, func(i int) {
		from, to := i*w.group, min((i+1)*w.group, rows)
		if err := w.merge(first+from, data[int64(from)*size:int64(to)*size]); err != nil {
			broken.Store(&err)
		}
	})
	if err := broken.Load(); err != nil {
		return *err
	}
	return nil
}

// merge merges one group of rows.
func (w weightMerge) merge(first int, data []byte) error {
	own := borrow(len(data) / w.typ.Size())
	defer scratch.Put(own)
	buf, finite := *own, true
	if w.together {
		kernel.Widen(w.typ, buf, data)
		more := borrow(len(buf))
		defer scratch.Put(more)
		delta := *more
		for _, u := range w.updates {
			if u.Replace != nil {
				u.Replace(first, buf)
				continue
			}
			u.Delta(first, delta)
			for i, d := range delta {
				buf[i] += d
			}
		}
		finite = kernel.Narrow(w.typ, data, buf)
	}
	for _, u := range w.updates {
		switch {
		case w.together:
		case u.Replace != nil:
			kernel.Widen(w.typ, buf, data)
			u.Replace(first, buf)
			finite = kernel.Narrow(w.typ, data, buf) && finite
		default:
			u.Delta(first, buf)
			if u.Rounded {
				kernel.Round(w.typ, buf)
			}
			finite = kernel.Add(w.typ, data, buf) && finite
		}
	}
	if finite {
		return nil
	}
	kernel.Widen(w.typ, buf, data)
	return w.blame(first, buf)
}

// blame says where merged rows are not finite, and whether the base is.
func (w weightMerge) blame(first int, merged []float32) error {
	data, base := make([]byte, len(merged)*w.typ.Size()), make([]float32, len(merged))
	if w.from != nil {
		if err := format.ReadRange(w.from, data, int64(first*w.cols*w.typ.Size())); err != nil {
			return err
		}
		kernel.Widen(w.typ, base, data)
	}
	for i, v := range merged {
		switch at := first*w.cols + i; {
		case !notFinite(v) || notFinite(base[i]) && w.nonFinite:
		case notFinite(base[i]):
			return fmt.Errorf("%w: element %d is %v", ErrBaseNonFinite, at, base[i])
		case w.info.DType == format.F16:
			return fmt.Errorf("%w: element %d is %v in F16, which ends at 65504: convert the base to BF16 or F32", ErrNonFinite, at, v)
		default:
			return fmt.Errorf("%w: element %d is %v in %s", ErrNonFinite, at, v, w.info.DType)
		}
	}
	return nil
}

// workers is how many goroutines merge one weight: the processors that other shards leave.
func (p *MergePlan) workers() int {
	return max(1, runtime.GOMAXPROCS(0)/min(p.opts.Jobs, len(p.shards)))
}
