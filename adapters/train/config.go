package train

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config holds the settings of one run. Names, meaning and defaults are those of transformers'
// TrainingArguments (5.x), except that evaluation and saving happen each epoch and the best
// checkpoint is kept: by accuracy, as in PEFT's guide, where TrainingArguments alone takes the loss.
type Config struct {
	OutputDir                 string  `yaml:"output_dir" json:"output_dir"`
	NumTrainEpochs            float64 `yaml:"num_train_epochs" json:"num_train_epochs"`
	MaxSteps                  int     `yaml:"max_steps" json:"max_steps"` // optimizer steps; -1: NumTrainEpochs decides
	PerDeviceTrainBatchSize   int     `yaml:"per_device_train_batch_size" json:"per_device_train_batch_size"`
	PerDeviceEvalBatchSize    int     `yaml:"per_device_eval_batch_size" json:"per_device_eval_batch_size"`
	GradientAccumulationSteps int     `yaml:"gradient_accumulation_steps" json:"gradient_accumulation_steps"`

	LearningRate    float64 `yaml:"learning_rate" json:"learning_rate"`
	LRSchedulerType string  `yaml:"lr_scheduler_type" json:"lr_scheduler_type"` // one of Schedules
	WarmupSteps     float64 `yaml:"warmup_steps" json:"warmup_steps"`           // below 1: a share of all steps
	AdamBeta1       float64 `yaml:"adam_beta1" json:"adam_beta1"`
	AdamBeta2       float64 `yaml:"adam_beta2" json:"adam_beta2"`
	AdamEpsilon     float64 `yaml:"adam_epsilon" json:"adam_epsilon"`
	WeightDecay     float64 `yaml:"weight_decay" json:"weight_decay"`
	MaxGradNorm     float64 `yaml:"max_grad_norm" json:"max_grad_norm"` // 0: no clipping

	LoraplusLRRatio      float64 `yaml:"loraplus_lr_ratio" json:"loraplus_lr_ratio" usage:"LoRA+: the learning rate of B is so many times that of A; 0: the same"`
	LabelSmoothingFactor float64 `yaml:"label_smoothing_factor" json:"label_smoothing_factor"` // of the loss, in evaluation as well; 0: none

	EvalStrategy           string  `yaml:"eval_strategy" json:"eval_strategy"` // no, steps or epoch
	EvalSteps              float64 `yaml:"eval_steps" json:"eval_steps" usage:"with eval_strategy steps; 0: as logging_steps, below 1: a share of all steps"`
	SaveStrategy           string  `yaml:"save_strategy" json:"save_strategy" usage:"no, steps, epoch, or best: after each evaluation that is better than all before"`
	SaveSteps              float64 `yaml:"save_steps" json:"save_steps" usage:"with save_strategy steps; below 1: a share of all steps"`
	SaveTotalLimit         int     `yaml:"save_total_limit" json:"save_total_limit"` // 0: all checkpoints are kept
	LoadBestModelAtEnd     bool    `yaml:"load_best_model_at_end" json:"load_best_model_at_end"`
	MetricForBestModel     string  `yaml:"metric_for_best_model" json:"metric_for_best_model" usage:"accuracy or loss; eval_ may stand before it"`
	EarlyStoppingPatience  int     `yaml:"early_stopping_patience" json:"early_stopping_patience" usage:"evaluations without a better metric until training ends; 0: never"`
	EarlyStoppingThreshold float64 `yaml:"early_stopping_threshold" json:"early_stopping_threshold" usage:"by how much a metric must be better to count"`
	LoggingSteps           float64 `yaml:"logging_steps" json:"logging_steps" usage:"below 1: a share of all steps"`
	Seed                   uint64  `yaml:"seed" json:"seed"`
	TrainSamplingStrategy  string  `yaml:"train_sampling_strategy" json:"train_sampling_strategy" usage:"random: a new order each epoch; sequential: the order of the split"`
	GradientCheckpointing  bool    `yaml:"gradient_checkpointing" json:"gradient_checkpointing" usage:"compute layers again for their gradients: less memory, more time; XLA only"`
	Devices                int     `yaml:"devices" json:"devices" usage:"devices of the engine that share the work; a batch is per_device_train_batch_size times as many images"`
	DataloaderNumWorkers   int     `yaml:"dataloader_num_workers" json:"dataloader_num_workers"` // 0: one per core
}

// DefaultConfig returns the defaults of TrainingArguments with evaluation and saving per epoch.
func DefaultConfig() Config {
	return Config{
		NumTrainEpochs: 3, MaxSteps: -1,
		PerDeviceTrainBatchSize: 8, PerDeviceEvalBatchSize: 8, GradientAccumulationSteps: 1,
		LearningRate: 5e-5, LRSchedulerType: "linear",
		AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
		EvalStrategy: "epoch", SaveStrategy: "epoch", SaveSteps: 500,
		LoadBestModelAtEnd: true, MetricForBestModel: "accuracy",
		LoggingSteps: 10, Seed: 42, TrainSamplingStrategy: "random", Devices: 1,
	}
}

// TrainBatch is how many images all devices take together in training.
func (c Config) TrainBatch() int { return c.PerDeviceTrainBatchSize * c.Devices }

