package model_test

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/internal/goldentest"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
)

const bases = "../testdata/golden/bases"

// Logits are those of transformers within 1e-4 for all shapes, spellings and types of base.
func TestLogitsEqualTransformers(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(bases, "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatal("no golden bases", err)
	}
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		for _, dir := range dirs {
			if strings.HasPrefix(filepath.Base(dir), "bare") {
				continue // without a head; see TestNewHead
			}
			t.Run(filepath.Base(dir), func(t *testing.T) {
				ck, cfg := goldentest.Open(t, dir)
				m, w := goldentest.Load(t, e, ck, cfg, len(cfg.Labels()))
				batch := filepath.Join(dir, "batch.safetensors")
				if len(ck.Shards()) > 1 {
					batch = filepath.Join(bases, "vit", "batch.safetensors") // the same model in one file
				}
				_, want := goldentest.Floats(t, batch, "logits")
				goldentest.Near(t, goldentest.Logits(t, m, w, nil, batch), want, 1e-4)
			})
		}
	})
}

// A checkpoint without a head loads only where a new one is wanted; the head follows from the seed.
func TestNewHead(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	ck, cfg := goldentest.Open(t, filepath.Join(bases, "bare"))
	m, err := model.New(cfg, 7)
	if err != nil {
		t.Fatal(err)
	}
	var misfit *model.LoadError
	if _, _, err := model.Load(e.Backend, ck, m, model.LoadOptions{}); !errors.As(err, &misfit) ||
		strings.Join(misfit.Missing, " ") != "classifier.weight classifier.bias" {
		t.Fatalf("loading without a head: %v", err)
	}
	head := func(seed uint64) []float32 {
		w, created, err := model.Load(e.Backend, ck, m, model.LoadOptions{NewHead: true, InitStd: 0.02, Seed: seed})
		if err != nil || !created {
			t.Fatal(created, err)
		}
		values, err := w.Values("classifier.weight")
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	first, again, other := head(1), head(1), head(2)
	var sum, squares float64
	differ := false
	for i, v := range first {
		if v != again[i] {
			t.Fatal("the same seed gave another head")
		}
		if math.Abs(float64(v)) > 0.04 {
			t.Errorf("weight %v lies beyond two standard deviations", v)
		}
		differ = differ || v != other[i]
		sum, squares = sum+float64(v), squares+float64(v)*float64(v)
	}
	if !differ {
		t.Error("another seed gave the same head")
	}
	n := float64(len(first))
	if std := math.Sqrt(squares/n - sum*sum/n/n); std < 0.014 || std > 0.021 {
		t.Errorf("standard deviation %v, want about 0.0176", std)
	}
}

func TestReplaceHead(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	ck, cfg := goldentest.Open(t, filepath.Join(bases, "vit"))
	m, err := model.New(cfg, 3)
	if err != nil {
		t.Fatal(err)
	}
	var misfit *model.LoadError
	if _, _, err := model.Load(e.Backend, ck, m, model.LoadOptions{NewHead: true}); !errors.As(err, &misfit) || len(misfit.Shapes) != 2 {
		t.Fatalf("loading a head of five labels for three: %v", err)
	}
	if _, created, err := model.Load(e.Backend, ck, m, model.LoadOptions{ReplaceHead: true}); err != nil || !created {
		t.Fatal(created, err)
	}
}

// Strict loading lists what is missing and what is not used.
func TestLoadListsDifferences(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	ck, cfg := goldentest.Open(t, filepath.Join(bases, "vit"))
	cfg.NumHiddenLayers++
	cfg.QKVBias = false
	m, err := model.New(cfg, len(cfg.Labels()))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = model.Load(e.Backend, ck, m, model.LoadOptions{})
	for _, want := range []string{"missing vit.encoder.layer.2.layernorm_before.weight", "unused vit.encoder.layer.0.attention.attention.key.bias"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if !errors.Is(err, format.ErrConfig) {
		t.Errorf("%v is not ErrConfig", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*format.ModelConfig){
		"type":   func(c *format.ModelConfig) { c.ModelType = "bert" },
		"heads":  func(c *format.ModelConfig) { c.NumAttentionHeads = 5 },
		"act":    func(c *format.ModelConfig) { c.HiddenAct = "swish" },
		"patch":  func(c *format.ModelConfig) { c.PatchSize = [2]int{32, 32} },
		"zero":   func(c *format.ModelConfig) { c.HiddenSize = 0 },
		"layers": func(c *format.ModelConfig) { c.NumHiddenLayers = 0 },
	} {
		cfg, err := format.ReadModelConfig(filepath.Join(bases, "vit"))
		if err != nil {
			t.Fatal(err)
		}
		change(cfg)
		if _, err := model.New(cfg, 5); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	cfg, _ := format.ReadModelConfig(filepath.Join(bases, "vit"))
	if _, err := model.New(cfg, 0); err == nil {
		t.Error("a model without labels: no error")
	}
}

// Batches beyond the predictor's size are cut, smaller ones padded; images do not influence each other.
func TestPredictorBatches(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		ck, cfg := goldentest.Open(t, filepath.Join(bases, "vit"))
		m, w := goldentest.Load(t, e, ck, cfg, len(cfg.Labels()))
		norm := model.Normalization{Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}}
		p, err := model.NewPredictor(m, w, nil, norm, 4)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		image := 16 * 16 * 3
		pixels := make([]byte, 9*image)
		for i := range pixels {
			pixels[i] = byte(i * i >> 3)
		}
		all, err := p.Logits(pixels, 9)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 9 {
			one, err := p.Logits(pixels[i*image:(i+1)*image], 1)
			if err != nil {
				t.Fatal(err)
			}
			for j, v := range one {
				if math.Abs(float64(v-all[i*5+j])) > 1e-5 {
					t.Errorf("image %d logit %d: %v alone, %v in a batch", i, j, v, all[i*5+j])
				}
			}
		}
		if _, err := p.Logits(pixels[1:], 9); err == nil {
			t.Error("a wrong number of bytes: no error")
		}
	})
}
