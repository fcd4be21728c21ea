package main

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/vision"
)

type verifyOptions struct {
	base, images        string
	rows                int
	untie, allowMissing bool
}

func (e *env) verifyCommand() *cli.Command {
	o := verifyOptions{}
	return &cli.Command{
		Name:      "verify",
		Usage:     "check that a merged model is base and adapter: structure, numbers and, on images, behaviour",
		ArgsUsage: "ADAPTER[*W] MERGED",
		Description: "Merged weights are recomputed in float64 and may be one step of their type off, others must have the\n" +
			"same bits. Exit code 8: there is a difference.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "base model; default: the one that the adapter's config names", Destination: &o.base},
			&cli.StringFlag{Name: "images", Usage: "compare predictions for the images below `DIR`", Destination: &o.images},
			count("rows", "recompute `N` rows of every merged weight; 0: all, or 64 where that would take long", 0, &o.rows),
			&cli.BoolFlag{Name: "untie", Usage: "the merge was made with --untie", Destination: &o.untie},
			&cli.BoolFlag{Name: "allow-missing", Usage: "the merge was made with --allow-missing", Destination: &o.allowMissing},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usage("reading the command line", "verify takes an ADAPTER and a MERGED model")
			}
			return e.verify(c.Context, c.Args().Get(0), c.Args().Get(1), o)
		},
	}
}

// verifyReport is what verify prints.
type verifyReport struct {
	OK bool `json:"ok"`
	*adapters.Verification
	Config    []string   `json:"config"` // what the config says wrong
	Behaviour *behaviour `json:"behaviour,omitempty"`
}

// behaviour compares the logits of the adapted base with those of the merged model, in float32.
type behaviour struct {
	Images        int     `json:"images"`
	MaxAbsLogit   float64 `json:"max_abs_logit"`
	ArgmaxChanges int     `json:"argmax_changes"`
	tolerance     float64
}

func (r *verifyReport) problems() []string {
	var list []string
	for _, s := range []struct {
		what  string
		names []string
	}{{"missing", r.Structure.Missing}, {"unexpected", r.Structure.Unexpected}, {"mismatched", r.Structure.Mismatched}, {"config", r.Config}} {
		for _, name := range s.names {
			list = append(list, s.what+" "+name)
		}
	}
	if n := r.Numbers; n.Different > 0 {
		list = append(list, fmt.Sprintf("%d elements differ, in %q among others, by up to %.3g", n.Different, n.Where, n.MaxAbs))
	}
	if b := r.Behaviour; b != nil && (b.ArgmaxChanges > 0 || b.MaxAbsLogit > b.tolerance) {
		list = append(list, fmt.Sprintf("logits differ by up to %.3g, and %d of %d images change their class", b.MaxAbsLogit, b.ArgmaxChanges, b.Images))
	}
	return list
}

func (r *verifyReport) text(w io.Writer) {
	n := r.Numbers
	fmt.Fprintf(w, "structure  %d tensors\n", r.Structure.Tensors)
	fmt.Fprintf(w, "numbers    %d elements checked, largest difference %.3g (%.2g steps of the type), %d too large\n", n.Elements, n.MaxAbs, n.MaxULP, n.Different)
	if b := r.Behaviour; b != nil {
		fmt.Fprintf(w, "behaviour  %d images, logits differ by at most %.3g, %d change their class\n", b.Images, b.MaxAbsLogit, b.ArgmaxChanges)
	}
	for _, p := range r.problems() {
		fmt.Fprintf(w, "problem    %s\n", oneLine(p))
	}
}

func (e *env) verify(ctx context.Context, adapter, merged string, o verifyOptions) error {
	in, err := e.mergeInputs(ctx, []string{adapter}, o.base)
	if err != nil {
		return err
	}
	mergedDir, err := e.model(ctx, merged)
	if err != nil {
		return err
	}
	base, err := e.openBase(ctx, in.names[0], in.base, false)
	if err != nil {
		return err
	}
	defer base.Close()
	m, err := e.openForMerge(base, in.dirs)
	if err != nil {
		return err
	}
	report, err := e.verifyNumbers(ctx, m, in.weights, mergedDir, o)
	if err != nil {
		return err
	}
	if o.images != "" {
		if in.weights[0] != 1 {
			return usage("reading the command line", "--images compares with the adapter as it is: leave out the weight")
		}
		if report.Behaviour, err = e.compareOnImages(ctx, base.dir, in.dirs[0], mergedDir, o.images); err != nil {
			return err
		}
	}
	problems := report.problems()
	report.OK = len(problems) == 0
	if err := e.result(report.text, report); err != nil {
		return err
	}
	if !report.OK {
		return checkFailed(fmt.Sprintf("verifying %q", merged), problems...)
	}
	return nil
}

