package train

import (
	"errors"
	"fmt"
	"math"
)

// lossScaler keeps gradients in float16's range: the loss is multiplied by a scale, and gradients are
// divided by it. A step whose gradients overflow is skipped and halves the scale; many without
// overflow double it. Micikevicius et al. 2018, "Mixed Precision Training"; the numbers are those of
// torch's GradScaler. A nil scaler, as other precisions have, does nothing.
type lossScaler struct {
	Scale   float64 `json:"scale"`
	Since   int     `json:"steps_since_overflow"` // or since the scale was doubled
	Skipped int     `json:"skipped_steps"`
}

const growthInterval = 2000 // steps until the scale is doubled

func newLossScaler() *lossScaler { return &lossScaler{Scale: 65536} }

// factor is what the sum of the losses of n images is multiplied by: their mean times the scale.
func (s *lossScaler) factor(n int) float64 {
	if s == nil {
		return 1
	}
	return s.Scale / float64(n)
}

func (s *lossScaler) skipped() int {
	if s == nil {
		return 0
	}
	return s.Skipped
}

// observe notes how a step went and tells whether it is to be skipped.
func (s *lossScaler) observe(overflow bool) (skip bool, err error) {
	switch {
	case s == nil:
		return false, nil
	case overflow:
		s.Scale, s.Since = s.Scale/2, 0
		s.Skipped++
		if s.Scale < 1 {
			return true, fmt.Errorf("%w: gradients overflow in float16 even with the loss unscaled: use bf16, or a lower learning_rate", ErrDiverged)
		}
		return true, nil
	}
	if s.Since++; s.Since == growthInterval {
		s.Since = 0
		if s.Scale < math.MaxFloat32/2 {
			s.Scale *= 2
		}
	}
	return false, nil
}

// ErrDiverged is wrapped where the loss stopped being a number.
var ErrDiverged = errors.New("training diverged")

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
