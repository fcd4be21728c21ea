package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hubtool/hubtool/format"
)

// eachISA runs a test with every set of instructions that the processor has, and with none.
func eachISA(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, s := range append([]isa{plain}, available...) {
		t.Run(s.name, func(t *testing.T) {
			old := active
			active = &s
			defer func() { active = old }()
			test(t)
		})
	}
}

func TestChoose(t *testing.T) {
	for _, s := range available {
		if got := choose(s.name); got.name != s.name {
			t.Errorf("%s is %s", s.name, got.name)
		}
	}
	if got := choose("go"); got != &plain {
		t.Errorf("go is %s", got.name)
	}
	if best := choose(""); len(available) > 0 && best.name != available[0].name {
		t.Errorf("the default is %s", best.name)
	}
}

var dtypes = map[Type]format.DType{BF16: format.BF16, F16: format.F16, F32: format.F32}

// hard are values around which rounding goes wrong: ties, the largest and smallest numbers of each
// type and their neighbours, and what is no number.
func hard() []float32 {
	var list []float32
	for _, v := range []float32{0, 1, 1.00390625, 1.01171875, 3, 1 << 15, 65504, 65519.996, 65520, 65536, 0x1p-14, 0x1p-15, 0x1.8p-25, 0x1p-25,
		0x1p-24, 0x1.ffcp-15, 0x1p-126, 0x1p-127, 0x1p-133, 0x1p-149, 3.3895314e38, 3.3961775e38, math.MaxFloat32, 0x1.ffp127,
		float32(math.Inf(1)), math.Float32frombits(0x7fffffff), math.Float32frombits(0x7f800001), math.Float32frombits(0x7fc01234)} {
		for d := -2; d <= 2; d++ {
			u := math.Float32frombits(math.Float32bits(v) + uint32(d))
			list = append(list, u, -u)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		list = append(list, math.Float32frombits(rng.Uint32()), float32(rng.NormFloat64()))
	}
	return list
}

// same compares bits; a NaN is as good as another.
func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func finite(v float32) bool { return v-v == 0 }

func TestNarrowWidenRound(t *testing.T) {
	values := hard()
	eachISA(t, func(t *testing.T) {
		for typ, dtype := range dtypes {
			w := make([]byte, typ.Size()*len(values))
			Narrow(typ, w, values)
			wide := make([]float32, len(values))
			Widen(typ, wide, w)
			rounded := slices.Clone(values)
			Round(typ, rounded)
			for i, v := range values {
				if want := format.Round(dtype, v); !same(wide[i], want) || !same(rounded[i], want) {
					t.Errorf("%s of %x: %x and %x, want %x", dtype, v, wide[i], rounded[i], want)
				}
			}
			for i, v := range values { // one at a time, so that each one's finiteness counts
				for _, at := range []int{0, 16, 31} {
					row, one := make([]float32, 33), make([]byte, 33*typ.Size())
					row[at] = v
					if got, want := Narrow(typ, one, row), finite(format.Round(dtype, v)); got != want {
						t.Fatalf("%s of %x (%d) is finite: %t", dtype, v, i, got)
					}
				}
			}
		}
	})
}

func TestFinite(t *testing.T) {
	for typ, dtype := range dtypes {
		for _, v := range hard() {
			for n := range 10 { // any place in a word, and none
				row, w := make([]float32, n), make([]byte, n*typ.Size())
				if n > 0 {
					row[n/2] = v
				}
				Narrow(typ, w, row)
				if got, want := Finite(typ, w), n == 0 || finite(format.Round(dtype, v)); got != want {
					t.Fatalf("%s of %x, one of %d, is finite: %t", dtype, v, n, got)
				}
			}
		}
	}
}

// Every half there is.
func TestWidenAll(t *testing.T) {
	all := make([]byte, 0, 2<<16)
	for u := range 1 << 16 {
		all = binary.LittleEndian.AppendUint16(all, uint16(u))
	}
	for typ, dtype := range map[Type]format.DType{BF16: format.BF16, F16: format.F16} {
		want, err := format.Floats(format.NewTensor(format.TensorInfo{DType: dtype, Shape: []int{1 << 16}}, all))
		if err != nil {
			t.Fatal(err)
		}
		eachISA(t, func(t *testing.T) {
			got := make([]float32, 1<<16)
			Widen(typ, got, all)
			back := make([]byte, 2<<16)
			Narrow(typ, back, got)
			for u, v := range got {
				if !same(v, want[u]) || v == v && binary.LittleEndian.Uint16(back[2*u:]) != uint16(u) {
					t.Errorf("%s %#x is %x, want %x", dtype, u, v, want[u])
				}
			}
		})
	}
}

func TestAdd(t *testing.T) {
	values := hard()
	rng := rand.New(rand.NewPCG(3, 4))
	eachISA(t, func(t *testing.T) {
		for typ, dtype := range dtypes {
			base, d := slices.Clone(values), slices.Clone(values)
			rng.Shuffle(len(d), func(i, j int) { d[i], d[j] = d[j], d[i] })
			for i := range base { // sums that are ties of the narrow type
				if i%3 == 0 {
					d[i] = base[i] * (1.0 / 512)
				}
			}
			w := make([]byte, typ.Size()*len(base))
			Narrow(typ, w, base)
			Widen(typ, base, w)
			for _, n := range []int{len(base), 0, 1, 15, 16, 17, 31, 40} {
				got := slices.Clone(w)
				all := true
				ok := Add(typ, got[:n*typ.Size()], d[:n])
				sums := make([]float32, n)
				Widen(typ, sums, got)
				for i := range n {
					want := format.Round(dtype, base[i]+d[i])
					all = all && finite(want)
					if !same(sums[i], want) {
						t.Errorf("%s: %x + %x = %x, want %x", dtype, base[i], d[i], sums[i], want)
					}
				}
				if ok != all {
					t.Errorf("%s: %d sums are finite: %t, want %t", dtype, n, ok, all)
				}
				if !slices.Equal(got[n*typ.Size():], w[n*typ.Size():]) {
					t.Errorf("%s: wrote past %d elements", dtype, n)
				}
			}
		}
	})
}

func TestDivideOuter(t *testing.T) {
	values := hard()
	eachISA(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 7, 8, 15, 16, 17, 40, 88, len(values)} {
			for _, by := range []float32{16.00001, 3, 0x1p-149, 1e30} {
				got := slices.Clone(values)
				Divide(got[:n], by)
				for i, v := range values {
					if i < n {
						v /= by
					}
					if !same(got[i], v) {
						t.Errorf("%x / %x = %x, want %x", values[i], by, got[i], v)
					}
				}
			}
			x, y := []float32{1.1, 0, -0x1p-100, 3e20}, values[:n]
			for _, s := range []float32{2, 0.7, 1e20} { // (x·y)·s, which is neither x·(y·s) nor fused
				got := make([]float32, len(x)*n+1)
				Outer(got[:len(x)*n], x, y, s)
				for i, v := range got[:len(x)*n] {
					if want := float32(float32(x[i/n]*y[i%n]) * s); !same(v, want) {
						t.Errorf("%x · %x · %x = %x, want %x", x[i/n], y[i%n], s, v, want)
					}
				}
				if got[len(x)*n] != 0 {
					t.Errorf("wrote past %d elements", len(x)*n)
				}
			}
		}
	})
}

