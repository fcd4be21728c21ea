package adapters_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/adapterstest"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
)

// conformanceCases are statements about PEFT's files and formulas that every implementation has to get
// right, numbered through. Where the check is a row of another table, that row's name begins with the
// number.
var conformanceCases = []struct {
	says  string
	check func(t *testing.T, e *engine.Engine)
}{
	// Config.
	1: {"a config has sorted keys, two spaces, integers for ranks, and survives a round trip", roundTripConfig},
	2: {"a rank of 16.0 is refused, and never written", rows(refuses)},
	3: {"an unknown key is a warning", rows(reads)},
	4: {"what is missing has PEFT's default", plain(TestDefaults)},
	5: {"runtime_config is ignored", rows(reads)},
	6: {"peft_type in lower case is refused", rows(refuses)},
	7: {"AdaLoRA needs total_step, and steps between tinit and tfinal", rows(refuses)},
	8: {"task_type is null; another image task is refused", rows(reads, refuses)},
	9: {"target_modules is a set", orderOfTargets},
	10: {"rank_pattern goes in the order of the file, and against the tensors", func(t *testing.T, _ *engine.Engine) {
		TestPatterns(t)
		refuses(t, 10)
	}},
	11: {"an anchored pattern means one module", plain(TestPatterns)},
	12: {"alpha_pattern alone keeps the rank", plain(TestPatterns)},
	13: {"rsLoRA scales by alpha/√r", func(t *testing.T, e *engine.Engine) {
		updateOfOnes(t, e, `{"peft_type": "LORA", "r": 16, "lora_alpha": 16, "use_rslora": true, "target_modules": ["query"]}`, 16*4)
	}},

	// Names.
	14: {".weight belongs to LoRA's factors and to no parameter; a missing tensor is an error", func(t *testing.T, _ *engine.Engine) {
		reads(t, 14)
		cannotLoad(t, adapters.ErrMismatch, "missing", saved(t, loraOf, rename("lora_A.weight", "lora_A")), adapterstest.Base())
	}},
	15: {"DoRA's magnitude may be a module", rows(reads)},
	16: {"a state_dict's adapter name is removed", rows(reads)},
	17: {"a saved module has its own name", func(t *testing.T, _ *engine.Engine) {
		reads(t, 17)
		names := tensorNames(t, saved(t, withHead, nil))
		if !slices.Contains(names, "base_model.model.vit.layers.0.mlp.fc2.weight") || strings.Contains(strings.Join(names, " "), "modules_to_save") {
			t.Errorf("written as %q", names)
		}
	}},
	18: {"a saved module without its tensors is an error", rows(refuses)},
	19: {"the head has the adapter's number of classes", headOfAdapter},
	20: {"copies beside a saved module are ignored", rows(reads)},
	21: {"biases that PEFT lost are not missed", plain(lostBiases)},
	22: {"a bare encoder's adapter fits a classifier", rows(reads)},
	23: {"both generations of names fit each base", rows(reads)},
	24: {"an adapter that has a name is in a folder of its name", namedFolder},
	25: {"names match whole parts of paths", rows(selects)},
	26: {"a pattern matches whole names", rows(selects, refuses)},
	27: {"all-linear leaves out saved modules only", rows(selects)},
	28: {"layers_to_transform counts in either generation", rows(selects)},
	29: {"modules_to_save ends with no regard to dots", rows(selects)},

	// Tensors and formulas.
	30: {"LoKr's factors are whole where the rank is not small", rows(hasShapes)},
	31: {"decompose_factor divides", rows(hasShapes)},
	32: {"LoKr scales by alpha/r where nothing has rank r", func(t *testing.T, e *engine.Engine) {
		updateOfOnes(t, e, `{"peft_type": "LOKR", "r": 16, "alpha": 8, "target_modules": ["query"]}`, 0.5)
	}},
	33: {"LoKr of PEFT before 0.14 is scaled, with a warning", rows(reads)},
	34: {"LoKr's update is w₁ ⊗ w₂, in this order", kroneckerOrder},
	35: {"LoHa's update is a product of products, and new ones have no w2_b", func(t *testing.T, e *engine.Engine) {
		updateOfOnes(t, e, `{"peft_type": "LOHA", "r": 3, "alpha": 6, "target_modules": ["query"]}`, 3*3*2)
		hasShapes(t, 35)
		for _, p := range adapterstest.New(t, lohaOf, 1).Params() {
			if zero := !slices.ContainsFunc(p.Values, func(v float32) bool { return v != 0 }); zero != strings.HasSuffix(p.Name, "hada_w2_b") {
				t.Errorf("%s begins as zero: %v", p.Name, zero)
			}
		}
	}},
	36: {"AdaLoRA scales by alpha/(init_r + 10⁻⁵)", func(t *testing.T, e *engine.Engine) {
		updateOfOnes(t, e, `{"peft_type": "ADALORA", "init_r": 12, "lora_alpha": 8, "target_modules": ["query"]}`, 12*8/12.00001)
	}},
	37: {"AdaLoRA's pruned files are smaller, and scale as before", pruned(7)},
	38: {"AdaLoRA may prune a module whole", pruned(0)},
	39: {"AdaLoRA's masks fit the tensors", rows(refuses)},
	40: {"AdaLoRA's importance is that of new parameters and old gradients", importanceOfStep},
	41: {"AdaLoRA's budget falls with the cube of the steps to go", budgetOfGuide},
	42: {"a merge rounds once, LoRA's safe merge twice", roundings},
	43: {"values that are not finite are refused by name", func(t *testing.T, _ *engine.Engine) {
		dir := saved(t, loraOf, func(_ map[string]any, ts map[string]format.Tensor) {
			const b = "base_model.model.vit.layers.0.attention.q_proj.lora_B.weight"
			ts[b] = format.FloatTensor(b, []int{8, 2}, append(make([]float32, 15), float32(math.Inf(1))))
		})
		cannotLoad(t, adapters.ErrNonFinite, "lora_B", dir, adapterstest.Base())
	}},
	44: {"a merged head is the adapter's, bit for bit", mergedHead},
	45: {"DoRA divides by the rows of W + ΔW", doraFormula},
	46: {"initialisations that change the base are refused, others are not", rows(reads, refuses)},
	47: {"LoRA on a convolution with groups is not merged", groupedConvolution},
	48: {"an embedding's update is transposed, and its A begins as zero", embeddingFormula},
	49: {"fan_in_fan_out of a linear layer transposes nothing", rows(reads)},
	50: {"parameters are counted as in the guide", plain(TestCountsOfTheGuide)},
	51: {"new values have PEFT's distributions", plain(TestInitialValues)},
	52: {"cat is exact, linear has cross terms", combinations},
	53: {"README.md is never read", func(t *testing.T, _ *engine.Engine) {
		dir := saved(t, loraOf, nil)
		if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("---\nbase_model: [\x00"), 0o644); err != nil {
			t.Fatal(err)
		}
		sameAdapter(t, dir, saved(t, loraOf, nil))
	}},
	54: {"of two files the safetensors count; a pickle alone is refused with what to do", pickles},
	55: {"a file needs no __metadata__", func(t *testing.T, _ *engine.Engine) {
		sameAdapter(t, rewritten(t, saved(t, loraOf, nil), nil, func(tensor format.Tensor) format.Tensor { return tensor }), saved(t, loraOf, nil))
	}},
	56: {"a tensor too many is told and ignored", rows(reads)},
	57: {"inference_mode makes no difference", rows(reads)},
	58: {"half-precision tensors are widened", halfTensors},
	59: {"base_model_name_or_path may be a folder", baseFolder},
	60: {"a pattern for Python only is refused, with the field's name", rows(refuses)},
}

