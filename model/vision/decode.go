package vision

import (
	"errors"
	"fmt"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

// maxPixels is where Pillow refuses an image as a decompression bomb: twice MAX_IMAGE_PIXELS. The
// fuzz tests set it lower, to save memory.
var maxPixels = 2 * (1 << 30 / 4 / 3)

// ErrFormat means that the bytes are no image of a kind that [Decode] reads.
var ErrFormat = errors.New("it is not a PNG, JPEG, WebP, GIF, BMP or TIFF image")

// Decode reads an image file (PNG, JPEG, WebP, GIF, BMP or TIFF; of an animation the first frame)
// as 8-bit RGB with its EXIF orientation applied. As with PIL's convert("RGB"), alpha is dropped
// without blending, grey and palette images are expanded, colour samples of 16 bits lose the low
// eight, and grey ones of 16 bits are cut off at 255.
//
// Damaged files are errors where Pillow cannot read them: JPEG data may be damaged, but no file may
// end early. So is any image above Pillow's limit of 178,956,970 pixels.
func Decode(b []byte) (*Image, error) {
	f, err := formatOf(b)
	if err != nil {
		return nil, err
	}
	m, err := f.decode(b)
	if err != nil {
		return nil, f.failed(err)
	}
	return orient(m, orientation(f.metadata(b))), nil
}

// A format is one kind of file. The metadata may hold an EXIF block and an XMP packet.
type format struct {
	name     string
	magic    []string // alternatives; '?' stands for any byte
	decode   func(b []byte) (*Image, error)
	metadata func(b []byte) (exif, xmp []byte)
}

var formats = []format{
	{"JPEG", []string{"\xff\xd8\xff"}, decodeJPEG, jpegMetadata},
	{"PNG", []string{"\x89PNG\r\n\x1a\n"}, decodePNG, pngMetadata},
	{"WebP", []string{"RIFF????WEBP"}, decodeWebP, webpMetadata},
	{"GIF", []string{"GIF87a", "GIF89a"}, decodeGIF, noMetadata},
	{"BMP", []string{"BM"}, standard(bmp.DecodeConfig, bmp.Decode), noMetadata},
	{"TIFF", []string{"II*\x00", "MM\x00*"}, standard(tiff.DecodeConfig, tiff.Decode), tiffMetadata},
}

func formatOf(b []byte) (*format, error) {
	for i := range formats {
		for _, magic := range formats[i].magic {
			if matches(b, magic) {
				return &formats[i], nil
			}
		}
	}
	return nil, fmt.Errorf("decoding image of %d bytes: %w", len(b), ErrFormat)
}

func matches(b []byte, magic string) bool {
	if len(b) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && magic[i] != b[i] {
			return false
		}
	}
	return true
}

func (f *format) failed(err error) error {
	return fmt.Errorf("decoding %s image: %w", f.name, err)
}

func checkSize(w, h int) error {
	if w <= 0 || h <= 0 {
		return fmt.Errorf("it is %d by %d pixels", w, h)
	}
	if w > maxPixels/h {
		return fmt.Errorf("it has %d by %d pixels, above the limit of %d against decompression bombs; make it smaller", w, h, maxPixels)
	}
	return nil
}
