package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/vision"
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

// plan is a run with everything found, opened and checked.
type plan struct {
	config     *Config
	baseDir    string
	engine     *engine.Engine
	classifier *train.Classifier
	job        train.Job
	evalSplit  string
	pushTo     hub.Repo // zero: nowhere
	dataset    *dataset.Dataset
	rows       []*dataset.Rows // to train on, and to evaluate on
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
	if cfg.Training.ReportTo == "tensorboard" {
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
		return nil, withHint(err, "%s", continueHint(ctx, cfg, err))
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

// tooLong is the share of the training time spent waiting for images from which on something can be
// gained.
const tooLong = 0.05

// longEnough, in seconds, is a run that did more than to begin.
const longEnough = 30

// waitAdvice says what would bring images faster, with this config.
func waitAdvice(cfg *Config) string {
	cores := runtime.GOMAXPROCS(0)
	if n := cfg.Training.DataloaderNumWorkers; n > 0 && n < cores {
		return fmt.Sprintf("set training.dataloader_num_workers to %d, or to 0 for one per core", cores)
	}
	if d := cfg.Dataset; d.Prepared == 0 && !d.Streaming {
		return "set dataset.prepared to 256 to keep images made small on disk, which changes pixels a little, or use more cores"
	}
	return "smaller images or more cores would help"
}

// brokenNote tells of the first few damaged images that were left out.
func (e *env) brokenNote(broken []error) {
	if len(broken) == 0 {
		return
	}
	e.note("%d damaged images were left out", len(broken))
	for i, err := range broken {
		if i == 5 && !e.verbose {
			e.note("and %d more", len(broken)-i)
			break
		}
		e.note("left out: %v", err)
	}
}

// continueHint says what is saved of a run that failed, and how to go on from there.
func continueHint(ctx context.Context, cfg *Config, err error) string {
	saved, listErr := train.Checkpoints(cfg.Training.OutputDir)
	diverged := errors.Is(err, train.ErrDiverged)
	switch {
	case listErr != nil || len(saved) == 0:
		if diverged {
			return "nothing was saved yet: begin again with a smaller learning rate, or a warm-up"
		}
		return "nothing was saved yet: run the same command to begin again"
	case diverged:
		return fmt.Sprintf("%q is good: start from it with --training.init-adapter %s, a smaller --learning-rate and another --out", saved[len(saved)-1], saved[len(saved)-1])
	case ctx.Err() != nil:
		return fmt.Sprintf("%q is saved: run the same command with --resume to go on", saved[len(saved)-1])
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Sprintf("%q is saved: free some space, then run the same command with --resume", saved[len(saved)-1])
	}
	return fmt.Sprintf("%q is saved: mend the cause, then run the same command with --resume", saved[len(saved)-1])
}

// plan finds and checks all that a run needs, before anything is trained. A dry run opens headers
// only, and no engine.
func (e *env) plan(ctx context.Context, cfg *Config, dryRun bool) (p *plan, err error) {
	p = &plan{config: cfg}
	if p.baseDir, err = e.model(ctx, cfg.Model); err != nil {
		return nil, err
	}
	trainRows, evalRows, err := e.rows(ctx, p)
	if err != nil {
		return nil, err
	}
	opts := train.OpenOptions{Labels: trainRows.ClassNames(), ReplaceHead: cfg.Training.IgnoreMismatchedSizes, Seed: cfg.Training.Seed}
	if !dryRun {
		if p.engine, err = e.trainingEngine(ctx, cfg.Training); err != nil {
			return nil, err
		}
		opts.Backend = p.engine.Backend
	}
	if opts.Precision, err = e.trainingPrecision(cfg.Training, p.engine); err != nil {
		return nil, err
	}
	if p.classifier, err = train.Open(p.baseDir, opts); err != nil {
		return nil, err
	}
	c := p.classifier
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	a, err := e.newAdapter(ctx, cfg, c)
	if err != nil {
		return nil, err
	}
	if c.NewHead && len(a.FullValues()) == 0 {
		e.note("the classifier is new, and modules_to_save does not name it: it stays at its random weights")
	}
	names, err := format.ParseNames(cfg.Adapter.Names)
	if err != nil {
		return nil, usage("reading the settings", "adapter."+err.Error())
	}
	t := cfg.Training
	p.job = train.Job{Model: c.Model, Weights: c.Weights, Adapter: a, Names: names, Labels: c.Labels, Config: t.Config, Penalty: t.OrthogonalityPenalty}
	p.job.Train, err = p.loader(trainRows, "transforms.train", cfg.Transforms.Train, trainTransforms(c.Model.InputSize()))
	if err != nil {
		return nil, err
	}
	p.job.Train.Batch, p.job.Train.Shuffle = t.TrainBatch(), t.TrainSamplingStrategy == "random"
	switch d := cfg.Dataset; {
	case d.Streaming:
		p.job.Train.Window = d.BufferSize
	case d.Prepared > 0 && !dryRun:
		p.job.Train.Prepared, err = train.Prepare(e.dataCache(int64(d.CacheSize)), trainRows, d.Prepared)
		if errors.Is(err, dataset.ErrNoRoom) {
			err = withHint(err, "raise dataset.cache_size, or take a smaller dataset.prepared")
		}
		if err != nil {
			return nil, err
		}
	}
	p.job.Norm = train.Normalization(p.job.Train.Pipeline)
	if evalRows != nil {
		p.job.Eval, err = p.loader(evalRows, "transforms.eval", cfg.Transforms.Eval, []any{map[string]any{"Resize": p.size()[0]}, map[string]any{"CenterCrop": p.size()}, "ToTensor", "Normalize"})
		if err != nil {
			return nil, err
		}
		p.job.Eval.Batch, p.job.Eval.Keep = t.EvalBatch(), int64(cfg.Dataset.EvalCache)
		if train.Normalization(p.job.Eval.Pipeline) != p.job.Norm {
			return nil, usage("reading the settings", "transforms.train and transforms.eval normalise differently, but a model has one way")
		}
	}
	if err := a.Plan(train.Steps(t.Config, trainRows.Len())); err != nil {
		return nil, usage("reading the settings", "adapter: "+strings.TrimPrefix(err.Error(), format.ErrConfig.Error()+": "))
	}
	if p.job.Resume, err = resumeFrom(t); err != nil || dryRun {
		return p, err
	}
	if t.PushToHub {
		if p.pushTo, err = e.pushTarget(ctx, t); err != nil {
			return nil, err
		}
	}
	return p, checkWritable(t.OutputDir)
}

// checkWritable finds out before hours of training whether their result can be written.
func checkWritable(dir string) error {
	err := os.MkdirAll(dir, 0o777)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".hubtool-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		return withHint(fmt.Errorf("preparing the output folder: %w", err), "choose a folder that can be written with --out")
	}
	return nil
}

// rows opens the data set and divides it as the config says.
func (e *env) rows(ctx context.Context, p *plan) (trainRows, evalRows *dataset.Rows, err error) {
	d := p.config.Dataset
	opts := dataset.Options{Config: d.Name, ImageColumn: d.ImageColumn, LabelColumn: d.LabelColumn}
	var ds *dataset.Dataset
	if d.Streaming {
		ds, err = e.openArriving(ctx, d.Path, e.datasetOptions(opts, int64(d.CacheSize)))
	} else {
		ds, err = e.openDataset(ctx, d.Path, int64(d.CacheSize), opts)
	}
	if err != nil {
		return nil, nil, err
	}
	p.dataset = ds
	if trainRows, err = selectRows(ds, d.TrainSplit, d.Classes); err != nil {
		return nil, nil, err
	}
	switch {
	case d.EvalSplit != "":
		p.evalSplit = d.EvalSplit
		evalRows, err = selectRows(ds, d.EvalSplit, d.Classes)
	case d.TestSize > 0:
		p.evalSplit = fmt.Sprintf("%v of %s", d.TestSize, d.TrainSplit)
		trainRows, evalRows, err = trainRows.TrainTestSplit(d.TestSize, p.config.Training.Seed)
	}
	if d.Streaming && trainRows != nil {
		trainRows = trainRows.InFileOrder() // what was held out comes from all over the split
	}
	p.rows = []*dataset.Rows{trainRows}
	if evalRows != nil {
		p.rows = append(p.rows, evalRows)
	}
	return trainRows, evalRows, err
}

// selectRows returns the rows of a split expression; of some classes only, unless classes is empty.
func selectRows(ds *dataset.Dataset, expr string, classes []string) (*dataset.Rows, error) {
	rows, err := ds.Select(expr)
	if err != nil || len(classes) == 0 {
		return rows, err
	}
	return rows.OnlyClasses(classes)
}

// openDataset opens a data set; limit bounds the cache of images in bytes.
func (e *env) openDataset(ctx context.Context, ref string, limit int64, opts dataset.Options) (*dataset.Dataset, error) {
	dir, err := e.dataset(ctx, ref)
	if err != nil {
		return nil, err
	}
	return dataset.Open(dir, e.datasetOptions(opts, limit))
}

func (e *env) datasetOptions(opts dataset.Options, limit int64) dataset.Options {
	opts.Cache = e.dataCache(limit)
	opts.Notes = dataset.Notes{
		Unpacking: func(path string) { e.note("unpacking the images of %q once", path) },
		TooLarge: func(path string, why error) {
			e.note("images of %q are read by row groups, which is slow in random order: %v", path, why)
		},
	}
	return opts
}

// newAdapter makes the adapter that the config describes, or starts from the one that it names.
func (e *env) newAdapter(ctx context.Context, cfg *Config, c *train.Classifier) (*adapters.Adapter, error) {
	base := train.Base(c.Model, c.Weights)
	if c.Weights == nil { // a dry run counts parameters and needs no values
		shapes := map[string][]int{}
		for _, p := range base.Parameters {
			shapes[p.Name] = p.Shape
		}
		base.Values = func(name string) ([]float32, error) {
			n := 1
			for _, d := range shapes[name] {
				n *= d
			}
			return make([]float32, n), nil
		}
	}
	acfg, err := format.ParseAdapterConfig(cfg.Adapter.JSON())
	if err != nil {
		return nil, usage("reading the settings", "adapter: "+err.Error())
	}
	acfg.BaseModel = &cfg.Model
	a, err := adapters.New(acfg, base, cfg.Training.Seed)
	if errors.Is(err, format.ErrConfig) {
		return nil, usage("reading the settings", "adapter: "+err.Error())
	}
	if err != nil || cfg.Training.InitAdapter == "" {
		return a, err
	}
	dir, err := e.model(ctx, cfg.Training.InitAdapter)
	if err != nil {
		return nil, err
	}
	from, err := adapters.Load(adapters.Dir(dir), base)
	if err != nil {
		return nil, err
	}
	e.adapterNotes(from)
	if err := a.CopyFrom(from); err != nil {
		return nil, fmt.Errorf("starting from the adapter %q: %w", cfg.Training.InitAdapter, err)
	}
	return a, nil
}

// trainTransforms are the default ones for images of h by w pixels.
func trainTransforms(h, w int) []any {
	return []any{map[string]any{"RandomResizedCrop": []any{h, w}}, "RandomHorizontalFlip", "ToTensor", "Normalize"}
}

// size is the height and width of the model's images.
func (p *plan) size() []any {
	h, w := p.classifier.Model.InputSize()
	return []any{h, w}
}

func (p *plan) loader(rows *dataset.Rows, key string, spec any, fallback []any) (*train.Loader, error) {
	if spec == nil {
		spec = fallback
	}
	h, w := p.classifier.Model.InputSize()
	norm := p.classifier.Processor
	pipeline, err := vision.ParsePipeline(spec, vision.Defaults{Mean: norm.Mean, Std: norm.Std, Size: min(h, w)})
	if err != nil {
		return nil, usage("reading the settings", key+": "+err.Error())
	}
	if width, height, ok := pipeline.OutputSize(); !ok || width != w || height != h {
		return nil, usage("reading the settings", fmt.Sprintf("%s makes no images of %dx%d, which the model takes: end with a crop or a Resize to [%d, %d]", key, w, h, h, w))
	}
	t := p.config.Training
	return &train.Loader{Source: rows, Pipeline: pipeline, Classes: len(p.classifier.Labels), Seed: t.Seed, Workers: t.DataloaderNumWorkers, SkipBroken: p.config.Dataset.SkipBroken}, nil
}

// resumeFrom finds the checkpoint to go on from.
func resumeFrom(t Training) (string, error) {
	switch t.ResumeFromCheckpoint {
	case "":
		return "", nil
	case "true":
		saved, err := train.Checkpoints(t.OutputDir)
		if err == nil && len(saved) == 0 {
			err = fmt.Errorf("resuming: %q has no checkpoint: %w", t.OutputDir, fs.ErrNotExist)
		}
		if err != nil {
			return "", err
		}
		return saved[len(saved)-1], nil
	default:
		return string(t.ResumeFromCheckpoint), nil
	}
}

// trainingEvents shows a run's progress.
func (e *env) trainingEvents() func(train.Event) {
	last := "" // what was logged last
	return func(ev train.Event) {
		switch {
		case ev.Evaluation != nil:
			e.note("epoch %.4g, step %d: eval loss %.4f, accuracy %.2f %%", ev.Epoch, ev.Step, ev.Evaluation.Loss, 100*ev.Evaluation.Accuracy)
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

// trainSummary is what train prints.
type trainSummary struct {
	OutputDir       string              `json:"output_dir"`
	Trainable       int                 `json:"trainable_parameters"`
	All             int                 `json:"all_parameters"`
	Epochs          []train.EpochResult `json:"epochs"`
	Best            *train.Best         `json:"best"`
	ImagesPerSecond float64             `json:"images_per_second"`
	DataWait        float64             `json:"data_wait"`
	Broken          int                 `json:"broken_images"`
	PeakRSS         int64               `json:"peak_rss"`
	Engine          string              `json:"engine"`
	SkippedSteps    int                 `json:"skipped_steps,omitempty"` // that overflowed in float16
	CommitURL       string              `json:"commit_url"`
}

func (s *trainSummary) text(w io.Writer) { fmt.Fprintln(w, s.OutputDir) }

func (e *env) finishTraining(ctx context.Context, p *plan, result *train.Result) (*trainSummary, error) {
	dir := p.config.Training.OutputDir
	out := train.Output{Job: p.job, Result: result, BaseDir: p.baseDir, BaseModel: p.config.Model, Dataset: p.config.Dataset.Path,
		EvalSplit: p.evalSplit, Software: []string{"hubtool " + buildInfo().Version, "GoMLX, engine " + enginePlainName(p.engine)}}
	text, err := p.config.Encode()
	if err != nil {
		return nil, err
	}
	out.Settings, out.PeakMemory = text, peakRSS()
	err = out.Write(ctx, dir)
	if err == nil {
		err = format.WriteFileAtomic(filepath.Join(dir, "run.yaml"), text)
	}
	if err != nil {
		return nil, withHint(err, "%s", continueHint(ctx, p.config, err))
	}
	if ranks := out.Ranks(); ranks != nil {
		left, of, each := 0, 0, []string{}
		for _, r := range ranks {
			left, of, each = left+r.Left, of+r.Of, append(each, fmt.Sprintf("%s %d", r.Module, r.Left))
		}
		e.note("%d of %d ranks are left: %s", left, of, strings.Join(each, ", "))
	}
	s := &trainSummary{OutputDir: dir, Epochs: result.Epochs, Best: result.Best, ImagesPerSecond: result.ImagesPerSecond, DataWait: result.DataWait, Broken: len(result.Broken),
		PeakRSS: peakRSS(), Engine: p.engine.Spec, SkippedSteps: result.Skipped}
	if s.Epochs == nil {
		s.Epochs = []train.EpochResult{}
	}
	s.Trainable, s.All = p.job.Adapter.Count()
	if p.config.Training.PushToHub {
		if s.CommitURL, err = e.pushOutput(ctx, p); err != nil {
			return nil, withHint(err, "the adapter is complete: \"hubtool push %s %s --exclude 'checkpoint-*'\" sends it", dir, p.pushTo.ID)
		}
	}
	return s, nil
}

func enginePlainName(eng *engine.Engine) string {
	name, _, _ := strings.Cut(eng.Spec, ":")
	return name
}

// pushTarget is the repository that a run is pushed to. Its owner, where hub_model_id names none, is
// the token's. It is created, and the right to write to it checked, before hours of training.
func (e *env) pushTarget(ctx context.Context, t Training) (hub.Repo, error) {
	client, err := e.client()
	if err != nil {
		return hub.Repo{}, err
	}
	id := cmp.Or(t.HubModelID, filepath.Base(filepath.Clean(t.OutputDir)))
	if !strings.Contains(id, "/") {
		me, err := client.WhoAmI(ctx)
		if err != nil {
			return hub.Repo{}, err
		}
		id = me.Name + "/" + id
	}
	repo, err := hub.ParseRepo(id)
	if err != nil {
		return repo, err
	}
	draft, err := client.Draft(ctx, repo, hub.PushOptions{Private: t.HubPrivateRepo})
	if err != nil {
		return repo, fmt.Errorf("checking before the training that its result can be pushed: %w", err)
	}
	return draft.Repo(), nil
}

// pushOutput pushes an output directory less its checkpoints.
func (e *env) pushOutput(ctx context.Context, p *plan) (url string, err error) {
	client, err := e.client()
	if err != nil {
		return "", err
	}
	t := p.config.Training
	commit, err := client.Push(ctx, p.pushTo, t.OutputDir, hub.PushOptions{Exclude: []string{"checkpoint-*"}, Private: t.HubPrivateRepo, Message: "Upload adapter", Card: joinCards})
	if err != nil {
		return "", err
	}
	return commit.URL, nil
}

// planText and MarshalJSON are what a dry run prints.
func (p *plan) text(w io.Writer) {
	trainable, all := p.job.Adapter.Count()
	fmt.Fprintf(w, "model       %s (%s)\n", p.config.Model, p.classifier.Model.Type())
	fmt.Fprintf(w, "adapter     %s on %d modules, %s of %s parameters\n", p.config.Adapter.PeftType(), len(p.job.Adapter.Targets), thousands(trainable), thousands(all))
	fmt.Fprintf(w, "data        %d images to train on, %d to evaluate on, %d classes\n", p.job.Train.Source.Len(), p.evalImages(), len(p.job.Labels))
	fmt.Fprintf(w, "steps       %d\n", train.Steps(p.job.Config, p.job.Train.Source.Len()))
	fmt.Fprintf(w, "output      %s\n", p.config.Training.OutputDir)
}

func (p *plan) evalImages() int {
	if p.job.Eval == nil {
		return 0
	}
	return p.job.Eval.Source.Len()
}

func (p *plan) MarshalJSON() ([]byte, error) {
	trainable, all := p.job.Adapter.Count()
	var targets []string
	for _, t := range p.job.Adapter.Targets {
		targets = append(targets, format.Spell(p.classifier.Model.Type(), t.Name, p.job.Names))
	}
	return mustJSON(map[string]any{
		"model": p.config.Model, "trainable_parameters": trainable, "all_parameters": all, "targets": targets, "train_images": p.job.Train.Source.Len(),
		"eval_images": p.evalImages(), "labels": p.job.Labels, "steps": train.Steps(p.job.Config, p.job.Train.Source.Len()), "output_dir": p.config.Training.OutputDir,
	}), nil
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
