package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
	"github.com/hubtool/hubtool/model/vision/survey"
)

type datasetOptions struct {
	config, imageColumn, labelColumn string
	split, out, transforms           string
	size, workers                    int
	seed                             uint64
}

func (e *env) datasetCommand() *cli.Command {
	o := datasetOptions{size: 224}
	columns := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "configuration `NAME`, if the data set has several", Destination: &o.config},
		&cli.StringFlag{Name: "image-column", Usage: "column with the images; default: the only one", Destination: &o.imageColumn},
		&cli.StringFlag{Name: "label-column", Usage: "column with the class; default: the only one", Destination: &o.labelColumn},
	}
	split := func(value string) cli.Flag {
		return &cli.StringFlag{Name: "split", Usage: "split, such as test or train[:1000]", Value: value, Destination: &o.split}
	}
	workers := count("workers", "images decoded at a time; 0: one per core", 0, &o.workers)
	return &cli.Command{
		Name:        "dataset",
		Usage:       "look at a data set: its splits and classes, its images, what training sees of them",
		Description: "REF is a repository, or a folder of Parquet files, images, tar archives or tables that name images.",
		Subcommands: []*cli.Command{
			{
				Name: "ls", Usage: "list configurations, splits, classes and sizes", ArgsUsage: "REF", Flags: columns,
				Action: func(c *cli.Context) error { return e.datasetList(c, o) },
			},
			{
				Name: "show", Usage: "draw a contact sheet of samples after the transforms, as training sees them", ArgsUsage: "REF",
				Description: "Random transforms are those of epoch 0 and the seed, for images at their place in the split. A damaged image is\n" +
					"drawn grey, and the exit code is 6 at the end.",
				Flags: append([]cli.Flag{
					split("train[:16]"),
					&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "`FILE`.png, or .html with every sample's place", Required: true, Destination: &o.out},
					&cli.StringFlag{Name: "transforms", Usage: "list as in transforms.train, as YAML; default: those of train", Destination: &o.transforms},
					count("size", "height and width of the model's images, for the default transforms", 1, &o.size),
					&cli.Uint64Flag{Name: "seed", Usage: "seed of training", Value: 42, Destination: &o.seed}, workers,
				}, columns...),
				Action: func(c *cli.Context) error { return e.datasetShow(c, o) },
			},
			{
				Name: "stats", Usage: "decode all images: classes, formats, sizes, mean and deviation, damaged images", ArgsUsage: "REF",
				Description: "Damaged images are listed by file and row, the rest is counted, and the exit code is 6 at the end.",
				Flags:       append([]cli.Flag{split("train"), workers}, columns...),
				Action:      func(c *cli.Context) error { return e.datasetStats(c, o) },
			},
		},
	}
}

// openForSurvey opens a data set of which only the first file is here, where it is a repository's.
func (e *env) openForSurvey(ctx context.Context, ref string, o datasetOptions) (*dataset.Dataset, error) {
	return e.openArriving(ctx, ref, e.datasetOptions(dataset.Options{Config: o.config, ImageColumn: o.imageColumn, LabelColumn: o.labelColumn, Unlabelled: true}, defaultCacheSize))
}

func (e *env) datasetList(c *cli.Context, o datasetOptions) error {
	d, err := e.openForSurvey(c.Context, c.Args().First(), o)
	if err != nil {
		return err
	}
	defer d.Close()
	found, err := survey.List(d)
	if err != nil {
		return err
	}
	return e.result(func(w io.Writer) {
		if len(found.Configs) > 1 {
			fmt.Fprintf(w, "configurations  %s (this is %s)\n", oneLine(strings.Join(found.Configs, ", ")), oneLine(found.Config))
		}
		for _, s := range found.Splits {
			fmt.Fprintf(w, "%-14s %9d rows  %10s\n", oneLine(s.Name), s.Rows, byteSize(s.Bytes))
		}
		if len(found.Classes) == 0 {
			fmt.Fprintln(w, "no labels")
			return
		}
		fmt.Fprintf(w, "%d classes: %s\n", len(found.Classes), oneLine(strings.Join(found.Classes, ", ")))
	}, found)
}

func (e *env) datasetStats(c *cli.Context, o datasetOptions) error {
	opts := survey.Options{Workers: o.workers, Progress: func(done, total int) {
		e.report(step{Task: "reading", Done: int64(done), Total: int64(total), Unit: "images"})
	}}
	rows, err := e.surveyedRows(c, o)
	if err != nil {
		return err
	}
	s, err := survey.Measure(c.Context, rows, opts)
	if err != nil {
		return err
	}
	if err := e.result(func(w io.Writer) { statsText(w, s) }, s); err != nil {
		return err
	}
	return brokenError(s.Broken)
}

func (e *env) surveyedRows(c *cli.Context, o datasetOptions) (*dataset.Rows, error) {
	d, err := e.openForSurvey(c.Context, c.Args().First(), o)
	if err != nil {
		return nil, err
	}
	rows, err := d.Select(o.split)
	if err != nil {
		return nil, err
	}
	err = d.Fetch(c.Context, rows)
	e.endProgress()
	return rows, err
}

