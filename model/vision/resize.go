package vision

import (
	"fmt"
	"math"
)

// Filter is a resampling filter, numbered as Pillow and preprocessor_config.json number them.
type Filter int

const (
	Nearest Filter = iota
	Lanczos
	Bilinear
	Bicubic
	Box
	Hamming
)

var filterNames = [...]string{"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"}

// String returns the name of torchvision's InterpolationMode.
func (f Filter) String() string {
	if f < 0 || int(f) >= len(filterNames) {
		return fmt.Sprintf("Filter(%d)", int(f))
	}
	return filterNames[f]
}

// ParseFilter reads the name of a filter, or its number in Pillow.
func ParseFilter(s string) (Filter, error) {
	for i, name := range filterNames {
		if s == name || s == fmt.Sprint(i) {
			return Filter(i), nil
		}
	}
	return 0, fmt.Errorf("unknown interpolation %q; want one of %q", s, filterNames)
}

// A kernel is a filter's weight function; it is zero outside [-support, support].
type kernel struct {
	support float64
	weight  func(x float64) float64
}

// The explicit float64 conversions keep the compiler from fusing multiply and add, which would
// round differently from Pillow on processors that have the instruction.
var kernels = map[Filter]kernel{
	Box: {0.5, func(x float64) float64 {
		if x > -0.5 && x <= 0.5 {
			return 1
		}
		return 0
	}},
	Bilinear: {1, func(x float64) float64 {
		return max(1-math.Abs(x), 0)
	}},
	Hamming: {1, func(x float64) float64 {
		x = math.Abs(x)
		if x == 0 {
			return 1
		}
		if x >= 1 {
			return 0
		}
		x *= math.Pi
		return math.Sin(x) / x * (0.54 + float64(0.46*math.Cos(x)))
	}},
	Bicubic: {2, func(x float64) float64 {
		const a = -0.5
		x = math.Abs(x)
		if x < 1 {
			return float64((float64((a+2)*x)-(a+3))*x*x) + 1
		}
		if x < 2 {
			return (float64((float64((x-5)*x)+8)*x) - 4) * a
		}
		return 0
	}},
	Lanczos: {3, func(x float64) float64 {
		if x < -3 || x >= 3 {
			return 0
		}
		return sinc(x) * sinc(x/3)
	}},
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x *= math.Pi
	return math.Sin(x) / x
}

// precision is the number of fraction bits of a weight: Pillow's 32 - 8 - 2.
const precision = 22

// A window says which source samples make one output sample.
type window struct {
	start   int
	weights []int32 // fixed point, precision fraction bits
}

// windows computes the weights of a pass from in to out samples.
func windows(in, out int, k kernel) []window {
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	support := k.support * stretch
	inverse := 1 / stretch
	taps := int(math.Ceil(support))*2 + 1
	all := make([]int32, 0, out*min(taps, in))
	weights := make([]float64, taps)
	ws := make([]window, out)
	for i := range ws {
		center := float64((float64(i) + 0.5) * scale)
		start := max(int(center-support+0.5), 0)
		end := min(int(center+support+0.5), in)
		sum := 0.0
		for j := start; j < end; j++ {
			w := k.weight((float64(j) - center + 0.5) * inverse)
			weights[j-start] = w
			sum += w
		}
		first := len(all)
		for _, w := range weights[:end-start] {
			if sum != 0 {
				w /= sum
			}
			all = append(all, int32(math.Copysign(0.5, w)+float64(w*(1<<precision))))
		}
		ws[i] = window{start, all[first:len(all):len(all)]}
	}
	return ws
}

// Resize resamples m to w by h pixels with Pillow's rounding, bit for bit. It returns m itself
// when the size is unchanged. A side of zero or less gives an empty image.
func Resize(m *Image, w, h int, f Filter) *Image {
	switch {
	case w == m.Width && h == m.Height:
		return m
	case w <= 0 || h <= 0 || m.Width <= 0 || m.Height <= 0:
		return NewImage(max(w, 0), max(h, 0))
	case f == Nearest:
		return nearest(m, w, h)
	}
	k, ok := kernels[f]
	if !ok {
		k = kernels[Bilinear]
	}
	// Pillow 13 begins with the pass that throws away more; every version before begins with the
	// horizontal one. The two orders round differently.
	if h < m.Height && m.Height-h > 2*(m.Width-w) {
		return horizontal(vertical(m, h, k), w, k)
	}
	return vertical(horizontal(m, w, k), h, k)
}

func clip(v int32) uint8 {
	return uint8(min(max(v>>precision, 0), 255))
}

func horizontal(m *Image, w int, k kernel) *Image {
	if w == m.Width {
		return m
	}
	ws := windows(m.Width, w, k)
	out := NewImage(w, m.Height)
	for y := range m.Height {
		src, dst := m.row(y), out.row(y)
		for _, win := range ws {
			p := src[3*win.start:]
			var r, g, b int32 = 1 << (precision - 1), 1 << (precision - 1), 1 << (precision - 1)
			for _, k := range win.weights {
				r += int32(p[0]) * k
				g += int32(p[1]) * k
				b += int32(p[2]) * k
				p = p[3:]
			}
			dst[0], dst[1], dst[2] = clip(r), clip(g), clip(b)
			dst = dst[3:]
		}
	}
	return out
}

func vertical(m *Image, h int, k kernel) *Image {
	if h == m.Height {
		return m
	}
	out := NewImage(m.Width, h)
	sums := make([]int32, 3*m.Width)
	for y, win := range windows(m.Height, h, k) {
		for i := range sums {
			sums[i] = 1 << (precision - 1)
		}
		for j, k := range win.weights {
			for i, v := range m.row(win.start + j) {
				sums[i] += int32(v) * k
			}
		}
		dst := out.row(y)
		for i, v := range sums {
			dst[i] = clip(v)
		}
	}
	return out
}

// nearest picks the pixel under each output centre. Pillow adds up the positions step by step, and
// its rounding errors decide ties, so this does too.
func nearest(m *Image, w, h int) *Image {
	positions := func(in, out int) []int {
		step := float64(in) / float64(out)
		at := step * 0.5
		list := make([]int, out)
		for i := range list {
			list[i] = min(int(at), in-1)
			at += step
		}
		return list
	}
	xs := positions(m.Width, w)
	out := NewImage(w, h)
	for y, sy := range positions(m.Height, h) {
		src, dst := m.row(sy), out.row(y)
		for x, sx := range xs {
			copy(dst[3*x:3*x+3], src[3*sx:])
		}
	}
	return out
}
