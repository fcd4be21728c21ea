package vision

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// ColorJitter changes brightness, contrast, saturation and hue, in random order, by factors from
// the given ranges. Nil leaves a property alone.
type ColorJitter struct {
	Brightness, Contrast, Saturation *[2]float64 // factors; 1 changes nothing
	Hue                              *[2]float64 // turns of the colour circle, -0.5 to 0.5
}

// Apply implements [Transform].
func (t ColorJitter) Apply(img *Image, rng *rand.Rand) *Image {
	adjust := [4]func(*Image, float32) *Image{adjustBrightness, adjustContrast, adjustSaturation, adjustHue}
	order := permutation(rng, len(adjust))
	var factors [4]float32
	ranges := [4]*[2]float64{t.Brightness, t.Contrast, t.Saturation, t.Hue}
	for i, r := range ranges {
		if r != nil {
			factors[i] = uniform(rng, float32(r[0]), float32(r[1]))
		}
	}
	for _, i := range order {
		if ranges[i] != nil {
			img = adjust[i](img, factors[i])
		}
	}
	return img
}

func (t ColorJitter) outputSize(width, height int) (w, h int) { return width, height }

func (t ColorJitter) String() string {
	show := func(r *[2]float64) string {
		if r == nil {
			return "None"
		}
		return "(" + float(r[0]) + ", " + float(r[1]) + ")"
	}
	return fmt.Sprintf("ColorJitter(brightness=%s, contrast=%s, saturation=%s, hue=%s)",
		show(t.Brightness), show(t.Contrast), show(t.Saturation), show(t.Hue))
}

// RandomGrayscale replaces the colours by their luma with probability P.
type RandomGrayscale struct{ P float64 }

// Apply implements [Transform].
func (t RandomGrayscale) Apply(img *Image, rng *rand.Rand) *Image {
	if !chance(rng, t.P) {
		return img
	}
	return grayscale(img)
}

func (t RandomGrayscale) outputSize(width, height int) (w, h int) { return width, height }

func (t RandomGrayscale) String() string { return fmt.Sprintf("RandomGrayscale(p=%s)", float(t.P)) }

// Grayscale replaces the colours by their luma and keeps three channels.
type Grayscale struct{}

// Apply implements [Transform].
func (t Grayscale) Apply(img *Image, _ *rand.Rand) *Image { return grayscale(img) }

func (t Grayscale) outputSize(width, height int) (w, h int) { return width, height }

func (t Grayscale) String() string { return "Grayscale(num_output_channels=3)" }

// luma is Pillow's conversion from RGB to L: ITU-R 601-2 in 16 fraction bits.
func luma(p []uint8) uint8 {
	return uint8((uint32(p[0])*19595 + uint32(p[1])*38470 + uint32(p[2])*7471 + 0x8000) >> 16)
}

// mapPixels makes a new image by a function from pixel to pixel.
func mapPixels(img *Image, f func(dst, src []uint8)) *Image {
	out := NewImage(img.Width, img.Height)
	for src, dst := img.Pix, out.Pix; len(src) >= 3 && len(dst) >= 3; src, dst = src[3:], dst[3:] {
		f(dst[:3], src[:3])
	}
	return out
}

func grayscale(img *Image) *Image {
	return mapPixels(img, func(dst, src []uint8) {
		l := luma(src)
		dst[0], dst[1], dst[2] = l, l, l
	})
}

// blend is a sample of ImageChops.blend: alpha 0 gives a, 1 gives b, and others go on beyond.
func blend(a, b uint8, alpha float32) uint8 {
	v := float32(a) + float32(alpha*float32(int(b)-int(a)))
	return uint8(min(max(v, 0), 255))
}

// blendWith blends the image with one grey value, which is where a factor of 0 leads.
func blendWith(grey uint8, img *Image, factor float32) *Image {
	var table [256]uint8
	for i := range table {
		table[i] = blend(grey, uint8(i), factor)
	}
	out := NewImage(img.Width, img.Height)
	for i, v := range img.Pix {
		out.Pix[i] = table[v]
	}
	return out
}

func adjustBrightness(img *Image, factor float32) *Image { return blendWith(0, img, factor) }

func adjustContrast(img *Image, factor float32) *Image {
	sum := 0
	for p := img.Pix; len(p) >= 3; p = p[3:] {
		sum += int(luma(p))
	}
	mean := float64(sum) / float64(img.Width*img.Height)
	return blendWith(uint8(mean+0.5), img, factor)
}

func adjustSaturation(img *Image, factor float32) *Image {
	return mapPixels(img, func(dst, src []uint8) {
		l := luma(src)
		dst[0], dst[1], dst[2] = blend(l, src[0], factor), blend(l, src[1], factor), blend(l, src[2], factor)
	})
}

// adjustHue turns the colour circle, whose 255 steps Pillow's HSV mode keeps in eight bits.
func adjustHue(img *Image, turn float32) *Image {
	steps := uint8(int32(float64(turn) * 255))
	return mapPixels(img, func(dst, src []uint8) {
		h, s, v := toHSV(src)
		fromHSV(dst, h+steps, s, v)
	})
}

// toHSV mixes single and double precision as Pillow's C code does; so does fromHSV.
func toHSV(p []uint8) (h, s, v uint8) {
	r, g, b := p[0], p[1], p[2]
	highest, lowest := max(r, g, b), min(r, g, b)
	if highest == lowest {
		return 0, 0, highest
	}
	span := float32(highest - lowest)
	fromR, fromG, fromB := float32(highest-r)/span, float32(highest-g)/span, float32(highest-b)/span
	var hue float32
	switch highest {
	case r:
		hue = fromB - fromG
	case g:
		hue = float32(2 + float64(fromR) - float64(fromB))
	default:
		hue = float32(4 + float64(fromG) - float64(fromR))
	}
	hue = float32(math.Mod(float64(hue)/6+1, 1))
	return uint8(float64(hue) * 255), uint8(float64(span/float32(highest)) * 255), highest
}

func fromHSV(dst []uint8, h, s, v uint8) {
	if s == 0 {
		dst[0], dst[1], dst[2] = v, v, v
		return
	}
	sector := math.Floor(float64(h) * 6 / 255)
	f := float32(float64(h)*6/255 - sector)
	fs := float32(float64(s) / 255)
	scaled := func(x float64) uint8 { return uint8(min(max(math.Round(float64(v)*x), 0), 255)) }
	p := scaled(1 - float64(fs))
	q := scaled(1 - float64(float32(fs*f)))
	t := scaled(1 - float64(float64(fs)*(1-float64(f))))
	var c [3]uint8
	switch int(sector) % 6 {
	case 0:
		c = [3]uint8{v, t, p}
	case 1:
		c = [3]uint8{q, v, p}
	case 2:
		c = [3]uint8{p, v, t}
	case 3:
		c = [3]uint8{p, q, v}
	case 4:
		c = [3]uint8{t, p, v}
	case 5:
		c = [3]uint8{v, p, q}
	}
	copy(dst, c[:])
}
