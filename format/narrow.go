package format

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Narrow converts float32 values to a type's bytes, rounding to nearest even as
// torch does. Values beyond the range of F16 and BF16 become infinite. Only
// F64, F32, F16 and BF16 are known; others are [ErrUnsupported].
func Narrow(d DType, values []float32) ([]byte, error) {
	le := binary.LittleEndian
	var out []byte
	switch d {
	case F32:
		for _, v := range values {
			out = le.AppendUint32(out, math.Float32bits(v))
		}
	case F64:
		for _, v := range values {
			out = le.AppendUint64(out, math.Float64bits(float64(v)))
		}
	case BF16:
		for _, v := range values {
			out = le.AppendUint16(out, toBF16(v))
		}
	case F16:
		for _, v := range values {
			out = le.AppendUint16(out, toF16(v))
		}
	default:
		return nil, fmt.Errorf("narrowing float32 to %s: %w", d, ErrUnsupported)
	}
	return out, nil
}

// Round narrows one value to a type and widens it again; types other than F16
// and BF16 hold every float32.
func Round(d DType, v float32) float32 {
	switch d {
	case BF16:
		return math.Float32frombits(uint32(toBF16(v)) << 16)
	case F16:
		return halfTo32(toF16(v))
	default:
		return v
	}
}

func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // stays a NaN when the low half is cut off
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func toF16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits >> 16 & 0x8000)
	switch magnitude := bits & 0x7fffffff; {
	case magnitude > 0x7f800000: // NaN
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: a subnormal counts steps of 2^-24
		return sign | uint16(math.RoundToEven(math.Abs(float64(v))*(1<<24)))
	default:
		magnitude -= 112 << 23 // from the bias of float32's exponent to that of F16
		return sign | uint16((magnitude+0xfff+magnitude>>13&1)>>13)
	}
}
