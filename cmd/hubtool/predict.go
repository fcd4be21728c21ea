package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model"
)

type predictOptions struct {
	base, precision string
	topK, batch     int
	logits          bool
}

func (e *env) predictCommand() *cli.Command {
	var o predictOptions
	return &cli.Command{
		Name:        "predict",
		Usage:       "classify images",
		ArgsUsage:   "MODEL IMAGE...",
		Description: "IMAGE is a file, a folder, a glob, an http(s) address or - for stdin. An image that cannot be read is\nreported, the others go on, and the exit code is 6.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "base model of an adapter, instead of the one in its config", Destination: &o.base},
			&cli.IntFlag{Name: "top-k", Usage: "so many classes of each image", Value: 5, Destination: &o.topK},
			&cli.IntFlag{Name: "batch-size", Usage: "images at a time", Value: 16, Destination: &o.batch},
			precisionFlag(&o.precision),
			&cli.BoolFlag{Name: "logits", Usage: "with --json: all logits as well", Destination: &o.logits},
		},
		Action: func(c *cli.Context) error { return e.predict(c.Context, c.Args().First(), c.Args().Tail(), o) },
	}
}

// prediction is one line of predict --json.
type prediction struct {
	Image       string    `json:"image"`
	Predictions []guess   `json:"predictions"`
	Logits      []float32 `json:"logits,omitempty"`
}

type guess struct {
	Label string  `json:"label"`
	ID    int     `json:"id"`
	Score float64 `json:"score"`
}

func (e *env) predict(ctx context.Context, ref string, images []string, o predictOptions) error {
	switch {
	case len(images) == 0:
		return usage("reading the command line", "name at least one image")
	case o.topK < 1 || o.batch < 1:
		return usage("reading the command line", "--top-k and --batch-size must be positive")
	case o.logits && !e.json:
		return usage("reading the command line", "--logits does nothing without --json")
	}
	paths, err := imagePaths(images)
	if err != nil {
		return err
	}
	m, err := e.openModel(ctx, ref, o.base, o.precision)
	if err != nil {
		return err
	}
	defer m.Close()
	p, err := m.Predictor(m.Processor, o.batch)
	if err != nil {
		return err
	}
	defer p.Close()
	var unreadable []string
	for batch := range slices.Chunk(paths, o.batch) {
		bad, err := e.predictBatch(ctx, m, p, batch, o)
		if err != nil {
			return err
		}
		unreadable = append(unreadable, bad...)
	}
	if len(unreadable) > 0 {
		return &problemError{is: dataset.ErrDamaged, doing: "predicting", problems: unreadable, hint: "the other images are classified"}
	}
	return nil
}

// predictBatch prints the classes of the images that can be read and returns why the others cannot.
func (e *env) predictBatch(ctx context.Context, m *train.Classifier, p *model.Predictor, paths []string, o predictOptions) (bad []string, err error) {
	var pixels []byte
	var read []string
	for _, path := range paths {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		data, err := e.readImage(ctx, path)
		if err == nil {
			img, decodeErr := m.Processor.Load(data, nil)
			if err = decodeErr; err == nil {
				pixels, read = append(pixels, img.Pix...), append(read, path)
				continue
			}
		}
		bad = append(bad, fmt.Sprintf("%s: %v", path, err))
	}
	if len(read) == 0 {
		return bad, nil
	}
	logits, err := p.Logits(pixels, len(read))
	if err != nil {
		return nil, err
	}
	for i, path := range read {
		row := logits[i*len(m.Labels) : (i+1)*len(m.Labels)]
		result := prediction{Image: path, Predictions: topK(row, m.Labels, o.topK)}
		if o.logits {
			result.Logits = row
		}
		best := result.Predictions[0]
		if err := e.result(func(w io.Writer) { fmt.Fprintf(w, "%s\t%s\t%.4f\n", path, oneLine(best.Label), best.Score) }, result); err != nil {
			return nil, err
		}
	}
	return bad, nil
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

// imagePaths spells out folders and globs. What does not exist is an error.
func imagePaths(args []string) ([]string, error) {
	var paths []string
	for _, arg := range args {
		if arg == "-" || isURL(arg) {
			paths = append(paths, arg)
			continue
		}
		info, err := os.Stat(arg)
		switch {
		case err == nil && info.IsDir():
			found, err := imagesIn(arg)
			if err != nil {
				return nil, err
			}
			paths = append(paths, found...)
		case err == nil:
			paths = append(paths, arg)
		default:
			found, globErr := filepath.Glob(arg)
			if globErr != nil || len(found) == 0 {
				return nil, fmt.Errorf("finding the image %q: %w", arg, cause(err))
			}
			paths = append(paths, found...)
		}
	}
	return paths, nil
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

func imagesIn(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		ext := strings.ToLower(filepath.Ext(path))
		if err == nil && !d.IsDir() && ext != ".parquet" && slices.Contains(dataExtensions, ext) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("listing images in %q: there are none: %w", dir, fs.ErrNotExist)
	}
	return found, nil
}

// maxImage bounds what is read from stdin or an address.
const maxImage = 256 << 20

func (e *env) readImage(ctx context.Context, path string) ([]byte, error) {
	switch {
	case path == "-":
		return readAll(e.in)
	case isURL(path):
		if e.offline || envBool("HF_HUB_OFFLINE") {
			return nil, errors.New("not fetched: offline")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the server answers %s", resp.Status)
		}
		return readAll(resp.Body)
	default:
		data, err := os.ReadFile(path)
		return data, cause(err)
	}
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxImage+1))
	if err == nil && len(data) > maxImage {
		err = fmt.Errorf("it has more than %d bytes", maxImage)
	}
	return data, err
}
