package adapters_test

import (
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/adapterstest"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
)

// conformance has the settings with which each method runs the suite.
var conformance = map[string][]adapterstest.Case{
	"ADALORA": {
		{Settings: `{"peft_type": "ADALORA", "init_r": 4, "lora_alpha": 6, "lora_dropout": 0.1, "total_step": 9}`},
		{Settings: `{"peft_type": "ADALORA", "init_r": 3, "lora_alpha": -1, "init_lora_weights": false, "total_step": 9}`, Changes: true},
	},
	"IA3": {
		{Settings: `{"peft_type": "IA3", "feedforward_modules": []}`},
		{Settings: `{"peft_type": "IA3", "feedforward_modules": ".*(output.dense|fc2|projection)"}`},
		{Settings: `{"peft_type": "IA3", "target_modules": ["query", "output.dense", "projection"], "feedforward_modules": ["output.dense", "projection"], "init_ia3_weights": false}`, Changes: true},
	},
	"LORA": {
		{Settings: `{"peft_type": "LORA", "r": 3, "lora_alpha": 5}`},
		{Settings: `{"peft_type": "LORA", "r": 3, "use_rslora": true, "lora_dropout": 0.1, "init_lora_weights": "gaussian"}`},
		{Settings: `{"peft_type": "LORA", "r": 3, "lora_bias": true, "exclude_modules": ["query"]}`},
		{Settings: `{"peft_type": "LORA", "r": 3, "init_lora_weights": false}`, Changes: true},
		{Settings: `{"peft_type": "LORA", "r": 4, "init_lora_weights": "orthogonal", "exclude_modules": ["projection"]}`},
		{Settings: `{"peft_type": "LORA", "r": 3, "rank_pattern": {"query": 2, "^vit.embeddings.*": 4}, "alpha_pattern": {"intermediate.dense": 2}}`},
		{Settings: `{"peft_type": "LORA", "r": 3, "use_dora": true, "lora_dropout": 0.1}`, Detached: true},
	},
	"LOHA": {
		{Settings: `{"peft_type": "LOHA", "r": 3, "alpha": 5}`},
		{Settings: `{"peft_type": "LOHA", "r": 2, "use_effective_conv2d": true, "rank_dropout": 0.5, "module_dropout": 0.5}`},
		{Settings: `{"peft_type": "LOHA", "r": 2, "init_weights": false, "rank_pattern": {"query": 4}}`, Changes: true},
	},
	"LOKR": {
		{Settings: `{"peft_type": "LOKR", "r": 4, "alpha": 6}`},
		{Settings: `{"peft_type": "LOKR", "r": 1, "decompose_both": true, "init_weights": "lycoris"}`},
		{Settings: `{"peft_type": "LOKR", "r": 1, "decompose_factor": 4, "use_effective_conv2d": true, "rank_dropout": 0.5, "rank_dropout_scale": true}`},
		{Settings: `{"peft_type": "LOKR", "r": 1, "init_weights": false, "module_dropout": 0.5}`, Changes: true},
	},
}

// Every registered method passes the suite.
func TestMethods(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		for _, method := range adapters.Methods() {
			if len(conformance[method]) == 0 {
				t.Errorf("%s has no settings to be tested with", method)
			}
			for _, c := range conformance[method] {
				t.Run(c.Settings, func(t *testing.T) { adapterstest.Run(t, e.Backend, c) })
			}
		}
	})
}
