package vision

import "image"

func decodeJPEG(b []byte) (*Image, error) {
	d, err := openJPEG(b)
	if err != nil {
		return nil, err
	}
	w, h := d.Width, d.Height
	pix, err := d.Decode(image.Rect(0, 0, w, h), nil)
	if err != nil {
		return nil, err
	}
	return &Image{w, h, pix}, nil
}
