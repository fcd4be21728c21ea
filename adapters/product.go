package adapters

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hubtool/hubtool/adapters/internal/kernel"
)

// product computes rows of b·a with b [m, k] and a [k, n] and hands each to use, from several
// goroutines. The order of operations is PEFT's, see [kernel.Product].
func product(b, a []float32, m, k, n int, use func(i int, row []float32)) {
	p := kernel.NewProduct(b, a, k, n)
	rows := rowGroup(n)
	parallel(runtime.GOMAXPROCS(0), (m+rows-1)/rows, func(group int) {
		first := group * rows
		d := make([]float32, min(rows, m-first)*n)
		p.Rows(d, first, 1)
		for i := range len(d) / max(n, 1) {
			use(first+i, d[i*n:(i+1)*n])
		}
	})
}

// rowGroup is how many rows of n elements are computed at once: few enough for the processor's
// cache, a multiple of what kernels take.
func rowGroup(n int) int { return (max(1<<15/max(n, 1), 1) + 3) &^ 3 }

// scratch lends memory to what is done for every group of rows.
var scratch = sync.Pool{New: func() any { return new([]float32) }}

// borrow returns n numbers with anything in them, to be given back with scratch.Put.
func borrow(n int) *[]float32 {
	s := scratch.Get().(*[]float32)
	*s = slices.Grow((*s)[:0], n)[:n]
	return s
}

// parallel calls do for 0 to n-1 from so many goroutines.
func parallel(workers, n int, do func(i int)) {
	if workers = min(workers, n); workers <= 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wg.Wait()
}
