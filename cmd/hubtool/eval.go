package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format/dataset"
)

type evalOptions struct {
	base, dataset, config, split, imageColumn, labelColumn, require, precision string
	adapters                                                                   cli.StringSlice
	batch                                                                      int
	skipBroken                                                                 bool
}

func (e *env) evalCommand() *cli.Command {
	o := evalOptions{batch: 32}
	return &cli.Command{
		Name:      "eval",
		Usage:     "measure a model's or an adapter's accuracy on a data set",
		ArgsUsage: "[MODEL]",
		Description: "MODEL is an adapter, whose base is found from its config, or a whole model. Images are prepared as\n" +
			"preprocessor_config.json says. With --adapter, several adapters on one base are compared; MODEL is their\n" +
			"base or the first of them, and may be missing where the first --adapter names its base.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "base model of an adapter, instead of the one in its config", Destination: &o.base},
			adapterFlag(&o.adapters),
			&cli.StringFlag{Name: "dataset", Usage: "data set to evaluate on", Required: true, Destination: &o.dataset},
			&cli.StringFlag{Name: "dataset-config", Usage: "configuration, if the data set has several", Destination: &o.config},
			&cli.StringFlag{Name: "split", Usage: "split, such as test or train[:1000]", Value: "test", Destination: &o.split},
			&cli.StringFlag{Name: "image-column", Usage: "column with the images; default: the only one", Destination: &o.imageColumn},
			&cli.StringFlag{Name: "label-column", Usage: "column with the class; default: the only one", Destination: &o.labelColumn},
			count("batch-size", "images at a time", 1, &o.batch),
			&cli.BoolFlag{Name: "skip-broken", Usage: "leave damaged images out and say how many", Destination: &o.skipBroken},
			precisionFlag(&o.precision),
			&cli.StringFlag{Name: "require", Usage: "exit with 8 unless it holds, such as accuracy>=0.9 or loss<0.5", Destination: &o.require},
		},
		Action: func(c *cli.Context) error { return e.eval(c, o) },
	}
}

func (e *env) eval(c *cli.Context, o evalOptions) error {
	required, err := parseRequirement(o.require)
	if err != nil {
		return err
	}
	ds, err := e.openDataset(c.Context, o.dataset, defaultCacheSize, dataset.Options{Config: o.config, ImageColumn: o.imageColumn, LabelColumn: o.labelColumn})
	if err != nil {
		return err
	}
	rows, err := ds.Select(o.split)
	if err != nil {
		return err
	}
	all, err := e.contenders(c.Context, c.Args().First(), o.base, o.precision, o.adapters.Value())
	if err != nil {
		return err
	}
	defer closeAll(all)
	var failed []string
	for _, m := range all {
		result, err := e.evaluate(c.Context, m, rows, o)
		if err != nil {
			return err
		}
		scores := evaluation{Evaluation: result}
		if len(all) > 1 {
			scores.Adapter = m.name
		}
		if err := e.result(scores.text, scores); err != nil {
			return err
		}
		if problem := required.check(result); problem != "" {
			failed = append(failed, strings.TrimPrefix(scores.Adapter+": "+problem, ": "))
		}
	}
	if len(failed) > 0 {
		return checkFailed("evaluating", failed...)
	}
	return nil
}

// evaluation is what eval prints, for each adapter where several are compared.
type evaluation struct {
	Adapter string `json:"adapter,omitempty"`
	*train.Evaluation
}

func (e *env) evaluate(ctx context.Context, m contender, rows *dataset.Rows, o evalOptions) (*train.Evaluation, error) {
	rows, err := e.sameClasses(rows, m.Labels)
	if err != nil {
		return nil, err
	}
	p, err := m.Predictor(m.Processor, o.batch)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	l := &train.Loader{Source: rows, Pipeline: m.Processor, Batch: o.batch, Classes: len(m.Labels), SkipBroken: o.skipBroken}
	result, err := train.Evaluate(ctx, p, l, m.Labels, 0, func(done, total int) {
		e.report(step{Task: "evaluating", Done: int64(done), Total: int64(total), Unit: "images"})
	})
	if err != nil {
		return nil, err
	}
	e.brokenNote(l.Broken())
	return result, nil
}

