package train_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/enginetest"
)

// Several devices train what one does on batches of the same size, dropout and a last batch that is
// not full included, and the same run gives the same bytes.
func TestDevices(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		trained := func(devices, each int) (*train.Result, []byte, error) {
			j := random(t, e, t.TempDir())
			j.Config.Devices, j.Config.PerDeviceTrainBatchSize, j.Config.PerDeviceEvalBatchSize = devices, each, 3
			result, err := tryRun(context.Background(), j)
			if err != nil {
				return nil, nil, err
			}
			return result, adapterBytes(t, filepath.Join(j.Config.OutputDir, "checkpoint-9")), nil
		}
		if e.Backend.NumDevices() < 4 {
			if _, _, err := trained(4, 1); !errors.Is(err, format.ErrUnsupported) {
				t.Errorf("four devices of one: %v", err)
			}
			return
		}
		one, _, err := trained(1, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, devices := range []int{2, 4} {
			many, first, err := trained(devices, 4/devices)
			if err != nil {
				t.Fatal(err)
			}
			got, want := many.State.LogHistory, one.State.LogHistory
			for i := range want[:len(want)-1] {
				for _, pair := range [][2]*float64{{got[i].Loss, want[i].Loss}, {got[i].GradNorm, want[i].GradNorm}, {got[i].EvalLoss, want[i].EvalLoss}} {
					if pair[1] != nil && math.Abs(*pair[0]-*pair[1]) > 1e-4*math.Abs(*pair[1]) {
						t.Errorf("%d devices, step %d: %v, on one %v", devices, want[i].Step, *pair[0], *pair[1])
					}
				}
			}
			if _, again, err := trained(devices, 4/devices); err != nil || !bytes.Equal(again, first) {
				t.Errorf("%d devices train another adapter the second time (%v)", devices, err)
			}
		}
	})
}

// Layers that are computed again for their gradients have the same gradients, dropout included.
func TestGradientCheckpointing(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *engine.Engine) {
		trained := func(recompute bool) (*train.Result, error) {
			j := random(t, e, "")
			j.Config.GradientCheckpointing, j.Config.SaveStrategy, j.Config.EvalStrategy = recompute, "no", "no"
			return tryRun(context.Background(), j)
		}
		got, err := trained(true)
		if e.IsGo() {
			if !errors.Is(err, format.ErrUnsupported) {
				t.Errorf("on the Go engine: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		want, err := trained(false)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want.State.LogHistory[:9] {
			g := got.State.LogHistory[i]
			if math.Abs(*g.Loss-*w.Loss) > 1e-4 || math.Abs(*g.GradNorm-*w.GradNorm) > 1e-3**w.GradNorm {
				t.Errorf("step %d: loss %v, norm %v; want %v, %v", w.Step, *g.Loss, *g.GradNorm, *w.Loss, *w.GradNorm)
			}
		}
	})
}
