// Bench measures images per second of training and prediction on every engine at hand, beside torch
// and PEFT in the same run, and prints ratios. It wants a quiet machine.
//
//	go run ./bench                          # the Go engine, and XLA where --xla or $HUBTOOL_TEST_XLA names a plugin
//	go run ./bench --shape tiny --rounds 5
//
// A round measures every engine once, torch first, each in a process of its own; a ratio is taken
// within a round, and the median over the rounds is printed. Weights and pixels are random; the step is
// the one of testdata/python's torch_vit.py: LoRA of rank 16 on query and value, AdamW, clipping.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/vision"
)

// measurement is what one case prints, here and in torch_vit.py.
type measurement struct {
	Engine  string  `json:"engine"`
	Version string  `json:"version"`
	Shape   string  `json:"shape"`
	Mode    string  `json:"mode"`
	Batch   int     `json:"batch"`
	Rate    float64 `json:"images_per_second"`
	PeakRSS int64   `json:"peak_rss"`
}

// shapes are those of testdata/tiny-vit and google/vit-base-patch16-224-in21k.
var shapes = map[string]struct {
	config  string
	classes int
}{
	"tiny": {`{"model_type": "vit", "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 384, "image_size": 32, "patch_size": 4}`, 10},
	"base": {`{"model_type": "vit"}`, 101},
}

var batches = map[string]map[string]int{"tiny": {"train": 32, "infer": 120}, "base": {"train": 8, "infer": 8}}