func statsText(w io.Writer, s *survey.Stats) {
	spread := func(name, unit string, r survey.Range) {
		fmt.Fprintf(w, "%-10s %d to %d, median %d, mean %.1f%s\n", name, r.Min, r.Max, r.Median, r.Mean, unit)
	}
	fmt.Fprintf(w, "%-10s %d, %d of them damaged\n", "images", s.Rows, len(s.Broken))
	for _, f := range s.Formats {
		fmt.Fprintf(w, "%-10s %d\n", f.Format, f.Images)
	}
	spread("width", " pixels", s.Width)
	spread("height", " pixels", s.Height)
	spread("size", " bytes", s.Bytes)
	fmt.Fprintf(w, "%-10s %.4f %.4f %.4f\n%-10s %.4f %.4f %.4f\n", "mean", s.Mean[0], s.Mean[1], s.Mean[2], "std", s.Std[0], s.Std[1], s.Std[2])
	if len(s.Classes) > 0 {
		fmt.Fprintln(w)
	}
	for _, c := range s.Classes {
		fmt.Fprintf(w, "%7d  %s\n", c.Rows, oneLine(c.Class))
	}
	if s.Unlabelled > 0 {
		fmt.Fprintf(w, "%7d  without a label\n", s.Unlabelled)
	}
	if len(s.Broken) > 0 {
		fmt.Fprintln(w)
	}
	for _, b := range s.Broken {
		fmt.Fprintf(w, "damaged: %s\n", oneLine(brokenText(b)))
	}
}

func brokenText(b survey.Broken) string {
	text := fmt.Sprintf("row %d of %q", b.Row, b.File)
	if b.Image != "" {
		text += fmt.Sprintf(", image %q", b.Image)
	}
	return text + ": " + b.Why
}

// brokenError is exit code 6 for images that were reported while the rest went on.
func brokenError(broken []survey.Broken) error {
	if len(broken) == 0 {
		return nil
	}
	var list []string
	for _, b := range broken {
		list = append(list, brokenText(b))
	}
	return &problemError{is: dataset.ErrDamaged, doing: fmt.Sprintf("reading images: %d damaged", len(broken)), problems: list,
		hint: "mend or remove them, or train with --skip-broken"}
}

func (e *env) datasetShow(c *cli.Context, o datasetOptions) error {
	kind := strings.ToLower(filepath.Ext(o.out))
	if kind != ".png" && kind != ".html" {
		return usage("reading the command line", fmt.Sprintf("--out is %q, but must end in .png or .html", o.out))
	}
	pipeline, err := o.pipeline(c.IsSet("size"))
	if err != nil {
		return err
	}
	rows, err := e.surveyedRows(c, o)
	if err != nil {
		return err
	}
	if kind == ".png" && rows.Len() > survey.MaxSheet {
		return usage("reading the command line", fmt.Sprintf("--split selects %d images, but a PNG takes %d at most: take a part, such as train[:100], or write HTML", rows.Len(), survey.MaxSheet))
	}
	samples, err := survey.Draw(c.Context, rows, pipeline, o.seed, survey.Options{Workers: o.workers})
	if err != nil {
		return err
	}
	var sheet bytes.Buffer
	if kind == ".png" {
		err = survey.WritePNG(&sheet, samples)
	} else {
		err = survey.WriteHTML(&sheet, fmt.Sprintf("%s, %s", c.Args().First(), o.split), samples)
	}
	if err != nil {
		return err
	}
	if err := format.WriteFileAtomic(o.out, sheet.Bytes()); err != nil {
		return err
	}
	broken := []survey.Broken{}
	for _, s := range samples {
		if s.Broken != nil {
			broken = append(broken, *s.Broken)
		}
	}
	if err := e.result(func(w io.Writer) { fmt.Fprintln(w, o.out) }, map[string]any{"out": o.out, "samples": samples, "broken": broken}); err != nil {
		return err
	}
	return brokenError(broken)
}

// pipeline is what --transforms or --size ask for. Normalizing does not show.
func (o datasetOptions) pipeline(sized bool) (*vision.Pipeline, error) {
	var spec any = trainTransforms(o.size, o.size)
	if o.transforms != "" {
		if sized {
			return nil, usage("reading the command line", "--size does nothing beside --transforms")
		}
		if err := yaml.Load([]byte(o.transforms), &spec); err != nil {
			return nil, usage("reading the command line", "--transforms: "+err.Error())
		}
	}
	pipeline, err := vision.ParsePipeline(spec, vision.Defaults{Std: [3]float32{1, 1, 1}, Size: o.size})
	if err != nil {
		return nil, usage("reading the command line", "--transforms: "+err.Error())
	}
	if len(pipeline.Mixers) > 0 {
		return nil, usage("reading the command line", fmt.Sprintf("--transforms: %s is for batches and does nothing to a single image: leave it out", pipeline.Mixers[0]))
	}
	return pipeline, nil
}
