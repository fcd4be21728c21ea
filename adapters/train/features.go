package train

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/model"
)

// features are what the head takes of the images of a source.
type features struct {
	loader *Loader
	width  int       // values of an image
	values []float32 // in the order of the source
	labels []int32   // -1 for a damaged image
}

// Frozen tells whether all that an adapter changes lies behind the features of a model, so that these
// are the same in every step.
func Frozen(m model.Model, a *adapters.Adapter) bool {
	head := m.Head()
	for _, t := range a.Targets {
		if t.Name != head {
			return false
		}
	}
	for _, name := range a.Full {
		if !strings.HasPrefix(name, head+".") {
			return false
		}
	}
	return true
}

// keepable tells whether the features of a loader's images may be kept for all epochs: the backbone is
// frozen, and they have room.
func (j *Job) keepable(l *Loader) bool {
	return Frozen(j.Model, j.Adapter) && j.featureBytes(l) <= j.FeatureCache
}

// keepableInTraining tells it of the images to train on, which must be the same in every epoch.
func (j *Job) keepableInTraining() bool { return j.fixed() && j.keepable(j.Train) }

// fixed tells whether the images to train on are the same in every epoch. Those that still come are
// not waited for.
func (j *Job) fixed() bool {
	return j.Train.Window == 0 && j.Train.Pipeline.Fixed() && !j.Model.Drops()
}

// featureBytes is what the features of a loader's images take in memory.
func (j *Job) featureBytes(l *Loader) int64 {
	return int64(l.Source.Len()) * int64(j.Model.Width()) * 4
}

// FeatureRoom is the least FeatureCache that keeps all features which are the same in every epoch: 0
// where none are.
func (j *Job) FeatureRoom() int64 {
	if !Frozen(j.Model, j.Adapter) {
		return 0
	}
	var room int64
	if j.fixed() {
		room = j.featureBytes(j.Train)
	}
	if j.Eval != nil {
		room = max(room, j.featureBytes(j.Eval))
	}
	return room
}

// extract computes the features of a loader's images. They are taken in the order of the source, so
// that a run that is resumed puts the same images into the same batches and gets the same bytes.
func (r *run) extract(ctx context.Context, l *Loader, mode model.Mode) (*features, error) {
	attach, err := Attach(r.Weights, r.Adapter)
	if err != nil {
		return nil, err
	}
	x, err := model.NewExtractor(r.Model, r.Weights, attach, r.Norm, l.Batch, mode)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	n := l.Source.Len()
	f := &features{l, r.Model.Width(), make([]float32, n*r.Model.Width()), make([]int32, n)}
	order := make([]int, n)
	for i := range order {
		order[i], f.labels[i] = i, -1
	}
	done := 0
	for batch, err := range l.ordered(ctx, 0, 0, order) {
		if err != nil {
			return nil, err
		}
		values, err := x.Features(batch.images(), batch.N)
		if err != nil {
			return nil, err
		}
		for i, index := range batch.Index {
			copy(f.values[index*f.width:(index+1)*f.width], values[i*f.width:])
			f.labels[index] = batch.Labels[i]
		}
		done = min(done+l.Batch, n) // damaged ones, too
		r.report(Event{Extracted: done, ExtractTotal: n})
	}
	return f, nil
}

// epoch is [Loader.Epoch] with features instead of pixels.
func (f *features) epoch(ctx context.Context, epoch, from int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		l, order := f.loader, f.loader.order(epoch)
		for lo := from * l.Batch; lo < len(order); lo += l.Batch {
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return
			}
			b := &Batch{Features: make([]float32, l.Batch*f.width), Labels: make([]int32, l.Batch), Mask: make([]float32, l.Batch), Own: 1}
			for _, index := range order[lo:min(lo+l.Batch, len(order))] {
				if f.labels[index] < 0 {
					continue
				}
				copy(b.Features[b.N*f.width:], f.values[index*f.width:(index+1)*f.width])
				b.Labels[b.N], b.Mask[b.N] = f.labels[index], 1
				b.Index = append(b.Index, index)
				b.N++
			}
			if b.N == 0 {
				yield(nil, errors.New("training: all images of a batch are damaged"))
				return
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// evaluateNow predicts the images to evaluate on by the present parameters.
func (r *run) evaluateNow(ctx context.Context, progress func(done, total int)) (*Evaluation, error) {
	smoothing := r.Config.LabelSmoothingFactor
	if r.head == nil {
		return Evaluate(ctx, r.predictor, r.Eval, r.Labels, smoothing, progress)
	}
	if r.evalFeatures == nil {
		var err error
		if r.evalFeatures, err = r.extract(ctx, r.Eval, model.Predicting); err != nil {
			return nil, err
		}
	}
	return evaluate(r.evalFeatures.epoch(ctx, 0, 0), r.Eval, r.Labels, smoothing, progress, func(b *Batch) ([]float32, error) {
		return r.head.Logits(b.Features[:b.N*r.evalFeatures.width], b.N)
	})
}

// trainingBatches are those of an epoch from the given one on.
func (r *run) trainingBatches(ctx context.Context, epoch, from int) (iter.Seq2[*Batch, error], error) {
	if !r.keepableInTraining() {
		return r.Train.Epoch(ctx, epoch, from), nil
	}
	if r.trainFeatures == nil {
		var err error
		if r.trainFeatures, err = r.extract(ctx, r.Train, model.Training); err != nil {
			return nil, err
		}
	}
	return r.trainFeatures.epoch(ctx, epoch, from), nil
}
