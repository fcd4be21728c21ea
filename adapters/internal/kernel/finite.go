package kernel

import "encoding/binary"

// exponents has, for the elements that eight bytes hold, the bits of their exponents and the lowest
// of these: added to an exponent that has no zero bit, it gives the bit of the sign.
var exponents = [3]struct{ all, one, sign uint64 }{
	BF16: {0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080, 0x8000_8000_8000_8000},
	F16:  {0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400, 0x8000_8000_8000_8000},
	F32:  {0x7f80_0000_7f80_0000, 0x0080_0000_0080_0000, 0x8000_0000_8000_0000},
}

// Finite tells whether all elements of w are finite, which those are whose exponents have a zero bit.
func Finite(t Type, w []byte) bool {
	e, sums := exponents[t], uint64(0)
	for ; len(w) >= 8; w = w[8:] {
		sums |= binary.LittleEndian.Uint64(w)&e.all + e.one
	}
	var rest [8]byte
	copy(rest[:], w)
	sums |= binary.LittleEndian.Uint64(rest[:])&e.all + e.one
	return sums&e.sign == 0
}
