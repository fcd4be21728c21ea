// Package vecmath computes the functions of a transformer that are not products, GELU, softmax and what
// their gradients need, on many float32 at once.
//
// It exists because GoMLX's Go backend computes them number by number, GELU in a score of passes over
// memory: a small model spent half of its time on them.
//
// A value depends on its argument alone, in Softmax on its row: its place among the others does not change a
// bit of it, nor does it matter which of the vector kernels computes.
package vecmath

// Kernel names what computes on this processor, "AVX-512" or "AVX2", or is empty where the functions are
// plain loops.
func Kernel() string { return kernels[0].name }

// kernels are those that the processor can run, the fastest first.
var kernels = append(usable(), &kernel{"", each(gelu), each(erf), each(exp), softmax})

// kernel computes in place. The first three are given whole blocks.
type kernel struct {
	name           string
	gelu, erf, exp func(x *float32, blocks int)
	softmax        func(x *float32, rows, n int)
}

const block = 16 // as many float32 as a register of AVX-512 has

// Gelu replaces every x by x·Φ(x), with Φ the standard normal distribution function, within 4e-7 of it and
// 1e-42; in plain loops within 6e-7. Infinities become the limits, 0 and +Inf.
func Gelu(x []float32) { apply(kernels[0].gelu, x) }

// Erf replaces every x by the error function of x, within 3e-7 of it; in plain loops within 6e-7.
func Erf(x []float32) { apply(kernels[0].erf, x) }

// Exp replaces every x by e to the power of x, within 2e-7 of it and half the smallest float32.
func Exp(x []float32) { apply(kernels[0].exp, x) }

// Softmax replaces each row of n values by their exponentials divided by the sum of these. They are within
// 1e-6 of what the differences from the row's largest value, which are rounded, give. It panics unless x
// is whole rows.
func Softmax(x []float32, n int) {
	if len(x) == 0 {
		return
	}
	if n < 1 || len(x)%n != 0 {
		panic("vecmath: a matrix that is not whole rows")
	}
	kernels[0].softmax(&x[0], len(x)/n, n)
}

// apply has the last values computed in a block of their own.
func apply(f func(x *float32, blocks int), x []float32) {
	whole := len(x) / block
	if whole > 0 {
		f(&x[0], whole)
	}
	if rest := x[whole*block:]; len(rest) > 0 {
		var last [block]float32
		copy(last[:], rest)
		f(&last[0], 1)
		copy(rest, last[:])
	}
}

// The polynomials are minimax fits, their coefficients those of the highest powers first.

// expPolynomial is (e^x - 1 - x)/x² for |x| ≤ ln 2 / 2, within 3e-9 of e^x.
var expPolynomial = [...]float64{0.0013814232, 0.0083689019, 0.0416684076, 0.1666651964, 0.4999999404}

// erfPolynomial is erf(x)/x in powers of x² for |x| ≤ 1, within 2e-9 of it.
var erfPolynomial = [...]float64{7.85380762e-5, -0.00080101786, 0.00518832635, -0.026853811, 0.11283585429, -0.37612625957, 1.12837910652}
