package adapters_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// algebraModules are the modules [out, in] of the adapters here.
var algebraModules = map[string][2]int{"model.layers.0.self_attn.q_proj": {120, 90}, "model.layers.0.mlp.up_proj": {200, 90}}

// randomLoRA writes and loads a LoRA adapter of random numbers, whose singular values fall slowly.
func randomLoRA(t *testing.T, rank int, seed uint64) *adapters.Adapter {
	t.Helper()
	dir, rng := t.TempDir(), rand.New(rand.NewPCG(seed, 0))
	var tensors []format.Tensor
	for name, size := range algebraModules {
		a, b := make([]float32, rank*size[1]), make([]float32, size[0]*rank)
		for i := range a {
			a[i] = float32(rng.NormFloat64() * math.Pow(0.97, float64(i/size[1])))
		}
		for i := range b {
			b[i] = float32(rng.NormFloat64())
		}
		tensors = append(tensors, format.FloatTensor("base_model.model."+name+".lora_A.weight", []int{rank, size[1]}, a),
			format.FloatTensor("base_model.model."+name+".lora_B.weight", []int{size[0], rank}, b))
	}
	write(t, filepath.Join(dir, format.AdapterFile), tensors)
	config := fmt.Sprintf(`{"peft_type": "LORA", "r": %d, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"]}`, rank)
	if err := os.WriteFile(filepath.Join(dir, format.AdapterConfigFile), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return loadFiles(t, dir)
}

// loadFiles loads an adapter without its base.
func loadFiles(t *testing.T, dir string) *adapters.Adapter {
	t.Helper()
	base, err := adapters.FilesBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := adapters.Load(dir, base)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// products are the products s·B·A of a LoRA adapter in float64, by module.
func products(a *adapters.Adapter) map[string]*mat.Dense {
	all := map[string]*mat.Dense{}
	for _, target := range a.Targets {
		values := a.TargetValues(target)
		b, right := wide(values["lora_B.weight"], target.Out()), wide(values["lora_A.weight"], target.Rank)
		var product mat.Dense
		product.Mul(b, right)
		product.Scale(target.Alpha/float64(target.Rank), &product)
		all[target.Name] = &product
	}
	return all
}

func wide(v []float32, rows int) *mat.Dense {
	m := mat.NewDense(rows, len(v)/rows, nil)
	for i, x := range v {
		m.Set(i/(len(v)/rows), i%(len(v)/rows), float64(x))
	}
	return m
}

// distance is the size of a-b as a share of that of b, over all modules.
func distance(a, b map[string]*mat.Dense) float64 {
	wrong, all := 0.0, 0.0
	for name, want := range b {
		var d mat.Dense
		d.Sub(a[name], want)
		wrong, all = wrong+math.Pow(mat.Norm(&d, 2), 2), all+math.Pow(mat.Norm(want, 2), 2)
	}
	return math.Sqrt(wrong / all)
}

// What comes of merging an adapter is extracted again.
func TestExtractRecovers(t *testing.T) {
	base, adapter := synthetic(t, format.F32, 2)
	tuned := filepath.Join(t.TempDir(), "tuned")
	if _, err := mergeText(t, base, adapter, tuned, adapters.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	old, cfg, want := openText(t, base, adapter)
	changed, err := format.Open(tuned)
	if err != nil {
		t.Fatal(err)
	}
	defer changed.Close()
	for name, reduce := range map[string]adapters.Reduction{"rank": {Rank: 4}, "energy": {Energy: 0.999999}} {
		made, loss, err := adapters.Extract(t.Context(), old, changed, cfg, adapters.ExtractOptions{Reduce: reduce})
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(products(made), products(want)); d > 1e-5 || loss.Modules != 4 || loss.Ranks != [2]int{4, 4} || loss.Relative > 1e-5 {
			t.Errorf("by %s: relative distance %.3g, %+v", name, d, loss)
		}
	}
}

// A composition has the sum of the updates, and none of the error that a sum of rounded ones has.
func TestComposeIsTheSum(t *testing.T) {
	one, two := randomLoRA(t, 5, 1), randomLoRA(t, 7, 2)
	made, loss, err := adapters.Compose([]*adapters.Adapter{one, two}, adapters.ComposeOptions{Weights: []float64{0.7, -0.3}})
	if err != nil {
		t.Fatal(err)
	}
	want, other := products(one), products(two)
	for name, m := range want {
		m.Scale(0.7, m)
		other[name].Scale(-0.3, other[name])
		m.Add(m, other[name])
	}
	if d := distance(products(made), want); d > 1e-7 || loss.Ranks != [2]int{12, 12} || loss.Relative != 0 {
		t.Errorf("relative distance %.3g, %+v", d, loss)
	}
	// At the full rank a recompression loses nothing either.
	made, loss, err = adapters.Compose([]*adapters.Adapter{one, two}, adapters.ComposeOptions{Weights: []float64{0.7, -0.3}, Reduce: adapters.Reduction{Rank: 12}})
	if err != nil {
		t.Fatal(err)
	}
	if d := distance(products(made), want); d > 1e-6 || loss.Relative > 1e-6 {
		t.Errorf("recompressed: relative distance %.3g, %+v", d, loss)
	}
}

// An embedding's factors have names of their own; A takes the scale.
func TestComposeEmbedding(t *testing.T) {
	_, _, a := openText(t, "../testdata/golden/text/bases/llama", "../testdata/golden/text/adapters/llama-embedding")
	made, _, err := adapters.Compose([]*adapters.Adapter{a}, adapters.ComposeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	embedding := func(a *adapters.Adapter) (adapters.Target, adapters.Values) {
		at := slices.IndexFunc(a.Targets, func(t adapters.Target) bool { return t.Kind == adapters.Embedding })
		if at < 0 {
			t.Fatal("no embedding")
		}
		return a.Targets[at], a.TargetValues(a.Targets[at])
	}
	target, want := embedding(a)
	composed, got := embedding(made)
	for i, v := range want["lora_embedding_A"] {
		want["lora_embedding_A"][i] = v * float32(target.Alpha/float64(target.Rank))
	}
	if composed.Alpha != float64(composed.Rank) {
		t.Errorf("alpha is %v, rank %d", composed.Alpha, composed.Rank)
	}
	for name, values := range want {
		if !slices.Equal(got[name], values) {
			t.Errorf("%s is not the adapter's", name)
		}
	}
}

// The embeddings that PEFT saves beside an adapter come along, under its names; those of two adapters have to be the same.
func TestComposeKeepsSavedEmbeddings(t *testing.T) {
	const from, embedding = "../testdata/golden/text/adapters/llama-embedding", "model.embed_tokens.weight"
	one, same := loadFiles(t, from), loadFiles(t, from)
	want := one.FullValues()[embedding].Values
	if len(want) != 70*32 {
		t.Fatalf("the golden adapter has %d numbers in its embedding", len(want))
	}
	for name, c := range map[string]struct {
		of   []*adapters.Adapter
		opts adapters.ComposeOptions
	}{
		"one":     {[]*adapters.Adapter{one}, adapters.ComposeOptions{}},
		"two":     {[]*adapters.Adapter{one, same}, adapters.ComposeOptions{}},
		"linear":  {[]*adapters.Adapter{one, same}, adapters.ComposeOptions{Linear: true}},
		"resized": {[]*adapters.Adapter{one}, adapters.ComposeOptions{Reduce: adapters.Reduction{Rank: 2}}},
	} {
		made, loss, err := adapters.Compose(c.of, c.opts)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := made.Save(t.Context(), dir, format.Transformers5); err != nil {
			t.Fatal(err)
		}
		ck, err := format.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer ck.Close()
		if _, ok := ck.Tensor("base_model.model.model.embed_tokens.base_layer.weight"); !ok {
			t.Errorf("%s: the file has no embedding where PEFT looks for it", name)
		}
		if got := loadFiles(t, dir).FullValues()[embedding].Values; !slices.Equal(got, want) || loss.Parameters < len(want) {
			t.Errorf("%s: the embedding is not the adapter's; %+v", name, loss)
		}
	}

	same.FullValues()[embedding].Values[3]++
	_, _, err := adapters.Compose([]*adapters.Adapter{one, same}, adapters.ComposeOptions{})
	if !errors.Is(err, adapters.ErrMismatch) || !strings.Contains(err.Error(), embedding) {
		t.Errorf("two embeddings: %v", err)
	}
}

// What DoRA does to weights that are stored transposed is found as it is merged.
func TestComposeTransposedDoRA(t *testing.T) {
	const adapter = "../testdata/golden/text/adapters/gpt2-embedding-dora"
	const base = "../testdata/golden/text/bases/gpt2"
	ck, _, a := openText(t, base, adapter)
	made, loss, err := adapters.Compose([]*adapters.Adapter{a}, adapters.ComposeOptions{
		Reduce: adapters.Reduction{Rank: 32},
		Weight: func(module string) ([]float32, error) {
			w, _ := ck.Tensor(module + ".weight")
			return format.Floats(w)
		},
	})
	if err != nil || loss.Relative > 1e-6 {
		t.Fatal(loss, err)
	}
	dir, merges := t.TempDir(), t.TempDir()
	want, got := filepath.Join(merges, "want"), filepath.Join(merges, "got")
	if err := made.Save(t.Context(), dir, format.Transformers5); err != nil {
		t.Fatal(err)
	}
	for out, adapter := range map[string]string{want: adapter, got: dir} {
		if _, err := mergeText(t, base, adapter, out, adapters.MergeOptions{Untie: true}); err != nil {
			t.Fatal(err)
		}
	}
	_, _, merged := openText(t, want, adapter)
	for _, target := range merged.Targets {
		w, g := weightIn(t, want, target.Name), weightIn(t, got, target.Name)
		for i := range w {
			if math.Abs(float64(w[i]-g[i])) > 1e-6 {
				t.Fatalf("%s: element %d is %v, merged %v", target.Name, i, g[i], w[i])
			}
		}
	}
}

// weightIn reads a module's weight in a model folder.
func weightIn(t *testing.T, dir, module string) []float32 {
	t.Helper()
	ck, err := format.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	w, ok := ck.Tensor(module + ".weight")
	if !ok {
		t.Fatalf("%s has no %s", dir, module)
	}
	values, err := format.Floats(w)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// An adapter of lower rank is as good as any of that rank can be, and its error is the one that is said.
func TestResizeIsOptimal(t *testing.T) {
	source := randomLoRA(t, 64, 3)
	want := products(source)
	made, loss, err := adapters.Compose([]*adapters.Adapter{source}, adapters.ComposeOptions{Reduce: adapters.Reduction{Rank: 16}})
	if err != nil {
		t.Fatal(err)
	}
	lost, all := 0.0, 0.0
	for _, m := range want {
		var svd mat.SVD
		if !svd.Factorize(m, mat.SVDNone) {
			t.Fatal("no decomposition")
		}
		for i, v := range svd.Values(nil) {
			if all += v * v; i >= 16 {
				lost += v * v
			}
		}
	}
	optimal, got := math.Sqrt(lost/all), distance(products(made), want)
	if got > 1.01*optimal || math.Abs(loss.Relative-got) > 1e-4*got {
		t.Errorf("error %.6g, said to be %.6g; the best is %.6g", got, loss.Relative, optimal)
	}
	for _, share := range []float64{0.5, 0.9, 0.99} {
		made, loss, err := adapters.Compose([]*adapters.Adapter{source}, adapters.ComposeOptions{Reduce: adapters.Reduction{Energy: share}})
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(products(made), want); d*d > 1-share+1e-9 || loss.Ranks[1] >= 64 {
			t.Errorf("energy %v: error %.3g, %+v", share, d, loss)
		}
	}
}

// An adapter for a file of some size fills it.
func TestResizeToASize(t *testing.T) {
	source := randomLoRA(t, 64, 4)
	before := 2.0
	for _, size := range []int64{20_000, 60_000, 90_000} {
		made, loss, err := adapters.Compose([]*adapters.Adapter{source}, adapters.ComposeOptions{Reduce: adapters.Reduction{Size: size}})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := made.Save(t.Context(), dir, format.Transformers5); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, format.AdapterFile))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size || info.Size() < size-2500 || loss.Relative >= before {
			t.Errorf("%d bytes of %d, %+v", info.Size(), size, loss)
		}
		before = loss.Relative
	}
	_, _, err := adapters.Compose([]*adapters.Adapter{source}, adapters.ComposeOptions{Reduce: adapters.Reduction{Size: 1000}})
	if !errors.Is(err, adapters.ErrMethod) {
		t.Errorf("a size that cannot be: %v", err)
	}
}
