package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

const (
	stateFile  = "trainer_state.json"
	resumeFile = "training_state.safetensors" // what PEFT's files do not hold
)

// checkpointFormat is raised with every change of what a checkpoint holds, and of the bits that training
// computes: a run goes on to the bytes of one that was not interrupted, or not at all.
const checkpointFormat = 3

// ErrOtherFormat is a checkpoint of an older or a newer hubtool, or of another program.
var ErrOtherFormat = errors.New("it cannot be gone on from")

// ResumeError is why a run cannot go on from a checkpoint.
type ResumeError struct {
	Checkpoint string
	Err        error
}

func (e *ResumeError) Error() string { return fmt.Sprintf("resuming from %q: %v", e.Checkpoint, e.Err) }

func (e *ResumeError) Unwrap() error { return e.Err }

// cursor is the part of a run's state that is not tensors. It is the metadata of resumeFile, beside
// the number of its format.
type cursor struct {
	Settings  []Setting     `json:"settings"`
	Steps     int           `json:"steps"` // of the whole run
	Step      int           `json:"step"`
	Passed    int           `json:"epochs_passed"`
	Batch     int           `json:"next_batch"`
	LossSum   float64       `json:"loss_sum"`
	LossSteps int           `json:"loss_steps"`
	AllLoss   float64       `json:"all_loss"`
	SinceEval float64       `json:"loss_since_evaluation"`
	EvalSteps int           `json:"steps_since_evaluation"`
	Worse     int           `json:"worse_evaluations"`
	Epochs    []EpochResult `json:"epochs"`
	Best      *Best         `json:"best"`
	Scaler    *lossScaler   `json:"loss_scaler,omitempty"`
	BestStep  int           `json:"best_step"`
	Metric    float64       `json:"best_metric"`
}

