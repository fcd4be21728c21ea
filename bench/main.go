// Bench measures images per second of training and prediction on every engine at hand, beside torch
// and PEFT in the same run, and prints ratios. It wants a quiet machine.
//
//	go run ./bench                          # the Go engine, and XLA where --xla or $HUBTOOL_TEST_XLA names a plugin
//	go run ./bench --shape tiny --rounds 5
//	go run ./bench --precision bfloat16     # beside torch's autocast
//	go run ./bench --mode methods --shape base   # training with every method as a ratio to LoRA, here and in PEFT
//
// A round measures every engine once, torch first, each in a process of its own; a ratio is taken
// within a round, and the median over the rounds is printed. Weights and pixels are random. Training is
// that of torch_vit.py in transformers' Trainer: LoRA of rank 16 on query and value, AdamW, clipping.
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
	Best    float64 `json:"best_images_per_second"` // of a single step
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

// methods are the adapters that are compared with each other, with the settings of torch_vit.py.
var methods = []struct{ name, settings string }{
	{"lora", `"peft_type": "LORA", "r": 16, "lora_alpha": 16, "lora_dropout": 0.1`},
	{"dora", `"peft_type": "LORA", "r": 16, "lora_alpha": 16, "lora_dropout": 0.1, "use_dora": true`},
	{"loha", `"peft_type": "LOHA", "r": 16, "alpha": 16, "module_dropout": 0.1`},
	{"lokr", `"peft_type": "LOKR", "r": 16, "alpha": 16, "module_dropout": 0.1`},
	{"adalora", `"peft_type": "ADALORA", "init_r": 16, "target_r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "tinit": 200, "tfinal": 1000, "deltaT": 10`},
}

