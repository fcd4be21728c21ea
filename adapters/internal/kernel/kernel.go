// Package kernel has the inner loops of merging: products of thin matrices, and sums with weights of
// lower precision. They give the bits that torch on x86 gives, with any set of instructions: products
// add in one order with one rounding a term, and no other operations are fused. Only sums of more
// than 192 terms differ between makers of processors, as they do in torch.
package kernel

import "os"

// A Type is how the elements of a weight are stored, little-endian.
type Type int

// The types of weights that can be added to.
const (
	BF16 Type = iota
	F16
	F32
)

// Size is the number of bytes of an element.
func (t Type) Size() int { return [...]int{2, 2, 4}[t] }

// Add replaces the elements of w by their sums with d in float32, rounded to nearest even. It
// reports whether all of them are finite.
func Add(t Type, w []byte, d []float32) (finite bool) {
	n := active.elements(len(d))
	if n > 0 {
		finite = active.add[t](&w[0], &d[0], n) < infinity
	} else {
		finite = true
	}
	return addGo[t](w[n*t.Size():], d[n:]) && finite
}

// Widen converts the elements of w to float32.
func Widen(t Type, v []float32, w []byte) {
	n := active.elements(len(v))
	if n > 0 {
		active.widen[t](&v[0], &w[0], n)
	}
	widenGo[t](v[n:], w[n*t.Size():])
}

// Narrow is the reverse of [Widen], rounding to nearest even. It reports whether all elements of w
// are finite then.
func Narrow(t Type, w []byte, v []float32) (finite bool) {
	n := active.elements(len(v))
	if n > 0 {
		finite = active.narrow[t](&w[0], &v[0], n) < infinity
	} else {
		finite = true
	}
	return narrowGo[t](w[n*t.Size():], v[n:]) && finite
}

// Round narrows the elements of v and widens them again.
func Round(t Type, v []float32) {
	n := active.elements(len(v))
	if n > 0 {
		active.round[t](&v[0], n)
	}
	roundGo[t](v[n:])
}

// Divide divides the elements of v by a number.
func Divide(v []float32, by float32) {
	n := active.elements(len(v))
	if n > 0 {
		active.divide(&v[0], n, by)
	}
	divideGo(v[n:], by)
}

// Outer fills dst [len(x), len(y)] with the products of every element of x and every one of y, times
// scale.
func Outer(dst, x, y []float32, scale float32) {
	n := active.elements(len(y))
	for _, x := range x {
		if n > 0 {
			active.scale(&dst[0], &y[0], n, x, scale)
		}
		scaleGo(dst[n:], y[n:], x, scale)
		dst = dst[len(y):]
	}
}

// infinity has the smallest bits, sign apart, of a float32 that is not finite.
const infinity = 0x7f800000

// An isa is one set of instructions. Its functions take multiples of lanes elements; those that
// return a number return the largest bits, sign apart, among the results as float32.
type isa struct {
	name  string
	lanes int

	add    [3]func(w *byte, d *float32, n int) uint32
	narrow [3]func(w *byte, v *float32, n int) uint32
	widen  [3]func(v *float32, w *byte, n int)
	round  [3]func(v *float32, n int)

	divide func(v *float32, n int, by float32)
	scale  func(dst, y *float32, n int, x, s float32) // y·x·s

	// tile computes 4 rows of a product and as many columns as a panel has.
	panel int
	tile  func(dst *float32, stride uintptr, a, b *float32, k int, scale float32, add uintptr)
}

// elements is how many of n the functions of the isa take.
func (s *isa) elements(n int) int {
	if s.lanes == 0 {
		return 0
	}
	return n / s.lanes * s.lanes
}

// plain has no functions: everything is left to Go.
var plain = isa{name: "go"}

// active is the best that the processor has, or what HUBTOOL_KERNEL names.
var active = choose(os.Getenv("HUBTOOL_KERNEL"))

func choose(name string) *isa {
	for i := range available {
		if name == "" || name == available[i].name {
			return &available[i]
		}
	}
	return &plain
}
