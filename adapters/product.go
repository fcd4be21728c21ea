package adapters

import (
	"math"
	"runtime"
	"sync"
)

// product computes rows of b·a with b [m, k] and a [k, n] and hands each to use, from several
// goroutines. Sums are in the order in which torch on x86 adds them: k in order, one fused
// multiply-add each, from zero; above 192 terms in blocks whose sums are added.
func product(b, a []float32, m, k, n int, use func(i int, row []float32)) {
	block := k
	switch {
	case k > 384:
		block = 192
	case k > 192:
		block = (k + 1) / 2
	}
	workers := min(m, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			sum, part := make([]float32, n), make([]float32, n)
			for i := w; i < m; i += workers {
				clear(sum)
				for k0 := 0; k0 < k; k0 += block {
					into := part
					if k0 == 0 {
						into = sum
					}
					clear(into)
					for kk := k0; kk < min(k0+block, k); kk++ {
						x, row := b[i*k+kk], a[kk*n:(kk+1)*n]
						for j, y := range row {
							into[j] = fma(x, y, into[j])
						}
					}
					if k0 > 0 {
						for j, v := range part {
							sum[j] += v
						}
					}
				}
				use(i, sum)
			}
		})
	}
	wg.Wait()
}

// fma is x·y + z with one rounding to float32. The product is exact in float64; the sum is rounded
// to odd there, after which rounding to float32 cannot round a second time. math.FMA would not do:
// it rounds to float64 first, and GODEBUG=cpu.fma=off makes it slow.
func fma(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	t := s - p
	if err := (p - (s - t)) + (c - t); err != 0 {
		if bits := math.Float64bits(s); bits&1 == 0 {
			if (err > 0) == (s > 0) {
				s = math.Float64frombits(bits + 1)
			} else {
				s = math.Float64frombits(bits - 1)
			}
		}
	}
	return float32(s)
}
