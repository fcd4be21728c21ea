package vision

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"io"
)

// standard adapts a decoder of the standard library's shape.
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

// toRGB drops alpha without blending and keeps the high byte of 16-bit samples.
func toRGB(m image.Image) (*Image, error) {
	r := m.Bounds()
	out := NewImage(r.Dx(), r.Dy())
	dst := out.Pix
	put := func(r, g, b uint8) {
		dst[0], dst[1], dst[2] = r, g, b
		dst = dst[3:]
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			switch m := m.(type) {
			case *image.NRGBA:
				c := m.NRGBAAt(x, y)
				put(c.R, c.G, c.B)
			case *image.NRGBA64:
				c := m.NRGBA64At(x, y)
				put(uint8(c.R>>8), uint8(c.G>>8), uint8(c.B>>8))
			case *image.Paletted:
				c := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
				put(c.R, c.G, c.B)
			case *image.RGBA, *image.RGBA64, *image.Gray, *image.Gray16, *image.YCbCr, *image.NYCbCrA:
				r, g, b, _ := m.At(x, y).RGBA()
				put(uint8(r>>8), uint8(g>>8), uint8(b>>8))
			default:
				return nil, fmt.Errorf("pixels of type %T are not supported; convert the image to PNG", m)
			}
		}
	}
	return out, nil
}
