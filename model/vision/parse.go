package vision

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Defaults completes a pipeline with what the model's image processor says: Normalize without
// arguments, and crops and resizes without a size.
type Defaults struct {
	Mean, Std [3]float32
	Size      int // pixels a side
}

// ParsePipeline builds a pipeline from decoded YAML or JSON: a list of torchvision names, each
// alone or as a map from the name to its arguments (the first one, or all by keyword):
//
//	[{RandomResizedCrop: {size: 224, scale: [0.6, 1]}}, RandomHorizontalFlip, ToTensor, Normalize]
//
// The error lists every problem of the list, not only the first.
func ParsePipeline(spec any, d Defaults) (*Pipeline, error) {
	list, ok := spec.([]any)
	if !ok {
		return nil, fmt.Errorf("reading transforms: want a list of names, found %T", spec)
	}
	p := &Pipeline{Std: [3]float32{1, 1, 1}}
	var errs []error
	var tensor, normal bool
	for i, item := range list {
		name, value, err := splitItem(item)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading transform %d: %w", i+1, err))
			continue
		}
		a := &arguments{defaults: d}
		switch build, known := builders[name]; {
		case name == "ToTensor" || name == "PILToTensor" || name == "ToImage":
			tensor = true
		case name == "Normalize":
			if !tensor {
				a.failf("it needs a tensor: put ToTensor in front of it")
			}
			if normal {
				a.failf("there is a second Normalize; remove one")
			}
			a.set(value, "mean", "std")
			p.Mean, p.Std = a.channels("mean", d.Mean), a.channels("std", d.Std)
			for _, s := range p.Std {
				if s == 0 {
					a.failf("std must not contain 0")
				}
			}
			normal = true
		case !known:
			a.failf("unknown name; did you mean %s? (known: %s)", nearestName(name), strings.Join(names(), ", "))
		default:
			if tensor {
				a.failf("only Normalize may follow ToTensor; move it in front")
			}
			a.set(value, build.keys...)
			if t := build.build(a); len(a.errs) == 0 {
				p.Steps = append(p.Steps, t)
			}
		}
		a.finish()
		for _, err := range a.errs {
			errs = append(errs, fmt.Errorf("reading transform %d, %s: %w", i+1, name, err))
		}
	}
	if !tensor && len(errs) == 0 {
		errs = append(errs, errors.New("reading transforms: there is no ToTensor; add ToTensor (and Normalize) at the end"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func splitItem(item any) (name string, value any, err error) {
	switch item := item.(type) {
	case string:
		return item, nil, nil
	case map[string]any:
		if len(item) == 1 {
			for k, v := range item {
				return k, v, nil
			}
		}
		return "", nil, fmt.Errorf("want one name, found %d: %q", len(item), slices.Sorted(maps.Keys(item)))
	}
	return "", nil, fmt.Errorf("want a name or a map of a name to arguments, found %v", item)
}

var builders = map[string]struct {
	keys  []string
	build func(*arguments) Transform
}{
	"RandomResizedCrop": {[]string{"size", "scale", "ratio", "interpolation", "antialias"}, func(a *arguments) Transform {
		h, w := a.size("size", true)
		return RandomResizedCrop{h, w, a.rangeOf("scale", [2]float64{0.08, 1}), a.rangeOf("ratio", [2]float64{3. / 4, 4. / 3}), a.filter("interpolation")}
	}},
	"RandomHorizontalFlip": {[]string{"p"}, func(a *arguments) Transform { return RandomHorizontalFlip{a.share("p", 0.5)} }},
	"RandomVerticalFlip":   {[]string{"p"}, func(a *arguments) Transform { return RandomVerticalFlip{a.share("p", 0.5)} }},
	"Resize": {[]string{"size", "interpolation", "max_size", "antialias"}, func(a *arguments) Transform {
		h, w := a.size("size", false)
		return ResizeTo{h, w, a.integer("max_size", 0), a.filter("interpolation")}
	}},
	"CenterCrop": {[]string{"size"}, func(a *arguments) Transform {
		h, w := a.size("size", true)
		return CenterCrop{h, w}
	}},
	"RandomCrop": {[]string{"size", "padding", "pad_if_needed", "fill", "padding_mode"}, func(a *arguments) Transform {
		h, w := a.size("size", true)
		return RandomCrop{h, w, a.pad(false), a.boolean("pad_if_needed")}
	}},
	"ColorJitter": {[]string{"brightness", "contrast", "saturation", "hue"}, func(a *arguments) Transform {
		return ColorJitter{a.around("brightness", 1, 0, math.Inf(1)), a.around("contrast", 1, 0, math.Inf(1)),
			a.around("saturation", 1, 0, math.Inf(1)), a.around("hue", 0, -0.5, 0.5)}
	}},
	"Grayscale": {[]string{"num_output_channels"}, func(a *arguments) Transform {
		if n, _ := number(a.values["num_output_channels"]); n != 3 {
			a.failf("num_output_channels must be 3, as models take RGB images")
		}
		return Grayscale{}
	}},
	"RandomGrayscale": {[]string{"p"}, func(a *arguments) Transform { return RandomGrayscale{a.share("p", 0.1)} }},
	"RandomRotation": {[]string{"degrees", "interpolation", "expand", "center", "fill"}, func(a *arguments) Transform {
		return a.rotation()
	}},
	"Pad": {[]string{"padding", "fill", "padding_mode"}, func(a *arguments) Transform { return a.pad(true) }},
}

func names() []string {
	return append(slices.Sorted(maps.Keys(builders)), "ToTensor", "Normalize")
}

// nearestName is the known name with the smallest edit distance, letter case aside.
func nearestName(name string) string {
	return slices.MinFunc(names(), func(a, b string) int { return distance(name, a) - distance(name, b) })
}

func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// arguments reads the arguments of one transform and collects what is wrong with them.
type arguments struct {
	defaults Defaults
	values   map[string]any
	errs     []error
}

func (a *arguments) failf(format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf(format, args...))
}

// set takes all arguments by keyword from a map, or the first one from any other value.
func (a *arguments) set(value any, keys ...string) {
	m, ok := value.(map[string]any)
	if !ok && value != nil {
		m = map[string]any{keys[0]: value}
	}
	a.values = m
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(keys, k) {
			a.failf("unknown argument %q; known: %s", k, strings.Join(keys, ", "))
		}
	}
}

func (a *arguments) finish() {
	if v, ok := a.values["antialias"]; ok && v != true {
		a.failf("antialias is %v, but images are always resized with antialiasing; remove it", v)
	}
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, !math.IsNaN(v) && !math.IsInf(v, 0)
	}
	return 0, false
}

