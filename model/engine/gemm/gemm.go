// Package gemm multiplies matrices of float32 on the processor, as fast as the processor can.
//
// It exists because training and prediction on the embedded engine consist of such products, and those of
// GoMLX's Go backend reach a third of the speed with GOEXPERIMENT=simd and a twentieth without. Those of
// gonum are no faster, and libraries that are need cgo.
//
// A value of the output is a sum over k in an order that depends on K alone: fused multiply-adds in passes of
// equal length, then the passes. Neither the number of threads, nor the kernel, nor the place in
// the output changes a bit of it.
//
// The method is Goto and van de Geijn's, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS
// 34, 2008), without the copy of a: rows of activations are contiguous in k as they are.
package gemm

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Kernel names what multiplies on this processor, "AVX-512" or "AVX2", or is empty if nothing here does.
func Kernel() string {
	if len(kernels) == 0 {
		return ""
	}
	return kernels[0].name
}

// kernels are those that the processor can run, the fastest first.
var kernels = usable()

// kernel computes tiles of the output.
type kernel struct {
	name       string
	rows, cols int // of a tile

	tile      func(k int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, add bool)
	transpose func(dst *float32, ldd int, src *float32, lds int, blocks int)
}

const (
	// depth is how much of k a pass over the output covers at most: the columns of b that a tile reads,
	// 36 KiB of them, stay in the first cache.
	depth = 288

	// height is how many rows of a a task covers at most: with depth, 1.1 MiB, they stay in the second
	// cache while all columns of b go by.
	height = 1008

	maxRows, maxCols = 12, 32
)

// Shape is that of a batch of products: a is [Batch, M, K], the output [Batch, M, N], b [Batch, K, N],
// or [Batch, N, K] if it is Transposed.
type Shape struct {
	Batch, M, N, K int
	Transposed     bool
}

// Multiply writes the products of a and b into c, on as many threads as are free. It panics where a slice
// is shorter than its shape, or where [Kernel] has no name.
func Multiply(c, a, b []float32, s Shape) { kernels[0].multiply(c, a, b, s) }

func (kn *kernel) multiply(c, a, b []float32, s Shape) {
	c, a, b = c[:s.Batch*s.M*s.N], a[:s.Batch*s.M*s.K], b[:s.Batch*s.K*s.N]
	if len(c) == 0 {
		return
	}
	if s.K == 0 {
		clear(c)
		return
	}
	j := kn.plan(c, a, b, s)
	for range min(j.tasks, int64(runtime.GOMAXPROCS(0))) - 1 {
		go j.work()
	}
	j.work()
	j.done.Wait()
}

// job is a batch of products, cut into tasks: a block of rows by a range of columns of one product. Whoever
// is free takes the next. A goroutine that comes late finds none left, and nobody waits for it.
type job struct {
	*kernel
	Shape
	c, a, b []float32

	high, wide     int // rows and columns of a task
	blocks, ranges int // of one product
	tasks          int64
	next           atomic.Int64
	done           sync.WaitGroup
}

// perTask is how many multiply-adds are worth a task of their own: ten microseconds and more.
const perTask = 1 << 20

func (kn *kernel) plan(c, a, b []float32, s Shape) *job {
	j := &job{kernel: kn, Shape: s, c: c, a: a, b: b, high: min(height, s.M), wide: s.N}
	if threads := runtime.GOMAXPROCS(0); threads > 1 {
		// Columns are divided before rows: every column of b then is packed once.
		wanted := min(4*threads, ceil(s.Batch*s.M*s.N*s.K, perTask))
		have := s.Batch * ceil(s.M, j.high)
		j.wide = share(s.N, kn.cols, ceil(wanted, have))
		have *= ceil(s.N, j.wide)
		j.high = share(j.high, kn.rows, ceil(wanted, have))
	}
	j.blocks, j.ranges = ceil(s.M, j.high), ceil(s.N, j.wide)
	j.tasks = int64(s.Batch * j.blocks * j.ranges)
	j.done.Add(int(j.tasks))
	return j
}

