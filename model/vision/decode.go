package vision

import (
	"bytes"
	"errors"
	"fmt"
	"image/gif"
	"image/png"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// maxPixels is where Pillow refuses an image as a decompression bomb: twice MAX_IMAGE_PIXELS.
const maxPixels = 2 * (1 << 30 / 4 / 3)

// ErrFormat means that the bytes are no image of a kind this package reads.
var ErrFormat = errors.New("not a PNG, JPEG, WebP, GIF, BMP or TIFF image")

// Decode reads an image file (PNG, JPEG, WebP, GIF, BMP or TIFF; of an animation the first frame)
// as 8-bit RGB with its EXIF orientation applied. Alpha is dropped without blending, grey and
// palette images are expanded, as by PIL's convert("RGB"). Damaged and truncated files are errors,
// and so is any image above the pixel limit of Pillow (178,956,970).
func Decode(b []byte) (*Image, error) {
	for _, f := range formats {
		if !f.match(b) {
			continue
		}
		m, err := f.decode(b)
		if err != nil {
			return nil, fmt.Errorf("decoding %s image: %w", f.name, err)
		}
		return m, nil
	}
	return nil, fmt.Errorf("decoding image of %d bytes: %w", len(b), ErrFormat)
}

type format struct {
	name   string
	match  func([]byte) bool
	decode func([]byte) (*Image, error)
}

var formats = []format{
	{"JPEG", prefix("\xff\xd8\xff"), decodeJPEG},
	{"PNG", prefix("\x89PNG\r\n\x1a\n"), standard(png.DecodeConfig, png.Decode)},
	{"WebP", func(b []byte) bool { return len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP" },
		standard(webp.DecodeConfig, webp.Decode)},
	{"GIF", prefix("GIF8"), standard(gif.DecodeConfig, gif.Decode)},
	{"BMP", prefix("BM"), standard(bmp.DecodeConfig, bmp.Decode)},
	{"TIFF", prefix("II*\x00", "MM\x00*"), standard(tiff.DecodeConfig, tiff.Decode)},
}

func prefix(magic ...string) func([]byte) bool {
	return func(b []byte) bool {
		for _, m := range magic {
			if bytes.HasPrefix(b, []byte(m)) {
				return true
			}
		}
		return false
	}
}

func checkSize(w, h int) error {
	if w <= 0 || h <= 0 {
		return fmt.Errorf("the image is %d by %d pixels", w, h)
	}
	if w > maxPixels/h {
		return fmt.Errorf("the image has %d by %d pixels, above the limit of %d against decompression bombs", w, h, maxPixels)
	}
	return nil
}
