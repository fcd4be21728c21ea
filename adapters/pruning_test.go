package adapters

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hubtool/hubtool/format"
)

// planned is AdaLoRA on so many linear layers [2, 3], with settings as JSON, in a run of some steps.
func planned(t *testing.T, settings string, modules, steps int) (*Adapter, error) {
	t.Helper()
	cfg, err := format.ParseAdapterConfig([]byte(`{"peft_type": "ADALORA", "target_modules": ".*", ` + settings + `}`))
	if err != nil {
		t.Fatal(err)
	}
	b := Base{Values: func(string) ([]float32, error) { return nil, nil }}
	for i := range modules {
		b.Modules = append(b.Modules, Module{Name: fmt.Sprint("m", i), Shape: []int{2, 3}})
	}
	a, err := New(cfg, b, 1)
	if err != nil {
		t.Fatal(err)
	}
	return a, a.Plan(steps)
}

// 41: the budget falls with the cube of the steps that are left.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		settings             string
		modules, steps, step int
		want                 int
	}{
		{`"init_r": 12, "target_r": 8, "tinit": 200, "tfinal": 1000`, 24, 3000, 210, 286},
		{`"init_r": 12, "target_r": 8, "tinit": 200, "tfinal": 1000`, 24, 3000, 1100, 204},
		{`"init_r": 12, "target_r": 8, "tinit": 200, "tfinal": 1000`, 24, 3000, 2000, 192},
		{`"init_r": 125, "target_r": 0`, 3, 55, 22, 80}, // Python's 0.6**3 is a little less than 0.216
		{`"init_r": 6, "target_r": 3, "tinit": 1, "tfinal": 2`, 4, 8, 2, 18},
	} {
		a, err := planned(t, c.settings, c.modules, c.steps)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.method.(*adalora).allowed(c.step); got != c.want {
			t.Errorf("%s: %d ranks after step %d of %d, want %d", c.settings, got, c.step, c.steps, c.want)
		}
	}
}

// 40: which steps observe, prune and hold. Rank i of module j gets importance from E alone, which
// rises with 10j + i.
func TestAllocates(t *testing.T) {
	a, err := planned(t, `"init_r": 4, "target_r": 1, "tinit": 2, "tfinal": 3, "deltaT": 2`, 2, 10)
	if err != nil {
		t.Fatal(err)
	}
	m := a.method.(*adalora)
	grads := make([][]float32, len(a.params))
	for i, p := range a.params {
		grads[i] = make([]float32, len(p.Values))
	}
	left := func() string {
		var all []bool
		for _, target := range a.Targets {
			all = append(all, m.left(target)...)
		}
		return fmt.Sprint(all)
	}
	kept := func(mask ...int) string {
		var all []bool
		for _, k := range mask {
			all = append(all, k == 1)
		}
		return fmt.Sprint(all)
	}
	everything := kept(1, 1, 1, 1, 1, 1, 1, 1)
	for step, want := range []string{1: everything, 2: everything, 3: everything, // tinit, then deltaT
		4:  kept(0, 0, 0, 0, 0, 1, 1, 1), // int(6·0.6³ + 2)
		5:  kept(0, 0, 0, 0, 0, 1, 1, 1),
		6:  kept(0, 0, 0, 0, 0, 0, 1, 1),
		7:  kept(0, 0, 0, 0, 0, 0, 1, 1), // the end: forced, though 7 is odd
		8:  kept(0, 0, 0, 0, 0, 0, 1, 1),
		10: kept(0, 0, 0, 0, 0, 0, 1, 1)} {
		if want == "" {
			continue
		}
		for j := range a.Targets {
			for i, e := range []int{0, 1, 2, 3} {
				values, g := a.params[3*j+2].Values, grads[3*j+2]
				values[i], g[i] = 1, float32(10*j+e+1)
			}
		}
		a.Allocate(step, grads)
		if got := left(); got != want {
			t.Errorf("step %d leaves %s, want %s", step, got, want)
		}
		for j, target := range a.Targets {
			for i, k := range m.left(target) {
				e := a.params[3*j+2].Values[i]
				holds := step == 4 || step >= 6
				if pruned := e == 0; pruned != (holds && !k) {
					t.Errorf("step %d: E of rank %d in module %d is %v", step, i, j, e)
				}
			}
		}
		for _, s := range a.State() {
			if forgotten := !slices.ContainsFunc(s.Values, func(v float32) bool { return v != 0 }); s.Name == "sensitivity."+key("m1", "lora_E") && forgotten != (step >= 7) {
				t.Errorf("step %d: the sensitivity of E is %v", step, s.Values)
			}
		}
	}
	if got := m.Named(a.Targets, func(t Target) []string { return []string{t.Name} }, nil); !slices.Equal(got.(*patternSetting).RankPattern["m0.lora_E"], make([]bool, 4)) {
		t.Errorf("rank_pattern is %v", got)
	}
}

// A schedule that leaves no steps to prune in is refused when the number of steps is known, and a
// budget of all ranks prunes none, where PEFT fails.
func TestPlans(t *testing.T) {
	a, err := planned(t, `"tinit": 5, "tfinal": 5`, 1, 11)
	if err != nil || *a.method.(*adalora).TotalStep != 11 {
		t.Error(err)
	}
	if _, err := planned(t, `"tinit": 5, "tfinal": 5`, 1, 10); !errors.Is(err, format.ErrConfig) {
		t.Errorf("%v, want ErrConfig", err)
	}
	a, err = planned(t, `"init_r": 3, "target_r": 3`, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	grads := [][]float32{make([]float32, 9), make([]float32, 6), make([]float32, 3)}
	a.Allocate(1, grads)
	a.Allocate(2, grads)
	if left := a.method.(*adalora).left(a.Targets[0]); slices.Contains(left, false) {
		t.Errorf("%v are left of all ranks", left)
	}
}
