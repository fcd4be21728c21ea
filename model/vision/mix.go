package vision

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// A Mixer mixes each image of a batch with the one before it, the first with the last, as torchvision's MixUp and CutMix
// do. The label is then only a share of what an image shows; the rest is the label of the other image.
type Mixer interface {
	// Mix changes n images of width by height pixels, three bytes each, and returns the share of the labels that are the
	// images' own.
	Mix(pixels []uint8, n, width, height int, rng *rand.Rand) float64
	String() string
}

// MixUp averages the images with weights λ and 1-λ, where λ is drawn from Beta(Alpha, Alpha): Zhang et al. 2018, "mixup:
// Beyond Empirical Risk Minimization". Samples are rounded to eight bits, which torchvision's floats are not.
type MixUp struct{ Alpha float64 }

// Mix implements [Mixer].
func (m MixUp) Mix(pixels []uint8, n, _, _ int, rng *rand.Rand) float64 {
	own := beta(rng, m.Alpha)
	mixUp(pixels, n, own)
	return own
}

func (m MixUp) String() string { return fmt.Sprintf("MixUp(alpha=%s)", float(m.Alpha)) }

// mixUp computes in single precision as torch does, and then rounds.
func mixUp(pixels []uint8, n int, own float64) {
	a, b := float32(own), float32(1-own)
	eachPair(pixels, n, func(image, other []uint8) {
		for i, v := range other {
			image[i] = uint8(float32(float32(v)*b) + float32(float32(image[i])*a) + 0.5)
		}
	})
}

// eachPair visits each image with the one before it, which is still as it was.
func eachPair(pixels []uint8, n int, visit func(image, other []uint8)) {
	size := len(pixels) / n
	last := append([]uint8(nil), pixels[(n-1)*size:]...)
	for i := n - 1; i > 0; i-- {
		visit(pixels[i*size:(i+1)*size], pixels[(i-1)*size:i*size])
	}
	visit(pixels[:size], last)
}

// CutMix takes a box of the other image, whose share of the area is 1-λ unless the edge cuts it off, where λ is drawn from
// Beta(Alpha, Alpha): Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
// Features".
type CutMix struct{ Alpha float64 }

// Mix implements [Mixer].
func (m CutMix) Mix(pixels []uint8, n, width, height int, rng *rand.Rand) float64 {
	return cutMix(pixels, n, width, height, beta(rng, m.Alpha), rng)
}

func (m CutMix) String() string { return fmt.Sprintf("CutMix(alpha=%s)", float(m.Alpha)) }

func cutMix(pixels []uint8, n, width, height int, own float64, rng *rand.Rand) float64 {
	x, y := below(rng, width), below(rng, height)
	r := 0.5 * math.Sqrt(1-own)
	halfW, halfH := int(r*float64(width)), int(r*float64(height))
	x0, x1 := max(x-halfW, 0), min(x+halfW, width)
	y0, y1 := max(y-halfH, 0), min(y+halfH, height)
	eachPair(pixels, n, func(image, other []uint8) {
		for row := y0; row < y1; row++ {
			at := 3 * (row*width + x0)
			copy(image[at:at+3*(x1-x0)], other[at:])
		}
	})
	return 1 - float64((x1-x0)*(y1-y0))/float64(width*height)
}

// Mix mixes the images of a batch by one of the pipeline's mixers, drawn from the generator like
// torchvision's RandomChoice. The share is 1 where it has none.
func (p *Pipeline) Mix(pixels []uint8, n, width, height int, rng *rand.Rand) (own float64) {
	if len(p.Mixers) == 0 || n == 0 {
		return 1
	}
	m := p.Mixers[0]
	if len(p.Mixers) > 1 {
		m = p.Mixers[below(rng, len(p.Mixers))]
	}
	return m.Mix(pixels[:3*n*width*height], n, width, height, rng)
}

// beta draws from Beta(alpha, alpha), as one of two numbers from Gamma(alpha) to their sum.
func beta(rng *rand.Rand, alpha float64) float64 {
	return 1 / (1 + math.Exp(logGamma(rng, alpha)-logGamma(rng, alpha)))
}

// logGamma is the logarithm of a number drawn from Gamma(alpha): Marsaglia and Tsang 2000, "A Simple Method for Generating
// Gamma Variables", for alpha+1, and a power of a uniform number. Small alphas would underflow without the logarithm.
func logGamma(rng *rand.Rand, alpha float64) float64 {
	d := alpha + 1 - 1./3
	for {
		x := normal(rng)
		v := 1 + x/math.Sqrt(9*d)
		if v <= 0 {
			continue
		}
		v *= v * v
		if math.Log(1-rng.Float64()) < 0.5*x*x+d-d*v+d*math.Log(v) {
			return math.Log(d*v) + math.Log(1-rng.Float64())/alpha
		}
	}
}

// normal draws by Box and Muller's method, which unlike rand.NormFloat64 is written out here for good.
func normal(rng *rand.Rand) float64 {
	return math.Sqrt(-2*math.Log(1-rng.Float64())) * math.Cos(2*math.Pi*rng.Float64())
}
