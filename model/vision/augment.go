package vision

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// TrivialAugmentWide applies one operation, drawn from fourteen, with a magnitude drawn from Bins.
type TrivialAugmentWide struct {
	Bins   int
	Filter Filter   // Nearest, Bilinear or Bicubic
	Fill   [3]uint8 // of what is turned or moved in from outside
}

// Apply implements [Transform].
func (t TrivialAugmentWide) Apply(img *Image, rng *rand.Rand) *Image {
	op := &operations[below(rng, len(operations))]
	magnitude := 0.0
	if op.wide != nil {
		magnitude = op.wide(t.Bins, below(rng, t.Bins))
	}
	return op.run(img, magnitude, rng, t.Filter, t.Fill)
}

func (t TrivialAugmentWide) outputSize(width, height int) (w, h int) { return width, height }

func (t TrivialAugmentWide) String() string {
	return fmt.Sprintf("TrivialAugmentWide(num_magnitude_bins=%d, interpolation=InterpolationMode.%s, fill=%s)", t.Bins, strings.ToUpper(t.Filter.String()), fillText(t.Fill))
}

// RandAugment applies Ops operations in turn, each drawn from fourteen, all with magnitude number Magnitude of Bins.
type RandAugment struct {
	Ops, Magnitude, Bins int
	Filter               Filter // Nearest, Bilinear or Bicubic
	Fill                 [3]uint8
}

// Apply implements [Transform].
func (t RandAugment) Apply(img *Image, rng *rand.Rand) *Image {
	width, height := img.Width, img.Height
	for range t.Ops {
		op := &operations[below(rng, len(operations))]
		magnitude := 0.0
		if op.random != nil {
			magnitude = op.random(t.Bins, t.Magnitude, width, height)
		}
		img = op.run(img, magnitude, rng, t.Filter, t.Fill)
	}
	return img
}

func (t RandAugment) outputSize(width, height int) (w, h int) { return width, height }

func (t RandAugment) String() string {
	return fmt.Sprintf("RandAugment(num_ops=%d, magnitude=%d, num_magnitude_bins=%d, interpolation=InterpolationMode.%s, fill=%s)",
		t.Ops, t.Magnitude, t.Bins, strings.ToUpper(t.Filter.String()), fillText(t.Fill))
}

// fillText writes a colour as the argument fill, of which black is the default and one number a grey.
func fillText(c [3]uint8) string {
	switch {
	case c == [3]uint8{}:
		return "None"
	case c[0] == c[1] && c[1] == c[2]:
		return fmt.Sprint(c[0])
	}
	return fmt.Sprintf("(%d, %d, %d)", c[0], c[1], c[2])
}

// An operation is one of those that TrivialAugmentWide and RandAugment draw from. Its magnitude in either is bin i of
// bins; nil where it has none.
type operation struct {
	wide   func(bins, i int) float64
	random func(bins, i, width, height int) float64
	signed bool // half of the magnitudes are negated
	apply  func(img *Image, magnitude float64, f Filter, fill [3]uint8) *Image
}

func (o *operation) run(img *Image, magnitude float64, rng *rand.Rand, f Filter, fill [3]uint8) *Image {
	if o.signed && below(rng, 2) == 1 {
		magnitude = -magnitude
	}
	return o.apply(img, magnitude, f, fill)
}

// operations are in the order in which torchvision draws them.
var operations = []operation{
	{apply: func(img *Image, _ float64, _ Filter, _ [3]uint8) *Image { return img }},
	{upTo(0.99), upToEver(0.3), true, func(img *Image, m float64, f Filter, fill [3]uint8) *Image {
		return affine{1, math.Tan(math.Atan(m)), 0, 0, 1, 0}.apply(img, f, fill) // shears x
	}},
	{upTo(0.99), upToEver(0.3), true, func(img *Image, m float64, f Filter, fill [3]uint8) *Image {
		angle := math.Atan(m)
		return affine{1, 0, 0, math.Sin(angle) / math.Cos(angle), 1, 0}.apply(img, f, fill) // shears y
	}},
	{upTo(32), func(bins, i, width, _ int) float64 { return linspace(0, 150./331*float64(width), bins, i) }, true,
		func(img *Image, m float64, f Filter, fill [3]uint8) *Image {
			return affine{1, 0, -math.Trunc(m), 0, 1, 0}.apply(img, f, fill)
		}},
	{upTo(32), func(bins, i, _, height int) float64 { return linspace(0, 150./331*float64(height), bins, i) }, true,
		func(img *Image, m float64, f Filter, fill [3]uint8) *Image {
			return affine{1, 0, 0, 0, 1, -math.Trunc(m)}.apply(img, f, fill)
		}},
	{upTo(135), upToEver(30), true, func(img *Image, m float64, f Filter, fill [3]uint8) *Image {
		return RandomRotation{Filter: f, Fill: fill}.rotate(img, m)
	}},
	{upTo(0.99), upToEver(0.9), true, enhancement(adjustBrightness)},
	{upTo(0.99), upToEver(0.9), true, enhancement(adjustSaturation)},
	{upTo(0.99), upToEver(0.9), true, enhancement(adjustContrast)},
	{upTo(0.99), upToEver(0.9), true, enhancement(adjustSharpness)},
	{
		func(bins, i int) float64 { return posterizeBits(bins, i, 6) },
		func(bins, i, _, _ int) float64 { return posterizeBits(bins, i, 4) }, false,
		func(img *Image, m float64, _ Filter, _ [3]uint8) *Image {
			return mapSamples(img, func(_, v int) uint8 { return uint8(v) & (0xff << (8 - int(m))) })
		},
	},
	{
		func(bins, i int) float64 { return linspace(255, 0, bins, i) },
		func(bins, i, _, _ int) float64 { return linspace(255, 0, bins, i) }, false,
		func(img *Image, m float64, _ Filter, _ [3]uint8) *Image {
			return mapSamples(img, func(_, v int) uint8 {
				if float64(v) < m {
					return uint8(v)
				}
				return uint8(255 - v)
			})
		},
	},
	{apply: func(img *Image, _ float64, _ Filter, _ [3]uint8) *Image { return autoContrast(img) }},
	{apply: func(img *Image, _ float64, _ Filter, _ [3]uint8) *Image { return equalize(img) }},
}