// exactFMA rounds x·y + z once, by means of numbers of any length.
func exactFMA(x, y, z float32) float32 {
	exact := func(v float32) *big.Float { return new(big.Float).SetPrec(600).SetFloat64(float64(v)) }
	sum := exact(x)
	sum.Mul(sum, exact(y)).Add(sum, exact(z))
	v, _ := sum.Float32()
	return v
}

func TestFMA(t *testing.T) {
	var values []float32
	for _, v := range hard() {
		if finite(v) {
			values = append(values, v)
		}
	}
	rng := rand.New(rand.NewPCG(5, 6))
	pick := func() float32 { return values[rng.IntN(len(values))] }
	for range 50_000 {
		x, y, z := pick(), pick(), pick()
		switch rng.IntN(3) {
		case 0: // nearly cancels
			z = -x*y + z*0x1p-20
		case 1: // the exact sum is close to the middle of two float32s
			x, y = float32(rng.IntN(1<<24)), float32(rng.IntN(1<<24))
			z = float32(rng.IntN(1<<24)) * 0x1p-24
		}
		if !finite(z) {
			continue
		}
		if got, want := fma(x, y, z), exactFMA(x, y, z); got != want {
			t.Fatalf("%x·%x + %x = %x, want %x", x, y, z, got, want)
		}
	}
}

