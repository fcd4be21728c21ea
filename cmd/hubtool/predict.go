package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model"
)

type predictOptions struct {
	base, precision                                  string
	adapters                                         cli.StringSlice
	dataset, config, split, imageColumn, labelColumn string
	out, shard                                       string
	topK, batch                                      int
	logits, force                                    bool
}

func (e *env) predictCommand() *cli.Command {
	o := predictOptions{topK: 5, batch: 16}
	return &cli.Command{
		Name:      "predict",
		Usage:     "classify images",
		ArgsUsage: "[MODEL] [IMAGE...]",
		Description: "IMAGE is a file, a folder, a glob, an http(s) address or - for stdin; --dataset names images instead. An image\n" +
			"that cannot be read is reported, the others go on, and the exit code is 6. With --out an interrupted run goes on\n" +
			"where it was, and with --shard many machines share the images, each with a file of its own. With --adapter,\n" +
			"several adapters on one base are compared; MODEL is their base or the first of them, and may be missing where\n" +
			"the first --adapter names its base.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "base model of an adapter, instead of the one in its config", Destination: &o.base},
			adapterFlag(&o.adapters),
			count("top-k", "so many classes of each image", 1, &o.topK),
			count("batch-size", "images at a time", 1, &o.batch),
			precisionFlag(&o.precision),
			&cli.BoolFlag{Name: "logits", Usage: "with --json or --out: all logits as well", Destination: &o.logits},
			&cli.StringFlag{Name: "dataset", Usage: "data set whose images are classified", Destination: &o.dataset},
			&cli.StringFlag{Name: "dataset-config", Usage: "configuration, if the data set has several", Destination: &o.config},
			&cli.StringFlag{Name: "split", Usage: "split of the data set, such as test or train[:1000]; default: test", Destination: &o.split},
			&cli.StringFlag{Name: "image-column", Usage: "column with the images; default: the only one", Destination: &o.imageColumn},
			&cli.StringFlag{Name: "label-column", Usage: "column with the class; default: the only one", Destination: &o.labelColumn},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `FILE`.jsonl, .csv or .parquet", Destination: &o.out},
			&cli.StringFlag{Name: "shard", Usage: "only part `I/N` of the images, from 0/N on; auto[/N]: by the index of a Kubernetes or Slurm task", Destination: &o.shard},
			&cli.BoolFlag{Name: "force", Usage: "with --out: begin anew, and replace FILE", Destination: &o.force},
		},
		Action: func(c *cli.Context) error {
			model, images := splitModel(c.Args().Slice(), o.adapters.Value())
			return e.predict(c.Context, model, images, o)
		},
	}
}

// problems are what is wrong with the flags together.
func (o *predictOptions) problems(images []string, json bool) []string {
	var p []string
	refuse := func(bad bool, why string) {
		if bad {
			p = append(p, why)
		}
	}
	refuse(len(images) == 0 && o.dataset == "", "name at least one image, or a data set with --dataset")
	refuse(len(images) > 0 && o.dataset != "", "IMAGE and --dataset exclude each other")
	refuse(o.logits && !json && o.out == "", "--logits does nothing without --json or --out")
	refuse(o.logits && filepath.Ext(o.out) == ".csv", "--logits does nothing in a CSV file")
	refuse(o.force && o.out == "", "--force does nothing without --out")
	refuse(o.out != "" && predictionFiles[filepath.Ext(o.out)] == nil, fmt.Sprintf("--out is %q, but must end in .jsonl, .csv or .parquet", o.out))
	if o.dataset == "" {
		for _, f := range [][2]string{{"dataset-config", o.config}, {"split", o.split}, {"image-column", o.imageColumn}, {"label-column", o.labelColumn}} {
			refuse(f[1] != "", fmt.Sprintf("--%s does nothing without --dataset", f[0]))
		}
	}
	return p
}

// prediction is one line of predict --json.
type prediction struct {
	Image       string    `json:"image" parquet:"image"`
	Truth       string    `json:"truth,omitempty" parquet:"truth,optional"` // the class that a data set names
	Predictions []guess   `json:"predictions" parquet:"predictions,list"`
	Logits      []float32 `json:"logits,omitempty" parquet:"logits,list"`
}

type guess struct {
	Label string  `json:"label" parquet:"label"`
	ID    int     `json:"id" parquet:"id"`
	Score float64 `json:"score" parquet:"score"`
}

