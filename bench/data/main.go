// Data measures how fast images are read and prepared, for bench/data/data.py, and prints one JSON object:
//
//	go run ./bench/data -mode train FOLDER     # or eval: images per CPU second of one pass
//	go run ./bench/data -mode first FOOD       # from the first of eight files to the first batch, see make.py
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
)

var transforms = map[string][]any{
	"train": {map[string]any{"RandomResizedCrop": 224}, "RandomHorizontalFlip", "ToTensor", "Normalize"},
	"eval":  {map[string]any{"Resize": 224}, map[string]any{"CenterCrop": 224}, "ToTensor", "Normalize"},
}

func main() {
	mode := flag.String("mode", "train", "train, eval or first")
	workers := flag.Int("workers", 2, "goroutines that prepare images")
	batch := flag.Int("batch", 32, "images in a batch")
	flag.Parse()
	result, err := measure(*mode, flag.Arg(0), *workers, *batch)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/data:", err)
		os.Exit(1)
	}
	fmt.Println(result)
}

func measure(mode, dir string, workers, batch int) (string, error) {
	l := &train.Loader{Batch: batch, Workers: workers, Shuffle: mode != "eval", Seed: 1}
	spec, ok := transforms[mode]
	if mode == "first" {
		spec, ok = transforms["train"], true
	}
	if !ok {
		return "", fmt.Errorf("no mode %q", mode)
	}
	var err error
	if l.Pipeline, err = vision.ParsePipeline(spec, vision.Defaults{Std: [3]float32{1, 1, 1}, Size: 224}); err != nil {
		return "", err
	}
	if mode == "first" {
		return firstBatch(dir, l)
	}
	d, err := dataset.Open(dir, dataset.Options{})
	if err != nil {
		return "", err
	}
	defer d.Close()
	rows, err := d.Select("train")
	if err != nil {
		return "", err
	}
	l.Source, l.Classes = rows, len(rows.ClassNames())
	start, used, images := time.Now(), cpu(), 0
	for b, err := range l.Epoch(context.Background(), 0, 0) {
		if err != nil {
			return "", err
		}
		images += b.N
	}
	return encode(map[string]any{"images": images, "cpu_seconds": cpu() - used, "seconds": time.Since(start).Seconds(), "version": "hubtool"})
}

// firstBatch opens the imitation of Food-101 of which the first file is there, and the second one only comes after the
// first batch.
func firstBatch(dir string, l *train.Loader) (string, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	files := []dataset.File{{Name: "README.md"}}
	for i := range 8 {
		files = append(files, dataset.File{Name: fmt.Sprintf("data/train-%05d-of-00008.parquet", i)})
	}
	var there time.Time
	fetch := func(ctx context.Context, name string) error {
		if filepath.Base(name) == filepath.Base(files[1].Name) {
			there = time.Now()
			return nil
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	cache, err := os.MkdirTemp("", "hubtool-bench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(cache)
	d, err := dataset.OpenArriving(ctx, dir, files, fetch, dataset.Options{Cache: dataset.Cache{Dir: cache}})
	if err != nil {
		return "", err
	}
	defer d.Close()
	rows, err := d.Select("train")
	if err != nil {
		return "", err
	}
	l.Source, l.Classes, l.Window = rows, len(rows.ClassNames()), 1000
	fetched := make(chan error, 1)
	go func() { fetched <- d.Fetch(ctx, rows) }()
	for _, err := range l.Epoch(ctx, 0, 0) {
		if err != nil {
			return "", err
		}
		break
	}
	took := time.Since(there).Seconds()
	cancel()
	if err := <-fetched; !errors.Is(err, context.Canceled) {
		return "", fmt.Errorf("the other files ended with %w", err)
	}
	return encode(map[string]any{"rows": rows.Len(), "batch": l.Batch, "seconds_to_first_batch": took})
}

func encode(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}

// cpu is the processor time of this process so far, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the call has no way to fail with these arguments
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
