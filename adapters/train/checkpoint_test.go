package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/model/engine"
)

// restless evaluates often while a rate that is too high moves the parameters back and forth, and saves what is best.
func restless(t *testing.T, e *engine.Engine, dir string) train.Job {
	j := random(t, e, dir)
	j.Config.LRSchedulerType, j.Config.LearningRate = "constant", 0.1
	j.Config.EvalStrategy, j.Config.EvalSteps, j.Config.MetricForBestModel = "steps", 1, "loss"
	j.Config.SaveStrategy = "best"
	return j
}

// better lists the checkpoints after evaluations with a lower loss than all before.
func better(epochs []train.EpochResult) (names []string) {
	var best *train.EpochResult
	for i, e := range epochs {
		if best == nil || e.EvalLoss < best.EvalLoss {
			best = &epochs[i]
			names = append(names, fmt.Sprintf("checkpoint-%d", e.Step))
		}
	}
	return names
}

func checkpoints(t *testing.T, dir string) (names []string) {
	t.Helper()
	saved, err := train.Checkpoints(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range saved {
		names = append(names, filepath.Base(path))
	}
	return names
}

// With save_strategy best a checkpoint follows each evaluation that is better than all before, and no other;
// its state says that it is the best.
func TestSavesTheBest(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	result := run(t, restless(t, e, dir))
	want := better(result.Epochs)
	if len(want) < 2 || len(want) == len(result.Epochs) {
		t.Fatalf("nothing to tell apart: %+v", result.Epochs)
	}
	if got := checkpoints(t, dir); !slices.Equal(got, want) {
		t.Errorf("checkpoints %q, want %q", got, want)
	}
	for _, name := range want {
		text, err := os.ReadFile(filepath.Join(dir, name, "trainer_state.json"))
		if err != nil {
			t.Fatal(err)
		}
		var s train.State
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		if s.BestGlobalStep == nil || *s.BestGlobalStep != s.GlobalStep || s.BestModelCheckpoint == nil || *s.BestModelCheckpoint != filepath.Join(dir, name) {
			t.Errorf("%s is not the best of its own state: %+v", name, s)
		}
	}
	for limit, want := range map[int][]string{1: want[len(want)-1:], 2: want[len(want)-2:]} {
		dir := t.TempDir()
		j := restless(t, e, dir)
		j.Config.SaveTotalLimit = limit
		run(t, j)
		if got := checkpoints(t, dir); !slices.Equal(got, want) {
			t.Errorf("with save_total_limit %d: checkpoints %q, want %q", limit, got, want)
		}
	}
	j := restless(t, e, t.TempDir())
	j.Config.EvalStrategy = "no"
	if problems := j.Config.Validate(); len(problems) != 1 {
		t.Errorf("without evaluation: %v", problems)
	}
}

// A run that is stopped while it saves, by which the files that were begun are lost, saves once more and loses nothing.
func TestInterruptWhileSaving(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	whole := t.TempDir()
	want := run(t, restless(t, e, whole))
	for _, name := range better(want.Epochs) {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		j := restless(t, e, dir)
		j.Report = func(ev train.Event) {
			if ev.Evaluation != nil && fmt.Sprintf("checkpoint-%d", ev.Step) == name {
				cancel() // what comes next is to save it
			}
		}
		if _, err := tryRun(ctx, j); !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", name, err)
		}
		if got := checkpoints(t, dir); got[len(got)-1] != name {
			t.Fatalf("stopped while saving %s: checkpoints %q", name, got)
		}
		j = restless(t, e, dir)
		j.Resume = filepath.Join(dir, name)
		got := run(t, j)
		if a, b := checkpoints(t, dir), checkpoints(t, whole); !slices.Equal(a, b) {
			t.Errorf("stopped while saving %s: checkpoints %q, want %q", name, a, b)
		}
		for _, name := range better(want.Epochs) {
			if !bytes.Equal(adapterBytes(t, filepath.Join(dir, name)), adapterBytes(t, filepath.Join(whole, name))) {
				t.Errorf("stopped while saving %s: another adapter", name)
			}
		}
		if got.Best.Step != want.Best.Step || len(got.State.LogHistory) != len(want.State.LogHistory) {
			t.Errorf("stopped while saving %s: best %+v, %d log entries", name, got.Best, len(got.State.LogHistory))
		}
	}
}

// A run that goes on in a folder that was moved, or writes to another, keeps and names its best checkpoint where that is now.
func TestResumeFindsTheBest(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, out, best string }{
		{"moved", "moved", "moved"},
		{"elsewhere", "other", "moved"},
		{"gone", "other", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			in := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
			job := func(out string) train.Job {
				j := restless(t, e, in(out))
				j.Config.SaveStrategy, j.Config.SaveSteps, j.Config.LearningRate = "steps", 1, 1 // which spoils what the first steps learn
				return j
			}
			j := job("begun")
			name := filepath.Base(run(t, j).Best.Checkpoint)
			if name >= "checkpoint-7" {
				t.Fatalf("%s is the best: there is nothing to lose", name)
			}
			if err := os.Rename(in("begun"), in("moved")); err != nil {
				t.Fatal(err)
			}
			if c.best == "" {
				if err := os.RemoveAll(in("moved", name)); err != nil {
					t.Fatal(err)
				}
			}
			j = job(c.out)
			j.Config.SaveTotalLimit = 1
			j.Resume = in("moved", "checkpoint-7")
			result := run(t, j)
			if c.best == "" {
				if result.Best.Checkpoint != "" || result.State.BestModelCheckpoint != nil {
					t.Errorf("the best is in %q (%v), which is gone", result.Best.Checkpoint, result.State.BestModelCheckpoint)
				}
				return
			}
			want := in(c.best, name)
			if result.Best.Checkpoint != want || *result.State.BestModelCheckpoint != want {
				t.Errorf("the best is in %q, and in %q by the state; want %q", result.Best.Checkpoint, *result.State.BestModelCheckpoint, want)
			}
			if _, err := os.Stat(want); err != nil {
				t.Error(err)
			}
		})
	}
}
