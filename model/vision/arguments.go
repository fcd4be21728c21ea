package vision

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// arguments reads the arguments of one transform and collects what is wrong with them. After a
// failure a getter returns a harmless value.
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
		if len(keys) == 0 {
			a.failf("it takes no arguments, found %v", value)
			return
		}
		m = map[string]any{keys[0]: value}
	}
	a.values = m
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(keys, k) {
			a.failf("unknown argument %q; known: %s", k, strings.Join(keys, ", "))
		}
	}
}

// given reports whether an argument has a value other than None.
func (a *arguments) given(key string) bool { return a.values[key] != nil }

// number accepts what YAML and JSON make of a number.
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
	return out, ok
}

// wholeNumbers reads numbers from lowest to highest, as many as one of counts says, or none.
func (a *arguments) wholeNumbers(key string, lowest, highest int, counts ...int) []int {
	list, ok := numbers(a.values[key])
	ok = ok && slices.Contains(counts, len(list))
	out := make([]int, len(list))
	for i, x := range list {
		ok = ok && x == math.Trunc(x) && x >= float64(lowest) && x <= float64(highest)
		out[i] = int(x)
	}
	if !ok {
		a.failf("%s is %v, but must be whole numbers from %d to %d, %s of them", key, a.values[key], lowest, highest, alternatives(counts))
		return nil
	}
	return out
}

func alternatives(counts []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(counts), "[]"), " ", " or ")
}

// maxSide is far above what a model takes, and keeps products of sizes small.
const maxSide = 1 << 15

// size reads height and width. One number stands for a square or, where the longer side follows
// the image, for the shorter side; width is zero then.
func (a *arguments) size(key string, square bool) (h, w int) {
	s := []int{a.defaults.Size}
	if a.given(key) {
		s = a.wholeNumbers(key, 1, maxSide, 1, 2)
	} else if a.defaults.Size <= 0 {
		a.failf("%s is missing", key)
	}
	switch {
	case len(s) == 2:
		return s[0], s[1]
	case len(s) == 1 && square:
		return s[0], s[0]
	case len(s) == 1:
		return s[0], 0
	}
	return 1, 1
}

func (a *arguments) positiveRange(key string, missing [2]float64) [2]float64 {
	if !a.given(key) {
		return missing
	}
	list, ok := numbers(a.values[key])
	if !ok || len(list) != 2 || list[0] <= 0 || list[0] > list[1] {
		a.failf("%s is %v, but must be two positive numbers, lowest and highest", key, a.values[key])
		return missing
	}
	return [2]float64(list)
}

// around reads a range of factors; one number is the distance to either side of the center. A
// range that changes nothing is nil.
func (a *arguments) around(key string, center, lowest, highest float64) *[2]float64 {
	if !a.given(key) {
		return nil
	}
	list, ok := numbers(a.values[key])
	if ok && len(list) == 1 {
		ok = list[0] >= 0
		list = []float64{center - list[0], center + list[0]}
		if center > 0 {
			list[0] = max(list[0], 0)
		}
	}
	if !ok || len(list) != 2 || list[0] < lowest || list[0] > list[1] || list[1] > highest {
		a.failf("%s is %v, but must be one number or two, lowest and highest, from %v to %v", key, a.values[key], lowest, highest)
		return nil
	}
	if list[0] == center && list[1] == center {
		return nil
	}
	return &[2]float64{list[0], list[1]}
}

// degrees reads a range of angles; one number means to either side.
func (a *arguments) degrees(key string) (d [2]float64) {
	list, ok := numbers(a.values[key])
	if ok && len(list) == 1 {
		ok = list[0] >= 0
		list = []float64{-list[0], list[0]}
	}
	if !ok || len(list) != 2 {
		a.failf("%s is %v, but must be one number or two, lowest and highest", key, a.values[key])
		return d
	}
	return [2]float64(list)
}

func (a *arguments) point(key string) *[2]float64 {
	if !a.given(key) {
		return nil
	}
	list, ok := numbers(a.values[key])
	if !ok || len(list) != 2 {
		a.failf("%s is %v, but must be two numbers, x and y", key, a.values[key])
		return nil
	}
	return &[2]float64{list[0], list[1]}
}

func (a *arguments) share(key string, missing float64) float64 {
	if !a.given(key) {
		return missing
	}
	x, ok := number(a.values[key])
	if !ok || x < 0 || x > 1 {
		a.failf("%s is %v, but must be a number from 0 to 1", key, a.values[key])
	}
	return x
}

func (a *arguments) positive(key string, missing float64) float64 {
	if !a.given(key) {
		return missing
	}
	x, ok := number(a.values[key])
	if !ok || x <= 0 {
		a.failf("%s is %v, but must be a positive number", key, a.values[key])
	}
	return x
}

func (a *arguments) boolean(key string) bool {
	b, ok := a.values[key].(bool)
	if a.given(key) && !ok {
		a.failf("%s is %v, but must be true or false", key, a.values[key])
	}
	return b
}

func (a *arguments) alwaysTrue(key string) {
	if a.given(key) && !a.boolean(key) {
		a.failf("%s is false, but PIL images are always resized with it; remove it", key)
	}
}

func (a *arguments) filter(key string, missing Filter) Filter {
	if !a.given(key) {
		return missing
	}
	f, err := ParseFilter(fmt.Sprint(a.values[key]))
	if err != nil {
		a.failf("%s: %w", key, err)
	}
	return f
}

// turning reads the filter of a transform that turns or moves the image.
func (a *arguments) turning(key string) Filter {
	f := a.filter(key, Nearest)
	if f != Nearest && f != Bilinear && f != Bicubic {
		a.failf("%s is %v, but must be nearest, bilinear or bicubic", key, f)
	}
	return f
}

// count reads a whole number.
func (a *arguments) count(key string, lowest, missing int) int {
	if !a.given(key) {
		return missing
	}
	if list := a.wholeNumbers(key, lowest, 1<<10, 1); len(list) == 1 {
		return list[0]
	}
	return missing
}

// channels reads one number a channel, or one for all.
func (a *arguments) channels(key string, missing [3]float32) (c [3]float32) {
	if !a.given(key) {
		return missing
	}
	list, ok := numbers(a.values[key])
	if !ok || len(list) != 1 && len(list) != 3 {
		a.failf("%s is %v, but must be three numbers: red, green, blue", key, a.values[key])
		return missing
	}
	for i := range c {
		c[i] = float32(list[i%len(list)])
	}
	return c
}

func (a *arguments) color(key string) (c [3]uint8) {
	if !a.given(key) {
		return c
	}
	list := a.wholeNumbers(key, 0, 255, 1, 3)
	for i := range c {
		if len(list) > 0 {
			c[i] = uint8(list[i%len(list)])
		}
	}
	return c
}

// pad reads a border, one number, two (left and right, top and bottom) or four (left, top, right,
// bottom), and its colour.
func (a *arguments) pad() (t Pad) {
	if a.given("padding") {
		switch p := a.wholeNumbers("padding", 0, maxSide, 1, 2, 4); len(p) {
		case 1:
			t.Left, t.Top, t.Right, t.Bottom = p[0], p[0], p[0], p[0]
		case 2:
			t.Left, t.Top, t.Right, t.Bottom = p[0], p[1], p[0], p[1]
		case 4:
			t.Left, t.Top, t.Right, t.Bottom = p[0], p[1], p[2], p[3]
		}
	}
	t.Fill = a.color("fill")
	if mode := a.values["padding_mode"]; mode != nil && mode != "constant" {
		a.failf("padding_mode is %v, but only constant is supported", mode)
	}
	return t
}
