package vecmath

import "golang.org/x/sys/cpu"

// The kernels compute in place, on 16*blocks values or on rows of n values.

//go:noescape
func gelu512(x *float32, blocks int)

//go:noescape
func erf512(x *float32, blocks int)

//go:noescape
func exp512(x *float32, blocks int)

//go:noescape
func softmax512(x *float32, rows, n int)

//go:noescape
func gelu256(x *float32, blocks int)

//go:noescape
func erf256(x *float32, blocks int)

//go:noescape
func exp256(x *float32, blocks int)

//go:noescape
func softmax256(x *float32, rows, n int)

// usable asks the processor. One with AVX-512 has FMA, whatever GODEBUG, which package cpu obeys, says of it.
func usable() []*kernel {
	var all []*kernel
	if cpu.X86.HasAVX512F {
		all = append(all, &kernel{"AVX-512", gelu512, erf512, exp512, softmax512})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all = append(all, &kernel{"AVX2", gelu256, erf256, exp256, softmax256})
	}
	return all
}