// share is the length of the parts if n is divided into that many, in whole tiles.
func share(n, tile, parts int) int { return max(1, ceil(n, tile)/parts) * tile }

func ceil(a, b int) int { return (a + b - 1) / b }

// work does tasks until there are none.
func (j *job) work() {
	var t *scratch
	for {
		i := int(j.next.Add(1) - 1)
		if i >= int(j.tasks) {
			break
		}
		if t == nil {
			t = scratches.Get().(*scratch)
			defer scratches.Put(t)
		}
		product, i := i/(j.blocks*j.ranges), i%(j.blocks*j.ranges)
		row, col := i%j.blocks*j.high, i/j.blocks*j.wide
		j.task(t, product, row, min(row+j.high, j.M), col, min(col+j.wide, j.N))
		j.done.Done()
	}
}

// scratch is what one goroutine works in.
type scratch struct {
	panel [depth * maxCols]float32   // columns of b, one row for each k
	a     [maxRows * depth]float32   // the last rows of a, with rows of zeros up to a tile's
	c     [maxRows * maxCols]float32 // a tile that reaches beyond the output
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// task computes rows [row, rowEnd) and columns [col, colEnd) of one product.
func (j *job) task(t *scratch, product, row, rowEnd, col, colEnd int) {
	c := j.c[product*j.M*j.N:][:j.M*j.N]
	a := j.a[product*j.M*j.K:][:j.M*j.K]
	b := j.b[product*j.K*j.N:][:j.K*j.N]
	step := ceil(j.K, ceil(j.K, depth)) // no pass much shorter than the others
	for k := 0; k < j.K; k += step {
		deep := min(step, j.K-k)
		rest := (rowEnd - row) % j.rows
		if rest > 0 {
			for i := range rest {
				copy(t.a[i*depth:][:deep], a[(rowEnd-rest+i)*j.K+k:])
			}
			clear(t.a[rest*depth : j.rows*depth])
		}
		for n := col; n < colEnd; n += j.cols {
			cols := min(j.cols, colEnd-n)
			panel, ld := &t.panel[0], j.cols
			if !j.Transposed && cols == j.cols && rowEnd-row <= 4*j.rows {
				panel, ld = &b[k*j.N+n], j.N // too few rows to be worth a copy
			} else {
				j.pack(t.panel[:], b, k, deep, n, cols)
			}
			for m := row; m < rowEnd; m += j.rows {
				from, lda, rows := &a[m*j.K+k], j.K, j.rows
				if m+rows > rowEnd {
					from, lda, rows = &t.a[0], depth, rest
				}
				to := c[m*j.N+n:]
				if rows == j.rows && cols == j.cols {
					j.tile(deep, from, lda, panel, ld, &to[0], j.N, k > 0)
					continue
				}
				j.tile(deep, from, lda, panel, ld, &t.c[0], j.cols, false)
				for i := range rows {
					put(to[i*j.N:][:cols], t.c[i*j.cols:], k > 0)
				}
			}
		}
	}
}

// put writes or adds the part of a tile that lies in the output.
func put(to, from []float32, add bool) {
	if !add {
		copy(to, from)
		return
	}
	for i := range to {
		to[i] += from[i]
	}
}

// pack lays out columns [n, n+cols) of b, rows [k, k+deep), one row after the other, with zeros up to
// a tile's columns.
func (j *job) pack(panel, b []float32, k, deep, n, cols int) {
	if cols < j.cols {
		clear(panel[:deep*j.cols])
	}
	if !j.Transposed {
		for i := range deep {
			copy(panel[i*j.cols:][:cols], b[(k+i)*j.N+n:])
		}
		return
	}
	for i := 0; i < cols; i++ {
		first := 0
		if i < cols&^7 { // one of eight that are transposed together
			first = deep &^ 7
			if i%8 == 0 {
				j.transpose(&panel[i], j.cols, &b[(n+i)*j.K+k], j.K, deep/8)
			}
		}
		for x, v := range b[(n+i)*j.K+k+first:][:deep-first] {
			panel[(first+x)*j.cols+i] = v
		}
	}
}
