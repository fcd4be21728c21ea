package vision

import (
	"errors"
	"fmt"
	"image"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/hubtool/hubtool/model/vision/internal/jpeg"
)

// Pipeline prepares samples: its steps on the 8-bit image, then ToTensor and Normalize. The latter
// two are not run here: the caller computes (x/255 - Mean) / Std in its graph. Mixers are for whole
// batches, by [Pipeline.Mix]. A pipeline may be used by several goroutines at a time.
type Pipeline struct {
	Steps     []Transform
	Mean, Std [3]float32 // of red, green and blue in [0, 1]
	Mixers    []Mixer    // one of them is drawn for each batch
}

// Apply runs the steps on img, which it leaves unchanged. It fails if a step cannot take an image
// of that size.
func (p *Pipeline) Apply(img *Image, rng *rand.Rand) (*Image, error) {
	if img == nil || img.Width <= 0 || img.Height <= 0 || len(img.Pix) != 3*img.Width*img.Height {
		return nil, errors.New("transforming image: it is empty, or its size does not match its pixels")
	}
	r, steps, err := p.plan(img.Width, img.Height, rng)
	if err != nil {
		return nil, err
	}
	if r != nil {
		return run(steps, r.resize(img.view()), true, rng)
	}
	return run(steps, img, false, rng)
}

// Load decodes an image file and applies the steps. The result is that of [Decode] and
// [Pipeline.Apply], but of a JPEG file only the part is decoded that the steps use.
func (p *Pipeline) Load(data []byte, rng *rand.Rand) (*Image, error) {
	f, err := formatOf(data)
	if err != nil {
		return nil, err
	}
	if _, turned := orientations[orientation(f.metadata(data))]; turned || f.name != "JPEG" {
		img, err := Decode(data)
		if err != nil {
			return nil, err
		}
		return p.Apply(img, rng)
	}
	d, err := openJPEG(data)
	if err != nil {
		return nil, f.failed(err)
	}
	box := image.Rect(0, 0, d.Width, d.Height)
	r, steps, err := p.plan(d.Width, d.Height, rng)
	if err != nil {
		d.Close()
		return nil, err
	}
	if r == nil {
		pix, err := d.Decode(box, nil)
		if err != nil {
			return nil, f.failed(err)
		}
		return run(steps, &Image{box.Dx(), box.Dy(), pix}, true, rng)
	}
	box = needed(r.from, r.w, r.h, r.filter, r.part)
	buf := pixels.Get().(*[]uint8)
	defer pixels.Put(buf)
	if *buf, err = d.Decode(box, *buf); err != nil {
		return nil, f.failed(err)
	}
	return run(steps, r.resize(view{box, *buf}), true, rng)
}

// pixels are buffers for decoded images that are resized at once.
var pixels = sync.Pool{New: func() any { return new([]uint8) }}

func openJPEG(data []byte) (*jpeg.Decoder, error) {
	d, err := jpeg.Open(data)
	if err != nil {
		return nil, err
	}
	if err := checkSize(d.Width, d.Height); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// A resizing is a crop, a resize and a second crop in one.
type resizing struct {
	from   image.Rectangle
	w, h   int
	filter Filter
	part   image.Rectangle
}

func (r *resizing) resize(v view) *Image {
	return resizePart(v, r.from, r.w, r.h, r.filter, r.part)
}

// plan takes the leading steps together that cut, resize and cut, if there are any and if they
// change an image of this size, and returns the steps that remain.
func (p *Pipeline) plan(width, height int, rng *rand.Rand) (*resizing, []Transform, error) {
	steps := p.Steps
	if len(steps) == 0 {
		return nil, steps, nil
	}
	t, ok := steps[0].(resizer)
	if !ok {
		return nil, steps, nil
	}
	if err := checkStep(steps[0], width, height); err != nil {
		return nil, nil, err
	}
	var r resizing
	r.from, r.w, r.h, r.filter = t.geometry(width, height, rng)
	r.part = image.Rect(0, 0, r.w, r.h)
	steps = steps[1:]
	if len(steps) > 0 {
		if c, ok := steps[0].(cutter); ok {
			x, y := c.offset(r.w, r.h)
			w, h := c.outputSize(r.w, r.h)
			if part := image.Rect(x, y, x+w, y+h); part.In(r.part) {
				r.part, steps = part, steps[1:]
			}
		}
	}
	if whole := image.Rect(0, 0, width, height); r.from == whole && r.part == whole && r.w == width && r.h == height {
		return nil, steps, nil
	}
	return &r, steps, nil
}

// run applies steps to an image, which they may change if it is owned.
func run(steps []Transform, img *Image, owned bool, rng *rand.Rand) (*Image, error) {
	for _, t := range steps {
		if err := checkStep(t, img.Width, img.Height); err != nil {
			return nil, err
		}
		if f, ok := t.(inPlacer); ok && owned {
			f.applyInPlace(img, rng)
			continue
		}
		out := t.Apply(img, rng)
		owned = owned || out != img
		img = out
	}
	return img, nil
}

func checkStep(t Transform, width, height int) error {
	if c, ok := t.(checker); ok {
		if err := c.check(width, height); err != nil {
			return fmt.Errorf("transforming image of %d by %d pixels: %s: %w", width, height, t, err)
		}
	}
	return nil
}

// OutputSize returns the size of every image the pipeline makes; ok is false if it depends on the
// input, so that the images do not fit into one batch.
func (p *Pipeline) OutputSize() (w, h int, ok bool) {
	for _, t := range p.Steps {
		s, known := t.(sizer)
		if !known {
			w, h = 0, 0
			continue
		}
		w, h = s.outputSize(w, h)
	}
	return w, h, w > 0 && h > 0
}

// Values gives what ToTensor and Normalize make of each sample, by channel: (x/255 - Mean) / Std in
// single precision.
func (p *Pipeline) Values() (table [3][256]float32) {
	for c := range table {
		for x := range table[c] {
			table[c][x] = (float32(x)/255 - p.Mean[c]) / p.Std[c]
		}
	}
	return table
}

// String gives the pipeline as torchvision prints a Compose.
func (p *Pipeline) String() string {
	triple := func(v [3]float32) string {
		return fmt.Sprintf("(%v, %v, %v)", v[0], v[1], v[2])
	}
	var b strings.Builder
	b.WriteString("Compose(\n")
	for _, t := range p.Steps {
		fmt.Fprintf(&b, "    %s\n", t)
	}
	fmt.Fprintf(&b, "    ToTensor()\n    Normalize(mean=%s, std=%s)\n", triple(p.Mean), triple(p.Std))
	for _, m := range p.Mixers {
		fmt.Fprintf(&b, "    %s\n", m)
	}
	b.WriteString(")")
	return b.String()
}

// Processor is transformers' ViTImageProcessor with the PIL backend: an image of any shape becomes
// w by h pixels, which are then normalized. A processor that crops, too, is a Pipeline of [ResizeTo]
// and [ProcessorCrop].
func Processor(w, h int, f Filter, mean, std [3]float32) *Pipeline {
	return &Pipeline{Steps: []Transform{ResizeTo{Height: h, Width: w, Filter: f}}, Mean: mean, Std: std}
}

// Fixed tells whether an image always becomes the same, whatever is drawn and whatever it is in a batch
// with.
func (p *Pipeline) Fixed() bool {
	for _, step := range p.Steps {
		switch step.(type) {
		case ResizeTo, CenterCrop, ProcessorCrop, Pad, Grayscale:
		default:
			return false
		}
	}
	return len(p.Mixers) == 0
}
