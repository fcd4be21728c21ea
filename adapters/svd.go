package adapters

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"
)

// A spectrum is a matrix [out, in] in singular form: u·diag(values)·vᵀ with u [out, k], v [in, k] and
// values falling. rest is the sum of squares of the singular values that it leaves out.
type spectrum struct {
	u, v   *mat.Dense
	values []float64
	rest   float64
}

var errSVD = errors.New("the singular value decomposition does not converge")

// spectrumOf decomposes b·a with b [out, k] and a [k, in] exactly, without forming the product: both
// are divided into an orthogonal and a small matrix.
func spectrumOf(b, a *mat.Dense) (spectrum, error) {
	qb, rb := thinQR(b)
	qa, ra := thinQR(mat.DenseCopyOf(a.T()))
	var core mat.Dense
	core.Mul(rb, ra.T())
	var svd mat.SVD
	if !svd.Factorize(&core, mat.SVDThin) {
		return spectrum{}, errSVD
	}
	var u, v, left, right mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	left.Mul(qb, &u)
	right.Mul(qa, &v)
	return spectrum{u: &left, v: &right, values: svd.Values(nil)}, nil
}

// thinQR returns q·r = m, with orthogonal columns of q. A wide matrix is its own r.
func thinQR(m *mat.Dense) (q, r *mat.Dense) {
	rows, cols := m.Dims()
	if rows < cols {
		return identity(rows), m
	}
	g := mat.DenseCopyOf(m).RawMatrix()
	tau, work := make([]float64, cols), make([]float64, 64*cols)
	lapack64.Geqrf(g, tau, work, len(work))
	r = mat.NewDense(cols, cols, nil)
	for i := range cols {
		for j := i; j < cols; j++ {
			r.Set(i, j, g.Data[i*g.Stride+j])
		}
	}
	lapack64.Orgqr(g, tau, work, len(work))
	return mat.NewDense(rows, cols, g.Data), r
}

// spectrumOfDense finds the largest singular values of a matrix [rows, cols] and a few more, by
// multiplying it with random vectors and, to tell close values apart, several times with itself.
// Halko, Martinsson and Tropp 2011, "Finding Structure with Randomness".
// Small matrices are decomposed exactly.
func spectrumOfDense(m []float32, rows, cols, rank int, seed uint64) (spectrum, error) {
	const small = 256
	if min(rows, cols) <= small {
		if rows > cols {
			return spectrumOf(matrix(m, rows, cols), identity(cols))
		}
		return spectrumOf(identity(rows), matrix(m, rows, cols))
	}
	const oversampling, iterations = 8, 3
	k := min(rank+oversampling, rows, cols)
	d := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: m}
	times := func(t blas.Transpose, x *mat.Dense, out int) *mat.Dense {
		y := blas32.General{Rows: out, Cols: k, Stride: k, Data: make([]float32, out*k)}
		blas32.Gemm(t, blas.NoTrans, 1, d, single32(x), 0, y)
		return double64(y)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	x := mat.NewDense(cols, k, nil)
	for i := range cols {
		for j := range k {
			x.Set(i, j, rng.NormFloat64())
		}
	}
	q, _ := thinQR(times(blas.NoTrans, x, rows))
	for range iterations {
		z, _ := thinQR(times(blas.Trans, q, cols))
		q, _ = thinQR(times(blas.NoTrans, z, rows))
	}
	// The matrix is close to q·(mᵀ·q)ᵀ.
	p := times(blas.Trans, q, cols)
	s, err := spectrumOf(q, mat.DenseCopyOf(p.T()))
	if err != nil {
		return s, err
	}
	total := 0.0
	for _, v := range m {
		total += float64(v) * float64(v)
	}
	if s.rest = total - squares(s.values); s.rest < total*1e-4 { // of which little is left but rounding
		s.rest = remainder(d, single32(q), single32(p))
	}
	return s, nil
}

// remainder is the sum of squares of m - q·pᵀ.
func remainder(m, q, p blas32.General) (sum float64) {
	const rows = 64
	for i := 0; i < m.Rows; i += rows {
		n := min(rows, m.Rows-i)
		part := blas32.General{Rows: n, Cols: m.Cols, Stride: m.Cols, Data: slices.Clone(m.Data[i*m.Stride : (i+n)*m.Stride])}
		left := blas32.General{Rows: n, Cols: q.Cols, Stride: q.Stride, Data: q.Data[i*q.Stride:]}
		blas32.Gemm(blas.NoTrans, blas.Trans, -1, left, p, 1, part)
		for _, v := range part.Data {
			sum += float64(v) * float64(v)
		}
	}
	return sum
}

