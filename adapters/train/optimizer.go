package train

import (
	"math"
	"strings"
	"sync"

	"github.com/hubtool/hubtool/adapters"
)

// adamW is Adam with decoupled weight decay. Loshchilov and Hutter 2019, "Decoupled Weight Decay
// Regularization"; the operations are those of torch.optim.AdamW.
type adamW struct {
	beta1, beta2, epsilon float64
	rates, decays         []float64 // of each parameter: times the schedule's rate, and weight decay

	step          int
	first, second [][]float32 // moments, by parameter
}

func newAdamW(c Config, params []adapters.Parameter) *adamW {
	o := &adamW{beta1: c.AdamBeta1, beta2: c.AdamBeta2, epsilon: c.AdamEpsilon}
	o.first, o.second = zerosLike(params), zerosLike(params)
	for _, p := range params {
		rate, decay := 1.0, 0.0
		if decays(p.Name) {
			decay = c.WeightDecay
		}
		if c.LoraplusLRRatio > 0 && faster(p) {
			rate = c.LoraplusLRRatio
		}
		o.rates, o.decays = append(o.rates, rate), append(o.decays, decay)
	}
	return o
}

// decays tells whether weight decay applies to a parameter: not to biases and norms, as in Trainer.
func decays(name string) bool {
	return !strings.Contains(name, "bias") && !strings.Contains(name, "layernorm")
}

// faster tells whether LoRA+ gives a parameter its higher rate, by the rule of PEFT's
// create_loraplus_optimizer. Hayou et al. 2024, "LoRA+".
func faster(p adapters.Parameter) bool {
	return strings.Contains(p.Name, "lora_B") || len(p.Shape) == 1
}

func zerosLike(params []adapters.Parameter) [][]float32 {
	zeros := make([][]float32, len(params))
	for i, p := range params {
		zeros[i] = make([]float32, len(p.Values))
	}
	return zeros
}

// update changes the parameters by one step against the gradients, on all cores: the engine has
// nothing to do meanwhile.
func (o *adamW) update(params []adapters.Parameter, grads [][]float32, rate float64) {
	o.step++
	var wg sync.WaitGroup
	for i, p := range params {
		wg.Go(func() { o.updateOne(i, p.Values, grads[i], rate*o.rates[i]) })
	}
	wg.Wait()
}

func (o *adamW) updateOne(i int, values, grad []float32, rate float64) {
	correction1 := 1 - math.Pow(o.beta1, float64(o.step))
	correction2 := math.Sqrt(1 - math.Pow(o.beta2, float64(o.step)))
	keep := 1 - rate*o.decays[i]
	first, second := o.first[i], o.second[i]
	for j, g := range grad {
		g := float64(g)
		m := float64(first[j]) + (g-float64(first[j]))*(1-o.beta1)
		v := o.beta2*float64(second[j]) + (1-o.beta2)*g*g
		first[j], second[j] = float32(m), float32(v)
		values[j] = float32(keep*float64(values[j]) - rate/correction1*m/(math.Sqrt(v)/correction2+o.epsilon))
	}
}

// norm is the Euclidean norm of all gradients together.
func norm(grads [][]float32) float64 {
	var sum float64
	for _, g := range grads {
		for _, v := range g {
			sum += float64(v) * float64(v)
		}
	}
	return math.Sqrt(sum)
}

func scale(grads [][]float32, by float64) {
	for _, g := range grads {
		for j, v := range g {
			g[j] = float32(float64(v) * by)
		}
	}
}
