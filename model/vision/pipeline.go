package vision

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Pipeline prepares samples: its steps on the 8-bit image, then ToTensor and Normalize, which
// are not run here: the caller computes (x/255 - Mean) / Std in its graph.
type Pipeline struct {
	Steps     []Transform
	Mean, Std [3]float32 // of the channels red, green, blue, for values in [0, 1]
}

// Apply runs the steps on img, which it leaves unchanged.
func (p *Pipeline) Apply(img *Image, rng *rand.Rand) (*Image, error) {
	if img == nil || img.Width <= 0 || img.Height <= 0 || len(img.Pix) != 3*img.Width*img.Height {
		return nil, fmt.Errorf("transforming image: it has no pixels, or not as many as its size says")
	}
	for _, t := range p.Steps {
		out := t.Apply(img, rng)
		if out.Width == 0 || out.Height == 0 {
			return nil, fmt.Errorf("transforming image: %s leaves nothing of %d by %d pixels", t, img.Width, img.Height)
		}
		img = out
	}
	return img, nil
}

// Load decodes an image file and applies the steps.
func (p *Pipeline) Load(data []byte, rng *rand.Rand) (*Image, error) {
	img, err := Decode(data)
	if err != nil {
		return nil, err
	}
	return p.Apply(img, rng)
}

// OutputSize returns the size of every image the pipeline makes; ok is false if it varies with
// the input, so that images cannot be put in one batch.
func (p *Pipeline) OutputSize() (w, h int, ok bool) {
	for _, t := range p.Steps {
		switch t := t.(type) {
		case RandomResizedCrop:
			w, h, ok = t.Width, t.Height, true
		case CenterCrop:
			w, h, ok = t.Width, t.Height, true
		case ResizeTo:
			if t.Width == 0 && !(ok && w == h) {
				ok = false
			} else {
				w, h = t.size(w, h)
				ok = true
			}
		case Pad:
			w, h = w+t.Left+t.Right, h+t.Top+t.Bottom
		}
	}
	return w, h, ok
}

// String gives the pipeline as torchvision would print its Compose.
func (p *Pipeline) String() string {
	var b strings.Builder
	b.WriteString("Compose(\n")
	for _, t := range p.Steps {
		fmt.Fprintf(&b, "    %s\n", t)
	}
	fmt.Fprintf(&b, "    ToTensor()\n    Normalize(mean=%v, std=%v)\n)", p.Mean, p.Std)
	return b.String()
}

// Processor is transformers' ViTImageProcessor with the PIL backend: an image of any shape becomes
// w by h pixels, then normalised values.
func Processor(w, h int, f Filter, mean, std [3]float32) *Pipeline {
	return &Pipeline{Steps: []Transform{ResizeTo{Height: h, Width: w, Filter: f}}, Mean: mean, Std: std}
}
