package vision

import "math"

// A builder makes a transform from arguments. The keys are the names of torchvision's parameters,
// the one that may be given without a name first.
type builder struct {
	keys  []string
	build func(*arguments) Transform
}

// builders are the transforms of a configuration. antialias has no choice on PIL images.
var builders = map[string]builder{
	"RandomResizedCrop": {[]string{"size", "scale", "ratio", "interpolation", "antialias"}, func(a *arguments) Transform {
		h, w := a.size("size", true)
		a.alwaysTrue("antialias")
		return RandomResizedCrop{h, w, a.positiveRange("scale", [2]float64{0.08, 1}),
			a.positiveRange("ratio", [2]float64{3. / 4, 4. / 3}), a.filter("interpolation", Bilinear)}
	}},
	"Resize": {[]string{"size", "interpolation", "max_size", "antialias"}, func(a *arguments) Transform {
		h, w := a.size("size", false)
		a.alwaysTrue("antialias")
		t := ResizeTo{h, w, 0, a.filter("interpolation", Bilinear)}
		if a.given("max_size") {
			t.MaxSize, _ = a.size("max_size", true)
			if w > 0 || t.MaxSize <= h {
				a.failf("max_size is %d, but must be larger than size, which must be one number", t.MaxSize)
			}
		}
		return t
	}},
	"CenterCrop": {[]string{"size"}, func(a *arguments) Transform {
		h, w := a.size("size", true)
		return CenterCrop{h, w}
	}},
	"RandomCrop": {[]string{"size", "padding", "pad_if_needed", "fill", "padding_mode"}, func(a *arguments) Transform {
		h, w := a.size("size", true)
		return RandomCrop{h, w, a.pad(), a.boolean("pad_if_needed")}
	}},
	"Pad": {[]string{"padding", "fill", "padding_mode"}, func(a *arguments) Transform {
		if !a.given("padding") {
			a.failf("padding is missing")
		}
		return a.pad()
	}},
	"RandomHorizontalFlip": {[]string{"p"}, func(a *arguments) Transform { return RandomHorizontalFlip{a.share("p", 0.5)} }},
	"RandomVerticalFlip":   {[]string{"p"}, func(a *arguments) Transform { return RandomVerticalFlip{a.share("p", 0.5)} }},
	"RandomRotation": {[]string{"degrees", "interpolation", "expand", "center", "fill"}, func(a *arguments) Transform {
		return RandomRotation{a.degrees("degrees"), a.turning("interpolation"), a.boolean("expand"), a.point("center"), a.color("fill")}
	}},
	"ColorJitter": {[]string{"brightness", "contrast", "saturation", "hue"}, func(a *arguments) Transform {
		return ColorJitter{a.around("brightness", 1, 0, math.Inf(1)), a.around("contrast", 1, 0, math.Inf(1)),
			a.around("saturation", 1, 0, math.Inf(1)), a.around("hue", 0, -0.5, 0.5)}
	}},
	"Grayscale": {[]string{"num_output_channels"}, func(a *arguments) Transform {
		if n, _ := number(a.values["num_output_channels"]); n != 3 {
			a.failf("num_output_channels must be 3, because models take RGB images")
		}
		return Grayscale{}
	}},
	"TrivialAugmentWide": {[]string{"num_magnitude_bins", "interpolation", "fill"}, func(a *arguments) Transform {
		return TrivialAugmentWide{a.count("num_magnitude_bins", 2, 31), a.turning("interpolation"), a.color("fill")}
	}},
	"RandAugment": {[]string{"num_ops", "magnitude", "num_magnitude_bins", "interpolation", "fill"}, func(a *arguments) Transform {
		t := RandAugment{a.count("num_ops", 0, 2), a.count("magnitude", 0, 9), a.count("num_magnitude_bins", 2, 31), a.turning("interpolation"), a.color("fill")}
		if t.Magnitude >= t.Bins {
			a.failf("magnitude is %d, but must be below num_magnitude_bins, which is %d", t.Magnitude, t.Bins)
		}
		return t
	}},
	"RandomGrayscale": {[]string{"p"}, func(a *arguments) Transform { return RandomGrayscale{a.share("p", 0.1)} }},
}

// mixers are the transforms of whole batches, which stand behind all others.
var mixers = map[string]func(alpha float64) Mixer{
	"MixUp":  func(alpha float64) Mixer { return MixUp{alpha} },
	"CutMix": func(alpha float64) Mixer { return CutMix{alpha} },
}
