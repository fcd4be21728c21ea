package format

import (
	"math"
	"testing"
)

// Every F16 and BF16 value survives widening and narrowing, and halfway points go to the even one.
func TestNarrowRoundsToNearestEven(t *testing.T) {
	for h := range 1 << 16 {
		half, brain := uint16(h), uint16(h)
		if v := halfTo32(half); v == v && toF16(v) != half {
			t.Fatalf("F16 %#04x widens to %g and narrows to %#04x", half, v, toF16(v))
		}
		if v := math.Float32frombits(uint32(brain) << 16); v == v && toBF16(v) != brain {
			t.Fatalf("BF16 %#04x widens to %g and narrows to %#04x", brain, v, toBF16(v))
		}
		// Between a finite value and the next one away from zero.
		if half&0x7fff < 0x7bff {
			a, b := float64(halfTo32(half)), float64(halfTo32(half+1))
			even := half + half&1
			if got := toF16(float32((a + b) / 2)); got != even {
				t.Fatalf("halfway above F16 %#04x narrows to %#04x, want the even %#04x", half, got, even)
			}
			if got := toF16(math.Nextafter32(float32((a+b)/2), float32(b))); got != half+1 {
				t.Fatalf("just over halfway above F16 %#04x narrows to %#04x", half, got)
			}
		}
		if brain&0x7fff < 0x7f7f {
			middle := math.Float32frombits(uint32(brain)<<16 | 0x8000)
			if got := toBF16(middle); got != brain+brain&1 {
				t.Fatalf("halfway above BF16 %#04x narrows to %#04x", brain, got)
			}
		}
	}
	for _, v := range []float32{65520, float32(math.Inf(1)), math.MaxFloat32} {
		if toF16(v) != 0x7c00 {
			t.Errorf("F16 of %g is %#04x, want infinity", v, toF16(v))
		}
	}
	nan := float32(math.NaN())
	if v := Round(F16, nan); v == v {
		t.Error("NaN became a number in F16")
	}
	if v := Round(BF16, math.Float32frombits(0x7f800001)); v == v {
		t.Error("NaN became a number in BF16")
	}
}
