package gemm

import "golang.org/x/sys/cpu"

// tile512 multiplies 12 rows of a by k rows of 32 values of b, in the 32 registers of AVX-512: 24 of
// them hold the output. Distances of rows are in values. add adds to c; otherwise c is overwritten.
//
//go:noescape
func tile512(k int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, add bool)

// tile256 multiplies 6 rows of a by k rows of 16 values of b, in the 16 registers of AVX2.
//
//go:noescape
func tile256(k int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, add bool)

// transpose8 writes 8 rows of 8*blocks values as 8*blocks rows of 8.
//
//go:noescape
func transpose8(dst *float32, ldd int, src *float32, lds int, blocks int)

// usable asks the processor. One with AVX-512 has FMA, whatever GODEBUG, which package cpu obeys, says of it.
func usable() []*kernel {
	var all []*kernel
	if cpu.X86.HasAVX512F {
		all = append(all, &kernel{name: "AVX-512", rows: 12, cols: 32, tile: tile512, transpose: transpose8})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all = append(all, &kernel{name: "AVX2", rows: 6, cols: 16, tile: tile256, transpose: transpose8})
	}
	return all
}
