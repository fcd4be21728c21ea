package vision

import (
	"image"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/model/vision/internal/jpeg"
)

// fuzzDecode checks that damaged files of one kind give an error or a whole image.
func fuzzDecode(f *testing.F, kind string) {
	files, _ := golden(f)
	for name, data := range files {
		if strings.Contains(name, kind) && len(data) < 2000 {
			f.Add(data)
		}
	}
	before := maxPixels
	maxPixels = 1 << 20
	f.Cleanup(func() { maxPixels = before })
	f.Fuzz(func(t *testing.T, data []byte) {
		var m *Image
		var err error
		if n := allocated(func() { m, err = Decode(data) }); n > 64*uint64(maxPixels)+100*uint64(len(data)) {
			t.Errorf("%d bytes allocated for a file of %d", n, len(data))
		}
		if err == nil && (m.Width <= 0 || m.Height <= 0 || len(m.Pix) != 3*m.Width*m.Height) {
			t.Errorf("%dx%d pixels in %d bytes", m.Width, m.Height, len(m.Pix))
		}
	})
}

func FuzzDecodeJPEG(f *testing.F) { fuzzDecode(f, "jpeg") }
func FuzzDecodePNG(f *testing.F)  { fuzzDecode(f, "png") }
func FuzzDecodeGIF(f *testing.F)  { fuzzDecode(f, "gif") }
func FuzzDecodeBMP(f *testing.F)  { fuzzDecode(f, "bmp") }
func FuzzDecodeTIFF(f *testing.F) { fuzzDecode(f, "tiff") }
func FuzzDecodeWebP(f *testing.F) { fuzzDecode(f, "webp") }

// FuzzJPEGBox checks that decoding a box of a file gives the pixels of the whole image, whatever
// the file.
func FuzzJPEGBox(f *testing.F) {
	files, _ := golden(f)
	for name, data := range files {
		if strings.HasPrefix(name, "jpeg") && len(data) < 4000 {
			f.Add(data, uint16(3), uint16(2), uint16(9), uint16(20))
			f.Add(data, uint16(17), uint16(20), uint16(1), uint16(1))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, x, y, w, h uint16) {
		d, err := jpeg.Open(data)
		if err != nil {
			return
		}
		width, height := d.Width, d.Height
		if width*height > 1<<18 {
			d.Close()
			return
		}
		all, err := d.Decode(image.Rect(0, 0, width, height), nil)
		if err != nil {
			return
		}
		box := image.Rect(int(x), int(y), int(x)+int(w), int(y)+int(h)).Intersect(image.Rect(0, 0, width, height))
		if box.Empty() {
			return
		}
		if d, err = jpeg.Open(data); err != nil {
			t.Fatal(err)
		}
		part, err := d.Decode(box, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := crop(&Image{width, height, all}, box.Min.X, box.Min.Y, box.Dx(), box.Dy())
		if string(part) != string(want.Pix) {
			t.Errorf("box %v of %dx%d differs from the whole image", box, width, height)
		}
	})
}
