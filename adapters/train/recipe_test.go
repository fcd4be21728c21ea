package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/engine"
)

// A finished run that is resumed has nothing left to do: it says so in its speeds, and leaves no more
// than it found. What processes that died have left under passing names goes.
func TestResumeOfFinishedRun(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, left := range []string{"checkpoint-2.partial", "checkpoint-5.old.partial"} {
		if err := os.MkdirAll(filepath.Join(dir, left, "x"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	want := run(t, random(t, e, dir))
	if left, _ := filepath.Glob(filepath.Join(dir, "*.partial")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	j := random(t, e, dir)
	j.Resume = filepath.Join(dir, "checkpoint-9")
	got := run(t, j)
	summary := got.State.LogHistory[len(got.State.LogHistory)-1]
	if *summary.TrainStepsPerSecond != 0 || *summary.TrainLoss != *want.State.LogHistory[len(want.State.LogHistory)-1].TrainLoss {
		t.Errorf("%v steps per second, train_loss %v", *summary.TrainStepsPerSecond, *summary.TrainLoss)
	}
}

// Intervals below 1 are shares of all steps, evaluations follow the log unless told otherwise, and the
// end is evaluated and saved: as in transformers' TrainerState and DefaultFlowCallback.
func TestIntervals(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		eval, save, log       float64
		evaluated, kept, told string // at these of 9 steps
	}{
		"numbers": {4, 3, 2, "[4 8 9]", "[3 6 9]", "[2 4 6 8]"},
		"shares":  {0.5, 0.4, 0.3, "[5 9]", "[4 8 9]", "[3 6 9]"},
		"the log": {0, 9, 4, "[4 8 9]", "[9]", "[4 8]"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := random(t, e, dir)
			j.Config.EvalStrategy, j.Config.EvalSteps = "steps", c.eval
			j.Config.SaveStrategy, j.Config.SaveSteps, j.Config.LoggingSteps = "steps", c.save, c.log
			var evaluated, kept, told []int
			for _, entry := range run(t, j).State.LogHistory {
				switch {
				case entry.EvalLoss != nil:
					evaluated = append(evaluated, entry.Step)
				case entry.Loss != nil:
					told = append(told, entry.Step)
				}
			}
			saved, err := train.Checkpoints(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range saved {
				step, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "checkpoint-"))
				kept = append(kept, step)
			}
			if fmt.Sprint(evaluated) != c.evaluated || fmt.Sprint(kept) != c.kept || fmt.Sprint(told) != c.told {
				t.Errorf("evaluated at %v, saved at %v, logged at %v", evaluated, kept, told)
			}
		})
	}
	j := random(t, e, t.TempDir())
	j.Config.EvalSteps, j.Config.SaveSteps, j.Config.LoggingSteps = 1.5, 0, -1
	if problems := j.Config.Validate(); len(problems) != 3 {
		t.Errorf("%v", problems)
	}
}

// resumed goes on from a checkpoint and returns the adapter of the last step.
func resumed(t *testing.T, j train.Job, checkpoint string) ([]byte, error) {
	t.Helper()
	j.Resume = checkpoint
	result, err := tryRun(context.Background(), j)
	if err != nil {
		return nil, err
	}
	return lastAdapter(t, j, result), nil
}

func lastAdapter(t *testing.T, j train.Job, result *train.Result) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := j.Adapter.Save(context.Background(), dir, format.Transformers5); err != nil {
		t.Fatal(err)
	}
	log, err := json.Marshal(result.Epochs)
	if err != nil {
		t.Fatal(err)
	}
	return append(adapterBytes(t, dir), log...)
}