func TestConformanceCases(t *testing.T) {
	if len(conformanceCases) != 61 {
		t.Fatalf("%d cases, want 60", len(conformanceCases)-1)
	}
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		for n, c := range conformanceCases[1:] {
			t.Run(fmt.Sprintf("%d %s", n+1, c.says), func(t *testing.T) { c.check(t, e) })
		}
	})
}

// plain is a check that computes on no engine.
func plain(test func(t *testing.T)) func(*testing.T, *engine.Engine) {
	return func(t *testing.T, _ *engine.Engine) { test(t) }
}

// rows is a check that rows of other tables make: all whose number is that of the case.
func rows(tables ...func(t *testing.T, n int)) func(*testing.T, *engine.Engine) {
	return func(t *testing.T, _ *engine.Engine) {
		var n int
		name := t.Name()
		if _, err := fmt.Sscanf(name[strings.LastIndexByte(name, '/')+1:], "%d_", &n); err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			table(t, n)
		}
	}
}

// numbered tells whether the name of a table's row has the number of a case. Every case has a row.
func numbered(name string, n int) bool { return strings.HasPrefix(name, fmt.Sprintf("%d ", n)) }

func roundTripConfig(t *testing.T, _ *engine.Engine) {
	for _, settings := range []string{loraOf, doraOf, lohaOf, lokrOf, adaloraOf, ia3Of} {
		text, err := os.ReadFile(filepath.Join(saved(t, settings, nil), format.AdapterConfigFile))
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, `  "`); ok {
				key, _, _ := strings.Cut(rest, `"`)
				keys = append(keys, key)
			}
		}
		if !slices.IsSorted(keys) || len(keys) < 7 || bytes.HasSuffix(text, []byte("\n")) {
			t.Errorf("%s\nkeys %q", text, keys)
		}
		cfg, err := format.ParseAdapterConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := cfg.MarshalJSON(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("became %s (%v)\nof %s", again, err, text)
		}
		var numbers map[string]any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&numbers); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"r", "init_r", "target_r"} {
			if n, ok := numbers[key].(json.Number); ok && strings.ContainsAny(n.String(), ".e") {
				t.Errorf("%s is %s", key, n)
			}
		}
	}
}

