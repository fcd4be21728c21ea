package train_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
	"github.com/hubtool/hubtool/model/vision"
)

// behind are adapters that change nothing before the features.
var behind = map[string]string{
	"classifier": `{"peft_type": "LORA", "r": 4, "target_modules": "dummy-target-modules", "modules_to_save": ["classifier"]}`,
	"lora":       `{"peft_type": "LORA", "r": 4, "lora_dropout": 0.3, "target_modules": ["classifier"]}`,
}

// frozen is a run of one of them. 17 images leave a batch of one.
func frozen(t *testing.T, e *engine.Engine, config, dir string, cache int64) train.Job {
	t.Helper()
	j := randomOf(t, e, "lora/dropout", dir)
	cfg, err := format.ParseAdapterConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	if j.Adapter, err = adapters.New(cfg, train.Base(j.Model, j.Weights), 7); err != nil {
		t.Fatal(err)
	}
	j.Train.Source, j.Train.Pipeline = images(t, 17), j.Eval.Pipeline
	j.FeatureCache = cache
	return j
}

// extracted counts the images whose features are computed.
func extracted(j *train.Job) *int {
	n := new(int)
	j.Report = func(e train.Event) {
		if e.Extracted > 0 && e.Extracted == e.ExtractTotal {
			*n += e.Extracted
		}
	}
	return n
}

// Features that are kept train the head to the same adapter and evaluate to the same numbers.
func TestKeptFeaturesChangeNothing(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		for name, config := range behind {
			t.Run(name, func(t *testing.T) {
				var saved [2][]byte
				var results [2]*train.Result
				for i, cache := range []int64{0, 1 << 20} {
					dir := t.TempDir()
					j := frozen(t, e, config, dir, cache)
					n := extracted(&j)
					results[i] = run(t, j)
					saved[i] = adapterBytes(t, filepath.Join(dir, fmt.Sprintf("checkpoint-%d", results[i].State.GlobalStep)))
					if want := []int{0, 17 + 18}[i]; *n != want {
						t.Errorf("features of %d images were kept, want %d", *n, want)
					}
				}
				// The order in which XLA's products for the processor add up depends on how many rows there are.
				within := 1e-6
				if e.IsGo() {
					within = 0
					if !bytes.Equal(saved[0], saved[1]) {
						t.Error("another adapter")
					}
				}
				near := func(what string, got, want float64) {
					if !(math.Abs(got-want) <= within*math.Abs(want)) {
						t.Errorf("%s %v, want %v", what, got, want)
					}
				}
				for i, want := range results[0].Epochs {
					got := results[1].Epochs[i]
					near("training loss", got.TrainLoss, want.TrainLoss)
					near("loss", got.EvalLoss, want.EvalLoss)
					near("accuracy", got.EvalAccuracy, want.EvalAccuracy)
				}
				got, want := results[1].Evaluation, results[0].Evaluation
				near("best loss", got.Loss, want.Loss)
				if !reflect.DeepEqual(got.Confusion, want.Confusion) || e.IsGo() && !reflect.DeepEqual(got, want) {
					t.Error("another evaluation")
				}
			})
		}
	})
}

// Only features that are the same in every epoch are kept, and only where they have room.
func TestKeepsFeaturesOnlyWhereExact(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(j *train.Job)
		want   int
		room   int // images whose features have to have room
	}{
		"random transforms": {func(j *train.Job) {
			j.Train.Pipeline = pipeline(t, map[string]any{"Resize": []any{16, 16}}, "RandomHorizontalFlip")
		}, 18, 18},
		"mixing": {func(j *train.Job) {
			mixed := *j.Train.Pipeline
			mixed.Mixers = []vision.Mixer{vision.MixUp{Alpha: 0.5}}
			j.Train.Pipeline = &mixed
		}, 18, 18},
		"streaming":    {func(j *train.Job) { j.Train.Window = 4 }, 18, 18},
		"no room":      {func(j *train.Job) { j.FeatureCache = int64(17*j.Model.Width()*4 - 1) }, 0, 18},
		"room for one": {func(j *train.Job) { j.FeatureCache = int64(17 * j.Model.Width() * 4) }, 17, 18},
		"nothing to evaluate on": {func(j *train.Job) {
			j.Eval, j.Config.EvalStrategy, j.FeatureCache = nil, "no", 0
		}, 0, 17},
		"an adapter inside": {func(j *train.Job) { j.Adapter = job(t, e, "lora/dropout", 1).Adapter }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			j := frozen(t, e, behind["lora"], t.TempDir(), 1<<20)
			j.Config.NumTrainEpochs = 1
			c.change(&j)
			n := extracted(&j)
			if got, want := j.FeatureRoom(), int64(c.room*j.Model.Width()*4); got != want {
				t.Errorf("features need room for %d bytes, want %d", got, want)
			}
			run(t, j)
			if *n != c.want {
				t.Errorf("features of %d images were kept, want %d", *n, c.want)
			}
		})
	}
}

// A run on kept features that was interrupted and resumed ends with the bytes of one that was not.
func TestResumeOnKeptFeatures(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		whole, dir := t.TempDir(), t.TempDir()
		run(t, frozen(t, e, behind["lora"], whole, 1<<20))
		ctx, cancel := context.WithCancel(context.Background())
		j := frozen(t, e, behind["lora"], dir, 1<<20)
		j.Report = func(e train.Event) {
			if e.Log != nil && e.Log.Loss != nil && e.Step == 4 { // in the middle of an epoch
				cancel()
			}
		}
		if _, err := tryRun(ctx, j); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		j = frozen(t, e, behind["lora"], dir, 1<<20)
		j.Resume = filepath.Join(dir, "checkpoint-4")
		run(t, j)
		if !bytes.Equal(adapterBytes(t, filepath.Join(dir, "checkpoint-9")), adapterBytes(t, filepath.Join(whole, "checkpoint-9"))) {
			t.Error("another adapter")
		}
	})
}
