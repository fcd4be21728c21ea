package train

import (
	"errors"
	"testing"
)

// The scale follows torch's GradScaler: halved by every overflow, doubled after 2000 steps without one.
func TestLossScaler(t *testing.T) {
	s := newLossScaler()
	step := func(overflow bool) {
		t.Helper()
		if skip, err := s.observe(overflow); err != nil || skip != overflow {
			t.Fatalf("overflow %v: skip %v, %v", overflow, skip, err)
		}
	}
	for _, c := range []struct {
		steps    int
		overflow bool
		want     float64
	}{
		{1, true, 32768}, {2, true, 8192}, {1999, false, 8192}, {1, true, 4096}, {1999, false, 4096}, {1, false, 8192}, {1999, false, 8192}, {1, false, 16384},
	} {
		for range c.steps {
			step(c.overflow)
		}
		if s.Scale != c.want {
			t.Fatalf("after %d steps with overflow %v the scale is %v, want %v", c.steps, c.overflow, s.Scale, c.want)
		}
	}
	if s.Skipped != 4 || s.skipped() != 4 || s.factor(8) != 2048 {
		t.Errorf("scaler is %+v, factor %v", *s, s.factor(8))
	}
	for range 14 {
		step(true)
	}
	if _, err := s.observe(true); !errors.Is(err, ErrDiverged) {
		t.Errorf("overflow at scale 1: %v", err)
	}
	var none *lossScaler
	if skip, err := none.observe(true); skip || err != nil || none.factor(8) != 1 || none.skipped() != 0 {
		t.Error("no scaler scales or skips")
	}
}
