package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
)

// Training in half precision has nearly the losses of training in float32; the Go engine refuses.
func TestHalfPrecision(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		for _, adapter := range []string{"lora/classifier", "loha/classifier"} {
			exact := losses(run(t, halfJob(t, e, adapter, model.Float32)))
			for _, precision := range []model.Precision{model.Float16, model.BFloat16} {
				t.Run(adapter+"/"+string(precision), func(t *testing.T) {
					j := halfJob(t, e, adapter, precision)
					if j.Weights == nil {
						return
					}
					for i, got := range losses(run(t, j)) {
						if math.Abs(got-exact[i]) > 0.02*exact[i] || got == exact[i] {
							t.Errorf("step %d: loss %v, want nearly the %v of float32", i+1, got, exact[i])
						}
					}
				})
			}
		}
	})
}

// halfJob has no weights where the engine refuses, as the Go engine must.
func halfJob(t *testing.T, e *engine.Engine, adapter string, precision model.Precision) train.Job {
	t.Helper()
	j := job(t, e, adapter, 16)
	j.Config.PerDeviceTrainBatchSize, j.Config.GradientAccumulationSteps, j.Config.MaxSteps = 4, 2, 4
	err := j.Weights.SetPrecision(precision)
	if e.IsGo() && precision != model.Float32 {
		if !errors.Is(err, format.ErrUnsupported) {
			t.Errorf("the Go engine computes in %s: %v", precision, err)
		}
		j.Weights = nil
	} else if err != nil {
		t.Fatal(err)
	}
	return j
}

func losses(r *train.Result) []float64 {
	var list []float64
	for _, e := range r.State.LogHistory {
		if e.Loss != nil {
			list = append(list, *e.Loss)
		}
	}
	return list
}

// A step that overflows in float16 changes nothing but the scale, and a run that is resumed after it
// ends with the bytes of one that went through.
func TestOverflowIsSkipped(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		if e.IsGo() {
			return
		}
		start := func(dir string) train.Job {
			j := halfJob(t, e, "lora/dropout", model.Float16)
			j.Config.OutputDir, j.Config.SaveStrategy, j.Config.SaveSteps = dir, "steps", 1
			// Weights so large that the first scales overflow.
			for _, p := range j.Adapter.Params() {
				if filepath.Ext(p.Name) == ".weight" {
					for i := range p.Values {
						p.Values[i] *= 6
					}
				}
			}
			return j
		}
		whole := t.TempDir()
		j := start(whole)
		var scales []float64
		j.Report = func(e train.Event) {
			if e.LossScale > 0 {
				scales = append(scales, e.LossScale)
			}
		}
		result := run(t, j)
		if len(scales) == 0 || scales[0] != 32768 || result.Skipped != len(scales) || result.Skipped == result.State.GlobalStep {
			t.Fatalf("%d of %d steps skipped, scales %v; want some, from 32768 down", result.Skipped, result.State.GlobalStep, scales)
		}
		for _, step := range []string{"1", "3"} {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "checkpoint-"+step), os.DirFS(filepath.Join(whole, "checkpoint-"+step))); err != nil {
				t.Fatal(err)
			}
			j := start(dir)
			j.Resume = filepath.Join(dir, "checkpoint-"+step)
			if resumed := run(t, j); resumed.Skipped != result.Skipped {
				t.Errorf("resumed at step %s: %d steps skipped, want %d", step, resumed.Skipped, result.Skipped)
			}
			if !bytes.Equal(adapterBytes(t, filepath.Join(dir, "checkpoint-4")), adapterBytes(t, filepath.Join(whole, "checkpoint-4"))) {
				t.Errorf("resumed at step %s: another adapter", step)
			}
		}
		j = start(whole)
		j.Resume = filepath.Join(whole, "checkpoint-1")
		if err := j.Weights.SetPrecision(model.Float32); err != nil {
			t.Fatal(err)
		}
		if _, err := tryRun(context.Background(), j); err == nil {
			t.Error("a run in float16 goes on in float32")
		}
		var state map[string]any
		text, err := os.ReadFile(filepath.Join(whole, "checkpoint-4", "trainer_state.json"))
		if err != nil || json.Unmarshal(text, &state) != nil {
			t.Errorf("trainer_state.json after an overflow: %v", err)
		}
	})
}
