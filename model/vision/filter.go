package vision

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Filter is a resampling filter, numbered as Pillow and preprocessor_config.json number them.
type Filter int

const (
	Nearest Filter = iota
	Lanczos
	Bilinear
	Bicubic
	Box
	Hamming
)

var filterNames = [...]string{"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"}

// String returns the name of torchvision's InterpolationMode.
func (f Filter) String() string {
	if f < 0 || int(f) >= len(filterNames) {
		return fmt.Sprintf("Filter(%d)", int(f))
	}
	return filterNames[f]
}

// ParseFilter reads the name of a filter, or its number in Pillow.
func ParseFilter(s string) (Filter, error) {
	for i, name := range filterNames {
		if strings.EqualFold(s, name) || s == strconv.Itoa(i) {
			return Filter(i), nil
		}
	}
	return 0, fmt.Errorf("unknown filter %q; want one of %s", s, strings.Join(filterNames[:], ", "))
}

// A kernel is a filter's weight function; it is zero outside [-support, support].
type kernel struct {
	support float64
	weight  func(x float64) float64
}

// The explicit float64 conversions keep the compiler from fusing multiply and add, which would
// round differently from Pillow on processors that have the instruction.
var kernels = map[Filter]kernel{
	Box: {0.5, func(x float64) float64 {
		if x > -0.5 && x <= 0.5 {
			return 1
		}
		return 0
	}},
	Bilinear: {1, func(x float64) float64 {
		return max(1-math.Abs(x), 0)
	}},
	Hamming: {1, func(x float64) float64 {
		// Pillow writes the two coefficients in single precision.
		const a0, a1 = float64(float32(0.54)), float64(float32(0.46))
		x = math.Abs(x)
		if x == 0 {
			return 1
		}
		if x >= 1 {
			return 0
		}
		x *= math.Pi
		return math.Sin(x) / x * (a0 + float64(a1*math.Cos(x)))
	}},
	Bicubic: {2, func(x float64) float64 {
		const a = -0.5
		x = math.Abs(x)
		if x < 1 {
			return float64((float64((a+2)*x)-(a+3))*x*x) + 1
		}
		if x < 2 {
			return (float64((float64((x-5)*x)+8)*x) - 4) * a
		}
		return 0
	}},
	Lanczos: {3, func(x float64) float64 {
		if x < -3 || x >= 3 {
			return 0
		}
		return sinc(x) * sinc(x/3)
	}},
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x *= math.Pi
	return math.Sin(x) / x
}