func orderOfTargets(t *testing.T, _ *engine.Engine) {
	one := saved(t, `{"peft_type": "LORA", "r": 2, "target_modules": ["query", "output.dense"]}`, nil)
	other := saved(t, `{"peft_type": "LORA", "r": 2, "target_modules": ["output.dense", "query"]}`, nil)
	sameAdapter(t, one, other)
}

// updateOfOnes sets all of an adapter's values to one: every element of its update is then want.
func updateOfOnes(t *testing.T, e *engine.Engine, settings string, want float64) {
	t.Helper()
	a := adapterstest.New(t, settings, 1)
	for _, p := range a.Params() {
		for i := range p.Values {
			p.Values[i] = 1
		}
	}
	target := a.Targets[0]
	updatesTo(t, e, a, make([]float32, target.Out()*target.In()), func(int, int) float64 { return want })
}

// updatesTo checks the adapted weight of an adapter's first target, as a graph and as a merge.
func updatesTo(t *testing.T, e *engine.Engine, a *adapters.Adapter, w []float32, want func(i, j int) float64) {
	t.Helper()
	target := a.Targets[0]
	out, in := target.Out(), target.In()
	exec, err := graph.NewExec(e.Backend, func(nodes []*graph.Node) *graph.Node {
		s := &trainingScope{nodes: map[string]*graph.Node{}}
		for i, p := range a.Params() {
			s.nodes[p.Name] = nodes[i]
		}
		base := nodes[len(a.Params())]
		site, _ := a.Hook(s).Site(target.Name, base, nil)
		return a.Method().Weight(site, base)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	var args []any
	for _, p := range a.Params() {
		args = append(args, tensors.FromFlatDataAndDimensions(slices.Clone(p.Values), p.Shape...))
	}
	results, err := exec.Call(append(args, tensors.FromFlatDataAndDimensions(slices.Clone(w), out, in))...)
	if err != nil {
		t.Fatal(err)
	}
	computed := tensors.MustCopyFlatData[float32](results[0])
	merged := slices.Clone(w)
	a.Method().(adapters.Merger).Merge(target, a.TargetValues(target), merged, adapters.RoundPEFT, func(v float32) float32 { return v })
	for i := range out {
		for j := range in {
			at := i*in + j
			if w := want(i, j); math.Abs(float64(computed[at])-w) > 1e-5*math.Abs(w)+1e-6 || math.Abs(float64(merged[at])-w) > 1e-5*math.Abs(w)+1e-6 {
				t.Fatalf("element %d, %d is %v in the graph and %v merged, want %v", i, j, computed[at], merged[at], w)
			}
		}
	}
}

func headOfAdapter(t *testing.T, e *engine.Engine) {
	const base = golden + "/bases/vit"
	three, err := train.Open(base, train.OpenOptions{Backend: e.Backend, Labels: []string{"a", "b", "c"}, ReplaceHead: true})
	if err != nil {
		t.Fatal(err)
	}
	defer three.Close()
	a, err := newOn(t, train.Base(three.Model, three.Weights), `{"peft_type": "LORA", "target_modules": ["query"], "modules_to_save": ["classifier"]}`)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := a.Save(context.Background(), dir, format.Transformers5); err != nil {
		t.Fatal(err)
	}
	opened, err := train.Open(base, train.OpenOptions{Backend: e.Backend, Adapter: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if len(opened.Labels) != 3 || opened.Model.Labels() != 3 {
		t.Errorf("%d classes on a base of 5, want the adapter's 3", len(opened.Labels))
	}
}

func namedFolder(t *testing.T, _ *engine.Engine) {
	parent, dir := t.TempDir(), saved(t, loraOf, nil)
	if err := os.Rename(dir, filepath.Join(parent, "mine")); err != nil {
		t.Fatal(err)
	}
	if got := adapters.Dir(parent); got != filepath.Join(parent, "mine") {
		t.Errorf("found %q", got)
	}
	if err := os.CopyFS(filepath.Join(parent, "other"), os.DirFS(filepath.Join(parent, "mine"))); err != nil {
		t.Fatal(err)
	}
	if got := adapters.Named(parent); adapters.Dir(parent) != parent || !slices.Equal(got, []string{"mine", "other"}) {
		t.Errorf("found %q", got)
	}
}

func kroneckerOrder(t *testing.T, e *engine.Engine) {
	a := adapterstest.New(t, `{"peft_type": "LOKR", "r": 16, "alpha": 16, "target_modules": ["intermediate.dense"]}`, 1)
	adapterstest.Randomize(a, 2)
	w1, w2 := a.Params()[0], a.Params()[1] // [4, 2] and [6, 4]
	target := a.Targets[0]
	updatesTo(t, e, a, make([]float32, target.Out()*target.In()), func(i, j int) float64 {
		k, n := w2.Shape[0], w2.Shape[1]
		return float64(w1.Values[i/k*w1.Shape[1]+j/n]) * float64(w2.Values[i%k*n+j%n])
	})
}

// pruned checks an AdaLoRA of 12 ranks with so many left.
func pruned(left int) func(t *testing.T, e *engine.Engine) {
	return func(t *testing.T, e *engine.Engine) {
		const module = "vit.layers.0.attention.q_proj"
		mask := make([]bool, 12)
		for i := range left {
			mask[2*i%11] = true
		}
		dir := saved(t, `{"peft_type": "ADALORA", "init_r": 12, "lora_alpha": 8, "target_modules": ["query"], "total_step": 9}`,
			func(cfg map[string]any, ts map[string]format.Tensor) {
				cfg["rank_pattern"] = map[string]any{module + ".lora_E": mask}
				for part, shape := range map[string][]int{"lora_A": {left, 8}, "lora_E": {left, 1}, "lora_B": {8, left}} {
					name := "base_model.model." + module + "." + part
					ones := slices.Repeat([]float32{1}, shape[0]*shape[1])
					ts[name] = format.FloatTensor(name, shape, ones)
				}
			})
		a, err := adapters.Load(dir, adapterstest.Base())
		if err != nil {
			t.Fatal(err)
		}
		updatesTo(t, e, a, make([]float32, 64), func(int, int) float64 { return float64(left) * 8 / 12.00001 })
		again := t.TempDir()
		if err := a.Save(context.Background(), again, format.Transformers5); err != nil {
			t.Fatal(err)
		}
		sameAdapter(t, again, dir)
	}
}

// importanceOfStep follows two steps by hand, the second of which ends the pruning.
func importanceOfStep(t *testing.T, _ *engine.Engine) {
	a := adapterstest.New(t, `{"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "tfinal": 3, "deltaT": 2, "target_modules": ["query"]}`, 1)
	adapterstest.Randomize(a, 2)
	if err := a.Plan(5); err != nil {
		t.Fatal(err)
	}
	e := a.Params()[2] // lora_E
	grads := make([][]float32, 3)
	for i, p := range a.Params() {
		grads[i] = slices.Repeat([]float32{0.5}, len(p.Values))
	}
	copy(grads[2], []float32{1, 8, 2, 9})
	a.Allocate(1, grads)
	state := map[string][]float32{}
	for _, s := range a.State() {
		state[s.Name] = s.Values
	}
	if left := a.RanksLeft()[0].Left; left != 4 {
		t.Errorf("%d ranks are left after step 1, which deltaT passes by", left)
	}
	name := "sensitivity.base_model.model." + a.Targets[0].Name + ".lora_E"
	for i, w := range e.Values {
		now := math.Abs(float64(w) * float64(grads[2][i]))
		if got := float64(state[name][i]); math.Abs(got-0.15*now) > 1e-6 {
			t.Errorf("the sensitivity of rank %d is %v, want 0.15·%v", i, got, now)
		}
	}
	// At the end the gradients of the step count for nothing.
	copy(grads[2], []float32{1e6, 0, 1e6, 0})
	copy(e.Values, []float32{1, 1, 1, 1})
	a.Allocate(2, grads)
	if left := a.RanksLeft()[0].Left; left != 2 || e.Values[0] != 0 || e.Values[2] != 0 {
		t.Errorf("%d ranks are left, E is %v", left, e.Values)
	}
}

func budgetOfGuide(t *testing.T, _ *engine.Engine) {
	a, err := newOn(t, vitBase(t), `{"peft_type": "ADALORA", "init_r": 12, "target_r": 8, "tinit": 200, "tfinal": 1000, "deltaT": 10, "target_modules": ["query", "value"]}`)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Plan(3000); err != nil {
		t.Fatal(err)
	}
	adapterstest.Randomize(a, 2)
	grads := make([][]float32, len(a.Params()))
	for i, p := range a.Params() {
		grads[i] = slices.Clone(p.Values)
		slices.Reverse(grads[i])
	}
	for _, c := range []struct{ step, left int }{{200, 288}, {209, 288}, {210, 286}, {211, 286}, {2000, 192}, {2001, 192}} {
		a.Allocate(c.step, grads)
		left := 0
		for _, r := range a.RanksLeft() {
			left += r.Left
		}
		if left != c.left {
			t.Errorf("step %d leaves %d of 288 ranks, want %d", c.step, left, c.left)
		}
	}
}

// roundings merges into float16: LoRA's update is rounded before it is added in a safe merge alone, other
// methods' never.
func roundings(t *testing.T, _ *engine.Engine) {
	round := func(v float32) float32 { return format.Round(format.F16, v) }
	for settings, twice := range map[string]bool{loraOf: true, lohaOf: false, lokrOf: false, adaloraOf: false} {
		a := adapterstest.New(t, settings, 1)
		adapterstest.Randomize(a, 2)
		target := a.Targets[0]
		m, values := a.Method().(adapters.Merger), a.TargetValues(target)
		merge := func(w []float32, rounding adapters.Rounding, round func(float32) float32) []float32 {
			w = slices.Clone(w)
			m.Merge(target, values, w, rounding, round)
			return w
		}
		w := make([]float32, target.Out()*target.In())
		delta := merge(w, adapters.RoundPEFT, func(v float32) float32 { return v })
		for i := range w {
			w[i] = round(float32(i%7) + 1)
		}
		plain, safe := merge(w, adapters.RoundPEFT, round), merge(w, adapters.RoundSafe, round)
		differ := false
		for i, d := range delta {
			update := d
			if twice {
				update = round(d)
			}
			plain[i], safe[i] = round(plain[i]), round(safe[i]) // as the file's type does
			if plain[i] != round(w[i]+d) || safe[i] != round(w[i]+update) {
				t.Fatalf("%s: %v + %v is %v and, safe, %v", settings, w[i], d, plain[i], safe[i])
			}
			differ = differ || plain[i] != safe[i]
		}
		if differ != twice {
			t.Errorf("%s: plain and safe differ: %v", settings, differ)
		}
	}
}

func mergedHead(t *testing.T, e *engine.Engine) {
	l := load(t, e, golden+"/lora/classifier", "vit")
	out := filepath.Join(t.TempDir(), "merged")
	if _, err := adapters.Merge(context.Background(), l.checkpoint, l.config, []*adapters.Adapter{l.adapter}, out, adapters.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"classifier.weight", "classifier.bias"} {
		got, want := values(t, out, name), values(t, golden+"/lora/classifier", "base_model.model."+name)
		if !slices.Equal(got, want) {
			t.Errorf("%s is not the adapter's", name)
		}
	}
}

func doraFormula(t *testing.T, e *engine.Engine) {
	a := adapterstest.New(t, `{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": true, "target_modules": ["query"]}`, 1)
	adapterstest.Randomize(a, 2)
	values, w := a.TargetValues(a.Targets[0]), make([]float32, 64)
	for i := range w {
		w[i] = float32(i%5) - 1.5
	}
	v := func(i, j int) float64 {
		sum := float64(w[8*i+j])
		for k := range 2 {
			sum += 2 * float64(values["lora_B.weight"][2*i+k]) * float64(values["lora_A.weight"][8*k+j])
		}
		return sum
	}
	updatesTo(t, e, a, w, func(i, j int) float64 {
		norm := 0.0
		for k := range 8 {
			norm += v(i, k) * v(i, k)
		}
		return float64(values["lora_magnitude_vector"][i]) / math.Sqrt(norm) * v(i, j)
	})
	hasShapes(t, 45)
}

// groupedConvolution: with two groups the weight has half of the inputs, and LoRA's A all of them.
func groupedConvolution(t *testing.T, _ *engine.Engine) {
	weight := func(in int) adapters.Base {
		m := adapters.Module{Name: "conv", Kind: adapters.Convolution, Shape: []int{8, in, 3, 3}}
		return adapters.Base{Modules: []adapters.Module{m}, Parameters: []adapters.Parameter{{Name: "conv.weight", Shape: m.Shape}}}
	}
	a, err := newOn(t, weight(4), `{"peft_type": "LORA", "r": 2, "target_modules": ["conv"]}`)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := a.Save(context.Background(), dir, format.Transformers5); err != nil {
		t.Fatal(err)
	}
	cannotLoad(t, adapters.ErrMismatch, "[2 4 3 3]", dir, weight(2))
}

func embeddingFormula(t *testing.T, _ *engine.Engine) {
	const words, width = 5, 3
	m := adapters.Module{Name: "wte", Kind: adapters.Embedding, Shape: []int{width, words}}
	b := adapters.Base{Modules: []adapters.Module{m}, Parameters: []adapters.Parameter{{Name: "wte.weight", Shape: []int{words, width}}}}
	a, err := newOn(t, b, `{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["wte"]}`)
	if err != nil {
		t.Fatal(err)
	}
	values := a.TargetValues(a.Targets[0])
	factorA, factorB := values["lora_embedding_A"], values["lora_embedding_B"] // [2, 5] and [3, 2]
	if slices.ContainsFunc(factorA, func(v float32) bool { return v != 0 }) || !slices.ContainsFunc(factorB, func(v float32) bool { return v != 0 }) {
		t.Errorf("A begins as %v, B as %v", factorA, factorB)
	}
	adapterstest.Randomize(a, 2)
	d := make([]float32, words*width) // as the weight is stored
	a.Method().(adapters.RowMerger).MergeRows(a.Targets[0], values, adapters.RoundPEFT).Delta(0, d)
	for word := range words {
		for i := range width {
			sum := 0.0
			for k := range 2 {
				sum += 3 * float64(factorB[2*i+k]) * float64(factorA[words*k+word])
			}
			if got := float64(d[word*width+i]); math.Abs(got-sum) > 1e-6 {
				t.Errorf("element %d of word %d is %v, want %v", i, word, got, sum)
			}
		}
	}
}

func combinations(t *testing.T, e *engine.Engine) {
	eight, err := adapters.Load(saved(t, `{"peft_type": "LORA", "r": 8, "lora_alpha": 4, "target_modules": ["query"]}`, nil), adapterstest.Base())
	if err != nil {
		t.Fatal(err)
	}
	sixteen, err := adapters.Load(saved(t, `{"peft_type": "LORA", "r": 16, "lora_alpha": 8, "target_modules": ["query"]}`, nil), adapterstest.Base())
	if err != nil {
		t.Fatal(err)
	}
	adapterstest.Randomize(sixteen, 5)
	update := func(a *adapters.Adapter) []float32 {
		w := make([]float32, 64)
		a.Method().(adapters.Merger).Merge(a.Targets[0], a.TargetValues(a.Targets[0]), w, adapters.RoundPEFT, func(v float32) float32 { return v })
		return w
	}
	cat, _, err := adapters.Compose([]*adapters.Adapter{eight, sixteen}, adapters.ComposeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if target := cat.Targets[0]; target.Rank != 24 || target.Alpha != 24 {
		t.Errorf("rank %d and alpha %v, want 24 and 24", target.Rank, target.Alpha)
	}
	one, other := update(eight), update(sixteen)
	updatesTo(t, e, cat, make([]float32, 64), func(i, j int) float64 { return float64(one[8*i+j]) + float64(other[8*i+j]) })

	linear, _, err := adapters.Compose([]*adapters.Adapter{eight, eight}, adapters.ComposeOptions{Linear: true})
	if err != nil {
		t.Fatal(err)
	}
	// (√½A + √½A)·(√½B + √½B) = 2AB for equal adapters with s = ½ each: twice the sum's cross terms.
	updatesTo(t, e, linear, make([]float32, 64), func(i, j int) float64 { return 4 * float64(one[8*i+j]) })
}

func pickles(t *testing.T, _ *engine.Engine) {
	both := saved(t, loraOf, nil)
	if err := os.WriteFile(filepath.Join(both, "adapter_model.bin"), []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	sameAdapter(t, both, saved(t, loraOf, nil))
	alone := saved(t, loraOf, nil)
	if err := os.Rename(filepath.Join(alone, adapters.File), filepath.Join(alone, "adapter_model.bin")); err != nil {
		t.Fatal(err)
	}
	cannotLoad(t, format.ErrUnsupported, "safe_serialization=True", alone, adapterstest.Base())
}

func halfTensors(t *testing.T, _ *engine.Engine) {
	for _, d := range []format.DType{format.F16, format.BF16} {
		dir := rewritten(t, saved(t, loraOf, nil), map[string]string{"format": "pt"}, func(tensor format.Tensor) format.Tensor {
			values, err := format.Floats(tensor)
			if err != nil {
				t.Fatal(err)
			}
			data, err := format.Narrow(d, values)
			if err != nil {
				t.Fatal(err)
			}
			info := tensor.Info()
			info.DType = d
			return format.NewTensor(info, data)
		})
		a, err := adapters.Load(dir, adapterstest.Base())
		if err != nil {
			t.Fatal(err)
		}
		whole, err := adapters.Load(saved(t, loraOf, nil), adapterstest.Base())
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range a.Params() {
			for j, v := range whole.Params()[i].Values {
				if p.Values[j] != format.Round(d, v) {
					t.Fatalf("%s: %s has %v for %v", d, p.Name, p.Values[j], v)
				}
			}
		}
	}
}

func baseFolder(t *testing.T, _ *engine.Engine) {
	const folder = "/models/My ViT@home"
	dir := saved(t, loraOf, set("base_model_name_or_path", folder))
	a, err := adapters.Load(dir, adapterstest.Base())
	if err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	if err := a.Save(context.Background(), again, format.Transformers5); err != nil {
		t.Fatal(err)
	}
	if cfg, err := format.ReadAdapterConfig(again); err != nil || *cfg.BaseModel != folder {
		t.Errorf("%+v (%v)", cfg, err)
	}
}

// rewritten writes an adapter's tensors again, changed and with other metadata.
func rewritten(t *testing.T, dir string, meta map[string]string, change func(format.Tensor) format.Tensor) string {
	t.Helper()
	stored, _, err := format.Load(filepath.Join(dir, adapters.File))
	if err != nil {
		t.Fatal(err)
	}
	for i := range stored {
		stored[i] = change(stored[i])
	}
	if err := format.Write(context.Background(), filepath.Join(dir, adapters.File), stored, meta); err != nil {
		t.Fatal(err)
	}
	return dir
}

func tensorNames(t *testing.T, dir string) []string {
	t.Helper()
	stored, _, err := format.Load(filepath.Join(dir, adapters.File))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tensor := range stored {
		names = append(names, tensor.Info().Name)
	}
	return names
}

// sameAdapter checks that two folders hold the same adapter for [adapterstest.Base].
func sameAdapter(t *testing.T, dirs ...string) {
	t.Helper()
	var all []*adapters.Adapter
	for _, dir := range dirs {
		a, err := adapters.Load(dir, adapterstest.Base())
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Notes) > 0 {
			t.Errorf("notes %q", a.Notes)
		}
		all = append(all, a)
	}
	for i, p := range all[0].Params() {
		if other := all[1].Params()[i]; p.Name != other.Name || !slices.Equal(p.Shape, other.Shape) || !slices.Equal(p.Values, other.Values) {
			t.Errorf("%s differs", p.Name)
		}
	}
}

func cannotLoad(t *testing.T, want error, says, dir string, b adapters.Base) {
	t.Helper()
	if _, err := adapters.Load(dir, b); !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, want %v that says %q", err, want, says)
	}
}
