package train

import (
	"cmp"
	"context"
	"iter"
	"math"
	"slices"

	"github.com/hubtool/hubtool/model"
)

// Evaluation is how well a model does on labelled images.
type Evaluation struct {
	N        int          `json:"n"`
	Loss     float64      `json:"loss"` // mean cross entropy
	Accuracy float64      `json:"accuracy"`
	PerClass []ClassScore `json:"per_class"`

	// CalibrationError is how far confidence and accuracy are apart, on average over images. Guo et al.
	// 2017, "On Calibration of Modern Neural Networks", with as many bins.
	CalibrationError float64 `json:"expected_calibration_error"`

	// Confusion counts images by their class and then by the predicted one.
	Confusion [][]int `json:"-"`

	Calibration [calibrationBins]Bin `json:"-"`
	Mistakes    []Mistake            `json:"-"` // the worst, by loss, the worst first
}

// ClassScore is the part of one class. Precision is 0 where nothing was predicted to be of the class.
type ClassScore struct {
	Label     string  `json:"label"`
	N         int     `json:"n"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
}

// Bin holds the images whose predicted class got a probability in [i/n, (i+1)/n), for bin i of n.
type Bin struct {
	N          int
	Confidence float64 // mean probability of the predicted class
	Accuracy   float64
}

// Mistake is an image that was taken for another class.
type Mistake struct {
	Index            int // in the source
	Label, Predicted int
	Confidence       float64 // probability of the predicted class
	Loss             float64
}

const calibrationBins, maxMistakes = 15, 24

// Evaluate predicts all images of the loader and compares with their labels. smoothing is the
// label_smoothing_factor of the loss. progress, which may be nil, is told how many images are done.
func Evaluate(ctx context.Context, p *model.Predictor, l *Loader, labels []string, smoothing float64, progress func(done, total int)) (*Evaluation, error) {
	return evaluate(l.Epoch(ctx, 0, 0), l, labels, smoothing, progress, func(b *Batch) ([]float32, error) {
		return p.Logits(b.images(), b.N)
	})
}

// evaluate compares what predict makes of the loader's batches with their labels.
func evaluate(batches iter.Seq2[*Batch, error], l *Loader, labels []string, smoothing float64, progress func(done, total int), predict func(*Batch) ([]float32, error)) (*Evaluation, error) {
	e := &Evaluation{PerClass: make([]ClassScore, len(labels))}
	for range labels {
		e.Confusion = append(e.Confusion, make([]int, len(labels)))
	}
	target := make([]float32, len(labels))
	for batch, err := range batches {
		if err != nil {
			return nil, err
		}
		logits, err := predict(batch)
		if err != nil {
			return nil, err
		}
		for i, label := range batch.Labels[:batch.N] {
			row := logits[i*len(labels) : (i+1)*len(labels)]
			batch.target(i, smoothing, target)
			e.add(row, target, int(label), batch.Index[i])
		}
		if progress != nil {
			progress(e.N, l.Source.Len())
		}
	}
	e.sum(labels)
	return e, nil
}

// add counts one image by its logits.
func (e *Evaluation) add(logits, target []float32, label, index int) {
	best, normalizer := argmax(logits), logSumExp(logits)
	loss := 0.0
	for c, v := range logits {
		loss += float64(target[c]) * (normalizer - float64(v))
	}
	e.N++
	e.Loss += loss
	e.PerClass[label].N++
	e.Confusion[label][best]++
	confidence := math.Exp(float64(logits[best]) - normalizer)
	bin := &e.Calibration[min(calibrationBins-1, max(0, int(confidence*calibrationBins)))] // of NaN as well
	bin.N++
	bin.Confidence += confidence
	if best == label {
		bin.Accuracy++
		return
	}
	m := Mistake{index, label, best, confidence, loss}
	at, _ := slices.BinarySearchFunc(e.Mistakes, m, func(a, b Mistake) int { return cmp.Or(cmp.Compare(b.Loss, a.Loss), a.Index-b.Index) })
	e.Mistakes = slices.Insert(e.Mistakes, at, m)
	e.Mistakes = e.Mistakes[:min(maxMistakes, len(e.Mistakes))]
}

// sum turns counts into shares.
func (e *Evaluation) sum(labels []string) {
	hits := 0
	for i, label := range labels {
		e.PerClass[i].Label = label
		correct, predicted := e.Confusion[i][i], 0
		for _, row := range e.Confusion {
			predicted += row[i]
		}
		e.PerClass[i].Precision = ratio(correct, predicted)
		e.PerClass[i].Recall = ratio(correct, e.PerClass[i].N)
		hits += correct
	}
	e.Loss /= float64(max(1, e.N))
	e.Accuracy = ratio(hits, e.N)
	for i := range e.Calibration {
		bin := &e.Calibration[i]
		n := float64(max(1, bin.N))
		bin.Confidence, bin.Accuracy = bin.Confidence/n, bin.Accuracy/n
		e.CalibrationError += ratio(bin.N, e.N) * math.Abs(bin.Accuracy-bin.Confidence)
	}
}

func ratio(part, whole int) float64 { return float64(part) / float64(max(1, whole)) }

func argmax(row []float32) int {
	best := 0
	for i, v := range row {
		if v > row[best] {
			best = i
		}
	}
	return best
}

func logSumExp(row []float32) float64 {
	top, sum := float64(row[argmax(row)]), 0.0
	for _, v := range row {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}
