package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/compute"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/vision"
)

// Classifier is an image classifier opened from files: a base, with or without an adapter on it.
type Classifier struct {
	Checkpoint *format.Checkpoint // of the base
	Config     *format.ModelConfig
	Model      model.Model
	Weights    *model.Weights    // nil without a backend
	Adapter    *adapters.Adapter // nil without one
	Labels     []string
	Processor  *vision.Pipeline // what inference does to images
	NewHead    bool             // the head was created, and knows nothing yet
}

// OpenOptions say what to open. The zero value opens a complete classifier for its shapes alone.
type OpenOptions struct {
	// Checkpoint has the base's weights if they are not those in its directory. It stays the caller's
	// if opening fails.
	Checkpoint *format.Checkpoint

	Backend compute.Backend // nil: parameters are not loaded, and there is no adapter's data

	// Adapter is the directory of an adapter on the base; empty for none.
	Adapter string

	// Labels are the classes to learn; nil takes those that the adapter or the base knows.
	Labels []string

	// ReplaceHead allows a head in the base whose size is not that of Labels.
	ReplaceHead bool

	Seed uint64 // of a new head

	// Precision is that of products; empty is float32.
	Precision model.Precision

	// Share are the weights of another classifier on the same base, which then is in memory once.
	Share *model.Weights
}

// ErrNoClassifier is wrapped by errors about an encoder on which no classifier has been trained.
var ErrNoClassifier = errors.New("no classifier")

// LabelsFile keeps the class names beside an adapter, whose own files have no place for them.
const LabelsFile = "id2label.json"

// Open opens the classifier whose base is in dir.
func Open(dir string, opts OpenOptions) (*Classifier, error) {
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		return nil, err
	}
	c := &Classifier{Checkpoint: opts.Checkpoint, Config: cfg}
	if c.Checkpoint == nil {
		if c.Checkpoint, err = format.Open(dir); err != nil {
			return nil, err
		}
	}
	if err := c.open(dir, opts); err != nil {
		if opts.Checkpoint == nil {
			c.Checkpoint.Close()
		}
		return nil, err
	}
	return c, nil
}

func (c *Classifier) open(dir string, opts OpenOptions) (err error) {
	c.Labels = opts.Labels
	replace := opts.ReplaceHead
	if c.Labels == nil {
		if c.Labels, err = knownLabels(c.Config, opts.Adapter); err != nil {
			return err
		}
		replace = opts.Adapter != "" // which brings its own head
	}
	if c.Model, err = model.New(c.Config, len(c.Labels)); err != nil {
		return fmt.Errorf("opening %q: %w", dir, err)
	}
	load := model.LoadOptions{NewHead: opts.Labels != nil || opts.Adapter != "", ReplaceHead: replace, InitStd: c.Config.InitializerRange, Seed: opts.Seed, Share: opts.Share}
	if opts.Backend == nil {
		c.NewHead, err = model.Check(c.Checkpoint, c.Model, load)
	} else {
		c.Weights, c.NewHead, err = model.Load(opts.Backend, c.Checkpoint, c.Model, load)
	}
	if err != nil {
		return c.headError(dir, err)
	}
	if c.Weights != nil && opts.Precision != "" {
		if err := c.Weights.SetPrecision(opts.Precision); err != nil {
			return err
		}
	}
	if opts.Adapter != "" {
		if c.Adapter, err = adapters.Load(opts.Adapter, Base(c.Model, c.Weights)); err != nil {
			return err
		}
		if c.NewHead && len(c.Adapter.FullValues()) == 0 {
			return fmt.Errorf("loading adapter %q: %w: neither it nor the base has one", opts.Adapter, ErrNoClassifier)
		}
	}
	c.Processor, err = processor(c.Model, opts.Adapter, dir)
	return err
}

// headError tells a checkpoint without a head, or with one of another size, from one that fits no config.
func (c *Classifier) headError(dir string, err error) error {
	var misfit *model.LoadError
	if !errors.As(err, &misfit) || len(misfit.Unused) > 0 {
		return err
	}
	var head []string
	for _, p := range c.Model.Parameters() {
		if strings.HasPrefix(p.Name, c.Model.Head()+".") {
			head = append(head, p.Name)
		}
	}
	switch {
	case len(misfit.Missing) == 0:
		return fmt.Errorf("%w: %w\nto train a new head in its place, set ignore_mismatched_sizes", adapters.ErrMismatch, err)
	case len(misfit.Shapes) == 0 && slices.Equal(misfit.Missing, head):
		return fmt.Errorf("opening %q: %w: these files are an encoder alone", dir, ErrNoClassifier)
	}
	return err
}

// knownLabels are the classes of an adapter, or of a base that has a head.
func knownLabels(cfg *format.ModelConfig, adapter string) ([]string, error) {
	labels := cfg.Labels()
	if adapter != "" {
		rows, ok, err := adapters.HeadRows(adapter, cfg.ModelType, "classifier")
		if err != nil {
			return nil, err
		}
		if ok {
			stored, err := readLabels(adapter)
			switch {
			case err != nil:
				return nil, err
			case len(stored) == rows:
				labels = stored
			case len(labels) != rows:
				labels = nil
				for i := range rows {
					labels = append(labels, "LABEL_"+strconv.Itoa(i))
				}
			}
		}
	}
	if len(labels) == 0 { // transformers' default
		labels = []string{"LABEL_0", "LABEL_1"}
	}
	return labels, nil
}

func readLabels(dir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, LabelsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading class names: %w", err)
	}
	byID := map[int]string{}
	if err := json.Unmarshal(text, &byID); err != nil {
		return nil, fmt.Errorf("reading %q: %w: %w", filepath.Join(dir, LabelsFile), format.ErrConfig, err)
	}
	labels := make([]string, len(byID))
	for i := range labels {
		label, ok := byID[i]
		if !ok {
			return nil, fmt.Errorf("reading %q: %w: class %d has no name", filepath.Join(dir, LabelsFile), format.ErrConfig, i)
		}
		labels[i] = label
	}
	return labels, nil
}

// processor reads preprocessor_config.json of the adapter or else the base. Without either, images
// are resized to the model's size and normalised to [-1, 1], as ViTImageProcessor does.
func processor(m model.Model, dirs ...string) (*vision.Pipeline, error) {
	h, w := m.InputSize()
	half := [3]float32{0.5, 0.5, 0.5}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		cfg, err := format.ReadImageConfig(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return fromImageConfig(cfg, h, w, filepath.Join(dir, format.ImageConfigFile))
	}
	return vision.Processor(w, h, vision.Bilinear, half, half), nil
}

// Predictor returns a predictor for images prepared by a pipeline, in batches of up to batch.
func (c *Classifier) Predictor(pipeline *vision.Pipeline, batch int) (*model.Predictor, error) {
	var attach model.Attach
	if c.Adapter != nil {
		var err error
		if attach, err = Attach(c.Weights, c.Adapter); err != nil {
			return nil, err
		}
	}
	if err := Narrow(c.Model, c.Weights, c.Adapter); err != nil {
		return nil, err
	}
	return model.NewPredictor(c.Model, c.Weights, attach, Normalization(pipeline), batch)
}

// Normalization is what a pipeline leaves to the graph.
func Normalization(p *vision.Pipeline) model.Normalization {
	return model.Normalization{Mean: p.Mean, Std: p.Std}
}

// Close closes the base's files.
func (c *Classifier) Close() error { return c.Checkpoint.Close() }