func main() {
	shape := flag.String("shape", "", "tiny or base; default: both")
	mode := flag.String("mode", "", "train or infer; default: both")
	spec := flag.String("engine", "", "measure this engine alone and print JSON")
	xla := flag.String("xla", os.Getenv("HUBTOOL_TEST_XLA"), "PJRT plugin")
	python := flag.String("python", "python3", "Python with torch and PEFT")
	rounds := flag.Int("rounds", 3, "how often everything is measured")
	seconds := flag.Float64("seconds", 10, "how long each case runs")
	flag.Parse()
	var err error
	if *spec != "" {
		err = alone(*spec, *shape, *mode, *seconds)
	} else {
		err = compare(*shape, *mode, *xla, *python, *rounds, *seconds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare runs all cases and prints a table.
func compare(shape, mode, xla, python string, rounds int, seconds float64) error {
	specs := []string{"go"}
	if xla != "" {
		specs = append(specs, "xla:"+xla)
	}
	fmt.Printf("%-5s %-6s %-5s %12s %12s %8s %14s %8s\n", "shape", "mode", "engine", "images/s", "torch", "ratio", "peak MB", "of torch")
	for _, s := range []string{"tiny", "base"} {
		for _, m := range []string{"train", "infer"} {
			if shape != "" && shape != s || mode != "" && mode != m {
				continue
			}
			ratios, ours, theirs := map[string][]float64{}, map[string]measurement{}, measurement{}
			for range rounds {
				if err := measure(&theirs, python, filepath.Join("bench", "torch_vit.py"), "--shape", s, "--mode", m, "--seconds", strconv.FormatFloat(seconds, 'g', -1, 64)); err != nil {
					return err
				}
				for _, spec := range specs {
					self, err := os.Executable()
					if err != nil {
						return err
					}
					var got measurement
					if err := measure(&got, self, "-engine", spec, "-shape", s, "-mode", m, "-seconds", strconv.FormatFloat(seconds, 'g', -1, 64)); err != nil {
						return err
					}
					ratios[spec], ours[spec] = append(ratios[spec], got.Rate/theirs.Rate), got
				}
			}
			for _, spec := range specs {
				o := ours[spec]
				fmt.Printf("%-5s %-6s %-5s %12.2f %12.2f %8.2f %14.0f %8.2f\n", s, m, spec[:min(3, len(spec))], o.Rate, theirs.Rate,
					median(ratios[spec]), float64(o.PeakRSS)/1e6, float64(o.PeakRSS)/float64(theirs.PeakRSS))
			}
		}
	}
	return nil
}

func measure(into *measurement, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "CUDA_VISIBLE_DEVICES=", "HF_HUB_OFFLINE=1", "OMP_NUM_THREADS=2", "PYTHONWARNINGS=ignore")
	if env := engine.Environment("go"); env != nil {
		cmd.Env = append(cmd.Env, env[0])
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running %s: %w", program, err)
	}
	return json.Unmarshal(bytes.TrimSpace(out), into)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// alone measures one case in this process.
func alone(spec, shape, mode string, seconds float64) error {
	s, ok := shapes[shape]
	if !ok || mode != "train" && mode != "infer" {
		return errors.New("name a shape and a mode")
	}
	e, err := engine.Open(spec)
	if err != nil {
		return err
	}
	cfg, err := format.ParseModelConfig([]byte(s.config))
	if err != nil {
		return err
	}
	m, err := model.New(cfg, s.classes)
	if err != nil {
		return err
	}
	w := model.NewWeights(e.Backend)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range m.Parameters() {
		n := 1
		for _, d := range p.Shape {
			n *= d
		}
		values := make([]float32, n)
		for i := range values {
			values[i] = 0.02 * float32(rng.NormFloat64())
		}
		if err := w.Set(p.Name, p.Shape, values); err != nil {
			return err
		}
	}
	batch := batches[shape][mode]
	rate := trainRate
	if mode == "infer" {
		rate = inferRate
	}
	r, err := rate(m, w, batch, seconds)
	if err != nil {
		return err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(measurement{Engine: spec, Shape: shape, Mode: mode, Batch: batch, Rate: r, PeakRSS: usage.Maxrss * 1024})
}

var half = model.Normalization{Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}}

func inferRate(m model.Model, w *model.Weights, batch int, seconds float64) (float64, error) {
	p, err := model.NewPredictor(m, w, nil, half, batch)
	if err != nil {
		return 0, err
	}
	h, width := m.InputSize()
	pixels := make([]byte, batch*h*width*3)
	for i := range pixels {
		pixels[i] = byte(i * 31)
	}
	return medianRate(batch, seconds, func() error { _, err := p.Logits(pixels, batch); return err })
}

// noise is a data set of one tiny image, which costs nothing to decode.
type noise struct{ n, classes int }

var dot = func() []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		panic(err) // into memory
	}
	return b.Bytes()
}()

func (d noise) Len() int { return d.n }
func (d noise) At(i int) (dataset.Row, error) {
	return dataset.Row{Image: dot, Label: i % d.classes}, nil
}

// trainRate times whole optimizer steps of train.Run between their reports.
func trainRate(m model.Model, w *model.Weights, batch int, seconds float64) (float64, error) {
	acfg, err := format.ParseAdapterConfig([]byte(`{"peft_type": "LORA", "r": 16, "lora_alpha": 16, "lora_dropout": 0.1,
		"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}`))
	if err != nil {
		return 0, err
	}
	a, err := adapters.New(acfg, train.Base(m, w), 1)
	if err != nil {
		return 0, err
	}
	h, width := m.InputSize()
	pipeline := &vision.Pipeline{Steps: []vision.Transform{vision.ResizeTo{Height: h, Width: width, Filter: vision.Nearest}}, Mean: half.Mean, Std: half.Std}
	c := train.DefaultConfig()
	c.PerDeviceTrainBatchSize, c.EvalStrategy, c.SaveStrategy, c.MaxSteps, c.LearningRate = batch, "no", "no", 1<<20, 5e-3
	var rates []float64
	var last time.Time
	var end time.Time
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	_, err = train.Run(ctx, train.Job{Model: m, Weights: w, Adapter: a, Norm: half, Config: c,
		Train: &train.Loader{Source: noise{batch * 64, m.Labels()}, Pipeline: pipeline, Batch: batch, Classes: m.Labels()},
		Report: func(ev train.Event) {
			now := time.Now()
			if !last.IsZero() { // the first step compiles
				rates = append(rates, float64(batch)/now.Sub(last).Seconds())
			} else {
				end = now.Add(time.Duration(seconds * float64(time.Second)))
			}
			last = now
			if len(rates) >= 5 && now.After(end) {
				stop()
			}
		}})
	if !errors.Is(err, context.Canceled) {
		return 0, fmt.Errorf("training ended by itself: %w", err)
	}
	return median(rates), nil
}

func medianRate(batch int, seconds float64, step func() error) (float64, error) {
	if err := step(); err != nil { // compiles
		return 0, err
	}
	var rates []float64
	for end := time.Now().Add(time.Duration(seconds * float64(time.Second))); len(rates) < 5 || time.Now().Before(end); {
		start := time.Now()
		if err := step(); err != nil {
			return 0, err
		}
		rates = append(rates, float64(batch)/time.Since(start).Seconds())
	}
	return median(rates), nil
}