// reference is the product as torch computes it, one element at a time. TestFMA has shown that fma
// is right.
func reference(b, a []float32, i, j, k, n, block int, scale float32) float32 {
	size := k
	if k > 2*block {
		size = block
	} else if k > block {
		size = (k + 1) / 2
	}
	total := float32(0)
	for k0 := 0; k0 < k; k0 += size {
		sum := float32(0)
		for kk := k0; kk < min(k0+size, k); kk++ {
			sum = fma(b[i*k+kk], a[kk*n+j], sum)
		}
		if k0 == 0 {
			total = sum
		} else {
			total += sum
		}
	}
	return float32(total * scale)
}

func TestProduct(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	random := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64()) * 0.3
		}
		return v
	}
	old := blockTerms
	defer func() { blockTerms = old }()
	for _, c := range [][2]int{{0, 192}, {1, 192}, {2, 192}, {3, 192}, {4, 384}, {5, 192}, {7, 192}, {8, 192}, {9, 192}, {12, 192}, {16, 192}, {64, 192},
		{192, 192}, {193, 192}, {256, 192}, {384, 192}, {385, 192}, {450, 192}, {384, 384}, {385, 384}, {768, 384}, {769, 384}} {
		k := c[0]
		blockTerms = c[1]
		for _, size := range [][2]int{{1, 1}, {3, 5}, {4, 64}, {5, 65}, {9, 130}, {8, 16}, {7, 17}, {13, 700}} {
			m, n := size[0], size[1]
			if k > 64 && m*n > 1000 {
				continue // takes time and shows nothing new
			}
			b, a := random(m*k), random(k*n)
			want := make([]float32, m*n)
			for i := range m {
				for j := range n {
					want[i*n+j] = reference(b, a, i, j, k, n, blockTerms, 0.7)
				}
			}
			eachISA(t, func(t *testing.T) {
				p := NewProduct(b, a, k, n)
				for _, rows := range [][2]int{{0, m}, {m / 2, m - m/2}, {m - 1, 1}} {
					got := random(rows[1] * n) // what was there before must not matter
					p.Rows(got, rows[0], 0.7)
					for i, v := range got {
						if at := rows[0]*n + i; math.Float32bits(v) != math.Float32bits(want[at]) {
							t.Fatalf("[%d, %d]·[%d, %d]: element %d is %x, want %x", m, k, k, n, at, v, want[at])
						}
					}
				}
			})
		}
	}
}

// BenchmarkLowRank is what merging LoRA does to the rows of a large matrix, in bytes of the weight.
func BenchmarkLowRank(b *testing.B) {
	const rows, n = 64, 4096
	for _, s := range append(slices.Clone(available), plain) {
		for _, k := range []int{16, 64} {
			for typ, dtype := range dtypes {
				b.Run(fmt.Sprintf("%s/r%d/%s", s.name, k, dtype), func(b *testing.B) {
					old := active
					active = &s
					defer func() { active = old }()
					p := NewProduct(make([]float32, rows*k), make([]float32, k*n), k, n)
					w, d := make([]byte, rows*n*typ.Size()), make([]float32, 8*n)
					b.SetBytes(int64(len(w)))
					for b.Loop() {
						for i := 0; i < rows; i += 8 {
							p.Rows(d, i, 2)
							Add(typ, w[i*n*typ.Size():(i+8)*n*typ.Size()], d)
						}
					}
				})
			}
		}
	}
}
