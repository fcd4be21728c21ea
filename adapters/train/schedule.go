package train

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// Schedules maps lr_scheduler_type to the share of the learning rate used in a step. step counts
// optimizer steps from 0; the formulas are those of transformers' get_scheduler.
var Schedules = map[string]func(step, warmup, total int) float64{
	"linear": func(step, warmup, total int) float64 {
		return float64(total-step) / float64(max(1, total-warmup))
	},
	"cosine": func(step, warmup, total int) float64 {
		progress := float64(step-warmup) / float64(max(1, total-warmup))
		return 0.5 * (1 + math.Cos(math.Pi*progress))
	},
	"constant":             func(int, int, int) float64 { return 1 },
	"constant_with_warmup": func(int, int, int) float64 { return 1 },
}

func scheduleNames() string {
	return strings.Join(slices.Sorted(maps.Keys(Schedules)), ", ")
}

// learningRate is the rate used in optimizer step `step` (from 0) of total.
func (c Config) learningRate(step, total int) float64 {
	warmup := c.warmupSteps(total)
	if c.LRSchedulerType == "constant" { // transformers ignores warm-up here
		warmup = 0
	}
	if step < warmup {
		return c.LearningRate * float64(step) / float64(warmup)
	}
	return c.LearningRate * max(0, Schedules[c.LRSchedulerType](step, warmup, total))
}

// endDecides tells whether the rate of a step depends on how many there are.
func (c Config) endDecides() bool {
	switch c.LRSchedulerType {
	case "constant":
		return false
	case "constant_with_warmup":
		return c.WarmupSteps > 0 && c.WarmupSteps < 1
	}
	return true
}

func (c Config) warmupSteps(total int) int {
	if c.WarmupSteps < 1 {
		return int(math.Ceil(c.WarmupSteps * float64(total)))
	}
	return int(c.WarmupSteps)
}
