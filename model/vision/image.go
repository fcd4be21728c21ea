// Package vision loads and transforms images exactly as Pillow and torchvision do.
//
// [Decode] turns an encoded file into 8-bit RGB with the pixels of
// ImageOps.exif_transpose(Image.open(f)).convert("RGB"), [Resize] resamples with the rounding of
// Pillow 13, and the transforms draw their random parameters and round their boxes as torchvision
// does on PIL images. A [Pipeline] chains them; it ends in uint8, and the arithmetic of ToTensor
// and Normalize is left to the model's graph, as [Pipeline.Mean] and [Pipeline.Std].
package vision

// Image is an 8-bit RGB picture: three bytes a pixel, rows from top to bottom without padding.
type Image struct {
	Width, Height int
	Pix           []uint8 // Height*Width*3 bytes
}

// NewImage returns a black image.
func NewImage(width, height int) *Image {
	return &Image{Width: width, Height: height, Pix: make([]uint8, 3*width*height)}
}

func (m *Image) row(y int) []uint8 {
	return m.Pix[3*m.Width*y : 3*m.Width*(y+1)]
}

// crop copies the box at (x, y) of w by h pixels. What lies outside the image is black, as in PIL.
func crop(m *Image, x, y, w, h int) *Image {
	if x == 0 && y == 0 && w == m.Width && h == m.Height {
		return m
	}
	out := NewImage(w, h)
	x0, x1 := max(x, 0), min(x+w, m.Width)
	if x0 >= x1 {
		return out
	}
	for r := max(y, 0); r < min(y+h, m.Height); r++ {
		copy(out.row(r - y)[3*(x0-x):], m.row(r)[3*x0:3*x1])
	}
	return out
}

// fill gives every pixel one colour.
func fill(m *Image, color [3]uint8) {
	for p := m.Pix; len(p) >= 3; p = p[3:] {
		p[0], p[1], p[2] = color[0], color[1], color[2]
	}
}

func clone(m *Image) *Image {
	return &Image{m.Width, m.Height, append([]uint8(nil), m.Pix...)}
}

// mirrorX exchanges left and right in place.
func mirrorX(m *Image) {
	for y := range m.Height {
		row := m.row(y)
		for len(row) >= 6 {
			n := len(row) - 3
			a, b := row[:3], row[n:]
			a[0], a[1], a[2], b[0], b[1], b[2] = b[0], b[1], b[2], a[0], a[1], a[2]
			row = row[3:n]
		}
	}
}

// mirrorY exchanges top and bottom in place.
func mirrorY(m *Image) {
	for y := range m.Height / 2 {
		a, b := m.row(y), m.row(m.Height-1-y)
		for i := range a {
			a[i], b[i] = b[i], a[i]
		}
	}
}

// transpose exchanges rows and columns.
func transpose(m *Image) *Image {
	out := NewImage(m.Height, m.Width)
	for y := range m.Height {
		src := m.row(y)
		for x := range m.Width {
			copy(out.Pix[3*(x*m.Height+y):][:3], src[3*x:])
		}
	}
	return out
}
