package gemm

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// Every kernel gives the bits of the sums that the package promises, for shapes that end within tiles
// and within passes, on one thread and on several.
func TestMultiply(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	shapes := []Shape{
		{1, 1, 1, 1, false}, {1, 12, 32, depth, true}, {1, 13, 33, depth + 1, false}, {2, 6, 16, 2*depth + 1, true},
		{1, 3, 5, 0, false}, {0, 3, 5, 7, false}, {1, 0, 5, 7, true}, {1, 3, 0, 7, true}, {1, height + 1, 3, 5, false},
		{1, 60, 200, 30, false}, {1, 300, 170, 90, true},
	}
	for range 60 {
		shapes = append(shapes, Shape{1 + random.IntN(3), 1 + random.IntN(60), 1 + random.IntN(90), 1 + random.IntN(700), random.IntN(2) == 0})
	}
	for _, kn := range kernels {
		for _, s := range shapes {
			a, b := numbers(random, s.Batch*s.M*s.K), numbers(random, s.Batch*s.K*s.N)
			want := reference(a, b, s)
			for _, threads := range []int{1, 2, 5} {
				before := runtime.GOMAXPROCS(threads)
				c := numbers(random, len(want))
				kn.multiply(c, a, b, s)
				runtime.GOMAXPROCS(before)
				for i := range want {
					if c[i] != want[i] {
						t.Fatalf("%s, %+v, %d threads: value %d is %g, want %g", kn.name, s, threads, i, c[i], want[i])
					}
				}
			}
		}
	}
}

// A tile's unused rows and columns are zeros, which must not meet what is not a number elsewhere.
func TestNotANumber(t *testing.T) {
	for _, kn := range kernels {
		a, b, c := []float32{float32(math.Inf(1)), 1, 2, 3}, []float32{1, 2, 3, float32(math.NaN())}, make([]float32, 4)
		kn.multiply(c, a, b, Shape{1, 2, 2, 2, false})
		if !math.IsInf(float64(c[0]), 1) || c[2] != 11 || c[1] == c[1] || c[3] == c[3] {
			t.Errorf("%s: [inf 1; 2 3]·[1 2; 3 nan] = %v", kn.name, c)
		}
	}
}

func TestShortSlice(t *testing.T) {
	if Kernel() == "" {
		t.Skip("no kernel for this processor")
	}
	defer func() {
		if recover() == nil {
			t.Error("a slice that is too short was read beyond its end")
		}
	}()
	Multiply(make([]float32, 4), make([]float32, 5), make([]float32, 6), Shape{1, 2, 2, 3, false})
}

// reference sums in the order that the package's comment gives.
func reference(a, b []float32, s Shape) []float32 {
	c := make([]float32, s.Batch*s.M*s.N)
	passes := max(1, ceil(s.K, depth))
	length := ceil(s.K, passes)
	for i := range c {
		product, m, n := i/(s.M*s.N), i/s.N%s.M, i%s.N
		for from := 0; from < s.K; from += length {
			var sum float32
			for k := from; k < min(from+length, s.K); k++ {
				y := (product*s.K+k)*s.N + n
				if s.Transposed {
					y = (product*s.N+n)*s.K + k
				}
				sum = fma(a[(product*s.M+m)*s.K+k], b[y], sum)
			}
			c[i] += sum
		}
	}
	return c
}

// fma rounds x·y+z once. The product of two float32 is exact in float64. If the sum is not, its last bit
// is made to tell, so that rounding again goes the right way.
func fma(x, y, z float32) float32 {
	p, q := float64(x)*float64(y), float64(z)
	sum := p + q
	back := sum - p
	lost := (p - (sum - back)) + (q - back)
	bits := math.Float64bits(sum)
	if lost != 0 && bits&1 == 0 {
		if (lost > 0) == (sum > 0) {
			bits++
		} else {
			bits--
		}
	}
	return float32(math.Float64frombits(bits))
}

func numbers(random *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = random.Float32() - 0.5
	}
	return v
}

// plain is one row of a product as a loop, in the order in which b lies.
func plain(c, a, b []float32, transposed bool) {
	if transposed {
		for n := range c {
			var sum float32
			for k, y := range b[n*len(a):][:len(a)] {
				sum += a[k] * y
			}
			c[n] = sum
		}
		return
	}
	clear(c)
	for k, x := range a {
		for n, y := range b[k*len(c):][:len(c)] {
			c[n] += x * y
		}
	}
}

// The shapes of ViT-Base with four images, beside a plain loop over rows of the same.
func BenchmarkMultiply(b *testing.B) {
	if Kernel() == "" {
		b.Skip("no kernel for this processor")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name string
		Shape
	}{
		{"intermediate", Shape{1, 788, 3072, 768, true}},
		{"output", Shape{1, 788, 768, 3072, true}},
		{"query", Shape{1, 788, 768, 768, true}},
		{"gradient of intermediate", Shape{1, 788, 768, 3072, false}},
		{"scores", Shape{48, 197, 197, 64, true}},
		{"lora_A", Shape{1, 788, 16, 768, true}},
		{"gradient of lora_A", Shape{1, 16, 768, 788, false}},
	} {
		b.Run(c.name, func(b *testing.B) {
			x, y, z := numbers(random, c.Batch*c.M*c.K), numbers(random, c.Batch*c.K*c.N), make([]float32, c.Batch*c.M*c.N)
			for b.Loop() {
				Multiply(z, x, y, c.Shape)
			}
			each := b.Elapsed() / time.Duration(b.N*c.Batch*c.M)
			begin := time.Now()
			for row := range 8 {
				plain(z[row*c.N:][:c.N], x[row*c.K:][:c.K], y, c.Transposed)
			}
			b.ReportMetric(float64(time.Since(begin)/8)/float64(each), "loop/gemm")
		})
	}
}
