package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/hub/hubserve"
	"github.com/hubtool/hubtool/model/vision"
	"github.com/hubtool/hubtool/testdata"
)

// What PEFT 0.21.2 with transformers' Trainer reaches with the same recipe, mean and standard
// deviation over three seeds: testdata/python/reference.py.
const (
	peftLinear = "67.6 ± 1.1"
	peftLoRA   = "92.0 ± 1.5"
)

func (e *env) quickstartCommand() *cli.Command {
	var out string
	epochs := 5
	return &cli.Command{
		Name:  "quickstart",
		Usage: "do the whole job on embedded data, in about a minute: serve, pull, train, eval, merge, verify, predict, push",
		Description: "A small pretrained ViT learns 1,437 handwritten digits, first by its classifier alone, then with LoRA.\n" +
			"No network is needed: the Hub that it pulls from and pushes to is served by this process.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "work in `DIR`, which must be empty or absent", Value: "hubtool-quickstart", Destination: &out},
			count("epochs", "epochs of either training", 1, &epochs),
		},
		Action: func(c *cli.Context) error {
			if entries, err := os.ReadDir(out); err == nil && len(entries) > 0 {
				return usage("reading the command line", fmt.Sprintf("--out %q exists and is not empty: choose another folder", out))
			}
			return e.quickstart(c.Context, out, epochs)
		},
	}
}

// quickResult is what quickstart prints.
type quickResult struct {
	Dir            string       `json:"dir"`
	LinearAccuracy float64      `json:"linear_accuracy"`
	Accuracy       float64      `json:"accuracy"`
	Trainable      int          `json:"trainable_parameters"`
	All            int          `json:"all_parameters"`
	Adapter        string       `json:"adapter"`
	Merged         string       `json:"merged"`
	MaxAbsLogit    float64      `json:"max_abs_logit"` // merged against adapted
	Images         int          `json:"images"`        // of that comparison
	Predictions    []prediction `json:"predictions"`
	Truth          []string     `json:"truth"`
	CommitURL      string       `json:"commit_url"`
	Engine         string       `json:"engine"`
	Seconds        float64      `json:"seconds"`
}

func (e *env) quickstart(ctx context.Context, dir string, epochs int) error {
	start := time.Now()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("finding the working folder: %w", err)
	}
	local, stop, err := e.localHub(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()

	cfg := defaultConfig()
	text, err := recipeFiles.ReadFile("recipes/quickstart.yaml")
	if err != nil {
		return fmt.Errorf("reading the recipe: %w", err)
	}
	reader := configReader{}
	if err := reader.file(cfg, "quickstart.yaml", text); err != nil {
		return err
	}
	cfg.Training.OutputDir, cfg.Training.NumTrainEpochs = filepath.Join(dir, "adapter"), float64(epochs)
	cfg.Training.PushToHub, cfg.Training.HubModelID = true, "hubtool/tiny-vit-digits-lora"

	e.note("pulling the model %s and the data set %s", cfg.Model, cfg.Dataset.Path)
	p, err := local.plan(ctx, cfg, false)
	if err != nil {
		return err
	}
	defer p.classifier.Close()
	// One evaluation of either training, at its end, keeps the whole under a minute.
	p.job.Config.EvalStrategy, p.job.Config.EvalSteps = "steps", float64(train.Steps(p.job.Config, p.job.Train.Source.Len()))
	r := &quickResult{Dir: dir, Engine: p.engine.Spec, Adapter: cfg.Training.OutputDir, Merged: filepath.Join(dir, "merged")}
	e.note("training the classifier alone, %d epochs", epochs)
	if r.LinearAccuracy, err = e.linearProbe(ctx, p); err != nil {
		return err
	}
	r.Trainable, r.All = p.job.Adapter.Count()
	e.note("training LoRA and the classifier, %d epochs: %s of %s parameters", epochs, thousands(r.Trainable), thousands(r.All))
	p.job.Report = e.trainingEvents()
	result, err := train.Run(ctx, p.job)
	e.endProgress()
	if err != nil {
		return err
	}
	r.Accuracy = result.Evaluation.Accuracy
	e.note("pushing the adapter")
	s, err := local.finishTraining(ctx, p, result)
	if err != nil {
		return err
	}
	r.CommitURL = s.CommitURL
	e.note("merging the adapter into its base")
	if _, err := local.mergeInto(ctx, []string{r.Adapter}, mergeOptions{out: r.Merged, rounding: "peft"}); err != nil {
		return err
	}
	if err := e.compareMerged(p, r); err != nil {
		return err
	}
	r.Seconds = time.Since(start).Seconds()
	return e.result(r.text, r)
}