// save writes checkpoint-<step>, which appears under its name when it is complete, and removes those
// that are too many.
func (r *run) save(ctx context.Context) error {
	dir := filepath.Join(r.Config.OutputDir, "checkpoint-"+strconv.Itoa(r.state.GlobalStep))
	tmp := dir + ".partial"
	if err := r.clean(); err != nil {
		return fmt.Errorf("saving a checkpoint: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := r.Adapter.Save(ctx, tmp, r.Names); err != nil {
		return err
	}
	if r.best != nil && r.best.Step == r.state.GlobalStep {
		r.best.Checkpoint = dir
		r.state.BestModelCheckpoint = &r.best.Checkpoint
	}
	text, err := r.state.Text()
	if err != nil {
		return fmt.Errorf("saving %q: %w", dir, err)
	}
	if err := format.WriteFileAtomic(filepath.Join(tmp, stateFile), text); err != nil {
		return err
	}
	if err := r.saveCursor(ctx, filepath.Join(tmp, resumeFile)); err != nil {
		return err
	}
	if err := discard(dir); err != nil { // of an earlier run, or of this one before it was resumed
		return fmt.Errorf("saving a checkpoint: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("saving a checkpoint: %w", err)
	}
	r.report(Event{Checkpoint: dir})
	return r.rotate(dir)
}

func (r *run) saveCursor(ctx context.Context, path string) error {
	c := cursor{Settings: r.settings, Steps: r.steps, Step: r.state.GlobalStep, Passed: r.passed, Batch: r.batch, LossSum: r.lossSum, LossSteps: r.lossSteps,
		AllLoss: r.allLoss, SinceEval: r.sinceEval, EvalSteps: r.evalSteps, Worse: r.worse, Epochs: r.epochs, Best: r.best, Scaler: r.scaler}
	var tensors []format.Tensor
	for i, p := range r.params {
		tensors = append(tensors,
			format.FloatTensor("first_moment."+p.Name, p.Shape, r.optimizer.first[i]),
			format.FloatTensor("second_moment."+p.Name, p.Shape, r.optimizer.second[i]))
		if r.best != nil {
			tensors = append(tensors, format.FloatTensor("best."+p.Name, p.Shape, r.best.params[i]))
		}
		if len(r.Adapter.State()) > 0 { // PEFT's file may lack what is pruned
			tensors = append(tensors, format.FloatTensor("param."+p.Name, p.Shape, p.Values))
		}
	}
	for i, p := range r.Adapter.State() {
		tensors = append(tensors, format.FloatTensor("state."+p.Name, p.Shape, p.Values))
		if r.best != nil {
			tensors = append(tensors, format.FloatTensor("best_state."+p.Name, p.Shape, r.best.state[i]))
		}
	}
	if r.best != nil {
		c.BestStep, c.Metric = r.best.Step, r.best.metric
	}
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("saving %q: %w", path, err)
	}
	return format.Write(ctx, path, tensors, map[string]string{"format": "pt", "checkpoint_format": strconv.Itoa(checkpointFormat), "cursor": string(text)})
}

// rotate keeps the newest save_total_limit checkpoints and, in any case, the best.
func (r *run) rotate(newest string) error {
	if r.Config.SaveTotalLimit == 0 {
		return nil
	}
	dirs, err := Checkpoints(r.Config.OutputDir)
	if err != nil {
		return err
	}
	excess := len(dirs) - r.Config.SaveTotalLimit
	for _, dir := range dirs {
		if excess <= 0 {
			break
		}
		if dir == newest || r.best != nil && dir == r.best.Checkpoint {
			continue
		}
		if err := discard(dir); err != nil {
			return fmt.Errorf("removing an old checkpoint: %w", err)
		}
		excess--
	}
	return nil
}

// keepBest leaves the best checkpoint alone where no more than one is wanted: the newest, from which the
// run could go on until now, is of no more use. So does transformers.
func (r *run) keepBest() error {
	if r.Config.OutputDir == "" || r.Config.SaveTotalLimit != 1 || r.best == nil {
		return nil
	}
	dirs, err := Checkpoints(r.Config.OutputDir)
	if err != nil || !slices.Contains(dirs, r.best.Checkpoint) {
		return err
	}
	return r.rotate(r.best.Checkpoint)
}

// discard removes a checkpoint, which loses its name first: one that is half removed when the process
// dies must not be taken for a whole one.
func discard(dir string) error {
	gone := dir + ".old.partial"
	if err := os.Rename(dir, gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(gone)
}

// clean removes what processes that died in the midst of saving or discarding have left.
func (r *run) clean() error {
	left, err := filepath.Glob(filepath.Join(r.Config.OutputDir, "checkpoint-*.partial"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Checkpoints lists the complete checkpoints in a directory, the oldest first.
func Checkpoints(dir string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "checkpoint-*"))
	if err != nil {
		return nil, fmt.Errorf("listing checkpoints in %q: %w", dir, err)
	}
	step := func(path string) int {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), "checkpoint-"))
		if err != nil {
			return -1
		}
		return n
	}
	found = slices.DeleteFunc(found, func(path string) bool { return step(path) < 0 })
	slices.SortFunc(found, func(a, b string) int { return step(a) - step(b) })
	return found, nil
}

// checkFormat refuses a checkpoint of another format, which has its number since there are numbers.
func checkFormat(text string) error {
	number, err := strconv.Atoi(text)
	switch {
	case err != nil || number < checkpointFormat:
		return fmt.Errorf("%w: an older hubtool wrote it, whose runs only that version continues", ErrOtherFormat)
	case number > checkpointFormat:
		return fmt.Errorf("%w: a newer hubtool wrote it, in format %d, and this one knows %d", ErrOtherFormat, number, checkpointFormat)
	}
	return nil
}

