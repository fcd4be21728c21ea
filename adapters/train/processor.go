package train

import (
	"fmt"
	"math"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/vision"
)

// fromImageConfig turns the settings of a ViTImageProcessor into the pipeline of its PIL backend, for
// a model that takes images of height h and width w.
func fromImageConfig(c *format.ImageConfig, h, w int, path string) (*vision.Pipeline, error) {
	fail := func(kind error, why string, args ...any) (*vision.Pipeline, error) {
		return nil, fmt.Errorf("reading %q: %w: "+why, append([]any{path, kind}, args...)...)
	}
	filter := vision.Filter(c.Resample) // both have PIL's numbers
	switch {
	case !c.DoResize && !c.DoCenterCrop:
		return fail(format.ErrUnsupported, "do_resize and do_center_crop are false, so that images keep their size, but the model needs %dx%d", w, h)
	case c.DoRescale && math.Abs(c.RescaleFactor*255-1) > 1e-6:
		return fail(format.ErrUnsupported, "rescale_factor is %v, and not 1/255", c.RescaleFactor)
	}
	p := &vision.Pipeline{Mean: c.Mean, Std: c.Std}
	if !c.DoNormalize {
		p.Mean, p.Std = [3]float32{}, [3]float32{1, 1, 1}
	}
	if !c.DoRescale { // the graph divides by 255
		for i := range p.Std {
			p.Mean[i], p.Std[i] = p.Mean[i]/255, p.Std[i]/255
		}
	}
	if c.DoResize {
		size := vision.ResizeTo{Height: c.Size.Height, Width: c.Size.Width, Filter: filter}
		if c.Size.ShortestEdge > 0 {
			size = vision.ResizeTo{Height: c.Size.ShortestEdge, Filter: filter}
		}
		p.Steps = append(p.Steps, size)
	}
	if c.DoCenterCrop {
		crop := vision.ProcessorCrop{Height: c.CropSize.Height, Width: c.CropSize.Width}
		if crop.Height == 0 {
			crop = vision.ProcessorCrop{Height: h, Width: w}
		}
		p.Steps = append(p.Steps, crop)
	}
	if width, height, ok := p.OutputSize(); !ok || width != w || height != h {
		return fail(format.ErrConfig, "it makes images of %dx%d, but the model takes %dx%d", width, height, w, h)
	}
	return p, nil
}
