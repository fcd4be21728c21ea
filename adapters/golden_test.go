package adapters_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/internal/goldentest"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
)

const golden = "../testdata/golden"

// A goldenCase is case.json beside an adapter that PEFT wrote.
type goldenCase struct {
	dir        string
	Base       string   `json:"base"`
	Modules    []string `json:"modules"`
	Trainable  int      `json:"trainable_parameters"`
	All        int      `json:"all_parameters"`
	Merged     *hashes  `json:"merged"`
	MergedSafe *hashes  `json:"merged_safe"`
}

type hashes struct {
	SHA256 map[string]string `json:"sha256"`
}

// refused lists the golden adapters that hubtool refuses by name, with a word of the message.
var refused = map[string]string{
	"lora/pissa": "pissa",
	"lora/olora": "olora",
}

func cases(t *testing.T) map[string]goldenCase {
	t.Helper()
	all := map[string]goldenCase{}
	dirs, err := filepath.Glob(filepath.Join(golden, "*", "*", "adapter_config.json"))
	if err != nil || len(dirs) == 0 {
		t.Fatal("no golden adapters", err)
	}
	for _, path := range dirs {
		dir := filepath.Dir(path)
		name, _ := filepath.Rel(golden, dir)
		if strings.HasPrefix(name, "training") {
			continue
		}
		c := goldenCase{dir: dir}
		text, err := os.ReadFile(filepath.Join(dir, "case.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		all[name] = c
	}
	return all
}

// loaded is a golden adapter on its base.
type loaded struct {
	checkpoint *format.Checkpoint
	config     *format.ModelConfig
	model      model.Model
	weights    *model.Weights
	adapter    *adapters.Adapter
}

func load(t *testing.T, e *engine.Engine, dir, base string) loaded {
	t.Helper()
	l, err := tryLoad(t, e, dir, base)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryLoad(t *testing.T, e *engine.Engine, dir, base string) (l loaded, err error) {
	t.Helper()
	l.checkpoint, l.config = goldentest.Open(t, filepath.Join(golden, "bases", base))
	l.model, l.weights = goldentest.Load(t, e, l.checkpoint, l.config, 5)
	l.adapter, err = adapters.Load(dir, train.Base(l.model, l.weights))
	return l, err
}

func eachCase(t *testing.T, test func(t *testing.T, name string, c goldenCase)) {
	for name, c := range cases(t) {
		if refused[name] == "" && refused[filepath.Dir(name)] == "" {
			t.Run(name, func(t *testing.T) { test(t, name, c) })
		}
	}
}

func goEngine(t *testing.T) *engine.Engine {
	t.Helper()
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// PEFT's adapters select the same modules here, count the same and give the same logits.
func TestLoadsPEFT(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		eachCase(t, func(t *testing.T, name string, c goldenCase) {
			l := load(t, e, c.dir, c.Base)
			var modules []string
			for _, target := range l.adapter.Targets {
				modules = append(modules, format.Spell("vit", target.Name, format.Transformers5))
			}
			slices.Sort(modules)
			if slices.Sort(c.Modules); !slices.Equal(modules, c.Modules) {
				t.Errorf("targets\n got %q\nwant %q", modules, c.Modules)
			}
			trainable, all := l.adapter.Count()
			switch name {
			case "adalora/bf16": // PEFT counts ranknum as trained where it widens a half-precision base
				trainable += len(c.Modules)
			case "adalora/pruned": // counted before the ranks went
				trainable, all = c.Trainable, c.All
			}
			if trainable != c.Trainable || all != c.All {
				t.Errorf("%d of %d parameters, want %d of %d", trainable, all, c.Trainable, c.All)
			}
			goldentest.Near(t, logits(t, l), values(t, filepath.Join(c.dir, "logits.safetensors"), "logits"), 1e-4)
		})
	})
}

// A merge has every byte of PEFT's: SHA-256 of whole files.
func TestMergeEqualsPEFT(t *testing.T) {
	e := goEngine(t)
	eachCase(t, func(t *testing.T, name string, c goldenCase) {
		for _, mode := range []struct {
			rounding adapters.Rounding
			want     *hashes
		}{{adapters.RoundPEFT, c.Merged}, {adapters.RoundSafe, c.MergedSafe}} {
			if mode.want == nil {
				continue
			}
			l := load(t, e, c.dir, c.Base)
			out := filepath.Join(t.TempDir(), "merged")
			labels := l.config.Labels()
			result, err := adapters.Merge(context.Background(), l.checkpoint, l.config, []*adapters.Adapter{l.adapter}, out,
				adapters.MergeOptions{Rounding: mode.rounding, Labels: labels})
			if err != nil {
				t.Fatal(err)
			}
			for _, shard := range result.Shards {
				if shard.SHA256 != mode.want.SHA256[shard.Name] {
					t.Errorf("rounding %d: %s differs from PEFT's", mode.rounding, shard.Name)
				}
			}
			if len(result.Shards) != len(mode.want.SHA256) {
				t.Errorf("%d shards, want %d", len(result.Shards), len(mode.want.SHA256))
			}
			if _, err := format.ReadModelConfig(out); err != nil {
				t.Error(err)
			}
		}
	})
}

// A saved adapter gives the same logits when it is loaded again, whichever names it has.
func TestSaveAndLoad(t *testing.T) {
	e := goEngine(t)
	eachCase(t, func(t *testing.T, _ string, c goldenCase) {
		l := load(t, e, c.dir, c.Base)
		want := logits(t, l)
		for _, names := range []format.Names{format.Transformers5, format.Transformers4, format.BothNames} {
			dir := t.TempDir()
			if err := l.adapter.Save(context.Background(), dir, names); err != nil {
				t.Fatal(err)
			}
			again := load(t, e, dir, c.Base)
			if len(again.adapter.Notes) > len(l.adapter.Notes) {
				t.Errorf("%s: %q", names, again.adapter.Notes)
			}
			goldentest.Near(t, logits(t, again), want, 0)
		}
	})
}

// What hubtool cannot do is refused by name before anything is computed.
func TestRefusesMethods(t *testing.T) {
	e := goEngine(t)
	for name, c := range cases(t) {
		want := refused[name]
		if want == "" {
			want = refused[filepath.Dir(name)]
		}
		if want == "" {
			continue
		}
		if _, err := tryLoad(t, e, c.dir, c.Base); !errors.Is(err, adapters.ErrMethod) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want ErrMethod naming %s", name, err, want)
		}
	}
}

func logits(t *testing.T, l loaded) []float32 {
	t.Helper()
	attach, err := train.Attach(l.weights, l.adapter)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Base(l.checkpoint.Path())
	if base == "vit-sharded" {
		base = "vit"
	}
	return goldentest.Logits(t, l.model, l.weights, attach, filepath.Join(golden, "bases", base, "batch.safetensors"))
}

func values(t *testing.T, path, name string) []float32 {
	t.Helper()
	_, v := goldentest.Floats(t, path, name)
	return v
}
