package vision

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
)

// RandomRotation turns the image, counter-clockwise, by an angle from the range Degrees, around
// its middle or Center. With Expand the result is as large as the turned image; otherwise the
// corners are cut off.
type RandomRotation struct {
	Degrees [2]float64
	Filter  Filter // Nearest, Bilinear or Bicubic
	Expand  bool
	Center  *[2]float64 // x, y in pixels
	Fill    [3]uint8
}

// Apply implements [Transform].
func (t RandomRotation) Apply(img *Image, rng *rand.Rand) *Image {
	angle := float64(uniform(rng, float32(t.Degrees[0]), float32(t.Degrees[1])))
	return t.rotate(img, angle)
}

func (t RandomRotation) outputSize(width, height int) (w, h int) {
	if t.Expand && t.Degrees != [2]float64{} {
		return 0, 0
	}
	return width, height
}

func (t RandomRotation) String() string {
	expand, center := "False", ""
	if t.Expand {
		expand = "True"
	}
	if t.Center != nil {
		center = fmt.Sprintf(", center=(%v, %v)", t.Center[0], t.Center[1])
	}
	fill := fmt.Sprintf("(%d, %d, %d)", t.Fill[0], t.Fill[1], t.Fill[2])
	if t.Fill[0] == t.Fill[1] && t.Fill[1] == t.Fill[2] {
		fill = strconv.Itoa(int(t.Fill[0]))
	}
	return fmt.Sprintf("RandomRotation(degrees=[%s, %s], interpolation=%s, expand=%s%s, fill=%s)",
		float(t.Degrees[0]), float(t.Degrees[1]), t.Filter, expand, center, fill)
}

// rotate is Image.rotate. Right angles move whole pixels; all others go through an affine map from
// the pixels of the result to those of the image.
func (t RandomRotation) rotate(img *Image, angle float64) *Image {
	angle = math.Mod(angle, 360)
	if angle < 0 {
		angle += 360
	}
	if t.Center == nil {
		// EXIF's orientations 3, 8 and 6 stand for these turns.
		switch square := t.Expand || img.Width == img.Height; {
		case angle == 0:
			return img
		case angle == 180:
			return orient(clone(img), 3)
		case angle == 90 && square:
			return orient(img, 8)
		case angle == 270 && square:
			return orient(img, 6)
		}
	}
	w, h := img.Width, img.Height
	cx, cy := float64(w)/2, float64(h)/2
	if t.Center != nil {
		cx, cy = t.Center[0], t.Center[1]
	}
	sin, cos := math.Sincos(-angle * (math.Pi / 180))
	m := affine{fifteen(cos), fifteen(sin), 0, fifteen(-sin), fifteen(cos), 0}
	m[2], m[5] = m.at(-cx, -cy)
	m[2] += cx
	m[5] += cy
	if t.Expand {
		left, top, right, bottom := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
		for _, corner := range [4][2]int{{0, 0}, {w, 0}, {w, h}, {0, h}} {
			x, y := m.at(float64(corner[0]), float64(corner[1]))
			left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
		}
		newW, newH := int(math.Ceil(right)-math.Floor(left)), int(math.Ceil(bottom)-math.Floor(top))
		m[2], m[5] = m.at(float64(w-newW)/2, float64(h-newH)/2)
		w, h = newW, newH
	}
	out := NewImage(w, h)
	if t.Fill != [3]uint8{} {
		fill(out, t.Fill)
	}
	m.transform(out, img, t.Filter)
	return out
}

// fifteen rounds to fifteen decimals, as Python's round(x, 15).
func fifteen(x float64) float64 {
	v, err := strconv.ParseFloat(strconv.FormatFloat(x, 'f', 15, 64), 64)
	if err != nil {
		return x
	}
	return v
}

// An affine map is x*m[0] + y*m[1] + m[2] and x*m[3] + y*m[4] + m[5].
type affine [6]float64

func (m affine) at(x, y float64) (float64, float64) {
	return float64(m[0]*x) + float64(m[1]*y) + m[2], float64(m[3]*x) + float64(m[4]*y) + m[5]
}

// transform fills the pixels of out that the map takes into img.
func (m affine) transform(out, img *Image, f Filter) {
	switch {
	case f == Bilinear:
		m.interpolate(out, img, 2, linear)
	case f == Bicubic:
		m.interpolate(out, img, 4, cubic)
	case m[1] == 0 && m[3] == 0:
		m.scale(out, img)
	default:
		m.nearest(out, img)
	}
}

// scale picks pixels for a map without rotation; Pillow adds its positions up in floats then.
func (m affine) scale(out, img *Image) {
	y := m[5] + m[4]*0.5
	for oy := range out.Height {
		x := m[2] + m[0]*0.5
		for ox := range out.Width {
			copyPixel(out, img, ox, oy, int(math.Floor(x)), int(math.Floor(y)))
			x += m[0]
		}
		y += m[4]
	}
}

// nearest picks pixels with Pillow's 16 fraction bits.
func (m affine) nearest(out, img *Image) {
	fix := func(v float64) int { return int(math.Floor(float64(v*65536) + 0.5)) }
	x0, y0 := fix(m[2]+m[0]*0.5+m[1]*0.5), fix(m[5]+m[3]*0.5+m[4]*0.5)
	for oy := range out.Height {
		x, y := x0, y0
		for ox := range out.Width {
			copyPixel(out, img, ox, oy, x>>16, y>>16)
			x += fix(m[0])
			y += fix(m[3])
		}
		x0 += fix(m[1])
		y0 += fix(m[4])
	}
}

func copyPixel(out, img *Image, ox, oy, x, y int) {
	if x >= 0 && x < img.Width && y >= 0 && y < img.Height {
		copy(out.row(oy)[3*ox:3*ox+3], img.row(y)[3*x:])
	}
}

// interpolate mixes taps by taps pixels around each position, first along the rows. Positions
// outside of the image keep their colour; neighbours outside repeat the edge.
func (m affine) interpolate(out, img *Image, taps int, mix func(v []float64, d float64) float64) {
	before := taps/2 - 1
	var line, column [4]float64
	for oy := range out.Height {
		for ox := range out.Width {
			x, y := m.at(float64(ox)+0.5, float64(oy)+0.5)
			if x < 0 || x >= float64(img.Width) || y < 0 || y >= float64(img.Height) {
				continue
			}
			x, y = x-0.5, y-0.5
			x0, y0 := math.Floor(x), math.Floor(y)
			for c := range 3 {
				for j := range taps {
					row := img.row(min(max(int(y0)-before+j, 0), img.Height-1))
					for i := range taps {
						line[i] = float64(row[3*min(max(int(x0)-before+i, 0), img.Width-1)+c])
					}
					column[j] = mix(line[:taps], x-x0)
				}
				out.row(oy)[3*ox+c] = uint8(min(max(mix(column[:taps], y-y0), 0), 255))
			}
		}
	}
}

func linear(v []float64, d float64) float64 {
	return v[0] + float64((v[1]-v[0])*d)
}

func cubic(v []float64, d float64) float64 {
	p2 := -v[0] + v[2]
	p3 := float64(2*(v[0]-v[1])) + v[2] - v[3]
	p4 := -v[0] + v[1] - v[2] + v[3]
	return v[1] + float64(d*(p2+float64(d*(p3+float64(d*p4)))))
}
