package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
)

// A hint that leads to the same failure again is none: where a checkpoint cannot be gone on from,
// another one is named.
func TestContinueHint(t *testing.T) {
	dir := t.TempDir()
	p := &plan{config: defaultConfig()}
	p.config.Training.OutputDir = dir
	path := func(step int) string { return filepath.Join(dir, fmt.Sprintf("checkpoint-%d", step)) }
	damaged := func(step int) error { return &train.ResumeError{Checkpoint: path(step), Err: format.ErrDamaged} }
	check := func(err error, want string) {
		t.Helper()
		if hint := continueHint(context.Background(), p, err); !strings.Contains(hint, want) {
			t.Errorf("after %v: %q, want %q", err, hint, want)
		}
	}
	check(format.ErrDamaged, "run the same command to begin again")
	for _, step := range []int{8, 16} {
		if err := os.Mkdir(path(step), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	check(format.ErrDamaged, "--resume to go on")
	check(fmt.Errorf("training: %w", damaged(16)), "--resume="+path(8))
	check(damaged(24), "--resume="+path(16)) // which is not there
	if err := os.Remove(path(8)); err != nil {
		t.Fatal(err)
	}
	check(damaged(16), "without --resume")
}

// A run that has evaluated nothing has no accuracy of zero.
func TestMeasured(t *testing.T) {
	for want, results := range map[string]map[string]float64{
		"accuracy 0.0000\tloss 2.5000":        {"eval_accuracy": 0, "eval_loss": 2.5, "train_loss": 1},
		"not evaluated\ttraining loss 1.0000": {"train_loss": 1},
	} {
		if got := measured(results); got != want {
			t.Errorf("%v: %q, want %q", results, got, want)
		}
	}
}

// quickstart needs no network, and so no leave to use it.
func TestQuickstartOffline(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	e := newEnv(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	local, stop, err := e.localHub(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if dir, err := local.model(t.Context(), "hubtool/tiny-vit"); err != nil {
		t.Errorf("%q, %v", dir, err)
	}
}
