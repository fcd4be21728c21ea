package vecmath

import (
	"math"
	"unsafe"
)

// Without vectors Abramowitz and Stegun's rational form 7.1.28, erfc(x) = (1 + a₁x + … + a₆x⁶)⁻¹⁶ for x ≥ 0, is
// the cheapest: it has no exponential.

func gelu(x float32) float32 {
	if math.IsInf(float64(x), -1) {
		return float32(math.Copysign(0, -1))
	}
	return 0.5 * x * (1 + erf(x*(1/math.Sqrt2)))
}

func erf(x float32) float32 {
	if x > -1 && x < 1 {
		p := float32(0)
		for _, c := range erfPolynomial {
			p = p*(x*x) + float32(c)
		}
		return p * x
	}
	a := float32(math.Abs(float64(x)))
	p := (((((0.0000430638*a+0.0002765672)*a+0.0001520143)*a+0.0092705272)*a+0.0422820123)*a+0.0705230784)*a + 1
	p *= p
	p *= p
	p *= p
	p *= p
	return float32(math.Copysign(float64(1-1/p), float64(x)))
}

// exp is 2^j·e^r with the integer j next to x/ln 2.
func exp(x float32) float32 {
	bounded := min(max(float64(x), -105), 89) // where the result is 0 or infinite
	j := math.RoundToEven(bounded * math.Log2E)
	r, p := float32(bounded-j*math.Ln2), float32(0)
	for _, c := range expPolynomial {
		p = p*r + float32(c)
	}
	return float32(float64(p*r*r+r+1) * math.Float64frombits(uint64(1023+int64(j))<<52))
}

// each makes a kernel of a function of one number.
func each(f func(float32) float32) func(x *float32, blocks int) {
	return func(x *float32, blocks int) {
		values := unsafe.Slice(x, blocks*block)
		for i, v := range values {
			values[i] = f(v)
		}
	}
}

func softmax(x *float32, rows, n int) {
	for i := range rows {
		row := unsafe.Slice(x, rows*n)[i*n:][:n]
		top, sum := row[0], float32(0)
		for _, v := range row {
			top = max(top, v)
		}
		for i, v := range row {
			row[i] = exp(v - top)
			sum += row[i]
		}
		for i := range row {
			row[i] /= sum
		}
	}
}
