// Package adapterstest checks that a method keeps the promises that package adapters makes for it.
//
// A method's own tests say what it computes; [Run] says that its parts agree with each other, with
// files and with training. Every method that is registered runs it.
package adapterstest

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// Case is a method with settings.
type Case struct {
	// Settings is the text of an adapter_config.json without target_modules, as in
	// {"peft_type": "LORA", "r": 4}. Without it the method adapts all modules of [Base].
	Settings string

	// Changes says that a new adapter changes its base, as with init_lora_weights false.
	Changes bool

	// Detached says that gradients take a part of the formula for constant. They are then not
	// compared with differences of the loss.
	Detached bool
}

// Run runs the suite on one case.
func Run(t *testing.T, backend compute.Backend, c Case) {
	a := New(t, c.Settings, 1)
	m := newMachine(t, backend, a)
	for _, check := range []struct {
		name string
		run  func(t *testing.T, m *machine, c Case)
	}{{"fresh", fresh}, {"learns", learns}, {"agrees", agrees}, {"gradients", gradients}} {
		t.Run(check.name, func(t *testing.T) { check.run(t, m, c) })
	}
	t.Run("saved", func(t *testing.T) { saved(t, c) })
}

// New makes an adapter for [Base] with the settings of a case.
func New(t *testing.T, settings string, seed uint64) *adapters.Adapter {
	t.Helper()
	cfg, err := format.ParseAdapterConfig([]byte(settings))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.TargetModules.IsZero() {
		for _, m := range Base().Modules {
			cfg.TargetModules.Names = append(cfg.TargetModules.Names, m.Name)
		}
	}
	a, err := adapters.New(cfg, Base(), seed)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Randomize gives all parameters random values, none of them zero.
func Randomize(a *adapters.Adapter, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, p := range a.Params() {
		for i := range p.Values {
			v := 0.2 + 0.5*rng.Float64()
			if rng.IntN(2) == 0 {
				v = -v
			}
			p.Values[i] = float32(v)
		}
	}
}

// fresh checks shapes, and that a new adapter computes what its base computes. New ones of the same
// seed are equal, of another seed they are not, unless nothing about them is random.
func fresh(t *testing.T, m *machine, c Case) {
	a := m.adapter
	names := map[string]bool{}
	for _, target := range a.Targets {
		params := a.Method().Params(target)
		if len(params) == 0 {
			t.Errorf("%s has no parameters", target.Name)
		}
		for _, p := range params {
			full := target.Name + "." + p.Name
			if names[full] {
				t.Errorf("%s comes twice", full)
			}
			names[full] = true
			if slices.ContainsFunc(p.Shape, func(d int) bool { return d < 1 }) {
				t.Errorf("%s has shape %v", full, p.Shape)
			}
		}
	}
	for i, p := range New(t, c.Settings, 1).Params() {
		if !slices.Equal(p.Values, a.Params()[i].Values) {
			t.Errorf("%s depends on more than the seed", p.Name)
		}
	}
	if trainable, all := a.Count(); trainable <= 0 || all <= trainable {
		t.Errorf("%d of %d parameters", trainable, all)
	}

	differs := false
	for _, out := range m.output(t) {
		for i, y := range out.adapted {
			differs = differs || math.Abs(float64(y-out.base[i])) > 1e-5
		}
	}
	if differs != c.Changes {
		t.Errorf("a new adapter changes its base: %v, want %v", differs, c.Changes)
	}
}

// agrees checks at random values that a module's output, the output through its adapted weight, and
// the output through the weight that a merge writes are the same.
func agrees(t *testing.T, m *machine, _ Case) {
	a := m.adapter
	Randomize(a, 2)
	merger, merges := a.Method().(adapters.Merger)
	biasMerger, _ := a.Method().(adapters.BiasMerger)
	outs := m.output(t)
	for i, target := range a.Targets {
		out := outs[i]
		near(t, target.Name+": Forward and Weight", out.adapted, out.throughWeight)
		if slices.EqualFunc(out.adapted, out.base, func(x, y float32) bool { return math.Abs(float64(x-y)) < 1e-4 }) {
			t.Errorf("%s: the adapter changes nothing", target.Name)
		}
		if !merges {
			continue
		}
		w, b := value(target.Name+".weight"), value(target.Name+".bias")
		merger.Merge(target, a.TargetValues(target), w, adapters.RoundPEFT, func(v float32) float32 { return v })
		near(t, target.Name+": Merge and Weight", w, out.weight)
		if biasMerger != nil && biasMerger.MergesBias() && target.Bias {
			biasMerger.MergeBias(target, a.TargetValues(target), b)
		}
		if target.Bias {
			near(t, target.Name+": MergeBias and Bias", b, out.bias)
		}
	}
}

// saved checks that an adapter is the same after it was saved and loaded, whatever its names.
func saved(t *testing.T, c Case) {
	a := New(t, c.Settings, 1)
	Randomize(a, 3)
	for _, names := range []format.Names{format.Transformers5, format.Transformers4, format.BothNames} {
		dir := t.TempDir()
		if err := a.Save(context.Background(), dir, names); err != nil {
			t.Fatal(err)
		}
		again, err := adapters.Load(dir, Base())
		if err != nil {
			t.Fatalf("%s: %v", names, err)
		}
		if len(again.Notes) > 0 {
			t.Errorf("%s: %q", names, again.Notes)
		}
		for i, target := range again.Targets {
			if want := a.Targets[i]; target.Name != want.Name || target.Rank != want.Rank || target.Alpha != want.Alpha {
				t.Errorf("%s: target %s of rank %d and alpha %v, want %s, %d, %v", names, target.Name, target.Rank, target.Alpha, want.Name, want.Rank, want.Alpha)
			}
		}
		if len(again.Params()) != len(a.Params()) {
			t.Fatalf("%s: %d parameters, want %d", names, len(again.Params()), len(a.Params()))
		}
		for i, p := range again.Params() {
			if want := a.Params()[i]; p.Name != want.Name || !slices.Equal(p.Shape, want.Shape) || !slices.Equal(p.Values, want.Values) {
				t.Errorf("%s: %s changed", names, p.Name)
			}
		}
	}
}

// gradients checks at random values that the gradient of a loss reaches every parameter, is that of
// the loss, and is the same through Forward and through Weight.
func gradients(t *testing.T, m *machine, c Case) {
	a := m.adapter
	Randomize(a, 3)
	goals := m.goals(t)
	Randomize(a, 4)
	_, forward, weight := m.loss(t, goals)
	for i, p := range a.Params() {
		near(t, p.Name+": gradients through Forward and Weight", forward[i], weight[i])
		steepest, zero := 0, true
		for j, g := range forward[i] {
			zero = zero && g == 0
			if math.Abs(float64(g)) > math.Abs(float64(forward[i][steepest])) {
				steepest = j
			}
		}
		if zero {
			t.Errorf("%s: no gradient", p.Name)
		}
		if c.Detached {
			continue
		}
		for _, j := range []int{steepest, 0, len(p.Values) / 2} {
			const h = 1.0 / 64
			old := p.Values[j]
			p.Values[j] = old + h
			above, _, _ := m.loss(t, goals)
			p.Values[j] = old - h
			below, _, _ := m.loss(t, goals)
			p.Values[j] = old
			difference := (above - below) / (2 * h)
			if got := float64(forward[i][j]); math.Abs(got-difference) > 0.02*math.Abs(float64(forward[i][steepest]))+2e-4 {
				t.Errorf("%s: gradient %v by element %d, but the loss has %v", p.Name, got, j, difference)
			}
		}
	}
}

// learns checks that a few steps of gradient descent bring a new adapter nearer to another one.
func learns(t *testing.T, m *machine, c Case) {
	a := m.adapter
	Randomize(a, 5)
	goals := m.goals(t)
	for i, p := range New(t, c.Settings, 1).Params() {
		copy(a.Params()[i].Values, p.Values)
	}
	first, _, _ := m.loss(t, goals)
	const rate, steps = 0.02, 30
	second := make([][]float64, len(a.Params()))
	for i, p := range a.Params() {
		second[i] = make([]float64, len(p.Values))
	}
	for range steps {
		_, grads, _ := m.loss(t, goals)
		for i, p := range a.Params() {
			for j, g := range grads[i] { // RMSprop: steps of the same size for all methods
				second[i][j] = 0.9*second[i][j] + 0.1*float64(g)*float64(g)
				p.Values[j] -= float32(rate * float64(g) / (math.Sqrt(second[i][j]) + 1e-8))
			}
		}
	}
	if last, _, _ := m.loss(t, goals); !(last < 0.9*first) {
		t.Errorf("the loss went from %v to %v in %d steps", first, last, steps)
	}
}

// near compares within what the order of float32 sums explains.
func near(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values and %d", what, len(got), len(want))
	}
	largest, wrong := 0.0, 0
	for _, v := range want {
		largest = max(largest, math.Abs(float64(v)))
	}
	for i := range want {
		if !(math.Abs(float64(got[i]-want[i])) <= 1e-5*largest) {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d of %d values differ", what, wrong, len(want))
	}
}
