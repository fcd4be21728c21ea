package kernel

import (
	"iter"
	"slices"
	"sync"
)

// A Product is b·a with b [m, k] and a [k, n], whose rows are computed when they are asked for.
// Sums are in the order in which torch adds them on this processor: k in order, one fused
// multiply-add each, from zero; those of many terms in blocks whose sums are added.
type Product struct {
	b, a  []float32 // a in panels of some columns, [panel][k][columns], except for Go
	k, n  int
	block int // terms that are summed in one go
}

// blockTerms is how many terms torch's library, MKL, sums in one go. It has kernels of its own for
// Intel's AVX-512; the other number is that of all other processors with fused multiply-adds. Both
// were measured with torch 2.15 (MKL 2024.2).
var blockTerms = map[bool]int{true: 384, false: 192}[intelAVX512()]

// NewProduct prepares the product of b [m, k] and a [k, n]. It keeps b, and a copy of a.
func NewProduct(b, a []float32, k, n int) *Product {
	p := &Product{b: b, a: a, k: k, n: n, block: blockTerms}
	if width := active.panel; width > 0 {
		p.a = make([]float32, (n+width-1)/width*width*k)
		for j0 := 0; j0 < n; j0 += width {
			panel := p.a[j0*k:]
			for i := range k {
				copy(panel[i*width:(i+1)*width], a[i*n+j0:(i+1)*n])
			}
		}
	}
	return p
}

// blocks are the ranges of k that are summed apart: two halves of up to two blocks, else whole blocks
// and what is left.
func (p *Product) blocks() iter.Seq2[int, int] {
	size := max(p.k, 1)
	switch {
	case p.k > 2*p.block:
		size = p.block
	case p.k > p.block:
		size = (p.k + 1) / 2
	}
	return func(yield func(from, to int) bool) {
		for k := 0; k < p.k; k += size {
			if !yield(k, min(k+size, p.k)) {
				return
			}
		}
	}
}

// tileRows is the number of rows that every tile has.
const tileRows = 4

// panelBytes is about how much of a stays in the first cache while rows of b pass by.
const panelBytes = 32 << 10

// Rows computes rows of the product from first on, as many as dst [rows, n] has, and multiplies the
// sums by scale. It may be called from several goroutines.
func (p *Product) Rows(dst []float32, first int, scale float32) {
	switch {
	case p.k == 0 || p.n == 0:
		clear(dst)
		return
	case active.tile == nil:
		p.rowsGo(dst, first, scale)
		return
	}
	rows, width := len(dst)/p.n, active.panel
	lent := scratch.Get().(*[]float32)
	defer scratch.Put(lent)
	packed := (rows + tileRows - 1) / tileRows * tileRows * p.k
	*lent = slices.Grow((*lent)[:0], packed+tileRows*width)[:packed+tileRows*width]
	b, edge := (*lent)[:packed], (*lent)[packed:] // edge is for tiles that stick out
	p.packRows(b, first, rows)
	group := max(1, panelBytes/(4*p.k*width)) * width
	for j0 := 0; j0 < p.n; j0 += group {
		for i := 0; i < rows; i += tileRows {
			for j := j0; j < min(j0+group, p.n); j += width {
				to, stride := edge, width
				inside := i+tileRows <= rows && j+width <= p.n
				if inside {
					to, stride = dst[i*p.n+j:], p.n
				}
				for k0, k1 := range p.blocks() {
					s, add := float32(1), uintptr(0)
					if k1 == p.k {
						s = scale
					}
					if k0 > 0 {
						add = 1
					}
					active.tile(&to[0], uintptr(4*stride), &p.a[j*p.k+k0*width], &b[i*p.k+k0*tileRows], k1-k0, s, add)
				}
				if !inside {
					for r := i; r < min(i+tileRows, rows); r++ {
						copy(dst[r*p.n+j:(r+1)*p.n], edge[(r-i)*width:(r-i+1)*width])
					}
				}
			}
		}
	}
}

// scratch lends memory for packed rows, which are many.
var scratch = sync.Pool{New: func() any { return new([]float32) }}

// packRows arranges rows of b for tiles, [tile][k][row], with zeros after the last one.
func (p *Product) packRows(packed []float32, first, rows int) {
	clear(packed[rows/tileRows*tileRows*p.k:])
	for i := range rows {
		tile := packed[i/tileRows*tileRows*p.k+i%tileRows:]
		for k, v := range p.b[(first+i)*p.k : (first+i+1)*p.k] {
			tile[k*tileRows] = v
		}
	}
}
