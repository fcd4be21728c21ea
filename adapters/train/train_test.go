package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/internal/goldentest"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
	"github.com/hubtool/hubtool/model/vision"
)

const golden = "../../testdata/golden"

var half = [3]float32{0.5, 0.5, 0.5}

// rows are images in memory.
type rows []dataset.Row

func (r rows) Len() int                      { return len(r) }
func (r rows) At(i int) (dataset.Row, error) { return r[i], nil }

// images are the first n of the golden training batch.
func images(t *testing.T, n int) rows {
	t.Helper()
	batch := filepath.Join(golden, "training", "batch.safetensors")
	shape, pixels := goldentest.Bytes(t, batch, "images")
	_, labels := goldentest.Bytes(t, batch, "labels")
	h, w := shape[1], shape[2]
	var list rows
	for i := range n {
		img := image.NewNRGBA(image.Rect(0, 0, w, h))
		for j := range h * w {
			p := pixels[(i*h*w+j)*3:]
			img.SetNRGBA(j%w, j/w, color.NRGBA{p[0], p[1], p[2], 255})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		list = append(list, dataset.Row{Image: b.Bytes(), Label: int(labels[8*i])})
	}
	return list
}

func pipeline(t *testing.T, spec ...any) *vision.Pipeline {
	t.Helper()
	p, err := vision.ParsePipeline(append(spec, "ToTensor", "Normalize"), vision.Defaults{Mean: half, Std: half, Size: 16})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// job trains the adapter in dir (under golden) on its base, in order and without random transforms.
func job(t *testing.T, e *engine.Engine, adapter string, n int) train.Job {
	t.Helper()
	dir := filepath.Join(golden, "bases", "vit")
	ck, cfg := goldentest.Open(t, dir)
	m, w := goldentest.Load(t, e, ck, cfg, len(cfg.Labels()))
	a, err := adapters.Load(filepath.Join(golden, adapter), train.Base(m, w))
	if err != nil {
		t.Fatal(err)
	}
	c := train.DefaultConfig()
	c.EvalStrategy, c.SaveStrategy, c.LoggingSteps, c.LearningRate = "no", "no", 1, 5e-3
	return train.Job{Model: m, Weights: w, Adapter: a, Norm: model.Normalization{Mean: half, Std: half}, Labels: cfg.Labels(), Config: c,
		Train: &train.Loader{Source: images(t, n), Pipeline: pipeline(t, map[string]any{"Resize": []any{16, 16}}), Classes: 5}}
}

// run sets the loaders' batch sizes from the config and trains.
func run(t *testing.T, j train.Job) *train.Result {
	t.Helper()
	result, err := tryRun(context.Background(), j)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func tryRun(ctx context.Context, j train.Job) (*train.Result, error) {
	j.Train.Batch, j.Train.Seed = j.Config.TrainBatch(), j.Config.Seed
	if j.Eval != nil {
		j.Eval.Batch = j.Config.EvalBatch()
	}
	return train.Run(ctx, j)
}

// Losses, gradient norms, rates and the trained tensors are those of transformers' Trainer with PEFT.
func TestTrainsLikeTrainer(t *testing.T) {
	cases := []string{"one-step", "one-step-decay", "accumulate", "accumulate-decay-cosine", "label-smoothing", "loraplus", "tight-clip", "bias-lora-only-decay", "lora-bias", "rslora", "dora", "loha", "lokr", "ia3", "adalora", "adalora-budget", "adalora-penalty"}
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		for _, name := range cases {
			t.Run(name, func(t *testing.T) {
				dir := filepath.Join(golden, "training", name)
				text, err := os.ReadFile(filepath.Join(dir, "case.json"))
				if err != nil {
					t.Fatal(err)
				}
				var c struct {
					Adapter string           `json:"adapter"`
					Images  int              `json:"images"`
					Log     []train.LogEntry `json:"log"`
				}
				if err := json.Unmarshal(text, &c); err != nil {
					t.Fatal(err)
				}
				j := job(t, e, c.Adapter, c.Images)
				if j.Penalty = name == "adalora-penalty"; j.Penalty || name == "adalora" { // Trainer alone never calls update_and_allocate
					j.Adapter = withSetting(t, j, c.Adapter, `"tinit": 1`, `"tinit": 5`)
				}
				if err := json.Unmarshal(text, &j.Config); err != nil { // settings have the names of TrainingArguments
					t.Fatal(err)
				}
				result := run(t, j)

				log := result.State.LogHistory[:len(result.State.LogHistory)-1] // less the summary
				if len(log) != len(c.Log) {
					t.Fatalf("%d log entries, want %d", len(log), len(c.Log))
				}
				for i, want := range c.Log {
					got := log[i]
					if !near(*got.Loss, *want.Loss, 1e-4) || !near(*got.GradNorm, *want.GradNorm, 1e-3) || !near(*got.LearningRate, *want.LearningRate, 1e-12) ||
						got.Step != want.Step || !near(got.Epoch, want.Epoch, 1e-9) {
						t.Errorf("step %d: loss %v, norm %v, rate %v, epoch %v; want %v, %v, %v, %v", got.Step, *got.Loss, *got.GradNorm,
							*got.LearningRate, got.Epoch, *want.Loss, *want.GradNorm, *want.LearningRate, want.Epoch)
					}
				}
				saved := t.TempDir()
				if err := j.Adapter.Save(context.Background(), saved, format.Transformers5); err != nil {
					t.Fatal(err)
				}
				got, want := loadAdapter(t, j, saved), loadAdapter(t, j, dir)
				if got, want := rankPattern(t, saved), rankPattern(t, dir); got != want {
					t.Errorf("rank_pattern is %s, want %s", got, want)
				}
				// Adam divides by the gradient's size, so that rounding grows where gradients are near
				// zero; a step is at most the rate, 5e-3.
				worst := 0.0
				for i, p := range want.Params() {
					for k, v := range p.Values {
						worst = max(worst, math.Abs(float64(got.Params()[i].Values[k]-v)))
					}
				}
				if worst > 1e-5 {
					t.Errorf("a parameter differs by %.2g", worst)
				}
			})
		}
	})
}

// withSetting loads a golden adapter with other words in its config.
func withSetting(t *testing.T, j train.Job, adapter, old, words string) *adapters.Adapter {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(golden, adapter))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, format.AdapterConfigFile)
	text, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(text, []byte(old)) {
		t.Fatal("no", old, err)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(old), []byte(words), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	return loadAdapter(t, j, dir)
}

