package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/internal/nearest"
	"github.com/hubtool/hubtool/model/vision"
)

// Config is everything a training run can be told: the YAML or JSON file, and the flags made from
// it in configflags.go. A key exists once, here or in train.Config.
type Config struct {
	Model      string        `yaml:"model" usage:"base model: a local directory or a repository"`
	Dataset    DatasetConfig `yaml:"dataset"`
	Transforms Transforms    `yaml:"transforms"`
	Adapter    AdapterKeys   `yaml:"adapter"`
	Training   Training      `yaml:"training"`
}

// Transforms are lists of torchvision's transforms, such as [{Resize: 224}, ToTensor]; nil is the
// default list.
type Transforms struct {
	Train any `yaml:"train" usage:"transforms of training images, as YAML"`
	Eval  any `yaml:"eval" usage:"transforms of evaluation images, as YAML"`
}

// Training is train.Config and what the program does around a run.
type Training struct {
	train.Config `yaml:",inline"`

	FP16                  Half     `yaml:"fp16" usage:"float16 products and a scaled loss: true, false, or auto for where it is faster"`
	BF16                  Half     `yaml:"bf16" usage:"bfloat16 products: true, false, or auto for where it is faster"`
	TF32                  Half     `yaml:"tf32" usage:"products of float32 in TF32 on a GPU: true, false, or auto for the plugin's default, which is true"`
	FullDeterminism       bool     `yaml:"full_determinism" usage:"the same bits every time on a GPU, too; slower"`
	OrthogonalityPenalty  bool     `yaml:"orthogonality_penalty" usage:"add ADALORA's penalty, weighted by orth_reg_weight, to the loss; PEFT does not for image classifiers"`
	InitAdapter           string   `yaml:"init_adapter" usage:"start from the weights of this adapter"`
	IgnoreMismatchedSizes bool     `yaml:"ignore_mismatched_sizes" usage:"replace a classifier head of another size in the base"`
	ResumeFromCheckpoint  AutoPath `yaml:"resume_from_checkpoint" usage:"true for the newest in output_dir, or a checkpoint's path"`
	PushToHub             bool     `yaml:"push_to_hub" usage:"push output_dir when done"`
	HubModelID            string   `yaml:"hub_model_id" usage:"repository to push to; default: the name of output_dir"`
	HubPrivateRepo        bool     `yaml:"hub_private_repo" usage:"make the repository private when push_to_hub creates it"`
	ReportTo              Reports  `yaml:"report_to" usage:"tensorboard for event files in output_dir/runs beside the report; all for whatever there is, which is the same; none"`
}

// Half switches a half precision: "false", "true", or "auto" for where the engine has it.
type Half string

// UnmarshalText accepts the three words and YAML's other spellings of true and false.
func (h *Half) UnmarshalText(text []byte) error {
	if b, ok := parseBool(string(text)); ok {
		*h = Half(fmt.Sprint(b))
		return nil
	}
	if *h = Half(strings.ToLower(string(text))); *h != "auto" {
		return errors.New("true, false or auto")
	}
	return nil
}

// Reports are the integrations that a run's log goes to, one or a list of them in the file. "none" and "all" stand alone.
type Reports []string

// UnmarshalText takes the name of one.
func (r *Reports) UnmarshalText(text []byte) error {
	*r = Reports{string(text)}
	return nil
}

// resolve says what is meant by none and by all, or what is wrong.
func (r Reports) resolve() (Reports, []string) {
	has := []string{"tensorboard"}
	switch {
	case slices.Equal(r, Reports{"none"}):
		return nil, nil
	case slices.Equal(r, Reports{"all"}):
		return has, nil
	}
	var p []string
	for _, name := range r {
		switch {
		case name == "none" || name == "all":
			p = append(p, fmt.Sprintf("training.report_to is %s, but %s must stand alone", strings.Join(r, ", "), name))
		case !slices.Contains(has, name):
			p = append(p, fmt.Sprintf("training.report_to is %q, but must be tensorboard, all or none%s: %s", name, nearest.DidYouMean(name, has), ofServices))
		}
	}
	return r, p
}

// AutoPath is a path, "true" for "find it yourself", or "" for none.
type AutoPath string