func main() {
	shape := flag.String("shape", "", "tiny or base; default: both")
	mode := flag.String("mode", "", "train, infer, or methods to compare methods; default: train and infer")
	spec := flag.String("engine", "", "measure this engine alone and print JSON")
	method := flag.String("method", "lora", "with --engine: the adapter's method")
	precision := flag.String("precision", string(model.Float32), "float32, or bfloat16, for which the Go engine is left out")
	xla := flag.String("xla", os.Getenv("HUBTOOL_TEST_XLA"), "PJRT plugin")
	python := flag.String("python", "python3", "Python with torch and PEFT")
	rounds := flag.Int("rounds", 3, "how often everything is measured")
	seconds := flag.Float64("seconds", 10, "how long each case runs")
	flag.Parse()
	var err error
	if *spec != "" {
		err = alone(*spec, *shape, *mode, *method, model.Precision(*precision), *seconds)
	} else if *mode == "methods" {
		err = compareMethods(*shape, *xla, *python, *rounds, *seconds)
	} else {
		err = compare(*shape, *mode, *xla, *python, *precision, *rounds, *seconds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare runs all cases and prints a table.
func compare(shape, mode, xla, python, precision string, rounds int, seconds float64) error {
	var specs []string
	if precision == string(model.Float32) {
		specs = append(specs, "go")
	}
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
				args := []string{filepath.Join("bench", "torch_vit.py"), "--shape", s, "--mode", m, "--precision", precision, "--seconds", strconv.FormatFloat(seconds, 'g', -1, 64)}
				if m == "train" { // which is a whole loop here: beside a whole loop there
					args = append(args, "--trainer")
				}
				if err := measure(&theirs, nil, python, args...); err != nil {
					return err
				}
				for _, spec := range specs {
					self, err := os.Executable()
					if err != nil {
						return err
					}
					var got measurement
					if err := measure(&got, engine.Environment(spec), self, "-engine", spec, "-shape", s, "-mode", m, "-precision", precision, "-seconds", strconv.FormatFloat(seconds, 'g', -1, 64)); err != nil {
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

// compareMethods prints the step time of each method as a ratio to LoRA's, on XLA or else the Go engine,
// and in PEFT. Methods take turns, and the quickest step of each counts, which other work on the
// machine disturbs least.
func compareMethods(shape, xla, python string, rounds int, seconds float64) error {
	if shape == "" {
		shape = "base"
	}
	spec := "go"
	if xla != "" {
		spec = "xla:" + xla
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, theirs := map[string]float64{}, map[string]float64{}
	for range rounds {
		for _, m := range methods {
			args := []string{"--shape", shape, "--mode", "train", "--method", m.name, "--seconds", strconv.FormatFloat(seconds, 'g', -1, 64)}
			var one, other measurement
			if err := measure(&one, engine.Environment(spec), self, append(args, "-engine", spec)...); err != nil {
				return err
			}
			if err := measure(&other, nil, python, append([]string{filepath.Join("bench", "torch_vit.py")}, args...)...); err != nil {
				return err
			}
			ours[m.name], theirs[m.name] = max(ours[m.name], one.Best), max(theirs[m.name], other.Best)
		}
	}
	fmt.Printf("%-5s %-8s %10s %10s %12s %12s\n", "shape", "method", "images/s", "of LoRA", "PEFT", "of LoRA")
	for _, m := range methods {
		fmt.Printf("%-5s %-8s %10.2f %10.2f %12.2f %12.2f\n", shape, m.name, ours[m.name], ours["lora"]/ours[m.name], theirs[m.name], theirs["lora"]/theirs[m.name])
	}
	return nil
}

// measure runs a program in an environment; nil is that of this process.
func measure(into *measurement, env []string, program string, args ...string) error {
	if env == nil {
		env = os.Environ()
	}
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(env, "CUDA_VISIBLE_DEVICES=", "HF_HUB_OFFLINE=1", "OMP_NUM_THREADS=2", "PYTHONWARNINGS=ignore")
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
func alone(spec, shape, mode, method string, precision model.Precision, seconds float64) error {
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
	if err := w.SetPrecision(precision); err != nil {
		return err
	}
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
	a, err := newAdapter(m, w, method)
	if err != nil {
		return err
	}
	batch := batches[shape][mode]
	var rates []float64
	if mode == "infer" {
		rates, err = inferRates(m, w, a, batch, seconds)
	} else {
		rates, err = trainRates(m, w, a, batch, seconds)
	}
	if err != nil {
		return err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(measurement{Engine: spec, Shape: shape, Mode: mode, Batch: batch, Rate: median(rates), Best: slices.Max(rates), PeakRSS: usage.Maxrss * 1024})
}

var half = model.Normalization{Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}}

// newAdapter is one to be trained, on query and value beside the classifier.
func newAdapter(m model.Model, w *model.Weights, method string) (*adapters.Adapter, error) {
	var settings string
	for _, known := range methods {
		if known.name == method {
			settings = known.settings
		}
	}
	cfg, err := format.ParseAdapterConfig([]byte("{" + settings + `, "target_modules": ["query", "value"], "modules_to_save": ["classifier"]}`))
	if err != nil {
		return nil, err
	}
	return adapters.New(cfg, train.Base(m, w), 1)
}

func inferRates(m model.Model, w *model.Weights, a *adapters.Adapter, batch int, seconds float64) ([]float64, error) {
	attach, err := train.Attach(w, a)
	if err != nil {
		return nil, err
	}
	if err := train.Narrow(m, w, a); err != nil { // as all programs do
		return nil, err
	}
	p, err := model.NewPredictor(m, w, attach, half, batch)
	if err != nil {
		return nil, err
	}
	h, width := m.InputSize()
	pixels := make([]byte, batch*h*width*3)
	for i := range pixels {
		pixels[i] = byte(i * 31)
	}
	return stepRates(batch, seconds, func() error { _, err := p.Logits(pixels, batch); return err })
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

// trainRates times whole optimizer steps of train.Run between their reports.
func trainRates(m model.Model, w *model.Weights, a *adapters.Adapter, batch int, seconds float64) ([]float64, error) {
	h, width := m.InputSize()
	pipeline := &vision.Pipeline{Steps: []vision.Transform{vision.ResizeTo{Height: h, Width: width, Filter: vision.Nearest}}, Mean: half.Mean, Std: half.Std}
	c := train.DefaultConfig()
	c.PerDeviceTrainBatchSize, c.EvalStrategy, c.SaveStrategy, c.MaxSteps, c.LearningRate = batch, "no", "no", 1<<20, 5e-3
	var rates []float64
	var last time.Time
	var end time.Time
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	_, err := train.Run(ctx, train.Job{Model: m, Weights: w, Adapter: a, Norm: half, Config: c, Labels: make([]string, m.Labels()),
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
		return nil, fmt.Errorf("training ended by itself: %w", err)
	}
	return rates, nil
}

func stepRates(batch int, seconds float64, step func() error) ([]float64, error) {
	if err := step(); err != nil { // compiles
		return nil, err
	}
	var rates []float64
	for end := time.Now().Add(time.Duration(seconds * float64(time.Second))); len(rates) < 5 || time.Now().Before(end); {
		start := time.Now()
		if err := step(); err != nil {
			return nil, err
		}
		rates = append(rates, float64(batch)/time.Since(start).Seconds())
	}
	return rates, nil
}
