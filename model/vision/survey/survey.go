// Package survey looks at data sets as their users would: which splits and classes there are, how large and how sound
// the images are, and what training sees of them.
//
//	overview, err := survey.List(d)
//	stats, err := survey.Measure(ctx, rows, survey.Options{})
//	samples, err := survey.Draw(ctx, rows, pipeline, seed, survey.Options{})
//	err = survey.WritePNG(w, samples)
package survey

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hubtool/hubtool/format/dataset"
)

// Overview is what a data set says of itself; no image is read for it.
type Overview struct {
	Config  string   `json:"config"`
	Configs []string `json:"configs"`
	Splits  []Split  `json:"splits"`
	Classes []string `json:"classes"` // in label order; empty without labels
	Bytes   int64    `json:"bytes"`
}

// Split is a named part of a data set.
type Split struct {
	Name  string `json:"name"`
	Rows  int    `json:"rows"`
	Bytes int64  `json:"bytes"` // of its files on disk
}

// List describes a data set.
func List(d *dataset.Dataset) (*Overview, error) {
	o := &Overview{Config: d.Config(), Configs: d.Configs(), Splits: []Split{}, Classes: append([]string{}, d.ClassNames()...)}
	for _, s := range d.Splits() {
		size, err := d.Size(s.Name)
		if err != nil {
			return nil, err
		}
		o.Splits = append(o.Splits, Split{s.Name, s.Rows, size})
		o.Bytes += size
	}
	return o, nil
}

// Options concern reading many images.
type Options struct {
	Workers  int                   // goroutines; 0: one per core
	Progress func(done, total int) // may be nil; calls never overlap
}

// Broken is an image that cannot be used.
type Broken struct {
	File  string `json:"file"`  // shard, archive or folder
	Row   int    `json:"row"`   // in it
	Image string `json:"image"` // name of the image, where it has one
	Why   string `json:"why"`
}

func newBroken(rows *dataset.Rows, i int, row dataset.Row, err error) *Broken {
	b := &Broken{Image: row.Path, Why: err.Error()}
	b.File, b.Row = rows.Where(i)
	var where *dataset.Error
	if errors.As(err, &where) {
		b.Why = where.Err.Error()
	}
	return b
}

// isBroken tells a damaged or missing image from a disk that fails.
func isBroken(err error) bool {
	return errors.Is(err, dataset.ErrDamaged) || errors.Is(err, fs.ErrNotExist)
}

// each runs work for every row, several at a time. A row that is damaged or missing is passed to work as an error;
// other errors end it all.
func each(ctx context.Context, rows *dataset.Rows, opts Options, work func(worker, i int, row dataset.Row, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := opts.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= rows.Len() {
					return
				}
				row, err := rows.At(i)
				if err != nil && !isBroken(err) {
					cancel(err)
					return
				}
				work(w, i, row, err)
				if opts.Progress != nil {
					mu.Lock()
					done++
					opts.Progress(done, rows.Len())
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("reading images: %w", err)
	}
	return nil
}
