//go:build goexperiment.simd && amd64

package hashing

import "simd/archsimd"

var hasUpper = archsimd.X86.AVX()

func clearUpper() {
	if hasUpper {
		archsimd.ClearAVXUpperBits()
	}
}