func (e *env) predict(ctx context.Context, ref string, images []string, o predictOptions) error {
	if p := o.problems(images, e.json); len(p) > 0 {
		return usage("reading the command line", p...)
	}
	part, err := parseShard(o.shard)
	if err != nil {
		return err
	}
	var source *pictures
	if o.dataset != "" {
		source, err = e.pictureRows(ctx, o.dataset, cmp.Or(o.split, "test"), dataset.Options{Config: o.config, ImageColumn: o.imageColumn, LabelColumn: o.labelColumn})
	} else {
		source, err = e.pictureFiles(images)
	}
	if err != nil {
		return err
	}
	from, to := part.of(len(source.names))
	all, err := e.contenders(ctx, ref, o.base, o.precision, o.adapters.Value())
	if err != nil {
		return err
	}
	defer closeAll(all)
	if len(all) > 1 && o.out != "" {
		return usage("reading the command line", "--out holds the predictions of one model, but several are compared")
	}
	var predictors []*model.Predictor
	for _, c := range all {
		p, err := c.Predictor(c.Processor, o.batch)
		if err != nil {
			return err
		}
		defer p.Close()
		predictors = append(predictors, p)
	}

	var todo []int
	for i := from; i < to; i++ {
		todo = append(todo, i)
	}
	emit := func(_ int, answers []*prediction) error { return e.printPredictions(all, answers) }
	var file *predictionFile
	if o.out != "" {
		ext := filepath.Ext(o.out)
		path := part.name(strings.TrimSuffix(o.out, ext), ext)
		if file, err = openPredictions(path, journalKey(ref, o, all[0].Classifier, source.names[from:to]), o.force); err != nil {
			return err
		}
		defer file.Close()
		if len(file.done) > 0 {
			e.note("%d images are classified already: going on", len(file.done))
		}
		todo = slices.DeleteFunc(todo, func(i int) bool { return file.done[i] })
		emit = func(at int, answers []*prediction) error { return file.add(at, answers[0]) }
	}
	unreadable, err := e.classify(ctx, all, predictors, source, todo, o, emit)
	if err != nil {
		return err
	}
	if file != nil {
		if err := file.finish(); err != nil {
			return err
		}
		result := map[string]any{"out": file.path, "images": to - from, "classified": to - from - len(unreadable), "unreadable": len(unreadable)}
		if err := e.result(func(w io.Writer) { fmt.Fprintln(w, file.path) }, result); err != nil {
			return err
		}
	}
	if len(unreadable) > 0 {
		broken := &problemError{is: dataset.ErrDamaged, doing: "predicting", problems: unreadable}
		if len(unreadable) < len(todo) {
			broken.hint = "the other images are classified"
		}
		return broken
	}
	return nil
}

// classify hands the classes that each classifier finds for the listed images to emit, and returns why
// some images could not be read. What is compared prepares images alike.
func (e *env) classify(ctx context.Context, all []contender, predictors []*model.Predictor, source *pictures, todo []int, o predictOptions, emit func(int, []*prediction) error) (unreadable []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of the preparation, where an error ends it early
	done := 0
	for b := range source.prepare(ctx, todo, o.batch, all[0].Processor) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		unreadable = append(unreadable, b.bad...)
		done += len(b.index) + len(b.bad)
		if len(b.index) == 0 {
			continue
		}
		answers := make([][]*prediction, len(b.index)) // of each image
		for k, c := range all {
			logits, err := predictors[k].Logits(b.pixels, len(b.index))
			if err != nil {
				return nil, err
			}
			for i, at := range b.index {
				row := logits[i*len(c.Labels) : (i+1)*len(c.Labels)]
				answer := &prediction{Image: source.names[at], Truth: b.truths[i], Predictions: topK(row, c.Labels, o.topK)}
				if o.logits {
					answer.Logits = row
				}
				answers[i] = append(answers[i], answer)
			}
		}
		for i, at := range b.index {
			if err := emit(at, answers[i]); err != nil {
				return nil, err
			}
		}
		if o.out != "" {
			e.report(step{Task: "predicting", Done: int64(done), Total: int64(len(todo)), Unit: "images"})
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return unreadable, nil
}

// comparison is one line of predict --json where several adapters are compared.
type comparison struct {
	Image    string   `json:"image"`
	Truth    string   `json:"truth,omitempty"`
	Adapters []answer `json:"adapters"`
	Agree    bool     `json:"agree"` // whether all find the same label likeliest
}

type answer struct {
	Adapter     string    `json:"adapter"`
	Predictions []guess   `json:"predictions"`
	Logits      []float32 `json:"logits,omitempty"`
}

// printPredictions prints the likeliest class of an image on stdout, where several are compared that
// of each, in lines with the adapter's name after the image.
func (e *env) printPredictions(all []contender, answers []*prediction) error {
	first := answers[0]
	best := first.Predictions[0]
	if len(all) == 1 {
		return e.result(func(w io.Writer) { fmt.Fprintf(w, "%s\t%s\t%.4f\n", first.Image, oneLine(best.Label), best.Score) }, first)
	}
	c := comparison{Image: first.Image, Truth: first.Truth, Agree: true}
	for i, a := range answers {
		c.Adapters = append(c.Adapters, answer{all[i].name, a.Predictions, a.Logits})
		c.Agree = c.Agree && a.Predictions[0].Label == best.Label
	}
	return e.result(func(w io.Writer) {
		for _, a := range c.Adapters {
			fmt.Fprintf(w, "%s\t%s\t%s\t%.4f\n", c.Image, a.Adapter, oneLine(a.Predictions[0].Label), a.Predictions[0].Score)
		}
	}, c)
}

// topK lists the likeliest classes with their probabilities.
func topK(logits []float32, labels []string, k int) []guess {
	top := float64(slices.Max(logits))
	var sum float64
	guesses := make([]guess, len(logits))
	for i, v := range logits {
		guesses[i] = guess{labels[i], i, math.Exp(float64(v) - top)}
		sum += guesses[i].Score
	}
	for i := range guesses {
		guesses[i].Score /= sum
	}
	slices.SortStableFunc(guesses, func(a, b guess) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return 0
	})
	return guesses[:min(k, len(guesses))]
}
