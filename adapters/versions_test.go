package adapters_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model"
)

// since lists the keys of adapter_config.json by the minor release of PEFT 0.x that began to write them.
var since = map[int][]string{
	6:  {"rank_pattern", "alpha_pattern"},
	7:  {"megatron_config", "megatron_core", "loftq_config"},
	8:  {"use_rslora"},
	9:  {"use_dora"},
	10: {"layer_replication"},
	14: {"exclude_modules", "lora_bias", "eva_config", "rank_dropout_scale"},
	15: {"corda_config", "trainable_token_indices"},
	16: {"use_qalora", "qalora_group_size"},
	17: {"target_parameters"},
	18: {"peft_version", "alora_invocation_tokens", "arrow_config", "ensure_weight_tying"},
	19: {"lora_ga_config", "use_bdlora"},
	20: {"velora_config", "monteclora_config"},
	21: {"kasa_config"},
}

// Files of every PEFT since 0.4, with the keys that it wrote, are read with the same numbers, and so are
// those of one that is yet to come.
func TestReadsEveryVersion(t *testing.T) {
	cfg, err := format.ReadModelConfig(filepath.Join(golden, "bases", "vit"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.New(cfg, len(cfg.Labels()))
	if err != nil {
		t.Fatal(err)
	}
	base := train.Base(m, nil)
	for name, first := range map[string]int{"lora/classifier": 4, "lora/rslora": 8, "dora/classifier": 9, "loha/classifier": 6, "lokr/whole": 6, "adalora/whole": 4, "ia3/key-value": 4} {
		whole, err := adapters.Load(filepath.Join(golden, name), base)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(golden, name, format.AdapterConfigFile))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := os.ReadFile(filepath.Join(golden, name, adapters.File))
		if err != nil {
			t.Fatal(err)
		}
		for minor := first; minor <= 22; minor++ {
			var keys map[string]any
			if err := json.Unmarshal(text, &keys); err != nil {
				t.Fatal(err)
			}
			for release, names := range since {
				for _, key := range names {
					if release > minor {
						delete(keys, key)
					}
				}
			}
			if _, ok := keys["peft_version"]; ok {
				keys["peft_version"] = fmt.Sprintf("0.%d.0", minor)
			}
			notes := 0
			if minor == 22 {
				keys["quantum_config"], notes = nil, 1
			}
			if name == "lokr/whole" && minor < 14 {
				notes++ // its scale was not applied then
			}
			dir := t.TempDir()
			old, err := json.Marshal(keys)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, format.AdapterConfigFile), old, 0o644)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, adapters.File), stored, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			a, err := adapters.Load(dir, base)
			if err != nil {
				t.Errorf("%s of PEFT 0.%d: %v", name, minor, err)
				continue
			}
			if len(a.Notes) != notes {
				t.Errorf("%s of PEFT 0.%d: notes %q, want %d", name, minor, a.Notes, notes)
			}
			for i, p := range a.Params() {
				if !slices.Equal(p.Values, whole.Params()[i].Values) {
					t.Errorf("%s of PEFT 0.%d: %s differs", name, minor, p.Name)
				}
			}
			for i, target := range a.Targets {
				if w := whole.Targets[i]; target.Rank != w.Rank || target.Alpha != w.Alpha {
					t.Errorf("%s of PEFT 0.%d: %s has rank %d and alpha %v", name, minor, target.Name, target.Rank, target.Alpha)
				}
			}
		}
	}
}