// UnmarshalText keeps a path and turns false into none.
func (p *AutoPath) UnmarshalText(text []byte) error {
	*p = AutoPath(text)
	if b, ok := parseBool(string(text)); ok {
		*p = ""
		if b {
			*p = "true"
		}
	}
	return nil
}

// defaultConfig is what a run does with keys that nobody set.
func defaultConfig() *Config {
	return &Config{
		Dataset:  DatasetConfig{TrainSplit: "train", TestSize: 0.1, EvalCache: 1e9, FeatureCache: 1e9, BufferSize: 1000, CacheSize: defaultCacheSize},
		Adapter:  AdapterKeys{Names: "transformers5", values: []adapterValue{{"peft_type", json.RawMessage(`"LORA"`)}}},
		Training: Training{Config: train.DefaultConfig(), FP16: "false", BF16: "false", TF32: "auto"},
	}
}

// loadConfig returns the settings of a run: flags over the file over defaults. The file may be
// absent (""). Everything wrong is reported at once.
func (e *env) loadConfig(path string) (*Config, error) {
	cfg := defaultConfig()
	r := configReader{sweeping: e.sweeping}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
				return nil, usage("reading the command line", fmt.Sprintf("CONFIG %q is a folder, but must be a YAML or JSON file", path))
			}
			return nil, fmt.Errorf("reading the config: %w", err)
		}
		if err := r.file(cfg, path, text); err != nil {
			return nil, err
		}
	}
	e.axes = r.axes
	r.flags(cfg, e.settings)
	r.add(cfg.problems()...)
	doing := "reading the settings"
	if path != "" {
		doing = fmt.Sprintf("reading %q", path)
	}
	if len(r.problems) > 0 {
		return nil, usage(doing, r.problems...)
	}
	if err := cfg.Adapter.check(); err != nil {
		return nil, fmt.Errorf("%s: adapter: %w", doing, err)
	}
	return cfg, nil
}

// file overlays a YAML or JSON text; JSON is nearly a part of YAML, and the rest is refused.
func (r *configReader) file(cfg *Config, path string, text []byte) error {
	if filepath.Ext(path) == ".json" && !json.Valid(text) {
		var v any
		return usage(fmt.Sprintf("reading %q", path), json.Unmarshal(text, &v).Error())
	}
	var doc yaml.Node
	if err := yaml.Load(text, &doc); err != nil {
		if len(bytes.TrimSpace(text)) == 0 {
			return nil
		}
		return usage(fmt.Sprintf("reading %q", path), strings.TrimPrefix(err.Error(), "go-yaml load error in "))
	}
	if r.sweeping {
		r.axes = r.takeSweep(doc.Content[0])
	}
	r.fill(doc.Content[0], reflect.ValueOf(cfg).Elem(), "")
	return nil
}

