//nolint:unused // it is the kernels that use what is here
package vecmath

import "math"

// The places of constants in table, in bytes: the assembler knows them by these names.
const (
	atMagic = 4 * block * iota
	atLog2e
	atLn2High
	atLn2Low
	atBias
	atLowest
	atHighest
	atInf
	atMinusHalf
	atOne
	atGeluEnd
	atGeluT
	atErfEnd
	atErfT
	atExp   // the coefficients of a polynomial, as are the next
	atTail  = atExp + 5*4*block
	atErf   = atTail + 10*4*block
	atTotal = atErf + 7*4*block
)

// table has every constant as often as a register has room for it.
var table = func() (t [atTotal / (4 * block)][block]float32) {
	set := func(at int, values ...float64) {
		for i, v := range values {
			for lane := range block {
				t[at/(4*block)+i][lane] = float32(v)
			}
		}
	}
	set(atMagic, 3<<22) // added, it leaves an integer in the last bits
	set(atLog2e, math.Log2E)
	high := float64(float32(math.Ln2))
	set(atLn2High, high)
	set(atLn2Low, math.Ln2-high)
	set(atBias, float64(math.Float32frombits(127))) // of exponents, as an integer
	set(atLowest, -105)                             // whose exponential is 0
	set(atHighest, 89)                              // whose exponential is infinite
	set(atInf, math.Inf(-1))
	set(atMinusHalf, -0.5)
	set(atOne, 1)
	set(atGeluEnd, 14.45)
	set(atGeluT, tailT)
	set(atErfEnd, 9)
	set(atErfT, tailT*math.Sqrt2)
	set(atExp, expPolynomial[:]...)
	set(atTail, tailPolynomial[:]...)
	set(atErf, erfPolynomial[:]...)
	return t
}()

// tailPolynomial is Φ(-a)·exp(a²/2)/t for a ≥ 0 with t = 1/(1 + tailT·a), within 4e-9 of it: without its
// fastest factor, the tail of the normal distribution hardly bends.
var tailPolynomial = [...]float64{-0.02062864043, 0.11246467382, -0.22828447819, 0.19188286364, -0.07950884104, 0.09620475769,
	0.07837227732, 0.11023934186, 0.11957132056, 0.11968672276}

const tailT = 0.3

// lanes are masks for two registers of AVX2: from lanes[16-n] on, one of their first n values.
var lanes = func() (m [2 * block]int32) {
	for i := range block {
		m[i] = -1
	}
	return m
}()