// sameClasses numbers the classes of rows as the model does, by their names, and leaves images of classes out that it does
// not know. Where no name is the same, as with LABEL_0, the data set's numbers are taken to be the model's.
func (e *env) sameClasses(rows *dataset.Rows, labels []string) (*dataset.Rows, error) {
	have := rows.ClassNames()
	switch {
	case slices.Equal(have, labels):
		return rows, nil
	case !slices.ContainsFunc(have, func(name string) bool { return slices.Contains(labels, name) }):
		if !numbered(have) && !numbered(labels) {
			e.note("no class has the same name in the model (%s) and the data set (%s): they are compared by their numbers", few(labels), few(have))
		}
		return rows, nil
	}
	same := rows.NumberedAs(labels)
	if same.Len() == 0 {
		return nil, fmt.Errorf("%w: none of the %d images is of a class that the model has (%s)", dataset.ErrClass, rows.Len(), few(labels))
	}
	if left := rows.Len() - same.Len(); left > 0 {
		e.note("%d images are of classes that the model does not have: they are left out", left)
	}
	return same, nil
}

var bareNumber = regexp.MustCompile(`^(LABEL_)?[0-9]+$`)

// numbered tells whether classes have no names beyond their numbers.
func numbered(classes []string) bool {
	return !slices.ContainsFunc(classes, func(name string) bool { return !bareNumber.MatchString(name) })
}

// few names the first of many.
func few(names []string) string {
	const enough = 4
	if len(names) > enough {
		return strings.Join(names[:enough], ", ") + " …"
	}
	return strings.Join(names, ", ")
}

func (r evaluation) text(w io.Writer) {
	if r.Adapter != "" {
		fmt.Fprintf(w, "%s: ", r.Adapter)
	}
	fmt.Fprintf(w, "accuracy %.4f   loss %.4f   %d images\n\n%-24s %6s %9s %6s\n", r.Accuracy, r.Loss, r.N, "class", "images", "precision", "recall")
	for _, c := range r.PerClass {
		fmt.Fprintf(w, "%-24s %6d %9.4f %6.4f\n", oneLine(c.Label), c.N, c.Precision, c.Recall)
	}
}

// requirement is a bound on a metric; the zero value always holds.
type requirement struct {
	text, metric, op string
	bound            float64
}

var requirementSyntax = regexp.MustCompile(`^\s*(accuracy|loss)\s*(>=|<=|>|<)\s*(\S+?)\s*$`)

func parseRequirement(text string) (requirement, error) {
	if text == "" {
		return requirement{}, nil
	}
	m := requirementSyntax.FindStringSubmatch(text)
	if m == nil {
		return requirement{}, usage("reading the command line", fmt.Sprintf("--require is %q, but must be like accuracy>=0.9 or loss<0.5", text))
	}
	bound, err := strconv.ParseFloat(m[3], 64)
	if err != nil {
		return requirement{}, usage("reading the command line", fmt.Sprintf("--require is %q, but %q is no number", text, m[3]))
	}
	return requirement{text, m[1], m[2], bound}, nil
}

// check says what is wrong, nothing if the bound is kept.
func (r requirement) check(e *train.Evaluation) string {
	value := map[string]float64{"accuracy": e.Accuracy, "loss": e.Loss}[r.metric]
	holds := map[string]bool{"": true, ">=": value >= r.bound, "<=": value <= r.bound, ">": value > r.bound, "<": value < r.bound}
	if holds[r.op] {
		return ""
	}
	return fmt.Sprintf("%s is %.4f, but %s is required", r.metric, value, r.text)
}
