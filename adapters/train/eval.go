package train

import (
	"context"
	"math"

	"github.com/hubtool/hubtool/model"
)

// Evaluation is how well a model does on labelled images.
type Evaluation struct {
	N        int          `json:"n"`
	Loss     float64      `json:"loss"` // mean cross entropy
	Accuracy float64      `json:"accuracy"`
	PerClass []ClassScore `json:"per_class"`

	// Confusion counts images by their class and then by the predicted one.
	Confusion [][]int `json:"-"`
}

// ClassScore is the part of one class. Precision is 0 where nothing was predicted to be of the class.
type ClassScore struct {
	Label     string  `json:"label"`
	N         int     `json:"n"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
}

// Evaluate predicts all images of the loader and compares with their labels. progress, which may be
// nil, is told how many images are done.
func Evaluate(ctx context.Context, p *model.Predictor, l *Loader, labels []string, progress func(done, total int)) (*Evaluation, error) {
	e := &Evaluation{PerClass: make([]ClassScore, len(labels))}
	for range labels {
		e.Confusion = append(e.Confusion, make([]int, len(labels)))
	}
	for batch, err := range l.Epoch(ctx, 0, 0) {
		if err != nil {
			return nil, err
		}
		logits, err := p.Logits(batch.Pixels, len(batch.Labels))
		if err != nil {
			return nil, err
		}
		for i, label := range batch.Labels {
			row := logits[i*len(labels) : (i+1)*len(labels)]
			best := argmax(row)
			e.Loss += logSumExp(row) - float64(row[label])
			e.PerClass[label].N++
			e.Confusion[label][best]++
		}
		e.N += len(batch.Labels)
		if progress != nil {
			progress(e.N, l.Source.Len())
		}
	}
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
	return e, nil
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
