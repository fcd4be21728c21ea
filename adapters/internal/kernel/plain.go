package kernel

import (
	"encoding/binary"
	"math"
)

// The same in Go, for the last elements of a row and for processors without anything better.
var (
	addGo = [3]func(w []byte, d []float32) bool{
		BF16: func(w []byte, d []float32) bool {
			return each(w, d, func(w uint16, d float32) uint16 { return toBF16(fromBF16(w) + d) }, 0x7f80)
		},
		F16: func(w []byte, d []float32) bool {
			return each(w, d, func(w uint16, d float32) uint16 { return toF16(fromF16(w) + d) }, 0x7c00)
		},
		F32: func(w []byte, d []float32) bool {
			largest := uint32(0)
			for i, d := range d {
				v := math.Float32bits(math.Float32frombits(binary.LittleEndian.Uint32(w[4*i:])) + d)
				binary.LittleEndian.PutUint32(w[4*i:], v)
				largest = max(largest, v&^(1<<31))
			}
			return largest < infinity
		},
	}
	narrowGo = [3]func(w []byte, v []float32) bool{
		BF16: func(w []byte, v []float32) bool {
			return each(w, v, func(_ uint16, v float32) uint16 { return toBF16(v) }, 0x7f80)
		},
		F16: func(w []byte, v []float32) bool {
			return each(w, v, func(_ uint16, v float32) uint16 { return toF16(v) }, 0x7c00)
		},
		F32: func(w []byte, v []float32) bool {
			largest := uint32(0)
			for i, v := range v {
				binary.LittleEndian.PutUint32(w[4*i:], math.Float32bits(v))
				largest = max(largest, math.Float32bits(v)&^(1<<31))
			}
			return largest < infinity
		},
	}
	widenGo = [3]func(v []float32, w []byte){
		BF16: func(v []float32, w []byte) {
			for i := range v {
				v[i] = fromBF16(binary.LittleEndian.Uint16(w[2*i:]))
			}
		},
		F16: func(v []float32, w []byte) {
			for i := range v {
				v[i] = fromF16(binary.LittleEndian.Uint16(w[2*i:]))
			}
		},
		F32: func(v []float32, w []byte) {
			for i := range v {
				v[i] = math.Float32frombits(binary.LittleEndian.Uint32(w[4*i:]))
			}
		},
	}
	roundGo = [3]func(v []float32){
		BF16: func(v []float32) {
			for i := range v {
				v[i] = fromBF16(toBF16(v[i]))
			}
		},
		F16: func(v []float32) {
			for i := range v {
				v[i] = fromF16(toF16(v[i]))
			}
		},
		F32: func([]float32) {},
	}
)

func divideGo(v []float32, by float32) {
	for i := range v {
		v[i] /= by
	}
}

func scaleGo(dst, y []float32, x, s float32) {
	for i, y := range y {
		dst[i] = float32(float32(x*y) * s)
	}
}

// each replaces the elements of w and tells whether all are below the bits of infinity.
func each(w []byte, v []float32, f func(uint16, float32) uint16, infinity uint16) bool {
	largest := uint16(0)
	for i, v := range v {
		u := f(binary.LittleEndian.Uint16(w[2*i:]), v)
		binary.LittleEndian.PutUint16(w[2*i:], u)
		largest = max(largest, u&^(1<<15))
	}
	return largest < infinity
}

func fromBF16(u uint16) float32 { return math.Float32frombits(uint32(u) << 16) }

func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // stays a NaN when the low half is cut off
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// fromF16 shifts exponent and fraction into place. That leaves the exponent 112 too small, which a
// product mends for subnormals as well; infinity and NaN come out as 2^16 and more.
func fromF16(u uint16) float32 {
	v := math.Float32frombits(uint32(u&0x7fff)<<13) * (1 << 112)
	if v >= 1<<16 {
		v = math.Float32frombits(math.Float32bits(v) | infinity)
	}
	return math.Float32frombits(math.Float32bits(v) | uint32(u&0x8000)<<16)
}

func toF16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits >> 16 & 0x8000)
	switch bits &^= 1 << 31; {
	case bits > infinity:
		return sign | 0x7e00 | uint16(bits>>13&0x3ff)
	case bits >= 0x477ff000: // rounds to 2^16 or more
		return sign | 0x7c00
	case bits < 0x38800000: // below 2^-14: adding 2^-1 leaves steps of 2^-24 as the last bits
		return sign | uint16(math.Float32bits(math.Float32frombits(bits)+0.5)-0x3f000000)
	default:
		bits -= 112 << 23
		return sign | uint16((bits+0xfff+bits>>13&1)>>13)
	}
}

// fma is x·y + z with one rounding. math.FMA rounds to float64 first and would round twice.
func fma(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z) // p is exact
	s := p + c
	// The second rounding matters where the first one hit the middle between two float32s, and
	// among subnormals, whose middles are elsewhere.
	if bits := math.Float64bits(s); bits<<35 != 1<<63 && (math.Abs(s) >= 0x1p-126 || s == 0) {
		return float32(s)
	}
	t := s - p
	if err := (p - (s - t)) + (c - t); err != 0 { // what the sum lost: round to odd instead
		if bits := math.Float64bits(s); bits&1 == 0 {
			if (err > 0) == (s > 0) {
				s = math.Float64frombits(bits + 1)
			} else {
				s = math.Float64frombits(bits - 1)
			}
		}
	}
	return float32(s)
}

// rowsGo is [Product.Rows] in Go.
func (p *Product) rowsGo(dst []float32, first int, scale float32) {
	part := make([]float32, p.n)
	for i := range len(dst) / p.n {
		sum := dst[i*p.n : (i+1)*p.n]
		for k0, k1 := range p.blocks() {
			into := part
			if k0 == 0 {
				into = sum
			}
			clear(into)
			for k := k0; k < k1; k++ {
				x := p.b[(first+i)*p.k+k]
				for j, y := range p.a[k*p.n : (k+1)*p.n] {
					into[j] = fma(x, y, into[j])
				}
			}
			if k0 > 0 {
				for j, v := range part {
					sum[j] += v
				}
			}
		}
		for j := range sum {
			sum[j] = float32(sum[j] * scale)
		}
	}
}