func loadAdapter(t *testing.T, j train.Job, dir string) *adapters.Adapter {
	t.Helper()
	a, err := adapters.Load(dir, train.Base(j.Model, j.Weights))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func rankPattern(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, format.AdapterConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	var cfg struct {
		RankPattern map[string]any `json:"rank_pattern"`
	}
	if err := json.Unmarshal(text, &cfg); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(cfg.RankPattern)
}

func near(a, b, delta float64) bool { return math.Abs(a-b) <= delta }

// random is a run in which everything random takes part: order, transforms, dropout.
func random(t *testing.T, e *engine.Engine, dir string) train.Job {
	return randomOf(t, e, "lora/dropout", dir)
}

func randomOf(t *testing.T, e *engine.Engine, adapter, dir string) train.Job {
	j := job(t, e, adapter, 18)
	j.Train.Shuffle = true
	j.Train.Pipeline = pipeline(t, map[string]any{"RandomResizedCrop": 16}, "RandomHorizontalFlip")
	j.Eval = &train.Loader{Source: images(t, 18), Pipeline: pipeline(t, map[string]any{"Resize": []any{16, 16}}), Classes: 5}
	j.Config.OutputDir, j.Config.SaveStrategy, j.Config.EvalStrategy = dir, "epoch", "epoch"
	j.Config.PerDeviceTrainBatchSize, j.Config.GradientAccumulationSteps = 4, 2
	return j
}

func adapterBytes(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, adapters.File))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The same seed gives the same bytes, whatever the number of workers and cores; another does not.
func TestSameSeedSameBytes(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		trained := func(workers, cores int, seed uint64) []byte {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
			dir := t.TempDir()
			j := random(t, e, dir)
			j.Train.Workers, j.Config.Seed = workers, seed
			run(t, j)
			return adapterBytes(t, filepath.Join(dir, "checkpoint-9"))
		}
		want := trained(1, 1, 42)
		for _, n := range []int{2, 7} {
			if !bytes.Equal(trained(n, n, 42), want) {
				t.Errorf("%d workers and cores train another adapter", n)
			}
		}
		if bytes.Equal(trained(1, 1, 43), want) {
			t.Error("another seed trains the same adapter")
		}
	})
}

// A run that was interrupted at any step and resumed ends with the bytes of one that was not.
func TestResumeIsExact(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	for _, adapter := range []string{"lora/dropout", "adalora/whole"} {
		t.Run(adapter, func(t *testing.T) { resume(t, e, adapter) })
	}
}

