package vision

import (
	"image"

	"github.com/hubtool/hubtool/model/vision/internal/jpeg"
)

func decodeJPEG(b []byte) (*Image, error) {
	d, err := jpeg.Open(b)
	if err != nil {
		return nil, err
	}
	w, h := d.Width, d.Height
	if err := checkSize(w, h); err != nil {
		d.Close()
		return nil, err
	}
	pix, err := d.Decode(image.Rect(0, 0, w, h))
	if err != nil {
		return nil, err
	}
	return &Image{Width: w, Height: h, Pix: pix}, nil
}
