package vision

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
)

// standard adapts decoders with the signatures of the standard library.
func standard(config func(io.Reader) (image.Config, error), decode func(io.Reader) (image.Image, error)) func([]byte) (*Image, error) {
	return func(b []byte) (*Image, error) {
		c, err := config(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if err := checkSize(c.Width, c.Height); err != nil {
			return nil, err
		}
		m, err := decode(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		return toRGB(m)
	}
}

// toRGB copies the colours of an image without regard to its alpha. A premultiplied type is only
// accepted from decoders that use it for opaque images.
func toRGB(m image.Image) (*Image, error) {
	r := m.Bounds()
	out := NewImage(r.Dx(), r.Dy())
	switch m := m.(type) {
	case *image.NRGBA:
		pick(out, m.Pix, m.Stride, 4, 0, 1, 2)
	case *image.RGBA:
		pick(out, m.Pix, m.Stride, 4, 0, 1, 2)
	case *image.NRGBA64: // big-endian samples: the high bytes
		pick(out, m.Pix, m.Stride, 8, 0, 2, 4)
	case *image.RGBA64:
		pick(out, m.Pix, m.Stride, 8, 0, 2, 4)
	case *image.Gray:
		pick(out, m.Pix, m.Stride, 1, 0, 0, 0)
	case *image.Gray16:
		pickGray16(out, m)
	case *image.Paletted:
		colors := paletteRGB(m.Palette)
		for y := range out.Height {
			dst := out.row(y)
			for x, v := range m.Pix[y*m.Stride:][:out.Width] {
				copy(dst[3*x:3*x+3], colors[v][:])
			}
		}
	default:
		return nil, fmt.Errorf("pixels of type %T are not supported; convert the image to PNG", m)
	}
	return out, nil
}

// pick takes the bytes at three offsets of every pixel of size bytes.
func pick(out *Image, pix []uint8, stride, size, r, g, b int) {
	for y := range out.Height {
		src, dst := pix[y*stride:][:out.Width*size], out.row(y)
		for len(dst) >= 3 && len(src) >= size {
			dst[0], dst[1], dst[2] = src[r], src[g], src[b]
			src, dst = src[size:], dst[3:]
		}
	}
}

// pickGray16 cuts 16-bit grey off at 255, as Pillow does, instead of scaling it.
func pickGray16(out *Image, m *image.Gray16) {
	for y := range out.Height {
		src, dst := m.Pix[y*m.Stride:], out.row(y)
		for x := range out.Width {
			v := src[2*x+1]
			if src[2*x] != 0 {
				v = 255
			}
			dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
		}
	}
}

// decodePNG differs from image/png in one case: grey of 16 bits with a transparent value comes as
// NRGBA64 there, but is cut off like all 16-bit grey. It also refuses what Pillow takes for bombs.
func decodePNG(b []byte) (*Image, error) {
	if err := checkTexts(b); err != nil {
		return nil, err
	}
	const depthAt, colorAt = 24, 25
	grey16 := len(b) > colorAt && b[depthAt] == 16 && b[colorAt] == 0
	return standard(png.DecodeConfig, func(r io.Reader) (image.Image, error) {
		m, err := png.Decode(r)
		if wide, ok := m.(*image.NRGBA64); ok && err == nil && grey16 {
			grey := image.NewGray16(wide.Rect)
			for i := range len(grey.Pix) / 2 {
				copy(grey.Pix[2*i:2*i+2], wide.Pix[8*i:])
			}
			return grey, nil
		}
		return m, err
	})(b)
}

// paletteRGB gives the colours of a palette; the entries it lacks are black.
func paletteRGB(p color.Palette) (colors [256][3]uint8) {
	for i, c := range p[:min(len(p), 256)] {
		n := color.NRGBAModel.Convert(c).(color.NRGBA)
		colors[i] = [3]uint8{n.R, n.G, n.B}
	}
	return colors
}
