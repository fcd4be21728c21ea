package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// ImageConfigFile is the name under which transformers keeps the settings of
// an image processor.
const ImageConfigFile = "preprocessor_config.json"

// An ImageSize is a height and a width in pixels, or the length that the
// shorter side gets when the ratio is kept.
type ImageSize struct {
	Height, Width, ShortestEdge int
}

// An ImageConfig is what hubtool needs of a preprocessor_config.json. What the
// file does not say has the default of its processor's class.
type ImageConfig struct {
	DoResize, DoCenterCrop, DoRescale, DoNormalize bool

	Size          ImageSize
	Resample      int // PIL: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming
	CropSize      ImageSize
	RescaleFactor float64
	Mean, Std     [3]float32 // per channel, after rescaling

	raw map[string]json.RawMessage
}

// ReadImageConfig reads [ImageConfigFile] in dir, in the spelling of today or
// of the time when processors were called feature extractors. A malformed file
// is [ErrConfig] and names the field, a missing one is [os.ErrNotExist].
func ReadImageConfig(dir string) (*ImageConfig, error) {
	path := filepath.Join(dir, ImageConfigFile)
	raw, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	c, err := newImageConfig(raw)
	return c, at("reading", path, err)
}

// ParseImageConfig reads the text of a preprocessor_config.json.
func ParseImageConfig(text []byte) (*ImageConfig, error) {
	raw, err := parseConfig(text)
	if err != nil {
		return nil, err
	}
	return newImageConfig(raw)
}

// imageProcessors are the defaults of transformers' classes. A size that is one
// number means the sides of a square or, where the default says so, the shorter
// side.
var imageProcessors = map[string]ImageConfig{
	"ViTImageProcessor": {
		DoResize: true, DoRescale: true, DoNormalize: true, RescaleFactor: 1.0 / 255,
		Size: ImageSize{Height: 224, Width: 224}, Resample: 2,
		Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5},
	},
	"BitImageProcessor": {
		DoResize: true, DoCenterCrop: true, DoRescale: true, DoNormalize: true, RescaleFactor: 1.0 / 255,
		Size: ImageSize{ShortestEdge: 224}, Resample: 3, CropSize: ImageSize{Height: 224, Width: 224},
		Mean: [3]float32{0.48145466, 0.4578275, 0.40821073}, Std: [3]float32{0.26862954, 0.26130258, 0.27577711},
	},
}

// imageProcessor is the class that a file names, in any of the spellings that
// transformers had for it; without a name it is ViTImageProcessor.
func imageProcessor(raw map[string]json.RawMessage) (string, error) {
	for _, key := range []string{"image_processor_type", "feature_extractor_type"} {
		text, ok := raw[key]
		if !ok || string(text) == "null" {
			continue
		}
		var name string
		if err := decodeField(key, text, &name); err != nil {
			return "", err
		}
		class := strings.TrimSuffix(strings.TrimSuffix(name, "Fast"), "Pil")
		class = strings.Replace(class, "FeatureExtractor", "ImageProcessor", 1)
		if _, known := imageProcessors[class]; !known {
			err := fmt.Errorf("field %q: %q is none of %s", key, name, strings.Join(slices.Sorted(maps.Keys(imageProcessors)), ", "))
			return "", &Error{Kind: ErrUnsupported, Err: err}
		}
		return class, nil
	}
	return "ViTImageProcessor", nil
}

func newImageConfig(raw map[string]json.RawMessage) (*ImageConfig, error) {
	class, err := imageProcessor(raw)
	if err != nil {
		return nil, err
	}
	defaults := imageProcessors[class]
	c := &defaults
	c.raw = raw
	fields := map[string]any{
		"do_resize": &c.DoResize, "do_center_crop": &c.DoCenterCrop, "do_rescale": &c.DoRescale, "do_normalize": &c.DoNormalize,
		"size": &c.Size, "resample": (*size)(&c.Resample), "crop_size": &c.CropSize, "rescale_factor": &c.RescaleFactor,
		"image_mean": (*channels)(&c.Mean), "image_std": (*channels)(&c.Std),
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if text, ok := raw[key]; ok && string(text) != "null" {
			if err := decodeField(key, text, fields[key]); err != nil {
				return nil, err
			}
		}
	}
	if imageProcessors[class].Size.ShortestEdge > 0 && isNumber(raw["size"]) {
		c.Size = ImageSize{ShortestEdge: c.Size.Height}
	}
	if c.Resample > 5 {
		return nil, fieldError("resample", fmt.Errorf("%d is none of PIL's filters 0 to 5", c.Resample))
	}
	if c.DoNormalize && slices.Contains(c.Std[:], 0) {
		return nil, fieldError("image_std", errors.New("dividing by zero"))
	}
	return c, nil
}

func isNumber(raw json.RawMessage) bool {
	var n float64
	return len(raw) > 0 && string(raw) != "null" && json.Unmarshal(raw, &n) == nil
}

// MarshalJSON returns the text that transformers would write, without the
// newline that ends its files.
func (c *ImageConfig) MarshalJSON() ([]byte, error) {
	text, err := json.Marshal(c.raw)
	if err != nil {
		return nil, err
	}
	return pythonJSON(text)
}

// Write writes [ImageConfigFile] into dir, atomically.
func (c *ImageConfig) Write(dir string) error {
	path := filepath.Join(dir, ImageConfigFile)
	text, err := c.MarshalJSON()
	if err != nil {
		return at("writing", path, err)
	}
	return WriteFileAtomic(path, append(text, '\n'))
}

// UnmarshalJSON accepts an object, a list of height and width, or, as files
// from before 2022 have it, one number for a square.
func (s *ImageSize) UnmarshalJSON(raw []byte) error {
	if raw[0] != '{' {
		var p pair
		if err := p.UnmarshalJSON(raw); err != nil {
			return err
		}
		*s = ImageSize{Height: p[0], Width: p[1]}
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return err
	}
	*s = ImageSize{}
	for key, n := range map[string]*int{"height": &s.Height, "width": &s.Width, "shortest_edge": &s.ShortestEdge} {
		if text, ok := fields[key]; ok && string(text) != "null" {
			if err := (*size)(n).UnmarshalJSON(text); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	if s.ShortestEdge == 0 && (s.Height == 0 || s.Width == 0) {
		return fmt.Errorf("expected height and width, or shortest_edge, found %s", clip(raw))
	}
	return nil
}

// channels is one number per colour channel, or one for all three.
type channels [3]float32

func (c *channels) UnmarshalJSON(raw []byte) error {
	var list []float32
	if raw[0] != '[' {
		list = make([]float32, 1)
		if err := json.Unmarshal(raw, &list[0]); err != nil {
			return fmt.Errorf("expected three numbers, found %s", clip(raw))
		}
	} else if err := json.Unmarshal(raw, &list); err != nil || len(list) != 1 && len(list) != 3 {
		return fmt.Errorf("expected three numbers, found %s", clip(raw))
	}
	if len(list) == 1 {
		list = []float32{list[0], list[0], list[0]}
	}
	*c = channels(list)
	return nil
}