func upTo(top float64) func(bins, i int) float64 {
	return func(bins, i int) float64 { return linspace(0, top, bins, i) }
}

// upToEver is upTo for images of every size.
func upToEver(top float64) func(bins, i, width, height int) float64 {
	return func(bins, i, _, _ int) float64 { return linspace(0, top, bins, i) }
}

// linspace is element i of torch.linspace, which counts from either end in single precision with fused multiply-adds.
func linspace(from, to float64, bins, i int) float64 {
	start, end := float32(from), float32(to)
	if bins == 1 {
		return float64(start)
	}
	step := (end - start) / float32(bins-1)
	if i < bins/2 {
		return float64(float32(float64(start) + float64(step)*float64(i))) // the product is exact
	}
	return float64(float32(float64(end) - float64(step)*float64(bins-1-i)))
}

// posterizeBits is how many bits remain: eight, less up to most.
func posterizeBits(bins, i int, most float64) float64 {
	return 8 - math.RoundToEven(float64(float32(i)/float32(float64(bins-1)/most)))
}

func enhancement(adjust func(*Image, float32) *Image) func(*Image, float64, Filter, [3]uint8) *Image {
	return func(img *Image, m float64, _ Filter, _ [3]uint8) *Image { return adjust(img, float32(1+m)) }
}

// apply is Image.transform to the same size.
func (m affine) apply(img *Image, f Filter, color [3]uint8) *Image {
	out := NewImage(img.Width, img.Height)
	if color != [3]uint8{} {
		fill(out, color)
	}
	m.transform(out, img, f)
	return out
}

// mapSamples makes a new image by a function of a sample and its channel.
func mapSamples(img *Image, f func(channel, v int) uint8) *Image {
	var table [3][256]uint8
	for c := range table {
		for v := range table[c] {
			table[c][v] = f(c, v)
		}
	}
	return mapPixels(img, func(dst, src []uint8) {
		dst[0], dst[1], dst[2] = table[0][src[0]], table[1][src[1]], table[2][src[2]]
	})
}

// adjustSharpness blends with the image smoothed by ImageFilter.SMOOTH, which leaves the border as it is.
func adjustSharpness(img *Image, factor float32) *Image {
	out := clone(img)
	if img.Width >= 3 && img.Height >= 3 {
		for y := 1; y < img.Height-1; y++ {
			above, row, below, dst := img.row(y-1), img.row(y), img.row(y+1), out.row(y)
			for i := 3; i < len(row)-3; i++ {
				sum := 5*int(row[i]) + int(row[i-3]) + int(row[i+3]) +
					int(above[i-3]) + int(above[i]) + int(above[i+3]) + int(below[i-3]) + int(below[i]) + int(below[i+3])
				dst[i] = uint8((2*sum + 13) / 26)
			}
		}
	}
	for i, v := range img.Pix {
		out.Pix[i] = blend(out.Pix[i], v, factor)
	}
	return out
}

func histogram(img *Image) (counts [3][256]int) {
	for p := img.Pix; len(p) >= 3; p = p[3:] {
		counts[0][p[0]]++
		counts[1][p[1]]++
		counts[2][p[2]]++
	}
	return counts
}

// autoContrast is ImageOps.autocontrast: the darkest sample of a channel becomes 0, the lightest 255.
func autoContrast(img *Image) *Image {
	counts := histogram(img)
	var low, high [3]int
	for c := range counts {
		occurs := func(n int) bool { return n > 0 }
		low[c] = slices.IndexFunc(counts[c][:], occurs)
		for high[c] = 255; high[c] > low[c] && counts[c][high[c]] == 0; high[c]-- {
		}
	}
	return mapSamples(img, func(c, v int) uint8 {
		if high[c] <= low[c] {
			return uint8(v)
		}
		scale := 255 / float64(high[c]-low[c])
		return uint8(min(max(float64(float64(v)*scale)-float64(float64(low[c])*scale), 0), 255))
	})
}

// equalize is ImageOps.equalize: about as many samples of a channel get each value.
func equalize(img *Image) *Image {
	counts := histogram(img)
	var table [3][256]uint8
	for c := range table {
		total, last, kinds := 0, 0, 0
		for _, n := range counts[c] {
			if n > 0 {
				total, last, kinds = total+n, n, kinds+1
			}
		}
		step := (total - last) / 255
		sum := step / 2
		for v := range table[c] {
			if kinds <= 1 || step == 0 {
				table[c][v] = uint8(v)
				continue
			}
			table[c][v] = uint8(min(sum/step, 255))
			sum += counts[c][v]
		}
	}
	return mapSamples(img, func(c, v int) uint8 { return table[c][v] })
}
