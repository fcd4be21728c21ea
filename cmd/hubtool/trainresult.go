package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/model/engine"
)

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
		return nil, withHint(err, "%s", continueHint(ctx, p, err))
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

// checkLogin refuses a run that is to be pushed where nobody is logged in.
func (e *env) checkLogin(t Training) error {
	if !t.PushToHub {
		return nil
	}
	client, err := e.client()
	if err != nil || client.TokenSource() != "" || e.offline {
		return err
	}
	return withHint(fmt.Errorf("checking before the training that its result can be pushed: %w: training.push_to_hub is true, and there is no token", hub.ErrAuth),
		"run \"hubtool login\" or set HF_TOKEN; --push=false, or push_to_hub: false in the file, trains without pushing")
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
