package format

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// A TensorInfo describes a tensor. A shape without dimensions is a scalar.
type TensorInfo struct {
	Name  string
	DType DType
	Shape []int
}

// Elements returns the number of elements: 1 for a scalar, -1 if the shape has
// a negative dimension or the product does not fit in 63 bits.
func (t TensorInfo) Elements() int64 {
	n := uint64(1)
	for _, d := range t.Shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 0 || hi != 0 || lo > math.MaxInt64 {
			return -1
		}
		n = lo
	}
	return int64(n)
}

// Size returns the number of bytes the data takes in a file, or -1 where
// [TensorInfo.Elements] is -1, the size overflows, or packed elements do not
// fill their last byte.
func (t TensorInfo) Size() int64 {
	n := t.Elements()
	if n < 0 || !t.DType.valid() {
		return -1
	}
	hi, lo := bits.Mul64(uint64(n), uint64(t.DType.Bits()))
	if hi != 0 || lo%8 != 0 {
		return -1
	}
	return int64(lo / 8)
}

// A Tensor is a description and, on request, its data: little-endian, row-major.
// Bytes may read a file or compute; callers must not modify what it returns.
type Tensor interface {
	Info() TensorInfo
	Bytes() ([]byte, error)
}

type memory struct {
	info TensorInfo
	data []byte
}

// NewTensor returns a tensor whose data is in memory. The slice is not copied.
func NewTensor(info TensorInfo, data []byte) Tensor {
	info.Shape = slices.Clone(info.Shape)
	return memory{info, data}
}

func (t memory) Info() TensorInfo { return t.info }

func (t memory) Bytes() ([]byte, error) {
	if size := t.info.Size(); size != int64(len(t.data)) {
		return nil, damaged(t.info.Name, "%s of shape %v needs %d bytes, have %d", t.info.DType, t.info.Shape, size, len(t.data))
	}
	return t.data, nil
}

// FloatTensor returns a tensor of dtype F32 that holds a copy of values.
func FloatTensor(name string, shape []int, values []float32) Tensor {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return NewTensor(TensorInfo{Name: name, DType: F32, Shape: shape}, data)
}

// Floats reads a tensor as float32. F16 and BF16 are widened exactly, F64 is
// rounded; other dtypes are [ErrUnsupported].
func Floats(t Tensor) ([]float32, error) {
	info := t.Info()
	widen, ok := widenTo32[info.DType]
	if !ok {
		return nil, &Error{Op: "reading", Tensor: info.Name, Kind: ErrUnsupported,
			Err: fmt.Errorf("dtype %s cannot be read as float32; F32, F16, BF16 and F64 can", info.DType)}
	}
	if ft, ok := t.(*fileTensor); ok && ft.onDisk() {
		return ft.floats(widen)
	}
	data, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	if size := info.Size(); size != int64(len(data)) {
		return nil, damaged(info.Name, "%s of shape %v needs %d bytes, have %d", info.DType, info.Shape, size, len(data))
	}
	values := make([]float32, info.Elements())
	widen(values, data)
	return values, nil
}

// floats widens data piece by piece, so that it is not in memory in both forms. From afar every piece
// would be a request.
func (t *fileTensor) floats(widen func(dst []float32, src []byte)) ([]float32, error) {
	values := make([]float32, t.Elements())
	size := t.DType.Bits() / 8
	piece := make([]byte, min(len(values), 1<<14)*size)
	for at := 0; at < len(values); {
		n := min(len(values)-at, len(piece)/size)
		if err := readFull(t.file, piece[:n*size], t.offset+int64(at*size)); err != nil {
			return nil, t.fail(err)
		}
		widen(values[at:at+n], piece)
		at += n
	}
	return values, nil
}

var widenTo32 = map[DType]func(dst []float32, src []byte){
	F32: func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	},
	BF16: func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	},
	F16: func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = halfTo32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	},
	F64: func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	},
}

// halfTo32 widens an IEEE half: 1 sign, 5 exponent (bias 15), 10 fraction bits.
func halfTo32(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // zero or subnormal: frac * 2^-24, exact in float32
		return math.Float32frombits(math.Float32bits(float32(frac)*(1.0/(1<<24))) | sign)
	case 0x1f: // infinity or NaN, payload kept
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}