func identity(n int) *mat.Dense {
	one := mat.NewDense(n, n, nil)
	for i := range n {
		one.Set(i, i, 1)
	}
	return one
}

func single32(m *mat.Dense) blas32.General {
	raw := m.RawMatrix()
	g := blas32.General{Rows: raw.Rows, Cols: raw.Cols, Stride: raw.Cols, Data: make([]float32, raw.Rows*raw.Cols)}
	for i := range raw.Rows {
		for j, v := range raw.Data[i*raw.Stride : i*raw.Stride+raw.Cols] {
			g.Data[i*g.Stride+j] = float32(v)
		}
	}
	return g
}

func double64(g blas32.General) *mat.Dense { return matrix(g.Data, g.Rows, g.Cols) }

// matrix is a copy of m [rows, cols].
func matrix(m []float32, rows, cols int) *mat.Dense {
	d := make([]float64, len(m))
	for i, v := range m {
		d[i] = float64(v)
	}
	return mat.NewDense(rows, cols, d)
}

func squares(values []float64) (sum float64) {
	for _, v := range values {
		sum += v * v
	}
	return sum
}

// kroneckerSpectrum decomposes w1 ⊗ w2: singular values and vectors are the products of theirs.
func kroneckerSpectrum(w1, w2 *mat.Dense) (spectrum, error) {
	var s1, s2 mat.SVD
	if !s1.Factorize(w1, mat.SVDThin) || !s2.Factorize(w2, mat.SVDThin) {
		return spectrum{}, errSVD
	}
	v1, v2 := s1.Values(nil), s2.Values(nil)
	type pair struct{ i, j int }
	var pairs []pair
	for i := range v1 {
		for j := range v2 {
			pairs = append(pairs, pair{i, j})
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return cmp.Compare(v1[b.i]*v2[b.j], v1[a.i]*v2[a.j]) })
	var u1, u2, r1, r2 mat.Dense
	s1.UTo(&u1)
	s2.UTo(&u2)
	s1.VTo(&r1)
	s2.VTo(&r2)
	columns := func(a, b *mat.Dense) *mat.Dense {
		ra, _ := a.Dims()
		rb, _ := b.Dims()
		m := mat.NewDense(ra*rb, len(pairs), nil)
		for c, p := range pairs {
			for i := range ra {
				for j := range rb {
					m.Set(i*rb+j, c, a.At(i, p.i)*b.At(j, p.j))
				}
			}
		}
		return m
	}
	s := spectrum{u: columns(&u1, &u2), v: columns(&r1, &r2)}
	for _, p := range pairs {
		s.values = append(s.values, v1[p.i]*v2[p.j])
	}
	return s, nil
}

// factors are B [out, k] and A [k, in] of the first k singular values: B·A is the best matrix of that
// rank. Like PEFT they leave the values with B.
func (s spectrum) factors(k int) (b, a []float32) {
	out, _ := s.u.Dims()
	in, _ := s.v.Dims()
	b, a = make([]float32, out*k), make([]float32, k*in)
	for c := range min(k, len(s.values)) {
		for i := range out {
			b[i*k+c] = float32(s.u.At(i, c) * s.values[c])
		}
		for j := range in {
			a[c*in+j] = float32(s.v.At(j, c))
		}
	}
	return b, a
}

// energy is the sum of squares of all elements.
func (s spectrum) energy() float64 { return squares(s.values) + s.rest }

// lost is how much of that is missing at rank k.
func (s spectrum) lost(k int) float64 { return squares(s.values[min(k, len(s.values)):]) + s.rest }

// rankFor is the smallest rank, 1 or more, that keeps a share of the energy.
func (s spectrum) rankFor(share float64) int {
	allowed := s.energy() * (1 - share)
	for k := 1; k < len(s.values); k++ {
		if s.lost(k) <= allowed {
			return k
		}
	}
	return max(1, len(s.values))
}

// relative is a share of energy as the size of an error.
func relative(lost, energy float64) float64 {
	if energy == 0 {
		return 0
	}
	return math.Sqrt(max(0, lost) / energy)
}
