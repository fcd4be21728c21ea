package dataset

import "math/bits"

// generator reproduces numpy.random.default_rng(seed): a SeedSequence expands the seed, PCG64 (XSL-RR output) draws,
// and 32-bit numbers are taken from 64-bit ones, low half first. math/rand/v2's PCG has another output function (DXSM),
// so it cannot stand in.
//
// Constants and order of operations: M. O'Neill, PCG and "seed_seq_fe" (pcg-random.org), as NumPy uses them since 1.17.
type generator struct {
	hi, lo       uint64 // state
	incHi, incLo uint64
	spare        uint32 // high half of the last 64-bit number
	hasSpare     bool
}

func newGenerator(seed uint64) *generator {
	words := seedWords(seed)
	g := &generator{
		incHi: words[2]<<1 | words[3]>>63,
		incLo: words[3]<<1 | 1,
	}
	g.step()
	var carry uint64
	g.lo, carry = bits.Add64(g.lo, words[1], 0)
	g.hi, _ = bits.Add64(g.hi, words[0], carry)
	g.step()
	return g
}

func (g *generator) step() {
	const multiplierHi, multiplierLo = 0x2360ed051fc65da4, 0x4385df649fccf645
	hi, lo := bits.Mul64(g.lo, multiplierLo)
	hi += g.hi*multiplierLo + g.lo*multiplierHi
	var carry uint64
	g.lo, carry = bits.Add64(lo, g.incLo, 0)
	g.hi, _ = bits.Add64(hi, g.incHi, carry)
}

func (g *generator) uint64() uint64 {
	g.step()
	return bits.RotateLeft64(g.hi^g.lo, -int(g.hi>>58))
}

func (g *generator) uint32() uint32 {
	if g.hasSpare {
		g.hasSpare = false
		return g.spare
	}
	n := g.uint64()
	g.spare, g.hasSpare = uint32(n>>32), true
	return uint32(n)
}

// upTo returns a number in [0, limit]: as many low bits as limit has, drawn again while they exceed it. Shuffling uses
// this old method (random_interval), not the one of Generator.integers.
func (g *generator) upTo(limit uint32) uint32 {
	mask := ^uint32(0) >> bits.LeadingZeros32(limit)
	for {
		if n := g.uint32() & mask; n <= limit {
			return n
		}
	}
}

// permutation is Generator.permutation(n) for n < 2^32.
func (g *generator) permutation(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := n - 1; i >= 1; i-- {
		j := g.upTo(uint32(i))
		p[i], p[j] = p[j], p[i]
	}
	return p
}

// seedWords is SeedSequence(seed).generate_state(4, uint64).
func seedWords(seed uint64) [4]uint64 {
	const poolSize = 4
	entropy := []uint32{uint32(seed)}
	if seed>>32 != 0 {
		entropy = append(entropy, uint32(seed>>32))
	}

	var pool [poolSize]uint32
	hashConst := uint32(0x43b0d7e5)
	hash := func(v uint32) uint32 {
		v ^= hashConst
		hashConst *= 0x931e8875
		v *= hashConst
		return v ^ v>>16
	}
	for i := range pool {
		var word uint32
		if i < len(entropy) {
			word = entropy[i]
		}
		pool[i] = hash(word)
	}
	for src := range pool {
		for dst := range pool {
			if src != dst {
				mixed := 0xca01f9dd*pool[dst] - 0x4973f715*hash(pool[src])
				pool[dst] = mixed ^ mixed>>16
			}
		}
	}

	var state [4]uint64
	hashConst = 0x8b51f9dd
	for i := range 2 * len(state) {
		v := pool[i%poolSize] ^ hashConst
		hashConst *= 0x58f38ded
		v *= hashConst
		v ^= v >> 16
		state[i/2] |= uint64(v) << (32 * (i % 2))
	}
	return state
}