func resume(t *testing.T, e *engine.Engine, adapter string) {
	whole := t.TempDir()
	j := randomOf(t, e, adapter, whole)
	want := run(t, j)
	for stop := 1; stop < 9; stop++ {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		j := randomOf(t, e, adapter, dir)
		j.Report = func(e train.Event) {
			if e.Log != nil && e.Log.Loss != nil && e.Step == stop {
				cancel()
			}
		}
		if _, err := tryRun(ctx, j); !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at step %d: %v", stop, err)
		}
		saved, err := train.Checkpoints(dir)
		if err != nil || len(saved) == 0 || filepath.Base(saved[len(saved)-1]) != "checkpoint-"+string(rune('0'+stop)) {
			t.Fatalf("stopped at step %d: checkpoints %q, %v", stop, saved, err)
		}
		j = randomOf(t, e, adapter, dir)
		j.Resume = saved[len(saved)-1]
		got := run(t, j)
		if !bytes.Equal(adapterBytes(t, filepath.Join(dir, "checkpoint-9")), adapterBytes(t, filepath.Join(whole, "checkpoint-9"))) {
			t.Errorf("stopped at step %d: another adapter", stop)
		}
		if len(got.Epochs) != len(want.Epochs) || got.Epochs[2].EvalLoss != want.Epochs[2].EvalLoss || got.Best.Step != want.Best.Step {
			t.Errorf("stopped at step %d: %+v, want %+v", stop, got.Epochs, want.Epochs)
		}
		if len(got.State.LogHistory) != len(want.State.LogHistory) {
			t.Errorf("stopped at step %d: %d log entries, want %d", stop, len(got.State.LogHistory), len(want.State.LogHistory))
		}
	}
}

// The best evaluation's parameters are kept, and its checkpoint survives rotation.
func TestKeepsTheBest(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	j := random(t, e, dir)
	// A rate that never gets lower spoils what the first steps learn.
	j.Config.LRSchedulerType = "constant"
	j.Config.LearningRate, j.Config.NumTrainEpochs, j.Config.SaveTotalLimit = 1.0, 6, 1
	j.Config.MetricForBestModel = "loss"
	result := run(t, j)
	best := slices.MinFunc(result.Epochs, func(a, b train.EpochResult) int {
		if a.EvalLoss < b.EvalLoss {
			return -1
		}
		return 1
	})
	if result.Best.Step != best.Step || best.Step == result.State.GlobalStep {
		t.Fatalf("best is step %d, losses %+v", result.Best.Step, result.Epochs)
	}
	if result.Evaluation.Loss != best.EvalLoss {
		t.Errorf("the adapter that is left has loss %v, want %v", result.Evaluation.Loss, best.EvalLoss)
	}
	saved, err := train.Checkpoints(dir)
	if err != nil || len(saved) != 1 || saved[0] != result.Best.Checkpoint {
		t.Errorf("checkpoints %q (%v), want the best %q", saved, err, result.Best.Checkpoint)
	}
}

// Training ends after so many evaluations that are not better by more than the threshold.
func TestStopsEarly(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		threshold float64
		want      int // evaluations
	}{{0, 6}, {100, 3}} { // no loss falls by 100: the first counts, and the next two do not
		j := random(t, e, t.TempDir())
		j.Config.NumTrainEpochs, j.Config.MetricForBestModel = 6, "eval_loss"
		j.Config.LearningRate = 1e-4 // at which the loss falls steadily
		j.Config.EarlyStoppingPatience, j.Config.EarlyStoppingThreshold = 2, c.threshold
		result := run(t, j)
		if len(result.Epochs) != c.want {
			t.Errorf("with threshold %v there are %d evaluations, want %d: %+v", c.threshold, len(result.Epochs), c.want, result.Epochs)
		}
		if best := result.Epochs[len(result.Epochs)-1]; c.threshold > 0 && (result.Best.Step != best.Step || result.Evaluation.Loss != best.EvalLoss) {
			t.Errorf("the best is %+v, want %+v: the threshold decides when to stop, not what is best", result.Best, best)
		}
	}
}

// An unreadable image ends a run with an error that names it.
func TestDamagedImage(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	j := job(t, e, "lora/classifier", 4)
	j.Train.Source.(rows)[2] = dataset.Row{Image: []byte("no image"), Path: "broken.jpg", Label: 1}
	if _, err := tryRun(context.Background(), j); !errors.Is(err, dataset.ErrDamaged) || !strings.Contains(err.Error(), "broken.jpg") {
		t.Errorf("%v, want ErrDamaged naming the image", err)
	}
	j.Train.SkipBroken = true
	if result := run(t, j); len(result.Broken) != 1 || !strings.Contains(result.Broken[0].Error(), "broken.jpg") {
		t.Errorf("left out: %v, want the one image", result.Broken)
	}
	j = job(t, e, "lora/classifier", 4)
	j.Train.Source.(rows)[2] = dataset.Row{Image: j.Train.Source.(rows)[0].Image, Label: 5}
	if _, err := tryRun(context.Background(), j); !errors.Is(err, dataset.ErrDamaged) || !strings.Contains(err.Error(), "label is 5") {
		t.Errorf("%v, want ErrDamaged naming the label", err)
	}
}
