package train

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"

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

	// Window, if positive, draws the order of epoch 0 from a window of so many images that moves over the
	// source, so that training can begin before all of a source has come that has a method
	// Wait(ctx, i). The order is the same however fast it comes.
	Window int

	// Seed determines the order and the random transforms. Workers, how many goroutines prepare
	// images (0: one per core), changes neither.
	Seed    uint64
	Workers int

	// SkipBroken leaves damaged samples out of their batches, and notes them for Broken. Otherwise the
	// first one ends the epoch.
	SkipBroken bool

	// Keep is how many bytes of prepared images are kept in memory for the next time. They are those of
	// epoch 0, which an evaluation asks for again and again, and exactly what would be made anew.
	Keep int64

	// Prepared, unless nil, keeps images decoded and made small on disk, and the transforms begin with
	// those. Training is faster then and not the same: images are resampled twice.
	Prepared *dataset.Prepared

	mu     sync.Mutex
	kept   []atomic.Pointer[sample] // of the first images of the source
	broken map[int]error
}

// Batch is a number of images of one size. It belongs to the loop that it is yielded to, until the
// loop's body ends: the next batch may have the same memory.
type Batch struct {
	N      int       // images; the rest of the slices is padding
	Pixels []byte    // Loader.Batch images of height x width x 3, the padding black; nil where Features is not
	Labels []int32   // Loader.Batch, the padding 0
	Mask   []float32 // Loader.Batch: 1 for an image, 0 for padding
	Index  []int     // N places in the source

	// Own is the share of Labels where images were mixed with others: the rest is the label of the image
	// before, or for the first the last. It is 1 where they were not.
	Own float64

	// Features is what the head takes of Loader.Batch images, where that was computed once for all epochs.
	Features []float32
}

// images are the pixels less those of the padding.
func (b *Batch) images() []byte { return b.Pixels[:b.N*len(b.Pixels)/len(b.Labels)] }

// slot is a batch in the ring while its images are prepared.
type slot struct {
	Batch
	number  int // in the epoch
	errs    []error
	err     error
	pending atomic.Int32
	done    chan struct{}
}

// target writes what image i should be taken for, a share for each class, into row. Smoothing moves
// so much of the label's certainty to all classes alike, as transformers' LabelSmoother does. Szegedy
// et al. 2016, "Rethinking the Inception Architecture for Computer Vision".
func (b *Batch) target(i int, smoothing float64, row []float32) {
	rest, own := smoothing/float64(len(row)), b.Own
	for c := range row {
		row[c] = float32(rest)
	}
	label, other := b.Labels[i], b.Labels[(i+max(b.N, 1)-1)%max(b.N, 1)]
	if label == other {
		own = 1
	}
	if own < 1 {
		row[other] = float32((1-smoothing)*(1-own) + rest)
	}
	row[label] = float32((1-smoothing)*own + rest)
}

// ahead is how many batches are prepared while one is in use.
const ahead = 2

// Batches is the number of batches in an epoch.
func (l *Loader) Batches() int { return (l.Source.Len() + l.Batch - 1) / l.Batch }

// Epoch yields the batches of an epoch from the given one on, in order. The next two are prepared
// while one is in use. Which worker prepares an image, and when, changes nothing.
func (l *Loader) Epoch(ctx context.Context, epoch, from int) iter.Seq2[*Batch, error] {
	if width, height, ok := l.Pipeline.OutputSize(); ok {
		l.prepareKept(width * height * 3)
	}
	return l.ordered(ctx, epoch, from, l.order(epoch))
}

// ordered is Epoch in another order.
func (l *Loader) ordered(ctx context.Context, epoch, from int, order []int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		width, height, ok := l.Pipeline.OutputSize()
		if !ok {
			yield(nil, fmt.Errorf("preparing images: the transforms %s do not end in images of one size", l.Pipeline))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		var working sync.WaitGroup
		defer working.Wait() // nobody reads the source after the loop
		defer cancel()

		// Three batches go round: from free over coming, in order, to the caller and back.
		free, coming := make(chan *slot, ahead+1), make(chan *slot, ahead+1)
		for range ahead + 1 {
			free <- newSlot(l.Batch, width*height*3)
		}
		work := make(chan func())
		working.Go(func() {
			defer close(coming)
			defer close(work)
			l.dispatch(ctx, epoch, from, order, free, coming, work)
		})
		for range cmp.Or(l.Workers, runtime.GOMAXPROCS(0)) {
			working.Go(func() {
				for prepare := range work {
					prepare()
				}
			})
		}
		for s := range coming {
			select {
			case <-s.done:
			case <-ctx.Done():
				yield(nil, context.Cause(ctx))
				return
			}
			if s.err != nil {
				yield(nil, s.err)
				return
			}
			if !yield(&s.Batch, nil) {
				return
			}
			free <- s
		}
		if err := context.Cause(ctx); err != nil {
			yield(nil, err)
		}
	}
}

func newSlot(n, image int) *slot {
	return &slot{Batch: Batch{Pixels: make([]byte, n*image), Labels: make([]int32, n), Mask: make([]float32, n)}, errs: make([]error, n)}
}

// dispatch hands out the images of an epoch one by one, each with its place in a batch.
func (l *Loader) dispatch(ctx context.Context, epoch, from int, order []int, free <-chan *slot, coming chan<- *slot, work chan<- func()) {
	for lo := from * l.Batch; lo < len(order); lo += l.Batch {
		var b *slot
		select {
		case b = <-free:
		case <-ctx.Done():
			return
		}
		b.Index = order[lo:min(lo+l.Batch, len(order))]
		b.N, b.number, b.done = len(b.Index), lo/l.Batch, make(chan struct{})
		b.pending.Store(int32(b.N))
		coming <- b // has room for every batch there is
		image := len(b.Pixels) / l.Batch
		for i, index := range b.Index {
			err := l.wait(ctx, index) // here, so that workers never wait
			prepare := func() {
				if b.errs[i] = err; err == nil {
					b.Labels[i], b.errs[i] = l.sample(epoch, index, b.Pixels[i*image:(i+1)*image])
				}
				if b.pending.Add(-1) == 0 {
					b.err = l.finish(epoch, b)
					close(b.done)
				}
			}
			select {
			case work <- prepare:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (l *Loader) wait(ctx context.Context, i int) error {
	if w, ok := l.Source.(waiter); ok {
		return w.Wait(ctx, i)
	}
	return nil
}

// finish takes broken samples out of a batch whose images are all prepared, pads it and mixes its images.
func (l *Loader) finish(epoch int, b *slot) error {
	image, n := len(b.Pixels)/l.Batch, 0
	var index []int
	for i, err := range b.errs[:b.N] {
		if err != nil {
			if !l.SkipBroken || !isBroken(err) {
				return err
			}
			l.noteBroken(b.Index[i], err)
			continue
		}
		if n < i {
			copy(b.Pixels[n*image:(n+1)*image], b.Pixels[i*image:])
			b.Labels[n] = b.Labels[i]
		}
		index = append(index, b.Index[i])
		n++
	}
	if n == 0 {
		return fmt.Errorf("preparing images: all %d of a batch are damaged: %w", b.N, b.errs[0])
	}
	clear(b.Pixels[n*image:])
	clear(b.Labels[n:])
	for i := range b.Mask {
		b.Mask[i] = 0
		if i < n {
			b.Mask[i] = 1
		}
	}
	b.N, b.Index = n, index
	width, height, _ := l.Pipeline.OutputSize()
	b.Own = l.Pipeline.Mix(b.Pixels, n, width, height, vision.Rand(l.Seed, epoch, firstMix-b.number))
	return nil
}