// restore puts the run into the state that a checkpoint holds.
func (r *run) restore(dir string) error {
	fail := func(err error) error { return &ResumeError{dir, err} }
	tensors, meta, err := format.Load(filepath.Join(dir, resumeFile))
	if err == nil {
		err = checkFormat(meta["checkpoint_format"])
	} else if _, stat := os.Stat(filepath.Join(dir, stateFile)); stat == nil && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it has no %s, and so is not of hubtool", ErrOtherFormat, resumeFile)
	}
	if err != nil {
		return fail(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return fail(err)
	}
	begun := *r.state
	if err := json.Unmarshal(text, r.state); err != nil {
		return fail(fmt.Errorf("%w: %s: %w", format.ErrConfig, stateFile, err))
	}
	var c cursor
	if err := json.Unmarshal([]byte(meta["cursor"]), &c); err != nil {
		return fail(fmt.Errorf("%w: %s: %w", format.ErrConfig, resumeFile, err))
	}
	if err := r.checkSettings(&c); err != nil {
		return fail(err)
	}
	saved, err := adapters.Load(dir, Base(r.Model, r.Weights))
	if err != nil {
		return fail(err)
	}
	values := map[string][]float32{}
	for _, p := range saved.Params() {
		values["param."+p.Name] = p.Values
	}
	for _, t := range tensors {
		if values[t.Info().Name], err = format.Floats(t); err != nil {
			return fail(err)
		}
	}
	take := func(name string, into []float32) error {
		if len(values[name]) != len(into) {
			return fail(fmt.Errorf("%w: %s has %d values, want %d", adapters.ErrMismatch, name, len(values[name]), len(into)))
		}
		copy(into, values[name])
		return nil
	}
	if r.best = c.Best; r.best != nil {
		r.best.Step, r.best.metric = c.BestStep, c.Metric
		r.best.Checkpoint = r.found(dir, r.best.Checkpoint)
		r.best.params, r.best.state = zerosLike(r.params), zerosLike(r.Adapter.State())
	}
	for i, p := range r.Adapter.State() {
		err := take("state."+p.Name, p.Values)
		if r.best != nil {
			err = errors.Join(err, take("best_state."+p.Name, r.best.state[i]))
		}
		if err != nil {
			return err
		}
	}
	for i, p := range r.params {
		err := errors.Join(take("param."+p.Name, p.Values), take("first_moment."+p.Name, r.optimizer.first[i]), take("second_moment."+p.Name, r.optimizer.second[i]))
		if r.best != nil {
			err = errors.Join(err, take("best."+p.Name, r.best.params[i]))
		}
		if err == nil {
			err = set(r.Weights, p)
		}
		if err != nil {
			return err
		}
	}
	r.scaler = c.Scaler
	r.state.GlobalStep, r.optimizer.step = c.Step, c.Step-r.scaler.skipped()
	r.passed, r.batch = c.Passed, c.Batch
	r.stepped = r.batch
	r.lossSum, r.lossSteps, r.allLoss = c.LossSum, c.LossSteps, c.AllLoss
	r.sinceEval, r.evalSteps, r.worse, r.epochs = c.SinceEval, c.EvalSteps, c.Worse, c.Epochs
	r.stopped = r.patienceIsOver()
	if best := r.state.BestModelCheckpoint; best != nil {
		if *best = r.found(dir, *best); *best == "" {
			r.state.BestModelCheckpoint = nil
		}
	}
	// Of these, the state has what this run goes by.
	r.state.MaxSteps, r.state.NumTrainEpochs = begun.MaxSteps, begun.NumTrainEpochs
	r.state.LoggingSteps, r.state.SaveSteps = begun.LoggingSteps, begun.SaveSteps
	return nil
}

// found is where a checkpoint is by now that the run had written when it saved the one that it goes on from,
// whose folder may have another name since; empty if it is gone.
func (r *run) found(from, checkpoint string) string {
	parent := filepath.Dir(from)
	if a, err := os.Stat(parent); err == nil {
		if b, err := os.Stat(r.Config.OutputDir); err == nil && os.SameFile(a, b) {
			parent = r.Config.OutputDir // as new checkpoints spell it
		}
	}
	for _, parent := range []string{parent, filepath.Dir(checkpoint)} {
		dir := filepath.Join(parent, filepath.Base(checkpoint))
		if _, err := os.Stat(dir); checkpoint != "" && err == nil {
			return dir
		}
	}
	return ""
}
