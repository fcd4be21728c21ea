package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format/dataset"
)

func (e *env) trainCommand() *cli.Command {
	return &cli.Command{
		Name:      "train",
		Usage:     "train an adapter on an image classifier",
		ArgsUsage: "[CONFIG.yaml]",
		Description: "Settings come from the file and from flags, which win; \"hubtool init\" writes a file to begin with.\n" +
			"The first Ctrl-C saves a checkpoint, from which --resume goes on to the bytes of an uninterrupted run.",
		Flags: append(e.configFlags(), &cli.BoolFlag{Name: "dry-run", Usage: "check everything and print the plan"}),
		Action: func(c *cli.Context) error {
			cfg, err := e.loadConfig(c.Args().First())
			if err != nil {
				return err
			}
			_, err = e.train(c.Context, cfg, c.Bool("dry-run"))
			return err
		},
	}
}

// train trains, or in a dry run plans, and prints the outcome.
func (e *env) train(ctx context.Context, cfg *Config, dryRun bool) (*trainSummary, error) {
	if dryRun {
		p, err := e.plan(ctx, cfg, true)
		if err != nil {
			return nil, err
		}
		defer p.classifier.Close()
		e.noteCount(p)
		return nil, e.result(p.text, p)
	}
	s, err := e.trainOnce(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return s, e.result(s.text, s)
}

func (e *env) noteCount(p *plan) {
	trainable, all := p.job.Adapter.Count()
	e.note("trainable params: %s || all params: %s || trainable%%: %.4f", thousands(trainable), thousands(all), 100*float64(trainable)/float64(all))
}

// trainOnce trains and writes what is left of it.
func (e *env) trainOnce(ctx context.Context, cfg *Config) (*trainSummary, error) {
	p, err := e.plan(ctx, cfg, false)
	if err != nil {
		return nil, err
	}
	defer p.engine.Close()
	defer p.classifier.Close()
	e.noteCount(p)
	p.job.Report = e.trainingEvents()
	logTo := func(*train.LogEntry) {}
	if slices.Contains(cfg.Training.ReportTo, "tensorboard") {
		var done func()
		if logTo, done, err = e.tensorBoard(cfg.Training.OutputDir); err != nil {
			return nil, err
		}
		defer done()
		show := p.job.Report
		p.job.Report = func(ev train.Event) {
			if ev.Log != nil {
				logTo(ev.Log)
			}
			show(ev)
		}
	}
	result, err := whileFetching(ctx, p.dataset, p.rows, func(ctx context.Context) (*train.Result, error) { return train.Run(ctx, p.job) })
	e.endProgress()
	if err != nil {
		return nil, withHint(err, "%s", continueHint(ctx, p, err))
	}
	logTo(&result.State.LogHistory[len(result.State.LogHistory)-1]) // the summary
	e.brokenNote(result.Broken)
	if result.DataWait > tooLong && result.Seconds > longEnough {
		e.note("%.0f %% of the training time went by waiting for images: %s", 100*result.DataWait, waitAdvice(cfg))
	}
	return e.finishTraining(ctx, p, result)
}

// tensorBoard returns what writes log entries for TensorBoard. A run does not fail for it.
func (e *env) tensorBoard(dir string) (logTo func(*train.LogEntry), done func(), err error) {
	f, err := train.NewEventFile(dir)
	if err != nil {
		return nil, nil, err
	}
	var failed error
	return func(entry *train.LogEntry) {
			if failed == nil {
				if failed = f.Add(entry); failed != nil {
					e.note("%v: no more is written there", failed)
				}
			}
		}, func() {
			if err := f.Close(); err != nil && failed == nil {
				e.note("writing for TensorBoard: %v", err)
			}
		}, nil
}

// continueHint says what is saved of a run that failed, and how to go on from there.
func continueHint(ctx context.Context, p *plan, err error) string {
	saved, listErr := train.Checkpoints(p.config.Training.OutputDir)
	diverged := errors.Is(err, train.ErrDiverged)
	fromAdapter := fmt.Sprintf("start a new run from its adapter, with --training.init-adapter %s, another --out and no --resume", p.job.Resume)
	switch {
	case errors.Is(err, train.ErrOtherRun):
		return "give the settings of that run, or " + fromAdapter
	case errors.Is(err, train.ErrOtherFormat):
		return fromAdapter
	case diverged && len(saved) == 0:
		return "nothing was saved yet: begin again with a smaller learning rate, or a warm-up"
	case diverged:
		return fmt.Sprintf("%q is good: start from it with --training.init-adapter %s, a smaller --learning-rate and another --out", saved[len(saved)-1], saved[len(saved)-1])
	}
	if resume := (*train.ResumeError)(nil); errors.As(err, &resume) {
		// What is wrong with it stays wrong: the newest of the others may be whole.
		others := slices.DeleteFunc(slices.Clone(saved), func(dir string) bool { return filepath.Clean(dir) == filepath.Clean(resume.Checkpoint) })
		if len(others) == 0 {
			return "there is no other checkpoint: without --resume the run begins again"
		}
		return fmt.Sprintf("%q is saved, too: --resume=%s goes on from there", others[len(others)-1], others[len(others)-1])
	}
	first := "mend the cause, then "
	switch {
	case ctx.Err() != nil:
		first = ""
	case errors.Is(err, syscall.ENOSPC):
		first = "free some space, then "
	case errors.Is(err, dataset.ErrDamaged) && !p.config.Dataset.SkipBroken:
		first = "mend the file, or leave such images out with --skip-broken; then "
	}
	if listErr != nil || len(saved) == 0 {
		return "nothing was saved yet: " + first + "run the same command to begin again"
	}
	return fmt.Sprintf("%q is saved: %srun the same command with --resume to go on", saved[len(saved)-1], first)
}

// trainingEvents shows a run's progress.
func (e *env) trainingEvents() func(train.Event) {
	last := "" // what was logged last
	return func(ev train.Event) {
		switch {
		case ev.Evaluation != nil:
			e.note("epoch %.4g, step %d: eval loss %.4f, accuracy %.2f %%", ev.Epoch, ev.Step, ev.Evaluation.Loss, 100*ev.Evaluation.Accuracy)
		case ev.ExtractTotal > 0:
			e.report(step{Task: "computing features", Done: int64(ev.Extracted), Total: int64(ev.ExtractTotal), Unit: "images"})
			if ev.Extracted == ev.ExtractTotal {
				e.note("the backbone is frozen: the features of %s images are computed once and kept", thousands(ev.ExtractTotal))
			}
		case ev.EvalTotal > 0:
			e.report(step{Task: "evaluating", Done: int64(ev.Evaluated), Total: int64(ev.EvalTotal), Unit: "images"})
		case ev.LossScale > 0:
			e.note("step %d overflowed in float16 and is skipped; the loss scale is now %g", ev.Step, ev.LossScale)
		case ev.Checkpoint != "":
			if e.verbose {
				e.note("saved %q", ev.Checkpoint)
			}
		default:
			if ev.Log != nil {
				last = fmt.Sprintf("loss %.4f, lr %.3g, ", *ev.Log.Loss, *ev.Log.LearningRate)
			}
			text := fmt.Sprintf("%s%.1f images/s, data wait %.0f %%", last, ev.ImagesPerSecond, 100*ev.DataWait)
			e.report(step{Task: "training", Done: int64(ev.Step), Total: int64(ev.Steps), Unit: "steps", Text: text})
		}
	}
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