// A run that is resumed with another setting ends with the bytes of one that had that setting from the
// beginning, or refuses and says what it was and what it is. Every setting there is must be in the table.
func TestResumeWithOtherSettings(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	begun := t.TempDir()
	fresh := func(change func(j *train.Job)) train.Job {
		j := random(t, e, t.TempDir())
		j.Config.EvalStrategy, j.Config.EvalSteps, j.Config.SaveStrategy, j.Config.SaveSteps = "steps", 3, "steps", 3
		j.Recipe = []train.Setting{{Key: "weights of the model", Value: "ab12", Name: "acme/vit"}}
		change(&j)
		return j
	}
	j := fresh(func(j *train.Job) { j.Config.OutputDir = begun })
	run(t, j)

	same := "" // bytes
	config := func(change func(c *train.Config)) func(j *train.Job) {
		return func(j *train.Job) { change(&j.Config) }
	}
	cases := map[string]struct {
		change func(j *train.Job)
		want   string
	}{
		"training.output_dir":                  {config(func(c *train.Config) { c.OutputDir += "/elsewhere" }), same},
		"training.save_strategy":               {config(func(c *train.Config) { c.SaveStrategy = "epoch" }), same},
		"training.save_steps":                  {config(func(c *train.Config) { c.SaveSteps = 2 }), same},
		"training.save_total_limit":            {config(func(c *train.Config) { c.SaveTotalLimit = 1 }), same},
		"training.load_best_model_at_end":      {config(func(c *train.Config) { c.LoadBestModelAtEnd = false }), same},
		"training.logging_steps":               {config(func(c *train.Config) { c.LoggingSteps = 4 }), same},
		"training.dataloader_num_workers":      {config(func(c *train.Config) { c.DataloaderNumWorkers = 3 }), same},
		"training.num_train_epochs":            {config(func(c *train.Config) { c.NumTrainEpochs = 4 }), "9 steps there, 12 here, and the learning rate depends on it"},
		"training.max_steps":                   {config(func(c *train.Config) { c.MaxSteps = 10 }), "9 steps there, 10 here"},
		"training.per_device_train_batch_size": {config(func(c *train.Config) { c.PerDeviceTrainBatchSize = 8 }), "4 there, 8 here"},
		"training.per_device_eval_batch_size":  {config(func(c *train.Config) { c.PerDeviceEvalBatchSize = 4 }), "8 there, 4 here"},
		"training.gradient_accumulation_steps": {config(func(c *train.Config) { c.GradientAccumulationSteps = 1 }), "2 there, 1 here"},
		"training.learning_rate":               {config(func(c *train.Config) { c.LearningRate = 1e-3 }), "0.005 there, 0.001 here"},
		"training.lr_scheduler_type":           {config(func(c *train.Config) { c.LRSchedulerType = "cosine" }), "linear there, cosine here"},
		"training.warmup_steps":                {config(func(c *train.Config) { c.WarmupSteps = 2 }), "0 there, 2 here"},
		"training.adam_beta1":                  {config(func(c *train.Config) { c.AdamBeta1 = 0.8 }), "0.9 there, 0.8 here"},
		"training.adam_beta2":                  {config(func(c *train.Config) { c.AdamBeta2 = 0.9 }), "0.999 there, 0.9 here"},
		"training.adam_epsilon":                {config(func(c *train.Config) { c.AdamEpsilon = 1e-6 }), "1e-08 there, 1e-06 here"},
		"training.weight_decay":                {config(func(c *train.Config) { c.WeightDecay = 0.1 }), "0 there, 0.1 here"},
		"training.max_grad_norm":               {config(func(c *train.Config) { c.MaxGradNorm = 0 }), "1 there, 0 here"},
		"training.loraplus_lr_ratio":           {config(func(c *train.Config) { c.LoraplusLRRatio = 16 }), "0 there, 16 here"},
		"training.label_smoothing_factor":      {config(func(c *train.Config) { c.LabelSmoothingFactor = 0.1 }), "0 there, 0.1 here"},
		"training.eval_strategy":               {config(func(c *train.Config) { c.EvalStrategy = "epoch" }), "steps there, epoch here"},
		"training.eval_steps":                  {config(func(c *train.Config) { c.EvalSteps = 2 }), "3 there, 2 here"},
		"training.metric_for_best_model":       {config(func(c *train.Config) { c.MetricForBestModel = "loss" }), "accuracy there, loss here"},
		"training.early_stopping_patience":     {config(func(c *train.Config) { c.EarlyStoppingPatience = 1 }), "0 there, 1 here"},
		"training.early_stopping_threshold":    {config(func(c *train.Config) { c.EarlyStoppingThreshold = 0.5 }), "0 there, 0.5 here"},
		"training.seed":                        {config(func(c *train.Config) { c.Seed = 7 }), "42 there, 7 here"},
		"training.train_sampling_strategy":     {config(func(c *train.Config) { c.TrainSamplingStrategy = "sequential" }), "random there, sequential here"},
		"training.gradient_checkpointing":      {config(func(c *train.Config) { c.GradientCheckpointing = true }), "by the Go engine"}, // before it looks at the checkpoint
		"training.devices":                     {config(func(c *train.Config) { c.Devices = 2 }), "the engine has 1"},                  // the same
		"training.orthogonality_penalty":       {func(j *train.Job) { j.Penalty = true }, "false there, true here"},
		"adapter.lora_dropout": {func(j *train.Job) {
			j.Adapter = withSetting(t, *j, "lora/dropout", `"lora_dropout": 0.1`, `"lora_dropout": 0.25`)
		}, "0.1 there, 0.25 here"},
		"transforms.train": {func(j *train.Job) { j.Train.Pipeline = j.Eval.Pipeline }, "RandomResizedCrop"},
		"transforms.eval": {func(j *train.Job) {
			j.Eval.Pipeline = pipeline(t, map[string]any{"Resize": []any{17, 17}}, map[string]any{"CenterCrop": 16})
		}, "CenterCrop"},
		"dataset.buffer_size":              {func(j *train.Job) { j.Train.Window = 4 }, "0 there, 4 here"},
		"number of images to train on":     {func(j *train.Job) { j.Train.Source = images(t, 17) }, "18 there, 17 here"},
		"number of images to evaluate on":  {func(j *train.Job) { j.Eval.Source = images(t, 17) }, "18 there, 17 here"},
		"names of the classes":             {func(j *train.Job) { j.Labels = append([]string{"other"}, j.Labels[1:]...) }, "there, other"},
		"weights of the model":             {func(j *train.Job) { j.Recipe[0].Value = "cd34" }, "acme/vit ab12 there, acme/vit cd34 here"},
		"weights of the model, moved":      {func(j *train.Job) { j.Recipe[0].Name = "./vit" }, same},
		"a setting that was not there yet": {func(j *train.Job) { j.Recipe = append(j.Recipe, train.Setting{Key: "training.new", Value: "1"}) }, "training.new: nothing there, 1 here"},
		"a setting that is gone":           {func(j *train.Job) { j.Recipe = nil }, "acme/vit ab12 there, nothing here"},
	}
	fields := reflect.TypeFor[train.Config]()
	for i := range fields.NumField() {
		if key := "training." + fields.Field(i).Tag.Get("yaml"); cases[key].change == nil {
			t.Errorf("%s is not in the table", key)
		}
	}
	for key, c := range cases {
		t.Run(key, func(t *testing.T) {
			got, err := resumed(t, fresh(c.change), filepath.Join(begun, "checkpoint-6"))
			if c.want != same {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				named := strings.HasPrefix(key, "a setting") || !errors.Is(err, train.ErrOtherRun) || strings.Contains(err.Error(), key)
				alone := strings.Count(err.Error(), " there, ") == 1 || strings.Contains(err.Error(), "steps there") // which follow from the batch
				if !named || errors.Is(err, train.ErrOtherRun) && !alone {
					t.Errorf("%v, want %s and nothing else", err, key)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			whole := fresh(c.change)
			if want := lastAdapter(t, whole, run(t, whole)); !bytes.Equal(got, want) {
				t.Error("another run")
			}
		})
	}
	_, err = resumed(t, fresh(func(j *train.Job) { j.Config.Seed, j.Config.WeightDecay, j.Train.Window = 7, 0.1, 4 }), filepath.Join(begun, "checkpoint-6"))
	for _, want := range []string{"training.seed: 42 there, 7 here", "training.weight_decay: 0 there, 0.1 here", "dataset.buffer_size: 0 there, 4 here"} {
		if !errors.Is(err, train.ErrOtherRun) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}

// Where the rate does not depend on a run's end, a longer one goes on, to the bytes of one that was to
// be so long from the beginning.
func TestResumeLonger(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	fresh := func(epochs float64, schedule, adapter string, evalSteps float64) train.Job {
		j := randomOf(t, e, adapter, t.TempDir())
		if evalSteps > 0 {
			j.Config.EvalStrategy, j.Config.EvalSteps = "steps", evalSteps
		}
		j.Config.NumTrainEpochs, j.Config.LRSchedulerType, j.Config.WarmupSteps = epochs, schedule, 2
		return j
	}
	for name, c := range map[string]struct {
		schedule, adapter string
		epochs            float64
		checkpoint        string
		after             float64
		want              string
		evalSteps         float64
	}{
		"between evaluations":       {"constant", "lora/dropout", 2, "checkpoint-6", 3, "between two evaluations", 4},
		"at an evaluation":          {"constant", "lora/dropout", 2, "checkpoint-6", 3, "", 2},
		"longer":                    {"constant_with_warmup", "lora/dropout", 2, "checkpoint-6", 3, "", 0},
		"shorter":                   {"constant", "lora/dropout", 3, "checkpoint-3", 2, "", 0},
		"than what is done":         {"constant", "lora/dropout", 3, "checkpoint-9", 2, "9 steps there, 6 here, and 9 are done", 0},
		"from the midst of":         {"constant", "lora/dropout", 4. / 3, "checkpoint-4", 3, "in the middle of an epoch", 0},
		"a rate that falls to zero": {"cosine", "lora/dropout", 2, "checkpoint-3", 3, "the learning rate depends on it", 0},
		"ranks by steps":            {"constant", "adalora/whole", 2, "checkpoint-3", 3, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			before := fresh(c.epochs, c.schedule, c.adapter, c.evalSteps)
			run(t, before)
			j := fresh(c.after, c.schedule, c.adapter, c.evalSteps)
			got, err := resumed(t, j, filepath.Join(before.Config.OutputDir, c.checkpoint))
			if c.want != "" {
				if !errors.Is(err, train.ErrOtherRun) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			whole := fresh(c.after, c.schedule, c.adapter, c.evalSteps)
			if want := lastAdapter(t, whole, run(t, whole)); !bytes.Equal(got, want) {
				t.Error("another run")
			}
		})
	}
}

// A run that stopped early stays so, wherever it died after that.
func TestResumeOfStoppedRun(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fresh := func() train.Job {
		j := random(t, e, dir)
		j.Config.EarlyStoppingPatience, j.Config.EarlyStoppingThreshold = 1, 100
		return j
	}
	want := run(t, fresh())
	if want.State.GlobalStep == 9 {
		t.Fatal("the run did not stop early")
	}
	j := fresh()
	j.Resume = filepath.Join(dir, fmt.Sprintf("checkpoint-%d", want.State.GlobalStep))
	got := run(t, j)
	if got.State.GlobalStep != want.State.GlobalStep || len(got.Epochs) != len(want.Epochs) {
		t.Errorf("resumed to step %d, want %d", got.State.GlobalStep, want.State.GlobalStep)
	}
}

// Checkpoints of other versions and programs are refused in a sentence.
func TestResumeOfOtherFormat(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, random(t, e, dir))
	const state = "training_state.safetensors"
	for name, c := range map[string]struct {
		change func(t *testing.T, path string)
		want   string
	}{
		"older": {rewrite(func(meta map[string]string) {
			delete(meta, "checkpoint_format")
			meta["cursor"] = `{"settings": "images=18 window=0", "step": 3}` // as it was before there were numbers
		}), "an older hubtool wrote it"},
		"newer":         {rewrite(func(meta map[string]string) { meta["checkpoint_format"] = "99" }), "a newer hubtool wrote it, in format 99"},
		"transformers'": {func(t *testing.T, path string) { _ = os.Remove(path) }, "it has no " + state},
	} {
		t.Run(name, func(t *testing.T) {
			checkpoint := t.TempDir()
			if err := os.CopyFS(checkpoint, os.DirFS(filepath.Join(dir, "checkpoint-3"))); err != nil {
				t.Fatal(err)
			}
			c.change(t, filepath.Join(checkpoint, state))
			_, err := resumed(t, random(t, e, t.TempDir()), checkpoint)
			if !errors.Is(err, train.ErrOtherFormat) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// rewrite changes the metadata of a safetensors file.
func rewrite(change func(meta map[string]string)) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		tensors, meta, err := format.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		change(meta)
		if err := format.Write(context.Background(), path, tensors, meta); err != nil {
			t.Fatal(err)
		}
	}
}
