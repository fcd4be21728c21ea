package adapters_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// synthetic writes a Llama-like base of several shards, of some MB in all, and a LoRA adapter on it.
func synthetic(t *testing.T, dtype format.DType, shards int) (base, adapter string) {
	t.Helper()
	dir := t.TempDir()
	base, adapter = filepath.Join(dir, "base"), filepath.Join(dir, "adapter")
	rng := rand.New(rand.NewPCG(1, 2))
	values := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64()) * 0.1
		}
		return v
	}
	index := &format.Index{WeightMap: map[string]string{}}
	var lora []format.Tensor
	for i := range shards {
		var tensors []format.Tensor
		for _, s := range []struct {
			name    string
			out, in int
		}{{"self_attn.q_proj", 500, 300}, {"mlp.up_proj", 1001, 300}, {"input_layernorm", 0, 300}} {
			name := fmt.Sprintf("model.layers.%d.%s", i, s.name)
			info := format.TensorInfo{Name: name + ".weight", DType: dtype, Shape: []int{s.out, s.in}}
			if s.out == 0 {
				info.Shape = info.Shape[1:]
			} else {
				lora = append(lora, format.FloatTensor("base_model.model."+name+".lora_A.weight", []int{4, s.in}, values(4*s.in)),
					format.FloatTensor("base_model.model."+name+".lora_B.weight", []int{s.out, 4}, values(s.out*4)))
			}
			data, err := format.Narrow(dtype, values(int(info.Elements())))
			if err != nil {
				t.Fatal(err)
			}
			tensors = append(tensors, format.NewTensor(info, data))
			index.WeightMap[info.Name] = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)
			index.TotalSize += info.Size()
		}
		write(t, filepath.Join(base, fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)), tensors)
	}
	if err := index.Write(filepath.Join(base, format.IndexFile)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(adapter, format.AdapterFile), lora)
	for path, text := range map[string]string{
		filepath.Join(base, "config.json"):            `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": false}`,
		filepath.Join(base, "tokenizer.json"):         `{}`,
		filepath.Join(base, "modeling.py"):            ``,
		filepath.Join(adapter, "adapter_config.json"): `{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return base, adapter
}

func write(t *testing.T, path string, tensors []format.Tensor) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := format.Write(t.Context(), path, tensors, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
}

// content reads all files below a directory.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

func mergeText(t *testing.T, base, adapter, out string, opts adapters.MergeOptions) (adapters.MergeResult, error) {
	t.Helper()
	ck, cfg, _ := openText(t, base, adapter)
	b, err := adapters.CheckpointBase(cfg, ck, adapter)
	if err != nil {
		t.Fatal(err)
	}
	a, err := adapters.OpenToMerge(adapter, b)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	return adapters.Merge(t.Context(), ck, cfg, []*adapters.Adapter{a}, out, opts)
}

// Files and their headers are the base's; so is what lies beside them, apart from code.
func TestMergeKeepsLayout(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 3)
	out := filepath.Join(t.TempDir(), "out")
	var last adapters.MergeEvent
	result, err := mergeText(t, base, adapter, out, adapters.MergeOptions{Progress: func(e adapters.MergeEvent) { last = e }})
	if err != nil {
		t.Fatal(err)
	}
	if result.Merged != 6 || result.Copied != 3 || result.Added != 0 || last.Done != last.Total || last.Total == 0 {
		t.Errorf("%+v after %+v", result, last)
	}
	got, want := content(t, out), content(t, base)
	delete(want, "/modeling.py")
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) || !slices.Equal(result.LeftOut, []string{"modeling.py"}) {
		t.Errorf("files %q, left out %q", slices.Sorted(maps.Keys(got)), result.LeftOut)
	}
	for name, text := range want {
		size := len(text)
		if strings.HasSuffix(name, ".safetensors") {
			if size = int(binary.LittleEndian.Uint64([]byte(text))) + 8; got[name] == text {
				t.Errorf("%s did not change", name)
			}
		}
		if name != "/config.json" && (len(got[name]) != len(text) || got[name][:size] != text[:size]) {
			t.Errorf("%s differs", name)
		}
	}
}

// Whatever else is chosen, the numbers are the same.
func TestMergeIsTheSame(t *testing.T) {
	base, adapter := synthetic(t, format.F16, 3)
	dir := t.TempDir()
	tensors := func(name string, opts adapters.MergeOptions) map[string]string {
		if _, err := mergeText(t, base, adapter, filepath.Join(dir, name), opts); err != nil {
			t.Fatal(err)
		}
		ck, err := format.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer ck.Close()
		all := map[string]string{}
		for tensor := range ck.Tensors() {
			data, err := tensor.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			all[tensor.Info().Name] = string(data)
		}
		return all
	}
	want := tensors("plain", adapters.MergeOptions{})
	for name, opts := range map[string]adapters.MergeOptions{
		"one job": {Jobs: 1}, "many jobs": {Jobs: 9}, "one file": {ShardSize: 1 << 40}, "small files": {ShardSize: 700_000}, "once": {Rounding: adapters.RoundOnce},
	} {
		if got := tensors(name, opts); !maps.Equal(got, want) {
			t.Errorf("%s: other tensors", name)
		}
	}
	ck, cfg, loaded := openText(t, base, adapter) // with its values in memory
	kept := filepath.Join(dir, "loaded")
	if _, err := adapters.Merge(t.Context(), ck, cfg, []*adapters.Adapter{loaded}, kept, adapters.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(content(t, kept), content(t, filepath.Join(dir, "plain"))) {
		t.Error("an adapter in memory gives other files than one on the disk")
	}
	if maps.Equal(tensors("safe", adapters.MergeOptions{Rounding: adapters.RoundSafe}), want) {
		t.Error("safe merging rounds the update too")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "one file", "*.safetensors*")); len(names) != 1 || filepath.Base(names[0]) != format.ModelFile {
		t.Errorf("one file: %q", names)
	}
	for _, f := range func() []string { names, _ := filepath.Glob(filepath.Join(dir, "small files", "model-*")); return names }() {
		if info, err := os.Stat(f); err != nil || info.Size() > 710_000 {
			t.Errorf("%s: %v %v", f, info, err)
		}
	}
}

// A cancelled merge, and one that fails, leave nothing.
func TestMergeLeavesNothing(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 4)
	for name, fail := range map[string]func(cancel func(), e adapters.MergeEvent){
		"cancelled at once": func(cancel func(), e adapters.MergeEvent) { cancel() },
		"cancelled late": func(cancel func(), e adapters.MergeEvent) {
			if e.Done > e.Total*2/3 {
				cancel()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ck, cfg, a := openText(t, base, adapter)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			dir := t.TempDir()
			_, err := adapters.Merge(ctx, ck, cfg, []*adapters.Adapter{a}, filepath.Join(dir, "out"),
				adapters.MergeOptions{Progress: func(e adapters.MergeEvent) { fail(cancel, e) }})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if left := content(t, dir); len(left) > 0 {
				t.Errorf("left %q", slices.Collect(maps.Keys(left)))
			}
		})
	}
	broken := errors.New("broken")
	dir := t.TempDir()
	if _, err := mergeText(t, base, adapter, filepath.Join(dir, "out"), adapters.MergeOptions{Check: func(string) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if left := content(t, dir); len(left) > 0 {
		t.Errorf("left %q", slices.Collect(maps.Keys(left)))
	}
}

// The process that a test starts to kill it. It stops for that at the first progress of the file of
// the fourth line, if there is one.
func TestMain(m *testing.M) {
	args := os.Getenv("HUBTOOL_TEST_MERGE")
	if args == "" {
		os.Exit(m.Run())
	}
	dirs := strings.Split(args, "\n")
	ck, err := format.Open(dirs[0])
	if err != nil {
		panic(err)
	}
	cfg, err := format.ReadModelConfig(dirs[0])
	if err != nil {
		panic(err)
	}
	b, err := adapters.CheckpointBase(cfg, ck, dirs[1])
	if err != nil {
		panic(err)
	}
	a, err := adapters.OpenToMerge(dirs[1], b)
	if err != nil {
		panic(err)
	}
	fmt.Println("merging") // which is what the test may wait for
	_, err = adapters.Merge(context.Background(), ck, cfg, []*adapters.Adapter{a}, dirs[2], adapters.MergeOptions{Jobs: 1,
		Progress: func(e adapters.MergeEvent) {
			if len(dirs) > 3 && strings.Contains(e.Shard, dirs[3]) {
				time.Sleep(time.Hour) // until we are killed
			}
		}})
	if err != nil {
		panic(err)
	}
}

// After kill -9 the next merge keeps finished files, also beside a torn line in its journal, and
// another merge does not take them for its own.
func TestMergeGoesOnAfterKill(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 4)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HUBTOOL_TEST_MERGE="+strings.Join([]string{base, adapter, out, "00003"}, "\n"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	third := filepath.Join(out+".partial", "model-00003-of-00004.safetensors.partial")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		done, _ := os.ReadFile(filepath.Join(out+".partial", ".hubtool-merge")) // in which a file is noted after it has its name
		if _, err := os.Stat(third); err == nil && bytes.Contains(done, []byte("model-00001")) && bytes.Contains(done, []byte("model-00002")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the merge does not get anywhere")
		}
	}
	if _, err := mergeText(t, base, adapter, out, adapters.MergeOptions{}); err == nil || !strings.Contains(err.Error(), "another merge") {
		t.Errorf("beside a running merge: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := os.Stat(out); err == nil {
		t.Fatal("there is a result already")
	}
	left := content(t, dir)
	journal, err := os.OpenFile(filepath.Join(out+".partial", ".hubtool-merge"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.WriteString(`{"name": "model-0000`); err != nil {
		t.Fatal(err)
	}
	journal.Close()

	result, err := mergeText(t, base, adapter, out, adapters.MergeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if result.Resumed != 2 {
		t.Errorf("%d files were kept, want 2", result.Resumed)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	want, err := mergeText(t, base, adapter, fresh, adapters.MergeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(result.Shards, want.Shards) || !maps.Equal(content(t, out), content(t, fresh)) {
		t.Error("the resumed merge differs from a fresh one")
	}

	// The same leftovers, but another merge.
	other := filepath.Join(t.TempDir(), "other")
	for name, text := range left {
		path := filepath.Join(other+".partial", strings.TrimPrefix(name, "/out.partial"))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if result, err = mergeText(t, base, adapter, other, adapters.MergeOptions{Weights: []float64{2}}); err != nil || result.Resumed != 0 {
		t.Errorf("another merge kept %d files: %v", result.Resumed, err)
	}
}

// In place gives the files that a merge elsewhere gives. One that fails is undone, and so is one that
// was killed while it wrote.
func TestMergeInPlace(t *testing.T) {
	base, adapter := synthetic(t, format.F32, 2)
	before := content(t, base)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := mergeText(t, base, adapter, out, adapters.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	ck, cfg, a := openText(t, base, adapter)
	plan := func(progress func(adapters.MergeEvent)) *adapters.MergePlan {
		p, err := adapters.PlanMerge(ck, cfg, []*adapters.Adapter{a}, adapters.MergeOptions{Progress: progress})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ctx, cancel := context.WithCancel(t.Context())
	undo, during := filepath.Join(base, ".hubtool-undo"), map[string]string{}
	_, err := plan(func(e adapters.MergeEvent) {
		if strings.Contains(e.Shard, "00002") {
			during = content(t, base) // as a crash would leave it
			cancel()
		}
	}).InPlace(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if after := content(t, base); !maps.Equal(after, before) {
		t.Error("a cancelled merge is not undone")
	}
	for name, text := range during {
		if err := os.WriteFile(base+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !adapters.Unfinished(base) || maps.Equal(content(t, base), before) {
		t.Fatal("nothing to recover from")
	}
	if err := adapters.Recover(base); err != nil {
		t.Fatal(err)
	}
	if after := content(t, base); !maps.Equal(after, before) {
		t.Error("a killed merge is not undone")
	}
	if err := os.WriteFile(undo, []byte(during["/.hubtool-undo"][:1000]), 0o644); err != nil { // cut: nothing was overwritten
		t.Fatal(err)
	}
	if err := adapters.Recover(base); err != nil || !maps.Equal(content(t, base), before) {
		t.Error("an incomplete undo file is not just removed", err)
	}
	if _, err := plan(nil).InPlace(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, want := content(t, base), content(t, out)
	for name, text := range want {
		if strings.HasSuffix(name, ".safetensors") && got[name] != text {
			t.Errorf("%s differs from a merge elsewhere", name)
		}
	}
	if err := os.Link(filepath.Join(base, "model-00001-of-00002.safetensors"), filepath.Join(t.TempDir(), "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := plan(nil).InPlace(t.Context()); !errors.Is(err, adapters.ErrMethod) {
		t.Errorf("a file with two names: %v", err)
	}
}

// Values that do not fit are refused with their place.
func TestMergeOverflow(t *testing.T) {
	base, adapter := synthetic(t, format.F16, 1)
	out := filepath.Join(t.TempDir(), "out")
	_, err := mergeText(t, base, adapter, out, adapters.MergeOptions{Weights: []float64{1e8}})
	if !errors.Is(err, adapters.ErrNonFinite) || !strings.Contains(err.Error(), "q_proj.weight") && !strings.Contains(err.Error(), "up_proj.weight") {
		t.Errorf("error %v", err)
	}
}

// What is not the base's is named with the module it is most like, and can be left out.
func TestMergeUnused(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 1)
	tensors, meta, err := format.Load(filepath.Join(adapter, format.AdapterFile))
	if err != nil {
		t.Fatal(err)
	}
	tensors = append(tensors, format.FloatTensor("base_model.model.model.layers.0.self_attn.qq_proj.lora_A.weight", []int{4, 300}, make([]float32, 1200)))
	if err := format.Write(t.Context(), filepath.Join(adapter, format.AdapterFile), tensors, meta); err != nil {
		t.Fatal(err)
	}
	_, err = mergeText(t, base, adapter, filepath.Join(t.TempDir(), "out"), adapters.MergeOptions{})
	if !errors.Is(err, adapters.ErrUnused) || !errors.Is(err, adapters.ErrMismatch) || !strings.Contains(err.Error(), "nearest module is model.layers.0.self_attn.q_proj") {
		t.Errorf("error %v", err)
	}
	if _, err := mergeText(t, base, adapter, filepath.Join(t.TempDir(), "out"), adapters.MergeOptions{AllowMissing: true}); err != nil {
		t.Error(err)
	}
}

// A base whose names lack the prefix of the adapter's merges to the same numbers.
func TestMergeAlignsPrefixes(t *testing.T) {
	full, adapter := filepath.Join(golden, "text/bases/gpt2"), filepath.Join(golden, "text/adapters/gpt2")
	bare := t.TempDir()
	tensors, meta, err := format.Load(filepath.Join(full, format.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	for i, tensor := range tensors {
		info := tensor.Info()
		data, err := tensor.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		info.Name = strings.TrimPrefix(info.Name, "transformer.")
		tensors[i] = format.NewTensor(info, data)
	}
	config, err := os.ReadFile(filepath.Join(full, "config.json"))
	if err := errors.Join(err, format.Write(t.Context(), filepath.Join(bare, format.ModelFile), tensors, meta),
		os.WriteFile(filepath.Join(bare, "config.json"), config, 0o644)); err != nil {
		t.Fatal(err)
	}
	var merged [2]*format.Checkpoint
	for i, base := range []string{full, bare} {
		out := filepath.Join(t.TempDir(), "out")
		if _, err := mergeText(t, base, adapter, out, adapters.MergeOptions{}); err != nil {
			t.Fatal(err)
		}
		if merged[i], err = format.Open(out); err != nil {
			t.Fatal(err)
		}
		defer merged[i].Close()
	}
	for tensor := range merged[0].Tensors() {
		other, ok := merged[1].Tensor(strings.TrimPrefix(tensor.Info().Name, "transformer."))
		if !ok {
			t.Fatalf("no %s", tensor.Info().Name)
		}
		a, err := tensor.Bytes()
		b, err2 := other.Bytes()
		if err := errors.Join(err, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v", tensor.Info().Name, err)
		}
	}
}

// Bases with packed weights are known by their config, their tensors or their types.
func TestQuantised(t *testing.T) {
	for want, c := range map[string]struct {
		config, tensor string
		dtype          format.DType
	}{
		"":                {"", "model.layers.0.q_proj.weight", format.BF16},
		"gptq":            {`, "quantization_config": {"quant_method": "gptq"}`, "x.weight", format.F16},
		"unknown":         {`, "quantization_config": {}`, "x.weight", format.F16},
		"GPTQ or AWQ":     {"", "x.qweight", format.I32},
		"bitsandbytes":    {"", "x.weight.absmax", format.F32},
		"FP8 in blocks":   {"", "x.weight_scale_inv", format.F32},
		"F8_E4M3 weights": {"", "x.weight", format.F8_E4M3},
	} {
		dir := t.TempDir()
		info := format.TensorInfo{Name: c.tensor, DType: c.dtype, Shape: []int{1}}
		write(t, filepath.Join(dir, format.ModelFile), []format.Tensor{format.NewTensor(info, make([]byte, info.Size()))})
		cfg, err := format.ParseModelConfig([]byte(`{"model_type": "llama"` + c.config + `}`))
		if err != nil {
			t.Fatal(err)
		}
		ck, err := format.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := adapters.Quantised(cfg, ck); got != want {
			t.Errorf("%+v is %q, want %q", c, got, want)
		}
		ck.Close()
	}
}

// Verify accepts what any way of rounding gives, and finds single wrong elements and tensors.
func TestVerify(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 2)
	for _, rounding := range []adapters.Rounding{adapters.RoundPEFT, adapters.RoundSafe, adapters.RoundOnce} {
		out := filepath.Join(t.TempDir(), "out")
		if _, err := mergeText(t, base, adapter, out, adapters.MergeOptions{Rounding: rounding}); err != nil {
			t.Fatal(err)
		}
		ck, cfg, a := openText(t, base, adapter)
		plan, err := adapters.PlanMerge(ck, cfg, []*adapters.Adapter{a}, adapters.MergeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		verify := func(rows int) *adapters.Verification {
			merged, err := format.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer merged.Close()
			v, err := plan.Verify(t.Context(), merged, rows, nil)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if v := verify(0); !v.OK() || v.Numbers.Elements != 2*(500*300+1001*300+300) || v.Structure.Tensors != 6 || v.Numbers.MaxULP > 1 {
			t.Errorf("rounding %d: %+v", rounding, v)
		}
		if v := verify(10); !v.OK() || v.Numbers.Elements > 2*30*300 {
			t.Errorf("rounding %d, some rows: %+v", rounding, v)
		}
		path := filepath.Join(out, "model-00001-of-00002.safetensors")
		tensors, meta, err := format.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range tensors {
			data, _ := tensor.Bytes()
			data[len(data)-2] ^= 1 // in layernorm the last bit, in weights too
			if strings.Contains(tensor.Info().Name, "proj") {
				data[len(data)-1] ^= 1
			}
		}
		tensors = append(tensors[1:], format.FloatTensor("extra", []int{1}, []float32{1}))
		if err := format.Write(t.Context(), path, tensors, meta); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(out, format.IndexFile))
		os.Rename(filepath.Join(out, "model-00001-of-00002.safetensors"), filepath.Join(out, format.ModelFile))
		if v := verify(0); v.OK() || v.Numbers.Different != 2 || len(v.Structure.Missing) != 4 || !slices.Equal(v.Structure.Unexpected, []string{"extra"}) {
			t.Errorf("rounding %d, damaged: %+v", rounding, v)
		}
	}
}

// Several adapters are rounded after each one as in PEFT, or once after the last.
func TestMergeSeveral(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 1)
	ck, cfg, a := openText(t, base, adapter)
	weight := func(rounding adapters.Rounding, weights ...float64) []float32 {
		out := filepath.Join(t.TempDir(), "out")
		as := slices.Repeat([]*adapters.Adapter{a}, len(weights))
		if _, err := adapters.Merge(t.Context(), ck, cfg, as, out, adapters.MergeOptions{Rounding: rounding, Weights: weights}); err != nil {
			t.Fatal(err)
		}
		return values(t, filepath.Join(out, "model-00001-of-00001.safetensors"), "model.layers.0.self_attn.q_proj.weight")
	}
	old := values(t, filepath.Join(base, "model-00001-of-00001.safetensors"), "model.layers.0.self_attn.q_proj.weight")
	if there := weight(adapters.RoundOnce, 1, -1); slices.Equal(there, weight(adapters.RoundPEFT, 1, -1)) {
		t.Error("rounding once is no different")
	} else {
		for i, v := range there {
			if math.Abs(float64(v-old[i])) > math.Abs(float64(old[i]))/128+1e-6 {
				t.Fatalf("element %d is %v, was %v", i, v, old[i])
			}
		}
	}
}

// PEFT merges into float64 in float64, see test_float64 in test_merge.py. Nothing that only looks like it is written.
func TestMergeRefusesFloat64(t *testing.T) {
	base, adapter := synthetic(t, format.F64, 2)
	out := filepath.Join(t.TempDir(), "out")
	_, err := mergeText(t, base, adapter, out, adapters.MergeOptions{})
	if !errors.Is(err, format.ErrUnsupported) || !strings.Contains(err.Error(), "is F64") {
		t.Errorf("the error is %v", err)
	}
	if left, err := filepath.Glob(out + "*"); err != nil || len(left) > 0 {
		t.Errorf("%v is there, %v", left, err)
	}
}
