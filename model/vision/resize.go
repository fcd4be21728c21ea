package vision

import (
	"image"
	"math"
	"sync"
)

// Resize resamples m to w by h pixels with the rounding of Pillow 13, bit for bit. It returns m
// itself when the size is unchanged. A side of zero or less gives an empty image.
func Resize(m *Image, w, h int, f Filter) *Image {
	if w == m.Width && h == m.Height {
		return m
	}
	w, h = max(w, 0), max(h, 0)
	return resizePart(m, image.Rect(0, 0, m.Width, m.Height), w, h, f, image.Rect(0, 0, w, h))
}

// resizePart resizes the box from of m to w by h pixels, without looking beyond the box, and
// returns the part of the result inside part. Only what that part depends on is computed.
func resizePart(m *Image, from image.Rectangle, w, h int, f Filter, part image.Rectangle) *Image {
	out := NewImage(part.Dx(), part.Dy())
	if from.Empty() || part.Empty() {
		return out
	}
	src := plane{m.Pix[3*(from.Min.Y*m.Width+from.Min.X):], 3 * m.Width}
	dst := plane{out.Pix, 3 * out.Width}
	inW, inH := from.Dx(), from.Dy()
	if f == Nearest {
		nearest(dst, src, inW, inH, w, h, part)
		return out
	}
	k, ok := kernels[f]
	if !ok {
		k = kernels[Bilinear]
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	columns := s.columns.compute(inW, w, k)[part.Min.X:part.Max.X]
	rows := s.rows.compute(inH, h, k)[part.Min.Y:part.Max.Y]
	left, right := span(columns)
	top, bottom := span(rows)
	switch {
	case inW == w && inH == h:
		for y := range out.Height {
			copy(out.row(y), src.at(left, top+y))
		}
	case inW == w:
		vertical(dst, plane{src.at(left, 0), src.stride}, 3*(right-left), rows)
	case inH == h:
		horizontal(dst, plane{src.at(0, top), src.stride}, bottom-top, columns, s.words(3*(right-left)))
	case verticalFirst(inW, inH, w, h):
		tmp := plane{s.buffer(3 * (right - left) * len(rows)), 3 * (right - left)}
		vertical(tmp, plane{src.at(left, 0), src.stride}, 3*(right-left), rows)
		shift(columns, left)
		horizontal(dst, tmp, len(rows), columns, s.words(3*(right-left)))
	default:
		tmp := plane{s.buffer(3 * len(columns) * (bottom - top)), 3 * len(columns)}
		horizontal(tmp, plane{src.at(0, top), src.stride}, bottom-top, columns, s.words(3*(right-left)))
		shift(rows, top)
		vertical(dst, tmp, 3*len(columns), rows)
	}
	return out
}

// verticalFirst is the order of the passes, which decides how results round. Pillow 13 begins with
// the vertical pass where that saves work; every version before begins with the horizontal one.
func verticalFirst(inW, inH, w, h int) bool {
	return h < inH && inH-h > 2*(inW-w)
}

// A plane is a run of rows of RGB pixels, stride bytes apart.
type plane struct {
	pix    []uint8
	stride int
}

func (p plane) at(x, y int) []uint8 { return p.pix[y*p.stride+3*x:] }

// scratch is the memory of one resize, kept for the next.
type scratch struct {
	columns, rows windowTable
	tmp           []uint8
	spread        []uint64
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) buffer(n int) []uint8 {
	if cap(s.tmp) < n {
		s.tmp = make([]uint8, n)
	}
	return s.tmp[:n]
}

func (s *scratch) words(n int) []uint64 {
	if cap(s.spread) < n {
		s.spread = make([]uint64, n)
	}
	return s.spread[:n]
}

// precision is the number of fraction bits of a weight. Pillow leaves two of 32 bits for filters
// that overshoot, and eight for the sample.
const precision = 32 - 8 - 2

// A window tells which source samples make one output sample.
type window struct {
	start   int
	weights []int32 // precision fraction bits
}

type windowTable struct {
	windows []window
	weights []int32
	exact   []float64
}

// compute derives the windows of a pass from in to out samples. The slices belong to the table.
func (t *windowTable) compute(in, out int, k kernel) []window {
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	support := k.support * stretch
	inverse := 1 / stretch
	// Enough room for all weights, so that they never move.
	if n := out * (2*int(math.Ceil(support)) + 1); cap(t.weights) < n {
		t.weights = make([]int32, 0, n)
	}
	t.windows, t.weights = t.windows[:0], t.weights[:0]
	for i := range out {
		// The conversion keeps multiply and add apart, as it does in the kernels.
		center := float64((float64(i) + 0.5) * scale)
		start := max(int(center-support+0.5), 0)
		end := min(int(center+support+0.5), in)
		t.exact = t.exact[:0]
		sum := 0.0
		for j := start; j < end; j++ {
			w := k.weight((float64(j) - center + 0.5) * inverse)
			t.exact = append(t.exact, w)
			sum += w
		}
		first := len(t.weights)
		for _, w := range t.exact {
			if sum != 0 {
				w /= sum
			}
			t.weights = append(t.weights, int32(math.Copysign(0.5, w)+w*(1<<precision)))
		}
		t.windows = append(t.windows, window{start, t.weights[first:]})
	}
	return t.windows
}

// span is the range of source samples that windows read.
func span(ws []window) (first, end int) {
	last := ws[len(ws)-1]
	return ws[0].start, last.start + len(last.weights)
}

func shift(ws []window, by int) {
	for i := range ws {
		ws[i].start -= by
	}
}