// problems checks the settings against each other. It also fills in what follows from others.
func (c *Config) problems() []string {
	var p []string
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			p = append(p, fmt.Sprintf(format, args...))
		}
	}
	def := defaultConfig()
	t, was := &c.Training, def.Training
	refuse(c.Model == "", "model is not set: name the base model, in the file or with --model")
	p = append(p, c.Dataset.problems()...)
	refuse(t.OutputDir == "", "training.output_dir is not set: name the folder for the adapter, in the file or with --out")
	for _, err := range t.Validate() {
		p = append(p, "training."+err.Error())
	}
	p = append(p, transformProblems("transforms.train", c.Transforms.Train)...)
	p = append(p, transformProblems("transforms.eval", c.Transforms.Eval)...)
	refuse(!c.Dataset.evaluates() && t.EvalStrategy != "no", "training.eval_strategy is %q, but neither dataset.eval_split nor dataset.test_size gives images to evaluate on", t.EvalStrategy)
	refuse(t.FP16 != "false" && t.BF16 != "false", "training.fp16 and training.bf16 exclude each other")
	reports, wrong := t.ReportTo.resolve()
	t.ReportTo, p = reports, append(p, wrong...)

	// A key that does nothing in this run is an error.
	idle := func(set bool, key, why string) { refuse(set, "%s does nothing: %s", key, why) }
	idle(t.EarlyStoppingPatience > 0 && t.EvalStrategy == "no", "training.early_stopping_patience", "eval_strategy is no")
	idle(t.EarlyStoppingThreshold > 0 && t.EarlyStoppingPatience == 0, "training.early_stopping_threshold", "early_stopping_patience is 0")
	idle(t.MetricForBestModel != was.MetricForBestModel && t.EvalStrategy == "no", "training.metric_for_best_model", "eval_strategy is no")
	idle(t.WarmupSteps > 0 && t.LRSchedulerType == "constant", "training.warmup_steps", "lr_scheduler_type constant has no warm-up, constant_with_warmup has")
	method := c.Adapter.PeftType()
	idle(t.LoraplusLRRatio > 0 && method != "LORA" && method != "ADALORA", "training.loraplus_lr_ratio", method+" has no matrix B")
	idle(t.EvalSteps != was.EvalSteps && t.EvalStrategy != "steps", "training.eval_steps", "eval_strategy is "+t.EvalStrategy)
	idle(t.SaveSteps != was.SaveSteps && t.SaveStrategy != "steps", "training.save_steps", "save_strategy is "+t.SaveStrategy)
	idle(t.SaveTotalLimit != was.SaveTotalLimit && t.SaveStrategy == "no", "training.save_total_limit", "save_strategy is no")
	penalty, weight := c.Adapter.PeftType() == "ADALORA", string(c.Adapter.Get("orth_reg_weight"))
	idle(t.OrthogonalityPenalty && !penalty, "training.orthogonality_penalty", c.Adapter.PeftType()+" has none")
	idle(t.OrthogonalityPenalty && penalty && weight == "0", "training.orthogonality_penalty", "adapter.orth_reg_weight is 0")
	idle(!t.OrthogonalityPenalty && penalty && weight != "" && weight != "0.5", "adapter.orth_reg_weight", "training.orthogonality_penalty is false")
	idle(t.HubModelID != "" && !t.PushToHub, "training.hub_model_id", "push_to_hub is false")
	idle(t.HubPrivateRepo && !t.PushToHub, "training.hub_private_repo", "push_to_hub is false")
	return append(p, c.Adapter.problems()...)
}

// transformProblems tries a list on an image processor of no particular model.
func transformProblems(key string, spec any) []string {
	if spec == nil {
		return nil
	}
	pipeline, err := vision.ParsePipeline(spec, vision.Defaults{Std: [3]float32{1, 1, 1}, Size: 224})
	var several interface{ Unwrap() []error }
	var p []string
	switch {
	case errors.As(err, &several):
		for _, err := range several.Unwrap() {
			p = append(p, key+": "+err.Error())
		}
	case err != nil:
		p = append(p, key+": "+err.Error())
	case key == "transforms.eval" && len(pipeline.Mixers) > 0:
		p = append(p, fmt.Sprintf("%s: %s is for training only", key, pipeline.Mixers[0]))
	}
	return p
}

// Encode writes the settings as a config file that repeats the run.
func (c *Config) Encode() ([]byte, error) {
	text, err := yaml.Dump(c)
	if err != nil {
		return nil, fmt.Errorf("writing the settings as YAML: %w", err)
	}
	return text, nil
}

// configField is one key: its full name, usage, and the place of its value.
type configField struct {
	key, usage string
	value      reflect.Value
}

// fields lists the keys of a config, less the adapter's.
func (c *Config) fields() []configField { return configFields(reflect.ValueOf(c).Elem(), "") }

// configFields lists the keys of a struct and of the structs in it, in order. The adapter's keys
// are not among them.
func configFields(v reflect.Value, prefix string) []configField {
	var fields []configField
	for i := range v.NumField() {
		sf, fv := v.Type().Field(i), v.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		key := prefix + name
		switch {
		case fv.Type() == reflect.TypeFor[AdapterKeys]():
		case sf.Anonymous:
			fields = append(fields, configFields(fv, prefix)...)
		case fv.Kind() == reflect.Struct:
			fields = append(fields, configFields(fv, key+".")...)
		default:
			usage := cmp.Or(sf.Tag.Get("usage"), "as in TrainingArguments")
			fields = append(fields, configField{key, usage, fv})
		}
	}
	return fields
}