// numbers accepts one number or a list of them.
func numbers(v any) ([]float64, bool) {
	if x, ok := number(v); ok {
		return []float64{x}, true
	}
	list, ok := v.([]any)
	out := make([]float64, len(list))
	for i, v := range list {
		x, isNumber := number(v)
		out[i], ok = x, ok && isNumber
	}
	return out, ok && len(out) > 0
}

const maxSide = 1 << 15

func (a *arguments) size(key string, square bool) (h, w int) {
	v, given := a.values[key]
	if !given {
		if a.defaults.Size <= 0 {
			a.failf("%s is missing", key)
		}
		v = a.defaults.Size
	}
	list, ok := numbers(v)
	for _, x := range list {
		ok = ok && x == math.Trunc(x) && x >= 1 && x <= maxSide
	}
	if !ok || len(list) > 2 {
		a.failf("%s is %v, but must be one or two (height, width) whole numbers from 1 to %d", key, v, maxSide)
		return 1, 1
	}
	if len(list) == 2 {
		return int(list[0]), int(list[1])
	}
	if square {
		return int(list[0]), int(list[0])
	}
	return int(list[0]), 0
}

func (a *arguments) rangeOf(key string, def [2]float64) [2]float64 {
	v, given := a.values[key]
	if !given {
		return def
	}
	list, ok := numbers(v)
	if !ok || len(list) != 2 || list[0] <= 0 || list[0] > list[1] {
		a.failf("%s is %v, but must be two positive numbers, lowest and highest", key, v)
		return def
	}
	return [2]float64(list)
}

func (a *arguments) share(key string, def float64) float64 {
	v, given := a.values[key]
	if !given {
		return def
	}
	x, ok := number(v)
	if !ok || x < 0 || x > 1 {
		a.failf("%s is %v, but must be a number from 0 to 1", key, v)
	}
	return x
}

func (a *arguments) integer(key string, def int) int {
	v, given := a.values[key]
	if !given || v == nil {
		return def
	}
	x, ok := number(v)
	if !ok || x != math.Trunc(x) || x < 1 || x > maxSide {
		a.failf("%s is %v, but must be a whole number from 1 to %d", key, v, maxSide)
		return def
	}
	return int(x)
}

func (a *arguments) filter(key string) Filter {
	v, given := a.values[key]
	if !given {
		return Bilinear
	}
	f, err := ParseFilter(strings.ToLower(fmt.Sprint(v)))
	if err != nil {
		a.errs = append(a.errs, err)
	}
	return f
}