// EvalBatch is how many they take in evaluations.
func (c Config) EvalBatch() int { return c.PerDeviceEvalBatchSize * c.Devices }

// bestBy is the metric of the best evaluation: accuracy or loss.
func (c Config) bestBy() string { return strings.TrimPrefix(c.MetricForBestModel, "eval_") }

// isInterval tells whether something can happen every so many steps, or every such share of all.
func isInterval(steps float64) bool { return steps > 0 && (steps < 1 || steps == math.Trunc(steps)) }

// resolved turns shares of all steps into numbers, as transformers' TrainerState does.
func (c Config) resolved(total int) Config {
	switch {
	case c.EvalSteps == 0 && c.EvalStrategy == "steps":
		c.EvalSteps = c.LoggingSteps
	case c.EvalSteps == 0:
		c.EvalSteps = 500 // as a TrainerState says where nobody asks
	}
	for _, steps := range []*float64{&c.EvalSteps, &c.SaveSteps, &c.LoggingSteps} {
		if *steps < 1 {
			*steps = math.Ceil(*steps * float64(total))
		}
	}
	return c
}

// Validate reports every setting that is out of range, not only the first.
func (c Config) Validate() []error {
	var errs []error
	check := func(ok bool, key string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is %v, but must be %s", key, value, want))
		}
	}
	check(c.NumTrainEpochs > 0 || c.MaxSteps > 0, "num_train_epochs", c.NumTrainEpochs, "positive")
	check(c.MaxSteps > 0 || c.MaxSteps == -1, "max_steps", c.MaxSteps, "positive, or -1 for none")
	check(c.PerDeviceTrainBatchSize > 0, "per_device_train_batch_size", c.PerDeviceTrainBatchSize, "positive")
	check(c.PerDeviceEvalBatchSize > 0, "per_device_eval_batch_size", c.PerDeviceEvalBatchSize, "positive")
	check(c.GradientAccumulationSteps > 0, "gradient_accumulation_steps", c.GradientAccumulationSteps, "positive")
	check(c.LearningRate > 0, "learning_rate", c.LearningRate, "positive")
	check(Schedules[c.LRSchedulerType] != nil, "lr_scheduler_type", c.LRSchedulerType, "one of "+scheduleNames())
	check(c.WarmupSteps >= 0, "warmup_steps", c.WarmupSteps, "zero or more")
	check(c.AdamBeta1 >= 0 && c.AdamBeta1 < 1, "adam_beta1", c.AdamBeta1, "in [0, 1)")
	check(c.AdamBeta2 >= 0 && c.AdamBeta2 < 1, "adam_beta2", c.AdamBeta2, "in [0, 1)")
	check(c.AdamEpsilon > 0, "adam_epsilon", c.AdamEpsilon, "positive")
	check(c.WeightDecay >= 0, "weight_decay", c.WeightDecay, "zero or more")
	check(c.MaxGradNorm >= 0, "max_grad_norm", c.MaxGradNorm, "zero or more")
	check(c.LoraplusLRRatio == 0 || c.LoraplusLRRatio >= 1, "loraplus_lr_ratio", c.LoraplusLRRatio, "1 or more, or 0 for one rate")
	check(c.LabelSmoothingFactor >= 0 && c.LabelSmoothingFactor < 1, "label_smoothing_factor", c.LabelSmoothingFactor, "in [0, 1)")
	strategies := []string{"no", "steps", "epoch"}
	check(slices.Contains(strategies, c.EvalStrategy), "eval_strategy", c.EvalStrategy, "no, steps or epoch")
	check(slices.Contains(append(strategies, "best"), c.SaveStrategy), "save_strategy", c.SaveStrategy, "no, steps, epoch or best")
	check(c.SaveStrategy != "best" || c.EvalStrategy != "no", "save_strategy", c.SaveStrategy, "no, steps or epoch where eval_strategy is no: nothing tells what is best")
	const every = "a positive whole number, or below 1 a share of all steps"
	check(c.EvalSteps == 0 || isInterval(c.EvalSteps), "eval_steps", c.EvalSteps, every+", or 0 for logging_steps")
	check(isInterval(c.SaveSteps), "save_steps", c.SaveSteps, every)
	check(c.SaveTotalLimit >= 0, "save_total_limit", c.SaveTotalLimit, "zero (no limit) or more")
	check(slices.Contains([]string{"accuracy", "loss"}, c.bestBy()), "metric_for_best_model", c.MetricForBestModel, "accuracy or loss")
	check(c.EarlyStoppingPatience >= 0, "early_stopping_patience", c.EarlyStoppingPatience, "zero (never) or more")
	check(c.EarlyStoppingThreshold >= 0, "early_stopping_threshold", c.EarlyStoppingThreshold, "zero or more")
	check(isInterval(c.LoggingSteps), "logging_steps", c.LoggingSteps, every)
	check(slices.Contains([]string{"random", "sequential"}, c.TrainSamplingStrategy), "train_sampling_strategy", c.TrainSamplingStrategy, "random or sequential")
	check(c.Devices > 0, "devices", c.Devices, "positive")
	check(c.DataloaderNumWorkers >= 0, "dataloader_num_workers", c.DataloaderNumWorkers, "zero (one per core) or more")
	return errs
}
