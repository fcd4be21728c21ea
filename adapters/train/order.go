package train

import (
	"math/bits"

	"github.com/hubtool/hubtool/model/vision"
)

// order is the sequence of images in an epoch: Fisher and Yates' shuffle over the generator of
// sample -1, written out so that no release of Go can change it.
func (l *Loader) order(epoch int) []int {
	order := make([]int, l.Source.Len())
	for i := range order {
		order[i] = i
	}
	if !l.Shuffle {
		return order
	}
	rng := vision.Rand(l.Seed, epoch, -1)
	for i := len(order) - 1; i > 0; i-- {
		j, _ := bits.Mul64(rng.Uint64(), uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}
