package adapters

import (
	"gonum.org/v1/gonum/mat"
)

// A lowRank is a method whose update is a product of thin matrices, whatever the base.
type lowRank interface {
	// Factors returns b [out, k] and a [k, in], scale included.
	Factors(t Target, values Values) (b, a *mat.Dense)
}

// A spectral is a method whose update has a cheaper way to its singular values than its factors.
type spectral interface {
	Spectrum(t Target, values Values) (spectrum, error)
}

// describe names the method.
func (a *Adapter) describe() string {
	if _, ok := a.method.(*dora); ok {
		return "DoRA"
	}
	return a.Config.PeftType
}

// Factors of LoRA are its own, the scale in B.
func (m *lora) Factors(t Target, values Values) (b, a *mat.Dense) {
	t.Kind = Linear
	right, left := values["lora_A.weight"], values["lora_B.weight"]
	if values["lora_embedding_A"] != nil {
		right, left = values["lora_embedding_A"], values["lora_embedding_B"]
	}
	b = matrix(left, t.Out(), t.Rank)
	b.Scale(m.scale(t), b)
	return b, matrix(right, t.Rank, t.In())
}

// Factors of LoHa have all products of a column and a row of both factors: rank r².
func (m *loha) Factors(t Target, values Values) (b, a *mat.Dense) {
	r, out, in := t.Rank, t.Out(), t.In()
	if m.tucker(t) {
		// The kernel's positions tie the factors together: take the whole update.
		d := make([]float32, out*in)
		m.MergeRows(t, values, RoundPEFT).Delta(0, d)
		return identity(out), matrix(d, out, in)
	}
	b, a = mat.NewDense(out, r*r, nil), mat.NewDense(r*r, in, nil)
	for p := range r {
		for q := range r {
			for i := range out {
				b.Set(i, p*r+q, m.scale(t)*float64(values["hada_w1_a"][i*r+p])*float64(values["hada_w2_a"][i*r+q]))
			}
			for j := range in {
				a.Set(p*r+q, j, float64(values["hada_w1_b"][p*in+j])*float64(values["hada_w2_b"][q*in+j]))
			}
		}
	}
	return b, a
}

// Factors of AdaLoRA have the triplets' values and the scale in B.
func (m *adalora) Factors(t Target, values Values) (b, a *mat.Dense) {
	e := values["lora_E"]
	rank := len(e)
	if rank == 0 { // pruned
		return mat.NewDense(t.Out(), 1, nil), mat.NewDense(1, t.In(), nil)
	}
	b = matrix(values["lora_B"], t.Out(), rank)
	b.Apply(func(_, k int, v float64) float64 { return v * float64(e[k]) * m.scale(t) }, b)
	return b, matrix(values["lora_A"], rank, t.In())
}

// Spectrum of LoKr is made of those of its two factors.
func (m *lokr) Spectrum(t Target, values Values) (spectrum, error) {
	k := m.split(t)
	w1, w2 := m.wholes(t, values)
	one := matrix(w1, k.l, k.m)
	one.Scale(m.scale(t), one)
	return kroneckerSpectrum(one, matrix(w2, k.k, k.n*k.kernel))
}
