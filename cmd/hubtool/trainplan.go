package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/vision"
)

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

// plan finds and checks all that a run needs, before anything is trained. A dry run opens headers
// only, and no engine.
func (e *env) plan(ctx context.Context, cfg *Config, dryRun bool) (p *plan, err error) {
	p = &plan{config: cfg}
	opts := train.OpenOptions{ReplaceHead: cfg.Training.IgnoreMismatchedSizes, Seed: cfg.Training.Seed}
	if opts.Precision, err = e.means(ctx, p, dryRun); err != nil {
		return nil, err
	}
	if eng := p.engine; eng != nil {
		defer func() {
			if err != nil {
				eng.Close()
			}
		}()
		opts.Backend = eng.Backend
	}
	if p.baseDir, err = e.model(ctx, cfg.Model); err != nil {
		return nil, err
	}
	trainRows, evalRows, err := e.rows(ctx, p)
	if err != nil {
		return nil, err
	}
	opts.Labels = trainRows.ClassNames()
	if p.classifier, err = train.Open(p.baseDir, opts); err != nil {
		return nil, err
	}
	c := p.classifier
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if len(c.Labels) == 1 {
		e.note("all images are of one class, %q: there is nothing to tell apart", c.Labels[0])
	}
	a, err := e.newAdapter(ctx, cfg, c)
	if err != nil {
		return nil, err
	}
	if c.NewHead && len(a.FullValues()) == 0 {
		e.note("the classifier is new, and modules_to_save does not name it: it stays at its random weights")
	}
	if cfg.Dataset.FeatureCache != defaultConfig().Dataset.FeatureCache && !train.Frozen(c.Model, a) {
		return nil, usage("reading the settings", "dataset.feature_cache does nothing: the adapter changes more than the classifier, and features with it")
	}
	if cfg.Training.GradientCheckpointing && train.Frozen(c.Model, a) {
		return nil, usage("reading the settings", "training.gradient_checkpointing does nothing: the backbone is frozen, and no gradient goes through its layers")
	}
	names, err := format.ParseNames(cfg.Adapter.Names)
	if err != nil {
		return nil, usage("reading the settings", "adapter."+err.Error())
	}
	t := cfg.Training
	p.job = train.Job{Model: c.Model, Weights: c.Weights, Adapter: a, Names: names, Labels: c.Labels, Config: t.Config, Penalty: t.OrthogonalityPenalty,
		FeatureCache: int64(cfg.Dataset.FeatureCache)}
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
	e.featureNote(&p.job)
	if err := a.Plan(train.Steps(t.Config, trainRows.Len())); err != nil {
		return nil, usage("reading the settings", "adapter: "+strings.TrimPrefix(err.Error(), format.ErrConfig.Error()+": "))
	}
	if p.job.Resume, err = resumeFrom(t); err != nil || dryRun {
		return p, err
	}
	if saved, listErr := train.Checkpoints(t.OutputDir); listErr == nil && len(saved) > 0 && p.job.Resume == "" {
		e.note("%q has checkpoints of an earlier run, which stay there: --resume goes on with the newest", t.OutputDir)
	}
	if p.job.Recipe, err = p.recipe(trainRows, evalRows); err != nil {
		return nil, err
	}
	if t.PushToHub {
		if p.pushTo, err = e.pushTarget(ctx, t); err != nil {
			return nil, err
		}
	}
	return p, checkWritable(t.OutputDir)
}

// means finds out, before gigabytes are pulled, whether this machine can compute as the config says and
// its user may push. A dry run, which needs neither, tells what would be missing.
func (e *env) means(ctx context.Context, p *plan, dryRun bool) (precision model.Precision, err error) {
	t := p.config.Training
	missing := e.checkLogin(t)
	if dryRun {
		if missing != nil {
			e.note("the run itself would fail: %v", missing)
		}
		if spec := cmp.Or(e.engineSpec(), "auto"); spec == "go" || spec == "auto" && len(engine.Plugins()) == 0 {
			if err := checkGoPrecision(t); err != nil {
				e.note("the run itself would fail: %v", err)
			}
		}
		return model.Float32, nil
	}
	if missing != nil {
		return "", missing
	}
	if p.engine, err = e.trainingEngine(ctx, t); err != nil {
		return "", err
	}
	if precision, err = e.trainingPrecision(t, p.engine); err != nil {
		p.engine.Close()
	}
	return precision, err
}

// featureNote tells of features that could be kept and have no room, unless nobody wants any kept.
func (e *env) featureNote(job *train.Job) {
	const mega = 1_000_000
	need, have := job.FeatureRoom(), job.FeatureCache
	if have > 0 && need > have {
		room := (need + mega - 1) / mega * mega
		e.note("the backbone is frozen, but its features have no room in dataset.feature_cache, which is %v: all images go through it again in every epoch. Set --dataset.feature-cache %v to compute their features once", Bytes(have), Bytes(room))
	}
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
		if trainRows, evalRows, err = trainRows.TrainTestSplit(d.TestSize, p.config.Training.Seed); err != nil {
			err = usage("reading the settings", "dataset.test_size: "+err.Error())
		}
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
