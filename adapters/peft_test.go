package adapters_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/adapterstest"
	"github.com/hubtool/hubtool/format"
)

// edit changes a saved adapter: its config, and its tensors by name.
type edit func(cfg map[string]any, tensors map[string]format.Tensor)

// saved makes an adapter on adapterstest.Base, saves it, and changes what was written.
func saved(t *testing.T, settings string, change edit) string {
	t.Helper()
	a := adapterstest.New(t, settings, 1)
	adapterstest.Randomize(a, 2)
	dir := t.TempDir()
	if err := a.Save(context.Background(), dir, format.Transformers5); err != nil {
		t.Fatal(err)
	}
	if change == nil {
		return dir
	}
	path := filepath.Join(dir, adapters.File)
	stored, meta, err := format.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, format.AdapterConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	cfg, tensors := map[string]any{}, map[string]format.Tensor{}
	if err := json.Unmarshal(text, &cfg); err != nil {
		t.Fatal(err)
	}
	for _, tensor := range stored {
		tensors[tensor.Info().Name] = tensor
	}
	change(cfg, tensors)
	if text, err = json.Marshal(cfg); err == nil {
		err = os.WriteFile(filepath.Join(dir, format.AdapterConfigFile), text, 0o644)
	}
	if err == nil {
		err = format.Write(context.Background(), path, slices.Collect(maps.Values(tensors)), meta)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// rename is an edit of tensors' names.
func rename(old, name string) edit {
	return func(_ map[string]any, tensors map[string]format.Tensor) {
		for was, tensor := range maps.Clone(tensors) {
			if now := strings.ReplaceAll(was, old, name); now != was {
				delete(tensors, was)
				tensors[now] = renamed{tensor, now}
			}
		}
	}
}

type renamed struct {
	format.Tensor
	name string
}

func (r renamed) Info() format.TensorInfo {
	info := r.Tensor.Info()
	info.Name = r.name
	return info
}

// set is an edit of one key of the config.
func set(key string, value any) edit {
	return func(cfg map[string]any, _ map[string]format.Tensor) { cfg[key] = value }
}

func unset(key string) edit {
	return func(cfg map[string]any, _ map[string]format.Tensor) { delete(cfg, key) }
}

const (
	loraOf    = `{"peft_type": "LORA", "r": 2, "target_modules": ["query"]}`
	withHead  = `{"peft_type": "LORA", "r": 2, "target_modules": ["query"], "modules_to_save": ["output.dense"]}`
	doraOf    = `{"peft_type": "LORA", "r": 2, "target_modules": ["query"], "use_dora": true}`
	lohaOf    = `{"peft_type": "LOHA", "r": 2, "target_modules": ["query"]}`
	lokrOf    = `{"peft_type": "LOKR", "r": 2, "alpha": 8, "target_modules": ["query"]}`
	adaloraOf = `{"peft_type": "ADALORA", "init_r": 4, "target_modules": ["query", "value"], "total_step": 9}`
	ia3Of     = `{"peft_type": "IA3", "target_modules": ["query"], "feedforward_modules": []}`
)

// Files that PEFT reads, if with a warning, are read here with the same numbers. The numbers are
// those of the conformance cases.
func TestReadsLikePEFT(t *testing.T) { reads(t, 0) }

// reads checks the rows of a case, or all for 0.
func reads(t *testing.T, n int) {
	t.Helper()
	ran := 0
	for _, c := range []struct {
		name     string
		settings string
		change   edit
		note     string // in the adapter's notes; "" for none
	}{
		{"3 unknown key", loraOf, set("foo", 1), `"foo"`},
		{"5 runtime_config", loraOf, set("runtime_config", map[string]any{"ephemeral_gpu_offload": false}), ""},
		{"14 .weight added", lohaOf, rename("hada_w1_a", "hada_w1_a.weight"), ""},
		{"15 magnitude as a module", doraOf, rename("lora_magnitude_vector", "lora_magnitude_vector.weight"), ""},
		{"16 state_dict", loraOf, rename(".weight", ".default.weight"), ""},
		{"16 state_dict of parameters", lohaOf, func(cfg map[string]any, tensors map[string]format.Tensor) {
			for _, name := range []string{"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} {
				rename(name, name+".default")(cfg, tensors)
			}
		}, ""},
		{"17 head of a state_dict", withHead, rename("mlp.fc2.", "mlp.fc2.modules_to_save.default."), ""},
		{"20 copies beside a saved module", withHead, func(_ map[string]any, tensors map[string]format.Tensor) {
			for _, copied := range []string{"original_module.bias", "modules_to_save.bias"} {
				name := "base_model.model.vit.layers.0.mlp.fc2." + copied
				tensors[name] = format.FloatTensor(name, []int{8}, make([]float32, 8))
			}
		}, ""},
		{"22 a bare encoder's names", loraOf, rename("model.vit.", "model."), ""},
		{"23 classic names", loraOf, rename("layers.0.attention.q_proj", "encoder.layer.0.attention.attention.query"), ""},
		{"33 LoKr before 0.14", lokrOf, unset("rank_dropout_scale"), "PEFT before 0.14"},
		{"46 an initialisation that leaves the base alone", loraOf, set("init_lora_weights", "eva"), ""},
		{"49 fan_in_fan_out", loraOf, set("fan_in_fan_out", true), ""},
		{"56 a tensor too many", loraOf, func(_ map[string]any, tensors map[string]format.Tensor) {
			tensors["more"] = format.FloatTensor("more", []int{1}, []float32{1})
		}, "more is not used"},
		{"57 inference_mode", loraOf, set("inference_mode", false), ""},
		{"8 task_type", loraOf, set("task_type", "SEQ_CLS"), ""},
	} {
		if n != 0 && !numbered(c.name, n) {
			continue
		}
		ran++
		t.Run(c.name, func(t *testing.T) {
			want, err := adapters.Load(saved(t, c.settings, nil), adapterstest.Base())
			if err != nil {
				t.Fatal(err)
			}
			got, err := adapters.Load(saved(t, c.settings, c.change), adapterstest.Base())
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range want.Params() {
				if !slices.Equal(got.Params()[i].Values, p.Values) {
					t.Errorf("%s differs", p.Name)
				}
			}
			if notes := strings.Join(got.Notes, "\n"); (notes == "") != (c.note == "") || !strings.Contains(notes, c.note) {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
		})
	}
	if ran == 0 {
		t.Errorf("case %d has no row", n)
	}
}

// What PEFT refuses, and what hubtool cannot do, is refused with an error that names it.
func TestRefusesSettings(t *testing.T) { refuses(t, 0) }

// refuses checks the rows of a case, or all for 0.
func refuses(t *testing.T, n int) {
	t.Helper()
	ran := 0
	for _, c := range []struct {
		name, settings, key string
		value               any
		want                error
	}{
		{"2 a rank that is no integer", loraOf, "r", json.Number("16.0"), format.ErrConfig},
		{"no rank", loraOf, "r", 0, format.ErrConfig},
		{"a rank as text", loraOf, "r", "4", format.ErrConfig},
		{"dropout", loraOf, "lora_dropout", 1, format.ErrConfig},
		{"bias", loraOf, "bias", "foo", format.ErrConfig},
		{"a flag as text", loraOf, "use_rslora", "yes", format.ErrConfig},
		{"6 lower case", loraOf, "peft_type", "lora", adapters.ErrMethod},
		{"OFT", loraOf, "peft_type", "OFT", adapters.ErrMethod},
		{"VeRA", loraOf, "peft_type", "VERA", adapters.ErrMethod},
		{"8 task_type", loraOf, "task_type", "IMAGE_CLASSIFICATION", format.ErrConfig},
		{"QALoRA", loraOf, "use_qalora", true, adapters.ErrMethod},
		{"KaSA", loraOf, "kasa_config", map[string]any{"beta": 1}, adapters.ErrMethod},
		{"46 PiSSA", loraOf, "init_lora_weights", "pissa", adapters.ErrMethod},
		{"46 PiSSA by iteration", loraOf, "init_lora_weights", "pissa_niter_16", adapters.ErrMethod},
		{"46 OLoRA", loraOf, "init_lora_weights", "olora", adapters.ErrMethod},
		{"46 LoftQ", loraOf, "init_lora_weights", "loftq", adapters.ErrMethod},
		{"46 CorDA", loraOf, "init_lora_weights", "corda", adapters.ErrMethod},
		{"46 LoRA-GA", loraOf, "init_lora_weights", "lora_ga", adapters.ErrMethod},
		{"initialisation", loraOf, "init_lora_weights", 3, format.ErrConfig},
		{"DoRA with a bias", doraOf, "lora_bias", true, format.ErrConfig},
		{"no rank in LoHa", lohaOf, "r", 0, format.ErrConfig},
		{"rank_dropout", lohaOf, "rank_dropout", -0.1, format.ErrConfig},
		{"module_dropout", lohaOf, "module_dropout", 1.5, format.ErrConfig},
		{"LoHa's initialisation", lohaOf, "init_weights", "lycoris", format.ErrConfig},
		{"LoKr's initialisation", lokrOf, "init_weights", "foo", format.ErrConfig},
		{"decompose_factor", lokrOf, "decompose_factor", 0, format.ErrConfig},
		{"7 AdaLoRA without total_step", adaloraOf, "total_step", nil, format.ErrConfig},
		{"7 AdaLoRA without a budget phase", adaloraOf, "tinit", 9, format.ErrConfig},
		{"no init_r", adaloraOf, "init_r", 0, format.ErrConfig},
		{"deltaT", adaloraOf, "deltaT", 0, format.ErrConfig},
		{"beta1", adaloraOf, "beta1", 1, format.ErrConfig},
		{"orth_reg_weight", adaloraOf, "orth_reg_weight", -1, format.ErrConfig},
		{"AdaLoRA with DoRA", adaloraOf, "use_dora", true, format.ErrConfig},
		{"AdaLoRA with LoftQ", adaloraOf, "loftq_config", map[string]any{"loftq_bits": 4}, format.ErrConfig},
		{"39 a mask of another length", adaloraOf, "rank_pattern", map[string]any{"vit.layers.0.attention.q_proj.lora_E": []bool{true}}, format.ErrConfig},
		{"39 a mask that is no mask", adaloraOf, "rank_pattern", map[string]any{"vit.layers.0.attention.q_proj.lora_E": 4}, format.ErrConfig},
		{"39 a mask of another sum", adaloraOf, "rank_pattern", map[string]any{"vit.layers.0.attention.q_proj.lora_E": []bool{true, false, true, true}}, adapters.ErrMismatch},
		{"39 a mask of another module", adaloraOf, "rank_pattern", map[string]any{"vit.layers.7.attention.q_proj.lora_E": []bool{true, true, true, true}}, adapters.ErrMismatch},
		{"IA3 without feedforward_modules", ia3Of, "feedforward_modules", nil, format.ErrConfig},
		{"IA3's feedforward_modules outside target_modules", ia3Of, "feedforward_modules", []string{"output.dense"}, format.ErrConfig},
		{"60 a pattern for Python only", loraOf, "target_modules", "(?!x).*query", format.ErrConfig},
		{"60 in rank_pattern", loraOf, "rank_pattern", map[string]any{"(?!x)": 3}, format.ErrConfig},
		{"60 in feedforward_modules", ia3Of, "feedforward_modules", "(?!x)", format.ErrConfig},
		{"26 a name as a pattern", loraOf, "target_modules", "query", adapters.ErrMismatch},
		{"10 a rank that the tensors have not", loraOf, "rank_pattern", map[string]any{"q_proj": 3}, adapters.ErrMismatch},
		{"modules_to_save without a module", loraOf, "modules_to_save", []string{"nothing"}, adapters.ErrMismatch},
		{"18 a saved module without tensors", loraOf, "modules_to_save", []string{"fc2"}, adapters.ErrMismatch},
	} {
		if n != 0 && !numbered(c.name, n) {
			continue
		}
		ran++
		t.Run(c.name, func(t *testing.T) {
			_, err := adapters.Load(saved(t, c.settings, set(c.key, c.value)), adapterstest.Base())
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	if ran == 0 {
		t.Errorf("case %d has no row", n)
	}
}

// Settings that mean nothing for a method are not accepted for new adapters.
func TestRefusesToCreate(t *testing.T) {
	for settings, want := range map[string]error{
		`{"peft_type": "LORA", "target_modules": ["query"], "init_lora_weights": "eva"}`: adapters.ErrMethod,
		`{"peft_type": "LORA", "target_modules": ["query"], "lora_bias": true}`:          adapters.ErrMethod,
		`{"peft_type": "ADALORA", "target_modules": ["query"], "use_rslora": true}`:      format.ErrConfig,
		`{"peft_type": "LOHA"}`: format.ErrConfig,
	} {
		cfg, err := format.ParseAdapterConfig([]byte(settings))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := adapters.New(cfg, adapterstest.Base(), 1); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", settings, err, want)
		}
	}
}

// An adapter with tensors that are missing, of another shape or not finite is refused, with all
// that is wrong (18, 39, 43).
func TestRefusesTensors(t *testing.T) {
	const a = "base_model.model.vit.layers.0.attention.q_proj.lora_A.weight"
	const b = "base_model.model.vit.layers.0.attention.q_proj.lora_B.weight"
	for _, c := range []struct {
		name   string
		change edit
		want   error
		says   []string
	}{
		{"missing", func(_ map[string]any, ts map[string]format.Tensor) { delete(ts, a); delete(ts, b) }, adapters.ErrMismatch, []string{"lora_A", "lora_B"}},
		{"shape", func(_ map[string]any, ts map[string]format.Tensor) {
			ts[a] = format.FloatTensor(a, []int{8, 2}, make([]float32, 16))
		}, adapters.ErrMismatch, []string{"lora_A", "[8 2]", "[2 8]"}},
		{"infinite", func(_ map[string]any, ts map[string]format.Tensor) {
			v := make([]float32, 16)
			v[3] = float32(math.Inf(1))
			ts[b] = format.FloatTensor(b, []int{8, 2}, v)
		}, adapters.ErrNonFinite, []string{"lora_B", "element 3"}},
		{"names", rename("lora_A.weight", "lora_A.foo"), adapters.ErrMismatch, []string{"missing", "lora_A.weight"}},
	} {
		_, err := adapters.Load(saved(t, loraOf, c.change), adapterstest.Base())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not say %q", c.name, err, word)
			}
		}
	}
}

// lostBiases: those that PEFT 0.7 to 0.20 lost are not missed.
func lostBiases(t *testing.T) {
	lost := saved(t, `{"peft_type": "LORA", "r": 2, "target_modules": ["output.dense"], "bias": "lora_only"}`, func(_ map[string]any, ts map[string]format.Tensor) {
		delete(ts, "base_model.model.vit.layers.0.mlp.fc2.base_layer.bias")
	})
	if l, err := adapters.Load(lost, adapterstest.Base()); err != nil || len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "lora_only") {
		t.Errorf("21: %v", err)
	}
}

// 4: PEFT's defaults.
func TestDefaults(t *testing.T) {
	for settings, want := range map[string]string{
		`{"peft_type": "LORA", "target_modules": ["query"]}`:    "8 8",
		`{"peft_type": "LOHA", "target_modules": ["query"]}`:    "8 8",
		`{"peft_type": "LOKR", "target_modules": ["query"]}`:    "8 8",
		`{"peft_type": "ADALORA", "target_modules": ["query"]}`: "12 8",
	} {
		target := adapterstest.New(t, settings, 1).Targets[0]
		if got := fmt.Sprint(target.Rank, target.Alpha); got != want {
			t.Errorf("%s: rank and alpha %s, want %s", settings, got, want)
		}
	}
}

// 10 to 12: patterns, of which the first in the file wins.
func TestPatterns(t *testing.T) {
	for _, c := range []struct{ ranks, alphas, query, dense string }{
		{`{}`, `{}`, "2 8", "2 8"},
		{`{"query": 4, "layer.0.attention.attention.query": 8}`, `{}`, "4 8", "2 8"},
		{`{"layer.0.attention.attention.query": 8, "query": 4}`, `{}`, "8 8", "2 8"},
		{`{"^vit.encoder.layer.0.attention.attention.query": 5}`, `{}`, "5 8", "2 8"},
		{`{"q_proj": 3, "mlp.fc1": 6}`, `{}`, "3 8", "6 8"},
		{`{".*dense": 7}`, `{"query": 3}`, "2 3", "7 8"},
		{`{"uery": 4, "ense": 5}`, `{}`, "2 8", "2 8"},
	} {
		a := adapterstest.New(t, fmt.Sprintf(`{"peft_type": "LORA", "r": 2, "target_modules": ["query", "intermediate.dense"], "rank_pattern": %s, "alpha_pattern": %s}`, c.ranks, c.alphas), 1)
		for i, want := range []string{c.query, c.dense} {
			if got := fmt.Sprint(a.Targets[i].Rank, a.Targets[i].Alpha); got != want {
				t.Errorf("%s and %s: %s has %s, want %s", c.ranks, c.alphas, a.Targets[i].Name, got, want)
			}
		}
	}
}

// 51: how new factors begin.
func TestInitialValues(t *testing.T) {
	spread := func(values []float32) (largest, std float64) {
		for _, v := range values {
			largest = max(largest, math.Abs(float64(v)))
			std += float64(v) * float64(v)
		}
		return largest, math.Sqrt(std / float64(len(values)))
	}
	for _, c := range []struct {
		settings string
		param    int
		largest  float64 // of a uniform distribution; 0 for a normal one
		std      float64
	}{
		{`{"peft_type": "LORA", "r": 64, "target_modules": ["output.dense"]}`, 0, 1 / math.Sqrt(24), 1 / math.Sqrt(3*24)},
		{`{"peft_type": "LORA", "r": 64, "target_modules": ["output.dense"]}`, 1, 0, 0},
		{`{"peft_type": "LORA", "r": 64, "target_modules": ["output.dense"], "init_lora_weights": "gaussian"}`, 0, 0, 1.0 / 64},
		{`{"peft_type": "LORA", "r": 64, "target_modules": ["output.dense"], "init_lora_weights": "orthogonal"}`, 0, 0, 0.1 / math.Sqrt2},
		{`{"peft_type": "LORA", "r": 64, "target_modules": ["output.dense"], "init_lora_weights": "orthogonal"}`, 1, 0, 0.1 / math.Sqrt2},
		{`{"peft_type": "LORA", "r": 64, "target_modules": ["output.dense"], "init_lora_weights": false}`, 1, 1.0 / 8, 1 / math.Sqrt(3*64)},
		{`{"peft_type": "LOHA", "r": 64, "target_modules": ["output.dense"]}`, 0, 1.0 / 8, 1 / math.Sqrt(3*64)},
		{`{"peft_type": "LOHA", "r": 64, "target_modules": ["output.dense"]}`, 3, 0, 0},
		{`{"peft_type": "LOKR", "r": 64, "target_modules": ["output.dense"]}`, 0, 0, 0},
		{`{"peft_type": "LOKR", "r": 64, "target_modules": ["output.dense"], "init_weights": "lycoris"}`, 1, 0, 0},
		{`{"peft_type": "ADALORA", "init_r": 64, "target_modules": ["output.dense"]}`, 0, 0, 0.02},
		{`{"peft_type": "ADALORA", "init_r": 64, "target_modules": ["output.dense"]}`, 2, 0, 0},
		{`{"peft_type": "ADALORA", "init_r": 64, "target_modules": ["output.dense"], "init_lora_weights": false}`, 1, 0, 1},
		{`{"peft_type": "IA3", "target_modules": ["output.dense"], "feedforward_modules": ["output.dense"]}`, 0, 0, 1},
	} {
		p := adapterstest.New(t, c.settings, 1).Params()[c.param]
		largest, std := spread(p.Values)
		if math.Abs(std-c.std) > 0.1*c.std || c.largest > 0 && (largest > c.largest || largest < 0.9*c.largest) {
			t.Errorf("%s: %s has standard deviation %.4f and at most %.4f, want %.4f and %.4f", c.settings, p.Name, std, largest, c.std, c.largest)
		}
	}
}

// 19, 24: what is needed before a base is opened.
func TestFindsAdapters(t *testing.T) {
	dir := saved(t, `{"peft_type": "LORA", "r": 2, "target_modules": ["query"]}`, func(_ map[string]any, ts map[string]format.Tensor) {
		name := "base_model.model.classifier.weight"
		ts[name] = format.FloatTensor(name, []int{10, 8}, make([]float32, 80))
	})
	if rows, ok, err := adapters.HeadRows(dir, "vit", "classifier"); rows != 10 || !ok || err != nil {
		t.Errorf("a head of %d labels (%v, %v), want 10", rows, ok, err)
	}
	outside := t.TempDir()
	inside := filepath.Join(outside, "food")
	if err := os.CopyFS(inside, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if got := adapters.Dir(outside); got != inside {
		t.Errorf("an adapter that is not called default was sought in %q, want %q", got, inside)
	}
	if got := adapters.Dir(inside); got != inside {
		t.Errorf("an adapter was sought in %q, want %q", got, inside)
	}
}

// 45: what cannot be merged as PEFT merges it is refused before anything is written.
func TestRefusesToMerge(t *testing.T) {
	e := goEngine(t)
	of := func(name string) loaded { return load(t, e, filepath.Join(golden, name), "vit") }
	dora, lora, ia3 := of("dora/classifier").adapter, of("lora/query-value"), of("ia3/feedforward").adapter
	for _, c := range []struct {
		name    string
		as      []*adapters.Adapter
		weights []float64
		want    error
	}{
		{"DoRA first", []*adapters.Adapter{dora, lora.adapter}, nil, nil},
		{"DoRA second", []*adapters.Adapter{lora.adapter, dora}, nil, adapters.ErrMethod},
		{"DoRA twice", []*adapters.Adapter{dora, dora}, nil, adapters.ErrMethod},
		{"half of IA3", []*adapters.Adapter{ia3}, []float64{0.5}, adapters.ErrMethod},
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := adapters.Merge(context.Background(), lora.checkpoint, lora.config, c.as, out, adapters.MergeOptions{Weights: c.weights})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, statErr := os.Stat(out); c.want != nil && statErr == nil {
			t.Errorf("%s: something was written", c.name)
		}
	}
}
