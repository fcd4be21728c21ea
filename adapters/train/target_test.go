package train

import (
	"slices"
	"testing"
)

// Targets as torch's CrossEntropyLoss(label_smoothing=s) makes them of v2.MixUp's labels: the image's own and the one before.
func TestTarget(t *testing.T) {
	for _, c := range []struct {
		image     int
		own       float64
		smoothing float64
		want      []float32
	}{
		{0, 1, 0, []float32{0, 1, 0, 0}},
		{0, 1, 0.2, []float32{0.05, 0.85, 0.05, 0.05}},
		{0, 0.75, 0, []float32{0, 0.75, 0.25, 0}},
		{1, 0.75, 0, []float32{0, 0.25, 0, 0.75}},
		{2, 0.25, 0.2, []float32{0.05, 0.05, 0.25, 0.65}},
		{3, 0.25, 0, []float32{0, 0, 1, 0}}, // mixed with one of its own class
		{1, 0, 0, []float32{0, 1, 0, 0}},
	} {
		b := &Batch{N: 4, Labels: []int32{1, 3, 2, 2, 0, 0}, Own: c.own}
		row := []float32{9, 9, 9, 9}
		if b.target(c.image, c.smoothing, row); !slices.Equal(row, c.want) {
			t.Errorf("image %d, share %v, smoothing %v: %v, want %v", c.image, c.own, c.smoothing, row, c.want)
		}
	}
}
