package vision

import (
	"crypto/md5"
	"fmt"
	"math"
	"testing"
)

// TestMixesAsTorchvision mixes batches with given λ; the box of CutMix is drawn after torch.manual_seed.
func TestMixesAsTorchvision(t *testing.T) {
	rows := readTransforms(t).Mixes
	if len(rows) < 50 {
		t.Fatalf("%d rows", len(rows))
	}
	for seed, row := range rows {
		n := numbersOf(row[1:5])
		w, h, images, own := int(n[0]), int(n[1]), int(n[2]), n[3]
		var pixels []uint8
		for i := range images {
			pixels = append(pixels, pattern(w+i, h).crop(w, h)...)
		}
		share := own
		if row[0] == "MixUp" {
			mixUp(pixels, images, own)
		} else {
			share = cutMix(pixels, images, w, h, own, manualSeed(seed))
		}
		got := []any{share, fmt.Sprintf("%x", md5.Sum(pixels))}
		if want := row[5].([]any); got[0] != want[0] || got[1] != want[1] {
			t.Errorf("%v: got %v", row, got)
		}
	}
}

func (m *Image) crop(w, h int) []uint8 { return crop(m, m.Width-w, 0, w, h).Pix }

// TestBeta compares moments with those of the distribution: mean 1/2, variance 1/(8α+4).
func TestBeta(t *testing.T) {
	for _, alpha := range []float64{0.001, 0.2, 1, 5} {
		rng := Rand(1, 0, 0)
		const n = 40000
		sum, squares := 0.0, 0.0
		for range n {
			x := beta(rng, alpha)
			if !(x >= 0 && x <= 1) {
				t.Fatalf("α %v gives %v", alpha, x)
			}
			sum += x
			squares += (x - 0.5) * (x - 0.5)
		}
		variance := 1 / (8*alpha + 4)
		if mean := sum / n; math.Abs(mean-0.5) > 4*math.Sqrt(variance/n) {
			t.Errorf("α %v: mean %v", alpha, mean)
		}
		if got := squares / n; math.Abs(got-variance) > 0.03*variance {
			t.Errorf("α %v: variance %v, want %v", alpha, got, variance)
		}
	}
}

// TestMixDraws checks that a pipeline draws among its mixers, and that without any nothing happens.
func TestMixDraws(t *testing.T) {
	p := &Pipeline{Mixers: []Mixer{MixUp{1}, CutMix{1}}}
	blends, cuts := 0, 0
	for seed := range 40 {
		pixels := make([]uint8, 3*8*8*2)
		for i := range 3 * 8 * 8 {
			pixels[i] = 200
		}
		p.Mix(pixels, 2, 8, 8, Rand(uint64(seed), 0, -2))
		between := false
		for _, v := range pixels {
			between = between || v != 0 && v != 200
		}
		if between {
			blends++
		} else {
			cuts++
		}
	}
	if blends < 10 || cuts < 10 {
		t.Errorf("%d times MixUp, %d times CutMix", blends, cuts)
	}
	pixels := []uint8{1, 2, 3, 4, 5, 6}
	if own := new(Pipeline).Mix(pixels, 2, 1, 1, nil); own != 1 || pixels[0] != 1 {
		t.Errorf("share %v, pixels %v without a mixer", own, pixels)
	}
}