// localHub serves a Hub of its own from dir with the embedded repositories on it. The env that it
// returns has that Hub as its endpoint, and a cache in dir.
func (e *env) localHub(ctx context.Context, dir string) (local *env, stop func(), err error) {
	server, err := hubserve.New(filepath.Join(dir, "hub"), hubserve.WithLogger(e.logger()))
	if err != nil {
		return nil, nil, err
	}
	for _, r := range []struct{ kind, id, dir string }{{"model", "hubtool/tiny-vit", "tiny-vit"}, {"dataset", "hubtool/digits", "digits"}} {
		files := map[string][]byte{}
		sub, err := fs.Sub(testdata.Quickstart, r.dir)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the embedded data: %w", err)
		}
		err = fs.WalkDir(sub, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files[path], err = fs.ReadFile(sub, path)
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("reading the embedded data: %w", err)
		}
		if _, err := server.Commit(r.kind, r.id, "main", "Add "+r.dir, files); err != nil {
			return nil, nil, err
		}
	}
	ln, err := listen(ctx, "127.0.0.1:0", false)
	if err != nil {
		return nil, nil, err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- serve(serving, ln, server) }()
	local = &env{streams: e.streams, endpoint: "http://" + ln.Addr().String(), cacheDir: filepath.Join(dir, "cache"), token: "hf_quickstart", ownHub: true,
		progressMode: "none", engine: e.engine, json: e.json, quiet: e.quiet, verbose: e.verbose}
	return local, func() {
		cancel()
		if err := <-done; err != nil {
			e.note("%v", err)
		}
	}, nil
}

// linearProbe trains the classifier on frozen features and returns its accuracy.
func (e *env) linearProbe(ctx context.Context, p *plan) (float64, error) {
	job := p.job
	head := p.classifier.Model.Head()
	var err error
	if job.Adapter, err = adapters.NewHead(train.Base(p.classifier.Model, p.classifier.Weights), head+".weight", head+".bias"); err != nil {
		return 0, err
	}
	job.Config.SaveStrategy, job.Report = "no", e.trainingEvents()
	result, err := train.Run(ctx, job)
	e.endProgress()
	if err != nil {
		return 0, err
	}
	return result.Evaluation.Accuracy, nil
}

// compareMerged predicts test images with the adapter on its base and with the merged model.
func (e *env) compareMerged(p *plan, r *quickResult) error {
	const images, shown = 64, 5
	adapted := *p.classifier
	adapted.Adapter = p.job.Adapter
	merged, err := train.Open(r.Merged, train.OpenOptions{Backend: p.engine.Backend})
	if err != nil {
		return err
	}
	defer merged.Close()
	var pixels []byte
	for i := range images {
		row, err := p.job.Eval.Source.At(i)
		if err != nil {
			return err
		}
		img, err := p.classifier.Processor.Load(row.Image, vision.Rand(0, 0, i))
		if err != nil {
			return err
		}
		pixels = append(pixels, img.Pix...)
		if i < shown {
			r.Truth = append(r.Truth, p.job.Labels[row.Label])
		}
	}
	var logits [2][]float32
	for i, c := range []*train.Classifier{&adapted, merged} {
		predictor, err := c.Predictor(c.Processor, images)
		if err != nil {
			return err
		}
		if logits[i], err = predictor.Logits(pixels, images); err != nil {
			return err
		}
		predictor.Close()
	}
	for i, v := range logits[0] {
		r.MaxAbsLogit = max(r.MaxAbsLogit, math.Abs(float64(v-logits[1][i])))
	}
	r.Images = images
	if r.MaxAbsLogit > 1e-3 {
		return checkFailed("comparing the merged model with the adapter", fmt.Sprintf("logits differ by up to %.2g", r.MaxAbsLogit))
	}
	n := len(merged.Labels)
	for i := range shown {
		r.Predictions = append(r.Predictions, prediction{Image: fmt.Sprintf("test image %d", i), Predictions: topK(logits[1][i*n:(i+1)*n], merged.Labels, 1)})
	}
	return nil
}

func (r *quickResult) text(w io.Writer) {
	fmt.Fprintf(w, "accuracy on 360 test images   here      PEFT, same budget\n")
	fmt.Fprintf(w, "  classifier alone            %.1f %%    %s %%\n", 100*r.LinearAccuracy, peftLinear)
	fmt.Fprintf(w, "  LoRA and classifier         %.1f %%    %s %%\n", 100*r.Accuracy, peftLoRA)
	fmt.Fprintf(w, "merged and adapted logits of %d images differ by at most %.1g\n", r.Images, r.MaxAbsLogit)
	for i, p := range r.Predictions {
		best := p.Predictions[0]
		fmt.Fprintf(w, "  %s, a %s: %s (%.2f)\n", p.Image, r.Truth[i], best.Label, best.Score)
	}
	fmt.Fprintf(w, "adapter   %s (pushed to %s)\nmerged    %s\n%.0f s on engine %s\n\n", r.Adapter, r.CommitURL, r.Merged, r.Seconds, r.Engine)
	fmt.Fprintf(w, "next: hubtool init food101 -o food101.yaml && hubtool train food101.yaml\n")
}
