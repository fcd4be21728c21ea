package vision

import (
	"image"
	"math"
	"sync"
)

// Resize resamples m to w by h pixels with the rounding of Pillow 13, bit for bit. It returns m
// itself when the size is unchanged. A side of zero or less gives an empty image; a filter that is
// none of the constants is [Bilinear].
func Resize(m *Image, w, h int, f Filter) *Image {
	if w == m.Width && h == m.Height {
		return m
	}
	w, h = max(w, 0), max(h, 0)
	return resizePart(m.view(), image.Rect(0, 0, m.Width, m.Height), w, h, f, image.Rect(0, 0, w, h))
}

// A view holds the pixels of a part of an image.
type view struct {
	box image.Rectangle // in the image
	pix []uint8         // rows of the box without padding
}

func (m *Image) view() view { return view{image.Rect(0, 0, m.Width, m.Height), m.Pix} }

// resizePart resizes the box from of an image to w by h pixels, without looking beyond the box,
// and returns what lies inside part. The view must contain what [needed] says.
func resizePart(v view, from image.Rectangle, w, h int, f Filter, part image.Rectangle) *Image {
	out := NewImage(part.Dx(), part.Dy())
	if from.Empty() || part.Empty() {
		return out
	}
	src := plane{v.pix, 3 * v.box.Dx(), from.Min.Sub(v.box.Min)}
	dst := plane{out.Pix, 3 * out.Width, image.Point{}}
	inW, inH := from.Dx(), from.Dy()
	if f == Nearest {
		pickNearest(dst, src, inW, inH, w, h, part)
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
	if inW == w {
		left, right = part.Min.X, part.Max.X
	}
	if inH == h {
		top, bottom = part.Min.Y, part.Max.Y
	}
	switch {
	case inW == w && inH == h:
		for y := range out.Height {
			copy(out.row(y), src.at(left, top+y))
		}
	case inW == w:
		vertical(dst, src, left, right, rows)
	case inH == h:
		dst.origin.Y = -top
		horizontal(dst, src, top, bottom, columns, s.words(3*(right-left)))
	case verticalFirst(inW, inH, w, h):
		tmp := plane{s.buffer(3 * (right - left) * len(rows)), 3 * (right - left), image.Pt(-left, 0)}
		vertical(tmp, src, left, right, rows)
		horizontal(dst, tmp, 0, len(rows), columns, s.words(3*(right-left)))
	default:
		tmp := plane{s.buffer(3 * len(columns) * (bottom - top)), 3 * len(columns), image.Pt(0, -top)}
		horizontal(tmp, src, top, bottom, columns, s.words(3*(right-left)))
		vertical(dst, tmp, 0, len(columns), rows)
	}
	return out
}

// needed is the part of the box from that resizePart reads.
func needed(from image.Rectangle, w, h int, f Filter, part image.Rectangle) image.Rectangle {
	k, ok := kernels[f]
	if !ok {
		return from
	}
	left, right := reach(from.Dx(), w, k, part.Min.X, part.Max.X)
	top, bottom := reach(from.Dy(), h, k, part.Min.Y, part.Max.Y)
	return image.Rect(left, top, right, bottom).Add(from.Min)
}

// verticalFirst is the order of the passes, which decides how results round. Pillow 13 begins with
// the vertical pass where that saves work; every version before begins with the horizontal one.
func verticalFirst(inW, inH, w, h int) bool {
	return h < inH && inH-h > 2*(inW-w)
}

// A plane is a run of rows of RGB pixels, stride bytes apart. The origin is where pixel (0, 0) lies
// in it; it may be outside if no pixel before the plane is asked for.
type plane struct {
	pix    []uint8
	stride int
	origin image.Point
}

func (p plane) at(x, y int) []uint8 { return p.pix[p.offset(x, y):] }

func (p plane) offset(x, y int) int { return (y+p.origin.Y)*p.stride + 3*(x+p.origin.X) }

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

// A pass maps out samples to in samples.
type pass struct {
	in                      int
	scale, support, inverse float64
}

func newPass(in, out int, k kernel) pass {
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	return pass{in, scale, k.support * stretch, 1 / stretch}
}

// reach is the range of source samples for one output sample, and the position of its centre. The
// conversion keeps multiply and add apart, as it does in the kernels.
func (p pass) reach(i int) (start, end int, center float64) {
	center = float64((float64(i) + 0.5) * p.scale)
	return max(int(center-p.support+0.5), 0), min(int(center+p.support+0.5), p.in), center
}

// compute derives the windows of a pass from in to out samples. The slices belong to the table.
func (t *windowTable) compute(in, out int, k kernel) []window {
	p := newPass(in, out, k)
	// Enough room for all weights, so that they never move.
	if n := out * (2*int(math.Ceil(p.support)) + 1); cap(t.weights) < n {
		t.weights = make([]int32, 0, n)
	}
	t.windows, t.weights = t.windows[:0], t.weights[:0]
	for i := range out {
		start, end, center := p.reach(i)
		t.exact = t.exact[:0]
		sum := 0.0
		for j := start; j < end; j++ {
			w := k.weight((float64(j) - center + 0.5) * p.inverse)
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

// reach is the span of the windows for the output samples from first to before end.
func reach(in, out int, k kernel, first, end int) (int, int) {
	p := newPass(in, out, k)
	start, _, _ := p.reach(first)
	_, stop, _ := p.reach(end - 1)
	return start, stop
}
