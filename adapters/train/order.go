package train

import (
	"context"
	"math/bits"
	"math/rand/v2"

	"github.com/hubtool/hubtool/model/vision"
)

// order is the sequence of images in an epoch, drawn by the generator of sample -1. Both ways are
// written out so that no release of Go can change them.
func (l *Loader) order(epoch int) []int {
	n := l.Source.Len()
	rng := vision.Rand(l.Seed, epoch, -1)
	switch {
	case !l.Shuffle:
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		return order
	case epoch == 0 && l.Window > 0:
		return windowed(n, l.Window, rng)
	}
	return shuffled(n, rng)
}

// shuffled is Fisher and Yates' shuffle of the numbers below n.
func shuffled(n int, rng *rand.Rand) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := below(rng, i+1)
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// windowed draws each number from a window of so many, into whose place the next one moves up: what
// IterableDataset.shuffle of the Python package datasets does with its buffer. Number i is never
// needed before i-size+1 others have been drawn.
func windowed(n, size int, rng *rand.Rand) []int {
	window := make([]int, min(n, size))
	for i := range window {
		window[i] = i
	}
	var order []int
	for next := len(window); len(window) > 0; next++ {
		j := below(rng, len(window))
		order = append(order, window[j])
		if next < n {
			window[j] = next
			continue
		}
		last := len(window) - 1
		window[j] = window[last]
		window = window[:last]
	}
	return order
}

// below draws a number in [0, n).
func below(rng *rand.Rand, n int) int {
	high, _ := bits.Mul64(rng.Uint64(), uint64(n))
	return int(high)
}

// waiter is a source whose images may still be on their way.
type waiter interface {
	Wait(ctx context.Context, i int) error
}