func (a *arguments) channels(key string, def [3]float32) [3]float32 {
	v, given := a.values[key]
	if !given {
		return def
	}
	list, ok := numbers(v)
	if !ok || len(list) != 1 && len(list) != 3 {
		a.failf("%s is %v, but must be three numbers: red, green, blue", key, v)
		return def
	}
	if len(list) == 1 {
		list = []float64{list[0], list[0], list[0]}
	}
	return [3]float32{float32(list[0]), float32(list[1]), float32(list[2])}
}

func (a *arguments) boolean(key string) bool {
	v, given := a.values[key]
	b, ok := v.(bool)
	if given && !ok {
		a.failf("%s is %v, but must be true or false", key, v)
	}
	return b
}

// pad reads a border: one number, two (left and right, top and bottom) or four (left, top, right,
// bottom), and its colour: one number or three.
func (a *arguments) pad(required bool) (t Pad) {
	if v := a.values["padding"]; v != nil || required {
		switch p := a.wholeNumbers("padding", maxSide, 1, 2, 4); len(p) {
		case 1:
			t.Left, t.Top, t.Right, t.Bottom = p[0], p[0], p[0], p[0]
		case 2:
			t.Left, t.Top, t.Right, t.Bottom = p[0], p[1], p[0], p[1]
		case 4:
			t.Left, t.Top, t.Right, t.Bottom = p[0], p[1], p[2], p[3]
		}
	}
	t.Fill = a.color("fill")
	if mode, given := a.values["padding_mode"]; given && mode != "constant" {
		a.failf("padding_mode is %v, but only constant is supported", mode)
	}
	return t
}

func (a *arguments) color(key string) (c [3]uint8) {
	if a.values[key] == nil {
		return c
	}
	for i, v := range a.wholeNumbers(key, 255, 1, 3) {
		if i == 0 {
			c[1], c[2] = uint8(v), uint8(v)
		}
		c[i] = uint8(v)
	}
	return c
}

// wholeNumbers reads as many numbers from 0 to highest as one of counts says; nil if it cannot.
func (a *arguments) wholeNumbers(key string, highest float64, counts ...int) []int {
	list, ok := numbers(a.values[key])
	ok = ok && slices.Contains(counts, len(list))
	out := make([]int, len(list))
	for i, x := range list {
		ok = ok && x == math.Trunc(x) && x >= 0 && x <= highest
		out[i] = int(x)
	}
	if !ok {
		a.failf("%s is %v, but must be whole numbers from 0 to %v, as many as one of %v", key, a.values[key], highest, counts)
		return nil
	}
	return out
}

// around reads a range of factors: one number is the distance to either side of center.
func (a *arguments) around(key string, center, lowest, highest float64) *[2]float64 {
	v, given := a.values[key]
	if !given {
		return nil
	}
	list, ok := numbers(v)
	if ok && len(list) == 1 {
		ok = list[0] >= 0
		low := center - list[0]
		if center > 0 {
			low = max(low, 0)
		}
		list = []float64{low, center + list[0]}
	}
	if !ok || len(list) != 2 || list[0] < lowest || list[0] > list[1] || list[1] > highest {
		a.failf("%s is %v, but must be one number or two, lowest and highest, from %v to %v", key, v, lowest, highest)
		return nil
	}
	if list[0] == center && list[1] == center {
		return nil
	}
	return &[2]float64{list[0], list[1]}
}

func (a *arguments) rotation() RandomRotation {
	t := RandomRotation{Filter: Nearest, Expand: a.boolean("expand"), Fill: a.color("fill")}
	list, ok := numbers(a.values["degrees"])
	if ok && len(list) == 1 {
		ok = list[0] >= 0
		list = []float64{-list[0], list[0]}
	}
	if ok && len(list) == 2 {
		t.Degrees = [2]float64(list)
	} else {
		a.failf("degrees is %v, but must be one number or two, lowest and highest", a.values["degrees"])
	}
	if _, given := a.values["interpolation"]; given {
		t.Filter = a.filter("interpolation")
	}
	if t.Filter != Nearest && t.Filter != Bilinear && t.Filter != Bicubic {
		a.failf("interpolation is %v, but must be nearest, bilinear or bicubic", t.Filter)
	}
	if v := a.values["center"]; v != nil {
		list, ok := numbers(v)
		if !ok || len(list) != 2 {
			a.failf("center is %v, but must be two numbers, x and y", v)
		} else {
			t.Center = &[2]float64{list[0], list[1]}
		}
	}
	return t
}
