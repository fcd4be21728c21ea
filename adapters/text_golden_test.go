package adapters_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/internal/goldentest"
)

// A textCase is case.json beside an adapter on a text model.
type textCase struct {
	Base       string            `json:"base"`
	Untie      bool              `json:"untie"`
	Merged     map[string]string `json:"merged"`
	MergedSafe map[string]string `json:"merged_safe"`
}

// openText opens a base without model code, and an adapter on it.
func openText(t *testing.T, base, adapter string) (*format.Checkpoint, *format.ModelConfig, *adapters.Adapter) {
	t.Helper()
	ck, cfg := goldentest.Open(t, base)
	b, err := adapters.CheckpointBase(cfg, ck, adapter)
	if err != nil {
		t.Fatal(err)
	}
	a, err := adapters.Load(adapter, b)
	if err != nil {
		t.Fatal(err)
	}
	return ck, cfg, a
}

// Models that hubtool knows nothing about merge to PEFT's files too: embeddings, weights stored
// transposed, heads saved whole, ranks above 192.
func TestMergeTextModels(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(golden, "text/adapters/*"))
	if err != nil || len(dirs) == 0 {
		t.Fatal("no golden adapters", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, "case.json"))
			if err != nil {
				t.Fatal(err)
			}
			var c textCase
			if err := json.Unmarshal(text, &c); err != nil {
				t.Fatal(err)
			}
			base := filepath.Join(golden, "text/bases", c.Base)
			for _, mode := range []struct {
				rounding adapters.Rounding
				want     map[string]string
			}{{adapters.RoundPEFT, c.Merged}, {adapters.RoundSafe, c.MergedSafe}} {
				ck, cfg, a := openText(t, base, dir)
				as, out := []*adapters.Adapter{a}, filepath.Join(t.TempDir(), "out")
				if c.Untie {
					if _, err := adapters.PlanMerge(ck, cfg, as, adapters.MergeOptions{}); !errors.Is(err, adapters.ErrTied) {
						t.Errorf("tied: %v", err)
					}
				}
				result, err := adapters.Merge(t.Context(), ck, cfg, as, out, adapters.MergeOptions{Rounding: mode.rounding, Untie: c.Untie})
				if err != nil {
					t.Fatal(err)
				}
				if len(result.Shards) != len(mode.want) {
					t.Errorf("%d shards, want %d", len(result.Shards), len(mode.want))
				}
				for _, shard := range result.Shards {
					if shard.SHA256 != mode.want[shard.Name] {
						t.Errorf("rounding %d: %s differs from PEFT's", mode.rounding, shard.Name)
					}
				}
				merged, err := format.ReadModelConfig(out)
				if err != nil {
					t.Fatal(err)
				}
				if tied, _ := merged.TiedEmbeddings(); c.Untie && tied {
					t.Error("the config still ties embeddings")
				}
				if text, err := os.ReadFile(filepath.Join(out, "generation_config.json")); err != nil || !strings.Contains(string(text), "eos_token_id") {
					t.Error("generation_config.json is missing", err)
				}
			}
		})
	}
}
