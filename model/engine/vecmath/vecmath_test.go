package vecmath

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// arguments are numbers from all of float32's range, most of them where the functions bend, and those that
// are special.
func arguments() []float32 {
	inf := float32(math.Inf(1))
	x := []float32{0, float32(math.Copysign(0, -1)), inf, -inf, float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32, 1, -1, math.Nextafter32(1, 0),
		math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 1e-39, -1e-39, -87.5, -103.9, -104, 88.72, 88.73, -13.2, -14.1, -14.45, -14.5}
	for v := float32(1e-30); v < 1e30; v *= 1.05 {
		x = append(x, v, -v)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		x = append(x, float32(random.NormFloat64()*4))
	}
	return x
}

// Values are those of float64, to the error that the documentation promises, and special ones are right.
func TestValues(t *testing.T) {
	normal := func(x float64) float64 {
		if math.IsInf(x, -1) {
			return 0
		}
		return x * math.Erfc(-x/math.Sqrt2) / 2
	}
	x := arguments()
	for _, kn := range kernels {
		for _, c := range []struct {
			name  string
			f     func(x *float32, blocks int)
			exact func(float64) float64
			tiny  float64 // error beside the relative one
			error float64
		}{
			{"gelu", kn.gelu, normal, 1e-42, 4e-7},
			{"erf", kn.erf, math.Erf, 1e-44, 3e-7},
			{"exp", kn.exp, math.Exp, 1e-45, 2e-7},
		} {
			if kn.name == "" && c.name != "exp" {
				c.tiny, c.error = 6e-7, 6e-7
			}
			got, worst := slices.Clone(x), 0.0
			apply(c.f, got)
			for i, v := range x {
				want, have := c.exact(float64(v)), float64(got[i])
				if float32(want) == got[i] && math.Signbit(want) == math.Signbit(have) || math.IsNaN(want) && math.IsNaN(have) {
					continue
				}
				off := math.Abs(have-want) - c.tiny
				if worst = max(worst, off/math.Abs(want)); !(off <= c.error*math.Abs(want)) {
					t.Errorf("%q: %s(%g) is %g, want %g", kn.name, c.name, v, have, want)
				}
			}
			t.Logf("%q: %s within %.2g", kn.name, c.name, worst)
		}
	}
}

// All kernels of vectors give the same bits, wherever a value stands.
func TestSameBits(t *testing.T) {
	x := arguments()
	for _, kn := range kernels[:len(kernels)-1] {
		for name, f := range map[string][2]func(*float32, int){"gelu": {kn.gelu, kernels[0].gelu}, "erf": {kn.erf, kernels[0].erf}, "exp": {kn.exp, kernels[0].exp}} {
			want, got := slices.Clone(x), slices.Clone(x)
			apply(f[1], want)
			for from, n := 0, 1; from < len(got); from, n = from+n, n%37+1 {
				apply(f[0], got[from:min(from+n, len(got))])
			}
			if i := differ(got, want); i >= 0 {
				t.Errorf("%s: %s(%g) is %g, want the bits of %g", kn.name, name, x[i], got[i], want[i])
			}
		}
	}
}

func TestSoftmax(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	random := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= 70; n++ {
		const rows = 7
		x := make([]float32, rows*n)
		for i := range x {
			x[i] = float32(random.NormFloat64() * 20)
		}
		for i := range n { // rows that are special
			x[n+i], x[2*n+i], x[3*n+i] = -inf, -inf, float32(i)
		}
		x[2*n+n/2], x[3*n+n-1] = 88, nan
		x[4*n] = inf
		var first []float32
		for _, kn := range kernels {
			got := append(slices.Clone(x), 42) // a neighbour that is not to be touched
			kn.softmax(&got[0], rows, n)
			if got[rows*n] != 42 {
				t.Fatalf("%q: a row of %d is written beyond its end", kn.name, n)
			}
			for row := range rows {
				have, want := got[row*n:][:n], exact(x[row*n:][:n])
				for i, v := range have {
					if !(math.Abs(float64(v)-want[i]) <= 1e-6*want[i]+1e-43) && !(v != v && math.IsNaN(want[i])) {
						t.Fatalf("%q: value %d of row %d of %d is %g, want %g", kn.name, i, row, n, v, want[i])
					}
				}
			}
			if first == nil {
				first = got
			} else if i := differ(got, first); i >= 0 && kn.name != "" {
				t.Fatalf("%s: value %d of rows of %d is %g, want the bits of %g", kn.name, i, n, got[i], first[i])
			}
		}
	}
}

// exact divides in float64 what it subtracts in float32.
func exact(row []float32) []float64 {
	y, sum := make([]float64, len(row)), 0.0
	for i, v := range row {
		y[i] = math.Exp(float64(v - slices.Max(row)))
		sum += y[i]
	}
	for i := range y {
		y[i] /= sum
	}
	return y
}

// differ is the first place where two slices have other bits, of which those of what is not a number do not
// count, or -1.
func differ(a, b []float32) int {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) && !(a[i] != a[i] && b[i] != b[i]) {
			return i
		}
	}
	return -1
}

func TestWrongRows(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("ten values were taken for rows of three")
		}
	}()
	Softmax(make([]float32, 10), 3)
}

func BenchmarkGelu(b *testing.B) {
	for _, kn := range kernels {
		b.Run(kn.name, func(b *testing.B) {
			x := make([]float32, 1<<14)
			for b.Loop() {
				kn.gelu(&x[0], len(x)/block)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/value")
		})
	}
}

func BenchmarkSoftmax(b *testing.B) {
	for _, kn := range kernels {
		b.Run(kn.name, func(b *testing.B) {
			const rows, n = 260, 65
			x := make([]float32, rows*n)
			for b.Loop() {
				kn.softmax(&x[0], rows, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/value")
		})
	}
}