// verifyNumbers compares everything but behaviour.
func (e *env) verifyNumbers(ctx context.Context, m toMerge, weights []float64, mergedDir string, o verifyOptions) (*verifyReport, error) {
	plan, err := adapters.PlanMerge(m.checkpoint, m.config, m.adapters, adapters.MergeOptions{
		Weights: weights, Labels: m.labels, Untie: o.untie, AllowMissing: o.allowMissing})
	if err != nil {
		return nil, err
	}
	ck, err := format.Open(mergedDir)
	if err != nil {
		return nil, err
	}
	defer ck.Close()
	const patience = 1 << 28 // elements of the model that are recomputed without being asked to
	rows := o.rows
	if rows == 0 && plan.Bytes() > 2*patience {
		rows = 64
	}
	r := &verifyReport{Config: []string{}}
	r.Verification, err = plan.Verify(ctx, ck, rows, func(done, total int) {
		e.report(step{Task: "verifying", Done: int64(done), Total: int64(total), Unit: "tensors"})
	})
	if err != nil {
		return nil, err
	}
	cfg, err := format.ReadModelConfig(mergedDir)
	if err != nil {
		return nil, err
	}
	if want, got := m.config.Labels(), cfg.Labels(); len(want) != len(got) {
		r.Config = append(r.Config, fmt.Sprintf("has %d labels, expected %d", len(got), len(want)))
	}
	if cfg.ModelType != m.config.ModelType {
		r.Config = append(r.Config, fmt.Sprintf("has model_type %q, expected %q", cfg.ModelType, m.config.ModelType))
	}
	return r, nil
}

// verifyMerged checks a merge before it gets its name.
func (e *env) verifyMerged(ctx context.Context, dir string, m toMerge, weights []float64, o mergeOptions) error {
	r, err := e.verifyNumbers(ctx, m, weights, dir, verifyOptions{rows: 16, untie: o.untie, allowMissing: o.allowMissing})
	if err != nil {
		return err
	}
	if problems := r.problems(); len(problems) > 0 {
		return checkFailed("verifying the merge", problems...)
	}
	return nil
}

// compareOnImages predicts with the adapter on its base and with the merged model.
func (e *env) compareOnImages(ctx context.Context, base, adapter, merged, images string) (*behaviour, error) {
	eng, err := e.openEngine(ctx, engine.Opener{})
	if err != nil {
		return nil, err
	}
	files, err := imagePaths([]string{images})
	if err != nil {
		return nil, err
	}
	var classifiers [2]*train.Classifier
	for i, o := range []struct{ dir, adapter string }{{base, adapter}, {merged, ""}} {
		c, err := train.Open(o.dir, train.OpenOptions{Backend: eng.Backend, Adapter: o.adapter})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		classifiers[i] = c
	}
	const batch = 16
	b := &behaviour{tolerance: 1e-3}
	var predictors [2]*model.Predictor
	for i, c := range classifiers {
		if predictors[i], err = c.Predictor(classifiers[0].Processor, batch); err != nil {
			return nil, err
		}
		defer predictors[i].Close()
	}
	for done := 0; done < len(files); done += batch {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		part := files[done:min(done+batch, len(files))]
		var pixels []byte
		for i, file := range part {
			data, err := e.readImage(ctx, file)
			if err != nil {
				return nil, fmt.Errorf("reading the image %q: %w", file, err)
			}
			img, err := classifiers[0].Processor.Load(data, vision.Rand(0, 0, done+i))
			if err != nil {
				return nil, &problemError{is: dataset.ErrDamaged, doing: "reading images", problems: []string{fmt.Sprintf("%q: %v", file, err)}, hint: "name a folder of sound images with --images"}
			}
			pixels = append(pixels, img.Pix...)
		}
		var logits [2][]float32
		for i, p := range predictors {
			if logits[i], err = p.Logits(pixels, len(part)); err != nil {
				return nil, err
			}
		}
		b.compare(logits[0], logits[1], len(part))
		e.report(step{Task: "comparing", Done: int64(done + len(part)), Total: int64(len(files)), Unit: "images"})
	}
	return b, nil
}

// compare notes the differences of n rows of logits. Half-precision weights were rounded by the
// merge, so that large logits may differ by more.
func (b *behaviour) compare(adapted, merged []float32, n int) {
	labels := len(adapted) / n
	b.Images += n
	for i := range n {
		x, y := adapted[i*labels:(i+1)*labels], merged[i*labels:(i+1)*labels]
		if argmax(x) != argmax(y) {
			b.ArgmaxChanges++
		}
		for j := range x {
			b.MaxAbsLogit = max(b.MaxAbsLogit, math.Abs(float64(x[j]-y[j])))
			b.tolerance = max(b.tolerance, 0.02*math.Abs(float64(x[j])))
		}
	}
}

func argmax(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}
