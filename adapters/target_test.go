package adapters_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model"
)

// vitBase is ViT-base with a head for Food-101's classes, all zero.
func vitBase(t *testing.T) adapters.Base {
	t.Helper()
	dir := t.TempDir()
	text := `{"model_type": "vit", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
		"image_size": 224, "patch_size": 16, "num_channels": 3}`
	if err := os.WriteFile(filepath.Join(dir, format.ModelConfigFile), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.New(cfg, 101)
	if err != nil {
		t.Fatal(err)
	}
	b := train.Base(m, nil)
	b.Values = func(name string) ([]float32, error) {
		i := slices.IndexFunc(b.Parameters, func(p adapters.Parameter) bool { return p.Name == name })
		n := 1
		for _, d := range b.Parameters[i].Shape {
			n *= d
		}
		return make([]float32, n), nil
	}
	return b
}

func newOn(t *testing.T, b adapters.Base, settings string) (*adapters.Adapter, error) {
	t.Helper()
	cfg, err := format.ParseAdapterConfig([]byte(settings))
	if err != nil {
		t.Fatal(err)
	}
	return adapters.New(cfg, b, 1)
}

// 50: the numbers of PEFT's image-classification guide, as print_trainable_parameters gives them.
func TestCountsOfTheGuide(t *testing.T) {
	b := vitBase(t)
	for _, c := range []struct {
		settings       string
		trainable, all int
	}{
		{`"peft_type": "LORA", "r": 16`, 667_493, 86_543_818},
		{`"peft_type": "LOHA", "r": 16`, 1_257_317, 87_133_642},
		{`"peft_type": "LOKR", "r": 16`, 116_069, 85_992_394},
		{`"peft_type": "LOKR", "r": 8`, 103_781, 85_980_106},
		{`"peft_type": "ADALORA", "init_r": 12`, 520_325, 86_396_674},
	} {
		a, err := newOn(t, b, fmt.Sprintf(`{%s, "target_modules": ["query", "value"], "modules_to_save": ["classifier"]}`, c.settings))
		if err != nil {
			t.Fatal(err)
		}
		if trainable, all := a.Count(); trainable != c.trainable || all != c.all {
			t.Errorf("%s: %d of %d parameters, want %d of %d", c.settings, trainable, all, c.trainable, c.all)
		}
	}
}

// 25 to 29: which modules a config selects, in either generation of names.
func TestSelectsModules(t *testing.T) { selects(t, 0) }

// selects checks the rows of a case, or all for 0.
func selects(t *testing.T, n int) {
	t.Helper()
	b := vitBase(t)
	for _, c := range []struct {
		of       int // case
		settings string
		modules  int
	}{
		{25, `"target_modules": ["dense"]`, 36},
		{25, `"target_modules": ["output.dense"]`, 24},
		{25, `"target_modules": ["o_proj", "fc2"]`, 24},
		{26, `"target_modules": ".*attention\\.(query|value)"`, 24},
		{25, `"target_modules": ["query", "value", "q_proj", "v_proj"]`, 24},
		{27, `"target_modules": "all-linear"`, 73},
		{27, `"target_modules": "all-linear", "modules_to_save": ["classifier"]`, 72},
		{28, `"target_modules": ["query"], "layers_to_transform": [0, 1]`, 2},
		{28, `"target_modules": ["query"], "layers_to_transform": 11, "layers_pattern": "layer"`, 1},
		{28, `"target_modules": ["q_proj"], "layers_to_transform": 11, "layers_pattern": ["layers", "h"]`, 1},
		{25, `"target_modules": ["query"], "exclude_modules": ["layer.0.attention.attention.query", "layers.1.attention.q_proj"]`, 10},
		{28, `"target_modules": ["vit.encoder.layer.3.attention.attention.query"], "layers_to_transform": [0]`, 1},
		{29, `"target_modules": ["query"], "modules_to_save": ["fier"]`, 12},
		{25, `"target_modules": ["uery"]`, 0},
		{26, `"target_modules": "query"`, 0},
	} {
		if n != 0 && c.of != n {
			continue
		}
		a, err := newOn(t, b, `{"peft_type": "LORA", "r": 1, `+c.settings+`}`)
		if c.modules == 0 {
			if err == nil {
				t.Errorf("%s selects %d modules, want an error", c.settings, len(a.Targets))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.settings, err)
			continue
		}
		if len(a.Targets) != c.modules {
			t.Errorf("%s selects %d modules, want %d", c.settings, len(a.Targets), c.modules)
		}
		if strings.Contains(c.settings, "modules_to_save") && len(a.FullValues()) != 2 {
			t.Errorf("%s saves %d parameters, want the classifier's 2", c.settings, len(a.FullValues()))
		}
	}
}

// 30, 31, 35, 37, 45: names and shapes of a module's tensors.
func TestShapes(t *testing.T) { hasShapes(t, 0) }

// hasShapes checks the rows of a case, or all for 0.
func hasShapes(t *testing.T, n int) {
	t.Helper()
	b := vitBase(t)
	for _, c := range []struct {
		of             int // case; 0 for none
		settings, want string
	}{
		{30, `"peft_type": "LOKR", "r": 16, "target_modules": ["layer.0.attention.attention.query"]`, "lokr_w1 [24 24], lokr_w2 [32 32]"},
		{30, `"peft_type": "LOKR", "r": 8, "target_modules": ["layer.0.attention.attention.query"]`, "lokr_w1 [24 24], lokr_w2_a [32 8], lokr_w2_b [8 32]"},
		{30, `"peft_type": "LOKR", "r": 8, "decompose_both": true, "target_modules": ["layer.0.attention.attention.query"]`,
			"lokr_w1_a [24 8], lokr_w1_b [8 24], lokr_w2_a [32 8], lokr_w2_b [8 32]"},
		{31, `"peft_type": "LOKR", "r": 8, "decompose_factor": 8, "target_modules": ["layer.0.intermediate.dense"]`, "lokr_w1 [8 8], lokr_w2_a [384 8], lokr_w2_b [8 96]"},
		{0, `"peft_type": "LOKR", "r": 8, "target_modules": ["projection"]`, "lokr_w1 [24 1], lokr_w2_a [32 8], lokr_w2_b [8 768]"},
		{0, `"peft_type": "LOKR", "r": 8, "use_effective_conv2d": true, "target_modules": ["projection"]`,
			"lokr_w1 [24 1], lokr_t2 [8 8 16 16], lokr_w2_a [8 32], lokr_w2_b [8 3]"},
		{0, `"peft_type": "LOKR", "r": 16, "target_modules": ["projection"]`, "lokr_w1 [24 1], lokr_w2 [32 3 16 16]"},
		{35, `"peft_type": "LOHA", "r": 8, "target_modules": ["layer.0.intermediate.dense"]`, "hada_w1_a [3072 8], hada_w1_b [8 768], hada_w2_a [3072 8], hada_w2_b [8 768]"},
		{35, `"peft_type": "LOHA", "r": 8, "target_modules": ["projection"]`, "hada_w1_a [768 8], hada_w1_b [8 768], hada_w2_a [768 8], hada_w2_b [8 768]"},
		{35, `"peft_type": "LOHA", "r": 8, "use_effective_conv2d": true, "target_modules": ["projection"]`,
			"hada_w1_a [8 768], hada_w1_b [8 3], hada_w2_a [8 768], hada_w2_b [8 3], hada_t1 [8 8 16 16], hada_t2 [8 8 16 16]"},
		{45, `"peft_type": "LORA", "r": 8, "use_dora": true, "target_modules": ["projection"]`,
			"lora_A.weight [8 3 16 16], lora_B.weight [768 8 1 1], lora_magnitude_vector [1 768 1 1]"},
		{37, `"peft_type": "ADALORA", "init_r": 12, "target_modules": ["layer.0.output.dense"], "exclude_modules": ["layer.0.attention.output.dense"]`,
			"lora_A [12 3072], lora_B [768 12], lora_E [12 1]"},
		{0, `"peft_type": "IA3", "target_modules": ["projection"], "feedforward_modules": ["projection"]`, "ia3_l [1 3 1 1]"},
		{0, `"peft_type": "IA3", "target_modules": ["layer.0.intermediate.dense"], "feedforward_modules": []`, "ia3_l [3072 1]"},
		{0, `"peft_type": "IA3", "target_modules": ["layer.0.intermediate.dense"], "feedforward_modules": ["layer.0.intermediate.dense"]`, "ia3_l [1 768]"},
	} {
		if n != 0 && c.of != n {
			continue
		}
		a, err := newOn(t, b, "{"+c.settings+"}")
		if err != nil {
			t.Errorf("%s: %v", c.settings, err)
			continue
		}
		var got []string
		for _, p := range a.Method().Params(a.Targets[0]) {
			got = append(got, fmt.Sprint(p.Name, " ", p.Shape))
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s has %q, want %s", c.settings, got, c.want)
		}
	}
}
