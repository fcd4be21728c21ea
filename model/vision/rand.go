package vision

import (
	"encoding/binary"
	"math/rand/v2"
)

// Every transform draws its random numbers in the order and by the arithmetic of torch, one 32-bit
// word for each, so that with a Mersenne Twister behind the generator it would make the very choices
// that torchvision makes after torch.manual_seed. The tests do that.

// Rand returns the generator for sample index of one epoch: ChaCha8 keyed with the three numbers,
// each as eight little-endian bytes, and the label "hubtool\x01". A sample's augmentation thus
// depends on nothing else: neither on the number of workers nor on the order they run in.
func Rand(seed uint64, epoch, index int) *rand.Rand {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[0:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(epoch))
	binary.LittleEndian.PutUint64(key[16:], uint64(index))
	copy(key[24:], "hubtool\x01")
	return rand.New(rand.NewChaCha8(key))
}

// uniform draws from [from, to) as torch.empty(1).uniform_ does: 24 bits of one 32-bit word, and a
// fused multiply-add in single precision.
func uniform(rng *rand.Rand, from, to float32) float32 {
	x := float32(rng.Uint32()&(1<<24-1)) * (1.0 / (1 << 24))
	return float32(float64(x)*float64(to-from) + float64(from)) // the product is exact
}

// chance draws as torch.rand(1) < p does.
func chance(rng *rand.Rand, p float64) bool {
	return float64(uniform(rng, 0, 1)) < p
}

// below draws from [0, n) as torch.randint does: one word, reduced modulo n.
func below(rng *rand.Rand, n int) int {
	return int(rng.Uint32() % uint32(n))
}

// permutation draws the numbers below n in random order as torch.randperm does.
func permutation(rng *rand.Rand, n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := range n - 1 {
		j := i + below(rng, n-i)
		p[i], p[j] = p[j], p[i]
	}
	return p
}
