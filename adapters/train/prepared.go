package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
)

// preparing names what [Prepare] does to images; another way has another name, so that old files are not taken for it.
const preparing = "decode, then bilinear to an area of side x side at most, sides rounded down"

// Prepare opens the file in the cache that keeps the images of rows decoded and, where they are larger than side x side
// pixels, as small as that with their proportions. Its name follows from the content of the rows. It is for
// [Loader.Prepared], which fills it in the first epoch.
func Prepare(cache dataset.Cache, rows *dataset.Rows, side int) (*dataset.Prepared, error) {
	content, err := rows.Fingerprint()
	if err != nil {
		return nil, fmt.Errorf("preparing images: %w", err)
	}
	where, _ := rows.Where(0)
	return cache.Prepare(preparing+content, fmt.Sprintf("%d images of up to %dx%d pixels of %s", rows.Len(), side, side, where), rows.Len(), side)
}

// samplePrepared is sample from the prepared file, into which it puts an image that is not there.
func (l *Loader) samplePrepared(i int, rng *rand.Rand, pixels []byte) (label int32, err error) {
	buf := preparedPixels.Get().(*[]byte)
	defer preparedPixels.Put(buf)
	var img *vision.Image
	row := dataset.Row{Label: -1}
	labels, known := l.Source.(interface{ Label(i int) int })
	if pix, w, h, ok := l.Prepared.Get(i, *buf); ok && known {
		*buf = pix[:cap(pix)]
		img, row.Label = &vision.Image{Width: w, Height: h, Pix: pix}, labels.Label(i)
	} else {
		if row, err = l.Source.At(i); err != nil {
			return 0, err
		}
		if img, err = vision.Decode(row.Image); err != nil {
			return 0, l.damaged(i, row, err)
		}
		img = smaller(img, l.Prepared.Side())
		if err := l.Prepared.Put(i, img.Pix, img.Width, img.Height); err != nil {
			return 0, err
		}
	}
	if err := l.checkLabel(row.Label); err != nil {
		return 0, l.damaged(i, row, err)
	}
	if img, err = l.Pipeline.Apply(img, rng); err != nil {
		return 0, l.damaged(i, row, err)
	}
	copy(pixels, img.Pix)
	return int32(row.Label), nil
}

// preparedSide is 0 where nothing is prepared.
func (l *Loader) preparedSide() int {
	if l.Prepared == nil {
		return 0
	}
	return l.Prepared.Side()
}

// preparedPixels are buffers for images on their way through the transforms.
var preparedPixels = sync.Pool{New: func() any { return new([]byte) }}

// smaller resizes an image to an area of side x side pixels at most, with its proportions.
func smaller(img *vision.Image, side int) *vision.Image {
	scale := float64(side) / math.Sqrt(float64(img.Width)*float64(img.Height))
	if scale >= 1 {
		return img
	}
	// An extremely long image keeps a width of one pixel; then the other side gives way.
	w := min(max(1, int(float64(img.Width)*scale)), side*side)
	h := min(max(1, int(float64(img.Height)*scale)), side*side/w)
	return vision.Resize(img, w, max(1, h), vision.Bilinear)
}
