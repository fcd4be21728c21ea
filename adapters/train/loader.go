package train

import (
	"context"
	"fmt"
	"iter"
	"math/bits"
	"runtime"
	"sync"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
)

// Source is a list of labelled images. Methods may be called from several goroutines.
type Source interface {
	Len() int
	At(i int) (dataset.Row, error)
}

// Loader makes batches of a source: it decodes and transforms images ahead of their use.
type Loader struct {
	Source   Source
	Pipeline *vision.Pipeline
	Batch    int // images per batch; the last of an epoch may have fewer
	Classes  int // labels are in [0, Classes)

	// Shuffle draws a new order for each epoch. Otherwise images come in the source's order.
	Shuffle bool

	// Seed determines the order and the random transforms. Workers, how many goroutines prepare
	// images (0: one per core), changes neither.
	Seed    uint64
	Workers int
}

// Batch is a number of images of one size.
type Batch struct {
	Pixels []byte  // n images of height x width x 3
	Labels []int32 // n
	Index  []int   // their places in the source
}

// target writes what image i should be taken for, a share for each class, into row. Smoothing moves
// so much of the label's certainty to all classes alike, as transformers' LabelSmoother does. Szegedy
// et al. 2016, "Rethinking the Inception Architecture for Computer Vision".
func (b *Batch) target(i int, smoothing float64, row []float32) {
	rest := smoothing / float64(len(row))
	for c := range row {
		row[c] = float32(rest)
	}
	row[b.Labels[i]] = float32(1 - smoothing + rest)
}

// Batches is the number of batches in an epoch.
func (l *Loader) Batches() int { return (l.Source.Len() + l.Batch - 1) / l.Batch }

// Epoch yields the batches of an epoch from the given one on, in order. The next two are prepared
// while one is in use.
func (l *Loader) Epoch(ctx context.Context, epoch, from int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type result struct {
			batch *Batch
			err   error
		}
		ready := make(chan result, 2)
		go func() {
			defer close(ready)
			order := l.order(epoch)
			for b := from; b < l.Batches(); b++ {
				batch, err := l.load(ctx, epoch, order[b*l.Batch:min((b+1)*l.Batch, len(order))])
				select {
				case ready <- result{batch, err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
			}
		}()
		for r := range ready {
			if !yield(r.batch, r.err) || r.err != nil {
				return
			}
		}
		if err := context.Cause(ctx); err != nil {
			yield(nil, err)
		}
	}
}

// order is the sequence of images in an epoch: Fisher and Yates' shuffle over the generator of
// sample -1, written out so that no release of Go can change it.
func (l *Loader) order(epoch int) []int {
	order := make([]int, l.Source.Len())
	for i := range order {
		order[i] = i
	}
	if !l.Shuffle {
		return order
	}
	rng := vision.Rand(l.Seed, epoch, -1)
	for i := len(order) - 1; i > 0; i-- {
		j, _ := bits.Mul64(rng.Uint64(), uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// load prepares the images of one batch side by side, each in its place.
func (l *Loader) load(ctx context.Context, epoch int, index []int) (*Batch, error) {
	width, height, ok := l.Pipeline.OutputSize()
	if !ok {
		return nil, fmt.Errorf("preparing images: the transforms %s do not end in images of one size", l.Pipeline)
	}
	image := width * height * 3
	b := &Batch{Pixels: make([]byte, len(index)*image), Labels: make([]int32, len(index)), Index: index}
	workers := l.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, len(index))
	var wg sync.WaitGroup
	for w := range min(workers, len(index)) {
		wg.Go(func() {
			for i := w; i < len(index) && ctx.Err() == nil; i += workers {
				b.Labels[i], errs[i] = l.sample(epoch, index[i], b.Pixels[i*image:(i+1)*image])
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (l *Loader) sample(epoch, i int, pixels []byte) (label int32, err error) {
	row, err := l.Source.At(i)
	if err != nil {
		return 0, err
	}
	img, err := l.Pipeline.Load(row.Image, vision.Rand(l.Seed, epoch, i))
	if err != nil {
		return 0, fmt.Errorf("preparing image %d (%q): %w: %w", i, row.Path, dataset.ErrDamaged, err)
	}
	if row.Label < 0 || row.Label >= l.Classes {
		return 0, fmt.Errorf("preparing image %d (%q): %w: its label is %d, but there are %d classes", i, row.Path, dataset.ErrDamaged, row.Label, l.Classes)
	}
	copy(pixels, img.Pix)
	return int32(row.Label), nil
}
