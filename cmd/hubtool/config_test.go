package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters/train"
)

// readConfig loads a config text and flags as "hubtool train" would.
func readConfig(t *testing.T, name, text string, flags ...string) (*Config, error) {
	t.Helper()
	path := ""
	if name != "" {
		path = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	e := newEnv(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	var cfg *Config
	app := &cli.App{
		Flags: e.configFlags(),
		Action: func(*cli.Context) (err error) {
			cfg, err = e.loadConfig(path)
			return err
		},
		Writer: io.Discard, ErrWriter: io.Discard, ExitErrHandler: func(*cli.Context, error) {},
	}
	err := app.Run(append([]string{"train"}, flags...))
	return cfg, err
}

const small = "model: m\ndataset: {path: d}\ntraining: {output_dir: out}\n"

func TestFullConfig(t *testing.T) {
	text, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(t, "full.yaml", string(text))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Model != "google/vit-base-patch16-224-in21k" || cfg.Dataset.TrainSplit != "train[:5000]" || cfg.Dataset.TestSize != 0.1 ||
		cfg.Training.LearningRate != 0.005 || cfg.Training.AdamEpsilon != 1e-8 || cfg.Training.FP16 != "true" ||
		cfg.Training.SaveTotalLimit != 2 || cfg.Training.ResumeFromCheckpoint != "" {
		t.Errorf("read %+v", cfg)
	}
	want := `{"peft_type": "LORA", "r": 16, "lora_alpha": 16, "target_modules": ["query","value"], "lora_dropout": 0.1, "bias": "none", "modules_to_save": ["classifier"]}`
	if got := string(cfg.Adapter.JSON()); got != want {
		t.Errorf("adapter keys:\n got %s\nwant %s", got, want)
	}
	if !json.Valid(cfg.Adapter.JSON()) {
		t.Error("the adapter keys are not JSON")
	}
	steps := cfg.Transforms.Train.([]any)
	if !reflect.DeepEqual(steps[0], map[string]any{"RandomResizedCrop": 224}) || steps[1] != "RandomHorizontalFlip" {
		t.Errorf("transforms: %v", steps)
	}
}

// What Encode writes must read back as the same settings, and be stable.
func TestEncodeRoundTrip(t *testing.T) {
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	odd := small + "adapter: {peft_type: lokr, alpha: 1.5, target_modules: '.*\\.(query|value)$', rank_pattern: {b: 4, a: 8}, init_weights: true, modules_to_save: ['true', '1']}\n"
	for _, text := range []string{string(full), small, odd} {
		cfg, err := readConfig(t, "a.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		first, err := cfg.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := readConfig(t, "run.yaml", string(first))
		if err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
		second, err := again.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if string(first) != string(second) || string(cfg.Adapter.JSON()) != string(again.Adapter.JSON()) || !reflect.DeepEqual(cfg.Training, again.Training) {
			t.Errorf("written:\n%s\nread back and written:\n%s", first, second)
		}
	}
}

func TestConfigIsOverriddenByFlags(t *testing.T) {
	tests := []struct {
		flags []string
		check func(*Config) bool
	}{
		{[]string{"--training.learning-rate=1.0e-8"}, func(c *Config) bool { return c.Training.LearningRate == 1e-8 }},
		{[]string{"--learning-rate=1e-8"}, func(c *Config) bool { return c.Training.LearningRate == 1e-8 }},
		{[]string{"--epochs=2", "--training.num-train-epochs=4"}, func(c *Config) bool { return c.Training.NumTrainEpochs == 4 }},
		{[]string{"--batch-size=3"}, func(c *Config) bool {
			return c.Training.PerDeviceTrainBatchSize == 3 && c.Training.PerDeviceEvalBatchSize == 3
		}},
		{[]string{"--rank=4", "--alpha=8"}, adapterIs(`{"peft_type": "LORA", "r": 4, "lora_alpha": 8}`)},
		{[]string{"--rank=4", "--alpha=8", "--method=loha"}, adapterIs(`{"peft_type": "LOHA", "r": 4, "alpha": 8}`)},
		{[]string{"--rank=4", "--method=adalora"}, adapterIs(`{"peft_type": "ADALORA", "init_r": 4}`)},
		{[]string{"--method=dora"}, adapterIs(`{"peft_type": "LORA", "use_dora": true}`)},
		{[]string{"--target-modules=query, value"}, adapterIs(`{"peft_type": "LORA", "target_modules": ["query","value"]}`)},
		{[]string{"--target-modules=all-linear"}, adapterIs(`{"peft_type": "LORA", "target_modules": "all-linear"}`)},
		{[]string{"--target-modules=dummy-target-modules"}, adapterIs(`{"peft_type": "LORA", "target_modules": "dummy-target-modules"}`)},
		{[]string{`--target-modules=.*\.query`}, adapterIs(`{"peft_type": "LORA", "target_modules": ".*\\.query"}`)},
		{[]string{"--target-modules=[query]"}, adapterIs(`{"peft_type": "LORA", "target_modules": ["query"]}`)},
		{[]string{`--adapter.rank-pattern={"b": 4, "a": 2}`}, adapterIs(`{"peft_type": "LORA", "rank_pattern": {"b": 4, "a": 2}}`)},
		{[]string{"--adapter.use-rslora"}, adapterIs(`{"peft_type": "LORA", "use_rslora": true}`)},
		{[]string{"--adapter.names=both"}, func(c *Config) bool { return c.Adapter.Names == "both" }},
		{[]string{"--precision=bf16"}, func(c *Config) bool { return c.Training.BF16 == "true" && c.Training.FP16 == "false" }},
		{[]string{"--training.fp16=auto"}, func(c *Config) bool { return c.Training.FP16 == "auto" }},
		{[]string{"--resume"}, func(c *Config) bool { return c.Training.ResumeFromCheckpoint == "true" }},
		{[]string{"--resume=ck"}, func(c *Config) bool { return c.Training.ResumeFromCheckpoint == "ck" }},
		{[]string{"--push"}, func(c *Config) bool { return c.Training.PushToHub }},
		{[]string{"--training.load-best-model-at-end=false"}, func(c *Config) bool { return !c.Training.LoadBestModelAtEnd }},
		{[]string{"--transforms.eval=[{Resize: 8}, ToTensor]"}, func(c *Config) bool {
			return reflect.DeepEqual(c.Transforms.Eval, []any{map[string]any{"Resize": 8}, "ToTensor"})
		}},
		{[]string{"--dataset.classes", "no, yes"}, func(c *Config) bool { return slices.Equal(c.Dataset.Classes, []string{"no", "yes"}) }},
		{[]string{"--dataset.classes=[no, 1]"}, func(c *Config) bool { return slices.Equal(c.Dataset.Classes, []string{"no", "1"}) }},
		{[]string{"--dataset.eval-split=test"}, func(c *Config) bool { return c.Dataset.EvalSplit == "test" && c.Dataset.TestSize == 0 }},
	}
	for _, tt := range tests {
		cfg, err := readConfig(t, "c.yaml", small, tt.flags...)
		if err != nil || !tt.check(cfg) {
			t.Errorf("%q: %+v, error %v", tt.flags, cfg, err)
		}
	}
}

func adapterIs(want string) func(*Config) bool {
	return func(c *Config) bool { return string(c.Adapter.JSON()) == want }
}

func TestConfigReadsJSON(t *testing.T) {
	cfg, err := readConfig(t, "c.json", "{\n\t\"model\": \"m\",\n\t\"dataset\": {\"path\": \"d\"},\n\t\"training\": {\"output_dir\": \"o\", \"learning_rate\": 1e-3}\n}")
	if err != nil || cfg.Training.LearningRate != 1e-3 {
		t.Fatalf("%+v, %v", cfg, err)
	}
	if _, err := readConfig(t, "c.json", "model: m"); !errors.Is(err, errUsage) {
		t.Errorf("YAML in a .json file: %v", err)
	}
}

func TestConfigWarmupRatio(t *testing.T) {
	cfg, err := readConfig(t, "c.yaml", strings.Replace(small, "output_dir: out", "output_dir: out, warmup_ratio: 0.25", 1))
	if err != nil || cfg.Training.WarmupSteps != 0.25 {
		t.Fatalf("%+v, %v", cfg, err)
	}
}

// Whatever TrainingArguments.report_to takes is understood, and what hubtool cannot report to is refused.
func TestReportTo(t *testing.T) {
	tests := []struct {
		text string // of the file
		flag string
		want Reports
		err  string
	}{
		{text: "tensorboard", want: Reports{"tensorboard"}},
		{text: "[tensorboard]", want: Reports{"tensorboard"}},
		{text: "all", want: Reports{"tensorboard"}},
		{text: "[all]", want: Reports{"tensorboard"}},
		{text: "none"},
		{text: "[none]"},
		{text: "[]"},
		{text: "null"},
		{flag: "tensorboard", want: Reports{"tensorboard"}},
		{flag: "[tensorboard]", want: Reports{"tensorboard"}},
		{flag: "all", want: Reports{"tensorboard"}},
		{text: "tensorboard", flag: "none"},
		{text: "[tensorboard, wandb]", err: `training.report_to is "wandb", but must be tensorboard, all or none: reports go to output_dir, and to no service`},
		{flag: "mlflow,tensorboard", err: `training.report_to is "mlflow"`},
		{text: "[none, tensorboard]", err: "training.report_to is none, tensorboard, but none must stand alone"},
		{flag: "all,tensorboard", err: "but all must stand alone"},
		{text: "TensorBord", err: `did you mean "tensorboard"?`},
		{text: "no", err: `training.report_to is "no"`},
		{text: "{tensorboard: true}", err: "training.report_to is a mapping, but must be a list of plain names"},
	}
	for _, tt := range tests {
		text, flags := small, []string{}
		if tt.text != "" {
			text = strings.Replace(small, "output_dir: out", "output_dir: out, report_to: "+tt.text, 1)
		}
		if tt.flag != "" {
			flags = append(flags, "--training.report-to="+tt.flag)
		}
		cfg, err := readConfig(t, "c.yaml", text, flags...)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q %q: error %v lacks %q", tt.text, tt.flag, err, tt.err)
			}
		case err != nil || !slices.Equal(cfg.Training.ReportTo, tt.want):
			t.Errorf("%q %q: %+v, error %v", tt.text, tt.flag, cfg, err)
		}
	}
}

// Every wrong thing is named, with its line and the nearest valid name.
func TestConfigProblems(t *testing.T) {
	tests := []struct {
		name, text string
		flags      []string
		want       []string
	}{
		{"all at once", "modle: m\ndataset:\n  path: d\n  nmae: x\ntraining:\n  lerning_rate: 1\n  max_steps: many\n  output_dir: o\n", nil, []string{
			`line 1: unknown key "modle", did you mean "model"?`,
			`line 4: unknown key "dataset.nmae", did you mean "name"?`,
			`line 6: unknown key "training.lerning_rate", did you mean "learning_rate"?`,
			`line 7: training.max_steps is "many", but must be a whole number`,
			`model is not set: name the base model, in the file or with --model`,
		}},
		{"key of another section", small + "learning_rate: 1\nlora_alpha: 3\n", nil, []string{
			`line 4: unknown key "learning_rate", did you mean "training.learning_rate"?`,
			`line 5: unknown key "lora_alpha", did you mean "adapter.lora_alpha"?`,
		}},
		{"nothing like it", small + "zzzzzz: 1\n", nil, []string{`line 4: unknown key "zzzzzz"`}},
		{"wrong shapes", "model: [m]\ndataset: d\ntraining: {output_dir: o, seed: -1, learning_rate: .nan, load_best_model_at_end: 2, fp16: maybe}\n", nil, []string{
			`line 1: model is a list, but must be text`,
			`line 2: dataset is "d", but must be keys with values`,
			`line 3: training.seed is "-1", but must be a whole number, zero or more`,
			`line 3: training.learning_rate is ".nan", but must be a number`,
			`line 3: training.load_best_model_at_end is "2", but must be true or false`,
			`line 3: training.fp16 is "maybe", but must be true, false or auto`,
			`model is not set: name the base model, in the file or with --model`,
			`dataset.path is not set: name the data set, in the file or with --dataset`,
		}},
		{"twice", small + "model: n\n", nil, []string{`line 4: model is given twice`}},
		{"classes", "model: m\ndataset: {path: d, classes: cat}\ntraining: {output_dir: o}\n", nil, []string{`line 2: dataset.classes is "cat", but must be a list of plain names`}},
		{"nested classes", "model: m\ndataset: {path: d, classes: [[cat]]}\ntraining: {output_dir: o}\n", nil, []string{`line 2: dataset.classes is a list, but must be a list of plain names`}},
		{"twice by its old name", "model: m\ndataset: {path: d}\ntraining: {output_dir: o, warmup_steps: 1, warmup_ratio: 0.5}\n", nil, []string{`line 3: training.warmup_steps and training.warmup_ratio are one setting: give only one`}},
		{"fields of TrainingArguments", "model: m\ndataset: {path: d}\ntraining: {output_dir: o, optim: adafactor, label_names: [labels], dataloader_drop_last: True,\n  optim_args: null, data_seed: 3, torch_compile: off, include_for_metrics: [], dataloader_pin_memory: true, hub_strategy: END, hub_token: hf_x}\n", nil, []string{
			`line 3: training.optim is "adafactor", but must be adamw_torch, adamw_torch_fused or left out: AdamW is the optimizer there is`,
			`line 3: training.label_names is a list, but must be left out: dataset.label_column names the label`,
			`line 3: training.dataloader_drop_last is "True", but must be false or left out: the last batch of an epoch is trained on, however small`,
			`line 4: training.data_seed is "3", but must be left out: seed decides the order of the images, too`,
			`line 4: training.hub_token must be left out: a secret does not belong into a config: "hubtool login", HF_TOKEN and --token-file keep it out`,
		}},
		{"names of short flags", small + "adapter: {rank: 4}\n", nil, []string{`line 4: unknown key "adapter.rank", did you mean "adapter.r"?`}},
		{"not a mapping", "- 1\n", nil, []string{
			`line 1: the file is a list, but must be keys with values`,
			`model is not set: name the base model, in the file or with --model`,
			`dataset.path is not set: name the data set, in the file or with --dataset`,
			`training.output_dir is not set: name the folder for the adapter, in the file or with --out`,
		}},
		{"adapter", small + "adapter:\n  peft_type: LORA\n  r: 16.0\n  lora_dropout: 1\n  lora_alfa: 3\n  target_modules: 5x\n  modules_to_save: classifier\n  bias: some\n  peft_version: 1\n  names: transformers\n", nil, []string{
			`line 6: adapter.r is "16.0", but must be a whole number, 1 or more`,
			`line 7: adapter.lora_dropout is "1", but must be a number from 0 to below 1`,
			`line 8: unknown key "adapter.lora_alfa", did you mean "lora_alpha"?`,
			`line 10: adapter.modules_to_save is "classifier", but must be a list of names`,
			`line 12: adapter.peft_version is "1", but must be left out: train writes it`,
			`adapter.names is "transformers", but must be one of transformers5, transformers4, both, did you mean "transformers4"?`,
			`adapter.bias is "some", but must be one of none, all, lora_only`,
		}},
		{"key of another method", small + "adapter: {peft_type: LOHA, lora_alpha: 16}\n", nil, []string{
			`adapter.lora_alpha does nothing: LOHA has no such key`,
		}},
		{"unknown method", small + "adapter: {peft_type: LORAX}\n", nil, []string{
			`adapter.peft_type is "LORAX", but must be one of LORA, ADALORA, LOHA, LOKR or IA3, did you mean "LORA"?`,
		}},
		{"flags", small, []string{"--rank=x", "--training.max-steps=y", "--precision=int4", "--transforms.train=[", "--adapter.lora-dropout=2"}, []string{
			`--precision is "int4", but must be fp32, fp16, bf16 or auto`,
			`--training.max-steps is "y", but must be a whole number`,
			`--transforms.train is "[", but must be valid YAML`,
			`--adapter.lora-dropout is "2", but must be a number from 0 to below 1`,
			`--rank is "x", but must be a whole number, 1 or more`,
		}},
		{"rank of a method without", small, []string{"--method=ia3", "--rank=4"}, []string{
			`--rank does nothing: IA3 has no such setting`,
			`adapter: feedforward_modules is missing: name the target modules whose inputs are scaled, or set it to [] for none`,
		}},
		{"a key that PEFT's class has and does not obey", small, []string{"--method=adalora", "--adapter.use-rslora"}, []string{`adapter: use_rslora does nothing for AdaLoRA`}},
		{"a rank that AdaLoRA has not", small + "adapter: {peft_type: ADALORA, r: 4}\n", nil, []string{`adapter: r does nothing for AdaLoRA, whose ranks are init_r and target_r`}},
		{"patterns that AdaLoRA has not", small + "adapter: {peft_type: ADALORA, alpha_pattern: {query: 2}}\n", nil, []string{`adapter: alpha_pattern does nothing for AdaLoRA`}},
		{"layers that IA3 cannot choose", small + "adapter: {peft_type: IA3, feedforward_modules: [], layers_to_transform: [1]}\n", nil, []string{`adapter.layers_to_transform does nothing: IA3 has no such key`}},
		{"data of another initialisation", small + "adapter: {eva_config: {rho: 2}}\n", nil, []string{`adapter: eva_config does nothing for LoRA`}},
		{"a penalty of no method", small, []string{"--training.orthogonality-penalty"}, []string{`training.orthogonality_penalty does nothing: LORA has none`}},
		{"a weight of no penalty", small + "adapter: {peft_type: ADALORA, orth_reg_weight: 0.1}\n", nil, []string{`adapter.orth_reg_weight does nothing: training.orthogonality_penalty is false`}},
		{"idle keys", "model: m\ndataset: {path: d, eval_split: test, test_size: 0.5}\ntraining: {output_dir: o, hub_model_id: a/b, eval_steps: 7, fp16: true, bf16: true}\n", nil, []string{
			`dataset.eval_split and dataset.test_size exclude each other`,
			`training.fp16 and training.bf16 exclude each other`,
			`training.eval_steps does nothing: eval_strategy is epoch`,
			`training.hub_model_id does nothing: push_to_hub is false`,
		}},
		{"idle without evaluation, and with a constant rate", "model: m\ndataset: {path: d}\ntraining: {output_dir: o, eval_strategy: no, metric_for_best_model: loss, lr_scheduler_type: constant, warmup_steps: 3}\n", nil, []string{
			`training.metric_for_best_model does nothing: eval_strategy is no`,
			`training.warmup_steps does nothing: lr_scheduler_type constant has no warm-up, constant_with_warmup has`,
		}},
		{"ranges of train.Config", "model: m\ndataset: {path: d}\ntraining: {output_dir: o, learning_rate: -1, eval_strategy: never}\n", nil, []string{
			`training.learning_rate is -1, but must be positive`,
			`training.eval_strategy is never, but must be no, steps or epoch`,
		}},
		{"not in this version", "model: m\ndataset: {path: d}\ntraining: {output_dir: o, report_to: wandb}\n", nil, []string{
			`training.report_to is "wandb", but must be tensorboard, all or none: reports go to output_dir, and to no service`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readConfig(t, "c.yaml", tt.text, tt.flags...)
			var p *problemError
			if !errors.As(err, &p) || !errors.Is(err, errUsage) {
				t.Fatalf("error %v, want one about usage", err)
			}
			if !slices.Equal(p.problems, tt.want) {
				t.Errorf("problems:\n  %s\nwant:\n  %s", strings.Join(p.problems, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

func TestConfigTransformProblems(t *testing.T) {
	_, err := readConfig(t, "c.yaml", small+"transforms: {train: [ToTensr], eval: 3}\nzzz: 1\n")
	for _, want := range []string{`unknown key "zzz"`, "transforms.train: ", "did you mean \"ToTensor\"?", "transforms.eval: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestConfigIsNotYAML(t *testing.T) {
	for _, text := range []string{"a: [", "\tmodel: m", "\x00", "model: *nothing"} {
		if _, err := readConfig(t, "c.yaml", text); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := readConfig(t, "c.yaml", ""); err == nil || !strings.Contains(err.Error(), "model is not set") {
		t.Errorf("an empty file: %v", err)
	}
}

// A key without a flag, or two keys with one flag, would be a hole in the contract.
func TestEveryKeyIsAFlag(t *testing.T) {
	e := newEnv(streams{})
	seen := map[string]bool{}
	for _, f := range e.configFlags() {
		if name := f.Names()[0]; seen[name] {
			t.Errorf("flag --%s exists twice", name)
		}
		seen[f.Names()[0]] = true
	}
	for _, f := range defaultConfig().fields() {
		if !seen[kebab(f.key)] {
			t.Errorf("%s is not a flag", f.key)
		}
	}
	for _, name := range strings.Fields("model dataset method rank alpha target-modules epochs batch-size learning-rate precision seed out resume push") {
		if !seen[name] {
			t.Errorf("--%s is missing", name)
		}
	}
}

// What decides the bytes of a run is compared where one is resumed: every key is in train.Config, which
// looks after itself, in recipeKeys, compared by what it leads to, or here.
func TestRecipeHasEveryKey(t *testing.T) {
	byContent := strings.Fields("model dataset.path dataset.streaming dataset.buffer_size dataset.prepared dataset.feature_cache " +
		"transforms.train transforms.eval training.fp16 training.bf16 training.orthogonality_penalty training.ignore_mismatched_sizes")
	free := strings.Fields("dataset.skip_broken dataset.eval_cache dataset.cache_size training.resume_from_checkpoint " +
		"training.push_to_hub training.hub_model_id training.hub_private_repo training.report_to")
	inTrain := reflect.TypeFor[train.Config]()
	known := slices.Concat(recipeKeys, byContent, free)
	for i := range inTrain.NumField() {
		known = append(known, "training."+inTrain.Field(i).Tag.Get("yaml"))
	}
	var all []string
	for _, f := range defaultConfig().fields() {
		if all = append(all, f.key); !slices.Contains(known, f.key) {
			t.Errorf("%s may change where a run is resumed, and nobody has said so", f.key)
		}
	}
	for _, key := range known {
		if !slices.Contains(all, key) {
			t.Errorf("there is no key %s", key)
		}
	}
}
